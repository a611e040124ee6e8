"""What the words around a table tell of the unit of its figures, learnt from rows."""

from __future__ import annotations

import math

import pytest

pytest.importorskip("numpy")

from orchestra.agents.inference.tables.scales import SIGNS, UNITS, signs
from orchestra.learn.data.dataset import Row
from orchestra.learn.encoders.tables import _units
from orchestra.learn.encoders.units import fitted

HEADS = {"thousand": "in thousands", "million": "£m", "billion": "€bn"}


def row(unit: str, head: str = "", text: str = "") -> tuple[list[list[bool]], str]:
    return signs("", [[head]], [["Sales", "12"]], [text]), unit


def test_without_rows_all_units_are_alike() -> None:
    found = fitted([])
    assert found.logits(signs("", [["in millions"]], [], [])) == pytest.approx([-math.log(3)] * 3)


def test_what_stands_above_a_table_outweighs_what_is_said_of_one_figure_where_rows_show_it() -> None:
    rows = [row("thousand", HEADS["thousand"], "a loss of $5 million")] * 20 + [
        row("million", HEADS["million"], "some thousand people")
    ] * 20
    found = fitted(rows)
    weights = dict(zip(SIGNS, found.signs, strict=True))
    assert weights["word.head"] + weights["stated.head"] > 3 * weights["word.text"]
    for unit, head in HEADS.items():
        told = found.logits(signs("", [[head]], [], ["a loss of $5 million, and some thousand people"]))
        assert UNITS[told.index(max(told))] == unit, "no row is in billions: a sign counts alike for all"


def test_where_nothing_is_said_the_usual_unit_is_likeliest() -> None:
    told = fitted([row("million")] * 30 + [row("thousand")] * 10).logits(signs("", [], [], []))
    assert math.exp(told[1]) == pytest.approx(0.72, abs=0.04)
    assert told[1] > told[0] > told[2]


def test_the_same_rows_give_the_same_weights_in_any_order_and_more_rows_greater_ones() -> None:
    rows = [row(unit, head) for unit, head in HEADS.items()]
    few, many = fitted(rows), fitted(rows * 100)
    assert many == fitted((rows * 100)[::-1])
    assert 0 < 2 * max(few.signs) < max(many.signs) < 10, "they are held small, and the more so the less is known"
    assert max(few.signs) == pytest.approx(0.8284, abs=0.001), "as much as half of the square of a weight costs"


def test_a_few_steps_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row("thousand", text="5 million")] * 30 + [row("million", HEADS["million"])] * 20 + [row("billion", text="in billions")] * 2
    whole = fitted(rows)
    monkeypatch.setattr("orchestra.learn.encoders.units.STEPS", 8)
    assert fitted(rows) == whole


def test_rows_of_a_data_set_tell_by_where_a_word_stands() -> None:
    def given(head: str, cell: str, scale: str) -> Row:
        inputs = {"ask": "how much ?", "grid": [["name", head], ["ada", cell]], "prose": ["a text"]}
        return Row(f"{head}{cell}{scale}", inputs, {"scale": scale}, "g")

    rows = [given("in millions", "one thousand", "million"), given("in thousands", "5 million", "thousand")] * 10
    others = [given("in billions", "", scale) for scale in ("", "percent")] * 20
    inputs = {"question": "ask", "table": "grid", "paragraphs": "prose"}
    found = dict(zip(SIGNS, _units([*rows, *others], inputs).signs, strict=True))
    assert found["word.head"] + found["stated.head"] > 1 > 0 > found["word.rows"]
    assert _units([*rows, *others], inputs) == _units(rows, inputs), "answers without a unit tell nothing of it"

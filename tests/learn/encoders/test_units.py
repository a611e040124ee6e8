"""The unit of a table's figures, learnt from the words around the table."""

from __future__ import annotations

import math

import pytest

pytest.importorskip("numpy")

from orchestra.agents.inference.tables.scales import UNIT_SIGNS, UNITS, unit_signs
from orchestra.learn.data.dataset import DatasetRow
from orchestra.learn.encoders.tables import _fit_units, fit_units

HEADS = {"thousand": "in thousands", "million": "£m", "billion": "€bn"}


def row(unit: str, head: str = "", text: str = "") -> tuple[list[list[bool]], str]:
    return unit_signs("", [[head]], [["Sales", "12"]], [text]), unit


def test_fit_units_without_rows_is_uniform() -> None:
    found = fit_units([])
    assert found.logits(unit_signs("", [["in millions"]], [], [])) == pytest.approx([-math.log(3)] * 3)


def test_fit_units_heading_outweighs_figure_if_rows_show_it() -> None:
    rows = [row("thousand", HEADS["thousand"], "a loss of $5 million")] * 20 + [
        row("million", HEADS["million"], "some thousand people")
    ] * 20
    found = fit_units(rows)
    weights = dict(zip(UNIT_SIGNS, found.signs, strict=True))
    assert weights["word.head"] + weights["stated.head"] > 3 * weights["word.text"]
    for unit, head in HEADS.items():
        told = found.logits(unit_signs("", [[head]], [], ["a loss of $5 million, and some thousand people"]))
        assert UNITS[told.index(max(told))] == unit, "no row is in billions: a sign counts alike for all"


def test_fit_units_without_signs_prefers_usual_unit() -> None:
    told = fit_units([row("million")] * 30 + [row("thousand")] * 10).logits(unit_signs("", [], [], []))
    assert math.exp(told[1]) == pytest.approx(0.72, abs=0.04)
    assert told[1] > told[0] > told[2]


def test_fit_units_order_free_and_grows_with_rows() -> None:
    rows = [row(unit, head) for unit, head in HEADS.items()]
    few, many = fit_units(rows), fit_units(rows * 100)
    assert many == fit_units((rows * 100)[::-1])
    assert 0 < 2 * max(few.signs) < max(many.signs) < 10, "they are held small, and the more so the less is known"
    assert max(few.signs) == pytest.approx(0.8284, abs=0.001), "as much as half of the square of a weight costs"


def test_fit_units_converges_in_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = (
        [row("thousand", text="5 million")] * 30
        + [row("million", HEADS["million"])] * 20
        + [row("billion", text="in billions")] * 2
    )
    whole = fit_units(rows)
    monkeypatch.setattr("orchestra.learn.encoders.tables.MAX_NEWTON_STEPS", 8)
    assert fit_units(rows) == whole


def test_fit_units_uses_position_of_words() -> None:
    def given(head: str, cell: str, scale: str) -> DatasetRow:
        inputs = {"ask": "how much ?", "grid": [["name", head], ["ada", cell]], "prose": ["a text"]}
        return DatasetRow(f"{head}{cell}{scale}", inputs, {"scale": scale}, "g")

    rows = [given("in millions", "one thousand", "million"), given("in thousands", "5 million", "thousand")] * 10
    others = [given("in billions", "", scale) for scale in ("", "percent")] * 20
    inputs = {"question": "ask", "table": "grid", "paragraphs": "prose"}
    found = dict(zip(UNIT_SIGNS, _fit_units([*rows, *others], inputs).signs, strict=True))
    assert found["word.head"] + found["stated.head"] > 1 > 0 > found["word.rows"]
    assert _fit_units([*rows, *others], inputs) == _fit_units(rows, inputs), "answers without a unit tell nothing of it"

"""What the words around a table tell of the unit of its figures, learnt from rows."""

from __future__ import annotations

import math

import pytest

pytest.importorskip("numpy")

from orchestra.agent.units import SIGNS, UNITS, signs
from orchestra.learn.units import fitted

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


def test_the_same_rows_give_the_same_weights_in_any_order_and_none_is_without_end() -> None:
    rows = [row(unit, head) for unit, head in HEADS.items()] * 100
    assert fitted(rows) == fitted(rows[::-1])
    assert all(abs(weight) < 30 for weight in (*fitted(rows).signs, *fitted(rows).usual))

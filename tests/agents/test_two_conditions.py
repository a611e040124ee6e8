"""Tests two conditions: the rows that match both, the figures of the second one, and the confidence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

np = pytest.importorskip("numpy")
pytest.importorskip("tokenizers")

from orchestra.agents.inference.encoder import Encoder  # noqa: E402
from orchestra.agents.inference.tables.encoding import TableEncoding  # noqa: E402
from orchestra.agents.inference.tables.filters import choice_logits, condition_choices  # noqa: E402
from orchestra.agents.inference.tables.reader import TableReader  # noqa: E402
from orchestra.testing.tiny_encoder import write_encoder  # noqa: E402
from orchestra.text.numbers.sort_keys import BELOW, BOUNDS, FROM, UP_TO  # noqa: E402
from tests.agents.tables import (  # noqa: E402
    WORDS,
    Hand,
    answer,
    arrays,
    share,
    sigmoid,
    spot,
    sure,
    told,
    way_and_scale,
    write,
)

TABLE = [
    ["name", "age", "books"],
    ["ada", "36", "12"],
    ["grace", "85", "7"],
    ["alan", "40", "9"],
    ["donald", "20", "15"],
]
ADA, GRACE, ALAN, DONALD = 1, 2, 3, 4
NAME, AGE, BOOKS = 0, 1, 2
BOTH = "who of 30 and with 10 books ?"


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> TableReader:
    base: Path = write_encoder(tmp_path_factory.mktemp("base"), WORDS)
    return TableReader.load(write(tmp_path_factory.mktemp("card"), arrays()), Encoder.load(base))


def sheet_of(reader: TableReader, question: str = BOTH) -> TableEncoding:
    return reader.encode_inputs({"question": question, "table": TABLE, "paragraphs": []})


def both(way: str, **more: Any) -> Hand:
    """Returns logits of two conditions: at least 30, and at least 10 books."""
    first: dict[str, Any] = {"bounded": {AGE: 3.0}, "limits": {"30": 5.0}, "bound": FROM}
    second: dict[str, Any] = {"also": {BOOKS: 3.0}, "also_limits": {"10": 5.0}, "also_bound": FROM}
    return Hand([way], **{"rows": dict.fromkeys(range(5), 4.0), **first, **second, **more})


SAID: dict[str, Any] = {
    "condition": {"column": AGE, "bound": FROM, "limit": "30"},
    "also": {"column": BOOKS, "bound": FROM, "limit": "10"},
}


def test_count_with_two_conditions_cites_a_cell_of_each(reader: TableReader) -> None:
    said = answer(reader, sheet_of(reader), both("count"))
    assert said == told("count", expression="1", rows=[ADA], cells=[[ADA, AGE], [ADA, BOOKS]], **SAID)


def test_count_without_second_condition_uses_the_first(reader: TableReader) -> None:
    said = answer(reader, sheet_of(reader), both("count", also_bound="none"))
    assert (said["rows"], said["condition"], said["also"]) == ([ADA, GRACE, ALAN], SAID["condition"], None)


def test_second_condition_needs_the_first(reader: TableReader) -> None:
    said = answer(reader, sheet_of(reader), both("count", bound="none"))
    assert (said["rows"], said["condition"], said["also"]) == ([ADA, GRACE, ALAN, DONALD], None, None)


@pytest.mark.parametrize(
    ("way", "more", "answered"),
    [
        ("cells", {"asked": {NAME: 2.0}}, {"quotes": ["ada"], "cells": [[ADA, NAME], [ADA, AGE], [ADA, BOOKS]]}),
        ("sum", {"asked": {BOOKS: 2.0}, "also_bound": UP_TO}, {"expression": "7 + 9"}),
        ("mean", {"asked": {AGE: 2.0}, "also_bound": UP_TO}, {"expression": "(85 + 40) / 2"}),
        (
            "most",
            {"asked": {NAME: 2.0}, "by": {BOOKS: 2.0}, "also_bound": UP_TO},
            {"quotes": ["alan"], "rows": [GRACE, ALAN]},
        ),
        ("range", {"by": {AGE: 2.0}, "also_bound": UP_TO}, {"expression": "85 - 40"}),
    ],
)
def test_each_operation_uses_rows_that_match_both_conditions(
    reader: TableReader, way: str, more: dict[str, Any], answered: dict[str, Any]
) -> None:
    said = answer(reader, sheet_of(reader), both(way, **more))
    assert answered.items() <= said.items()


def test_second_condition_figure_follows_the_first(reader: TableReader) -> None:
    sheet = sheet_of(reader)
    hand = both("count", limits={"10": 5.0}, bounded={BOOKS: 3.0}, also_limits={"30": 9.0, "10": 9.0}, also={AGE: 3.0})
    said = answer(reader, sheet, hand)
    assert (said["condition"], said["also"]) == (SAID["also"], None), "the first is before it, and the second the same"
    behind = spot(sheet, "10")
    open_to = choice_logits(sheet, np.zeros(len(sheet.locations)), np.zeros(1 + len(BOUNDS)), spot(sheet, "30"))
    assert [one > -1e3 for one in open_to] == [at == behind for at, _ in condition_choices(sheet)]


def test_two_conditions_may_share_a_column(reader: TableReader) -> None:
    hand = Hand(
        ["count"],
        rows=dict.fromkeys(range(5), 4.0),
        bounded={AGE: 3.0},
        limits={"30": 5.0},
        bound=FROM,
        also={AGE: 3.0},
        also_limits={"50": 5.0},
        also_bound=BELOW,
    )
    said = answer(reader, sheet_of(reader, "who is between 30 and 50 ?"), hand)
    assert said["rows"] == [ADA, ALAN]
    assert said["cells"] == [[ADA, AGE], [ALAN, AGE]], "each once"


def test_second_condition_column_needs_a_row_that_matches_both(reader: TableReader) -> None:
    sheet = sheet_of(reader, "who is over 50 and with under 9 books ?")
    both_of = {
        "bound": "above",
        "limits": {"50": 5.0},
        "also_limits": {"9": 5.0},
        "also_bound": BELOW,
        "also": {AGE: 5.0, BOOKS: 2.0},
    }
    said = answer(reader, sheet, both("count", **both_of))
    assert (said["also"]["column"], said["rows"]) == (BOOKS, [GRACE]), "no person is over 50 and under 9 years old"
    none = sheet_of(reader, "who is over 90 and with under 9 books ?")
    said = answer(reader, none, both("count", **both_of | {"limits": {"90": 5.0}}))
    assert (said["also"]["column"], said["rows"]) == (AGE, []), "where no column helps the likeliest one stays"


def test_confidence_multiplies_both_conditions(reader: TableReader) -> None:
    sheet, hand = sheet_of(reader), both("count", also={BOOKS: -5.0})
    logits, at = hand.logits(sheet), (spot(sheet, "10"), BOUNDS.index(FROM))
    chance = 1.0
    for which, limits, bounds, place, column in (
        (logits.condition_columns, logits.limits, logits.bounds, (spot(sheet, "30"), BOUNDS.index(FROM)), AGE),
        (logits.extra_columns, logits.extra_limits, logits.extra_bounds, at, BOOKS),
    ):
        after = -1 if column == AGE else spot(sheet, "30")
        made = np.array([bounds[0], *choice_logits(sheet, limits, bounds, after)])
        chance *= share(made, 1 + condition_choices(sheet).index(place)) * share(which, column)
    assert chance < 0.99
    assert sure(reader, sheet, hand) == pytest.approx(chance * sigmoid(4.0) * way_and_scale(logits, "count"))

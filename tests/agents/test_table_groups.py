"""Tests table readers: groups of cells and rows, pairs of distant figures, and operations without locations."""

from __future__ import annotations

import pytest

pytest.importorskip("numpy")
pytest.importorskip("tokenizers")

from orchestra.agents.card import Card
from orchestra.agents.inference.tables.reader import TableReader
from tests.agents.inference.tables.test_reader import (
    ADA,
    AGE,
    ALAN,
    BOOKS,
    GRACE,
    TABLE,
    TOTAL,
    card,
    encoder,
    reader,
    sheet_of,
)
from tests.agents.tables import Hand, answer, arrays, sure

__all__ = ["card", "encoder", "reader"]


def other(reader: TableReader, card: Card, **settled: float) -> TableReader:
    """Returns a reader with other settings."""
    return TableReader(reader.config.model_copy(update=settled), arrays(), reader.encoder, card)


def test_group_whole_column_is_likelier_than_all_but_one(reader: TableReader, card: Card) -> None:
    table = [*TABLE[:2], ["grace", "85", "4"], *TABLE[3:]]
    sheet, columns = sheet_of(reader, table=table), other(reader, card, groups=4.0)
    hand = Hand(["sum"], cells={(ADA, BOOKS): 3.0, (GRACE, BOOKS): -1.0, (ALAN, BOOKS): 3.0, (TOTAL, BOOKS): -2.0})
    assert answer(reader, sheet, hand)["expression"] == "12 + 9"
    assert answer(columns, sheet, hand)["expression"] == "12 + 4 + 9", "and not the total"
    assert answer(columns, sheet_of(reader), hand)["expression"] == "12 + 9", "a dash is no figure"
    assert sure(reader, sheet, hand) < sure(columns, sheet, hand)


def test_group_rows_named_by_word_are_likelier_than_all_but_one(reader: TableReader, card: Card) -> None:
    table = [["name", "rooms"], ["ada", "barbara"], ["grace", "edsger"], ["alan", "edsger"], ["total", "edsger"]]
    sheet, groups = sheet_of(reader, "how many has edsger ?", table), other(reader, card, groups=4.0)
    hand = Hand(["count"], rows={GRACE: 3.0, ALAN: -1.0, TOTAL: 2.0})
    assert (answer(reader, sheet, hand)["rows"], answer(groups, sheet, hand)["rows"]) == (
        [GRACE, TOTAL],
        [GRACE, ALAN, TOTAL],
    )
    assert answer(groups, sheet_of(reader, "how many are of ada ?", table), hand)["rows"] == [GRACE, TOTAL]


def test_group_rows_named_by_word_must_match_condition(reader: TableReader, card: Card) -> None:
    table = [
        ["name", "rooms", "age"],
        ["ada", "edsger", "8"],
        ["grace", "edsger", "3"],
        ["alan", "edsger", "9"],
        ["total", "barbara", "7"],
    ]
    sheet, groups = sheet_of(reader, "how many of edsger are 5 ?", table), other(reader, card, groups=4.0)
    hand = Hand(["count"], rows={ADA: 3.0, GRACE: 9.0, ALAN: -1.0}, bounded={2: 4.0}, limits={"5": 9.0}, bound="above")
    assert (answer(reader, sheet, hand)["rows"], answer(groups, sheet, hand)["rows"]) == ([ADA], [ADA, ALAN])


def test_pair_prefers_figures_in_one_row_or_column(reader: TableReader, card: Card) -> None:
    sheet, together = sheet_of(reader), other(reader, card, apart=2.0)
    hand = Hand(["gap"], first={(ADA, AGE): 5.0}, second={(TOTAL, BOOKS): 4.0, (GRACE, AGE): 3.0})
    assert (answer(reader, sheet, hand)["expression"], answer(together, sheet, hand)["expression"]) == (
        "36 - 21",
        "85 - 36",
    )
    row = Hand(["gap"], first={(ADA, AGE): 5.0}, second={(TOTAL, BOOKS): 4.0, (ADA, BOOKS): 3.0})
    assert answer(together, sheet, row)["expression"] == "36 - 12"
    beside = Hand(["product"], first={(ADA, AGE): 5.0}, second={(TOTAL, AGE): 3.0, "5": 4.0})
    assert answer(together, sheet, beside)["expression"] == "36 * 5", "a figure of the question is not apart from any"


def test_operation_with_ambiguous_locations_yields_to_clear_one(reader: TableReader, card: Card) -> None:
    sheet, regarding = sheet_of(reader), other(reader, card, regard=1.0)
    torn = Hand(["product", "cells"], cells={(ADA, BOOKS): 9.0})
    assert (answer(reader, sheet, torn)["way"], answer(regarding, sheet, torn)["way"]) == ("product", "cells")
    clear = Hand(["product", "cells"], cells={(ADA, BOOKS): 9.0}, first={(ADA, AGE): 9.0}, second={(ADA, BOOKS): 9.0})
    assert answer(regarding, sheet, clear)["way"] == "product"

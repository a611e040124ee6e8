"""Tests table readers on number formats that are not English: sums, comparisons and bounds."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

pytest.importorskip("numpy")
pytest.importorskip("tokenizers")

from orchestra.agents.inference.encoder import Encoder
from orchestra.agents.inference.tables.reader import TableReader
from orchestra.text.arithmetic import evaluate
from orchestra.text.numbers.sort_keys import ABOVE
from tests.agents.inference.tables.test_reader import card, encoder, reader, sheet_of
from tests.agents.tables import Hand, answer

__all__ = ["Encoder", "card", "encoder", "reader"]
GERMAN = [
    ["name", "age", "books"],
    ["ada", "1.500", "1.234,50 €"],
    ["grace", "900", "999,00 €"],
    ["alan", "2.250", "12,5 €"],
]
AMERICAN = [["name", "age"], ["ada", "01/20/2024"], ["grace", "02/01/2024"], ["alan", "12/05/2024"]]
ADA, GRACE, ALAN = 1, 2, 3
NAME, AGE, BOOKS = 0, 1, 2


def found(
    reader: TableReader, table: list[list[str]], hand: Hand, question: str = "what is it ?", text: str = ""
) -> dict[str, Any]:
    return answer(reader, sheet_of(reader, question, table, [text] if text else []), hand)


def test_sum_uses_number_format_of_column(reader: TableReader) -> None:
    rows = (ADA, GRACE, ALAN)
    said = found(reader, GERMAN, Hand(["sum"], cells={(row, BOOKS): 3.0 for row in rows}))
    assert (said["expression"], evaluate(said["expression"])) == ("1234.50 + 999.00 + 12.5", Fraction(2246))
    other = found(reader, GERMAN, Hand(["sum"], cells={(row, AGE): 3.0 for row in rows}))
    assert other["expression"] == "1500 + 900 + 2250", "the other column tells what points are"


@pytest.mark.parametrize("rows", [[], [ADA, GRACE]])
def test_comparison_uses_number_format_of_table(reader: TableReader, rows: list[int]) -> None:
    hand = Hand(["least"], rows=dict.fromkeys(rows, 4.0), by={AGE: 3.0}, asked={NAME: 2.0})
    assert found(reader, GERMAN, hand)["quotes"] == ["grace"]
    assert found(reader, GERMAN, Hand(["range"], by={AGE: 3.0}))["expression"] == "2250 - 900"


def test_bounds_use_number_format_of_table(reader: TableReader) -> None:
    hand = Hand(
        ["count"], rows=dict.fromkeys((ADA, GRACE, ALAN), 4.0), bounded={AGE: 3.0}, limits={"1,200": 5.0}, bound=ABOVE
    )
    assert found(reader, GERMAN, hand, "how many of 1,200 ?")["rows"] == [ADA, ALAN]


def test_latest_date_uses_month_order_of_unambiguous_dates(reader: TableReader) -> None:
    hand = Hand(["least"], rows={GRACE: 4.0, ALAN: 4.0}, by={AGE: 3.0}, asked={NAME: 2.0})
    assert found(reader, AMERICAN, hand)["quotes"] == ["grace"]
    assert found(reader, AMERICAN, Hand(["most"], by={AGE: 3.0}, asked={NAME: 2.0}))["quotes"] == ["alan"]


def test_notes_do_not_affect_other_columns(reader: TableReader) -> None:
    table = [["name", "of", "age"], ["ada", "1,2", "1.250"], ["grace", "3", "2.500"]]
    assert (
        found(reader, table, Hand(["sum"], cells={(ADA, AGE + 1): 3.0, (GRACE, AGE + 1): 3.0}))["expression"]
        == "1.250 + 2.500"
    )


def test_text_figures_keep_all_their_digits(reader: TableReader) -> None:
    sheet = sheet_of(
        reader, "what ?", [["name", "age"], ["ada", "36"]], ["it is 1.234,50 of 1.234.567 and $1,200.50 ( 1.5 )"]
    )
    assert [one.figure for one in sheet.locations if one.row < 0] == ["1234.50", "1234567", "1,200.50", "1.5"]


MIXED = [["name", "age", "books"], ["ada", "1 h 5 min", "$1.5M"], ["grace", "2 h", "$900K"], ["alan", "5 min", "$20K"]]


def test_sum_of_durations_is_in_minutes(reader: TableReader) -> None:
    rows = (ADA, GRACE, ALAN)
    said = found(reader, MIXED, Hand(["sum"], cells={(row, AGE): 3.0 for row in rows}))
    assert (said["expression"], evaluate(said["expression"])) == ("(1 * 60 + 5) + (2 * 60 + 0) + 5", Fraction(190))


def test_sum_of_mixed_scales_yields_to_next_operation(reader: TableReader) -> None:
    said = found(reader, MIXED, Hand(["sum", "cells"], cells={(row, BOOKS): 3.0 for row in (ADA, GRACE)}))
    assert (said["way"], said["expression"], said["quotes"]) == ("cells", None, ["$1.5M", "$900K"])
    alike = found(reader, MIXED, Hand(["sum", "cells"], cells={(row, BOOKS): 3.0 for row in (GRACE, ALAN)}))
    assert alike["expression"] == "900 + 20"

"""Cells: numbers of an expression and quoted words are located in the table, under the headings in the question."""

from __future__ import annotations

import sys

import pytest

from orchestra.text.numbers.numbers import Number, find_numbers
from orchestra.tools import cells

TABLE = [
    ["", "Years ended June 30,", ""],
    ["(in thousands)", "2019", "2018"],
    ["Audit fees", "$58,000", "$55,000"],
    ["Tax fees", "28,000", "55,000"],
    ["Loss", "(1,250)", "-"],
    ["Margin", "17.7%", "n/a"],
]


def found(question: str, expression: str | None = None, quotes: tuple[str, ...] = ()) -> list[tuple[int, int]]:
    return [(cell.row, cell.column) for cell in cells(question, TABLE, expression, quotes)]


@pytest.mark.parametrize(
    ("question", "expression", "places"),
    [
        ("By how much did audit fees change?", "58,000 - 55000", [(2, 1), (2, 2)]),
        ("What were tax fees in 2018?", "55000", [(3, 2)]),
        ("What were the fees?", "55000", [(2, 2)]),
        ("What was the loss?", "-1250 * 100", [(4, 1)]),
        ("What was the margin?", "17.7 / 100", [(5, 1)]),
        ("What was the margin?", "0.177", [(5, 1)]),
        ("What?", "58000 + 58000", [(2, 1)]),
        ("What?", "41 + 1", []),
        ("What?", "fees", []),
        ("What?", None, []),
    ],
)
def test_cells_number_maps_to_intended_cell(
    question: str, expression: str | None, places: list[tuple[int, int]]
) -> None:
    assert found(question, expression) == places


def test_cells_quote_maps_to_its_cell() -> None:
    assert found("Which fees?", None, ("tax  FEES", "a paragraph's words", "")) == [(3, 0)]


def test_cells_cell_has_row_and_column_names() -> None:
    (cell,) = cells("Audit fees?", TABLE, "58000")
    assert (cell.text, cell.row_heading, cell.column_heading) == ("$58,000", "Audit fees", "Years ended June 30, 2019")


def test_cells_empty_table_has_none() -> None:
    assert cells("What?", [], "1 + 1", ["a"]) == []
    assert cells("What?", [[]], "1 + 1", ["a"]) == []


@pytest.mark.parametrize(
    ("places", "found"),
    [([(3, 1), (2, 2)], [(3, 1), (2, 2)]), ([(4, 2), (0, 0), (9, 0), (2, 9)], [(4, 2)]), ([], []), ([(-1, 0)], [])],
)
def test_cells_explicit_positions_need_no_text_match(
    places: list[tuple[int, int]], found: list[tuple[int, int]]
) -> None:
    """Positions that exist and have a text are used; the expression and the quotes have no influence."""
    made = cells("What were audit fees in 2018?", TABLE, "55,000 - 28,000", ["Audit fees"], places)
    assert [(cell.row, cell.column) for cell in made] == found


def test_cells_numbers_of_cell_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def counted(text: str) -> list[Number]:
        read.append(text)
        return find_numbers(text)

    monkeypatch.setattr(sys.modules["orchestra.text.numbers.numbers"], "find_numbers", counted)
    table = [["name", "count"], *([f"row {row}", str(7000 + row)] for row in range(60))]
    made = cells("What is the sum?", table, " + ".join(str(7000 + row) for row in range(60)))
    assert sorted((cell.row, cell.column) for cell in made) == [(1 + row, 1) for row in range(60)]
    assert len(read) == 122

"""Tables: headers, types of columns, values of cells, addresses."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.documents.tables import (
    cell_location,
    column_letters,
    count_header_rows,
    detect_column,
    find_blocks,
    is_records,
    make_table,
    parse_cell,
    records_to_cells,
    row_texts,
    typed_rows,
)


@pytest.mark.parametrize(
    ("texts", "type_", "unit", "values"),
    [
        (["1", "2,000", "-"], "integer", "", [Decimal(1), Decimal(2000), None]),
        (["1.5", "(2)"], "number", "", [Decimal("1.5"), Decimal(-2)]),
        (["1.234,50", "12,5"], "number", "", [Decimal("1234.50"), Decimal("12.5")]),
        (["1 234,5", "7"], "number", "", [Decimal("1234.5"), Decimal(7)]),
        (["12.5 %", "7%"], "percent", "%", [Decimal("0.125"), Decimal("0.07")]),
        (["€1,200", "€ 3.50"], "money", "EUR", [Decimal(1200), Decimal("3.50")]),
        (["EUR 5", "-7 EUR"], "money", "EUR", [Decimal(5), Decimal(-7)]),
        (["12 kg", "1.5 kg"], "number", "kg", [Decimal(12), Decimal("1.5")]),
        (["2024-05-01", ""], "date", "", [date(2024, 5, 1), None]),
        (["3.4.2024", "30.4.2024"], "date", "", [date(2024, 4, 3), date(2024, 4, 30)]),
        (["4/3/2024", "4/30/2024"], "date", "", [date(2024, 4, 3), date(2024, 4, 30)]),
        (["3 May 2024", "May 4, 2024"], "date", "", [date(2024, 5, 3), date(2024, 5, 4)]),
        (["2024-05-01 10:30", "2024-05-02"], "datetime", "", [datetime(2024, 5, 1, 10, 30), date(2024, 5, 2)]),
        (["true", "FALSE"], "boolean", "", [True, False]),
        (["007", "012"], "text", "", ["007", "012"]),
        (["4111111111111111"], "text", "", ["4111111111111111"]),
        (["3.11.9", "3.12.1"], "text", "", ["3.11.9", "3.12.1"]),
        (["12 kg", "3 lb"], "text", "", ["12 kg", "3 lb"]),
        (["€5", "$5"], "text", "", ["€5", "$5"]),
        (["5%", "5"], "text", "", ["5%", "5"]),
        (["1", "two"], "text", "", ["1", "two"]),
        (["30.2.2024"], "text", "", ["30.2.2024"]),
        (["", "n/a"], "text", "", [None, None]),
    ],
)
def test_column_of_texts_has_type_and_values(texts: list[str], type_: str, unit: str, values: list[Any]) -> None:
    column = detect_column("x", texts)
    assert (column.type, column.unit) == (type_, unit)
    assert [parse_cell(text, column) for text in texts] == values


@pytest.mark.parametrize(
    ("name", "type_", "unit"),
    [("Price (EUR)", "money", "EUR"), ("Cost in $", "money", "$"), ("Size [kg]", "integer", "kg")],
)
def test_column_unit_in_header_found(name: str, type_: str, unit: str) -> None:
    column = detect_column(name, ["5", "7"])
    assert (column.type, column.unit) == (type_, unit)


@given(
    st.lists(st.decimals(-(10**9), 10**9, places=2), min_size=1, max_size=20), st.sampled_from(["en", "de", "plain"])
)
def test_column_of_written_numbers_reads_them_back(numbers: list[Decimal], style: str) -> None:
    english = [f"{number:.2f}" if style == "plain" else f"{number:,.2f}" for number in numbers]
    texts = [text.translate(str.maketrans(",.", ".,")) for text in english] if style == "de" else english
    column = detect_column("x", texts)
    assert column.type == "number"
    assert [parse_cell(text, column) for text in texts] == numbers


@given(st.lists(st.dates(date(1900, 1, 1), date(2100, 1, 1)), min_size=1, max_size=20), st.booleans())
def test_column_of_dates_with_a_late_day_is_read_back(days: list[date], month_first: bool) -> None:
    days = [*days, date(2024, 3, 31)]
    texts = [day.strftime("%m/%d/%Y" if month_first else "%d/%m/%Y") for day in days]
    column = detect_column("x", texts)
    assert column.type == "date"
    assert [parse_cell(text, column) for text in texts] == days


@given(st.lists(st.lists(st.text(max_size=12), max_size=5), max_size=8))
def test_table_of_any_texts_is_rectangular(cells: list[list[str]]) -> None:
    table = make_table(cells)
    assert {len(row) for row in table.cells} <= {len(table.columns)}
    assert len({column.name for column in table.columns}) == len(table.columns)
    assert len(typed_rows(table)) == len(row_texts(table)) == len(cells) - table.header_rows


@pytest.mark.parametrize(
    ("cells", "rows"),
    [
        ([["a", "b"], ["1", "2"]], 1),
        ([["a", "b"], ["x", "y"]], 1),
        ([["", "2019", "2020"], ["x", "1", "2"]], 1),
        ([["", "Sales", ""], ["", "2019", "2020"], ["x", "1", "2"]], 2),
        ([["Name", "Hired"], ["Bob", "–"], ["Ann", "3.4.2024"]], 1),
        ([["1", "2"], ["3", "4"]], 0),
        ([["a", "b"]], 0),
        ([], 0),
    ],
)
def test_header_rows_counted(cells: list[list[str]], rows: int) -> None:
    assert count_header_rows(cells) == rows


def test_header_over_two_columns_is_part_of_both_names() -> None:
    table = make_table([["", "Sales", ""], ["", "2019", "2020"], ["x", "1", "2"]])
    assert [column.name for column in table.columns] == ["column 1", "Sales 2019", "Sales 2020"]


def test_cell_location_names_sheet_and_address() -> None:
    cells = [["Region", "Q1"], ["North", "5"]]
    assert cell_location(make_table(cells, source="s.xlsx", sheet="Q3", row=3, column=2), 1, 1) == "s.xlsx Q3!C4"
    assert cell_location(make_table(cells, source="r.docx", sheet="table 2"), 1, 1) == "r.docx table 2 B2"
    assert cell_location(make_table(cells, source="s.csv"), 1, 0) == "s.csv A2"


def test_column_letters_after_z_have_two() -> None:
    assert [column_letters(number) for number in (1, 26, 27, 52, 703)] == ["A", "Z", "AA", "AZ", "AAA"]


def test_records_become_cells_with_all_names() -> None:
    records: list[dict[str, Any]] = [{"a": 1, "b": "x"}, {"a": 2.5, "c": True}, {"b": None}]
    assert is_records(records)
    assert records_to_cells(records) == [["a", "b", "c"], ["1", "x", ""], ["2.5", "", "true"], ["", "", ""]]


@pytest.mark.parametrize("value", [[], [1], [{"a": [1]}], {"a": 1}, "x"])
def test_other_values_are_no_records(value: Any) -> None:
    assert not is_records(value)


def test_rows_of_a_sheet_between_empty_rows_are_blocks() -> None:
    cells = [["Title"], [], ["", "a", "b"], ["", "1", "2"], [], ["", "3", "4"], [], ["note"]]
    assert [tuple(block) for block in find_blocks(cells)] == [(0, 1, 0, 1), (2, 6, 1, 3), (7, 8, 0, 1)]
    words = [["a", "b"], ["x", "1"], [], ["Name", "Place"], ["y", "z"]]
    assert [tuple(block) for block in find_blocks(words)] == [(0, 2, 0, 2), (3, 5, 0, 2)]


def test_row_text_names_each_cell() -> None:
    table = make_table([["Region", "Q1"], ["North", "5"], ["South\nWest", ""]])
    assert row_texts(table) == ["Region: North; Q1: 5", "Region: South West"]

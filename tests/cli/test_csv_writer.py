"""CSV for spreadsheets: no cell is a formula, and no number or text is lost."""

from __future__ import annotations

import ast
import csv
import io
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import orchestra
from orchestra.cli.csv_writer import FORMULA_PREFIXES, NUMBER, escape_formula, to_csv

BEGINNINGS = st.sampled_from([*FORMULA_PREFIXES, "", "a", "'", '"', " ", ",", ";"])
TEXTS = st.builds(lambda begins, rest: begins + rest, BEGINNINGS, st.text(max_size=20))
CELLS = st.one_of(TEXTS, st.integers(), st.floats(allow_nan=False, allow_infinity=False))


def read(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline="")))


@given(st.lists(st.lists(CELLS, min_size=2, max_size=4), max_size=4))
@example([["=cmd|' /C calc'!A0", "-5"], ["+1+cmd", -5], ["@SUM(1)", "\tx"]])
def test_no_cell_is_a_formula_and_each_can_be_read_back(rows: list[list[str | int | float]]) -> None:
    found = read(to_csv(rows))
    assert len(found) == len(rows)
    for cells, written in zip(found, rows, strict=True):
        for cell, value in zip(cells, written, strict=True):
            assert not cell.startswith(FORMULA_PREFIXES) or NUMBER.fullmatch(cell)
            text = str(value)
            assert cell in (text, f"'{text}")
            assert (cell == text) is (escape_formula(value) == value)


@given(st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False)))
def test_numbers_stay_numbers_as_numbers_and_as_texts(number: float) -> None:
    assert escape_formula(number) == number
    assert escape_formula(str(number)) == str(number)
    assert type(number)(read(to_csv([[number, 0]]))[0][0]) == number


@pytest.mark.parametrize("begins", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_what_begins_a_formula(begins: str) -> None:
    assert escape_formula(f"{begins}cmd|' /C calc'!A0") == f"'{begins}cmd|' /C calc'!A0"


def test_all_csv_of_the_package_is_written_in_one_place() -> None:
    root = Path(orchestra.__file__).parent
    writes = [
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Attribute)
        and node.attr in ("writer", "DictWriter")
        and getattr(node.value, "id", "") == "csv"
    ]
    assert writes == ["cli/csv_writer.py"]

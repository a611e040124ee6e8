"""Cells: locates the numbers of an expression, and quoted words, in a table."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from orchestra.schema.builtin_models import Cell
from orchestra.workflows.python.steps import tool

if TYPE_CHECKING:
    from fractions import Fraction

    from orchestra.text.numbers.numbers import Number

_FIGURE = re.compile(r"[$€£¥(\s-]*\d[\d,]*(?:\.\d+)?[)\s%]*")
_YEAR = re.compile(r"(?:19|20)\d\d")


@tool(effect="pure", label="restricted")
def cells(
    question: str,
    table: Sequence[Sequence[str]],
    expression: str | None = None,
    quotes: Sequence[str] = (),
    places: Sequence[Sequence[int]] | None = None,
) -> list[Cell]:
    """The cells that support an answer: those at `places`, each a row and a column, if given; or else one for each
    number of the expression, and for each quote, that is in the table.

    Of several cells with the same number, the one whose row and column share most words with the question is returned,
    the first on a tie. A number or quote without a cell, such as a factor of a hundred or words of a paragraph, is left
    out.
    """
    from orchestra.text.keywords import content_words
    from orchestra.text.numbers.numbers import find_numbers

    every = list(_table_cells(table))
    if places is not None:
        at = {(cell.row, cell.column): cell for cell in every}
        return [at[place] for place in map(tuple, places) if place in at]
    operands, plain = _operands(expression), [_normalize(quote) for quote in quotes]
    asked, with_value, with_text = content_words(question), dict["Fraction", list[Cell]](), dict[str, list[Cell]]()
    for cell in every if operands else ():
        for value in dict.fromkeys(value for number in find_numbers(cell.text) for value in _number_values(number)):
            with_value.setdefault(value, []).append(cell)
    for cell in every if any(plain) else ():
        with_text.setdefault(_normalize(cell.text), []).append(cell)
    found = [_best_cell(with_value[value], asked) for value in dict.fromkeys(operands) if value in with_value]
    found += [_best_cell(with_text[text], asked) for text in dict.fromkeys(plain) if text in with_text]
    return list(dict.fromkeys(found))


def _table_cells(table: Sequence[Sequence[str]]) -> Iterator[Cell]:
    """Returns all cells with a text. A row's heading is its first text; a column's are the texts above the first row of
    numbers.
    """
    head = next((at for at, row in enumerate(table) if any(_is_figure(text) for text in row[1:])), len(table))
    for at, row in enumerate(table):
        for column, text in enumerate(row):
            if text.strip():
                above = [
                    line[column].strip()
                    for line in table[: min(at, head)]
                    if column < len(line) and line[column].strip()
                ]
                label = next((one.strip() for one in row[:column] if one.strip()), "")
                yield Cell(row=at, column=column, text=text.strip(), row_heading=label, column_heading=" ".join(above))


def _is_figure(text: str) -> bool:
    """Whether a cell is a number, but not a year."""
    return _FIGURE.fullmatch(text.strip()) is not None and _YEAR.fullmatch(text.strip()) is None


def _number_values(number: Number) -> tuple[Fraction, ...]:
    """Returns the values that an expression may use for a cell. Brackets may mean a minus. `1.234` may mean a thousand,
    depending on the column.
    """
    return (
        number.value,
        number.plain,
        abs(number.value),
        abs(number.plain),
        *(() if number.identifier else number.other_readings),
    )


def _operands(expression: str | None) -> list[Fraction]:
    from fractions import Fraction

    from orchestra.text import arithmetic

    try:
        return [] if expression is None else [Fraction(one) for one in arithmetic.operands(expression)]
    except arithmetic.ArithmeticParseError:
        return []


def _best_cell(candidates: Sequence[Cell], asked: frozenset[str]) -> Cell:
    from orchestra.text.keywords import content_words

    return max(candidates, key=lambda cell: len(asked & content_words(f"{cell.row_heading} {cell.column_heading}")))


def _normalize(text: str) -> str:
    return " ".join(text.casefold().split())

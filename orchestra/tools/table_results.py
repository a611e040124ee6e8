"""Results of table queries: the values, the cells that they rest on, and which column names the records."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from orchestra.schema.builtin_models import Cell
from orchestra.text.arithmetic import format_fraction
from orchestra.tools.table_lexicon import WHICH, measure_groups
from orchestra.tools.table_question import TableQuestion
from orchestra.tools.table_views import TableColumn, TableView
from orchestra.tools.word_forms import stem_word

WHEN: Final = re.compile(r"\b(?:when|date|day|wann|datum|quand|cuándo|fecha)\b", re.IGNORECASE)
_KIND_WORDS: Final = frozenset(
    ["where", "wo", "où", "dónde", "when", "wann", "quand", "cuándo", "who", "whom", "whose", "wer", "qui", "quién"]
)
"""Question words that mean a kind of column, such as persons."""


@dataclass(frozen=True, slots=True)
class QueryResult:
    """The result of a query: values as texts, and what they rest on."""

    operation: str
    answers: tuple[str, ...]
    cells: tuple[Cell, ...]
    expression: str | None = None
    table: str = ""
    explained: float = 1.0
    """The share of the question's content words that the table and the operation explain."""
    unit: str = ""
    details: tuple[str, ...] = ()
    """A value beside each answer, such as the maximum itself."""
    is_joined: bool = False
    """Whether it rests on a table that another one refers to."""
    missing: str = ""
    """A period of the question that the table does not have; then there are no answers."""


def choose_target(question: TableQuestion, without: Iterable[TableColumn] = ()) -> TableColumn:
    """Returns the column of the answer: the one after the question word, the named one, or the records' names."""
    excluded = {column.number for column in without}
    kinds = ("value", "number") if WHEN.search(question.text) else ("value", "number", "period", "limit")
    excluded |= {one.column.number for one in question.conditions if one.kind in kinds and not one.negated}
    texts = [column for column in question.view.columns if column.number not in excluded and not column.is_measure]
    match = WHICH.search(question.text)
    if match is not None:
        word = match[0].casefold()
        kind = _columns_of_kind(texts, word)
        if kind:
            return next((column for column in kind if question.is_named(column)), kind[0])
        first = min(question.places(*match.span()), default=0)
        after = [
            (at, column)
            for column in texts
            for at, strength in question.links.get(column.number, {}).items()
            if first < at <= first + 4 and strength > 0 and not (word in _KIND_WORDS and column.is_date)
        ]
        if after:
            column = min(after, key=lambda entry: (entry[0], -question.strength(entry[1]), entry[1].joined))[1]
            question.use(column)
            return column
    named = [column for column in question.named_columns() if column in texts and question.is_named(column)]
    if named:
        return named[0]
    key = question.view.key
    if key.number in excluded:
        return next((column for column in texts if not column.is_time), key)
    return key


def _columns_of_kind(columns: Sequence[TableColumn], word: str) -> list[TableColumn]:
    """The columns that a question word such as `who` means; none for `which`."""
    if word not in _KIND_WORDS:
        return []
    groups = measure_groups(stem_word(word))
    if "time" in groups:
        return [column for column in columns if column.is_date] or [one for one in columns if one.groups & groups]
    fits = [column for column in columns if column.groups & groups and not column.is_date]
    if "person" in groups and not fits:
        fits = [column for column in columns if column.groups & {"customer", "company"} and not column.is_date]
    return fits


def record_result(
    question: TableQuestion,
    operation: str,
    rows: Sequence[int],
    columns: Sequence[TableColumn],
    *,
    details: TableColumn | None = None,
    target: TableColumn | None = None,
) -> QueryResult | None:
    """Returns the names of records, with the cells of some columns as evidence; None without records.

    Args:
        question: The question; it decides which column has the names.
        operation: The operation that chose the records.
        rows: The records.
        columns: Columns that the choice rests on.
        details: A column whose cell is shown beside each name.
        target: The column with the names, if it is known.
    """
    target = target or choose_target(question, without=columns)
    if not rows:
        return None
    names = tuple(dict.fromkeys(target.texts[row] for row in rows))
    shown = tuple(details.texts[row] for row in rows) if details is not None and len(names) == len(rows) else ()
    return QueryResult(operation, names, row_cells(question.view, rows, (target, *columns)), details=shown)


def row_cells(view: TableView, rows: Iterable[int], columns: Sequence[TableColumn]) -> tuple[Cell, ...]:
    """Returns the cells of some records and columns, with their positions."""
    return tuple(view.cell(row, column) for row in rows for column in columns if column.rows[row] >= 0)


def plain_number(number: Fraction) -> str:
    """Returns an exact number as a text."""
    return format_fraction(number)


def round_number(number: Fraction) -> str:
    """Returns a number with at most two decimals."""
    return format_fraction(Fraction(round(number * 100), 100))

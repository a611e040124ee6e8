"""Tables as typed columns, joined by their keys.

A column reads its cells as numbers, dates or an order. A view is one table with the columns of the tables that one of
its columns refers to, such as the site of the agent of a ticket. Each cell keeps its position in its own table.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property

from orchestra.schema.builtin_models import Cell, Table
from orchestra.text.numbers.numerals import uses_decimal_comma
from orchestra.text.numbers.sort_keys import column_sort_keys
from orchestra.tools.periods import Date, Period, read_dates, read_period
from orchestra.tools.table_lexicon import YES_VALUES, measure_groups
from orchestra.tools.word_forms import are_alike, split_words, stem_word

MAX_CELLS = 60_000
"""Cells of a table that is queried."""
MIN_KEY_VALUES = 2
"""Values of a column that another column may refer to."""
_NUMERAL = re.compile(
    r"^\(?\W{0,3}(?:[A-Z]{3}\s)?([-−]?)[$€£¥]?\s?(\d{1,3}(?:[,\s']\d{3})+|\d+)(\.\d+)?\s?(%|[^\W\d_]{0,10}\.?)\)?$"
)
_NEGATIVE = re.compile(r"^\(.*\)$|^[$€£¥]?\s?[-−]")
_UNIT = re.compile(
    r"\(([^)]*)\)|\[([^\]]*)\]|(?<=[a-zà-ÿ][_ ])(gbp|eur|usd|chf|kg|g|km|m|cm|mm|l|h|hrs|min|pct)$", re.IGNORECASE
)
"""A unit in brackets, or at the end of a header: `Weight (kg)`, `waste_kg`."""
_RECORD_NUMBER = re.compile(r"(?:no|nr|id|num|number|code|ref|#|nummer|n°)\.?", re.IGNORECASE)
"""A header of numbers that name records."""
_EMPTY = frozenset({"", "-", "–", "—", "n/a", "na", "none", "null"})
_MONEY_HEAD = re.compile(
    r"[$€£]|\b(?:gbp|eur|usd|chf|euros?|pounds?|dollars?|income|revenue|turnover|sales|price|cost|costs|rent|amount|salary|"
    r"fee|net|gross|budget|preis|kosten|betrag|umsatz|gebühr|prix|coût|montant|precio|importe)\b",
    re.IGNORECASE,
)
_TIME_HEAD = re.compile(
    r"\b(?:date|day|month|year|expires?|expiry|due|bought|hired|since|on|deadline|start|end|until|jahr|seit)\b",
    re.IGNORECASE,
)
_HEAD_WORDS = frozenset(["of", "the", "per", "and", "in", "for", "a", "an", "to", "by", "no"])


@dataclass(frozen=True)
class TableColumn:
    """A column of a view, with its cells read as numbers, dates or an order."""

    number: int
    """The position in the view."""
    head: str
    texts: tuple[str, ...]
    table: Table
    source: int
    """The position in its own table."""
    rows: tuple[int, ...]
    """The row of each cell in its own table, from the first record; negative for a record without a partner."""
    joined: bool = False

    @cached_property
    def title(self) -> str:
        """The header with spaces between its words."""
        return self.head.replace("_", " ").strip()

    @cached_property
    def words(self) -> tuple[str, ...]:
        """The stems of the header without its unit."""
        return tuple(stem_word(word) for word in split_words(_UNIT.sub(" ", self.title)))

    @cached_property
    def content(self) -> tuple[str, ...]:
        """The stems of the header that carry content."""
        return tuple(word for word in self.words if word not in _HEAD_WORDS) or self.words

    @cached_property
    def groups(self) -> frozenset[str]:
        """The groups of measures that the header names."""
        return frozenset(group for word in self.words for group in measure_groups(word))

    @cached_property
    def unit(self) -> str:
        """The unit in brackets of the header; empty without one."""
        match = _UNIT.search(self.title)
        return (match[1] or match[2] or match[3] or "") if match else ""

    @cached_property
    def numbers(self) -> tuple[Fraction | None, ...]:
        """The cells as exact numbers; None for a cell without one."""
        decimal_comma = uses_decimal_comma(self.texts)
        return tuple(read_number(text, decimal_comma=decimal_comma) for text in self.texts)

    @cached_property
    def filled(self) -> int:
        """The number of cells with a value."""
        return sum(text.casefold() not in _EMPTY for text in self.texts)

    @cached_property
    def is_number(self) -> bool:
        """Whether nearly all filled cells are numbers."""
        return self.filled > 0 and sum(number is not None for number in self.numbers) >= 0.8 * self.filled

    @cached_property
    def order(self) -> tuple[float | None, ...]:
        """Sort keys of the cells; None for a cell without an order."""
        if self.is_number:
            return tuple(None if number is None else float(number) for number in self.numbers)
        return tuple(column_sort_keys(self.texts))

    @cached_property
    def dates(self) -> tuple[tuple[Date, Date] | None, ...]:
        """The first and the last day, month or year of each cell; all None for a column of another kind."""
        if self.is_number and not self.is_year:
            return (None,) * len(self.texts)
        read = read_dates(self.texts)
        if sum(date is not None for date in read) < 0.8 * max(1, self.filled):
            return (None,) * len(self.texts)
        return tuple(read)

    @cached_property
    def is_date(self) -> bool:
        """Whether the cells are days, months, quarters or years."""
        return any(date is not None for date in self.dates)

    @cached_property
    def is_year(self) -> bool:
        """Whether all numbers are years, and the header does not name a measure."""
        years = self.is_number and all(
            number is None or (1500 <= number <= 2100 and number.denominator == 1) for number in self.numbers
        )
        return years and not self.unit and (bool(_TIME_HEAD.search(self.title)) or not self.groups - {"time"})

    @cached_property
    def is_measure(self) -> bool:
        """Whether the cells are quantities, not years or numbers of records."""
        names = {stem_word(word) for word in re.findall(r"[^\W_]+", self.table.name.rsplit(".", 1)[0])}
        is_number_of_records = bool(_RECORD_NUMBER.fullmatch(self.title)) or (
            self.source == 0 and self.distinct == len(self.texts) and set(self.words) <= names and bool(self.words)
        )
        return self.is_number and not self.is_year and not is_number_of_records

    @cached_property
    def is_money(self) -> bool:
        """Whether the cells are amounts of money."""
        return self.is_measure and (
            _MONEY_HEAD.search(self.title) is not None or any(text[:1] in "£€$" for text in self.texts if text)
        )

    @cached_property
    def is_time(self) -> bool:
        """Whether the cells are dates or times."""
        clocks = [bool(re.fullmatch(r"\d{1,2}[:.]\d\d(?:\s?[ap]m)?", text)) for text in self.texts if text]
        return self.is_date or (bool(clocks) and all(clocks) and not self.is_number)

    @cached_property
    def is_boolean(self) -> bool:
        """Whether the cells are yes and no, or some are empty and the others equal."""
        values = {text.casefold() for text in self.texts}
        return 1 <= len(values) <= 3 and values - _EMPTY <= YES_VALUES and bool(values - _EMPTY) and not self.is_number

    @cached_property
    def period(self) -> Period | None:
        """The period that the header names, such as `Q1`."""
        return read_period(_UNIT.sub("", self.title))

    @cached_property
    def distinct(self) -> int:
        """The number of different cells."""
        return len(set(self.texts))

    def is_empty(self, row: int) -> bool:
        """Whether a cell has no value."""
        return self.texts[row].casefold() in _EMPTY


@dataclass(frozen=True)
class TableView:
    """A table as columns, with those of the tables that it refers to."""

    table: Table
    columns: tuple[TableColumn, ...]
    top: int
    """The row of the first record."""

    @property
    def length(self) -> int:
        """The number of records."""
        return len(self.columns[0].texts) if self.columns else 0

    @cached_property
    def key(self) -> TableColumn:
        """The column that names the records: the first text whose values differ most."""
        own = [column for column in self.columns if not column.joined]
        texts = [column for column in own if not column.is_number and not column.is_time] or own
        full = [column for column in texts if column.distinct == self.length]
        return (full or texts)[0]

    @cached_property
    def name_words(self) -> frozenset[str]:
        """The stems of the words of the table's name."""
        return frozenset(stem_word(word) for word in re.findall(r"[^\W_]+", self.table.name.rsplit(".", 1)[0]))

    def cell(self, row: int, column: TableColumn) -> Cell:
        """Returns a cell as evidence, with its position in its own table."""
        source = column.rows[row]
        return Cell(
            row=source + max(column.table.header_rows, 1),
            column=column.source,
            text=column.texts[row],
            row_heading=self.key.texts[row] if self.key.number != column.number else "",
            column_heading=column.head,
            location=f"{column.table.name} row {source + max(column.table.header_rows, 1) + column.table.row}",
        )


def view_table(table: Table) -> TableView | None:
    """Returns a table as columns; None if it is empty, uneven or too large."""
    cells, top = table.cells, max(table.header_rows, 1)
    if len(cells) <= top or not cells[0] or len(cells) * len(cells[0]) > MAX_CELLS:
        return None
    width = len(cells[0])
    rows = [row for row in cells[top:] if len(row) == width]
    if len(rows) != len(cells) - top:
        return None
    heads = [" ".join(cells[row][column] for row in range(top) if cells[row][column]) for column in range(width)]
    columns = tuple(
        TableColumn(
            column, heads[column], tuple(row[column].strip() for row in rows), table, column, tuple(range(len(rows)))
        )
        for column in range(width)
    )
    return TableView(table, columns, top)


def view_tables(tables: Sequence[Table]) -> list[TableView]:
    """Returns the view of each table, with the columns of the tables that it refers to."""
    views = [view for table in tables if (view := view_table(table)) is not None]
    return [_join(view, views) for view in views]


def _join(view: TableView, views: Sequence[TableView]) -> TableView:
    columns = list(view.columns)
    for other in views:
        if other.table is view.table or len(columns) > 60:
            continue
        pair = _reference(view, other)
        if pair is None:
            continue
        column, key = pair
        at = {text.casefold(): row for row, text in enumerate(key.texts)}
        rows = tuple(at.get(text.casefold(), -1) for text in column.texts)
        heads = {own.head.casefold() for own in columns}
        for more in other.columns:
            if more.number != key.number and more.head.casefold() not in heads:
                texts = tuple(more.texts[row] if row >= 0 else "" for row in rows)
                columns.append(
                    replace(more, number=len(columns), texts=texts, rows=rows, joined=True),
                )
    return TableView(view.table, tuple(columns), view.top)


def _reference(view: TableView, other: TableView) -> tuple[TableColumn, TableColumn] | None:
    """Returns a column of a view and the unique column of another table that contains its values."""
    for column in view.columns:
        values = {text.casefold() for text in column.texts if text}
        if len(values) < MIN_KEY_VALUES or column.is_date or column.is_boolean:
            continue
        for key in other.columns:
            keys = {text.casefold() for text in key.texts if text}
            alike = any(are_alike(one, two) for one in column.content for two in key.content)
            if (
                len(keys) == len(key.texts)
                and len(keys) >= MIN_KEY_VALUES
                and len(values & keys) >= 0.9 * len(values)
                and (alike or (not key.is_number and len(values) > MIN_KEY_VALUES))
            ):
                return column, key
    return None


def read_number(text: str, *, decimal_comma: bool = False) -> Fraction | None:
    """Returns the number of a cell; None if it is none."""
    plain = text.strip()
    if decimal_comma:
        plain = plain.replace(".", "").replace(",", ".")
    match = _NUMERAL.match(plain)
    if match is None:
        return None
    digits = re.sub(r"[,\s']", "", match[2]) + (match[3] or "")
    return Fraction(digits) * (-1 if match[1] or _NEGATIVE.match(plain) else 1)


def tables_in(text: str, source: str) -> Iterator[Table]:
    """Yields the Markdown tables of a document."""
    lines = text.split("\n")
    number = 0
    at = 0
    while at < len(lines) - 1:
        if "|" in lines[at] and re.fullmatch(r"\s*\|?\s*:?-{2,}:?\s*(?:\|\s*:?-{2,}:?\s*)*\|?\s*", lines[at + 1]):
            rows = [_cells_of(lines[at])]
            end = at + 2
            while end < len(lines) and "|" in lines[end]:
                rows.append(_cells_of(lines[end]))
                end += 1
            width = len(rows[0])
            number += 1
            yield Table(
                name=f"{source} table {number}",
                source=source,
                sheet=f"table {number}",
                cells=[(row + [""] * width)[:width] for row in rows],
            )
            at = end
        else:
            at += 1


def _cells_of(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]

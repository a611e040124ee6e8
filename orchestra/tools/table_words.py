"""Tables and questions: columns as texts, numbers and orders, and what the words of a question name in a table.

A word names a column by its header, or a value by its cell. Forms of one word count as equal.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import Final, TypeAlias

from orchestra.schema.builtin_models import Cell, Table
from orchestra.text.keywords import WORD
from orchestra.text.numbers.sort_keys import column_sort_keys
from orchestra.text.numbers.times import MONTH_PATTERN

MAX_CELLS = 60_000
"""Cells of a table that is queried."""
_TOKEN = re.compile(r"[^\W_]+(?:[-.'’/][^\W_]+)*%?")
_NUMERAL = re.compile(
    r"^\W{0,3}(?:[A-Z]{3}\s)?(-?)[$€£¥]?\s?(\d{1,3}(?:[,\s']\d{3})+|\d+)(\.\d+)?\s?(%|[^\W\d_]{0,10}\.?)\)?$"
)
_UNIT = re.compile(r"\(([^)]*)\)|\[([^\]]*)\]")
STOP_WORDS: Final = frozenset(
    WORD.findall(
        "a an the of in on at to for from by with and or is are was were be been do does did has have had "
        "our we us i my me you your it its this that these those there their they them he she his her "
        "what which who whom whose when where how many much please tell show give get got all each any "
        "will would can could should than then as per into out up only most very so not no if but about "
        "between last"
    )
)
MONTHS: Final = (
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
)
_QUARTERS: Final = {
    "first": "q1",
    "second": "q2",
    "third": "q3",
    "fourth": "q4",
    "last": "q4",
    "1st": "q1",
    "2nd": "q2",
    "3rd": "q3",
    "4th": "q4",
}
_MONEY_HEAD = re.compile(
    r"[$€£]|\b(?:gbp|eur|usd|chf|euros?|pounds?|dollars?|income|revenue|turnover|sales|price|cost|rent|amount|salary|fee|net|"
    r"gross|budget|total)\b",
    re.IGNORECASE,
)
_DATED = re.compile(
    rf"\d{{4}}-\d\d-\d\d|\d{{1,2}}[./]\d{{1,2}}[./]\d{{2,4}}|\b\d{{1,2}}:\d\d\b|\b(?:{MONTH_PATTERN})\b",
    re.IGNORECASE,
)
TIME_HEAD = re.compile(
    r"\b(?:date|day|month|year|expires?|expiry|due|bought|hired|since|on|deadline|start|end)\b", re.IGNORECASE
)


ReadCell: TypeAlias = Callable[[int], "tuple[Cell, Fraction] | None"]
"""Reads the cell of a row in a column, and its number."""


@dataclass(frozen=True)
class TableColumn:
    """A column of a table, with its cells read as numbers or as an order."""

    number: int
    head: str
    texts: tuple[str, ...]

    @cached_property
    def words(self) -> tuple[str, ...]:
        """The words of the header without its unit."""
        return tuple(stem_word(word) for word in split_words(_UNIT.sub(" ", self.head)))

    @cached_property
    def unit(self) -> str:
        """The unit in brackets of the header; empty without one."""
        match = _UNIT.search(self.head)
        return (match[1] or match[2] or "") if match else ""

    @cached_property
    def numbers(self) -> tuple[Fraction | None, ...]:
        """The cells as exact numbers; None for a cell without one."""
        return tuple(map(read_number, self.texts))

    @cached_property
    def is_number(self) -> bool:
        """Whether nearly all filled cells are numbers."""
        filled = [text for text in self.texts if text.strip() not in ("", "-", "–", "n/a")]
        return bool(filled) and sum(number is not None for number in self.numbers) >= 0.8 * len(filled)

    @cached_property
    def order(self) -> tuple[float | None, ...]:
        """Sort keys of the cells; None for a cell without an order."""
        return tuple(column_sort_keys(self.texts))

    @cached_property
    def is_year(self) -> bool:
        """Whether all numbers are years."""
        return self.is_number and all(
            number is None or (1900 <= number <= 2100 and number.denominator == 1) for number in self.numbers
        )

    @cached_property
    def is_ordered(self) -> bool:
        """Whether the cells have an order."""
        return self.is_number or any(key is not None for key in self.order)

    @cached_property
    def is_money(self) -> bool:
        """Whether the cells are amounts of money."""
        return self.is_number and _MONEY_HEAD.search(self.head) is not None

    @cached_property
    def is_time(self) -> bool:
        """Whether the cells are dates or times."""
        dated = not self.is_number and all(_DATED.search(text) for text in self.texts if text)
        return (dated and any(key is not None for key in self.order)) or (
            self.is_year and TIME_HEAD.search(self.head) is not None
        )

    @cached_property
    def distinct(self) -> int:
        """The number of different cells."""
        return len(set(self.texts))


@dataclass(frozen=True)
class TableView:
    """A table as columns, and its name."""

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
        texts = [column for column in self.columns if not column.is_number] or list(self.columns)
        full = [column for column in texts if column.distinct == self.length]
        return (full or texts)[0]

    @cached_property
    def name_words(self) -> frozenset[str]:
        """The stems of the words of the table's name."""
        return frozenset(stem_word(word) for word in re.findall(r"[^\W_]+", self.table.name.rsplit(".", 1)[0]))


@dataclass
class QuestionMatch:
    """What the words of a question mean in a table."""

    columns: dict[int, set[int]] = field(default_factory=dict)
    """The words that name a column, by its number."""
    values: dict[int, dict[str, set[int]]] = field(default_factory=dict)
    """The words that name a cell value, by column and value."""
    claimed: set[int] = field(default_factory=set)
    missing: str = ""


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
        TableColumn(column, heads[column], tuple(row[column].strip() for row in rows)) for column in range(width)
    )
    return TableView(table, columns, top)


def split_words(text: str) -> list[str]:
    """Returns the words of a text."""
    return _TOKEN.findall(text)


def stem_word(word: str) -> str:
    """Returns a word without case, possessive and plural endings."""
    word = word.casefold().replace("’", "'")
    for ending in ("'s", "'"):
        word = word.removesuffix(ending)
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


def are_alike(one: str, other: str) -> bool:
    """Whether two stems are forms of one word: equal, or with a long common beginning."""
    if one == other:
        return True
    if one[:1].isdigit() or other[:1].isdigit():
        return False
    short, long = sorted((one, other), key=len)
    if len(short) < 4 or len(long) - len(short) > 4:
        return False
    common = next((at for at, (a, b) in enumerate(zip(short, long, strict=False)) if a != b), len(short))
    return common >= max(4, len(short) - 2)


def read_number(text: str) -> Fraction | None:
    """Returns the number of a cell; None if it is none."""
    match = _NUMERAL.match(text.strip())
    if match is None:
        return None
    digits = re.sub(r"[,\s']", "", match[2]) + (match[3] or "")
    return Fraction(digits) * (-1 if match[1] else 1)


def match_question(words: Sequence[str], view: TableView, question: str) -> QuestionMatch:
    """Returns what the words of a question name in a table."""
    match = QuestionMatch()
    stems = [stem_word(word) for word in words]
    for column in view.columns:
        _match_values(column, words, stems, match)
    _drop_partial_values(view, match)
    valued = {at for values in match.values.values() for found in values.values() for at in found}
    for column in view.columns:
        heads = [word for word in column.words if word not in STOP_WORDS] or list(column.words)
        found = {
            at
            for at, stem in enumerate(stems)
            if words[at] not in STOP_WORDS and at not in valued and any(are_alike(stem, head) for head in heads)
        }
        if found and 2 * len({head for head in heads if any(are_alike(stems[at], head) for at in found)}) >= len(heads):
            match.columns[column.number] = found
    _match_quarters(words, view, match)
    _match_year_months(words, view, match)
    match.missing = _missing_name(words, view, match, question)
    for found in match.columns.values():
        match.claimed |= found
    for values in match.values.values():
        for found in values.values():
            match.claimed |= found
    return match


def _drop_partial_values(view: TableView, match: QuestionMatch) -> None:
    """Removes values that are named by a part, where the part is the whole name of a value of another column."""
    whole = {
        at
        for values in match.values.values()
        for text, places in values.items()
        if len(places) >= len(split_words(text))
        for at in places
    }
    for number, values in list(match.values.items()):
        kept = {
            text: places
            for text, places in values.items()
            if len(places) >= len(split_words(text)) or not places <= whole
        }
        if kept:
            match.values[number] = kept
        else:
            del match.values[number]


def _match_values(column: TableColumn, words: Sequence[str], stems: Sequence[str], match: QuestionMatch) -> None:
    """Finds the cell values that the question names: whole, or by a word that only few values have."""
    if column.is_number and not column.is_year and column.distinct == len(column.texts) and len(column.texts) > 1:
        return
    distinct = list(dict.fromkeys(text for text in column.texts if text))
    parts = {text: [stem_word(word) for word in split_words(text)] for text in distinct}
    owners: dict[str, int] = {}
    for text in distinct:
        for part in set(parts[text]):
            owners[part] = owners.get(part, 0) + 1
    found: dict[str, set[int]] = {}
    for text, own in parts.items():
        if not own or (column.is_number and not column.is_year):
            continue
        starts = [
            at
            for at in range(len(stems) - len(own) + 1)
            if list(stems[at : at + len(own)]) == own and not (column.is_number and _is_bound(words, at))
        ]
        if starts and not (len(own) == 1 and (own[0] in STOP_WORDS or words[starts[0]] in STOP_WORDS)):
            found[text] = {at + step for at in starts for step in range(len(own))}
            continue
        rare = {
            at
            for at, stem in enumerate(stems)
            if words[at] not in STOP_WORDS
            and len(stem) > 2
            and not stem.isdigit()
            and stem in own
            and owners[stem] * 2 <= len(distinct) + 1
        }
        if rare and not column.is_number:
            found[text] = rare
    # a whole name outweighs a part of another
    whole = {at for text, places in found.items() if len(places) >= len(parts[text]) for at in places}
    found = {text: places for text, places in found.items() if len(places) >= len(parts[text]) or not places <= whole}
    most = {
        at: max(len(places) for places in found.values() if at in places) for places in found.values() for at in places
    }
    found = {text: places for text, places in found.items() if any(len(places) == most[at] for at in places)}
    if found and (len(found) < len(distinct) or len(distinct) == 1 or len(whole) >= len(found)):
        match.values[column.number] = found


def _match_quarters(words: Sequence[str], view: TableView, match: QuestionMatch) -> None:
    """`second quarter` as Q2, and `first quarter` as three months."""
    for at, word in enumerate(words[:-1]):
        if stem_word(words[at + 1]) != "quarter" or word not in _QUARTERS:
            continue
        name = _QUARTERS[word]
        for column in view.columns:
            if column.head.casefold() == name:
                match.columns[column.number] = {at, at + 1}
            values = {text for text in column.texts if text.casefold() == name}
            months = [text for text in dict.fromkeys(column.texts) if text.casefold() in MONTHS]
            wanted = MONTHS[3 * (int(name[1]) - 1) : 3 * int(name[1])]
            if months and len(months) == column.distinct:
                values = {text for text in months if text.casefold() in wanted}
            if values:
                match.values.setdefault(column.number, {}).update({text: {at, at + 1} for text in values})


def _match_year_months(words: Sequence[str], view: TableView, match: QuestionMatch) -> None:
    """`December 2025`, or `December` alone, as the cells `2025-12`."""
    for column in view.columns:
        months = [found for text in dict.fromkeys(column.texts) if (found := _YEAR_MONTH.match(text))]
        if not months or len(months) != column.distinct:
            continue
        for at, word in enumerate(words):
            if word not in MONTHS:
                continue
            year = words[at + 1] if at + 1 < len(words) and YEAR.match(words[at + 1]) else ""
            number = MONTHS.index(word) + 1
            places = {at, at + 1} if year else {at}
            named = {found[0] for found in months if int(found[2]) == number and year in ("", found[1])}
            if named:
                match.values.setdefault(column.number, {}).update(dict.fromkeys(named, places))


_YEAR_MONTH = re.compile(r"^((?:19|20)\d\d)-(0[1-9]|1[0-2])$")
QUARTER = re.compile(r"^q[1-4]$")
YEAR = re.compile(r"^(?:19|20)\d\d$")


def _missing_name(words: Sequence[str], view: TableView, match: QuestionMatch, question: str) -> str:
    """Returns a month, quarter or year of the question that the table lists others of, and not this one."""
    kinds: tuple[Callable[[str], bool], ...] = (
        lambda word: word in MONTHS,
        lambda word: QUARTER.match(word) is not None,
        lambda word: YEAR.match(word) is not None,
    )
    names = {word.casefold() for word in view.name_words}
    for at, word in enumerate(words):
        for is_kind in kinds:
            if not is_kind(word) or (word == "may" and "May" not in question):
                continue
            heads = [column.head.casefold() for column in view.columns]
            has = any(is_kind(head) for head in heads) or any(
                any(is_kind(text.casefold()) for text in column.texts) for column in view.columns
            )
            has = has or any(is_kind(name) for name in names)
            known = (
                word in heads
                or word in names
                or any(word == text.casefold() for column in view.columns for text in column.texts)
            )
            if has and not known and not _is_bound(words, at):
                return question_word(question, word)
    return ""


def _is_bound(words: Sequence[str], at: int) -> bool:
    """Whether a year is the limit of a comparison, such as `before 2017`."""
    return at > 0 and words[at - 1] in ("before", "after", "since", "until", "than", "by", "till")


def question_word(question: str, word: str) -> str:
    """A word as the question writes it."""
    found = re.search(re.escape(word), question, re.IGNORECASE)
    return found[0] if found else word


# What is asked


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

"""Typed values in the words of a request: periods, numbers, superlatives, columns and cells of the tables at hand.

A value of a follow-up takes the place of an earlier value of the same kind (`orchestra.router.follow_ups`). Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from orchestra.schema.builtin_models import Table
from orchestra.text.numbers.times import MONTH_PATTERN
from orchestra.tools.table_views import view_table
from orchestra.tools.word_forms import split_words, stem_word

MAX_CELL_WORDS: Final = 5
"""Words of a cell at most that count as the name of something."""
MAX_CELLS: Final = 20_000
"""Cells of the tables at hand that are known as names."""
_OTHER_MONTHS = (
    "januar|februar|märz|mai|juni|juli|oktober|dezember|janvier|février|mars|avril|juin|juillet|août|septembre|octobre|"
    "novembre|décembre|enero|febrero|marzo|abril|mayo|junio|julio|agosto|septiembre|octubre|noviembre|diciembre"
)
_MONTH = rf"(?:{MONTH_PATTERN}|{_OTHER_MONTHS})"
_NUMBER = r"\d[\d,]*(?:\.\d+)?"
_PATTERNS: Final = tuple(
    (kind, re.compile(pattern, re.IGNORECASE))
    for kind, pattern in (
        ("date", rf"\b\d{{4}}-\d\d-\d\d\b|\b\d{{1,2}}(?:st|nd|rd|th|\.)? (?:of )?{_MONTH}(?: \d{{4}})?\b"),
        ("quarter", r"\bQ[1-4](?: (?:19|20)\d\d)?\b|\b(?:(?:first|second|third|fourth|last) quarter)\b"),
        ("month", rf"\b\d{{4}}-\d\d\b|\b(?!may\b(?! \d)){_MONTH}(?: (?:19|20)\d\d)?\b|(?<=in )May\b"),
        ("weekday", r"\b(?:mon|tues|wednes|thurs|fri|satur|sun)days?\b"),
        ("time", r"\b\d{1,2}:\d\d\b|\b\d{1,2} ?[ap]m\b"),
        ("percentage", rf"(?<![\w.]){_NUMBER} ?(?:%|per ?cent\b)"),
        ("amount", rf"[€$£] ?{_NUMBER}|(?<![\w.]){_NUMBER} ?(?:euros?|pounds?|dollars?|EUR|GBP|USD)\b"),
        ("quantity", rf"(?<![\w.-]){_NUMBER} (?P<unit>(?!of\b|or\b|and\b|to\b)[a-z]+)\b"),
        ("year", r"(?<![\w.-])(?:19|20)\d\d(?![\w-])"),
        ("number", rf"(?<![\w.-]){_NUMBER}(?![\w-])"),
        (
            "superlative",
            r"\b(?:highest|lowest|most|least|fewest|longest|shortest|largest|smallest|biggest|cheapest|best|worst|"
            r"earliest|latest|newest|oldest|fastest|slowest|heaviest|lightest|most expensive)\b",
        ),
    )
)
PERIODS: Final = frozenset({"date", "quarter", "month", "weekday", "time", "year"})
"""Kinds of values that say when."""


@dataclass(frozen=True, slots=True)
class TypedValue:
    """A value in a text."""

    kind: str
    text: str
    start: int
    end: int


@dataclass(frozen=True)
class Vocabulary:
    """The names in the tables at hand: headers of columns with numbers, and cells with texts."""

    measures: frozenset[tuple[str, ...]] = frozenset()
    cells: dict[tuple[str, ...], str] = field(default_factory=dict)
    """The name of the column of each cell, by the words of the cell or of a part that only this cell has."""

    @classmethod
    def of(cls, tables: Iterable[Table]) -> Vocabulary:
        """Returns the names in tables."""
        measures = set[tuple[str, ...]]()
        cells = dict[tuple[str, ...], str]()
        parts = dict[tuple[str, ...], set[tuple[str, str]]]()
        count = 0
        for table in tables:
            view = view_table(table)
            for column in view.columns if view is not None else ():
                if column.is_number:
                    if column.words:
                        measures.add(column.words)
                    continue
                for text in dict.fromkeys(column.texts):
                    words = tuple(map(stem_word, split_words(text)))
                    count += 1
                    if not words or len(words) > MAX_CELL_WORDS or count > MAX_CELLS:
                        continue
                    cells.setdefault(words, column.head)
                    for word in words:
                        parts.setdefault((word,), set()).add((column.head, text))
        for part, owners in parts.items():
            if len(owners) == 1 and len(part[0]) > 3:
                cells.setdefault(part, next(iter(owners))[0])
        return cls(frozenset(measures), cells)


def find_values(text: str, vocabulary: Vocabulary) -> list[TypedValue]:
    """Returns the typed values of a text, in order. Names of the tables come first, then longer values."""
    found: list[TypedValue] = []

    def add(kind: str, start: int, end: int) -> None:
        if all(end <= one.start or start >= one.end for one in found):
            found.append(TypedValue(kind, text[start:end], start, end))

    for kind, pattern in _PATTERNS[:3]:
        for match in pattern.finditer(text):
            add(kind, match.start(), match.end())
    _find_names(text, vocabulary, add)
    for kind, pattern in _PATTERNS[3:]:
        for match in pattern.finditer(text):
            unit = match.groupdict().get("unit")
            add(f"{kind} of {stem_word(unit)}" if unit else kind, match.start(), match.end())
    return sorted(found, key=lambda one: one.start)


def _find_names(text: str, vocabulary: Vocabulary, add: object) -> None:
    words = [(match.start(), match.end()) for match in re.finditer(r"[^\W_]+(?:[-.'’/][^\W_]+)*%?", text)]
    stems = [stem_word(text[start:end]) for start, end in words]
    assert callable(add)
    for length in range(MAX_CELL_WORDS, 0, -1):
        for at in range(len(words) - length + 1):
            key = tuple(stems[at : at + length])
            start, end = words[at][0], words[at + length - 1][1]
            if key in vocabulary.cells and (length > 1 or text[start].isupper() or not text[start].isalpha()):
                add(f"value of {vocabulary.cells[key]}", start, end)
            elif key in vocabulary.measures:
                add("column", start, end)
    for at, (start, end) in enumerate(words):
        names = [key for key in vocabulary.measures if len(key) > 1 and stems[at] == key[-1]]
        if names:
            add("column", start, end)

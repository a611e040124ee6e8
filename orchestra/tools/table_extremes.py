"""Extremes: the records, or groups of records, with the largest, smallest, latest or earliest value."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final

from orchestra.tools.table_lexicon import (
    CHANGE,
    COUNT,
    MEAN,
    NUMBER_WORDS,
    SUM,
    WHICH,
    find_superlatives,
    find_time_orders,
)
from orchestra.tools.table_measures import Measure, RowGroup, TableMeasures
from orchestra.tools.table_question import TableQuestion
from orchestra.tools.table_results import WHEN, QueryResult, choose_target, record_result, round_number, row_cells
from orchestra.tools.table_views import TableColumn
from orchestra.tools.word_forms import are_alike, split_words, stem_word

MAX_RECORDS: Final = 12
"""Records of a list such as `the top five`."""
_RANK = re.compile(
    r"\b(second|third|2nd|3rd)(?:[ -])(?=most|highest|largest|biggest|lowest|smallest|longest|best|heaviest)", re.I
)
_TOP = re.compile(
    r"\b(?:top|first|best|last)\s+(\d{1,2}|\w+)\b|\b(\d{1,2}|two|three|four|five|six|ten)\s+(?:\w+\s+)?(?=most"
    r"|highest|largest|biggest|lowest|smallest|longest|shortest|best|heaviest|cheapest|oldest|newest|latest)",
    re.I,
)
_ASKS_VALUE: Final = re.compile(
    r"\W*(?:what(?:'s| is| was| are| were)|how (?:high|much|many|long|heavy|big|large)|wie (?:hoch|viel|lang|schwer)|"
    r"combien|quel(?:le)? est|cuál es|cuánto)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class _Extreme:
    """What a superlative asks for."""

    places: frozenset[int]
    """The words of the superlative."""
    largest: bool
    groups: frozenset[str] = frozenset()
    """The measures that it names, such as `weight` for `heaviest`."""
    column: TableColumn | None = None
    """The column that it names by its own word: `fattest` for the column Fat."""
    rank: int = 1
    """2 for `second largest`."""
    count: int = 1
    """3 for `the three largest`."""


class TableExtremes:
    """The extreme that a question over one view asks for."""

    def __init__(self, question: TableQuestion, measures: TableMeasures) -> None:
        self.question, self.view, self.text = question, question.view, question.text
        self.measures = measures

    def result(self) -> QueryResult | None:
        """Returns the records, or groups of records, with the extreme value; None if the question asks for none."""
        extreme = self._superlative()
        if extreme is None or CHANGE.search(self.text):
            return None
        self.question.explained |= extreme.places
        rank, count = self._rank(extreme.places)
        extreme = replace(extreme, rank=rank, count=count)
        column = extreme.column or self._order_column(extreme.groups)
        if column is not None and column.is_date:
            if "age" in extreme.groups:  # the oldest has the first date
                extreme = replace(extreme, largest=not extreme.largest)
            return self._by_date(column, extreme)
        if column is not None and "speed" in extreme.groups and "duration" in column.groups:
            extreme = replace(extreme, largest=not extreme.largest)  # the fastest takes the least time
        measure = Measure((column,)) if column is not None else self.measures.choose()
        if "count" in extreme.groups:
            measure = None
        elif measure is None and not self._counts_after(extreme.places):
            measure = self.measures.only()
        return self._by_count(extreme) if measure is None else self._by_measure(measure, extreme)

    def _by_measure(self, measure: Measure, extreme: _Extreme) -> QueryResult | None:
        """The records or groups with the extreme value of a measure."""
        question, mean = self.question, MEAN.search(self.text) is not None
        target = choose_target(question, without=measure.columns)
        is_single = target.distinct == self.view.length
        by_row = is_single if mean else is_single or bool(extreme.groups) or not measure.is_extensive
        groups: dict[str, list[int]] = {}
        for row in question.rows():
            if measure.number(row) is not None:
                groups.setdefault(str(row) if by_row else target.texts[row], []).append(row)
        values = {
            name: value
            for name, rows in groups.items()
            if (value := self.measures.value(RowGroup(measure, tuple(rows)), total=not mean)) is not None
        }
        question.claim(SUM)
        question.claim(MEAN)
        chosen = _rank_values({name: value.value for name, value in values.items()}, extreme)
        if not chosen:
            return None
        first = values[chosen[0]]
        rows = [row for name in chosen for row in groups[name]]
        cells = row_cells(self.view, rows, (target, *measure.columns))
        is_computed = len(groups[chosen[0]]) > 1 or bool(measure.form)
        expression = first.expression if is_computed and len(chosen) == 1 else None
        operation = "most" if extreme.largest else "least"
        if self._asks_value(target, measure):
            return QueryResult(operation, (round_number(first.value),), cells, expression, unit=measure.unit)
        names = tuple(target.texts[groups[name][0]] for name in chosen)
        if len(set(names)) < len(names):
            return QueryResult(operation, tuple(dict.fromkeys(names)), cells, expression)
        details = tuple(round_number(values[name].value) for name in chosen)
        return QueryResult(operation, names, cells, expression, details=details, unit=measure.unit)

    def _superlative(self) -> _Extreme | None:
        """The first superlative that is neither part of a value nor of a header."""
        question = self.question
        taken = {at for condition in question.conditions for at in condition.places}
        heads = {word for column in self.view.columns for word in column.content}
        for start, end, largest, groups in find_superlatives(self.text):
            places = question.places(start, end)
            is_head = len(places) == 1 and any(are_alike(question.stems[at], word) for at in places for word in heads)
            if not places & taken and not is_head:
                return _Extreme(frozenset(places), largest, groups)
        for at, word in enumerate(question.words):
            if word.endswith("est") and len(word) > 5 and at not in taken:
                bases = {word[:-3], word[:-4], word[:-4] + "y", word[:-2]}
                named = [column for column in self.view.columns if column.is_measure and bases & set(column.words)]
                if named:
                    return _Extreme(frozenset({at}), largest=True, column=named[0])
        for start, end, latest in find_time_orders(self.text):
            places = question.places(start, end)
            has_dates = any(column.is_date for column in self.view.columns)
            if has_dates and not places & taken and not places <= question.explained and self._asks_time(start):
                return _Extreme(frozenset(places), latest, frozenset({"time"}))
        return None

    def _asks_time(self, start: int) -> bool:
        """Whether `first` and `last` mean an order in time: not beside a number or within a name."""
        after = self.text[start:].split()[1:2]
        return (
            not (after and re.match(r"\d|" + "|".join(NUMBER_WORDS), after[0]))
            or WHICH.search(self.text[:start]) is not None
        )

    def _rank(self, places: frozenset[int]) -> tuple[int, int]:
        """The position of the wanted value, from 1, and the number of wanted values."""
        question = self.question
        ordinal = _RANK.search(self.text)
        if ordinal is not None:
            question.explained |= question.places(*ordinal.span())
            return (2 if ordinal[1].casefold() in ("second", "2nd") else 3), 1
        match = _TOP.search(self.text)
        if match is not None:
            word = (match[1] or match[2] or "").casefold()
            count = int(word) if word.isdigit() else NUMBER_WORDS.get(word, 0)
            near = question.places(*match.span())
            if 1 < count <= MAX_RECORDS and (near & places or min(abs(a - b) for a in near for b in places) <= 2):
                question.explained |= near
                return 1, count
        return 1, 1

    def _order_column(self, groups: frozenset[str]) -> TableColumn | None:
        """The column that a superlative such as `heaviest`, `oldest` or `latest` orders by."""
        question = self.question
        if not groups or groups == {"count"}:
            return None
        if groups == {"time"}:
            dates = [column for column in self.view.columns if column.is_date]
            named = [column for column in question.named_columns() if column in dates]
            return next(iter(named or dates), None)
        fits = [
            column
            for column in self.view.columns
            if (column.is_measure and column.groups & (groups - {"time", "begin", "buy", "birth"}))
            or (column.is_date and column.groups & groups)
        ]
        named = [column for column in question.named_columns() if column in fits]
        if named:
            question.use(named[0])
            return named[0]
        if fits:
            return fits[0]
        if groups & {"price", "cost"}:
            return next((column for column in self.view.columns if column.is_money), None)
        return None

    def _counts_after(self, places: frozenset[int]) -> bool:
        """Whether `most` is followed by the records themselves: `the most tickets`, `le plus de tickets`."""
        question = self.question
        after = range(max(places) + 1, min(len(question.words), max(places) + 4))
        return any(
            question.names_records(at) or any(at in condition.places for condition in question.conditions)
            for at in after
        )

    def _by_count(self, extreme: _Extreme) -> QueryResult | None:
        """The groups with most or fewest records."""
        target = choose_target(self.question)
        if target.distinct == self.view.length:
            return None
        groups: dict[str, list[int]] = {}
        for row in self.question.rows():
            if not target.is_empty(row):
                groups.setdefault(target.texts[row], []).append(row)
        chosen = _rank_values({name: Fraction(len(rows)) for name, rows in groups.items()}, extreme)
        if not chosen:
            return None
        self.question.claim(COUNT)
        cells = row_cells(self.view, [row for name in chosen for row in groups[name]], (target,))
        details = tuple(str(len(groups[name])) for name in chosen)
        return QueryResult("most" if extreme.largest else "least", tuple(chosen), cells, details=details)

    def _by_date(self, column: TableColumn, extreme: _Extreme) -> QueryResult | None:
        """The records with the latest or earliest date."""
        question = self.question
        known = {
            str(row): Fraction(value)
            for row in question.rows()
            if (value := column.order[row]) is not None and not column.is_empty(row)
        }
        chosen = [int(name) for name in _rank_values(known, extreme)]
        if not chosen:
            return None
        question.use(column)
        target = choose_target(question, without=[] if WHEN.search(self.text) else [column])
        if target.number == column.number:
            dates = tuple(dict.fromkeys(column.texts[row] for row in chosen))
            return QueryResult("cell", dates, row_cells(self.view, chosen, (column,)))
        operation = "most" if extreme.largest else "least"
        return record_result(question, operation, chosen, (column,), details=column, target=target)

    def _asks_value(self, target: TableColumn, measure: Measure) -> bool:
        """Whether the question asks for the extreme value itself, and not for a record."""
        start = _ASKS_VALUE.match(self.text)
        if start is None:
            return False
        nouns = {stem_word(word) for word in split_words(self.text[start.end() :])[:4]}

        def is_named(columns: Iterable[TableColumn]) -> bool:
            return any(are_alike(noun, word) for noun in nouns for column in columns for word in column.content)

        return is_named(measure.columns) or not is_named([target])


def _rank_values(values: Mapping[str, Fraction], extreme: _Extreme) -> list[str]:
    """Returns the names of the values at a rank; several if they are equal, or if several are wanted."""
    order = sorted(set(values.values()), reverse=extreme.largest)
    if extreme.rank > len(order):
        return []
    if extreme.count > 1:
        return sorted(values, key=lambda name: values[name], reverse=extreme.largest)[: extreme.count]
    return [name for name, value in values.items() if value == order[extreme.rank - 1]]

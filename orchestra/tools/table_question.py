"""What a question names in a table: periods, values, limits and columns, each with its words.

A word belongs to the first of these that it fits: a period, a cell value, the limit of a comparison, a header. Words
that nothing explains remain; they decide whether a table can answer the question.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Final

from orchestra.tools.periods import EARLIEST, LATEST, MONTHS, Period, find_periods
from orchestra.tools.table_lexicon import (
    ASKER,
    BOUND_SUFFIXES,
    BOUNDS,
    CHANGE,
    DIFFERENCE,
    EXCLUSION,
    NEGATION,
    NONE_VALUES,
    NUMBER_WORDS,
    PERCENT,
    STOP_WORDS,
    measure_groups,
)
from orchestra.tools.table_views import TableColumn, TableView, read_number
from orchestra.tools.word_forms import TOKEN, are_alike, split_words, stem_word

GROUP_STRENGTH: Final = 0.6
"""Strength of a word that means the same measure as a header; a form of a header's word has 1."""
MAX_VALUES: Final = 4_000
"""Different values of a column that are compared with the question."""
MIN_COMPOUND_PART: Final = 5
"""Letters of a value that a compound of the question may begin with."""
_GENERAL_NOUNS: Final = frozenset(
    stem_word(word)
    for word in [
        "record",
        "entry",
        "row",
        "line",
        "item",
        "thing",
        "case",
        "time",
        "occasion",
        "people",
        "person",
        "everyone",
        "eintrag",
        "fall",
        "mal",
        "personne",
        "fois",
        "cas",
        "personas",
        "veces",
        "casos",
    ]
)
_NOT_SINCE: Final = re.compile(r"(?:\b(?:not|never|nicht|pas|no)\b|n't\b)[^.?!]{0,40}$", re.IGNORECASE)
_BEGAN: Final = re.compile(r"\b(?:began|started|begann|a commencé)\b", re.IGNORECASE)
_LIMIT: Final = re.compile(
    r"\s*(?:a |an |the )?(?P<number>[$€£]?\s?\d[\d,.]*(?<![.,])|\w+)(?P<unit>\s?%)?", re.IGNORECASE
)


@dataclass(frozen=True)
class Option:
    """The records with one value or in one period, and the words of the question that name it."""

    name: str
    rows: frozenset[int]
    places: frozenset[int]

    @property
    def start(self) -> int:
        """The first of its words."""
        return min(self.places, default=0)


@dataclass
class Condition:
    """A condition on a column: one of several options, or none of them."""

    column: TableColumn
    options: list[Option]
    kind: str
    """`value`, `period`, `limit`, `number` or `filled`."""
    negated: bool = False

    def rows(self, length: int) -> frozenset[int]:
        """Returns the records that meet the condition."""
        named = frozenset[int]().union(*(option.rows for option in self.options))
        return frozenset(range(length)) - named if self.negated else named

    @property
    def places(self) -> frozenset[int]:
        """The words of the question that state it."""
        return frozenset[int]().union(*(option.places for option in self.options))


@dataclass
class TableQuestion:
    """A question read over one view."""

    text: str
    view: TableView
    words: list[str] = field(default_factory=list)
    stems: list[str] = field(default_factory=list)
    spans: list[tuple[int, int]] = field(default_factory=list)
    explained: set[int] = field(default_factory=set)
    conditions: list[Condition] = field(default_factory=list)
    links: dict[int, dict[int, float]] = field(default_factory=dict)
    """By column: the words that name it, with their strengths."""
    period_columns: list[tuple[int, TableColumn]] = field(default_factory=list)
    """Columns whose headers are periods of the question, such as Q1 and Q2, with their first word."""
    missing: str = ""
    """A period of the question that the table does not have, although it has others."""

    def __post_init__(self) -> None:
        for match in TOKEN.finditer(self.text):
            self.words.append(match[0].casefold())
            self.stems.append(stem_word(match[0]))
            self.spans.append(match.span())
        self.claim(ASKER)
        self._find_periods()
        self._find_limits()
        self._find_values()
        self._find_numbers()
        self._find_columns()
        self._find_filled()
        self._explain_nouns()

    # Words

    def places(self, start: int, end: int) -> set[int]:
        """Returns the words between two positions of the text."""
        return {at for at, (first, last) in enumerate(self.spans) if first < end and last > start}

    def claim(self, pattern: re.Pattern[str]) -> bool:
        """Whether the question has a phrase; its words are explained then."""
        matches = list(pattern.finditer(self.text))
        for match in matches:
            self.explained |= self.places(*match.span())
        return bool(matches)

    def is_stop(self, at: int) -> bool:
        """Whether a word carries no content."""
        return self.words[at] in STOP_WORDS or self.stems[at] in STOP_WORDS

    def rows(self, without: Condition | None = None) -> list[int]:
        """Returns the records that meet all conditions but one."""
        rows = frozenset(range(self.view.length))
        for condition in self.conditions:
            if condition is not without:
                rows &= condition.rows(self.view.length)
        return sorted(rows)

    def unexplained(self) -> list[int]:
        """Returns the content words that nothing explains."""
        return [at for at in range(len(self.words)) if not self.is_stop(at) and at not in self.explained]

    def share_explained(self) -> float:
        """Returns the share of the content words that are explained. A missing period explains nothing."""
        absent = self.places(*match.span()) if (match := re.search(re.escape(self.missing), self.text)) else set()
        content = [at for at in range(len(self.words)) if not self.is_stop(at) and not (self.missing and at in absent)]
        return sum(at in self.explained for at in content) / max(1, len(content))

    def strength(self, column: TableColumn) -> float:
        """Returns how strongly the question names a column."""
        links = self.links.get(column.number, {})
        return sum(links.values())

    def is_named(self, column: TableColumn) -> bool:
        """Whether a word of the question is a form of a header's word, and not only of the same group."""
        return any(strength == 1 for strength in self.links.get(column.number, {}).values())

    def named_columns(self, test: Callable[[TableColumn], bool] = lambda column: True) -> list[TableColumn]:
        """Returns the columns that the question names, the strongest first."""
        used = {condition.column.number for condition in self.conditions if condition.kind != "filled"}
        columns = [column for column in self.view.columns if self.links.get(column.number) and test(column)]
        return sorted(
            columns,
            key=lambda column: (
                column.number in used,
                -round(self.strength(column), 3),
                -self._header_share(column),
                column.joined,
                min(self.links[column.number]),
                column.number,
            ),
        )

    def _header_share(self, column: TableColumn) -> float:
        stems = [self.stems[at] for at in self.links.get(column.number, {})]
        found = {word for word in column.content if any(are_alike(stem, word) for stem in stems)}
        return len(found) / max(1, len(column.content))

    def links_measure(self) -> bool:
        """Whether a word of the question names a measure."""
        return any(self.view.columns[number].is_measure for number in self.links)

    def use(self, *columns: TableColumn) -> None:
        """Counts the words that name some columns as explained."""
        for column in columns:
            self.explained |= set(self.links.get(column.number, {}))

    # Periods

    def _find_periods(self) -> None:
        periods = find_periods(self.text)
        if CHANGE.search(self.text) or DIFFERENCE.search(self.text):  # `from A to B` names two periods then
            periods = [_unbounded(part) for period in periods for part in period.ends or (period,)]
        if not periods:
            return
        heads = [(column, column.period) for column in self.view.columns if column.period is not None]
        dated = [column for column in self.view.columns if column.is_date]
        by_column: dict[int, list[Option]] = {}
        for period in periods:
            places = self.places(period.start, period.end)
            named = [column for column, head in heads if head is not None and _includes(period, head)]
            if named:
                self.period_columns += [(min(places), column) for column in named]
                self.explained |= places
                continue
            if self._is_in_name(period, dated):
                self.explained |= places
                continue
            column = self._date_column(dated, places)
            if column is None:
                if heads and not dated:
                    self.missing = period.name
                continue
            rows = frozenset(
                row for row, dates in enumerate(column.dates) if dates is not None and all(map(period.contains, dates))
            )
            if not period.first[0] and rows:
                rows = _latest_year(column, rows)
            if not rows and not self.missing:
                self.missing = period.name
            self.explained |= places
            option = Option(period.name, rows, frozenset(places))
            negation = _NOT_SINCE.search(self.text[: period.start])
            if negation is not None and period.last == LATEST:
                self.explained |= self.places(negation.start(), negation.start() + 3)
                self.claim(_BEGAN)
                self.conditions.append(Condition(column, [option], "period", negated=True))
            else:
                by_column.setdefault(column.number, []).append(option)
        for number, options in by_column.items():
            self.conditions.append(Condition(self.view.columns[number], options, "period"))

    def _is_in_name(self, period: Period, dated: list[TableColumn]) -> bool:
        """Whether a year is part of the table's name or of a header, and no date of the table decides it."""
        if period.first == period.last and period.first[1] and not period.first[2]:
            return any(MONTHS.get(word) == period.first[1] for word in self.view.name_words) and not dated
        if not period.is_year:
            return False
        year = str(period.first[0])
        known = {dates[0][0] for column in dated for dates in column.dates if dates is not None}
        return (year in self.view.name_words and known <= {0, period.first[0]}) or any(
            year in column.words for column in self.view.columns
        )

    def _date_column(self, dated: list[TableColumn], places: set[int]) -> TableColumn | None:
        """The column of dates that the question means: the one that it names nearest to the period, else the first."""
        if not dated:
            return None

        def rank(column: TableColumn) -> tuple[int, int, bool, int]:
            near = [
                abs(at - min(places))
                for at, stem in enumerate(self.stems)
                if at not in places and not self.is_stop(at) and any(are_alike(stem, word) for word in column.content)
            ]
            groups = [
                abs(at - min(places))
                for at, stem in enumerate(self.stems)
                if at not in places
                and not self.is_stop(at)
                and measure_groups(stem) & column.groups & {"begin", "finish", "buy", "birth"}
            ]
            return min(near, default=99), min(groups, default=99), column.joined, column.number

        return min(dated, key=rank)

    # Limits

    def _find_limits(self) -> None:
        for bound, pattern in BOUNDS:
            for match in pattern.finditer(self.text):
                limit = _LIMIT.match(self.text, match.end())
                number = _limit_number(limit["number"]) if limit is not None else None
                places = self.places(*match.span())
                if limit is None or number is None or places & self.explained:
                    continue
                end = limit.end()
                self._add_limit(bound, number, places | self.places(limit.start("number"), end), limit)
        for at, (start, end) in enumerate(self.spans):
            number = _limit_number(self.text[start:end])
            if number is None or at in self.explained:
                continue
            for bound, pattern in BOUND_SUFFIXES:
                suffix = pattern.match(self.text[end:])
                if suffix is not None:
                    self._add_limit(bound, number, {at} | self.places(end + 1, end + suffix.end()), None)

    def _add_limit(self, bound: str, number: Fraction, places: set[int], limit: re.Match[str] | None) -> None:
        column = self._limit_column(number, places, limit[0] if limit is not None else "")
        if column is None:
            return
        tests: dict[str, Callable[[Fraction], bool]] = {
            "below": lambda value: value < number,
            "above": lambda value: value > number,
            "from": lambda value: value >= number,
            "upto": lambda value: value <= number,
        }
        rows = frozenset(row for row, value in enumerate(column.numbers) if value is not None and tests[bound](value))
        name = self.text[self.spans[min(places)][0] : self.spans[max(places)][1]]
        self.conditions.append(Condition(column, [Option(name, rows, frozenset(places))], "limit"))
        self.explained |= places

    def _limit_column(self, number: Fraction, places: set[int], limit: str) -> TableColumn | None:
        """The measure that a limit is about: named near it, or with its unit."""
        measures = [column for column in self.view.columns if column.is_measure]
        after = range(max(places) + 1, min(len(self.stems), max(places) + 4))
        before = range(max(0, min(places) - 5), min(places))[::-1]
        for at in (*after, *before):
            stem = self.stems[at]
            alike = [
                column
                for column in measures
                if any(are_alike(stem, word) for word in column.content) or (stem == stem_word(column.unit))
            ]
            if alike and not self.is_stop(at):
                self.explained.add(at)
                return alike[0]
        if limit.lstrip()[:1] in ("£", "€", "$"):
            money = [column for column in measures if column.is_money]
            groups = {group for stem in self.stems for group in measure_groups(stem)}
            return next((column for column in money if column.groups & groups), money[0] if money else None)
        for at in (*before, *after):
            grouped = [column for column in measures if column.groups & measure_groups(self.stems[at])]
            if len(grouped) == 1:
                self.explained.add(at)
                return grouped[0]
        return measures[0] if len(measures) == 1 else None

    # Values

    def _find_values(self) -> None:
        found: dict[int, dict[str, set[int]]] = {}
        for column in self.view.columns:
            if column.is_number or column.is_date or column.distinct > MAX_VALUES or column.is_boolean:
                continue
            values = self._values_of(column)
            if values:
                found[column.number] = values
        _drop_partial_values(found)
        for number, values in self._without_duplicates(found).items():
            column = self.view.columns[number]
            options = [
                Option(
                    text,
                    frozenset(row for row, cell in enumerate(column.texts) if cell.casefold() == text.casefold()),
                    frozenset(places),
                )
                for text, places in values.items()
            ]
            kept = [option for option in options if not self._is_excluded(option)]
            dropped = [option for option in options if self._is_excluded(option)]
            if kept:
                self.conditions.append(Condition(column, sorted(kept, key=lambda option: option.start), "value"))
            if dropped:
                self.conditions.append(Condition(column, dropped, "value", negated=True))
            self.explained |= {at for places in values.values() for at in places}

    def _without_duplicates(self, found: dict[int, dict[str, set[int]]]) -> dict[int, dict[str, set[int]]]:
        """Leaves words that name values of several columns to the first of the columns: own ones, then nearest."""
        kept: dict[int, dict[str, set[int]]] = {}
        taken: set[int] = set()

        def rank(number: int) -> tuple[int, bool, int]:
            column, places = self.view.columns[number], {at for values in found[number].values() for at in values}
            beside = any(
                are_alike(self.stems[near], word)
                for at in places
                for near in (at - 1, at + 1, at - 2)
                if 0 <= near < len(self.stems) and near not in places
                for word in column.content
            )
            return -beside, column.joined, number

        for number in sorted(found, key=rank):
            values = {text: places for text, places in found[number].items() if not places <= taken}
            if values:
                kept[number] = values
                taken |= {at for places in values.values() for at in places}
        return kept

    def _values_of(self, column: TableColumn) -> dict[str, set[int]]:
        """Returns the values of a column that the question names: whole, or by a word that few values have."""
        distinct = list({text.casefold(): text for text in column.texts if text}.values())
        parts = {text: [stem_word(word) for word in split_words(text)] for text in distinct}
        owners: dict[str, int] = {}
        for words in parts.values():
            for part in set(words):
                owners[part] = owners.get(part, 0) + 1
        heads = {word for other in self.view.columns for word in other.content}
        found: dict[str, set[int]] = {}
        for text, own in parts.items():
            if not own:
                continue
            starts = [at for at in range(len(self.stems) - len(own) + 1) if self._matches(own, at)]
            if starts and not (len(own) == 1 and (own[0] in STOP_WORDS or self.words[starts[0]] in STOP_WORDS)):
                found[text] = {at + step for at in starts for step in range(len(own))}
                continue
            rare = {
                at
                for at, stem in enumerate(self.stems)
                if at not in self.explained
                and not self.is_stop(at)
                and len(stem) > 2
                and not stem.isdigit()
                and stem in own
                and owners[stem] * 2 <= len(distinct) + 1
                and (len(own) > 1)
                and (self._is_capitalised(at) or stem not in heads)
            }
            if len(own) == 1 and len(own[0]) >= MIN_COMPOUND_PART and not rare:  # `Kübelpflanzen` has the value Kübel
                rare = {at for at, stem in enumerate(self.stems) if _is_compound(stem, own[0])} - self.explained
            if rare:
                found[text] = rare
        whole = {at for text, places in found.items() if len(places) >= len(parts[text]) for at in places}
        found = {
            text: places for text, places in found.items() if len(places) >= len(parts[text]) or not places <= whole
        }
        most = (
            {at: max(len(other) for other in found.values() if at in other) for at in set().union(*found.values())}
            if found
            else {}
        )
        return {text: places for text, places in found.items() if any(len(places) == most[at] for at in places)}

    def _matches(self, own: list[str], at: int) -> bool:
        return all(
            self.stems[at + step] == word or (len(word) >= 5 and are_alike(self.stems[at + step], word))
            for step, word in enumerate(own)
        ) and not (set(range(at, at + len(own))) & self.explained)

    def _is_capitalised(self, at: int) -> bool:
        start = self.spans[at][0]
        return at > 0 and self.text[start : start + 1].isupper()

    def _is_excluded(self, option: Option) -> bool:
        """Whether a value is excluded: `without Orchard`, `not in Cork`."""
        start = self.spans[option.start][0]
        matches = [match for match in EXCLUSION.finditer(self.text[:start]) if match.end() <= start]
        if not matches:
            return False
        between = self.text[matches[-1].end() : start]
        if len(split_words(between)) > 2 or re.search(r"[.;?!]", between):
            return False
        self.explained |= self.places(*matches[-1].span())
        return True

    # Numbers beside headers

    def _find_numbers(self) -> None:
        """`class 1` and `two bedrooms` as values of the columns Class and Bedrooms."""
        for column in self.view.columns:
            if not column.is_measure and not column.is_number:
                continue
            options = []
            for at, word in enumerate(self.words):
                number = _limit_number(word)
                if number is None or at in self.explained:
                    continue
                near = next(
                    (
                        other
                        for other in (at + 1, at - 1)
                        if 0 <= other < len(self.stems)
                        and other not in self.explained
                        and self._is_beside(at, other)
                        and any(are_alike(self.stems[other], head) for head in column.content)
                    ),
                    None,
                )
                if near is None:
                    continue
                rows = frozenset(row for row, value in enumerate(column.numbers) if value == number)
                options.append(Option(self.words[at], rows, frozenset({at, near})))
            if options and any(option.rows for option in options):
                self.conditions.append(Condition(column, options, "number"))
                self.explained |= {at for option in options for at in option.places}

    def _is_beside(self, at: int, other: int) -> bool:
        first, second = sorted((at, other))
        return re.fullmatch(r"[\s\-:#.]*", self.text[self.spans[first][1] : self.spans[second][0]]) is not None

    # Columns

    def _find_columns(self) -> None:
        valued = {at for condition in self.conditions for at in condition.places if condition.kind == "value"}
        for column in self.view.columns:
            links: dict[int, float] = {}
            for at, stem in enumerate(self.stems):
                if at in valued or len(stem) < 2:
                    continue
                if not self.is_stop(at) and any(_is_form(stem, word) for word in column.content):
                    links[at] = 1.0
                elif measure_groups(stem) & column.groups or (stem == stem_word(column.unit) and len(stem) > 1):
                    links[at] = GROUP_STRENGTH
            content = [at for at in links if not self.is_stop(at)]
            alike = {
                word for word in column.content for at in links if links[at] == 1 and _is_form(self.stems[at], word)
            }
            if content and (alike or any(links[at] < 1 for at in content)):
                weak = alike and 2 * len(alike) < len(column.content)
                self.links[column.number] = {
                    at: strength * (0.5 if weak else 1.0) for at, strength in links.items() if at in content
                }

    def _find_filled(self) -> None:
        """Conditions on columns of yes and no, and on cells without a value."""
        used = {condition.column.number for condition in self.conditions}
        for column in self.named_columns(lambda column: not column.is_measure and column.number not in used):
            empty = sum(column.is_empty(row) for row in range(self.view.length))
            if not column.is_boolean and not 0 < empty < self.view.length:
                continue
            places = set(self.links[column.number])
            negation = next((match for match in NEGATION.finditer(self.text)), None)
            if column.is_boolean:
                negative = frozenset(row for row, text in enumerate(column.texts) if text.casefold() in NONE_VALUES)
            elif negation is not None and self.is_named(column):
                negative = frozenset(row for row in range(self.view.length) if column.is_empty(row))
            else:
                continue
            if not negative or len(negative) == self.view.length:
                continue
            if negation is None and not any(stem_word(word) in self.stems for word in column.words):
                continue
            rows = negative if negation is not None else frozenset(range(self.view.length)) - negative
            if negation is not None:
                places |= self.places(*negation.span())
            self.conditions.append(Condition(column, [Option(column.head, rows, frozenset(places))], "filled"))
            self.explained |= places
            return

    def _explain_nouns(self) -> None:
        nouns = self.row_nouns()
        for at, stem in enumerate(self.stems):
            if any(_is_form(stem, noun) for noun in nouns) or stem in _GENERAL_NOUNS:
                self.explained.add(at)

    def row_nouns(self) -> frozenset[str]:
        """Returns the stems of words for the records: of the table's name, and of the header of its key."""
        key = self.view.key
        nouns = set(self.view.name_words)
        if key.distinct == self.view.length:
            nouns |= set(key.content) - {"name", "id", "number", "code", "no", "nr", "ref", "reference", "date"}
        return frozenset(word for word in nouns if not word.isdigit() and len(word) > 1)

    def names_records(self, at: int) -> bool:
        """Whether a word names the records of the table."""
        return any(_is_form(self.stems[at], noun) for noun in self.row_nouns()) or self.stems[at] in _GENERAL_NOUNS

    def compares(self) -> bool:
        """Whether the question asks for a difference, a change or a percentage."""
        return any(pattern.search(self.text) is not None for pattern in (DIFFERENCE, CHANGE, PERCENT))


def _is_form(stem: str, word: str) -> bool:
    """Whether a stem is a form of a header's word, or a compound that ends with it, such as `Lieferkosten`."""
    if stem.startswith("un") and are_alike(stem[2:], word):
        return True  # `unpaid` names the column Paid
    short, long = sorted((stem, word), key=len)
    return are_alike(stem, word) or (len(short) >= 5 and len(long) > len(short) + 2 and long.endswith(short))


def _is_compound(stem: str, part: str) -> bool:
    """Whether a stem is a compound that begins with a part."""
    return stem.startswith(part) and len(stem) >= len(part) + 4


def _unbounded(period: Period) -> Period:
    """A period without the word before it: of `from 9 February to 16 February` the 9 February alone."""
    if period.last == LATEST:
        return replace(period, last=period.first)
    return replace(period, first=period.last) if period.first == EARLIEST else period


def _includes(period: Period, head: Period) -> bool:
    """Whether a period of the question includes the whole period of a header."""
    if bool(period.first[0]) != bool(head.first[0]) and not (period.first[1] and head.first[1]):
        return False
    return period.contains(head.first) and period.contains(head.last)


def _latest_year(column: TableColumn, rows: frozenset[int]) -> frozenset[int]:
    """The records of the last year, for a month without a year."""
    years = {row: dates[0][0] for row in rows if (dates := column.dates[row]) is not None}
    last = max(years.values(), default=0)
    return frozenset(row for row, year in years.items() if year == last)


def _limit_number(text: str) -> Fraction | None:
    """Returns the number of a numeral or of a number word."""
    word = text.casefold().strip()
    if word in NUMBER_WORDS:
        return Fraction(NUMBER_WORDS[word])
    return read_number(text) if re.search(r"\d", text) and not re.search(r"[^\W\d_]{3}", text) else None


def _drop_partial_values(found: dict[int, dict[str, set[int]]]) -> None:
    """Removes values that are named by a part, where the part is the whole name of a value of another column."""
    whole = {
        at
        for values in found.values()
        for text, places in values.items()
        if len(places) >= len(split_words(text))
        for at in places
    }
    for number, values in list(found.items()):
        kept = {
            text: places
            for text, places in values.items()
            if len(places) >= len(split_words(text)) or not places <= whole
        }
        if kept:
            found[number] = kept
        else:
            del found[number]

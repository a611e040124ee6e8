"""Table queries: a question about a table as filters, an operation and a column, without a model.

The words of the question are matched with the headers and the cells of the table. What they say decides the query:
`Which region had the highest sales in Q3?` is the maximum of the column Q3, and the answer is of the column Region. The
query is run over the cells, whose positions are the evidence. A question whose words the table does not explain has no
query, and a name of a kind that the table lists, such as a month that is not among its months, has no answer. Numbers
are exact fractions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final

from orchestra.schema.builtin_models import Cell, Table
from orchestra.text.arithmetic import format_fraction
from orchestra.text.keywords import WORD
from orchestra.tools.table_words import (
    MONTHS,
    QUARTER,
    STOP_WORDS,
    TIME_HEAD,
    YEAR,
    QuestionMatch,
    ReadCell,
    TableColumn,
    TableView,
    are_alike,
    match_question,
    read_number,
    split_words,
    stem_word,
    view_table,
)

_MONEY_WORDS: Final = frozenset(
    WORD.findall(
        "money income revenue turnover takings sales earn earned earning earnings spend spent spending "
        "cost costs price worth paid pay rent amount fee expensive cheap cheapest dearest expense bought"  # prose: ok
    )
)
_PERSON_HEAD = re.compile(
    r"\b(?:name|customer|client|employee|person|practitioner|doctor|dentist|nurse|agent|technician|teacher|manager|owner|author|seller|buyer|member|patient|"
    r"staff|supplier|company|contact|driver|artist|player|student)\b",
    re.IGNORECASE,
)


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
    missing: str = ""
    """A name of the question that the table does not have; then there are no answers."""


def query_tables_best(question: str, tables: Sequence[Table]) -> QueryResult | None:
    """Returns the result of the best query of a question over tables; None if no table explains its words."""
    found = [result for table in tables if (result := _query_one(question, table)) is not None]
    return max(found, key=lambda result: result.explained + (0.15 if result.missing else 0.0), default=None)


def _query_one(question: str, table: Table) -> QueryResult | None:
    view = view_table(table)
    if view is None:
        return None
    words = [word.casefold() for word in split_words(question)]
    match = match_question(words, view, question)
    result = _Query(question, words, view, match).run()
    if result is None:
        return None
    content = [at for at, word in enumerate(words) if word not in STOP_WORDS]
    known = match.claimed | {at for at in content if stem_word(words[at]) in view.name_words}
    explained = sum(at in known for at in content) / max(1, len(content))
    return replace(result, explained=round(explained, 4), table=table.name)


_PERCENT = re.compile(r"\b(?:(?:many|much|what)\s+per\s?cent|percent(?:age)?|per cent|in %)\b|%", re.IGNORECASE)
_CHANGE = re.compile(
    r"\b(?:grow\w*|grew|growth|ris(?:e|es|en)|rose|increas\w*|fall\w*|fell|declin\w*|decreas\w*|drop\w*|"
    r"chang\w*|go(?:ne)? up|"
    r"went up|go(?:ne)? down|went down|gain\w*|lost|lose|shr[ai]nk|shrunk)\b",
    re.IGNORECASE,
)
_DOWN = re.compile(
    r"\b(?:fall\w*|fell|declin\w*|decreas\w*|drop\w*|lost|lose|loss|went down|go down|gone down|shrank|"
    r"shrunk|shrink\w*|less|worse)\b",
    re.IGNORECASE,
)
_SHARE = re.compile(r"\b(?:share|proportion|percentage|per ?cent)\b.*\b(?:of|had|were|are|have)\b", re.IGNORECASE)
_MEAN = re.compile(r"\b(?:average|mean|on average|typical)\b", re.IGNORECASE)
_SUM = re.compile(
    r"\b(?:total|sum|altogether|in all|together|overall|combined|added up|all in all|whole)\b", re.IGNORECASE
)
_MOST = re.compile(
    r"\b(?:most|highest|largest|biggest|greatest|maximum|best|top|longest|tallest|heaviest|strongest|busiest|warmest|"
    r"hottest|dearest|more than any|latest|newest|youngest)\b|\bmost \w+",  # prose: ok
    re.IGNORECASE,
)
_LEAST = re.compile(
    r"\b(?:least|lowest|smallest|fewest|minimum|worst|shortest|lightest|cheapest|coldest|weakest|earliest|oldest|first|soonest|"
    r"slowest)\b",
    re.IGNORECASE,
)
_TIME_EXTREME = re.compile(r"\b(?:latest|newest|youngest|earliest|oldest|soonest|first|last|next)\b", re.IGNORECASE)
_PAST = re.compile(r"\b(?:was|were|did|had|earned|took|spent|made|total|sales?|turnover)\b", re.IGNORECASE)
_PERIOD_NAME = re.compile(
    rf"\b(?:first|second|third|fourth|last|next|latest)\s+(?:quarter|half|week|month|year|{'|'.join(MONTHS)})\b",
    re.IGNORECASE,
)
"""Such as `last June`: no extreme."""
_COUNT = re.compile(r"\bhow many\b|\bthe (?:total )?number of\b", re.IGNORECASE)
_DIFFERENCE = re.compile(
    r"\b(?:how (?:much|many) (?:more|less|fewer|higher|lower|better)|by how much|difference|gap)\b", re.IGNORECASE
)
_BOUNDS: Final = (
    (
        "below",
        re.compile(
            r"\b(?:less than|fewer than|under|below|before|lower than|smaller than|younger than|"
            r"cheaper than|short of)\b",
            re.IGNORECASE,
        ),
    ),
    (
        "above",
        re.compile(
            r"\b(?:more than|over|above|after|higher than|larger than|greater than|older than|exceed\w*|"
            r"past|longer than)\b",
            re.IGNORECASE,
        ),
    ),
    ("from", re.compile(r"\b(?:at least|since|from|minimum of|no less than|or more)\b", re.IGNORECASE)),
    ("upto", re.compile(r"\b(?:at most|up to|until|maximum of|no more than|or less|or fewer)\b", re.IGNORECASE)),
)
_LIMIT = re.compile(r"(?P<number>[$€£]?\d[\d,]*(?:\.\d+)?)")
_WHICH = re.compile(r"\b(?:which|what|whose|who|whom|where|when)\b", re.IGNORECASE)
_NEGATION = re.compile(r"\b(?:without|no|not|never|lack\w*)\b", re.IGNORECASE)
_NONE: Final = frozenset({"no", "none", "", "-", "–", "0", "false", "n", "nein", "non"})


@dataclass
class _Query:
    question: str
    words: Sequence[str]
    view: TableView
    match: QuestionMatch

    def run(self) -> QueryResult | None:
        match = self.match
        if not match.columns and not match.values:
            return None
        if match.missing:
            return (
                QueryResult("missing", (), (), missing=match.missing)
                if match.columns or match.values or self._is_money
                else None
            )
        for attempt in (
            self._period_change,
            self._column_comparison,
            self._share,
            self._extreme,
            self._bounded,
            self._aggregate,
            self._lookup,
        ):
            result = attempt()
            if result is not None:
                return result
        return None

    # Words

    @property
    def _is_money(self) -> bool:
        return any(stem_word(word) in _MONEY_WORDS or word in _MONEY_WORDS for word in self.words)

    def _claim(self, pattern: re.Pattern[str]) -> bool:
        """Whether the question has a phrase; its words are explained then."""
        found = False
        for place in pattern.finditer(self.question):
            found = True
            for word in split_words(place[0]):
                self.match.claimed |= {at for at, one in enumerate(self.words) if one == word.casefold()}
        return found

    def _claim_money(self) -> None:
        self.match.claimed |= {
            at for at, word in enumerate(self.words) if word in _MONEY_WORDS or stem_word(word) in _MONEY_WORDS
        }

    # Columns and rows

    def _rows(self, without: Iterable[int] = ()) -> list[int]:
        """The rows that the named values select."""
        skip = set(without)
        rows = list(range(self.view.length))
        for number, values in self.match.values.items():
            if number in skip:
                continue
            wanted = self._value_range(number, values)
            column = self.view.columns[number]
            rows = [row for row in rows if column.texts[row] in wanted]
        return rows

    def _value_range(self, number: int, values: Mapping[str, set[int]]) -> set[str]:
        """The named values, with those between two of them for `from A to B`, by the order of the table."""
        if len(values) == 2 and re.search(
            r"\b(?:from|between)\b.*\b(?:to|until|till|and|through)\b", self.question, re.IGNORECASE
        ):
            order = list(dict.fromkeys(self.view.columns[number].texts))
            ends = sorted(order.index(value) for value in values)
            if all(value.casefold() in MONTHS or QUARTER.match(value.casefold()) for value in values):
                return set(order[ends[0] : ends[1] + 1])
        return set(values)

    def _periods(self) -> list[TableColumn]:
        """The named columns whose headers are periods, such as Q1 and Q2, in the order of the question."""
        named = [
            (min(places), self.view.columns[number])
            for number, places in self.match.columns.items()
            if self.view.columns[number].is_number
        ]
        return [column for _, column in sorted(named, key=lambda one: one[0]) if _is_period(column.head)]

    def _measure(self) -> TableColumn | None:
        """The numeric column that is asked for."""
        named = [
            (-len(places), number)
            for number, places in self.match.columns.items()
            if self.view.columns[number].is_number
        ]
        if named:
            return self.view.columns[min(named)[1]]
        if self._is_money:
            money = [column for column in self.view.columns if column.is_money]
            if len(money) == 1:
                self._claim_money()
                return money[0]
            if money:
                self._claim_money()
                return max(money, key=lambda column: sum(number or 0 for number in column.numbers))
        return None

    def _only_measure(self) -> TableColumn | None:
        numeric = [column for column in self.view.columns if column.is_number and not column.is_year]
        return numeric[0] if len(numeric) == 1 else None

    def _target(self) -> TableColumn:
        """The column of the answer: the named text column, else the one that names the records."""
        after = next(iter(_WHICH.finditer(self.question)), None)
        named = [
            (min(places), self.view.columns[number])
            for number, places in self.match.columns.items()
            if not self.view.columns[number].is_number and number not in self.match.values
        ]
        if named:
            return min(named, key=lambda one: one[0])[1]
        if after is not None and after[0].casefold() in ("who", "whom", "whose"):
            people = [
                column for column in self.view.columns if not column.is_number and _PERSON_HEAD.search(column.head)
            ]
            if people:
                return people[0]
        return self.view.key

    # Operations

    def _period_change(self) -> QueryResult | None:
        """A change between two periods, of one record or as a condition over all."""
        if not (_CHANGE.search(self.question) or _DIFFERENCE.search(self.question)):
            return None
        pair = self._pair()
        if pair is None:
            return None
        keys, before, after = pair
        self._claim(_CHANGE)
        self._claim(_DIFFERENCE)
        self._claim(_PERCENT)
        asked = _WHICH.search(self.question)
        if (
            asked is not None
            and asked[0].casefold() in ("which", "who", "whose", "what")
            and not _PERCENT.search(self.question)
            and not _DIFFERENCE.search(self.question)
        ):
            down = _DOWN.search(self.question) is not None
            target, chosen = self._target(), []
            for record in keys:
                first, second = before(record), after(record)
                if (
                    first is not None
                    and second is not None
                    and ((second[1] < first[1]) if down else (second[1] > first[1]))
                ):
                    chosen.append((record, first, second))
            cells = tuple(
                cell
                for record, first, second in chosen
                for cell in (self._cell(record, target.number), first[0], second[0])
            )
            answers = tuple(dict.fromkeys(target.texts[record] for record, _, _ in chosen))
            return QueryResult("fell" if down else "rose", answers, cells) if answers else None
        found = [(first, second) for record in keys if (first := before(record)) and (second := after(record))]
        if not found:
            return None
        start, end = sum((one[1] for one, _ in found), Fraction(0)), sum((one[1] for _, one in found), Fraction(0))
        cells = tuple(cell for pair_ in found for cell, _ in pair_)
        one = "(" + " + ".join(_plain(first[1]) for first, _ in found) + ")" if len(found) > 1 else _plain(start)
        two = "(" + " + ".join(_plain(second[1]) for _, second in found) + ")" if len(found) > 1 else _plain(end)
        if _PERCENT.search(self.question):
            if start == 0:
                return None
            value = (end - start) / start * 100
            return QueryResult("percent change", (_round(value) + " %",), cells, f"({two} - {one}) / {one} * 100")
        return QueryResult("difference", (_plain(abs(end - start)),), cells, f"{two} - {one}", unit=self._unit())

    def _pair(self) -> tuple[Sequence[int], ReadCell, ReadCell] | None:
        """Returns the records, and what reads the earlier and the later value of each."""
        periods = self._periods()
        if len(periods) == 2:
            first, second = periods
            rows = self._rows()
            return rows, self._reader(first), self._reader(second)
        measure = self._measure() or self._only_measure()
        two = [
            (number, values)
            for number, values in self.match.values.items()
            if len(values) == 2 and number != (measure.number if measure else -1)
        ]
        if measure is None or len(two) != 1:
            return None
        number, values = two[0]
        early, late = sorted(values, key=lambda value: min(values[value]))
        column = self.view.columns[number]
        rows = self._rows(without=[number])
        others = [
            other for other in self.view.columns if not other.is_number and other.number not in (number, measure.number)
        ]
        by_record: dict[tuple[str, ...], dict[str, int]] = {}
        for row in rows:
            record = tuple(other.texts[row] for other in others)
            by_record.setdefault(record, {}).setdefault(column.texts[row], row)
        keys = [places[early] for places in by_record.values() if early in places and late in places]
        partner = {places[early]: places[late] for places in by_record.values() if early in places and late in places}
        read = self._reader(measure)
        return keys, read, lambda row: read(partner[row])

    def _reader(self, column: TableColumn) -> ReadCell:
        def read(row: int) -> tuple[Cell, Fraction] | None:
            number = column.numbers[row]
            return None if number is None else (self._cell(row, column.number), number)

        return read

    def _column_comparison(self) -> QueryResult | None:
        """Records in which one column is below or above another: `below their minimum stock`."""
        bound = next(((name, found) for name, pattern in _BOUNDS[:2] if (found := pattern.search(self.question))), None)
        if bound is None or _LIMIT.search(self.question[bound[1].end() :]):
            return None
        place = len(split_words(self.question[: bound[1].start()]))
        after = [
            (min(at for at in places if at >= place), self.view.columns[number])
            for number, places in self.match.columns.items()
            if self.view.columns[number].is_number and any(at >= place for at in places)
        ]
        numeric = sorted(after, key=lambda one: one[0])
        if not numeric:
            return None
        limit = numeric[0][1]
        others = [
            self.view.columns[number]
            for number in self.match.columns
            if number != limit.number and self.view.columns[number].is_number
        ]
        value = others[0] if others else None
        if value is None:
            return None
        for _, pattern in _BOUNDS[:2]:
            self._claim(pattern)
        rows = [
            row
            for row in self._rows()
            if (one := value.numbers[row]) is not None
            and (two := limit.numbers[row]) is not None
            and ((one < two) if bound[0] == "below" else (one > two))
        ]
        return self._records(bound[0], rows, (value, limit))

    def _share(self) -> QueryResult | None:
        """What share of the records meets a condition."""
        if not (_SHARE.search(self.question) and not _CHANGE.search(self.question)):
            return None
        rows, column = self._condition()
        if column is None:
            return None
        self._claim(_PERCENT)
        self._claim(re.compile(r"\b(?:share|proportion|had|some)\b", re.IGNORECASE))
        total = self.view.length
        cells = tuple(self._cell(row, column.number) for row in rows)
        value = Fraction(len(rows) * 100, total)
        return QueryResult("share", (_round(value) + " %",), cells, f"{len(rows)} / {total} * 100")

    def _condition(self) -> tuple[list[int], TableColumn | None]:
        """The rows that meet a condition on a named column: a value, none or some."""
        rows = self._rows()
        if self.match.values:
            number = next(iter(self.match.values))
            return rows, self.view.columns[number]
        for number in self.match.columns:
            column = self.view.columns[number]
            values = {text.casefold() for text in column.texts}
            if values & _NONE:
                negative = bool(_NEGATION.search(self.question))
                rows = [
                    row
                    for row in rows
                    if (column.texts[row].casefold() in _NONE or column.numbers[row] == 0) == negative
                ]
                self._claim(_NEGATION)
                return rows, column
        return rows, None

    def _extreme(self) -> QueryResult | None:
        """The record with the largest or smallest value."""
        asked = _PERIOD_NAME.sub(" ", self.question)
        largest, smallest = _MOST.search(asked) is not None, _LEAST.search(asked) is not None
        time = _TIME_EXTREME.search(asked) is not None
        plain = _TIME_EXTREME.sub(" ", asked)
        if _MOST.search(plain) or _LEAST.search(plain):
            time, largest, smallest = False, _MOST.search(plain) is not None, _LEAST.search(plain) is not None
        if largest == smallest and not time:
            return None
        column: TableColumn | None
        if time:
            times = sorted(
                (column for column in self.view.columns if column.is_time),
                key=lambda column: (not TIME_HEAD.search(column.head), not column.is_year, column.number),
            )
            named = [column for column in times if column.number in self.match.columns]
            if not times:
                return None
            column = (named or times)[0]
            largest = re.search(r"\b(?:latest|newest|youngest|last)\b", asked, re.IGNORECASE) is not None
        else:
            column = self._measure() or self._only_measure()
            if column is None:
                ordered = [
                    self.view.columns[number] for number in self.match.columns if self.view.columns[number].is_ordered
                ]
                column = ordered[0] if ordered else None
        if column is None or not column.is_ordered:
            return None
        self._claim(_MOST)
        self._claim(_LEAST)
        self._claim(_TIME_EXTREME)
        rows = self._rows()
        target = self._target()
        if target.number == column.number:
            target = self.view.key
        if column.is_number and not column.is_year:
            groups: dict[str, list[int]] = {}
            for row in rows:
                if column.numbers[row] is not None:
                    groups.setdefault(target.texts[row], []).append(row)
            if not groups:
                return None
            sums = {
                name: sum((column.numbers[row] or Fraction(0) for row in found), Fraction(0))
                for name, found in groups.items()
            }
            best = (max if largest else min)(sums.values())
            names = [name for name, value in sums.items() if value == best]
            cells = tuple(
                cell
                for name in names
                for row in groups[name]
                for cell in (self._cell(row, target.number), self._cell(row, column.number))
            )
            summed = any(len(groups[name]) > 1 for name in names)
            expression = (
                " + ".join(_plain(column.numbers[row] or Fraction(0)) for row in groups[names[0]]) if summed else None
            )
            if (
                not summed
                and re.match(
                    r"\W*(?:what|how (?:high|much|many))\b(?! \w+ (?:has|had|have))", self.question, re.IGNORECASE
                )
                and not self._asks_record()
            ):
                return QueryResult(
                    "most" if largest else "least", (column.texts[groups[names[0]][0]],), cells, unit=column.unit
                )
            return QueryResult(
                "most" if largest else "least",
                tuple(names),
                cells,
                expression,
                details=(_plain(best),) * len(names),
                unit=column.unit,
            )
        order = column.numbers if column.is_number else column.order
        known = {row: float(value) for row in rows if (value := order[row]) is not None}
        if not known:
            return None
        edge = (max if largest else min)(known.values())
        chosen = [row for row, value in known.items() if value == edge]
        return self._records("most" if largest else "least", chosen, (column,), details=column)

    def _asks_record(self) -> bool:
        """Whether the question asks for a record, and not for the extreme value itself."""
        return bool(re.search(r"\b(?:which|who|whose|whom|where)\b", self.question, re.IGNORECASE)) or bool(
            {number for number in self.match.columns if not self.view.columns[number].is_number}
        )

    def _bounded(self) -> QueryResult | None:
        """Records beyond a limit, as a list or as their number."""
        place = next(
            (
                (name, found)
                for name, pattern in _BOUNDS
                for found in [pattern.search(self.question)]
                if found and _LIMIT.match(self.question[found.end() :].lstrip(" a$€£"))
            ),
            None,
        )
        if place is None:
            return None
        limit = _LIMIT.match(self.question[place[1].end() :].lstrip(" a$€£"))
        number = read_number(limit["number"]) if limit else None
        if number is None:
            return None
        column = self._limit_column(number)
        if column is None:
            return None
        tests = {
            "below": lambda value: value < number,
            "above": lambda value: value > number,
            "from": lambda value: value >= number,
            "upto": lambda value: value <= number,
        }
        rows = [row for row in self._rows() if (value := column.numbers[row]) is not None and tests[place[0]](value)]
        self._claim(_BOUNDS[[name for name, _ in _BOUNDS].index(place[0])][1])
        self._claim(re.compile(re.escape(limit["number"]) if limit else "$^"))
        if _COUNT.search(self.question):
            if not self._counts_records():
                return None
            self._claim(_COUNT)
            cells = tuple(self._cell(row, column.number) for row in rows)
            return QueryResult("count", (str(len(rows)),), cells, " + ".join("1" for _ in rows) or "0")
        if _SUM.search(self.question) or _MEAN.search(self.question):
            return self._aggregate(rows)
        return self._records(place[0], rows, (column,), details=None)

    def _limit_column(self, number: Fraction) -> TableColumn | None:
        named = [self.view.columns[at] for at in self.match.columns if self.view.columns[at].is_number]
        if named:
            return named[-1]
        if 1900 <= number <= 2100:
            return next((column for column in self.view.columns if column.is_year), None)
        if self._is_money:
            return next((column for column in self.view.columns if column.is_money), None)
        return self._only_measure()

    def _aggregate(self, rows: Sequence[int] | None = None) -> QueryResult | None:
        """A sum, a mean or a number of records."""
        rows = self._rows() if rows is None else rows
        measure = self._measure()
        total, mean, count = (pattern.search(self.question) is not None for pattern in (_SUM, _MEAN, _COUNT))
        periods = self._periods()
        if mean:
            column = measure or self._only_measure()
            return None if column is None else self._reduce("mean", rows, [column])
        if total or (count and measure is not None):
            columns = periods if len(periods) > 1 else [measure] if measure is not None else self._parallel()
            if not columns and (only := self._only_measure()) is not None:
                columns = [only]
            if not columns:
                return None
            if not rows:
                return None
            return self._reduce("sum", rows, columns)
        if count and self._counts_records():
            selected, column = self._condition()
            self._claim(_COUNT)
            if column is None:
                nouns = self.match.columns.keys() | (
                    {-1} if {stem_word(word) for word in self.words} & self.view.name_words else set()
                )
                if not nouns:
                    return None
                column = self.view.key
            cells = tuple(self._cell(row, column.number) for row in selected)
            return QueryResult("count", (str(len(selected)),), cells, " + ".join("1" for _ in selected) or "0")
        return None

    def _counts_records(self) -> bool:
        """Whether the word after `how many` names the records of the table."""
        found = _COUNT.search(self.question)
        after = [stem_word(word) for word in split_words(self.question[found.end() :])] if found else []
        noun = next((word for word in after if word not in STOP_WORDS), "")
        heads = {word for column in self.view.columns if not column.is_number for word in column.words}
        kinds = {stem_word(word) for word in split_words(self.view.table.name.replace("_", " "))}
        if _PERSON_HEAD.search(self.view.key.head) or "name" in heads:
            kinds |= {"people", "person", "employee", "colleague"}
        return any(are_alike(noun, word) for word in heads | kinds)

    def _parallel(self) -> list[TableColumn]:
        """All period columns, for `the total of South`."""
        return [column for column in self.view.columns if column.is_number and _is_period(column.head)]

    def _reduce(self, operation: str, rows: Sequence[int], columns: Sequence[TableColumn]) -> QueryResult | None:
        found = [
            (self._cell(row, column.number), number)
            for row in rows
            for column in columns
            if (number := column.numbers[row]) is not None
        ]
        if not found:
            return None
        self._claim(_SUM)
        self._claim(_MEAN)
        self._claim(_COUNT)
        total = sum((number for _, number in found), Fraction(0))
        expression = " + ".join(_plain(number) for _, number in found)
        value = total
        if operation == "mean":
            value, expression = total / len(found), f"({expression}) / {len(found)}"
        unit = columns[0].unit
        return QueryResult(operation, (_round(value),), tuple(cell for cell, _ in found), expression, unit=unit)

    def _lookup(self) -> QueryResult | None:
        """A cell of a named record and a named column, or the names of the records with a value."""
        if not self.match.values:
            return None
        rows = self._rows()
        if not rows:
            return None
        named = [
            (min(places), self.view.columns[number])
            for number, places in self.match.columns.items()
            if number not in self.match.values
        ]
        measure = self._measure()
        column = min(named, key=lambda one: one[0])[1] if named else measure
        asked = _WHICH.search(self.question)
        if column is None:
            if asked is None or asked[0].casefold() not in ("which", "who", "whose", "whom"):
                return None
            column = self._target()
            if column.number in self.match.values:
                return None
        if len(rows) > 1 and column.is_number and not column.is_year:
            return (
                self._reduce("sum", rows, [column])
                if self._is_money and column.is_money and _PAST.search(self.question)
                else None
            )
        if len(rows) > 12:
            return None
        cells = tuple(self._cell(row, column.number) for row in rows)
        answers = tuple(dict.fromkeys(column.texts[row] for row in rows if column.texts[row]))
        return QueryResult("cell", answers, cells, unit=column.unit) if answers else None

    def _records(
        self, operation: str, rows: Sequence[int], columns: Sequence[TableColumn], details: TableColumn | None = None
    ) -> QueryResult | None:
        target = self._target()
        if target.number in {column.number for column in columns}:
            target = self.view.key
        if not rows:
            return None
        cells = tuple(
            cell
            for row in rows
            for cell in (self._cell(row, target.number), *(self._cell(row, column.number) for column in columns))
        )
        names = tuple(dict.fromkeys(target.texts[row] for row in rows))
        shown = tuple(details.texts[row] for row in rows) if details is not None and len(names) == len(rows) else ()
        return QueryResult(operation, names, cells, details=shown)

    def _unit(self) -> str:
        measure = self._measure()
        return measure.unit if measure is not None else ""

    def _cell(self, row: int, column: int) -> Cell:
        view, key = self.view, self.view.key
        return Cell(
            row=row + view.top,
            column=column,
            text=view.columns[column].texts[row],
            row_heading=key.texts[row] if key.number != column else "",
            column_heading=view.columns[column].head,
            location=f"{view.table.name} row {row + view.top + view.table.row}",
        )


def _is_period(head: str) -> bool:
    text = head.casefold().strip()
    return bool(
        QUARTER.match(text)
        or YEAR.match(text)
        or text in MONTHS
        or (text[:3] in {month[:3] for month in MONTHS} and len(text) <= 4)
    )


def _plain(number: Fraction) -> str:
    return format_fraction(number)


def _round(number: Fraction) -> str:
    """A number with at most two decimals."""
    cents = round(number * 100)
    return format_fraction(Fraction(cents, 100))

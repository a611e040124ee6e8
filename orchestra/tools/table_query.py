"""Table queries: a question about tables as conditions, an operation and a measure, without a model.

The words of the question are matched with the headers and the cells of each table ([table_question]); they decide the
query. `Which region had the highest sales in Q3?` is the maximum of the column Q3, and the answer is of the column
Region. The query is run over the cells, whose positions are the evidence. The table that explains most words answers.
A question whose words no table explains has no query, and a period that a table does not list has no answer. Numbers are
exact fractions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final

from orchestra.schema.builtin_models import Cell, Table
from orchestra.text.arithmetic import format_fraction
from orchestra.tools.table_lexicon import (
    BOUNDS,
    CHANGE,
    COMPARED,
    COUNT,
    DIFFERENCE,
    DISTINCT,
    DOWN,
    GROUP,
    HOW_MUCH,
    INTENSIVE,
    MEAN,
    MEDIAN,
    NUMBER_WORDS,
    OWED,
    PERCENT,
    PROFIT,
    REMAINDER,
    SHARE,
    SUM,
    WHICH,
    find_superlatives,
    find_time_orders,
    measure_groups,
)
from orchestra.tools.table_question import Condition, Option, TableQuestion
from orchestra.tools.table_views import TableColumn, TableView, view_tables
from orchestra.tools.word_forms import are_alike, split_words, stem_word

MAX_GROUPS: Final = 12
"""Groups, or records of a list, that an answer may have."""
GUESS_COST: Final = 0.25
"""Taken from the share of explained words if the measure is a guess."""
_TOTALS: Final = ("bought", "total", "capacity", "ordered", "planned", "made", "stock", "delivered", "budget", "seat")
_PARTS: Final = (
    "used",
    "sold",
    "taken",
    "booked",
    "spent",
    "paid",
    "returned",
    "issued",
    "occupied",
    "received",
    "let",
)
_UNIT_PRICE = re.compile(r"\b(?:per|each|unit|a piece|/)\b|/", re.IGNORECASE)
_RANK = re.compile(
    r"\b(second|third|2nd|3rd)(?:[ -])(?=most|highest|largest|biggest|lowest|smallest|longest|best|heaviest)", re.I
)
_TOP = re.compile(
    r"\b(?:top|first|best|last)\s+(\d{1,2}|\w+)\b|\b(\d{1,2}|two|three|four|five|six|ten)\s+(?:\w+\s+)?(?=most|highest|largest|biggest|lowest|smallest|longest|shortest|best|heaviest|cheapest|oldest|newest|latest)",
    re.I,
)


_WHEN = re.compile(r"\b(?:when|date|day|wann|datum|quand|cuándo|fecha)\b", re.IGNORECASE)
_SOME = re.compile(r"\b(?:some|any|at least some)\b", re.IGNORECASE)


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
    """A period of the question that the table does not have; then there are no answers."""


def query_tables_best(question: str, tables: Sequence[Table]) -> QueryResult | None:
    """Returns the result of the best query of a question over tables; None if no table explains its words."""
    results = [result for view in view_tables(tables) if (result := _query(question, view)) is not None]
    return max(results, key=_rank_result, default=None)


def _rank_result(result: QueryResult) -> float:
    """The share of explained words; a table's own cells before those of a table that it refers to."""
    joined = any(not cell.location.startswith(f"{result.table} row ") for cell in result.cells)
    return result.explained - (0.05 if joined else 0.0)


def _query(text: str, view: TableView) -> QueryResult | None:
    question = TableQuestion(text, view)
    query = _Query(question, view)
    result = query.run()
    if result is None:
        return None
    used = {(cell.column_heading, cell.location.rpartition(" row ")[0]) for cell in result.cells}
    question.use(*(column for column in view.columns if (column.head, column.table.name) in used))
    question.use(*(condition.column for condition in question.conditions))
    explained = question.share_explained() - (GUESS_COST if query.is_guess else 0.0)
    if not result.missing and _has_unknown_name(question):
        explained = min(explained, 0.5)
    return replace(result, explained=round(explained, 4), table=view.table.name)


def _has_unknown_name(question: TableQuestion) -> bool:
    """Whether a number, or a capitalised word within a sentence, is not explained."""
    for at in question.unexplained():
        start, end = question.spans[at]
        if re.search(r"\d", question.text[start:end]):
            return True
        before = question.text[:start].rstrip()
        is_name = question.text[start].isupper() and before and before[-1] not in '.?!:;\n"“¿'
        if is_name and not _is_noun_language(question.text):
            return True
    return False


def _is_noun_language(text: str) -> bool:
    """Whether a text is German, whose nouns have capitals."""
    return bool(re.search(r"\b(?:der|die|das|wie|wer|was|welche\w*|wieviel|und|im|für|wir)\b", text))


@dataclass(frozen=True)
class _Measure:
    """A number of each record: a column, or a computation over columns."""

    columns: tuple[TableColumn, ...]
    form: str = ""
    """`+`, `-`, `*`, or `-*` for a difference times a third column."""

    def number(self, row: int) -> Fraction | None:
        """Returns the number of a record; None if a cell has none."""
        values = [column.numbers[row] for column in self.columns]
        known = [value for value in values if value is not None]
        if len(known) < len(values):
            return None
        if self.form == "+":
            return sum(known, Fraction(0))
        if self.form == "-":
            return known[0] - known[1]
        if self.form == "*":
            return known[0] * known[1]
        if self.form == "-*":
            return (known[0] - known[1]) * known[2]
        return known[0]

    def term(self, row: int) -> str:
        """Returns the number of a record as an expression."""
        texts = [_plain(column.numbers[row] or Fraction(0)) for column in self.columns]
        if self.form == "-*":
            return f"({texts[0]} - {texts[1]}) * {texts[2]}"
        if self.form in ("+", "-"):
            return "(" + f" {self.form} ".join(texts) + ")"
        return f" {self.form} ".join(texts) if self.form else texts[0]

    @property
    def unit(self) -> str:
        """The unit of its numbers."""
        if self.form in ("*", "-*"):
            return next((column.unit for column in self.columns if column.is_money), "")
        return self.columns[0].unit

    @property
    def is_extensive(self) -> bool:
        """Whether a sum over records is meaningful without the word `total`."""
        column = self.columns[0]
        if self.form:
            return True
        if _UNIT_PRICE.search(column.head):
            return False
        groups = column.groups - {"price"} if column.groups & {"cost", "income"} else column.groups
        return not (groups & INTENSIVE or column.unit in ("%", "C", "°C"))


class _Query:
    def __init__(self, question: TableQuestion, view: TableView) -> None:
        self.question, self.view, self.text = question, view, question.text
        self.is_guess = False
        """Whether the measure is one of several columns of money, none of which the question names."""
        self.ordered: TableColumn | None = None
        """The column that a superlative names by its own word: `fattest` for the column Fat."""

    def run(self) -> QueryResult | None:
        question = self.question
        if not question.conditions and not question.links and not question.period_columns:
            return None
        if question.missing:
            known = question.links or [one for one in question.conditions if one.kind != "period"]
            return QueryResult("missing", (), (), missing=question.missing) if known else None
        if not question.rows() and not self._compares():
            return None
        for attempt in (
            self._column_comparison,
            self._comparison,
            self._share,
            self._extreme,
            self._by_group,
            self._aggregate,
            self._lookup,
        ):
            result = attempt()
            if result is not None:
                return result
        return None

    def _compares(self) -> bool:
        return bool(DIFFERENCE.search(self.text) or CHANGE.search(self.text) or PERCENT.search(self.text))

    # Measures and targets

    def _measure(self) -> _Measure | None:
        """The number that is asked for."""
        question, text = self.question, self.text
        measures = [column for column in self.view.columns if column.is_measure]
        if PROFIT.search(text):
            income = [column for column in measures if "income" in column.groups]
            cost = [column for column in measures if "cost" in column.groups and "income" not in column.groups]
            if income and cost:
                question.claim(PROFIT)
                question.use(income[0], cost[0])
                return _Measure((income[0], cost[0]), "-")
        if REMAINDER.search(text) and (pair := self._remainder(measures)) is not None:
            question.claim(REMAINDER)
            price = self._unit_price(measures)
            question.use(*pair, *((price,) if price is not None else ()))
            return _Measure((*pair, price), "-*") if price is not None else _Measure(pair, "-")
        named = question.named_columns(lambda column: column.is_measure)
        conditions = {one.column.number for one in question.conditions if one.kind in ("limit", "number")}
        named = [column for column in named if column.number not in conditions] or named
        if len(question.period_columns) > 1 and not self._compares():
            columns = tuple(column for _, column in question.period_columns)
            return _Measure(columns, "+")
        if question.period_columns and not self._compares():
            return _Measure((question.period_columns[0][1],))
        if SUM.search(text) and (several := self._several(named)):
            return _Measure(several, "+")
        if named:
            best = named[0]
            question.use(best)
            links = question.links
            self.is_guess = any(
                set(links[column.number]) == set(links[best.number])
                and question.strength(column) == question.strength(best)
                for column in named[1:]
            )
            if _UNIT_PRICE.search(best.head) and best.is_money and (SUM.search(text) or HOW_MUCH.search(text)):
                quantity = self._quantity(measures, named)
                if quantity is not None:
                    question.use(quantity)
                    return _Measure((quantity, best), "*")
            if not best.is_money and self._is_money and (price := self._unit_price(measures)) is not None:
                question.use(price)
                return _Measure((best, price), "*")
            return _Measure((best,))
        money = [column for column in measures if column.is_money]
        plain = [column for column in money if not column.groups & {"fault", "discount", "balance"}] or money
        if self._is_money and plain:
            self._claim_money()
            self.is_guess = len(plain) > 1
            return _Measure((max(plain, key=lambda column: sum(number or 0 for number in column.numbers)),))
        periods = [column for column in measures if column.period is not None]
        if SUM.search(text) and len(periods) > 1 and len(periods) == len(measures):
            return _Measure(tuple(periods), "+")
        return None

    @property
    def _is_money(self) -> bool:
        money = {"income", "cost", "price"}
        return any(measure_groups(stem) & money for stem in self.question.stems)

    def _claim_money(self) -> None:
        money = {"income", "cost", "price"}
        self.question.explained |= {at for at, stem in enumerate(self.question.stems) if measure_groups(stem) & money}

    def _several(self, named: Sequence[TableColumn]) -> tuple[TableColumn, ...]:
        """Columns of one unit that the question names with different words: `bar, food and shop together`."""
        chosen: list[TableColumn] = []
        taken: set[int] = set()
        for column in named:
            places = {at for at, strength in self.question.links[column.number].items() if strength == 1}
            if places and not places & taken and (not chosen or column.unit == chosen[0].unit):
                chosen.append(column)
                taken |= places
        if len(chosen) < 2:
            return ()
        first, last = min(taken), max(taken)
        between = self.text[self.question.spans[first][0] : self.question.spans[last][1]]
        if not re.search(r",|\b(?:and|plus|und|et|y)\b", between):
            return ()
        self.question.use(*chosen)
        return tuple(sorted(chosen, key=lambda column: column.number))

    def _remainder(self, measures: Sequence[TableColumn]) -> tuple[TableColumn, TableColumn] | None:
        """Two columns of one thing, as a whole and as the part that is used: `Seats bought` and `Seats used`."""
        for whole in measures:
            for part in measures:
                common = set(whole.content) & set(part.content)
                is_part = any(word in _PARTS for word in part.content)
                if whole is not part and is_part and (common or whole.content[0] in _TOTALS):
                    return whole, part
        return None

    def _unit_price(self, measures: Sequence[TableColumn]) -> TableColumn | None:
        priced = [column for column in measures if column.is_money and _UNIT_PRICE.search(column.head)]
        return priced[0] if len(priced) == 1 and self._is_money else None

    def _quantity(self, measures: Sequence[TableColumn], named: Sequence[TableColumn]) -> TableColumn | None:
        """The number of pieces that a price per piece is for."""
        counts = [column for column in named[1:] if not column.is_money]
        counts = counts or [column for column in measures if "quantity" in column.groups and not column.is_money]
        return counts[0] if counts else None

    def _only_measure(self) -> _Measure | None:
        numeric = [column for column in self.view.columns if column.is_measure and not column.joined]
        return _Measure((numeric[0],)) if len(numeric) == 1 else None

    def _target(self, without: Iterable[TableColumn] = ()) -> TableColumn:
        """The column of the answer: the one after the question word, else the named one, else the records' names."""
        question = self.question
        excluded = {column.number for column in without}
        kinds = ("value", "number") if _WHEN.search(self.text) else ("value", "number", "period", "limit")
        excluded |= {one.column.number for one in question.conditions if one.kind in kinds and not one.negated}
        texts = [column for column in self.view.columns if column.number not in excluded and not column.is_measure]
        match = WHICH.search(self.text)
        if match is not None:
            word = match[0].casefold()
            first = min(question.places(*match.span()), default=0)
            after = [
                (at, column)
                for column in texts
                for at, strength in question.links.get(column.number, {}).items()
                if first < at <= first + 4 and strength > 0
            ]
            if after:
                column = min(after, key=lambda one: (one[0], -question.strength(one[1]), one[1].joined))[1]
                question.use(column)
                return column
            if word in (
                "where",
                "wo",
                "où",
                "dónde",
                "when",
                "wann",
                "quand",
                "cuándo",
                "who",
                "whom",
                "whose",
                "wer",
                "qui",
                "quién",
            ):
                kinds = measure_groups(stem_word(word))
                people = [column for column in texts if column.groups & kinds or ("time" in kinds and column.is_date)]
                if "person" in kinds:
                    people = people or [column for column in texts if column.groups & {"customer", "company"}]
                if people:
                    named = [column for column in people if question.is_named(column)]
                    return (named or people)[0]
        named = [column for column in question.named_columns() if column in texts and question.is_named(column)]
        if named:
            return named[0]
        key = self.view.key
        if key.number in excluded:
            return next((column for column in texts if not column.is_time), key)
        return key

    # Comparisons of two groups or columns

    def _comparison(self) -> QueryResult | None:
        """The difference, or the change in percent, between two groups of records or two columns."""
        change, difference = CHANGE.search(self.text), DIFFERENCE.search(self.text)
        percent = PERCENT.search(self.text)
        if not (change or difference or (percent and COMPARED.search(self.text))):
            return None
        pair = self._two_groups()
        if pair is None:
            return None
        if WHICH.match(self.text.strip()) and not percent and not difference:
            return self._changed_records(pair)
        question = self.question
        first, second = pair
        one, two = self._value(first), self._value(second)
        if one is None or two is None:
            return None
        for pattern in (CHANGE, DIFFERENCE, PERCENT, COMPARED, SUM, MEAN, COUNT, DOWN):
            question.claim(pattern)
        question.explained |= {
            at
            for at, stem in enumerate(question.stems)
            if stem in ("higher", "lower", "more", "less", "above", "below", "compared")
        }
        cells = (*one.cells, *two.cells)
        if percent:
            if one.value == 0:
                return None
            value = (two.value - one.value) / one.value * 100
            expression = f"({two.expression} - {one.expression}) / {one.expression} * 100"
            return QueryResult("percent change", (_round(value) + " %",), cells, expression)
        return QueryResult(
            "difference",
            (_round(abs(two.value - one.value)),),
            cells,
            f"{two.expression} - {one.expression}",
            unit=one.unit,
        )

    def _two_groups(self) -> tuple[_Group, _Group] | None:
        """Two groups that the question compares: the base, and what is compared with it."""
        question = self.question
        if len(question.period_columns) == 2:
            (_, one), (_, two) = sorted(question.period_columns, key=lambda entry: entry[0])
            rows = question.rows()
            question.explained |= set()
            return self._ordered([(_Measure((one,)), rows, 0), (_Measure((two,)), rows, 1)], in_time=True)
        pairs = [
            one for one in question.conditions if len(one.options) == 2 and one.kind in ("value", "period", "number")
        ]
        measure = self._measure() or self._only_measure()
        count = COUNT.search(self.text)
        if count is not None and not question.named_columns(lambda column: column.is_measure):
            after = range(max(question.places(*count.span()), default=0) + 1, len(question.words))
            nouns = [
                at for at in after if not question.is_stop(at) and question.words[at] not in ("more", "fewer", "less")
            ]
            if not nouns or not question.names_records(nouns[0]):
                return None
            measure = None
        if len(pairs) == 1:
            pair = pairs[0]
            others = set(question.rows(without=pair))
            groups = [(measure, sorted(option.rows & others), option.start) for option in pair.options]
            if pair.kind == "period" and CHANGE.search(self.text):
                dates = [
                    min((dates[0] for row in rows if (dates := pair.column.dates[row])), default=(0, 0, 0))
                    for _, rows, _ in groups
                ]
                groups = [group for _, group in sorted(zip(dates, groups, strict=True), key=lambda entry: entry[0])]
                return self._ordered(groups, in_time=True)
            return self._ordered(sorted(groups, key=lambda group: group[2]), in_time=bool(CHANGE.search(self.text)))
        named = [
            column for column in question.named_columns(lambda column: column.is_measure) if question.is_named(column)
        ]
        columns = self._several(named)
        if len(columns) == 2:
            rows = question.rows()
            entries = [(_Measure((column,)), rows, min(question.links[column.number])) for column in columns]
            return self._ordered(sorted(entries, key=lambda entry: entry[2]), in_time=False)
        return None

    def _ordered(
        self, groups: Sequence[tuple[_Measure | None, Sequence[int], int]], *, in_time: bool
    ) -> tuple[_Group, _Group]:
        """The base first. Of `A than B` the base is B, of `from A to B` it is A."""
        first, second = (_Group(measure, tuple(rows)) for measure, rows, _ in groups)
        return (first, second) if in_time else (second, first)

    def _changed_records(self, pair: tuple[_Group, _Group]) -> QueryResult | None:
        """The records that rose or fell between two columns: `Which regions fell from Q1 to Q2?`."""
        before, after = pair
        down = DOWN.search(self.text) is not None
        self.question.claim(CHANGE)
        target = self._target(without=[*(before.measure.columns if before.measure else ())])
        names: list[str] = []
        cells: list[Cell] = []
        for name in dict.fromkeys(target.texts[row] for row in before.rows):
            parts = [
                self._value(_Group(group.measure, tuple(row for row in group.rows if target.texts[row] == name)))
                for group in (before, after)
            ]
            one, two = parts
            if one is not None and two is not None and (two.value < one.value if down else two.value > one.value):
                names.append(name)
                cells += [*one.cells, *two.cells]
        return QueryResult("fell" if down else "rose", tuple(names), tuple(cells)) if names else None

    def _column_comparison(self) -> QueryResult | None:
        """Records in which one column is below or above another: `below their minimum stock`."""
        question = self.question
        for bound, pattern in BOUNDS[2:]:
            for match in pattern.finditer(self.text):
                places = question.places(*match.span())
                if match[0].casefold() in ("over", "past", "über") or MEAN.search(self.text) or SUM.search(self.text):
                    continue
                if not places or any(places & one.places for one in question.conditions):
                    continue
                measures = question.named_columns(lambda column: column.is_measure and not column.joined)
                after = [column for column in measures if any(at > max(places) for at in question.links[column.number])]
                others = [column for column in measures if column not in after[:1]]
                if not after or not others or self._compares():
                    continue
                limit, value = after[0], others[0]
                question.explained |= places
                question.use(limit, value)
                rows = [
                    row
                    for row in question.rows()
                    if (one := value.numbers[row]) is not None
                    and (two := limit.numbers[row]) is not None
                    and (one < two if bound == "below" else one > two)
                ]
                if COUNT.search(self.text):
                    question.claim(COUNT)
                    return self._number_of(rows, (value, limit))
                return self._records(bound, rows, (value, limit))
        return None

    # Shares

    def _share(self) -> QueryResult | None:
        """What share of the records, or of a measure, meets a condition."""
        question = self.question
        match = SHARE.search(self.text)
        if match is None or CHANGE.search(self.text):
            return None
        some = _SOME.search(self.text)
        if some is not None and (columns := question.named_columns(lambda column: column.is_measure)):
            column = columns[0]
            rows = frozenset(row for row, number in enumerate(column.numbers) if number)
            places = frozenset(question.links[column.number]) | question.places(*some.span())
            question.conditions.append(Condition(column, [Option(column.head, rows, frozenset(places))], "limit"))
            question.explained |= places
        if not question.conditions:
            return None
        verb = re.search(
            r"\b(?:is|are|was|were|have|has|had|did|do|does|came|come|comes|went|goes|made|got)\b",
            self.text[match.end() :],
        )
        part: list[Condition] = list(question.conditions)
        if verb is not None:
            place = len(split_words(self.text[: match.end() + verb.start()]))
            later = [one for one in part if one.places and min(one.places) >= place]
            part = later or part
            if re.match(r"(?:what|which|how)\b", self.text.strip(), re.I) and not later and len(part) > 1:
                return None
        whole = [one for one in question.conditions if one not in part]
        rows = sorted(frozenset(range(self.view.length)).intersection(*(one.rows(self.view.length) for one in whole)))
        chosen = [row for row in rows if all(row in one.rows(self.view.length) for one in part)]
        if not rows:
            return None
        measure = (
            self._measure() if self._is_money or question.named_columns(lambda column: column.is_measure) else None
        )
        question.claim(PERCENT)
        question.claim(SHARE)
        for pattern in (SUM, COUNT):
            question.claim(pattern)
        column = part[0].column
        cells = tuple(cell for row in chosen for cell in self._cells(row, (column,)))
        if measure is not None and not any(measure.columns[0] is one.column for one in part):
            total, some = self._value(_Group(measure, tuple(rows))), self._value(_Group(measure, tuple(chosen)))
            if total is None or some is None or not total.value:
                return None
            expression = f"{some.expression} / {total.expression} * 100"
            return QueryResult("share", (_round(some.value / total.value * 100) + " %",), cells, expression)
        value = Fraction(len(chosen) * 100, len(rows))
        return QueryResult("share", (_round(value) + " %",), cells, f"{len(chosen)} / {len(rows)} * 100")

    # Extremes

    def _extreme(self) -> QueryResult | None:
        """The records, or groups of records, with the largest or smallest value."""
        extreme = self._superlative()
        if extreme is None:
            return None
        places, largest, groups = extreme
        question = self.question
        question.explained |= places
        rank, limit = self._rank(places)
        column = self.ordered or self._order_column(groups)
        if column is not None and column.is_date:
            if groups & {"age"}:
                largest = not largest
            return self._by_order(column, largest, rank, limit)
        if column is not None and "speed" in groups and "duration" in column.groups:
            largest = not largest
        measure = _Measure((column,)) if column is not None else self._measure()
        if "count" in groups:
            measure = None
        elif measure is None and not self._counts_after(places):
            measure = self._only_measure()
        if measure is None:
            return self._most_records(largest, rank, limit)
        rows = [row for row in question.rows() if measure.number(row) is not None]
        if not rows:
            return None
        target = self._target(without=measure.columns)
        named = WHICH.match(self.text.strip(" ¿\n")) is None or re.match(
            r"\W*(?:what|which|who|whose|welche|wer|quel|qui|qué|cuál|quién)", self.text, re.I
        )
        del named
        by_row = (
            bool(groups)
            or target.distinct == self.view.length
            or (MEAN.search(self.text) is None and not measure.is_extensive)
        )
        if MEAN.search(self.text):
            by_row = target.distinct == self.view.length
        buckets: dict[str, list[int]] = {}
        for row in rows:
            buckets.setdefault(str(row) if by_row else target.texts[row], []).append(row)
        values: dict[str, _Value] = {}
        for name, members in buckets.items():
            value = self._value(_Group(measure, tuple(members)), total=not MEAN.search(self.text))
            if value is not None:
                values[name] = value
        question.claim(SUM)
        question.claim(MEAN)
        chosen = _ranked({name: value.value for name, value in values.items()}, largest, rank, limit)
        if not chosen:
            return None
        texts = [target.texts[buckets[name][0]] for name in chosen]
        cells = tuple(
            cell for name in chosen for row in buckets[name] for cell in self._cells(row, (target, *measure.columns))
        )
        summed = len(buckets[chosen[0]]) > 1 or measure.form
        expression = values[chosen[0]].expression if summed and len(chosen) == 1 else None
        operation = "most" if largest else "least"
        if self._asks_value(target, measure):
            return QueryResult(operation, (_round(values[chosen[0]].value),), cells, expression, unit=measure.unit)
        details = tuple(_round(values[name].value) for name in chosen)
        return QueryResult(
            operation,
            tuple(dict.fromkeys(texts)) if len(set(texts)) < len(texts) else tuple(texts),
            cells,
            expression,
            details=details if len(set(texts)) == len(texts) else (),
            unit=measure.unit,
        )

    def _superlative(self) -> tuple[set[int], bool, frozenset[str]] | None:
        """The words of the superlative, whether the largest is meant, and the measures that it names."""
        question = self.question
        taken = {at for one in question.conditions for at in one.places}
        spans = [(entry.places, entry.kind) for entry in question.conditions]
        del spans
        for start, end, largest, groups in find_superlatives(self.text):
            places = question.places(start, end)
            in_header = any(
                are_alike(question.stems[at], word) and len(places) == 1
                for at in places
                for column in self.view.columns
                for word in column.content
            )
            if not places & taken and not in_header:
                return places, largest, groups
        for at, word in enumerate(question.words):
            if word.endswith("est") and len(word) > 5 and at not in taken:
                bases = {word[:-3], word[:-4], word[:-4] + "y", word[:-2]}
                columns = [column for column in self.view.columns if column.is_measure and bases & set(column.words)]
                if columns:
                    self.ordered = columns[0]
                    return {at}, True, frozenset()
        for start, end, latest in find_time_orders(self.text):
            places = question.places(start, end)
            if (
                not places & taken
                and not places <= question.explained
                and any(column.is_date for column in self.view.columns)
                and self._asks_time(start)
            ):
                return places, latest, frozenset({"time"})
        return None

    def _asks_time(self, start: int) -> bool:
        """Whether `first` and `last` mean an order in time: not beside a number or within a name."""
        after = self.text[start:].split()[1:2]
        return (
            not (after and re.match(r"\d|" + "|".join(NUMBER_WORDS), after[0]))
            or WHICH.search(self.text[:start]) is not None
        )

    def _rank(self, places: set[int]) -> tuple[int, int]:
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
            if 1 < count <= MAX_GROUPS and (near & places or min(abs(a - b) for a in near for b in places) <= 2):
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
            return (named or dates or [None])[0]
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

    def _counts_after(self, places: set[int]) -> bool:
        """Whether `most` is followed by the records themselves: `the most tickets`, `le plus de tickets`."""
        question = self.question
        after = [at for at in range(max(places) + 1, min(len(question.words), max(places) + 4))]
        for at in after:
            if question.names_records(at):
                return True
            if any(at in one.places for one in question.conditions):
                return True
        return False

    def _most_records(self, largest: bool, rank: int, limit: int) -> QueryResult | None:
        target = self._target()
        if target.distinct == self.view.length:
            return None
        buckets: dict[str, list[int]] = {}
        for row in self.question.rows():
            if not target.is_empty(row):
                buckets.setdefault(target.texts[row], []).append(row)
        chosen = _ranked({name: Fraction(len(rows)) for name, rows in buckets.items()}, largest, rank, limit)
        if not chosen:
            return None
        self.question.claim(COUNT)
        cells = tuple(cell for name in chosen for row in buckets[name] for cell in self._cells(row, (target,)))
        details = tuple(str(len(buckets[name])) for name in chosen)
        return QueryResult("most" if largest else "least", tuple(chosen), cells, details=details)

    def _by_order(self, column: TableColumn, largest: bool, rank: int, limit: int) -> QueryResult | None:
        """The records with the latest or earliest date."""
        question = self.question
        known = {
            str(row): Fraction(value)
            for row in question.rows()
            if (value := column.order[row]) is not None and not column.is_empty(row)
        }
        chosen = [int(name) for name in _ranked(known, largest, rank, limit)]
        if not chosen:
            return None
        question.use(column)
        target = self._target(without=[column] if not _WHEN.search(self.text) else [])
        if target.number == column.number:
            cells = tuple(cell for row in chosen for cell in self._cells(row, (column,)))
            return QueryResult("cell", tuple(dict.fromkeys(column.texts[row] for row in chosen)), cells)
        return self._records("most" if largest else "least", chosen, (column,), details=column, target=target)

    def _asks_value(self, target: TableColumn, measure: _Measure) -> bool:
        """Whether the question asks for the extreme value itself, and not for a record."""
        start = re.match(
            r"\W*(?:what(?:'s| is| was| are| were)|how (?:high|much|many|long|heavy|big|large)|wie (?:hoch|viel|lang|schwer)|combien|quel(?:le)? est|cuál es|cuánto)\b",
            self.text,
            re.I,
        )
        if start is None:
            return False
        after = split_words(self.text[start.end() :])[:4]
        nouns = {stem_word(word) for word in after}
        if any(are_alike(noun, word) for noun in nouns for word in target.content) and not any(
            are_alike(noun, word) for noun in nouns for column in measure.columns for word in column.content
        ):
            return False
        return True

    # Sums, means and numbers

    def _by_group(self) -> QueryResult | None:
        """A value for each group: `total revenue per customer`."""
        question = self.question
        for match in GROUP.finditer(self.text):
            places = question.places(match.start(), match.end())
            after = {max(places) + 1, max(places) + 2} if places else set()
            columns = [
                column
                for column in question.named_columns(lambda column: not column.is_measure)
                if any(at in after and strength == 1 for at, strength in question.links[column.number].items())
            ]
            measure = self._measure()
            if not columns or any(
                at in places
                for column in (measure.columns if measure else ())
                for at in question.links.get(column.number, {})
            ):
                continue
            column = columns[0]
            buckets: dict[str, list[int]] = {}
            for row in question.rows():
                if not column.is_empty(row):
                    buckets.setdefault(column.texts[row], []).append(row)
            if not 1 < len(buckets) <= MAX_GROUPS:
                continue
            if measure is not None and any(
                are_alike(stem, word)
                for stem in question.stems
                for word in ("per",)
                if False
                for column in measure.columns
            ):
                continue
            values = {
                name: self._value(_Group(measure, tuple(rows)), total=not MEAN.search(self.text))
                for name, rows in buckets.items()
            }
            known = {name: value for name, value in values.items() if value is not None}
            if not known:
                continue
            question.explained |= places
            for pattern in (SUM, MEAN, COUNT):
                question.claim(pattern)
            cells = tuple(cell for name in known for row in buckets[name] for cell in self._cells(row, (column,)))
            details = tuple(_round(value.value) for value in known.values())
            return QueryResult("most", tuple(known), cells, details=details, unit=measure.unit if measure else "")
        return None

    def _aggregate(self) -> QueryResult | None:
        """A sum, a mean, a median or a number of records."""
        question, text = self.question, self.text
        rows = question.rows()
        if MEAN.search(text) or MEDIAN.search(text):
            measure = self._measure() or self._only_measure()
            return None if measure is None else self._mean(rows, measure)
        count = COUNT.search(text)
        if count is not None:
            counted = self._count(rows, count)
            if counted is not None:
                return counted
            measure = self._measure()
            return None if measure is None else self._total(rows, measure)
        if SUM.search(text):
            measure = self._measure() or self._only_measure()
            return None if measure is None or not rows else self._total(rows, measure)
        measure = self._measure() if HOW_MUCH.search(text) or question.conditions else None
        if measure is not None and len(rows) > 1 and (measure.form or (measure.is_extensive and HOW_MUCH.search(text))):
            if self._is_one_of_many(measure):
                return None
            return self._total(rows, measure)
        return None

    def _is_one_of_many(self, measure: _Measure) -> bool:
        """Whether no condition selects records, so that `how much` asks for no sum over the table."""
        return not self.question.conditions and measure.form not in ("-", "-*") and not SUM.search(self.text)

    def _count(self, rows: Sequence[int], count: re.Match[str]) -> QueryResult | None:
        """The number of records, or of different values of a column."""
        question = self.question
        start = max(question.places(*count.span()), default=-1) + 1
        nouns = [at for at in range(start, min(start + 5, len(question.words))) if not question.is_stop(at)]
        distinct = DISTINCT.search(self.text) is not None
        limited = {one.column.number for one in question.conditions}
        summed = [
            column
            for column in question.named_columns(lambda column: column.is_measure and column.number not in limited)
            if question.is_named(column)
        ]
        if summed and not distinct:
            return None
        nouns = [at for at in nouns if not DISTINCT.fullmatch(question.words[at])]
        values = {at for one in question.conditions for at in one.places}
        for at in nouns:
            measure = [
                column
                for column in question.named_columns(lambda column: column.is_measure)
                if question.links[column.number].get(at) == 1
            ]
            if measure and not distinct:
                return None
            columns = [
                column
                for column in question.named_columns(lambda column: not column.is_measure)
                if question.links[column.number].get(at, 0) >= 1
                or (question.links[column.number].get(at, 0) > 0 and len(column.content) <= 2)
            ]
            if columns and columns[0].distinct < self.view.length and (not question.names_records(at) or distinct):
                column = columns[0]
                question.claim(COUNT)
                question.claim(DISTINCT)
                question.use(column)
                chosen = list({column.texts[row]: row for row in rows if not column.is_empty(row)}.values())
                return self._number_of(sorted(chosen), (column,))
            names = {at for one in question.conditions if one.column.distinct == self.view.length for at in one.places}
            if at in names:
                return None  # one record has this name, and its number is in another column
            if question.names_records(at) or at in values or (columns and columns[0].distinct == self.view.length):
                question.claim(COUNT)
                return self._number_of(rows, ())
            kinds = measure_groups(question.stems[at])
            if kinds & {"person", "customer", "item", "company"} and self.view.key.groups & kinds:
                question.claim(COUNT)
                question.explained.add(at)
                return self._number_of(rows, ())
            if at not in values:
                return None
        return None

    def _number_of(self, rows: Sequence[int], columns: Sequence[TableColumn]) -> QueryResult:
        shown = tuple(columns) or (self.view.key,)
        cells = tuple(cell for row in rows for cell in self._cells(row, shown))
        return QueryResult("count", (str(len(rows)),), cells, " + ".join("1" for _ in rows) or "0")

    def _mean(self, rows: Sequence[int], measure: _Measure) -> QueryResult | None:
        value = self._value(_Group(measure, tuple(rows)), total=False)
        if value is None:
            return None
        for pattern in (MEAN, MEDIAN, HOW_MUCH, COUNT):
            self.question.claim(pattern)
        if MEDIAN.search(self.text):
            numbers = sorted(number for row in rows if (number := measure.number(row)) is not None)
            middle = len(numbers) // 2
            median = numbers[middle] if len(numbers) % 2 else (numbers[middle - 1] + numbers[middle]) / 2
            return QueryResult("mean", (_round(median),), value.cells, None, unit=measure.unit)
        return QueryResult("mean", (_round(value.value),), value.cells, value.expression, unit=measure.unit)

    def _total(self, rows: Sequence[int], measure: _Measure) -> QueryResult | None:
        value = self._value(_Group(measure, tuple(rows)))
        if value is None:
            return None
        for pattern in (SUM, COUNT, HOW_MUCH):
            self.question.claim(pattern)
        total = value.value
        signs = {number > 0 for row in rows if (number := measure.number(row))}
        if len(signs) > 1 and measure.columns[0].groups & {"balance"} and OWED.search(self.text):
            return None  # the table does not say whether debts are negative
        if total < 0 and OWED.search(self.text):
            total = -total
        return QueryResult("sum", (_round(total),), value.cells, value.expression, unit=measure.unit)

    def _value(self, group: _Group, *, total: bool = True) -> _Value | None:
        """The sum or the mean of a group, or the number of its records if it has no measure."""
        if group.measure is None:
            cells = tuple(cell for row in group.rows for cell in self._cells(row, (self.view.key,)))
            return _Value(Fraction(len(group.rows)), str(len(group.rows)), cells)
        measure = group.measure
        known = [(row, number) for row in group.rows if (number := measure.number(row)) is not None]
        if not known:
            return None
        value = sum((number for _, number in known), Fraction(0))
        expression = " + ".join(measure.term(row) for row, _ in known)
        several = len(known) > 1
        if several and (MEAN.search(self.text) or not total):
            value, expression = value / len(known), f"({expression}) / {len(known)}"
        elif several and self._compares():
            expression = f"({expression})"
        cells = tuple(cell for row, _ in known for cell in self._cells(row, measure.columns))
        return _Value(value, expression, cells, measure.unit)

    # Records

    def _lookup(self) -> QueryResult | None:
        """Cells of named records, or the names of the records that meet a condition."""
        question = self.question
        if not question.conditions:
            return None
        rows = question.rows()
        if not rows or len(rows) > MAX_GROUPS:
            return None
        conditions = {one.column.number for one in question.conditions if one.kind != "filled"}
        named = [
            column
            for column in question.named_columns()
            if column.number not in conditions and question.is_named(column)
        ]
        limits = any(one.kind in ("limit", "filled", "period") for one in question.conditions)
        if not named:
            weak = [column for column in question.named_columns() if column.number not in conditions]
            measures = [column for column in weak if column.is_measure]
            if HOW_MUCH.search(self.text) and measures:
                named = measures[:1]
            elif WHICH.search(self.text) is not None or limits:
                named = [self._target()]
            else:
                return None
        column = self._target() if limits and WHICH.match(self.text.strip()) else named[0]
        if column.number in conditions and column.distinct < self.view.length:
            return None
        question.use(column)
        cells = tuple(cell for row in rows for cell in self._cells(row, (column,)))
        answers = tuple(dict.fromkeys(column.texts[row] for row in rows if not column.is_empty(row)))
        if column.is_measure and len(answers) > 1:
            return None
        return QueryResult("cell", answers, cells, unit=column.unit if column.is_measure else "") if answers else None

    def _records(
        self,
        operation: str,
        rows: Sequence[int],
        columns: Sequence[TableColumn],
        details: TableColumn | None = None,
        target: TableColumn | None = None,
    ) -> QueryResult | None:
        target = target or self._target(without=columns)
        if not rows:
            return None
        cells = tuple(cell for row in rows for cell in self._cells(row, (target, *columns)))
        names = tuple(dict.fromkeys(target.texts[row] for row in rows))
        shown = tuple(details.texts[row] for row in rows) if details is not None and len(names) == len(rows) else ()
        return QueryResult(operation, names, cells, details=shown)

    def _cells(self, row: int, columns: Iterable[TableColumn]) -> Iterable[Cell]:
        return [self.view.cell(row, column) for column in columns if column.rows[row] >= 0]


@dataclass(frozen=True)
class _Group:
    """Records, and the measure that is computed over them; without one they are counted."""

    measure: _Measure | None
    rows: tuple[int, ...]


@dataclass(frozen=True)
class _Value:
    value: Fraction
    expression: str
    cells: tuple[Cell, ...]
    unit: str = ""


def _ranked(values: dict[str, Fraction], largest: bool, rank: int, limit: int) -> list[str]:
    """Returns the names of the values at a rank; several if they are equal, or if several are wanted."""
    order = sorted(set(values.values()), reverse=largest)
    if rank > len(order):
        return []
    if limit > 1:
        names = sorted(values, key=lambda name: values[name], reverse=largest)
        return names[:limit]
    return [name for name, value in values.items() if value == order[rank - 1]]


def _plain(number: Fraction) -> str:
    return format_fraction(number)


def _round(number: Fraction) -> str:
    """A number with at most two decimals."""
    return format_fraction(Fraction(round(number * 100), 100))

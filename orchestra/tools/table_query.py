"""Table queries: a question about tables as conditions, an operation and a measure, without a model.

The words of the question are matched with the headers and the cells of each table ([table_question]); they decide the
query. `Which region had the highest sales in Q3?` is the maximum of the column Q3, and the answer is of the column
Region. The query is run over the cells, whose positions are the evidence. The table that explains most words answers.
A question whose words no table explains has no query, and a period that a table does not list has no answer. Numbers
are exact fractions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Final

from orchestra.schema.builtin_models import Cell, Table
from orchestra.tools.replies import language_of
from orchestra.tools.table_extremes import TableExtremes
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
    MEAN,
    MEDIAN,
    OWED,
    PERCENT,
    SHARE,
    SUM,
    WHICH,
    measure_groups,
)
from orchestra.tools.table_measures import Measure, RowGroup, TableMeasures
from orchestra.tools.table_question import Condition, Option, TableQuestion
from orchestra.tools.table_results import WHEN, QueryResult, choose_target, record_result, round_number, row_cells
from orchestra.tools.table_views import TableColumn, TableView, view_tables
from orchestra.tools.word_forms import split_words

MAX_GROUPS: Final = 12
"""Groups, or records of a list, that an answer may have."""
GUESS_COST: Final = 0.4
"""Taken from the share of explained words if the measure is a guess."""
JOIN_COST: Final = 0.05
"""Taken from it, in comparisons of results, if one rests on another table: a table answers by itself if it can."""
_BEST = re.compile(r"\b(?:best|worst|highest|lowest|largest|smallest)\b", re.IGNORECASE)
_WHAT = re.compile(r"\W*(?:what|was|qu[eé]|combien|cuánto)\b", re.IGNORECASE)
_SOME = re.compile(r"\b(?:some|any|at least some)\b", re.IGNORECASE)


def query_tables_best(question: str, tables: Sequence[Table]) -> QueryResult | None:
    """Returns the result of the best query of a question over tables; None if no table explains its words."""
    results = [result for view in view_tables(tables) if (result := _query(question, view)) is not None]
    return max(results, key=lambda result: result.explained - JOIN_COST * result.is_joined, default=None)


def _query(text: str, view: TableView) -> QueryResult | None:
    question = TableQuestion(text, view)
    query = _TableQuery(question)
    result = query.run()
    if result is None:
        return None
    used = {(cell.column_heading, cell.location.rpartition(" row ")[0]) for cell in result.cells}
    question.use(*(column for column in view.columns if (column.head, column.table.name) in used))
    question.use(*(condition.column for condition in question.conditions))
    explained = question.share_explained() - (GUESS_COST if query.measures.is_guess else 0.0)
    if not result.missing and _has_unknown_name(question):
        explained = min(explained, 0.5)
    is_joined = any(table != view.table.name for _, table in used) or any(
        condition.column.joined for condition in question.conditions
    )
    return replace(result, explained=round(explained, 4), table=view.table.name, is_joined=is_joined)


def _has_unknown_name(question: TableQuestion) -> bool:
    """Whether a number, or a capitalised word within a sentence, is not explained."""
    for at in question.unexplained():
        start, end = question.spans[at]
        if re.search(r"\d", question.text[start:end]):
            return True
        before = question.text[:start].rstrip()
        is_name = question.text[start].isupper() and before and before[-1] not in '.?!:;\n"“¿'
        if is_name and language_of(question.text) != "de":  # German nouns have capitals
            return True
    return False


class _TableQuery:
    """The query of a question over one view: the operations, in the order in which they are tried."""

    def __init__(self, question: TableQuestion) -> None:
        self.question, self.view, self.text = question, question.view, question.text
        self.measures = TableMeasures(question)
        self.extremes = TableExtremes(question, self.measures)

    def run(self) -> QueryResult | None:
        """Returns the result of the first operation that fits; None if none does."""
        question = self.question
        if not question.conditions and not question.links and not question.period_columns:
            return None
        if question.missing:
            named = question.named_columns(question.is_named)
            question.use(*named)
            if self.measures.is_money and any(column.is_money for column in self.view.columns):
                self.measures.claim_money()
            is_known = bool(named) or any(condition.kind != "period" for condition in question.conditions)
            return QueryResult("missing", (), (), missing=question.missing) if is_known else None
        if not question.rows() and not question.compares():
            return None
        if COUNT.match(self.text.strip(" ¿")) and _BEST.search(self.text):
            return None  # a number of extremes
        for attempt in (
            self._column_comparison,
            self._comparison,
            self._share,
            self.extremes.result,
            self._by_group,
            self._aggregate,
            self._lookup,
        ):
            result = attempt()
            if result is not None:
                return result
        return None

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
        if len(first.rows) > 1 and self.question.period_columns and not SUM.search(self.text):
            self.measures.is_guess = True  # rows of different things have no sum
        one, two = self.measures.value(first), self.measures.value(second)
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
            base = one
            if two.value < one.value and DOWN.search(self.text):
                one, two = two, one  # `by what percentage did it drop` asks for a number above zero
            value = (two.value - one.value) / base.value * 100
            expression = f"({two.expression} - {one.expression}) / {base.expression} * 100"
            return QueryResult("percent change", (round_number(value) + " %",), cells, expression)
        less, more = sorted((one, two), key=lambda entry: entry.value)
        expression = f"{more.expression} - {less.expression}"
        return QueryResult("difference", (round_number(more.value - less.value),), cells, expression, unit=one.unit)

    def _two_groups(self) -> tuple[RowGroup, RowGroup] | None:
        """Two groups that the question compares: the base, and what is compared with it."""
        question = self.question
        if len(question.period_columns) == 2:
            (_, one), (_, two) = sorted(question.period_columns, key=lambda entry: entry[0])
            rows = question.rows()
            return self._ordered([(Measure((one,)), rows, 0), (Measure((two,)), rows, 1)], in_time=True)
        pairs = [
            one for one in question.conditions if len(one.options) == 2 and one.kind in ("value", "period", "number")
        ]
        measure = self.measures.choose() or self.measures.only()
        count = COUNT.search(self.text)
        if measure is None and count is None:
            return None
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
        columns = self.measures.several(named)
        if len(columns) == 2:
            rows = question.rows()
            entries = [(Measure((column,)), rows, min(question.links[column.number])) for column in columns]
            return self._ordered(sorted(entries, key=lambda entry: entry[2]), in_time=False)
        return None

    def _ordered(
        self, groups: Sequence[tuple[Measure | None, Sequence[int], int]], *, in_time: bool
    ) -> tuple[RowGroup, RowGroup]:
        """The base first. Of `A than B` the base is B, of `from A to B` it is A."""
        first, second = (RowGroup(measure, tuple(rows)) for measure, rows, _ in groups)
        return (first, second) if in_time else (second, first)

    def _changed_records(self, pair: tuple[RowGroup, RowGroup]) -> QueryResult | None:
        """The records that rose or fell between two columns: `Which regions fell from Q1 to Q2?`."""
        before, after = pair
        down = DOWN.search(self.text) is not None
        self.question.claim(CHANGE)
        target = choose_target(self.question, without=[*(before.measure.columns if before.measure else ())])
        names: list[str] = []
        cells: list[Cell] = []
        for name in dict.fromkeys(target.texts[row] for row in before.rows):
            parts = [
                self.measures.value(
                    RowGroup(group.measure, tuple(row for row in group.rows if target.texts[row] == name))
                )
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
                if not after or not others or question.compares():
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
                return record_result(self.question, bound, rows, (value, limit))
        return None

    # Shares

    def _share(self) -> QueryResult | None:
        """What share of the records, or of a measure, meets a condition."""
        question = self.question
        match = SHARE.search(self.text)
        if match is None or CHANGE.search(self.text):
            return None
        word = _SOME.search(self.text)
        if word is not None and (columns := question.named_columns(lambda column: column.is_measure)):
            column = columns[0]
            positive = frozenset(row for row, number in enumerate(column.numbers) if number)
            places = frozenset(question.links[column.number]) | question.places(*word.span())
            question.conditions.append(Condition(column, [Option(column.head, positive, frozenset(places))], "limit"))
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
            self.measures.choose()
            if self.measures.is_money or question.named_columns(lambda column: column.is_measure)
            else None
        )
        question.claim(PERCENT)
        question.claim(SHARE)
        for pattern in (SUM, COUNT):
            question.claim(pattern)
        column = part[0].column
        cells = row_cells(self.view, chosen, (column,))
        if measure is not None and not any(measure.columns[0] is one.column for one in part):
            total, some = (
                self.measures.value(RowGroup(measure, tuple(rows))),
                self.measures.value(RowGroup(measure, tuple(chosen))),
            )
            if total is None or some is None or not total.value:
                return None
            expression = f"{some.expression} / {total.expression} * 100"
            return QueryResult("share", (round_number(some.value / total.value * 100) + " %",), cells, expression)
        value = Fraction(len(chosen) * 100, len(rows))
        return QueryResult("share", (round_number(value) + " %",), cells, f"{len(chosen)} / {len(rows)} * 100")

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
            measure = self.measures.choose()
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
            values = {
                name: self.measures.value(RowGroup(measure, tuple(rows)), total=not MEAN.search(self.text))
                for name, rows in buckets.items()
            }
            known = {name: value for name, value in values.items() if value is not None}
            if not known:
                continue
            question.explained |= places
            for pattern in (SUM, MEAN, COUNT):
                question.claim(pattern)
            cells = row_cells(self.view, [row for name in known for row in buckets[name]], (column,))
            details = tuple(round_number(value.value) for value in known.values())
            return QueryResult("most", tuple(known), cells, details=details, unit=measure.unit if measure else "")
        return None

    def _aggregate(self) -> QueryResult | None:
        """A sum, a mean, a median or a number of records."""
        question, text = self.question, self.text
        rows = question.rows()
        if MEAN.search(text) or MEDIAN.search(text):
            measure = self.measures.choose() or self.measures.only()
            return None if measure is None else self._mean(rows, measure)
        count = COUNT.search(text)
        if count is not None:
            counted = self._count(rows, count)
            if counted is not None:
                return counted
            measure = self.measures.choose()
            return None if measure is None else self._total(rows, measure)
        if SUM.search(text):
            measure = self.measures.choose() or self.measures.only()
            return None if measure is None or not rows else self._total(rows, measure)
        measure = self.measures.choose() if HOW_MUCH.search(text) or question.conditions else None
        if measure is not None and len(rows) > 1 and (measure.form or (measure.is_extensive and HOW_MUCH.search(text))):
            if self._is_one_of_many(measure):
                return None
            return self._total(rows, measure)
        return None

    def _is_one_of_many(self, measure: Measure) -> bool:
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
        cells = row_cells(self.view, rows, shown)
        return QueryResult("count", (str(len(rows)),), cells, " + ".join("1" for _ in rows) or "0")

    def _mean(self, rows: Sequence[int], measure: Measure) -> QueryResult | None:
        value = self.measures.value(RowGroup(measure, tuple(rows)), total=False)
        if value is None:
            return None
        for pattern in (MEAN, MEDIAN, HOW_MUCH, COUNT):
            self.question.claim(pattern)
        if MEDIAN.search(self.text):
            numbers = sorted(number for row in rows if (number := measure.number(row)) is not None)
            middle = len(numbers) // 2
            median = numbers[middle] if len(numbers) % 2 else (numbers[middle - 1] + numbers[middle]) / 2
            return QueryResult("mean", (round_number(median),), value.cells, None, unit=measure.unit)
        return QueryResult("mean", (round_number(value.value),), value.cells, value.expression, unit=measure.unit)

    def _total(self, rows: Sequence[int], measure: Measure) -> QueryResult | None:
        value = self.measures.value(RowGroup(measure, tuple(rows)))
        if value is None:
            return None
        for pattern in (SUM, COUNT, HOW_MUCH):
            self.question.claim(pattern)
        total = value.value
        signs = {number > 0 for row in rows if (number := measure.number(row))}
        if len(signs) > 1 and measure.columns[0].groups & {"balance"} and OWED.search(self.text):
            return None  # the table does not say whether debts are negative
        expression = value.expression
        if total < 0 and OWED.search(self.text):
            total, expression = -total, f"0 - ({expression})"
        return QueryResult("sum", (round_number(total),), value.cells, expression, unit=measure.unit)

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
                named = [choose_target(self.question)]
            else:
                return None
        asks_record = limits and WHICH.match(self.text.strip()) is not None
        if asks_record and named[0].is_measure and _WHAT.match(self.text):
            asks_record = False  # `what were the sales in Q1` asks for a number
        column = choose_target(self.question) if asks_record else named[0]
        if column.number in conditions and (column.distinct < self.view.length or HOW_MUCH.search(self.text)):
            return None
        if column.number in conditions and not WHEN.search(self.text):
            return None
        question.use(column)
        cells = row_cells(self.view, rows, (column,))
        answers = tuple(dict.fromkeys(column.texts[row] for row in rows if not column.is_empty(row)))
        if column.is_measure and len(answers) > 1:
            return None
        return QueryResult("cell", answers, cells, unit=column.unit if column.is_measure else "") if answers else None

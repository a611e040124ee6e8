"""Measures of a table question: which column, or computation over columns, it asks for, and its value over records."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final

from orchestra.schema.builtin_models import Cell
from orchestra.tools.table_lexicon import HOW_MUCH, INTENSIVE, MEAN, PROFIT, REMAINDER, SUM, measure_groups
from orchestra.tools.table_question import TableQuestion
from orchestra.tools.table_results import plain_number, row_cells
from orchestra.tools.table_views import TableColumn

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
_UNIT_PRICE: Final = re.compile(
    r"\b(?:per|each|unit|a piece|hourly|daily|stückpreis|einzelpreis|je|pro|par|por)\b|/", re.IGNORECASE
)
_TIMES: Final = re.compile(r"\b(?:times|multiplied by|mal|fois|multiplicado por)\b|[×*]", re.IGNORECASE)
_AND: Final = re.compile(r",|\b(?:and|plus|und|et|y)\b")
_MONEY: Final = frozenset({"income", "cost", "price"})


@dataclass(frozen=True)
class Measure:
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
        texts = [plain_number(column.numbers[row] or Fraction(0)) for column in self.columns]
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
        if _UNIT_PRICE.search(column.title):
            return False
        groups = column.groups - {"price"} if column.groups & {"cost", "income"} else column.groups
        return not (groups & INTENSIVE or column.unit in ("%", "C", "°C"))


@dataclass(frozen=True)
class RowGroup:
    """Records, and the measure that is computed over them; without one they are counted."""

    measure: Measure | None
    rows: tuple[int, ...]


@dataclass(frozen=True)
class GroupValue:
    """The value of a measure over a group, with its expression and its cells."""

    value: Fraction
    expression: str
    cells: tuple[Cell, ...]
    unit: str = ""


@dataclass
class TableMeasures:
    """The measures of a question over one view."""

    question: TableQuestion
    is_guess: bool = field(default=False, init=False)
    """Whether the chosen measure is one of several that fit equally."""

    def choose(self) -> Measure | None:
        """Returns the number that is asked for; None if the question names none."""
        measures = [column for column in self.question.view.columns if column.is_measure]
        for attempt in (self._difference, self._of_periods, self._named, self._money):
            measure = attempt(measures)
            if measure is not None:
                return measure
        periods = [column for column in measures if column.period is not None]
        if SUM.search(self.question.text) and len(periods) > 1 and len(periods) == len(measures):
            return Measure(tuple(periods), "+")
        return None

    def _difference(self, measures: Sequence[TableColumn]) -> Measure | None:
        """What is left of one column after another: the profit, or what is unused."""
        question = self.question
        if PROFIT.search(question.text):
            income = [column for column in measures if "income" in column.groups]
            cost = [column for column in measures if "cost" in column.groups and "income" not in column.groups]
            if income and cost:
                question.claim(PROFIT)
                question.use(income[0], cost[0])
                return Measure((income[0], cost[0]), "-")
        if REMAINDER.search(question.text) and (pair := self._remainder(measures)) is not None:
            question.claim(REMAINDER)
            price = self._unit_price(measures)
            question.use(*pair, *((price,) if price is not None else ()))
            return Measure((*pair, price), "-*") if price is not None else Measure(pair, "-")
        return None

    def _of_periods(self, measures: Sequence[TableColumn]) -> Measure | None:
        """The columns whose headers are periods of the question."""
        question = self.question
        columns = tuple(column for _, column in question.period_columns)
        if not columns or question.compares():
            return None
        if len(columns) > 1:
            self.is_guess = not question.conditions and question.view.length > 1
            return Measure(columns, "+")
        self.is_guess = not question.conditions and _is_statement(question)
        return Measure(columns)

    def _named(self, measures: Sequence[TableColumn]) -> Measure | None:
        """The column that the question names, several of them, or a column times a price per piece."""
        question, text = self.question, self.question.text
        conditions = {one.column.number for one in question.conditions if one.kind in ("limit", "number")}
        columns = question.named_columns(lambda column: column.is_measure)
        columns = [column for column in columns if column.number not in conditions] or columns
        if not columns:
            return None
        if SUM.search(text) and (several := self.several(columns)):
            return Measure(several, "+")
        if len(columns) > 1 and _TIMES.search(text) and (several := self.several(columns, _TIMES)):
            question.claim(_TIMES)
            return Measure(several[:2], "*")
        totals = [column for column in measures if SUM.search(text) and SUM.search(column.title)]
        best = totals[0] if totals and not question.is_named(columns[0]) else columns[0]
        question.use(best)
        self.is_guess = any(self._fits_equally(column, best) for column in columns[1:])
        factor: TableColumn | None = None
        if _UNIT_PRICE.search(best.title) and best.is_money:
            factor = self._quantity(measures, columns) if SUM.search(text) or HOW_MUCH.search(text) else None
        elif not best.is_money and self.is_money:
            factor = self._unit_price(measures)
        if factor is None:
            return Measure((best,))
        question.use(factor)
        return Measure((factor, best) if best.is_money else (best, factor), "*")

    def _fits_equally(self, column: TableColumn, best: TableColumn) -> bool:
        """Whether the same words name two columns equally strongly."""
        links = self.question.links
        same = set(links[column.number]) == set(links.get(best.number, {}))
        return same and self.question.strength(column) == self.question.strength(best)

    def _money(self, measures: Sequence[TableColumn]) -> Measure | None:
        """The column of money, if the question is about money and names no column."""
        money = [column for column in measures if column.is_money]
        plain = [column for column in money if not column.groups & {"fault", "discount", "balance"}] or money
        if self.is_money and plain:
            self.claim_money()
            self.is_guess = len(plain) > 1
            largest = max(plain, key=lambda column: sum(number or 0 for number in column.numbers))
            quantity = self._quantity(measures, ()) if _UNIT_PRICE.search(largest.title) else None
            return Measure((quantity, largest), "*") if quantity is not None else Measure((largest,))
        if SUM.search(self.question.text) and len(money) == 1 and not self.question.links_measure():
            self.is_guess = len(measures) > 2
            return Measure((money[0],))
        return None

    @property
    def is_money(self) -> bool:
        """Whether the question is about money."""
        return any(measure_groups(stem) & _MONEY for stem in self.question.stems)

    def claim_money(self) -> None:
        """Counts the words for money as explained."""
        self.question.explained |= {at for at, stem in enumerate(self.question.stems) if measure_groups(stem) & _MONEY}

    def several(self, named: Sequence[TableColumn], joint: re.Pattern[str] = _AND) -> tuple[TableColumn, ...]:
        """Columns of one unit that the question names with different words: `bar, food and shop together`."""
        chosen: list[TableColumn] = []
        taken: set[int] = set()
        for column in named:
            places = {at for at, strength in self.question.links[column.number].items() if strength == 1}
            is_alike = not chosen or joint is not _AND or column.unit == chosen[0].unit
            if places and not places & taken and is_alike:
                chosen.append(column)
                taken |= places
        if len(chosen) < 2:
            return ()
        first, last = min(taken), max(taken)
        between = self.question.text[self.question.spans[first][0] : self.question.spans[last][1]]
        if not joint.search(between):
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
        priced = [column for column in measures if column.is_money and _UNIT_PRICE.search(column.title)]
        return priced[0] if len(priced) == 1 and self.is_money else None

    def _quantity(self, measures: Sequence[TableColumn], named: Sequence[TableColumn]) -> TableColumn | None:
        """The number of pieces that a price per piece is for."""
        counts = [column for column in named[1:] if not column.is_money]
        counts = counts or [column for column in measures if "quantity" in column.groups and not column.is_money]
        return counts[0] if counts else None

    def only(self) -> Measure | None:
        """Returns the only measure of the table; None if it has several."""
        numeric = [column for column in self.question.view.columns if column.is_measure and not column.joined]
        return Measure((numeric[0],)) if len(numeric) == 1 else None

    def value(self, group: RowGroup, *, total: bool = True) -> GroupValue | None:
        """The sum or the mean of a group, or the number of its records if it has no measure."""
        if group.measure is None:
            cells = row_cells(self.question.view, group.rows, (self.question.view.key,))
            return GroupValue(Fraction(len(group.rows)), str(len(group.rows)), cells)
        measure = group.measure
        known = [(row, number) for row in group.rows if (number := measure.number(row)) is not None]
        if not known:
            return None
        value = sum((number for _, number in known), Fraction(0))
        expression = " + ".join(measure.term(row) for row, _ in known)
        several = len(known) > 1
        if several and (MEAN.search(self.question.text) or not total):
            value, expression = value / len(known), f"({expression}) / {len(known)}"
        elif several and self.question.compares():
            expression = f"({expression})"
        cells = row_cells(self.question.view, [row for row, _ in known], measure.columns)
        return GroupValue(value, expression, cells, measure.unit)


def _is_statement(question: TableQuestion) -> bool:
    """Whether the rows are different things, such as those of a balance sheet, which have no sum."""
    return (
        question.view.key.head.strip().casefold() not in question.text.casefold() or not question.view.key.head.strip()
    )

"""What a reader of tables should find for a row: where on its sheet the answer stands, and in which way it comes about.

A row says what answers, and not always where. Where several places have the same text, all are given, and one of them is to be found.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, TypeAlias

from orchestra.agents.inference.tables.encoding import Sheet, Spot
from orchestra.agents.inference.tables.filters import choices, holding, offered
from orchestra.agents.inference.tables.operations import (
    CELLS,
    COUNT,
    DIFFERENCE,
    GAP,
    LEAST,
    MEAN,
    MOST,
    PAIRS,
    PERCENTS,
    RANGE,
    SCALES,
    SUM,
    TEXT,
    WAYS,
    expression,
    figure,
    parsed,
)
from orchestra.agents.inference.tables.question import place
from orchestra.text.arithmetic import NotArithmetic, evaluate
from orchestra.text.keywords import content
from orchestra.text.numbers.sort_keys import BOUNDS, extremes

Named: TypeAlias = AbstractSet[tuple[int, int]]
"""Rows and columns of cells."""


@dataclass(frozen=True, slots=True)
class Target:
    """What should be found on a sheet, by numbers. Of a set of which one will do, all are given."""

    way: int
    scale: int
    cells: frozenset[int] = frozenset()
    """Places that are read off or summed up."""
    alike: frozenset[int] = frozenset()
    """Others that say the same as one of them."""
    first: frozenset[int] = frozenset()
    second: frozenset[int] = frozenset()
    rows: frozenset[int] = frozenset()
    asked: frozenset[int] = frozenset()
    by: int | None = None
    spans: tuple[tuple[int, int], ...] = ()
    """First and last tokens of words."""
    condition: Bounded | None = None
    also: Bounded | None = None
    """A second one."""
    untold: bool = False
    """Whether there may be a condition that nobody told."""

    def holds(self, row: int) -> bool:
        """Whether a row may count."""
        return all(one is None or one.holds[row] for one in (self.condition, self.also))


@dataclass(frozen=True, slots=True)
class Bounded:
    """A condition that should be found."""

    column: int
    choices: frozenset[int]
    """Its numbers among `orchestra.agents.inference.tables.filters.choices`: a figure may stand twice."""
    spot: int
    """The place of the figure, the first one."""
    holds: tuple[bool, ...]
    """Of each row."""


def way_of(expression: str | None, quotes: Sequence[str], table: Sequence[Sequence[str]]) -> str | None:
    """In which way an answer of figures, or of quotes, comes about where no rows are compared; None where in none of the ways."""
    if expression is not None:
        found = parsed(expression)
        return None if found is None else found[0]
    texts = {_plain(cell) for row in table for cell in row}
    return CELLS if all(_plain(quote) in texts for quote in quotes) else TEXT


def target(output: Mapping[str, Any], sheet: Sheet) -> Target | None:
    """What should be found on a sheet for an output; None where it does not stand there, or in no way that there is."""
    way, quotes = str(output["way"]), [str(quote) for quote in output["quotes"]]
    named = {(int(row), int(column)) for row, column in output["cells"]}
    begun = Target(WAYS.index(way), SCALES.index(output["scale"]), rows=frozenset(output["rows"]))
    if output["condition"] is not None:
        if (bounded := _bounded(output["condition"], sheet)) is None:
            return None
        begun = replace(begun, condition=bounded)
        if output["also"] is not None:
            if (second := _bounded(output["also"], sheet)) is None or second.spot <= bounded.spot:
                return None
            before = frozenset(one for one in bounded.choices if choices(sheet)[one][0] < second.spot)
            begun = replace(begun, condition=replace(bounded, choices=before), also=second)
    elif way in (COUNT, MOST, LEAST) and any(spot.given is not None and spot.given.bound is not None for spot in sheet.spots):
        begun = replace(begun, untold=True)
    found: Target | None
    if way == COUNT:
        found = begun if begun.rows or begun.condition else None
    elif way == RANGE:
        found = replace(begun, by=output["column"]) if begun.rows and output["column"] is not None else None
    elif begun.condition is not None and way in (CELLS, SUM, MEAN):
        found = _column(begun, way, output, sheet)
    elif way in (MOST, LEAST):
        found = _compared(begun, way, quotes, output["column"], sheet)
    elif way == TEXT:
        spans = _spans(quotes[0], sheet) if len(quotes) == 1 else ()
        found = replace(begun, spans=spans) if spans else None
    elif way == CELLS:
        found = _set(begun, [_cells(quote, sheet, named) for quote in quotes], sheet)
    else:
        found = _computed(begun, way, str(output["expression"]), sheet, named)
    return found


def _bounded(told: Mapping[str, Any], sheet: Sheet) -> Bounded | None:
    """A condition on a sheet; None where its figure is not the question's, or cannot be compared with its column."""
    at = place(str(told["limit"]), sheet.question)
    if at is None:
        return None
    spots = offered(sheet)
    holds = holding(sheet, told["column"], told["bound"], spots[at])
    if holds is None:
        return None
    alike = {one for one in spots if _limit(sheet, one) == _limit(sheet, spots[at])}
    number = BOUNDS.index(told["bound"])
    numbers = (index for index, one in enumerate(choices(sheet)) if one[0] in alike and one[1] == number)
    return Bounded(told["column"], frozenset(numbers), min(alike), holds)


def _limit(sheet: Sheet, spot: int) -> str | None:
    given = sheet.spots[spot].given
    return None if given is None else given.measure


def _column(begun: Target, way: str, output: Mapping[str, Any], sheet: Sheet) -> Target | None:
    """The columns whose cells in the rows that count are what answers."""
    rows = sorted(begun.rows)
    fit = []
    for column in range(max(map(len, sheet.table), default=0)):
        cells = [sheet.cell(row, column) for row in rows]
        figures = [said for cell in cells if (said := figure(" ".join(cell.split()), points=sheet.spelt_in(column).points)) is not None]
        if way == CELLS:
            same = sorted(_plain(cell) for cell in cells if cell.strip()) == sorted(map(_plain, output["quotes"]))
        else:
            same = bool(figures) and _worth(expression(way, figures)) == _worth(output["expression"])
        fit += [column] if same else []
    return replace(begun, asked=frozenset(fit)) if fit and rows else None


def _worth(expression: str) -> Fraction | None:
    try:
        return evaluate(expression)
    except NotArithmetic:
        return None


def _cells(quote: str, sheet: Sheet, named: Named) -> list[int]:
    return [at for at, spot in enumerate(sheet.spots) if spot.row >= 0 and _same(spot.text, quote) and _meant(spot, named)]


def _meant(spot: Spot, named: Named) -> bool:
    """Whether a place may be one of an answer's, by the cells that a row names: all may where it names none."""
    return not named or spot.row < 0 or (spot.row, spot.column) in named


def _computed(begun: Target, way: str, expression: str, sheet: Sheet, named: Named) -> Target | None:
    said = parsed(expression)
    if said is None or said[0] != (DIFFERENCE if way == GAP else way):
        return None
    lists = [_figures(figure, sheet, named, asked=way in PAIRS) for figure in said[1]]
    if not all(lists):
        return None
    if way in PAIRS:
        if way in PERCENTS:  # “10 percent off” is the question's, whatever cell happens to be 10
            of_question = [at for at in offered(sheet) if _value(str(sheet.spots[at].figure)) == _value(said[1][1])]
            lists[1] = of_question or lists[1]
        return replace(begun, first=frozenset(lists[0]), second=frozenset(lists[1]))
    return _set(begun, lists, sheet)


def _figures(figure: str, sheet: Sheet, named: Named, *, asked: bool) -> list[int]:
    """The places of a figure: those of the table and of the text, or else, where it may be `asked`, of the question."""
    value = _value(figure)
    every = [(at, spot.figure) for at, spot in enumerate(sheet.spots) if _meant(spot, named)]
    found = [at for at, said in every if said is not None and _value(said) == value]
    told = [at for at in found if sheet.spots[at].given is None]
    return told or (found if asked else [])


def _value(figure: str) -> Fraction | None:
    return _worth(figure.replace(",", ""))


def _set(begun: Target, lists: Sequence[Sequence[int]], sheet: Sheet) -> Target | None:
    """A place for each list: of several the one whose row or column has most of the others, and most words of the question."""
    if not lists or not all(lists):
        return None
    known = [sheet.spots[one[0]] for one in lists if len(one) == 1]
    rows, columns = Counter(spot.row for spot in known), Counter(spot.column for spot in known)
    asked = content(sheet.question)

    def fit(at: int) -> tuple[int, int, int]:
        spot = sheet.spots[at]
        if spot.row < 0:
            return 0, 0, -at
        around = [*sheet.table[spot.row], sheet.cell(0, spot.column)]
        return max(rows[spot.row], columns[spot.column]), len(asked & content(" ".join(around))), -at

    taken: list[int] = []
    for one in sorted(lists, key=len):
        free = [at for at in one if at not in taken]
        if not free:
            return None
        taken.append(max(free, key=fit))
        rows[sheet.spots[taken[-1]].row] += 1
        columns[sheet.spots[taken[-1]].column] += 1
    every = {at for one in lists for at in one}
    return replace(begun, cells=frozenset(taken), alike=frozenset(every - set(taken)))


def _compared(begun: Target, way: str, quotes: Sequence[str], column: int | None, sheet: Sheet) -> Target | None:
    rows = sorted(begun.rows)
    if column is None or not rows or len(quotes) != 1:
        return None
    tops = {rows[at] for at in extremes([sheet.cell(row, column) for row in rows], most=way == MOST, spelt=sheet.spelt_in(column))}
    asked = {spot.column for spot in sheet.spots if spot.row in tops and _same(spot.text, quotes[0])}
    return replace(begun, by=column, asked=frozenset(asked)) if asked else None


def _spans(quote: str, sheet: Sheet) -> tuple[tuple[int, int], ...]:
    """First and last tokens of each place of the text where a quote stands."""
    prose, found = sheet.prose(), []
    start = sheet.text.find(quote)
    while quote and start >= 0:
        inside = [at for at, span in enumerate(sheet.chars) if span and prose[at] and span[1] > start and span[0] < start + len(quote)]
        if inside and inside[-1] - inside[0] + 1 == len(inside):
            found.append((inside[0], inside[-1]))
        start = sheet.text.find(quote, start + 1)
    return tuple(found)


def _plain(text: str) -> str:
    """A text as cells are compared: without case, blanks, and currencies around a figure."""
    return " ".join(text.casefold().strip(" $€£¥").split())


def _same(text: str, quote: str) -> bool:
    return _plain(text) == _plain(quote)


def right(said: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether an output answers as another one does, in whatever way: the same value or the same quotes, and the same scale."""
    if said["scale"] != wanted["scale"]:
        return False
    return bool(_answer(said) == _answer(wanted))


def _answer(output: Mapping[str, Any]) -> Any:
    if output["expression"] is None:
        return [_plain(quote) for quote in output["quotes"]]
    try:
        value = round(evaluate(output["expression"]), 2)
        return abs(value) if output["way"] == GAP else value
    except NotArithmetic:
        return None

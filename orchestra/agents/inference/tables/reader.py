"""Tables: a fine-tuned encoder that reads a question beside a table and its text, and says in which way which places answer it.

It writes nothing. A head gives each token some logits; averaged over the tokens of a place, of a row and of a column they say which cells
the answer stands in, which figures are computed with and how, which rows count, and by which column rows are put in order. Code does the
rest: it reads off, counts, compares and writes the expression. Rows may be bounded by figures of the question
(`orchestra.agents.inference.tables.filters`). The idea of tagging cells and choosing an operator is TagOp's (Zhu et al.
2021, https://arxiv.org/abs/2105.07624) and TAPAS' (Herzig et al. 2020, https://arxiv.org/abs/2004.02349); that a comparison names a column
and is then computed, as a query would, is ours.

`model.json` says what is read and given, on what base the encoder stands, and the SHA-256 of the arrays beside it (`.npz`): the adapters
`down.NAME` and `up.NAME`, each of one member, and the head: `weight` (outputs, width) and `bias` (outputs).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, TypeVar

from pydantic import AliasChoices, Field

from orchestra.agents.card import Card
from orchestra.agents.computed_fields import FIELDS
from orchestra.agents.inference.array_files import reading
from orchestra.agents.inference.encoder import Encoder, changes_of
from orchestra.agents.inference.model_file import EncoderLayout
from orchestra.agents.inference.tables.encoding import Sheet
from orchestra.agents.inference.tables.filters import Condition, chosen, scores
from orchestra.agents.inference.tables.head import NAMES, Logits, weighed
from orchestra.agents.inference.tables.operations import (
    CELLS,
    COUNT,
    GAP,
    LEAST,
    MEAN,
    MOST,
    PAIRS,
    PRODUCT,
    RANGE,
    SCALES,
    SUM,
    TEXT,
    WAYS,
    agreeing,
    computes,
    expression,
    span,
    summed,
)
from orchestra.agents.inference.tables.percentages import with_percentages
from orchestra.agents.inference.tables.row_choice import column_groups, likeliest, likeliest_pair, row_groups, shares
from orchestra.agents.inference.tables.scales import UNITS, Units, signs
from orchestra.agents.inference.tables.unit_prices import pairs, unlike
from orchestra.core.errors import InputError
from orchestra.text.keywords import whole
from orchestra.text.numbers.sort_keys import extremes

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMAT: Literal["orchestra/table/v3"] = "orchestra/table/v3"
"""The first had no `gap`, the second no conditions and no `range`: what was trained in them is trained again."""
MAX_WINDOWS = 16
"""Windows of a table and its text at most: about eight thousand tokens."""
BEGINS = 20
"""The likeliest tokens for words of the text to begin at that are looked at."""
A = TypeVar("A")


class Layout(EncoderLayout):
    """What `model.json` says."""

    format: Literal["orchestra/table/v3"]
    question: str
    """The input that asks."""
    table: str
    """The input that is the table."""
    paragraphs: str
    """The input that is the text beside it."""
    tokens: Annotated[int, Field(ge=64, le=512)] = 512
    """Tokens of a window at most."""
    outputs: tuple[str, ...] = NAMES
    """What the rows of the head are."""
    longest: Annotated[int, Field(ge=1, le=256)] = 40
    """Tokens of words of the text at most."""
    cells: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    """What is added to the logits of places: how readily there is a further one beside the likeliest."""
    rows: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    """What is added to the logits of rows."""
    held: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    """And instead of it to those of rows that hold a condition, which but for totals all count."""
    groups: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """How much likelier whole columns are, and rows that a word of the question picks: the logarithm of the factor."""
    apart: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """How much less likely two figures are that stand neither in one row nor in one column."""
    regard: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.0
    """The power of the probability of its places that a way is chosen by, besides its own: a way whose places cannot be told is none."""
    sharpen: Annotated[float, Field(gt=0, allow_inf_nan=False, validation_alias=AliasChoices("sharpen", "heat"))] = 1.0
    """The power of which the probability of an answer is taken, so that it says how often answers are right; called `heat` before."""
    units: Units | None = None
    """Which words tell whether figures are in thousands, millions or billions. Without them the encoder guesses."""


def of_tables(card: Card) -> bool:
    """Whether an agent of kind `encoder` answers questions to tables."""
    return set(FIELDS) <= set(card.output_schema.get("properties", {}))


class Found(NamedTuple):
    """An answer before it is written: which places, rows and column in which way, and how probable that is."""

    way: str
    sure: float
    spots: tuple[int, ...] = ()
    rows: tuple[int, ...] = ()
    column: int | None = None
    compared: tuple[int, int] | None = None
    """The row and the column of the cell that is the most or the least."""
    words: str = ""
    conditions: tuple[Condition, ...] = ()
    multiplied: bool = False
    """Whether the places are pairs, whose products are added up."""


class Tables:
    """A reader of tables, ready."""

    def __init__(self, layout: Layout, arrays: Mapping[str, NDArray[Any]], encoder: Encoder, card: Card) -> None:
        """Raises `ValueError` or `KeyError` for arrays that do not fit the encoder."""
        import numpy as np

        self.layout, self.encoder, self._card = layout, encoder, card
        wide = {name: array.astype(np.float32) for name, array in arrays.items()}
        self._changes = changes_of(wide, encoder.shape)
        self._weight, self._bias = wide["weight"], wide["bias"]
        if layout.outputs != NAMES:
            raise ValueError("the head has other outputs than are known: train it again, with --start")
        if self._weight.shape != (len(NAMES), encoder.shape.width) or self._bias.shape != (len(NAMES),):
            raise ValueError("the head has another shape than the encoder")

    @classmethod
    def load(cls, card: Card, encoder: Encoder) -> Tables:
        """The reader of a card's folder, on its base. Raises `InputError` A011 where its files are missing, damaged or do not fit."""
        with reading(card):
            return cls(*Layout.read(card), encoder, card)

    def predict(self, inputs: Mapping[str, Any]) -> tuple[dict[str, Any], float]:
        """The answer and its probability. Raises `InputError` A023 for a table and a text that are too long."""
        sheet = self.sheet(inputs)
        if len(sheet.windows) > MAX_WINDOWS:
            reason = f"{self.layout.table} and {self.layout.paragraphs} have about {len(sheet.chars):,} tokens, which is too long to read"
            raise InputError("A023", reason, hint="give the rows and the paragraphs that matter")
        found, scale = self.choose(sheet, self.logits(sheet))
        return self._card.form.filled(written(found, scale, sheet), None), found.sure**self.layout.sharpen

    def sheet(self, inputs: Mapping[str, Any]) -> Sheet:
        """What is read of a call's inputs."""
        layout = self.layout
        return Sheet(self.encoder, str(inputs[layout.question]), inputs[layout.table], inputs[layout.paragraphs], layout.tokens)

    def logits(self, sheet: Sheet) -> Logits[NDArray[Any]]:
        """What the head says of a sheet."""
        import numpy as np

        read = np.concatenate([self.encoder.read(window, self._changes)[0] @ self._weight.T for window in sheet.windows])
        found = with_percentages(sheet, weighed(read + self._bias, sheet.frame(), _together))
        if self.layout.units is None:
            return found
        told = self.layout.units.logits(signs(sheet.question, sheet.table[: sheet.top], sheet.table[sheet.top :], sheet.paragraphs))
        rest = len(SCALES) - len(UNITS)
        return found._replace(scales=np.concatenate([found.scales[:rest], _together(found.scales[rest:]) + np.array(told)]))

    def choose(self, sheet: Sheet, logits: Logits[NDArray[Any]]) -> tuple[Found, str]:
        """The likeliest way in which there is an answer that can be computed at all, with its places, and the scale."""
        logits = logits._replace(cells=logits.cells + self.layout.cells)
        chances, scales = shares(logits.ways), shares(logits.scales)
        scale = int(scales.argmax())
        best, value = Found(CELLS, 0.0), -math.inf
        for number in chances.argsort()[::-1]:
            chance = float(chances[number])
            if _log(chance) <= value:
                break
            found = self._found(WAYS[int(number)], sheet, logits)
            if found is None or _figures(found, sheet) is None or not computes(_expression(found, sheet)):
                continue
            if (worth := _log(chance) + self.layout.regard * _log(found.sure)) > value:
                best, value = found._replace(sure=found.sure * chance * float(scales[scale])), worth
        return best, SCALES[scale] if value > -math.inf else ""

    def _found(self, way: str, sheet: Sheet, logits: Logits[NDArray[Any]]) -> Found | None:
        if way == TEXT:
            return self._words(sheet, logits)
        if way in PAIRS:
            return _pair(way, sheet, logits, self.layout.apart)
        conditions, sure = _conditions(sheet, logits)
        rows = _rows(sheet, logits.rows + (self.layout.held if conditions else self.layout.rows), conditions, self.layout.groups)
        if way in (MOST, LEAST):
            found = _extreme(way, sheet, logits, rows)
        elif way == RANGE:
            found = _range(sheet, logits, rows)
        elif way == COUNT:
            found = Found(way, rows.sure, rows=rows.taken) if len(sheet.table) > sheet.top else None
        elif not conditions:
            found = _set(way, sheet, logits, self.layout.groups)
        else:
            found = _column(way, sheet, logits, rows)
        return None if found is None else found._replace(sure=found.sure * sure, conditions=conditions)

    def _words(self, sheet: Sheet, logits: Logits[NDArray[Any]]) -> Found | None:
        """The likeliest words of one paragraph."""
        import numpy as np

        place = sheet.paragraph()
        prose = place >= 0
        if not prose.any():
            return None
        begin, end = (np.where(prose, one, -np.inf) for one in (logits.begin, logits.end))
        best, span = -math.inf, (0, 0)
        for start in np.flatnonzero(prose)[np.argsort(-begin[prose])[:BEGINS]]:
            stop = start + self.layout.longest
            together = (place[start:stop] == place[start]).cumprod().astype(bool)
            sums = np.where(together, end[start:stop], -np.inf)
            last = int(sums.argmax())
            if begin[start] + sums[last] > best:
                best, span = begin[start] + sums[last], (int(start), int(start) + last)
        if best == -math.inf:
            return None
        sure = float(shares(begin)[span[0]] * shares(end)[span[1]])
        return Found(TEXT, sure, words=_between(sheet, *span))


def written(found: Found, scale: str, sheet: Sheet) -> dict[str, Any]:
    """The fields of the output, but the answer, which is computed."""
    said = _expression(found, sheet)
    quotes = [] if said is not None else [found.words] if found.way == TEXT else [sheet.spots[at].text for at in found.spots]
    told: dict[str, Any] = {"way": found.way, "quotes": quotes, "expression": said, "scale": scale}
    told |= {"cells": list(map(list, _cells(found, sheet))), "rows": list(found.rows), "column": found.column}
    named = [{"column": one.column, "bound": one.bound, "limit": sheet.spots[one.spot].text} for one in found.conditions]
    return told | dict(zip(("condition", "also"), [*named, None, None], strict=False))


def _expression(found: Found, sheet: Sheet) -> str | None:
    """What computes the answer; None where it is read off. What is counted is summed up, one by one."""
    if found.way == COUNT:
        return summed(["1"] * len(found.rows)) or "0"
    if found.multiplied:
        figures = _figures(found, sheet) or []
        return summed([f"{first} * {second}" for first, second in zip(figures[::2], figures[1::2], strict=True)])
    if found.way in (SUM, MEAN, RANGE, *PAIRS):
        return expression(found.way, _figures(found, sheet) or [])
    return None


def _figures(found: Found, sheet: Sheet) -> list[str] | None:
    """The figures that are computed with; None where those of cells are in different units. A share may be of different columns' kinds."""
    spots = [sheet.spots[at] for at in found.spots]
    figures, columns = [str(spot.figure) for spot in spots], {spot.column for spot in spots}
    spelt = {sheet.spelt_in(column) for column in columns if column >= 0}
    if -1 in columns or len(spelt) != 1 or (len(columns) > 1 and found.way in ("share", "ratio")):
        return figures
    return agreeing(found.way, [spot.text for spot in spots], figures, *spelt)


def _log(chance: float) -> float:
    return math.log(max(chance, 1e-30))


def _cells(found: Found, sheet: Sheet) -> list[tuple[int, int]]:
    """Rows and columns of the cells that an answer rests on: those that were pointed at, the one that was compared, those of conditions,
    and of each row that was counted without one the first filled one."""
    cells = [(spot.row, spot.column) for spot in (sheet.spots[at] for at in found.spots) if spot.row >= 0]
    if found.conditions:
        counted = found.rows if found.way == COUNT else dict.fromkeys(row for row, _ in cells)
        cells += [(row, one.column) for one in found.conditions for row in counted]
    elif found.way == COUNT:
        first = {spot.row: spot.column for spot in reversed(sheet.spots) if spot.row >= 0}
        cells = [(row, first[row]) for row in found.rows if row in first]
    return list(dict.fromkeys([*cells, *([found.compared] if found.compared else [])]))


def _set(way: str, sheet: Sheet, logits: Logits[NDArray[Any]], groups: float) -> Found | None:
    """Those of the places that are likeliest together in the answer; two at least where they are summed up."""
    sums = way in (SUM, MEAN)
    given = ((at, spot) for at, spot in enumerate(sheet.spots) if spot.given is None)
    fit = [at for at, spot in given if (spot.figure is not None if sums else spot.row >= 0)]
    at_least = 2 if sums else 1
    if len(fit) < at_least:
        return None
    cells = {(sheet.spots[at].row, sheet.spots[at].column): number for number, at in enumerate(fit) if sheet.spots[at].row >= 0}
    taken, sure = likeliest(logits.cells[fit], [*column_groups(sheet, cells)], groups, at_least)
    spots = tuple(fit[at] for at in taken)
    if not sums or not unlike(sheet, spots):
        return Found(way, sure, spots=spots)
    both = pairs(sheet, spots) if way == SUM else []
    return Found(way if len(both) > 1 else PRODUCT, sure, tuple(chain(*both)), multiplied=True) if both else None


def _pair(way: str, sheet: Sheet, logits: Logits[NDArray[Any]], apart: float) -> Found | None:
    """The likeliest two figures."""
    import numpy as np

    fit = [at for at, spot in enumerate(sheet.spots) if spot.figure is not None]
    if len(fit) < 2:
        return None
    rows, wide = (np.array([getattr(sheet.spots[at], name) for at in fit]) for name in ("row", "column"))
    cells = (rows >= 0)[:, None] & (rows >= 0)[None, :]
    away = cells & (rows[:, None] != rows[None, :]) & (wide[:, None] != wide[None, :])
    first, second, sure = likeliest_pair(logits.first[fit], logits.second[fit], away, apart, either=way == GAP)
    return Found(way, sure, spots=(fit[first], fit[second]))


class _Rows(NamedTuple):
    """Rows that count."""

    taken: tuple[int, ...]
    sure: float
    every: tuple[int, ...]
    """Those that may count: all below the head, or those that hold the conditions."""

    @property
    def compared(self) -> tuple[int, ...]:
        """Those among which there is a most and a least, for one there must be."""
        return self.taken or self.every


def _conditions(sheet: Sheet, logits: Logits[NDArray[Any]]) -> tuple[tuple[Condition, ...], float]:
    """The likeliest conditions, none to two, and how probable that is."""
    import numpy as np

    found, sure, after = list[Condition](), 1.0, -1
    first, second = (logits.bounded, logits.limits, logits.bounds), (logits.also, logits.also_limits, logits.also_bounds)
    for which, limits, bounds in (first, second):
        if not len(which):
            break
        choice = shares(np.array([bounds[0], *scores(sheet, limits, bounds, after)]))
        one, chance = chosen(sheet, choice, shares(which), found[-1] if found else None)
        sure *= chance
        if one is None:
            break
        found.append(one)
        after = one.spot
    return tuple(found), sure


def _rows(sheet: Sheet, logits: NDArray[Any], conditions: Sequence[Condition], groups: float) -> _Rows:
    """The rows that are likeliest to count together, of those that hold the conditions."""
    every = tuple(row for row in range(sheet.top, len(sheet.table)) if all(one.holds[row] for one in conditions))
    place = {row: at for at, row in enumerate(every)}
    some = [inside for rows in row_groups(sheet) if (inside := [place[row] for row in rows if row in place])]
    taken, sure = likeliest(logits[list(every)], some, groups)
    return _Rows(tuple(every[at] for at in taken), sure, every)


def _column(way: str, sheet: Sheet, logits: Logits[NDArray[Any]], rows: _Rows) -> Found | None:
    """The cells of the column that is asked for in rows that count."""
    import numpy as np

    cells = {(spot.row, spot.column): at for at, spot in enumerate(sheet.spots) if spot.row >= 0}
    for column in np.argsort(-logits.asked):
        here = [cells[row, int(column)] for row in rows.taken if (row, int(column)) in cells]
        spots = tuple(at for at in here if way == CELLS or sheet.spots[at].figure is not None)
        if spots:
            return Found(way, float(shares(logits.asked)[column]) * rows.sure, spots, rows.taken)
    return None


def _extreme(way: str, sheet: Sheet, logits: Logits[NDArray[Any]], counted: _Rows) -> Found | None:
    """The cell of the column that is asked for, in the row where the column that is compared by has its extreme among rows that count."""
    import numpy as np

    rows = counted.compared
    cells = {(spot.row, spot.column): at for at, spot in enumerate(sheet.spots) if spot.row >= 0}
    for column in np.argsort(-logits.by):
        tops = extremes(_texts(sheet, cells, rows, int(column)), most=way == MOST, spelt=sheet.spelt_in(int(column)))
        if not tops:
            continue
        top = rows[tops[0]]
        for asked in np.argsort(-logits.asked):
            if (top, int(asked)) in cells:
                sure = float(shares(logits.by)[column] * shares(logits.asked)[asked]) * counted.sure
                return Found(way, sure, (cells[top, int(asked)],), rows, int(column), (top, int(column)))
    return None


def _range(sheet: Sheet, logits: Logits[NDArray[Any]], counted: _Rows) -> Found | None:
    """The most and the least of the column that is compared by, among rows that count, where their figures are what they are ordered by."""
    import numpy as np

    rows = counted.compared
    cells = {(spot.row, spot.column): at for at, spot in enumerate(sheet.spots) if spot.row >= 0}
    for column in np.argsort(-logits.by):
        ends = span(_texts(sheet, cells, rows, int(column)), sheet.spelt_in(int(column)))
        if ends is not None:
            spots = tuple(cells[rows[at], int(column)] for at in ends)
            return Found(RANGE, float(shares(logits.by)[column]) * counted.sure, spots, rows, int(column))
    return None


def _texts(sheet: Sheet, cells: Mapping[tuple[int, int], int], rows: Sequence[int], column: int) -> list[str]:
    return [sheet.spots[cells[row, column]].text if (row, column) in cells else "" for row in rows]


def _between(sheet: Sheet, first: int, last: int) -> str:
    start, end = sheet.chars[first], sheet.chars[last]
    return "" if start is None or end is None else sheet.text[slice(*whole(sheet.text, start[0], end[1]))]


def _together(logits: NDArray[Any]) -> NDArray[Any]:
    import numpy as np

    most = logits.max(axis=0)
    given: NDArray[Any] = most + np.log(np.exp(logits - most).sum(axis=0))
    return given

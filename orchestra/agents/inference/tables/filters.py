"""Conditions: which rows count, where a question bounds them by a figure of its own (“larger than 90 square metres”).

What bounds them is one of the question's figures, in one of four ways, or there is no condition: these are chosen among together. Then the
column is chosen, and code compares its cells with the figure (`orchestra.text.numbers.sort_keys.within`), as a query
would. Where there is one
there may be another, by a figure that stands behind the first (“between 10 and 20”, “over 90 square metres and under 800 a month”).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from orchestra.agents.inference.tables.operations import CELLS, COUNT, LEAST, MEAN, MOST, RANGE, SUM
from orchestra.text.numbers.sort_keys import BOUNDS, within

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from orchestra.agents.inference.tables.encoding import Sheet

CONDITIONED: Final = frozenset({CELLS, COUNT, MOST, LEAST, SUM, MEAN, RANGE})
"""The ways that rows may be bounded in."""
WORDED: Final = 3.0
"""The logit that is added to the bound that words around a figure set, before anything is learnt."""
IMPOSSIBLE: Final = 1e4
"""What is taken from the logit of a choice that there is not."""


class Condition(NamedTuple):
    """Which rows hold it: those whose cell of a column is on the right side of a figure of the question."""

    column: int
    bound: str
    spot: int
    """The place of the figure."""
    holds: tuple[bool, ...]
    """Of each row, the head's too, which never do."""


def offered(sheet: Sheet) -> list[int]:
    """The places of a sheet that a condition may take its figure from."""
    return [at for at, spot in enumerate(sheet.spots) if spot.given is not None]


def choices(sheet: Sheet) -> list[tuple[int, int]]:
    """The conditions that there may be but for their columns: a place and the number of a bound. None of them is a choice as well."""
    return [(at, bound) for at in offered(sheet) for bound in range(len(BOUNDS))]


def scores(sheet: Sheet, limits: Any, bounds: Any, after: int = -1) -> list[Any]:
    """The logits of the choices, of numpy and of torch alike: of the place, of the bound, and what words around the figure add. Only places
    behind `after` can be chosen."""
    found = []
    for at, number in choices(sheet):
        given = sheet.spots[at].given
        worded = given is not None and given.bound == BOUNDS[number]
        found.append(limits[at] + bounds[1 + number] + (WORDED if worded else 0.0) - (0.0 if at > after else IMPOSSIBLE))
    return found


def holding(sheet: Sheet, column: int, bound: str, spot: int) -> tuple[bool, ...] | None:
    """Which rows hold a condition; None where the figure cannot be compared with the column."""
    given = sheet.spots[spot].given
    if given is None:
        return None
    cells = [sheet.cell(row, column) for row in range(len(sheet.table))]
    holds = within(cells[sheet.top :], given.measure, bound, " ".join(cells[: sheet.top]), sheet.spelt_in(column))
    return None if holds is None else (*[False] * sheet.top, *holds)


def chosen(sheet: Sheet, choice: NDArray[Any], columns: NDArray[Any], beside: Condition | None = None) -> tuple[Condition | None, float]:
    """The likeliest condition, or none, and how probable that is.

    `choice` is how probable each of `choices` is, behind that there is none; `columns` how probable each column is. A condition that can be
    compared with no column is none. Of a second one, `beside` another, the likeliest column is that in which a row holds both, if there is
    one: nobody asks for what contradicts itself.
    """
    best = int(choice.argmax())
    if best > 0:
        spot, bound = choices(sheet)[best - 1]
        every = [
            Condition(int(column), BOUNDS[bound], spot, holds)
            for column in columns.argsort()[::-1]
            if (holds := holding(sheet, int(column), BOUNDS[bound], spot)) is not None
        ]
        if every:
            both = (one for one in every if beside is None or any(map(min, one.holds, beside.holds)))
            one = next(both, every[0])
            return one, float(choice[best] * columns[one.column])
    return None, float(choice[0])

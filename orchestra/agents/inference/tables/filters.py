"""Conditions: which rows count, where a question bounds them by a figure of its own (“larger than 90 square metres”).

What bounds them is one of the question's figures, in one of four ways, or there is no condition: these are chosen among
together. Then the column is chosen, and code compares its cells with the figure
(`orchestra.text.numbers.sort_keys.filter_by_limit`), as a query would. After a first condition there may be a second
one, by a figure behind the first (“between 10 and 20”, “over 90 square metres and under 800 a month”).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from orchestra.agents.inference.tables.operations import CELLS, COUNT, LEAST, MEAN, MOST, RANGE, SUM
from orchestra.text.numbers.sort_keys import BOUNDS, filter_by_limit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from orchestra.agents.inference.tables.encoding import TableEncoding

FILTERABLE_OPERATIONS: Final = frozenset({CELLS, COUNT, MOST, LEAST, SUM, MEAN, RANGE})
"""The ways that rows may be bounded in."""
WORD_BONUS: Final = 3.0
"""The logit that is added to the bound that words around a figure set, before anything is learnt."""
IMPOSSIBLE_PENALTY: Final = 1e4
"""What is taken from the logit of a choice that there is not."""


class Condition(NamedTuple):
    """Which rows hold it: those whose cell of a column is on the right side of a figure of the question."""

    column: int
    bound: str
    location: int
    """The place of the figure."""
    row_mask: tuple[bool, ...]
    """Of each row, the head's too, which never do."""


def condition_locations(encoding: TableEncoding) -> list[int]:
    """The places of a sheet that a condition may take its figure from."""
    return [at for at, location in enumerate(encoding.locations) if location.question_figure is not None]


def condition_choices(encoding: TableEncoding) -> list[tuple[int, int]]:
    """The conditions that there may be but for their columns: a place and the number of a bound. None of them is a
    choice
    as well.
    """
    return [(at, bound) for at in condition_locations(encoding) for bound in range(len(BOUNDS))]


def choice_logits(encoding: TableEncoding, limits: Any, bounds: Any, after: int = -1) -> list[Any]:
    """The logits of the choices, of numpy and of torch alike: of the place, of the bound, and what words around the
    figure
    add. Only places behind `after` can be chosen.
    """
    found = []
    for at, number in condition_choices(encoding):
        given = encoding.locations[at].question_figure
        worded = given is not None and given.bound == BOUNDS[number]
        found.append(
            limits[at]
            + bounds[1 + number]
            + (WORD_BONUS if worded else 0.0)
            - (0.0 if at > after else IMPOSSIBLE_PENALTY)
        )
    return found


def matching_rows(encoding: TableEncoding, column: int, bound: str, location: int) -> tuple[bool, ...] | None:
    """Which rows hold a condition; None where the figure cannot be compared with the column."""
    given = encoding.locations[location].question_figure
    if given is None:
        return None
    cells = [encoding.cell(row, column) for row in range(len(encoding.table))]
    holds = filter_by_limit(
        cells[encoding.header_rows :],
        given.measure,
        bound,
        " ".join(cells[: encoding.header_rows]),
        encoding.spelling_of(column),
    )
    return None if holds is None else (*[False] * encoding.header_rows, *holds)


def choose_condition(
    encoding: TableEncoding,
    choice_probabilities: NDArray[Any],
    column_probabilities: NDArray[Any],
    other: Condition | None = None,
) -> tuple[Condition | None, float]:
    """Returns the most probable condition, or None, and its probability.

    A condition that can be compared with no column is dropped.

    Args:
        encoding: The encoded table.
        choice_probabilities: Probability of no condition, followed by those of `condition_choices`.
        column_probabilities: Probability of each column.
        other: The first condition, if this is the second one. Columns with a row that meets both conditions come first,
            because a question does not contradict itself.
    """
    best = int(choice_probabilities.argmax())
    if best > 0:
        location, bound = condition_choices(encoding)[best - 1]
        every = [
            Condition(int(column), BOUNDS[bound], location, holds)
            for column in column_probabilities.argsort()[::-1]
            if (holds := matching_rows(encoding, int(column), BOUNDS[bound], location)) is not None
        ]
        if every:
            both = (one for one in every if other is None or any(map(min, one.row_mask, other.row_mask)))
            one = next(both, every[0])
            return one, float(choice_probabilities[best] * column_probabilities[one.column])
    return None, float(choice_probabilities[0])

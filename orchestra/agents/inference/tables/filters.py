"""Conditions: rows that are limited by a figure of the question (“larger than 90 square metres”).

A condition has one of the question's figures and one of four bounds. The most probable of these, or no condition, is
chosen first. Then the column is chosen, and code compares its cells with the figure
(`orchestra.text.numbers.sort_keys.filter_by_limit`), as a query does. There may be a second condition with a later
figure (“between 10 and 20”, “over 90 square metres and under 800 a month”).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from orchestra.agents.inference.tables.operations import CELLS, COUNT, LEAST, MEAN, MOST, RANGE, SUM
from orchestra.text.numbers.sort_keys import BOUNDS, filter_by_limit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from orchestra.agents.inference.tables.encoding import TableEncoding

FILTERABLE_OPERATIONS: Final = frozenset({CELLS, COUNT, MOST, LEAST, SUM, MEAN, RANGE})
"""The operations that conditions apply to."""
WORD_BONUS: Final = 3.0
"""Added to the logit of the bound that the words around a figure set, before training."""
IMPOSSIBLE_PENALTY: Final = 1e4
"""Subtracted from the logit of an impossible choice."""


class Condition(NamedTuple):
    """A condition on rows: the cell of a column compared with a figure of the question."""

    column: int
    bound: str
    location: int
    """The location of the figure."""
    row_mask: tuple[bool, ...]
    """Whether each row meets the condition. Header rows never do."""


def condition_locations(encoding: TableEncoding) -> list[int]:
    """Returns the locations from which a condition may take its figure."""
    return [at for at, location in enumerate(encoding.locations) if location.question_figure is not None]


def condition_choices(encoding: TableEncoding) -> list[tuple[int, int]]:
    """Returns the possible conditions without columns: a location and the index of a bound. No condition is a choice as
    well.
    """
    return [(at, bound) for at in condition_locations(encoding) for bound in range(len(BOUNDS))]


def choice_logits(encoding: TableEncoding, limits: Any, bounds: Any, after: int = -1) -> list[Any]:
    """Returns the logits of the choices, for numpy and torch: location plus bound plus the bonus of the words around
    the figure. Only locations after `after` are possible.
    """
    logits = []
    for at, number in condition_choices(encoding):
        figure = encoding.locations[at].question_figure
        fits_bound = figure is not None and figure.bound == BOUNDS[number]
        logits.append(
            limits[at]
            + bounds[1 + number]
            + (WORD_BONUS if fits_bound else 0.0)
            - (0.0 if at > after else IMPOSSIBLE_PENALTY)
        )
    return logits


def matching_rows(encoding: TableEncoding, column: int, bound: str, location: int) -> tuple[bool, ...] | None:
    """Returns which rows meet a condition; None if the figure cannot be compared with the column."""
    figure = encoding.locations[location].question_figure
    if figure is None:
        return None
    cells = [encoding.cell(row, column) for row in range(len(encoding.table))]
    holds = filter_by_limit(
        cells[encoding.header_rows :],
        figure.measure,
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
        conditions = [
            Condition(int(column), BOUNDS[bound], location, holds)
            for column in column_probabilities.argsort()[::-1]
            if (holds := matching_rows(encoding, int(column), BOUNDS[bound], location)) is not None
        ]
        if conditions:
            compatible_conditions = (
                candidate
                for candidate in conditions
                if other is None or any(map(min, candidate.row_mask, other.row_mask))
            )
            condition = next(compatible_conditions, conditions[0])
            return condition, float(choice_probabilities[best] * column_probabilities[condition.column])
    return None, float(choice_probabilities[0])

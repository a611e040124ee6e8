"""The token budget for checks: which checks to run when not all fit. Pure.

The value of a check is `(1 - P(correct)) x influence` per token that it costs: the doubt in the value, times the share
of the result that depends on it. Values arrive one after another, and later ones are not known yet. So a check runs if
it fits into the budget together with the expected checks that are worth more:

    cost + sum over upcoming values of cost x P(worth more)  <=  tokens left

The probability is estimated from the doubts so far, and the sum is computed anew for each value. This is the
budget-ratio policy for the multi-secretary problem, whose regret does not grow with the number of values (Arlotto and
Gurvich 2019, https://arxiv.org/abs/1710.07719), extended by costs and influences.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from orchestra.core.events import CheckPriority

DEFAULT_DOUBT = 0.5
"""The doubt in a value without a confidence."""
DOUBT_TOLERANCE = 1e-9
"""Doubts that differ by less are equal."""
PRIOR_WEIGHT = 2.0
"""Weight of the prior, in values. The prior is uniform from 0 to 1."""


class UpcomingValues(msgspec.Struct, frozen=True, gc=False):
    """Values of one node that will arrive and be checked."""

    influence: float
    count: float


@dataclass(slots=True)
class CheckBudget:
    """Budget of a run for checks: tokens spent and reserved, and statistics of the values so far."""

    limit: int
    """Total tokens."""
    spent: int = 0
    reserved: int = 0
    """Upper bound of the tokens of the checks in progress."""
    doubts: list[float] = field(default_factory=list)
    """Doubts of the values so far, sorted in ascending order."""
    finished_bound: int = 0
    """Sum of the upper bounds of the finished checks, in tokens."""
    finished_tokens: int = 0
    """Tokens that the finished checks used."""
    check_count: int = 0
    """Checks that ran, or would have run without the limit."""
    total_bound: int = 0
    """Sum of their upper bounds, in tokens."""

    def record(self, stake: CheckPriority, *, first: bool) -> None:
        """Records a check. `first` marks the first check of a value."""
        if first:
            insort(self.doubts, stake.uncertainty)
        self.check_count += 1
        self.total_bound += stake.max_tokens

    def expected_tokens(self, bound: int) -> float:
        """Expected tokens of a check with this upper bound: the ratio of the finished checks, with one check that used
        its whole bound as prior.
        """
        return bound * (bound + self.finished_tokens) / (bound + self.finished_bound) if bound else 0.0

    @property
    def available(self) -> int:
        """Tokens that can still be reserved."""
        return self.limit - self.spent - self.reserved

    def fits(self, stake: CheckPriority, upcoming: Iterable[UpcomingValues]) -> bool:
        """Whether a check fits beside those in progress and the expected ones that are worth more."""
        need = stake.expected_tokens + self.expected_tokens(self.reserved)
        expected_tokens = (
            self.expected_tokens(self.total_bound // self.check_count) if self.check_count else stake.expected_tokens
        )
        for value in upcoming:
            if value.influence > 0:
                need += (
                    value.count
                    * expected_tokens
                    * self.probability_above(
                        stake.value_per_token * expected_tokens / value.influence + DOUBT_TOLERANCE
                    )
                )
        return need <= self.limit - self.spent

    def probability_above(self, doubt: float) -> float:
        """Probability of a doubt above this one."""
        count = len(self.doubts) - bisect_right(self.doubts, doubt)
        return (count + PRIOR_WEIGHT * max(0.0, 1.0 - doubt)) / (len(self.doubts) + PRIOR_WEIGHT)

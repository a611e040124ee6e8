"""The allotment: where a limited budget for checks goes. Pure.

A check is worth `(1 - P(correct)) x influence` for each token that it costs: the doubt in the value, times the share of what comes of it.
Values come one after the other, and nobody knows those that are still to come; so a check is asked where it fits into what is left
together with the checks that are expected and worth more:

    cost + sum over the values to come of cost x P(worth more)  <=  tokens left

The doubts of the values so far tell how probable that is. With every value the sum is made anew. This is the budget-ratio policy for the
multi-secretary problem, whose regret does not grow with the number of values (Arlotto and Gurvich 2019,
https://arxiv.org/abs/1710.07719), with costs and influences beside the doubt.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from orchestra.core.events import CheckPriority

DEFAULT_DOUBT = 0.5
"""The doubt in a value of which nobody says how sure he is."""
DOUBT_TOLERANCE = 1e-9
"""Doubts that differ by less are the same."""
PRIOR_WEIGHT = 2.0
"""What is known before any value came: doubts spread evenly from 0 to 1, which count as so many values."""


class UpcomingValues(msgspec.Struct, frozen=True, gc=False):
    """Values of one node that are still to come, and will be checked."""

    influence: float
    count: float


@dataclass(slots=True)
class CheckBudget:
    """The budget of a run for checks: what is spent and reserved, and what is known of the values so far."""

    limit: int
    """Tokens in all."""
    spent: int = 0
    reserved: int = 0
    """Tokens that the checks under way may take at most."""
    doubts: list[float] = field(default_factory=list)
    """Of the values so far, the least first."""
    finished_bound: int = 0
    """Tokens that the checks that are over might have taken at most."""
    finished_tokens: int = 0
    """Tokens that they took."""
    check_count: int = 0
    """Checks that were asked, or would have been."""
    total_bound: int = 0
    """Tokens that these might take at most."""

    def record(self, stake: CheckPriority, *, first: bool) -> None:
        """One more check that asks, or would; the first one of a value, or a further one."""
        if first:
            insort(self.doubts, stake.uncertainty)
        self.check_count += 1
        self.total_bound += stake.max_tokens

    def expected_tokens(self, bound: int) -> float:
        """Tokens that a check with this bound is expected to take: as the checks that are over, and one that took all that it might."""
        return bound * (bound + self.finished_tokens) / (bound + self.finished_bound) if bound else 0.0

    @property
    def available(self) -> int:
        """Tokens that may still be reserved."""
        return self.limit - self.spent - self.reserved

    def fits(self, stake: CheckPriority, upcoming: Iterable[UpcomingValues]) -> bool:
        """Whether a check fits into what is left beside those under way, and those that are expected and worth more."""
        need = stake.expected_tokens + self.expected_tokens(self.reserved)
        each = self.expected_tokens(self.total_bound // self.check_count) if self.check_count else stake.expected_tokens
        for one in upcoming:
            if one.influence > 0:
                need += (
                    one.count
                    * each
                    * self.probability_above(stake.value_per_token * each / one.influence + DOUBT_TOLERANCE)
                )
        return need <= self.limit - self.spent

    def probability_above(self, doubt: float) -> float:
        """How probable a doubt above this one is."""
        more = len(self.doubts) - bisect_right(self.doubts, doubt)
        return (more + PRIOR_WEIGHT * max(0.0, 1.0 - doubt)) / (len(self.doubts) + PRIOR_WEIGHT)

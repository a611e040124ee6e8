"""Purses: what a budget has left. They nest: a called workflow with a budget of its own spends from its caller's as well."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from orchestra.workflow.nodes import Budget

if TYPE_CHECKING:
    from orchestra.engine.state import Unit


class Purse:
    """The tokens, calls and money of one budget: spent, and reserved for calls that are under way. `outer` is the purse around it."""

    __slots__ = ("budget", "calls", "line", "money", "outer", "pending", "promised", "reserved", "tokens")

    def __init__(self, budget: Budget, outer: Purse | None) -> None:
        self.budget, self.outer = budget, outer
        self.tokens = self.calls = 0
        self.money = 0.0
        self.reserved = self.pending = 0
        """Tokens that are reserved, and calls that are under way."""
        self.promised = 0.0
        """Money that is reserved."""
        self.line: deque[Unit] = deque()
        """Units that wait for room, the first first."""

    def reserve(self, tokens: int, money: float = 0.0) -> None:
        """A call goes out that may cost so much."""
        purse: Purse | None = self
        while purse is not None:
            purse.reserved += tokens
            purse.promised += money
            purse.pending += 1
            purse = purse.outer

    def release(self, tokens: int, money: float = 0.0) -> None:
        """That call is over, or was given up."""
        purse: Purse | None = self
        while purse is not None:
            purse.reserved -= tokens
            purse.pending -= 1
            purse.promised = purse.promised - money if purse.pending else 0.0  # sums of fractions do not come back to nothing
            purse = purse.outer

    def spend(self, tokens: int, calls: int, money: float = 0.0) -> None:
        """What a call has cost."""
        purse: Purse | None = self
        while purse is not None:
            purse.tokens += tokens
            purse.calls += calls
            purse.money += money
            purse = purse.outer

    @property
    def room(self) -> int | None:
        """Tokens that may still be reserved, here and around; None without a limit. Negative where a call cost more than was thought."""
        found: int | None = None
        purse: Purse | None = self
        while purse is not None:
            if (limit := purse.budget.tokens) is not None:
                left = limit - purse.tokens - purse.reserved
                found = left if found is None else min(found, left)
            purse = purse.outer
        return found

    @property
    def money_left(self) -> float | None:
        """Money that may still be reserved, here and around; None without a limit."""
        found: float | None = None
        purse: Purse | None = self
        while purse is not None:
            if (limit := purse.budget.money) is not None:
                left = limit - purse.money - purse.promised
                found = left if found is None else min(found, left)
            purse = purse.outer
        return found

    @property
    def calls_left(self) -> int | None:
        """Calls that may still go out, here and around; None without a limit."""
        found: int | None = None
        purse: Purse | None = self
        while purse is not None:
            if (limit := purse.budget.calls) is not None:
                left = limit - purse.calls - purse.pending
                found = left if found is None else min(found, left)
            purse = purse.outer
        return found

    @property
    def waits(self) -> bool:
        """Whether calls are under way whose end may make room."""
        purse: Purse | None = self
        while purse is not None:
            if purse.pending:
                return True
            purse = purse.outer
        return False

    def spent(self) -> str:
        """The limit that is reached, in words."""
        purse: Purse | None = self
        while purse is not None:
            budget = purse.budget
            if budget.calls is not None and purse.calls >= budget.calls:
                return f"{purse.calls:,} of {budget.calls:,} calls are spent"
            if budget.tokens is not None and purse.tokens >= budget.tokens:
                return f"{purse.tokens:,} of {budget.tokens:,} tokens are spent"
            if budget.money is not None and purse.money >= budget.money:
                return f"{purse.money:.6g} of {budget.money:.6g} are spent"
            purse = purse.outer
        purse = self
        while purse.budget.tokens is None and purse.outer is not None:
            purse = purse.outer
        return f"{purse.tokens:,} of {purse.budget.tokens or 0:,} tokens are spent"


def limited(budget: Budget | None) -> bool:
    """Whether a budget limits tokens, calls or money, and so needs a purse."""
    return budget is not None and (budget.tokens is not None or budget.calls is not None or budget.money is not None)

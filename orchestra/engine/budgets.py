"""Purses: what a budget has left. They nest: a called workflow with a budget of its own spends from its caller's as well."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, TypeVar

from orchestra.workflows.model import Budget

if TYPE_CHECKING:
    from orchestra.engine.state import WorkItem

N = TypeVar("N", int, float)


class BudgetAccount:
    """The tokens, calls and money of one budget: spent, and reserved for calls that are under way."""

    __slots__ = ("ancestors", "budget", "calls", "money", "pending_calls", "queue", "reserved_money", "reserved_tokens", "tokens")

    def __init__(self, budget: Budget, outer: BudgetAccount | None) -> None:
        self.budget = budget
        self.ancestors: tuple[BudgetAccount, ...] = (self,) if outer is None else (self, *outer.ancestors)
        """This purse, and those around it: what goes into it goes into all of them."""
        self.tokens = self.calls = 0
        self.money = 0.0
        self.reserved_tokens = self.pending_calls = 0
        """Tokens that are reserved, and calls that are under way."""
        self.reserved_money = 0.0
        """Money that is reserved."""
        self.queue: deque[WorkItem] = deque()
        """Units that wait for room, the first first."""

    def reserve(self, tokens: int, money: float = 0.0) -> None:
        """A call goes out that may cost so much."""
        for purse in self.ancestors:
            purse.reserved_tokens += tokens
            purse.reserved_money += money
            purse.pending_calls += 1

    def release(self, tokens: int, money: float = 0.0) -> None:
        """That call is over, or was given up."""
        for purse in self.ancestors:
            purse.reserved_tokens -= tokens
            purse.pending_calls -= 1
            purse.reserved_money = (
                purse.reserved_money - money if purse.pending_calls else 0.0
            )  # sums of fractions do not come back to nothing

    def spend(self, tokens: int, calls: int, money: float = 0.0) -> None:
        """What a call has cost."""
        for purse in self.ancestors:
            purse.tokens += tokens
            purse.calls += calls
            purse.money += money

    def remaining(self) -> tuple[int | None, int | None, float | None]:
        """Calls, tokens and money that may still be reserved, here and around; None without a limit. Negative where a call cost more
        than was thought."""
        calls, tokens, money = None, None, None
        for purse in self.ancestors:
            budget = purse.budget
            if budget.calls is not None:
                calls = _least(calls, budget.calls - purse.calls - purse.pending_calls)
            if budget.tokens is not None:
                tokens = _least(tokens, budget.tokens - purse.tokens - purse.reserved_tokens)
            if budget.money is not None:
                money = _least(money, budget.money - purse.money - purse.reserved_money)
        return calls, tokens, money

    @property
    def has_pending_calls(self) -> bool:
        """Whether calls are under way whose end may make room."""
        return self.ancestors[-1].pending_calls > 0

    def exhausted_limit(self) -> str:
        """The limit that is reached, in words."""
        for purse in self.ancestors:
            budget = purse.budget
            if budget.calls is not None and purse.calls >= budget.calls:
                return f"{purse.calls:,} of {budget.calls:,} calls are spent"
            if budget.tokens is not None and purse.tokens >= budget.tokens:
                return f"{purse.tokens:,} of {budget.tokens:,} tokens are spent"
            if budget.money is not None and purse.money >= budget.money:
                return f"{purse.money:.6g} of {budget.money:.6g} are spent"
        purse = next((purse for purse in self.ancestors if purse.budget.tokens is not None), purse)
        return f"{purse.tokens:,} of {purse.budget.tokens or 0:,} tokens are spent"


def _least(found: N | None, left: N) -> N:
    return left if found is None else min(found, left)


def has_limits(budget: Budget | None) -> bool:
    """Whether a budget limits tokens, calls or money, and so needs a purse."""
    return budget is not None and (budget.tokens is not None or budget.calls is not None or budget.money is not None)

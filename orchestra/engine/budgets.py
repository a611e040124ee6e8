"""Budget accounts: the remaining calls, tokens and money of a budget. They nest: a called workflow with its own
budget also spends from its caller's budget.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

from orchestra.workflows.model import Budget

N = TypeVar("N", int, float)
T = TypeVar("T")


class BudgetAccount(Generic[T]):
    """Tokens, calls and money of one budget: spent, and reserved for calls in flight."""

    __slots__ = (
        "ancestors",
        "budget",
        "calls",
        "money",
        "pending_calls",
        "queue",
        "reserved_money",
        "reserved_tokens",
        "tokens",
    )

    def __init__(self, budget: Budget, outer: BudgetAccount[T] | None) -> None:
        self.budget = budget
        self.ancestors: tuple[BudgetAccount[T], ...] = (self,) if outer is None else (self, *outer.ancestors)
        """This account and its ancestors. A charge goes to all of them."""
        self.tokens = self.calls = 0
        self.money = 0.0
        self.reserved_tokens = self.pending_calls = 0
        """Reserved tokens, and calls in flight."""
        self.reserved_money = 0.0
        """Reserved money."""
        self.queue: deque[T] = deque()
        """Units that wait for budget, in order."""

    def reserve(self, tokens: int, money: float = 0.0) -> None:
        """Reserves budget for a call."""
        for account in self.ancestors:
            account.reserved_tokens += tokens
            account.reserved_money += money
            account.pending_calls += 1

    def release(self, tokens: int, money: float = 0.0) -> None:
        """Releases the reservation of a call."""
        for account in self.ancestors:
            account.reserved_tokens -= tokens
            account.pending_calls -= 1
            # Floating-point sums do not return to exactly zero.
            account.reserved_money = account.reserved_money - money if account.pending_calls else 0.0

    def spend(self, tokens: int, calls: int, money: float = 0.0) -> None:
        """Charges what a call has cost."""
        for account in self.ancestors:
            account.tokens += tokens
            account.calls += calls
            account.money += money

    def remaining(self) -> tuple[int | None, int | None, float | None]:
        """Returns calls, tokens and money that can still be reserved in all accounts; None without a limit. Negative if
        a call cost more than its reservation.
        """
        calls, tokens, money = None, None, None
        for account in self.ancestors:
            budget = account.budget
            if budget.calls is not None:
                calls = _least(calls, budget.calls - account.calls - account.pending_calls)
            if budget.tokens is not None:
                tokens = _least(tokens, budget.tokens - account.tokens - account.reserved_tokens)
            if budget.money is not None:
                money = _least(money, budget.money - account.money - account.reserved_money)
        return calls, tokens, money

    @property
    def has_pending_calls(self) -> bool:
        """Whether calls are in flight whose end may free budget."""
        return self.ancestors[-1].pending_calls > 0

    def exhausted_limit(self) -> str:
        """Returns the limit that is reached, as text."""
        for account in self.ancestors:
            budget = account.budget
            if budget.calls is not None and account.calls >= budget.calls:
                return f"{account.calls:,} of {budget.calls:,} calls are spent"
            if budget.tokens is not None and account.tokens >= budget.tokens:
                return f"{account.tokens:,} of {budget.tokens:,} tokens are spent"
            if budget.money is not None and account.money >= budget.money:
                return f"{account.money:.6g} of {budget.money:.6g} are spent"
        account = next((account for account in self.ancestors if account.budget.tokens is not None), account)
        return f"{account.tokens:,} of {account.budget.tokens or 0:,} tokens are spent"


def _least(limit: N | None, remaining: N) -> N:
    return remaining if limit is None else min(limit, remaining)


def has_limits(budget: Budget | None) -> bool:
    """Whether a budget limits tokens, calls or money, and so needs an account."""
    return budget is not None and (budget.tokens is not None or budget.calls is not None or budget.money is not None)

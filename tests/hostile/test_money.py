"""Tests costs end to end: prices of the fleet file, the cost of a call, and a budget that ends the run at its limit."""

from __future__ import annotations

import pytest

from orchestra.core.events import Usage
from orchestra.fleet.config import Price
from tests.cli.shell import Shell
from tests.hostile.scene import FLEET, Setting, play

PRICED = FLEET.replace("model: m,", "model: m, price: {prompt: 1000, output: 4000},")


def test_cost_of_call_uses_prices_of_fleet_file(shell: Shell) -> None:
    played = play(shell.project, "echoing", "one two three", on=Setting(PRICED), text="x")
    (attempt,) = played.attempts
    assert attempt.usage.money == pytest.approx(
        (attempt.usage.prompt_tokens * 1000 + attempt.usage.output_tokens * 4000) / 1e6
    )
    assert attempt.usage.money > 0


@pytest.mark.parametrize(
    ("fleet", "money", "status"), [(PRICED, "0.000001", "budget"), (PRICED, "9999", "done"), (FLEET, "9999", "budget")]
)
def test_cost_budget_is_enforced(fleet: str, money: str, status: str, shell: Shell) -> None:
    played = play(shell.project, "echoing", "said", on=Setting(fleet, budget=f"money={money}"), text="x")
    assert played.status == status
    assert bool(played.requests) is (status == "done"), "the server received no request"


def test_cost_of_cached_tokens_uses_their_price() -> None:
    usage = Usage(prompt_tokens=1_000_000, cached_tokens=400_000, output_tokens=500_000)
    assert Price(prompt=2, output=8, cached=0.5).cost(usage) == pytest.approx(0.6 * 2 + 0.4 * 0.5 + 0.5 * 8)
    assert Price(prompt=2, output=8).cost(usage) == pytest.approx(2 + 4)

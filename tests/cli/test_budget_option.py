"""Parsing of budget options."""

from __future__ import annotations

import pytest

from orchestra.cli.options import parse_budget
from orchestra.core.errors import InputError


def test_limits_are_read_together_and_apart() -> None:
    budget = parse_budget(["tokens=20_000,seconds=1.5", "calls=3"])
    assert budget is not None
    assert (budget.tokens, budget.seconds, budget.calls) == (20_000, 1.5, 3)
    assert parse_budget([]) is None


@pytest.mark.parametrize(
    "text",
    ["tokens", "tokens=", "tokens=many", "tokens=0", "tokens=-1", "tokens=1.5", "token=3", "seconds=nan", "", "x=1"],
)
def test_invalid_limits_are_refused(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_budget([text])
    assert caught.value.code == "C008"


@pytest.mark.parametrize("said", ["tokens=0.5", "calls=0", "seconds=0", "money=-1"])
def test_invalid_limit_hint_names_fractional_limits(said: str) -> None:
    budget = parse_budget(["seconds=0.5,money=0.25"])
    assert budget is not None
    assert (budget.seconds, budget.money) == (0.5, 0.25)
    with pytest.raises(InputError) as caught:
        parse_budget([said])
    assert "seconds and money may have a fraction" in (caught.value.hint or "")

"""Check budget: a limited budget goes to the values with the highest doubt times influence per token."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.core.events import CheckPriority
from orchestra.verification.check_budget import CheckBudget, UpcomingValues


def stake(doubt: float, influence: float = 1.0, cost: int = 100) -> CheckPriority:
    return CheckPriority(doubt, influence, float(cost), cost)


def after(*doubts: float, limit: int = 1_000, spent: int = 0) -> CheckBudget:
    """A budget after values with these doubts, whose checks cost 100 tokens each."""
    found = CheckBudget(limit, spent=spent)
    for doubt in doubts:
        found.record(stake(doubt), first=True)
    return found


def test_budget_check_that_fits_is_admitted_without_upcoming() -> None:
    assert after().fits(stake(0.01), [])
    assert not after(spent=950).fits(stake(0.99), [])


def test_budget_low_doubt_yields_to_expected_high_doubt() -> None:
    known = after(*(number / 20 for number in range(20)), limit=1_000)
    coming = [UpcomingValues(1.0, 18)]  # checks of 2,000 tokens, of which half fit
    assert known.fits(stake(0.8), coming)
    assert not known.fits(stake(0.2), coming)


def test_budget_more_tokens_admit_more() -> None:
    coming = [UpcomingValues(1.0, 18)]
    doubts = [number / 20 for number in range(20)]
    assert [after(*doubts, limit=limit).fits(stake(0.3), coming) for limit in (600, 1_200, 1_800)] == [
        False,
        False,
        True,
    ]


def test_budget_influence_weighs_like_doubt() -> None:
    known = after(0.5, 0.5, 0.5, 0.5, limit=500)
    assert known.fits(stake(0.5, influence=1.0), [UpcomingValues(0.25, 40)])
    assert not known.fits(stake(0.5, influence=0.25), [UpcomingValues(1.0, 40)])


def test_budget_expensive_check_yields_to_cheap_ones() -> None:
    known = after(0.5, 0.5, 0.5, limit=1_000)
    coming = [UpcomingValues(1.0, 9)]
    assert known.fits(stake(0.5, cost=100), coming)
    assert not known.fits(stake(0.5, cost=400), coming)


def test_budget_equal_doubts_admits_in_order_of_arrival() -> None:
    known = after(*[0.5] * 50, limit=300)
    assert known.fits(stake(0.5), [UpcomingValues(1.0, 4)])


def test_budget_expected_tokens_follow_finished_checks() -> None:
    found = CheckBudget(1_000)
    assert found.expected_tokens(400) == 400
    found.finished_bound, found.finished_tokens = 4_000, 1_000
    assert found.expected_tokens(400) == pytest.approx(400 * 1_400 / 4_400)
    assert found.expected_tokens(0) == 0.0


@given(st.lists(st.floats(0, 1), max_size=30), st.floats(0, 1), st.floats(0, 1))
def test_probability_above_decreases_with_doubt(doubts: list[float], one: float, two: float) -> None:
    known = after(*doubts)
    low, high = sorted((one, two))
    assert 0.0 <= known.probability_above(high) <= known.probability_above(low) <= 1.0
    assert known.probability_above(1.0) == 0.0


@given(
    st.lists(st.floats(0, 1), max_size=30),
    st.floats(0, 1),
    st.integers(0, 20),
    st.integers(0, 3_000),
    st.integers(0, 1_000),
)
def test_budget_fits_is_monotone_in_tokens_and_upcoming(
    doubts: list[float], doubt: float, count: int, limit: int, more: int
) -> None:
    if after(*doubts, limit=limit).fits(stake(doubt), [UpcomingValues(1.0, count)]):
        assert after(*doubts, limit=limit + more).fits(stake(doubt), [UpcomingValues(1.0, count)])
        assert after(*doubts, limit=limit).fits(stake(doubt), [UpcomingValues(1.0, count / 2)])

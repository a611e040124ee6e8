"""The adaptive limit: its range, its decrease by overload only, once per round trip, and its growth."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.fleet.concurrency import PLATEAU, AdaptiveLimit, InFlightRequest, RequestOutcome


def batch(limit: AdaptiveLimit, outcomes: list[RequestOutcome]) -> None:
    """Sends requests together, and ends them with this outcome."""
    flights = [limit.record_sent(at + 1) for at in range(len(outcomes))]
    for flight, outcome in zip(flights, outcomes, strict=True):
        limit.record_finished(flight, outcome)


def rounds(limit: AdaptiveLimit, number: int, capacity: int = 1 << 20) -> None:
    """Simulates round trips of a saturated server that rejects requests above its capacity."""
    flights: deque[InFlightRequest] = deque()
    for _ in range(number * limit.limit):
        while len(flights) < limit.limit:
            flight = limit.record_sent(len(flights) + 1)
            if len(flights) < capacity:
                flights.append(flight)
            else:
                limit.record_finished(flight, "rejected")
                break
        limit.record_finished(flights.popleft(), "success")


@given(
    most=st.integers(1, 64),
    events=st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["success", "rejected", "ignored"]))),
)
def test_limit_stays_between_one_and_maximum(most: int, events: list[tuple[int, RequestOutcome]]) -> None:
    limit, flights = AdaptiveLimit(most), deque[InFlightRequest]()
    for sent, outcome in events:
        flights.extend(limit.record_sent(len(flights) + 1) for _ in range(sent))
        if flights:
            limit.record_finished(flights.popleft(), outcome)
        assert 1 <= limit.limit <= most


@given(most=st.integers(8, 64), rejected=st.integers(0, 64))
def test_limit_overloaded_round_decreases_once(most: int, rejected: int) -> None:
    limit, rejected = AdaptiveLimit(most), min(rejected, most)
    outcomes: list[RequestOutcome] = ["rejected"] * rejected
    batch(limit, outcomes + ["success"] * (most - rejected))
    assert limit.limit == (most if rejected <= 2 + most / 4 else int(0.7 * most))


def test_limit_rejections_before_decrease_are_ignored() -> None:
    limit = AdaptiveLimit(64)
    early = [limit.record_sent(at + 1) for at in range(64)]
    batch(limit, ["rejected"] * 40)
    lower = limit.limit
    for flight in early:
        limit.record_finished(flight, "rejected")
    assert limit.limit == lower


def test_limit_ignored_outcomes_change_nothing() -> None:
    limit = AdaptiveLimit(16)
    batch(limit, ["ignored"] * 16)
    assert limit.limit == 16


@pytest.mark.parametrize("capacity", [1, 2, 5, 12, 30, 50])
def test_limit_stays_at_known_capacity(capacity: int) -> None:
    limit = AdaptiveLimit(64)
    rounds(limit, 60, capacity)
    seen = set[int]()
    for _ in range(PLATEAU * 8):
        rounds(limit, 1, capacity)
        seen.add(limit.limit)
    assert min(seen) >= max(1, capacity - 1)
    assert max(seen) <= capacity + 8


def test_limit_recovers_soon_after_overload() -> None:
    limit = AdaptiveLimit(64)
    rounds(limit, 60, 4)
    assert limit.limit <= 8
    rounds(limit, 100)
    assert limit.limit == 64


def test_limit_not_reached_does_not_grow() -> None:
    limit = AdaptiveLimit(64)
    batch(limit, ["rejected"] * 64)
    lower = limit.limit
    for _ in range(1_000):
        limit.record_finished(limit.record_sent(1), "success")
    assert limit.limit == lower

"""The gate lets in so many and no more, by priority; the breaker leaves a failing server alone."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from orchestra.fleet.limits import Breaker, Gate
from orchestra.fleet.order import Turn


async def test_the_gate_never_lets_in_more_than_its_limit() -> None:
    gate, most = Gate(3), 0

    async def visit() -> None:
        nonlocal most
        await gate.enter()
        most = max(most, gate.inside)
        await asyncio.sleep(0)
        gate.leave(good=True, busy=False)

    await asyncio.gather(*(visit() for _ in range(20)))
    assert (most, gate.inside) == (3, 0)


async def test_who_waits_goes_in_by_priority_then_by_order() -> None:
    gate, order = Gate(1), list[str]()
    await gate.enter()

    async def visit(name: str, priority: int) -> None:
        await gate.enter(Turn(priority=priority))
        order.append(name)
        gate.leave(good=True, busy=False)

    tasks = [asyncio.create_task(visit(name, priority)) for name, priority in (("late", 5), ("first", -1), ("later", 5))]
    await asyncio.sleep(0)
    gate.leave(good=True, busy=False)
    await asyncio.gather(*tasks)
    assert order == ["first", "late", "later"]


async def test_a_cancelled_visitor_leaves_no_hole() -> None:
    gate = Gate(1)
    await gate.enter()
    waiting = asyncio.create_task(gate.enter())
    next_one = asyncio.create_task(gate.enter(Turn(priority=1)))
    await asyncio.sleep(0)
    waiting.cancel()
    gate.leave(good=True, busy=False)
    await asyncio.wait_for(next_one, 1)
    assert gate.inside == 1


async def test_a_visitor_cancelled_in_the_moment_of_entry_gives_its_place_back() -> None:
    gate = Gate(1)
    await gate.enter()
    waiting = asyncio.create_task(gate.enter())
    await asyncio.sleep(0)
    gate.leave(good=True, busy=False)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert gate.inside == 0


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=60))
def test_the_limit_stays_between_one_and_the_most(events: list[tuple[bool, bool]]) -> None:
    gate = Gate(8)
    for good, busy in events:
        gate.inside += 1
        gate.leave(good=good, busy=busy)
        assert 1 <= gate.limit <= 8


def test_the_limit_halves_when_busy_and_grows_by_one_a_round() -> None:
    gate = Gate(8)
    gate.inside = 9
    gate.leave(good=False, busy=True)
    assert gate.limit == 4
    for _ in range(4):
        gate.leave(good=True, busy=False)
    assert 4.9 < gate.limit <= 5


def test_the_breaker_opens_after_failures_in_a_row_and_lets_one_through_after_its_pause() -> None:
    breaker = Breaker(threshold=3, first=2)
    for _ in range(3):
        assert breaker.wait(0) == 0
        breaker.bad(0)
    assert breaker.wait(0.5) == 1.5
    assert breaker.wait(2) == 0
    assert breaker.wait(2) > 0, "one at a time"
    breaker.good()
    assert breaker.wait(2) == 0


def test_pauses_double_while_the_server_stays_away() -> None:
    breaker, now, pauses = Breaker(threshold=1, first=1, longest=5), 0.0, []
    for _ in range(5):
        assert breaker.wait(now) == 0
        breaker.bad(now)
        pauses.append(breaker.wait(now))
        now += pauses[-1]
    assert pauses == [1, 2, 4, 5, 5]


def test_what_was_under_way_when_the_breaker_opened_makes_no_pause_longer() -> None:
    breaker = Breaker(threshold=5, first=1)
    for _ in range(16):
        breaker.bad(0, trial=False)
    assert breaker.wait(0) == 1
    assert breaker.wait(1) == 0
    breaker.bad(1, trial=False)
    assert breaker.state == "half-open", "one of those that were under way, and not the trial"
    breaker.bad(1)
    assert breaker.wait(1) == 2


def test_a_cancelled_trial_lets_the_next_one_try() -> None:
    breaker = Breaker(threshold=1, first=1)
    breaker.bad(0)
    assert breaker.wait(1) == 0
    breaker.nothing()
    assert breaker.wait(1) == 0

"""The concurrency gate with its limit and priorities, and the circuit breaker."""

from __future__ import annotations

import asyncio

from orchestra.fleet.concurrency import AdaptiveLimit, CircuitBreaker, ConcurrencyGate
from orchestra.fleet.scheduling import QueueRequest


async def test_gate_never_exceeds_limit() -> None:
    gate, most = ConcurrencyGate(AdaptiveLimit(3)), 0

    async def visit() -> None:
        nonlocal most
        permit = await gate.enter()
        most = max(most, gate.in_flight)
        await asyncio.sleep(0)
        gate.leave(permit, "success")

    await asyncio.gather(*(visit() for _ in range(20)))
    assert (most, gate.in_flight) == (3, 0)


async def test_gate_admits_by_priority_then_order() -> None:
    gate, order = ConcurrencyGate(AdaptiveLimit(1)), list[str]()
    first = await gate.enter()

    async def visit(name: str, priority: int) -> None:
        permit = await gate.enter(QueueRequest(priority=priority))
        order.append(name)
        gate.leave(permit, "success")

    tasks = [
        asyncio.create_task(visit(name, priority)) for name, priority in (("late", 5), ("first", -1), ("later", 5))
    ]
    await asyncio.sleep(0)
    gate.leave(first, "success")
    await asyncio.gather(*tasks)
    assert order == ["first", "late", "later"]


async def test_gate_cancelled_waiter_is_skipped() -> None:
    gate = ConcurrencyGate(AdaptiveLimit(1))
    first = await gate.enter()
    waiting = asyncio.create_task(gate.enter())
    next_one = asyncio.create_task(gate.enter(QueueRequest(priority=1)))
    await asyncio.sleep(0)
    waiting.cancel()
    gate.leave(first, "success")
    await asyncio.wait_for(next_one, 60)
    assert gate.in_flight == 1


async def test_gate_cancelled_at_entry_returns_permit() -> None:
    gate = ConcurrencyGate(AdaptiveLimit(1))
    first = await gate.enter()
    waiting = asyncio.create_task(gate.enter())
    await asyncio.sleep(0)
    gate.leave(first, "success")
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert gate.in_flight == 0


async def test_gate_paused_admits_none_until_resumed() -> None:
    gate = ConcurrencyGate(AdaptiveLimit(2))
    gate.pause()
    assert gate.try_enter() is None
    waiting = [asyncio.create_task(gate.enter()) for _ in range(3)]
    await asyncio.sleep(0)
    assert gate.in_flight == 0
    gate.resume()
    await asyncio.sleep(0)
    assert [task.done() for task in waiting] == [True, True, False]
    gate.leave(await waiting[0], "success")
    await asyncio.wait_for(waiting[2], 60)


def test_breaker_opens_then_admits_one_trial() -> None:
    breaker = CircuitBreaker(threshold=3, initial_pause=2)
    for _ in range(3):
        assert breaker.acquire(0) == 0
        breaker.record_failure(0)
    assert breaker.acquire(0.5) == 1.5
    assert breaker.acquire(2) == 0
    assert breaker.acquire(2) > 0, "one at a time"
    breaker.record_success()
    assert breaker.acquire(2) == 0


def test_breaker_failed_trials_double_pause() -> None:
    breaker, now, pauses = CircuitBreaker(threshold=1, initial_pause=1, max_pause=5), 0.0, []
    for _ in range(5):
        assert breaker.acquire(now) == 0
        breaker.record_failure(now)
        pauses.append(breaker.acquire(now))
        now += pauses[-1]
    assert pauses == [1, 2, 4, 5, 5]


def test_breaker_late_failures_keep_pause() -> None:
    breaker = CircuitBreaker(threshold=5, initial_pause=1)
    for _ in range(16):
        breaker.record_failure(0, trial=False)
    assert breaker.acquire(0) == 1
    assert breaker.acquire(1) == 0
    breaker.record_failure(1, trial=False)
    assert breaker.state == "half-open", "one of those that were under way, and not the trial"
    breaker.record_failure(1)
    assert breaker.acquire(1) == 2


def test_breaker_trial_without_result_allows_next_later() -> None:
    breaker, now, trials = CircuitBreaker(threshold=1, initial_pause=1, max_pause=5), 0.0, list[float]()
    breaker.record_failure(now)
    while len(trials) < 6:
        if (pause := breaker.acquire(now)) == 0:
            trials.append(now)
        now += pause
    assert trials == [1, 2, 4, 8, 13, 18]
    breaker.record_success()
    assert [breaker.acquire(now), breaker.acquire(now)] == [0, 0]


def test_breaker_remaining_pause_takes_no_permission() -> None:
    breaker = CircuitBreaker(threshold=1, initial_pause=1)
    breaker.record_failure(0)
    assert [breaker.remaining_pause(0.25), breaker.remaining_pause(1), breaker.remaining_pause(1)] == [0.75, 0, 0]
    assert breaker.acquire(1) == 0
    assert breaker.remaining_pause(1) > 0, "one at a time"


def test_breaker_cancelled_trial_allows_next() -> None:
    breaker = CircuitBreaker(threshold=1, initial_pause=1)
    breaker.record_failure(0)
    assert breaker.acquire(1) == 0
    breaker.record_ignored()
    assert breaker.acquire(1) == 0

"""Memory for servers on demand: the decision, and the order of admissions."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.fleet.memory import AvailableMemory
from orchestra.fleet.supervisor.memory_budget import Decision, Holder, MemoryBudget, Need, decide

NEED = Need(minimum=4, expected=6)
LEAST_IDLE = 5.0


def idle(name: str, size: int, seconds: float = 10.0) -> Holder:
    return Holder(name, size, 0, seconds)


def busy(name: str, size: int) -> Holder:
    return Holder(name, size, 0, None)


@pytest.mark.parametrize(
    ("limit", "free", "holders", "decision"),
    [
        (None, None, [], Decision(fits=True)),
        (6, 4, [], Decision(fits=True)),
        (5, 99, [], Decision(hopeless=True)),
        (99, 3, [], Decision(hopeless=True)),
        (16, 99, [busy("a", 10)], Decision(fits=True)),
        (15, 99, [busy("a", 10)], Decision()),
        (15, 99, [idle("a", 10)], Decision(stop="a")),
        (15, 99, [idle("a", 10, LEAST_IDLE - 0.1)], Decision()),
        (15, 99, [idle("a", 5, 6), idle("b", 5, 9)], Decision(stop="b")),
        (9, 99, [idle("a", 5, 9), busy("b", 5)], Decision()),
        (14, 99, [idle("a", 5, 9), busy("b", 8)], Decision(stop="a")),
        (None, 1, [idle("a", 3)], Decision(stop="a")),
        (None, 1, [idle("a", 2)], Decision(hopeless=True)),
        (None, 0, [Holder("a", 5, 2, None)], Decision(hopeless=True)),
        (None, 5, [Holder("a", 6, 2, None)], Decision()),
        (None, 6, [Holder("a", 6, 2, None)], Decision(fits=True)),
    ],
)
def test_decide_stops_longest_idle_server_only(
    limit: int | None, free: int | None, holders: list[Holder], decision: Decision
) -> None:
    assert decide(NEED, limit, free, holders, LEAST_IDLE) == decision


HOLDERS = st.lists(
    st.builds(Holder, st.uuids().map(str), st.integers(1, 20), st.just(0), st.none() | st.floats(0, 60)), max_size=5
)


@given(st.integers(1, 40), st.integers(0, 40), HOLDERS)
def test_decide_never_stops_server_with_requests(limit: int, free: int, holders: list[Holder]) -> None:
    kept = list(holders)
    while (decision := decide(NEED, limit, free, kept, LEAST_IDLE)).stop:
        (stopped,) = (holder for holder in kept if holder.name == decision.stop)
        assert stopped.idle is not None
        assert stopped.idle >= LEAST_IDLE
        kept.remove(stopped)
        free += stopped.bytes
    if decision.fits:
        assert NEED.expected + sum(holder.bytes for holder in kept) <= limit
    else:
        assert kept == holders, "no server was stopped in vain"


class Room:
    """A server of the budget. `release` ends it unless it has requests."""

    def __init__(self, name: str, size: int, idle: float | None = None) -> None:
        self.name, self.size, self.idle = name, size, idle
        self.released = 0

    def need(self) -> Need:
        return Need(1, self.size)

    def holder(self) -> Holder | None:
        return Holder(self.name, self.size, 0, self.idle) if self.size and self.idle is not None else None

    async def release(self) -> None:
        self.released += 1
        self.idle = None


class StoppingRoom(Room):
    """A server that takes time to end."""

    def __init__(self, name: str, size: int, idle: float) -> None:
        super().__init__(name, size, idle)
        self.stopping, self.ended = asyncio.Event(), asyncio.Event()

    async def release(self) -> None:
        self.stopping.set()
        await self.ended.wait()
        await super().release()


async def admitted(budget: MemoryBudget, name: str, pauses: int = 3) -> tuple[list[int], str, list[str]]:
    """Returns the reserved bytes, the error, and the reasons of the waits."""
    reserved, reasons = list[int](), list[str]()

    async def pause(reason: str) -> bool:
        reasons.append(reason)
        await asyncio.sleep(0)
        return len(reasons) < pauses

    error = await budget.admit(name, reserved.append, lambda: True, pause)
    return reserved, "" if error is None else f"{error.code}: {error.message}", reasons


def budget_of(*rooms: Room, limit: int = 10 * 10**9, wait: float = 60.0) -> MemoryBudget:
    budget = MemoryBudget(limit, lambda: AvailableMemory(99 * 10**9, "the memory of the machine"), wait, LEAST_IDLE)
    budget.tenants.update({room.name: room for room in rooms})
    return budget


async def test_admit_waits_until_idle_server_has_ended() -> None:
    first = Room("first", 6 * 10**9, 30.0)
    assert await admitted(budget_of(first, Room("second", 6 * 10**9)), "second") == (
        [6 * 10**9],
        "",
        ["waiting for memory that first has"],
    )
    assert first.released == 1


async def test_admit_keeps_released_memory_for_the_first_start() -> None:
    first = StoppingRoom("first", 6 * 10**9, 30.0)
    budget = budget_of(first, Room("second", 6 * 10**9), Room("third", 10**9))
    second = asyncio.create_task(admitted(budget, "second"))
    await first.stopping.wait()
    async with asyncio.timeout(60):
        assert await admitted(budget, "third") == ([], "", ["waiting for the start of another server"] * 3)
    first.ended.set()
    assert (await second)[:2] == ([6 * 10**9], "")
    assert (await admitted(budget, "third"))[0] == [10**9]


async def test_admit_counts_the_memory_of_other_servers_only() -> None:
    assert (await admitted(budget_of(Room("first", 6 * 10**9, 1.0)), "first"))[:2] == ([6 * 10**9], "")


async def test_admit_without_memory_names_the_holders() -> None:
    rooms = Room("first", 6 * 10**9, 1.0), Room("second", 6 * 10**9)
    reserved, error, reasons = await admitted(budget_of(*rooms, wait=0.0), "second")
    assert (reserved, reasons, rooms[0].released) == ([], [], 0)
    assert error == (
        "F226: there is no memory to start second: it needs 6.0 GB, `memory:` of the fleet file is 10.0 GB and 99.0 GB "
        "are available (the memory of the machine); the running servers hold first 6.0 GB (idle for 1 s)"
    )


async def test_admit_larger_than_budget_fails_at_once() -> None:
    first = Room("first", 6 * 10**9, 30.0)
    _, error, reasons = await admitted(budget_of(first, Room("second", 11 * 10**9)), "second")
    assert error.startswith("F226: there is no memory to start second: it needs 11.0 GB")
    assert (reasons, first.released) == ([], 0)


async def test_admit_ended_start_reserves_nothing() -> None:
    assert (await admitted(budget_of(Room("first", 6 * 10**9, 1.0), Room("second", 6 * 10**9)), "second"))[:2] == (
        [],
        "",
    )

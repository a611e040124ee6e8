"""Virtual time: an event loop without waiting, with a seeded order of events.

Test a workflow's timeouts, retries and races without waiting:

    def test_my_workflow() -> None:
        async def scenario(clock: VirtualClock) -> str:
            await clock.sleep(3600)          # at once
            return clock.new_id()

        for seed in range(100):
            run_simulated(scenario, seed=seed)

The same seed gives the same run, to the last event. Such a loop has no sockets, files or threads. Code that needs them
is behind a protocol (`SimulatedWorkers`, `MemoryJournal`).
"""

from __future__ import annotations

import asyncio
from asyncio import base_events
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from random import Random
from typing import Any, TypeVar, TypeVarTuple

from orchestra.core.clock import RunIdGenerator

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

EPOCH = 1_767_225_600.0
"""Wall-clock time at the start of every simulation: 2026-01-01T00:00:00Z."""
HOLD_BACK_SHARES = (0.1, 0.5, 0.9)
"""Shares of the ready callbacks that wait for one more turn of the loop, so that long and short tasks overtake each
other. A seed uses one share: some seeds are nearly fair, some let one task run far ahead.
"""


class Deadlock(RuntimeError):
    """Every task waits for another: nothing is ready and no timer is set."""


class TaskLeak(RuntimeError):
    """The simulated function ended and left tasks running."""


class _VirtualSelector:
    """Replaces a loop's selector: instead of waiting for sockets, it advances time to the next timer."""

    def __init__(self) -> None:
        self.now = 0.0

    def select(self, timeout: float | None) -> list[object]:
        """Advances the time by `timeout`. Raises `Deadlock` if there is no timer."""
        if timeout is None:
            raise Deadlock("nothing is ready and no timer is set: every task waits for another one")
        self.now += max(0.0, timeout)
        return []


class VirtualLoop(base_events.BaseEventLoop):
    """An asyncio loop with virtual time and a seeded order of ready callbacks.

    It uses two internal names of CPython's `BaseEventLoop` (`_selector`, `_ready`), which are the same from 3.11 to
    3.14.
    """

    _ready: deque[asyncio.Handle]

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self._selector = _VirtualSelector()
        self._order = Random(seed)  # noqa: S311  # chance that can be repeated is the point
        self._hold_back = self._order.choice(HOLD_BACK_SHARES)
        self._clock_resolution = 1e-9

    def time(self) -> float:
        """Returns the virtual seconds since the loop was created."""
        return self._selector.now

    def _run_once(self) -> None:
        ready = self._ready
        handles: list[asyncio.Handle] = []
        if (count := len(ready)) > 1:
            shuffled_handles = list(ready)
            self._order.shuffle(shuffled_handles)
            keep = self._order.randint(1, count) if self._order.random() < self._hold_back else count
            handles = shuffled_handles[keep:]
            ready.clear()
            ready.extend(shuffled_handles[:keep])
        super()._run_once()  # type: ignore[misc]  # an inner method, which typeshed does not list
        ready.extend(handles)

    def _process_events(self, event_list: list[object]) -> None:
        """Does nothing: there are no sockets."""

    def _write_to_self(self) -> None:
        """Does nothing: it wakes the loop for other threads, and there are none."""

    def run_in_executor(self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        """Raises an error: a thread would run in real time, so the order of events would not be reproducible."""
        raise RuntimeError("no threads in virtual time: put blocking code behind a protocol and simulate the protocol")


class VirtualClock:
    """An implementation of `Clock` for simulations, with the loop's time, and seeded random numbers and ids."""

    def __init__(self, loop: asyncio.AbstractEventLoop, seed: int = 0) -> None:
        self._loop = loop
        self._random = Random(seed)  # noqa: S311  # chance that can be repeated is the point
        self._ids = RunIdGenerator(self._random.getrandbits)
        self._offset = EPOCH

    def now(self) -> float:
        """Returns wall-clock seconds since the epoch. `jump` changes them."""
        return self._offset + self._loop.time()

    def monotonic(self) -> float:
        """Returns virtual seconds, which never jump."""
        return self._loop.time()

    async def sleep(self, seconds: float) -> None:
        """Advances virtual time. Zero yields once."""
        await asyncio.sleep(seconds)

    async def run_in_thread(self, task: Callable[[], T]) -> T:
        """Runs a pure function here. It takes no virtual time, and other tasks run first."""
        await asyncio.sleep(0)
        return task()

    def random(self) -> float:
        """Returns the next number in [0, 1) of this seed."""
        return self._random.random()

    def new_id(self) -> str:
        """Returns the next id of this seed."""
        return self._ids.new(self.now())

    def jump(self, seconds: float) -> None:
        """Sets the wall clock forward or back, like an administrator or NTP.

        It does not affect sleeps and `monotonic`.
        """
        self._offset += seconds


def run_simulated(main: Callable[[VirtualClock], Coroutine[Any, Any, T]], seed: int = 0) -> T:
    """Runs `main(clock)` in virtual time with this seed's order of events, and returns its result.

    An exception of `main` gets a note that says how to repeat the run.

    Raises:
        Deadlock: Every task waits for another.
        TaskLeak: `main` returned and left tasks running.
    """
    loop = VirtualLoop(seed)
    try:
        result = loop.run_until_complete(main(VirtualClock(loop, seed)))
        unfinished_tasks = loop.run_until_complete(_unfinished_tasks())
        if unfinished_tasks:
            raise TaskLeak(f"{len(unfinished_tasks)} tasks were left running: " + ", ".join(sorted(unfinished_tasks)))
    except BaseException as error:
        error.add_note(f"reproduce: run_simulated({getattr(main, '__qualname__', main)}, seed={seed})")
        raise
    finally:
        _close_loop(loop)
    return result


def _other_tasks() -> set[asyncio.Task[Any]]:
    return {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}


async def _unfinished_tasks() -> list[str]:
    """Returns the names of tasks that do not end within a few turns of the loop."""
    for _ in range(32):
        if not _other_tasks():
            return []
        await asyncio.sleep(0)
    return [f"{task.get_name()} ({getattr(task.get_coro(), '__qualname__', '?')})" for task in _other_tasks()]


def _close_loop(loop: VirtualLoop) -> None:
    try:
        if tasks := asyncio.all_tasks(loop):
            for task in tasks:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()

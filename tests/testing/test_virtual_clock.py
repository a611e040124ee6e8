"""Virtual time and the system clock."""

from __future__ import annotations

import asyncio
import time

import pytest

from orchestra.core.clock import ALPHABET, RunIdGenerator, SystemClock
from orchestra.testing import Deadlock, TaskLeak, VirtualClock, run_simulated
from tests.unsafe_reference import assert_cost


def test_virtual_time_day_passes_at_once() -> None:
    async def scene(clock: VirtualClock) -> tuple[float, float]:
        before, wall = clock.monotonic(), clock.now()
        await clock.sleep(86_400)
        return clock.monotonic() - before, clock.now() - wall

    assert run_simulated(scene) == (86_400, 86_400)
    assert_cost(lambda: run_simulated(scene), at_most=100)


async def racing(clock: VirtualClock) -> tuple[str, ...]:
    order: list[str] = []

    async def walk(name: str, steps: int) -> None:
        for _ in range(steps):
            await clock.sleep(0)
        order.append(name)

    async with asyncio.TaskGroup() as group:
        for name, steps in (("a", 0), ("b", 1), ("c", 2), ("d", 3)):
            group.create_task(walk(name, steps))
    return tuple(order)


def test_virtual_loop_seed_decides_order() -> None:
    assert [run_simulated(racing, seed) for seed in range(20)] == [run_simulated(racing, seed) for seed in range(20)]
    orders = {run_simulated(racing, seed) for seed in range(300)}
    assert len(orders) >= 10
    assert any(order.index("c") < order.index("a") for order in orders), "a long way never overtook a short one"


def test_virtual_loop_timers_keep_order() -> None:
    async def scene(clock: VirtualClock) -> list[float]:
        rung: list[float] = []

        async def ring(after: float) -> None:
            await clock.sleep(after)
            rung.append(after)

        async with asyncio.TaskGroup() as group:
            for after in (3.0, 1.0, 1e-6, 2.0):
                group.create_task(ring(after))
        return rung

    assert {tuple(run_simulated(scene, seed)) for seed in range(30)} == {(1e-6, 1.0, 2.0, 3.0)}


def test_virtual_time_timeouts_work() -> None:
    async def scene(clock: VirtualClock) -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(30):
                await clock.sleep(3600)
        return clock.monotonic()

    assert run_simulated(scene) == 30


def test_virtual_loop_deadlock_reports_seed() -> None:
    async def scene(clock: VirtualClock) -> None:
        await asyncio.Event().wait()

    with pytest.raises(Deadlock) as caught:
        run_simulated(scene, seed=41)
    assert "seed=41" in caught.value.__notes__[0]


def test_virtual_loop_task_leak_is_reported() -> None:
    async def scene(clock: VirtualClock) -> None:
        scene.task = asyncio.create_task(clock.sleep(5), name="forgotten")  # type: ignore[attr-defined]  # keeps it alive

    with pytest.raises(TaskLeak, match="forgotten"):
        run_simulated(scene)


def test_virtual_loop_ending_tasks_are_no_leak() -> None:
    async def scene(clock: VirtualClock) -> asyncio.Task[None]:
        task = asyncio.create_task(clock.sleep(5))
        await clock.sleep(0)
        task.cancel()
        return task

    assert run_simulated(scene).cancelled()


def test_virtual_loop_threads_are_refused() -> None:
    async def scene(clock: VirtualClock) -> None:
        await asyncio.to_thread(print)

    with pytest.raises(RuntimeError, match="no threads in virtual time"):
        run_simulated(scene)


def test_virtual_clock_jump_keeps_sleeps() -> None:
    async def scene(clock: VirtualClock) -> tuple[float, float]:
        wall, before = clock.now(), clock.monotonic()
        clock.jump(-500)
        await clock.sleep(10)
        return clock.now() - wall, clock.monotonic() - before

    assert run_simulated(scene) == (-490, 10)


def test_virtual_clock_random_and_ids_follow_seed() -> None:
    async def scene(clock: VirtualClock) -> tuple[float, str]:
        return clock.random(), clock.new_id()

    assert run_simulated(scene, 1) == run_simulated(scene, 1) != run_simulated(scene, 2)


def test_clock_ids_increase_even_if_time_does_not() -> None:
    ids = RunIdGenerator(lambda bits: 0)
    made = [ids.new(now) for now in (1.0, 1.0, 2.0, 1.5, 2.001)]
    assert made == sorted(set(made))
    assert all(len(one) == 20 and set(one) <= set(ALPHABET) for one in made)


async def test_system_clock_uses_system_time() -> None:
    clock = SystemClock()
    wall, before = clock.now(), clock.monotonic()
    await clock.sleep(0)
    assert abs(wall - time.time()) < 60
    assert clock.monotonic() >= before
    assert 0 <= clock.random() < 1
    made = [clock.new_id() for _ in range(100)]
    assert made == sorted(set(made))

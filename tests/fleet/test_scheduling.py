"""The queue of a server: runs one after the other, shared prompts together, and no starvation."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.fleet.concurrency import AdaptiveLimit, ConcurrencyGate
from orchestra.fleet.prefix_cache import BLOCK_TOKENS
from orchestra.fleet.scheduling import (
    CACHE_SHARE,
    MAX_PASSES,
    MAX_RUNS,
    MIN_CONCURRENT,
    FifoScheduler,
    ProgramScheduler,
    QueueRequest,
    Scheduler,
    Ticket,
    make_scheduler,
)

from .batching import Ask, Program, run

CACHE = 40
"""Cache blocks of the servers of these tests."""
IN_USE = CACHE // CACHE_SHARE


def programs() -> ProgramScheduler:
    line = ProgramScheduler()
    line.set_cache_size(CACHE * BLOCK_TOKENS)
    return line


def doc(name: int, blocks: int = 8) -> tuple[int, ...]:
    return tuple(1000 * name + block for block in range(blocks))


def busy(line: ProgramScheduler) -> list[QueueRequest]:
    """Admits requests of one run with a document. Any other document exceeds the cache."""
    turns = [QueueRequest("a", prefix=doc(1))] * MIN_CONCURRENT
    assert all(line.try_enter(turn) for turn in turns)
    return turns


def drained(line: Scheduler) -> list[str]:
    """Returns the runs of the queue in order; each request ends before the next is admitted."""
    found = []
    while (ticket := line.dequeue()) is not None:
        found.append(ticket.request.run)
        line.finish(ticket.request)
    return found


def test_fifo_orders_by_priority_then_arrival() -> None:
    line = FifoScheduler()
    for name, priority in (("a", 1), ("b", 0), ("c", 1)):
        line.enqueue(QueueRequest(name, priority))
    assert (line.waiting, drained(line), line.waiting) == (3, ["b", "a", "c"], 0)


def test_programs_runs_go_one_after_the_other() -> None:
    line = programs()
    for _ in range(3):
        for name in "abc":
            line.enqueue(QueueRequest(name))
    assert drained(line) == ["a", "a", "a", "b", "b", "b", "c", "c", "c"]


def test_programs_started_run_goes_first() -> None:
    line = programs()
    assert line.try_enter(QueueRequest("a"))
    for name in ("b", "c", "a"):
        line.enqueue(QueueRequest(name))
    assert drained(line) == ["a", "b", "c"]


def test_programs_priority_within_run() -> None:
    line = programs()
    for priority in (2, 0, 1):
        line.enqueue(QueueRequest("a", priority))
    order = [ticket.request.priority for _ in range(3) if (ticket := line.dequeue()) is not None]
    assert order == [0, 1, 2]


def test_programs_request_without_run_goes_first() -> None:
    line = programs()
    for name in ("a", "", "b", ""):
        line.enqueue(QueueRequest(name))
    assert drained(line) == ["", "", "a", "b"]


def test_programs_cached_prompt_goes_before_older_run() -> None:
    line = programs()
    assert line.try_enter(QueueRequest("a", prefix=doc(1)))
    line.enqueue(QueueRequest("b", prefix=doc(2)))
    line.enqueue(QueueRequest("c", prefix=doc(1)))
    line.finish(QueueRequest("a", prefix=doc(1)))
    assert drained(line) == ["c", "b"]


def test_programs_evicting_prompts_wait_shared_do_not() -> None:
    line = programs()
    inside = busy(line)
    assert not line.try_enter(QueueRequest("b", prefix=doc(2))), f"{IN_USE} blocks may be in use, and 16 would be"
    line.enqueue(QueueRequest("b", prefix=doc(2)))
    line.enqueue(QueueRequest("c", prefix=doc(1)))
    ticket = line.dequeue()
    assert ticket is not None
    assert ticket.request.run == "c"
    assert line.dequeue() is None
    line.finish(inside.pop())
    assert line.dequeue() is None, "the others still have the document"
    line.finish(inside.pop())
    assert line.dequeue() is not None, "so few are left that one more is no harm"


def test_programs_min_concurrency_within_cache() -> None:
    line = programs()
    assert [line.try_enter(QueueRequest(str(name), prefix=doc(name, 15))) for name in range(3)] == [True, True, False]


def test_programs_prompt_above_cache_goes_alone() -> None:
    line = programs()
    assert line.try_enter(QueueRequest("a", prefix=doc(1, 2 * CACHE)))


def test_programs_unknown_cache_size_holds_nothing() -> None:
    line = ProgramScheduler()
    assert all(line.try_enter(QueueRequest(str(name), prefix=doc(name, 100))) for name in range(50))


def test_programs_large_run_does_not_block_small_ones() -> None:
    line = programs()
    for _ in range(4 * IN_USE):
        line.enqueue(QueueRequest("large"))
    for _ in range(IN_USE + 1):
        assert line.dequeue() is not None
    for name in ("small", "smaller"):
        line.enqueue(QueueRequest(name))
    assert drained(line)[:2] == ["small", "smaller"]


def test_programs_oldest_run_passed_limited_times() -> None:
    line = programs()
    assert line.try_enter(QueueRequest("a", prefix=doc(1)))
    line.enqueue(QueueRequest("cold", prefix=doc(2)))
    for name in range(3 * MAX_PASSES):
        line.enqueue(QueueRequest(f"warm {name}", prefix=doc(1)))
    line.finish(QueueRequest("a", prefix=doc(1)))
    assert drained(line).index("cold") == MAX_PASSES


def test_programs_oldest_run_is_awaited_finally() -> None:
    line = programs()
    inside = busy(line)
    line.enqueue(QueueRequest("cold", prefix=doc(2)))
    for name in range(2 * MAX_PASSES):
        line.enqueue(QueueRequest(f"warm {name}", prefix=doc(1)))
    while (ticket := line.dequeue()) is not None:
        inside.append(ticket.request)
    assert len(inside) == MIN_CONCURRENT + MAX_PASSES, "the server empties until the cold prompt fits"
    while (found := line.dequeue()) is None:
        line.finish(inside.pop())
    assert (found.request.run, len(inside)) == ("cold", MIN_CONCURRENT - 1)


def test_programs_cancelled_ticket_is_skipped() -> None:
    line = programs()
    tickets = [line.enqueue(QueueRequest(name)) for name in "aabbc"]
    for index in (0, 2, 3):
        line.cancel(tickets[index])
    assert (line.waiting, drained(line), line.waiting) == (2, ["a", "c"], 0)


def test_programs_old_runs_are_forgotten() -> None:
    line = ProgramScheduler()
    for name in range(2 * MAX_RUNS):
        assert line.try_enter(QueueRequest(str(name)))
        line.finish(QueueRequest(str(name)))
    assert len(line._runs) == MAX_RUNS


Step = st.tuples(
    st.sampled_from(["join", "enter", "next", "over", "withdraw"]),
    st.integers(0, 5),
    st.integers(0, 3),
    st.integers(0, 12),
)


@given(st.sampled_from(["programs", "fifo"]), st.lists(Step, max_size=120))
def test_programs_each_admitted_once_without_idling(kind: str, steps: list[tuple[str, int, int, int]]) -> None:
    line = make_scheduler("programs" if kind == "programs" else "fifo")
    line.set_cache_size(CACHE * BLOCK_TOKENS)
    waiting, inside, passed = list[Ticket](), list[QueueRequest](), 0

    def called() -> None:
        ticket = line.dequeue()
        if ticket is None:
            assert not waiting or inside
            return
        waiting.remove(ticket)
        inside.append(ticket.request)

    for what, name, document, blocks in steps:
        turn = QueueRequest(f"run {name}" if name else "", prefix=doc(document, blocks))
        match what:
            case "join":
                waiting.append(line.enqueue(turn))
            case "enter":
                inside += [turn] if line.try_enter(turn) else []
            case "next":
                called()
            case "over" if inside:
                line.finish(inside.pop(name % len(inside)))
            case "withdraw" if waiting:
                line.cancel(waiting.pop(name % len(waiting)))
        assert line.waiting == len(waiting)
    while waiting:
        called()
        if inside:
            line.finish(inside.pop())
        passed += 1
        assert passed <= 400, "each turn lets somebody in, or somebody out"
    assert line.dequeue() is None


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3), st.integers(0, 12)), min_size=1, max_size=60),
    st.integers(1, 8),
)
def test_programs_cache_share_is_respected(asked: list[tuple[int, int, int]], limit: int) -> None:
    line, inside = programs(), list[QueueRequest]()
    for name, document, blocks in asked:
        line.enqueue(QueueRequest(f"run {name}", prefix=doc(document, blocks)))
    while line.waiting:
        while len(inside) < limit and (ticket := line.dequeue()) is not None:
            before = line.prefix_cache.used_blocks
            inside.append(ticket.request)
            used = len({mark for turn in inside for mark in turn.prefix})
            assert used == line.prefix_cache.used_blocks
            assert used == before or len(inside) == 1 or used <= (IN_USE if len(inside) > MIN_CONCURRENT else CACHE)
        line.finish(inside.pop(0))


async def test_gate_shared_prompt_is_admitted_while_others_wait() -> None:
    gate = ConcurrencyGate(AdaptiveLimit(8), programs())
    inside = [await gate.enter(QueueRequest("a", prefix=doc(1))) for _ in range(MIN_CONCURRENT)]
    cold = asyncio.create_task(gate.enter(QueueRequest("b", prefix=doc(2))))
    await asyncio.sleep(0)
    warm = await asyncio.wait_for(gate.enter(QueueRequest("c", prefix=doc(1))), 60)
    assert (gate.in_flight, gate.waiting, cold.done()) == (MIN_CONCURRENT + 1, 1, False)
    for permit in (inside[0], warm):
        gate.leave(permit, "success")
    await asyncio.wait_for(cold, 60)


async def test_gate_cancelled_awaited_request_admits_others() -> None:
    gate = ConcurrencyGate(AdaptiveLimit(4 * MAX_PASSES), programs())
    for _ in range(MIN_CONCURRENT):
        await gate.enter(QueueRequest("a", prefix=doc(1)))
    cold = asyncio.create_task(gate.enter(QueueRequest("b", prefix=doc(2))))
    await asyncio.sleep(0)
    for name in range(MAX_PASSES):
        await gate.enter(QueueRequest(f"warm {name}", prefix=doc(1)))
    held = asyncio.create_task(gate.enter(QueueRequest("c", prefix=doc(1))))
    await asyncio.sleep(0)
    assert not held.done()
    cold.cancel()
    await asyncio.wait_for(held, 60)
    assert (gate.in_flight, gate.waiting) == (MIN_CONCURRENT + MAX_PASSES + 1, 0)


async def test_gate_request_cancelled_before_admission_takes_no_slot() -> None:
    gate = ConcurrencyGate(AdaptiveLimit(1), programs())
    inside = await gate.enter(QueueRequest("a"))
    gone = asyncio.create_task(gate.enter(QueueRequest("b")))
    other = asyncio.create_task(gate.enter(QueueRequest("c")))
    await asyncio.sleep(0)
    gone.cancel()
    gate.leave(inside, "success")  # before the task of the cancelled request runs
    await asyncio.wait_for(other, 60)
    assert (gate.in_flight, gate.waiting) == (1, 0)


def workload(kind: str, runs: int, *, seed: int = 1, apart: float = 0.0) -> list[Program]:
    """Typical programs: long documents that are used repeatedly, documents that many programs use, or short prompts."""
    chance, found, at = random.Random(seed), list[Program](), 0.0
    for number in range(runs):
        at += chance.expovariate(1 / apart) if apart else 0.0
        document = doc(number if kind != "one" else chance.randrange(runs // 4), chance.randint(14, 20))

        def ask(prefix: tuple[int, ...] = (), tokens: int = 60, most: int = 40) -> Ask:
            return Ask(prefix, len(prefix) * BLOCK_TOKENS + tokens, chance.randint(most // 4, most))

        join, stages = (ask(tokens=150),), tuple[tuple[Ask, ...], ...]()
        match kind:
            case "checked":
                stages = (tuple(ask(document) for _ in range(3)), join, (ask(document, 100, 8),))
            case "chain":
                stages = tuple((ask(document),) for _ in range(4))
            case "one":
                stages = ((ask(document),),)
            case "map":
                stages = (tuple(ask(document) for _ in range(3)), join, (ask(tokens=100, most=8),))
            case _:
                stages = (tuple(ask(tokens=100) for _ in range(3)), join, (ask(tokens=100, most=8),))
        found.append(Program(stages, at))
    return found


@pytest.mark.parametrize(("kind", "runs", "gain"), [("checked", 32, 1.4), ("chain", 32, 2.2), ("one", 128, 1.4)])
def test_programs_returning_prompts_raise_throughput(kind: str, runs: int, gain: float) -> None:
    asked = workload(kind, runs)
    fifo, ours = run(FifoScheduler(), asked), run(ProgramScheduler(), asked)
    assert fifo.seconds / ours.seconds >= gain
    assert ours.p95 <= fifo.p95
    assert ours.hits > fifo.hits


@pytest.mark.parametrize("kind", ["map", "short"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_programs_without_sharing_lose_little(kind: str, seed: int) -> None:
    asked = workload(kind, 40, seed=seed)
    fifo, ours = run(FifoScheduler(), asked), run(ProgramScheduler(), asked)
    assert ours.seconds <= 1.03 * fifo.seconds
    assert ours.p95 <= 1.03 * fifo.p95
    assert sum(ours.latencies) < sum(fifo.latencies)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_programs_staggered_runs_finish_sooner(seed: int) -> None:
    asked = workload("checked", 64, seed=seed, apart=4.0)
    fifo, ours = run(FifoScheduler(), asked), run(ProgramScheduler(), asked)
    assert ours.p95 <= fifo.p95
    assert sum(ours.latencies) < sum(fifo.latencies)

"""Timeouts of bodies: they include the time inside the body, but neither the wait for a slot nor the time without a
lease holder.
"""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest

from orchestra.core.events import (
    AttemptFinished,
    AttemptStarted,
    Event,
    NodeFinished,
    RunFinished,
    RunResumed,
    RunStarted,
    TurnStarted,
)
from orchestra.core.outcomes import FailedOutcome, ValueOutcome
from orchestra.engine.engine import Engine
from orchestra.engine.replay import replay
from orchestra.testing import Faults, VirtualClock, run_simulated
from tests.engine.durable import Theatre
from tests.engine.stage import play, program

EACH = """
input: {words: "list[str]"}
output: ${all.values}
nodes:
  all:
    each: ${input.words}
    as: word
    timeout: %s
    call:
      nodes:
        a: {tool: shout, with: {text: "${word}"}}
        b: {tool: shout, with: {text: "${a}"}}
        c: {tool: shout, with: {text: "${word}"}}
      output: ${b + c}
"""


def words(count: int) -> dict[str, Any]:
    return {"words": [f"w{number}" for number in range(count)]}


@pytest.mark.parametrize("concurrency", [1, 2, 4, 7])
def test_body_time_excludes_wait_for_slot(concurrency: int) -> None:
    """Two of three calls in a body run in sequence, and the third may have to wait for them."""
    played = play(EACH % 3.5, words(30), latency=1.0, concurrency=concurrency)
    assert isinstance(played.outcome, ValueOutcome)
    assert len(played.outcome.value) == 30
    assert played.workers.max_in_flight == concurrency
    assert replay(program(EACH % 3.5), played.events).reason == ""


def test_body_time_nested_bodies_have_own_timeout() -> None:
    text = """
input: {words: "list[str]"}
output: ${all.values}
nodes:
  all:
    each: ${input.words}
    as: word
    timeout: 12
    call:
      nodes:
        inner:
          each: ${["1", "2", "3", "4"]}
          as: part
          timeout: 2.5
          call: {nodes: {a: {tool: shout, with: {text: "${part}"}}, b: {tool: shout, with: {text: "${a}"}}}, output: "${b}"}
      output: ${size(inner.values)}
"""  # noqa: E501
    assert play(text, words(12), latency=1.0, concurrency=2).outcome == ValueOutcome([4] * 12)


def chain(name: str, calls: int) -> str:
    """Nodes on one line that call in sequence."""
    first = f'{name}1: {{tool: shout, with: {{text: "x"}}}}'
    return ", ".join(
        [first, *(f'{name}{at}: {{tool: shout, with: {{text: "${{{name}{at - 1}}}"}}}}' for at in range(2, calls + 1))]
    )


@pytest.mark.parametrize("inner", ["timeout: 90, ", ""])
def test_body_time_least_time_left_goes_first(inner: str) -> None:
    """The innermost body does not go first: its chains would hold both slots for eight seconds."""
    text = f"""
output: {{short: "${{short}}", long: "${{long}}"}}
nodes:
  short: {{timeout: 5, call: {{nodes: {{{chain("s", 3)}}}, output: "${{s3}}"}}}}
  long:
    timeout: 100
    call:
      nodes:
        inner: {{{inner}call: {{nodes: {{{chain("a", 8)}, {chain("b", 8)}}}, output: "${{a8 + b8}}"}}}}
      output: "${{inner}}"
"""
    played = play(text, latency=1.0, concurrency=2)
    assert played.outcome == ValueOutcome({"short": "X", "long": "XX"})
    assert played.of(NodeFinished, "short")[0].at - played.events[0].at <= 4.0
    assert replay(program(text), played.events).reason == ""


def test_body_time_slow_element_fails() -> None:
    played = play(EACH % 5, words(20), latency=lambda call, _: 9.0 if call.node == "all[7]/b" else 1.0, concurrency=4)
    assert isinstance(played.outcome, ValueOutcome)
    assert len(played.outcome.value) == 19
    assert isinstance(played.outcomes["all[7]"], FailedOutcome)


def test_body_time_old_run_entering_all_bodies_replays() -> None:
    """Older engines entered all bodies at once."""
    played = play(EACH % 60, words(6), latency=1.0, concurrency=2)
    turns = [event for event in played.events if isinstance(event, TurnStarted)]
    older: list[Event] = [*played.events[:2], *turns, *(event for event in played.events[2:] if event not in turns)]
    older = [msgspec.structs.replace(event, seq=seq, at=played.events[0].at) for seq, event in enumerate(older, 1)]
    compiled = program(EACH % 60)
    assert replay(compiled, older).reason == ""

    async def scene(clock: VirtualClock) -> None:
        for cut in (2, 5, 8, 12, 20):
            theatre = Theatre(clock, latency=1.0)
            theatre.put(older[:cut])
            run = await theatre.engine.resume(compiled, run_of(older))
            assert (await run.wait()).outcome == played.outcome
            assert replay(compiled, await theatre.journal.read(run.id)).reason == ""
            await theatre.engine.close()

    run_simulated(scene)


def run_of(events: list[Event]) -> str:
    return events[0].run  # type: ignore[union-attr]  # the first event is a RunStarted


def test_body_time_timed_out_elements_end_in_linear_time() -> None:
    """Twelve times as many elements take about twelve times as long, not 144 times. The bound is in between, because
    machines vary in speed.
    """
    asking = EACH.replace('b: {tool: shout, with: {text: "${a}"}}', 'b: {ask: "Well?"}')

    def seconds(count: int) -> float:
        began = time.process_time()
        assert isinstance(play(asking % 5, words(count), latency=0.01).outcome, FailedOutcome)
        return time.process_time() - began

    seconds(100)
    assert seconds(6_000) < 48 * min(seconds(500) for _ in range(3))


BODY = """
output: ${b}
nodes:
  b:
    call: {nodes: {x: {agent: writer, with: {text: x}}, y: {agent: writer, with: {text: "${x}"}}}, output: "${y}"}
    timeout: 10
    fallback: "too late"
"""


@pytest.mark.parametrize(("seconds", "value"), [(4.0, "<<x>>"), (9.5, "too late")])
def test_body_time_excludes_time_without_lease_holder(seconds: float, value: str) -> None:
    """Work after the last recorded event does not count either, because its duration is unknown."""
    compiled = program(BODY)

    async def scene(clock: VirtualClock) -> None:
        theatre = Theatre(clock, latency=lambda call, _: seconds if call.node == "b/y" else 1.0)
        run = theatre.start(compiled)
        await clock.sleep(2)
        for _ in range(2):
            await theatre.crash()
            await clock.sleep(100_000)
            again = await theatre.engine.resume(compiled, run.id)
            await clock.sleep(1)
        finished = await again.wait()
        assert finished.outcome == ValueOutcome(value)
        events = await theatre.journal.read(run.id)
        assert replay(compiled, events).reason == ""
        await theatre.engine.close()

    run_simulated(scene)


def test_attempt_timeout_excludes_time_without_lease_holder() -> None:
    compiled = program(
        "output: ${a}\nnodes:\n  a: {agent: writer, with: {text: x}, retry: {attempts: 5, wait: [1, 1], within: 30}}"
    )

    async def scene(clock: VirtualClock) -> None:
        theatre = Theatre(clock, faults=Faults(refused=1.0, attempts=2))
        run = theatre.start(compiled)
        await clock.sleep(0.3)  # the first attempt was refused, and the second waits
        await theatre.crash()
        await clock.sleep(10_000)
        again = await theatre.engine.resume(compiled, run.id)
        assert (await again.wait()).outcome == ValueOutcome("<x>")
        assert replay(compiled, await theatre.journal.read(run.id)).reason == ""
        await theatre.engine.close()

    run_simulated(scene)


def test_question_deadline_includes_time_without_lease_holder() -> None:
    compiled = program('output: ${a}\nnodes:\n  a: {ask: "Well?", timeout: 60, fallback: none left}')

    async def scene(clock: VirtualClock) -> None:
        theatre = Theatre(clock)
        run = theatre.start(compiled)
        await clock.sleep(10)
        await theatre.crash()
        await clock.sleep(100)
        began = clock.now()
        assert (await (await theatre.engine.resume(compiled, run.id)).wait()).outcome == ValueOutcome("none left")
        assert clock.now() - began < 1
        await theatre.engine.close()

    run_simulated(scene)


def test_replay_old_resumption_without_idle_seconds() -> None:
    """Older engines included the time without a lease holder, and recorded no `idle_seconds`."""
    compiled = program(
        "output: ${a}\nnodes:\n  a: {agent: writer, with: {text: x}, retry: {attempts: 5, wait: [1, 1], within: 30}}"
    )
    first: dict[str, Any] = {"node": "a", "attempt": 1}
    why: dict[str, Any] = {"error": "F101", "reason": "busy", "retryable": True}
    failed = FailedOutcome("F101", "busy", "a")
    older: list[Event] = [
        RunStarted(seq=1, at=1.0, run="r1", workflow="staged", graph="0" * 32, inputs={}),
        AttemptStarted(seq=2, at=1.0, **first),
        RunResumed(seq=3, at=9_000.0, epoch=2),
        AttemptStarted(seq=4, at=9_000.0, **first),
        AttemptFinished(seq=5, at=9_001.0, **first, **why),
        NodeFinished(seq=6, at=9_001.0, node="a", outcome=failed),
        RunFinished(seq=7, at=9_001.0, status="failed", outcome=failed),
    ]
    assert replay(compiled, older).reason == ""
    again = [
        msgspec.structs.replace(event, idle_seconds=8_999.0) if isinstance(event, RunResumed) else event
        for event in older
    ]
    assert replay(compiled, again).first_difference == older[5]


class SetBack:
    """A clock whose wall time is an hour behind another clock."""

    def __init__(self, clock: VirtualClock) -> None:
        self.monotonic, self.sleep, self.random, self.new_id = clock.monotonic, clock.sleep, clock.random, clock.new_id
        self._now, self.run_in_thread = clock.now, clock.run_in_thread

    def now(self) -> float:
        return self._now() - 3_600


@pytest.mark.parametrize(
    ("node", "most"),
    [
        ("{agent: writer, with: {text: x}, retry: {attempts: 4, wait: [8, 8]}}", 8.0),
        ('{ask: "Well?", timeout: 9, fallback: none left}', 9.0),
        ('{call: {nodes: {i: {ask: "Well?"}}, output: "${i}"}, timeout: 9, fallback: none left}', 9.0),
    ],
)
def test_clock_set_back_does_not_lengthen_waits(node: str, most: float) -> None:
    compiled = program(f"output: ${{a}}\nnodes:\n  a: {node}")

    async def scene(clock: VirtualClock) -> None:
        theatre = Theatre(clock, faults=Faults(refused=1.0, attempts=1))
        run = theatre.start(compiled)
        await clock.sleep(1)
        await theatre.crash()
        began = clock.monotonic()
        engine = Engine(SetBack(clock), theatre.journal, theatre.workers)
        again = await engine.resume(compiled, run.id)
        assert (await again.wait()).status == "done"
        assert clock.monotonic() - began <= most + 0.1
        await engine.close()
        await theatre.engine.close()

    run_simulated(scene)

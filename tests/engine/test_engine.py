"""The engine shell: retries, deadlines, cancellation, budgets, event order; a run is the fold of its events."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestra.core.errors import OrchestraError
from orchestra.core.events import AttemptFinished, CancelRequested, RetryPlanned, RunFinished
from orchestra.core.outcomes import FailedOutcome, ValueOutcome
from orchestra.core.protocols import CallError, CallEstimate, CallRequest
from orchestra.engine.engine import Engine
from orchestra.engine.evolve import evolve
from orchestra.engine.request import RunOptions, RunRequest
from orchestra.engine.state import RunState
from orchestra.journal.memory import MemoryJournal, MemoryStore
from orchestra.testing import Faults, SimulatedWorkers, VirtualClock, run_simulated
from tests.engine.stage import ANSWERS, play, program, sequence

ONE = "output: ${a}\nnodes:\n  a: {agent: writer, with: {text: x}%s}"
DIAMOND = """
input: {text: str}
output: ${joined}
nodes:
  words: {tool: split, with: {text: "${input.text}"}}
  loud: {agent: writer, each: "${words}", as: word, with: {text: "${word}"}}
  n: {tool: count, with: {items: "${loud.values}"}}
  head: {tool: shout, with: {text: "${words[0]}"}}
  joined: {agent: writer, with: {text: "${head} and ${string(n)}"}}
"""


def test_engine_retries_refused_call_after_wait() -> None:
    played = play(ONE % "", faults=Faults(refused=1.0, attempts=1))
    assert played.outcome == ValueOutcome("<x>")
    (retry,) = played.of(RetryPlanned)
    (first, second) = played.attempts
    assert first.at + 0.25 <= second.at <= first.at + 0.5
    assert retry.due == second.at


def test_engine_answer_of_wrong_type_retried_once() -> None:
    assert play(ONE % "", faults=Faults(invalid=1.0, attempts=1)).outcome == ValueOutcome("<x>")
    played = play(ONE % "", faults=Faults(invalid=1.0))
    assert len(played.attempts) == 2
    assert isinstance(played.outcome, FailedOutcome)
    assert played.outcome.code == "M001"
    received = asyncio.run(played.journal.get_blob(played.of(AttemptFinished)[-1].received))
    assert received


def test_engine_value_of_wrong_type_not_used() -> None:
    played = play(ONE % "", faults=Faults(wrong_type=1.0))
    assert isinstance(played.outcome, FailedOutcome)
    assert played.outcome.code == "E009"


def test_engine_retry_limits_attempts() -> None:
    played = play(ONE % ", retry: {attempts: 5, wait: [1, 4]}", faults=Faults(refused=1.0))
    assert len(played.attempts) == 5
    assert isinstance(played.outcome, FailedOutcome)


def test_engine_once_tool_never_retried() -> None:
    text = "output: ${a}\nnodes:\n  a: {tool: send, retry: 5, with: {text: x}}"
    played = play(text, answers={"send": lambda call: CallError(code="T001", reason="no", retryable=True)})
    assert len(played.attempts) == 1


def test_engine_slow_attempt_times_out() -> None:
    played = play(ONE % ", timeout: 2, retry: 1", latency=60.0)
    assert isinstance(played.outcome, FailedOutcome)
    assert played.outcome.code == "E006"
    assert played.finished.at - played.events[0].at == pytest.approx(2)


def test_engine_token_budget_stops_calls() -> None:
    played = play("budget: {tokens: 1}\n" + DIAMOND.lstrip(), {"text": "a b c"}, concurrency=1)
    assert played.finished.status == "budget"
    assert len([event for event in played.attempts if event.name == "writer"]) == 1


def test_engine_second_budget_ends_run() -> None:
    played = play("budget: {seconds: 5}\n" + ONE % "", latency=60.0)
    assert played.finished.status == "budget"
    assert played.finished.at - played.events[0].at == pytest.approx(5)


def start(text: str, **simulation: Any) -> Any:
    compiled = program(text)

    def begin(clock: VirtualClock) -> Any:
        workers = SimulatedWorkers(ANSWERS, clock=clock, **simulation)
        engine = Engine(clock, MemoryJournal(), workers)
        return engine, workers, engine.start(compiled, RunRequest(graph="0" * 32))

    return begin


def test_engine_cancel_ends_calls_keeps_finished() -> None:
    async def scene(clock: VirtualClock) -> None:
        _, workers, run = start(ONE % "", latency=60.0)(clock)
        await clock.sleep(1)
        run.cancel("a test")
        finished = await run.wait()
        assert finished.status == "cancelled"
        assert len(workers.cancelled) == 1
        assert any(isinstance(event, CancelRequested) and event.by == "a test" for event in run.log)

    run_simulated(scene)


def test_engine_strict_calls_wait_for_flush() -> None:
    class Slow(MemoryJournal):
        """A journal whose disk takes a second."""

        def __init__(self, clock: VirtualClock) -> None:
            super().__init__()
            self.clock = clock

        async def wait_durable(self, run: str, seq: int) -> None:
            await self.clock.sleep(1)

    async def scene(clock: VirtualClock) -> None:
        text = 'output: ${b}\nnodes:\n  a: {tool: shout, with: {text: x}}\n  b: {tool: shout, with: {text: "${a}"}}'
        took = []
        for strict in (False, True):
            engine = Engine(clock, Slow(clock), SimulatedWorkers(ANSWERS, clock=clock), strict=strict)
            began = clock.monotonic()
            await engine.start(program(text), RunRequest(graph="0" * 32)).wait()
            took.append(round(clock.monotonic() - began))
            await engine.close()
        assert took == [1, 3]  # at the end only; before each call

    run_simulated(scene)


def test_engine_close_leaves_no_task() -> None:
    async def scene(clock: VirtualClock) -> None:
        engine, workers, _ = start(ONE % "", latency=60.0)(clock)
        await clock.sleep(1)
        await engine.close()
        assert len(workers.cancelled) == 1

    run_simulated(scene)


def test_engine_every_subscriber_gets_all_events() -> None:
    async def scene(clock: VirtualClock) -> None:
        _, _, run = start(ONE % "", latency=1.0)(clock)

        async def seen(after: int) -> list[int]:
            return [event.seq async for event in run.events(after)]

        first, second, late = await asyncio.gather(seen(0), seen(0), seen(2))
        assert first == second == list(range(1, len(run.log) + 1))
        assert late == first[2:]
        assert [event.seq async for event in run.events()] == first

    run_simulated(scene)


@pytest.mark.parametrize("seed", range(4))
def test_engine_journal_failure_ends_run_with_error(seed: int) -> None:
    class Broken(MemoryJournal):
        def append(self, run: str, events: Any, delivered: Any = ()) -> None:
            if any(isinstance(event, AttemptFinished) for event in events):
                raise OrchestraError("J009", "the disk is full")
            super().append(run, events, delivered)

    async def scene(clock: VirtualClock) -> None:
        engine = Engine(clock, Broken(), SimulatedWorkers(ANSWERS, clock=clock))
        run = engine.start(program(ONE % ""), RunRequest(graph="0" * 32))
        with pytest.raises(OrchestraError, match="disk is full"):
            await run.wait()

    run_simulated(scene, seed)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), words=st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=6))
def test_engine_output_independent_of_event_order(seed: int, words: list[str]) -> None:
    faults = Faults(refused=0.2, invalid=0.1, slow=0.2, attempts=1)
    played = play(DIAMOND, {"text": " ".join(words)}, seed=seed, latency=(0.01, 3.0), faults=faults)
    assert played.outcome == ValueOutcome(f"<{words[0].upper()} and {len(words)}>")
    assert [event.seq for event in played.events] == list(range(1, len(played.events) + 1))
    assert isinstance(played.events[-1], RunFinished)


def test_engine_state_is_fold_of_events() -> None:
    played = play(DIAMOND, {"text": "a b c"}, latency=(0.1, 1.0))
    state, compiled = RunState(), program(DIAMOND)
    for event in played.events:
        evolve(state, event, compiled)
    assert state.finished == played.finished
    assert state.root is not None
    assert not state.units
    assert state.usage_counter.total() == played.finished.usage


def test_engine_gap_in_events_refused() -> None:
    played = play(DIAMOND, {"text": "a"})
    state = RunState()
    evolve(state, played.events[0], program(DIAMOND))
    with pytest.raises(OrchestraError, match="follows"):
        evolve(state, played.events[2], program(DIAMOND))


def test_engine_longest_path_scheduled_first() -> None:
    text = """
output: {x: "${short}", y: "${c}"}
nodes:
  short: {tool: shout, with: {text: s}}
  a: {tool: shout, with: {text: x}}
  b: {tool: shout, with: {text: "${a}"}}
  c: {tool: shout, with: {text: "${b}"}}
"""
    played = play(text, concurrency=1)
    assert next(event.node for event in played.attempts) == "a"


def test_simulated_sequence_gives_value_per_attempt() -> None:
    assert play(ONE % "", answers={"writer": sequence("one", "two")}).outcome == ValueOutcome("one")


@pytest.mark.parametrize("replaced", [False, True])
def test_memo_not_stored_if_agent_replaced_meanwhile(replaced: bool) -> None:
    async def scene(clock: VirtualClock) -> tuple[str, dict[str, Any]]:
        store, marks = MemoryStore(), ["old"]

        def answer(call: CallRequest) -> str:
            marks[0] = "new" if replaced else "old"
            return marks[0]

        workers = SimulatedWorkers({"writer": answer}, clock=clock)
        workers.estimate = lambda call: CallEstimate(memo_key=f"{call.name} {marks[0]}")  # type: ignore[method-assign]
        engine = Engine(clock, MemoryJournal(store), workers)
        finished = await engine.start(
            program(ONE % ""), RunRequest(graph="0" * 32, options=RunOptions(memo=True))
        ).wait()
        await engine.close()
        assert isinstance(finished.outcome, ValueOutcome)
        return finished.outcome.value, {key: value for key, (_, value) in store.memos.items()}

    value, kept = run_simulated(scene)
    assert value == ("new" if replaced else "old")
    assert kept == ({} if replaced else {"writer old": "old"})

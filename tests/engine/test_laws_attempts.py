"""Laws of attempts: their number, their waits, the consequences of a verdict, and the state after a cancellation."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestra.core.events import AttemptFinished, CancelRequested, Event, NodeFinished, RetryPlanned, RunFinished
from orchestra.core.outcomes import AbstainedOutcome, FailedOutcome, ValueOutcome
from orchestra.core.protocols import CallError, CallRequest, CallResult, TextCallback
from orchestra.engine.engine import Engine
from orchestra.engine.request import RunRequest
from orchestra.journal.memory import MemoryJournal
from orchestra.testing import Faults, SimulatedWorkers, VirtualClock, run_simulated
from tests.engine.stage import ANSWERS, play, program

SEEDS = st.integers(0, 10**6)
laws = settings(max_examples=80, deadline=None)
WHATEVER = st.builds(
    Faults,
    refused=st.floats(0, 0.5),
    broken=st.floats(0, 0.1),
    stall=st.floats(0, 0.1),
    invalid=st.floats(0, 0.2),
    slow=st.floats(0, 0.1),
)
FAN = """
input: {words: "list[str]"}
output: ${made.values}
nodes:
  made: {%s, each: "${input.words}", as: word, with: {text: "${word}"}, timeout: 4, %s}
"""


@laws
@given(faults=WHATEVER, seed=SEEDS, attempts=st.integers(1, 5), low=st.floats(0, 3), more=st.floats(0, 9))
def test_law_attempts_and_waits_follow_policy(
    faults: Faults, seed: int, attempts: int, low: float, more: float
) -> None:
    text = FAN % ("agent: writer", f"retry: {{attempts: {attempts}, wait: [{low}, {low + more}]}}")
    played = play(text, {"words": list("abc")}, seed=seed, faults=faults, latency=(0.1, 2.0))
    assert all(event.attempt <= attempts for event in played.attempts)
    ends = {(event.node, event.attempt): event for event in played.of(AttemptFinished)}
    for planned in played.of(RetryPlanned):
        before = ends[planned.node, planned.attempt - 1]
        longest = 0.0 if before.error.startswith("M") else min(low + more, low * 2 ** (before.attempt - 1))
        assert longest / 2 - 1e-3 <= planned.due - before.at <= longest + 1e-3
        began = next(
            event for event in played.attempts if (event.node, event.attempt) == (planned.node, planned.attempt)
        )
        assert began.at >= planned.due - 1e-3


@laws
@given(faults=WHATEVER, seed=SEEDS)
def test_law_once_tool_called_once_under_faults(faults: Faults, seed: int) -> None:
    played = play(
        FAN % ("tool: send", "retry: 5"), {"words": list("abc")}, seed=seed, faults=faults, latency=(0.1, 2.0)
    )
    assert sorted(call.node for call in played.workers.calls) == ["made[0]", "made[1]", "made[2]"]


@laws
@given(
    good=st.lists(st.booleans(), min_size=7, max_size=7),
    otherwise=st.lists(st.sampled_from(["retry", "escalate", "abstain"]), min_size=1, unique=True),
    attempts=st.none() | st.integers(1, 4),
    latency=st.sampled_from([0.0, 1.0]),
    tiers=st.integers(0, 3),
)
def test_law_refused_value_retried_escalated_withheld(
    good: list[bool], otherwise: list[str], attempts: int | None, latency: float, tiers: int
) -> None:
    plan = (
        [0]
        + [0] * ((attempts or 2) - 1) * ("retry" in otherwise)
        + list(range(1, max(1, tiers) + 1)) * ("escalate" in otherwise)
    )
    made = next((index + 1 for index in range(len(plan)) if good[index]), len(plan))
    policy = "" if attempts is None else f", retry: {{attempts: {attempts}}}"
    text = (
        "output: ${a}\n"
        "nodes:\n"
        "  a: {agent: writer, with: {text: x}, checks: [numbers], against: none, otherwise: [%s]%s}"
    )
    answers = {"writer": lambda call: "fine" if good[call.attempt - 1] else f"no {call.attempt}7"}
    played = play(
        text % (", ".join(otherwise), policy), answers=answers, latency=latency, tiers=("one", "two", "three")[:tiers]
    )
    assert [call.tier for call in played.workers.calls] == plan[:made]
    assert [len(call.feedback) for call in played.workers.calls] == list(range(made))
    assert isinstance(played.outcome, ValueOutcome if good[made - 1] else AbstainedOutcome)


# Cancelling

MIXED = """
output: {a: "${last}", b: "${grown}", c: "${many.values}"}
nodes:
  first: {agent: writer, with: {text: x}, retry: {attempts: 9, wait: [1, 2]}}
  many: {agent: writer, each: "${['a', 'b', 'c']}", as: word, concurrency: 2, with: {text: "${word}"}, retry: {attempts: 9, wait: [1, 2]}}
  sent: {tool: send, with: {text: "${first}"}}
  grown:
    loop:
      at_most: 3
      until: "${size(next) > 2}"
      nodes: {next: {tool: grow, with: {text: "${previous}"}}}
      output: "${next}"
  last: {call: {nodes: {inner: {agent: writer, with: {text: "${sent}"}, timeout: 5}}, output: "${inner}"}, timeout: 60}
"""  # noqa: E501
FAULTS = Faults(refused=0.2, slow=0.1, attempts=2)


def ends(events: list[Event]) -> dict[str, Any]:
    """Returns the end of each node and its time."""
    found: dict[str, Any] = {event.node: event.outcome for event in events if isinstance(event, NodeFinished)}
    return found | {
        event.node: ValueOutcome(event.value) for event in events if isinstance(event, AttemptFinished) and event.final
    }


@settings(max_examples=200, deadline=None)
@given(seed=SEEDS, seconds=st.floats(0, 25), turns=st.integers(0, 30), latency=st.sampled_from([0.0, (0.1, 3.0)]))
def test_law_cancel_keeps_finished_leaves_no_task(seed: int, seconds: float, turns: int, latency: Any) -> None:
    compiled, whole = program(MIXED), play(MIXED, seed=seed, faults=FAULTS, latency=latency)

    async def scene(clock: VirtualClock) -> tuple[list[Event], RunFinished, SimulatedWorkers, int]:
        workers, journal = (
            SimulatedWorkers(ANSWERS, seed=seed, clock=clock, faults=FAULTS, latency=latency),
            MemoryJournal(),
        )
        engine = Engine(clock, journal, workers)
        run = engine.start(compiled, RunRequest(graph="0" * 32))
        await clock.sleep(seconds if latency else 0)
        for _ in range(turns):
            await asyncio.sleep(0)
        before = len(run.log)
        run.cancel("a person")
        run.cancel("a person")
        now = clock.monotonic()
        finished = await run.wait()
        assert clock.monotonic() == now  # no task waits for cancelled calls
        assert await journal.read(run.id) == run.log
        return run.log, finished, workers, before

    events, finished, workers, before = run_simulated(scene, seed)
    assert not workers.in_flight
    assert ends(events).items() <= ends(list(whole.events)).items()
    if not isinstance(events[before - 1], RunFinished):
        assert [type(event) for event in events[before:]] == [CancelRequested, RunFinished]
        assert (finished.status, isinstance(finished.outcome, FailedOutcome)) == ("cancelled", True)


@laws
@given(faults=WHATEVER, seeds=st.tuples(SEEDS, SEEDS))
def test_law_same_worker_results_give_same_output(faults: Faults, seeds: tuple[int, int]) -> None:
    def scene(clock: VirtualClock) -> Any:
        return played(clock, faults)

    one, two = (run_simulated(scene, seed) for seed in seeds)
    assert one == two


async def played(clock: VirtualClock, faults: Faults) -> tuple[Any, dict[str, Any]]:
    """A run whose workers have the same random results in every order of events."""

    def late(call: CallRequest, chance: Any) -> float:
        return float(chance.uniform(0.1, 1.0)) + clock.random()

    engine = Engine(clock, MemoryJournal(), SimulatedWorkers(ANSWERS, clock=clock, faults=faults, latency=late))
    run = engine.start(
        program(MIXED.replace(", timeout: 5", "").replace(", timeout: 60", "")), RunRequest(graph="0" * 32)
    )
    finished = await run.wait()
    await engine.close()
    return finished.outcome, ends(run.log)


class Untyped(SimulatedWorkers):
    """Workers without type checks, whose first attempts return nothing."""

    async def call(self, call: CallRequest, on_text: TextCallback | None = None) -> CallResult | CallError:
        reply = await super().call(call, on_text)
        return cast("CallResult", None) if call.attempt == 1 else reply


def test_worker_without_reply_fails_attempt() -> None:
    async def scene(clock: VirtualClock) -> list[tuple[int, str, str]]:
        engine = Engine(clock, MemoryJournal(), Untyped(ANSWERS, clock=clock))
        flow = "output: ${made}\nnodes: {made: {agent: writer, with: {text: a}, retry: {attempts: 2}}}"
        run = engine.start(program(flow), RunRequest(graph="0" * 32))
        assert (await run.wait()).status == "done"
        await engine.close()
        return [(event.attempt, event.error, event.reason) for event in run.log if isinstance(event, AttemptFinished)]

    assert run_simulated(scene) == [(1, "E007", "the worker of writer gave no reply"), (2, "", "")]


@pytest.mark.parametrize(
    ("times", "timeout", "status"), [(1, "", "done"), (9, "", "failed"), (1, ", timeout: 4", "done")]
)
def test_worker_cancelling_itself_fails_attempt(times: int, timeout: str, status: str) -> None:
    left = [asyncio.CancelledError] * times

    def answer(call: CallRequest) -> str:
        if left:
            raise left.pop()
        return "well"

    text = (
        "output: ${made}\nnodes: {made: {agent: writer, with: {text: a}, retry: {attempts: 2, wait: [0, 1]}"
        + timeout
        + "}}"
    )
    played = play(text, answers={"writer": answer})
    assert [(event.attempt, event.error) for event in played.of(AttemptFinished)][:1] == [(1, "E007")]
    assert played.finished.status == status
    if status == "failed":
        assert isinstance(played.finished.outcome, FailedOutcome)
        assert (played.finished.outcome.code, "cancelled its own call" in played.finished.outcome.reason) == (
            "E007",
            True,
        )

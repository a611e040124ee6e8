"""Values that a person gave before the run started: they are the outcomes of their nodes, at every point of
interruption.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestra.core.events import Event, NodeFinished, Override, OverrideSource
from orchestra.core.outcomes import FailedOutcome, Outcome, ValueOutcome
from orchestra.core.protocols import CallError, InboxMessage
from orchestra.engine.replay import replay
from orchestra.engine.request import RunRequest
from orchestra.journal.history import History
from orchestra.testing import VirtualClock, run_simulated
from tests.engine.durable import Theatre
from tests.engine.stage import program
from tests.engine.test_resume import EVERYTHING, FAULTS
from tests.simulation.lab.answers import RunRecord
from tests.simulation.lab.oracle import Oracle

VALUES = st.fixed_dictionaries(
    {},
    optional={
        "words": st.just(["x", "y"]),
        "loud": st.just(["<x>", "<y>"]),
        "n": st.just(7),
        "grown": st.just("g"),
        "maybe": st.just("m"),
        "block": st.just("b"),
        "joined": st.just("j"),
    },
)


def played(
    text: str, values: dict[str, Override], cut: float, seed: int = 0, **stage: Any
) -> tuple[list[Event], list[str]]:
    """Returns the events of a run that was killed after a share of them and resumed, and the called nodes."""
    compiled = program(text)

    async def scene(clock: VirtualClock) -> tuple[list[Event], list[str]]:
        theatre = Theatre(clock, seed=seed, **stage)
        run = theatre.engine.start(compiled, RunRequest(inputs={"text": "a b c"}, graph="0" * 32, overrides=values))
        await run.wait_until_blocked()
        if cut < 1:
            events = await theatre.journal.read(run.id)
            await theatre.engine.close()
            theatre = Theatre(clock, seed=seed, **stage)
            theatre.put(events[: max(1, int(cut * (len(events) - 1)))])
            run = await theatre.engine.resume(compiled, run.id)
            await run.wait_until_blocked()
        events = await theatre.journal.read(run.id)
        await theatre.engine.close()
        return events, [call.node for call in theatre.workers.calls]

    return run_simulated(scene, seed)


def outcomes(events: list[Event]) -> dict[str, Outcome | None]:
    return {row.path: row.outcome for row in History.of(events).rows}


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10**6), cut=st.floats(0, 1), chosen=VALUES)
def test_given_values_kept_after_kill_at_any_event(seed: int, cut: float, chosen: dict[str, Any]) -> None:
    values = {name: Override(value, OverrideSource("ann")) for name, value in chosen.items()}
    events, called = played(EVERYTHING, values, cut, seed, latency=(0.1, 2.0), faults=FAULTS)
    found = outcomes(events)
    assert {name: found[name] for name in chosen} == {name: ValueOutcome(value) for name, value in chosen.items()}
    ends = {
        event.node: event.overridden_by
        for event in events
        if isinstance(event, NodeFinished) and event.overridden_by is not None
    }
    assert ends == {name: OverrideSource("ann") for name in chosen}
    assert not chosen.keys() & {node.partition("[")[0].partition("#")[0].partition("/")[0] for node in called}
    compiled = program(EVERYTHING)
    assert replay(compiled, events).reason == ""
    assert Oracle(compiled, RunRecord.from_events(events)).evaluate().objections == []


CHAIN = """
input: {text: str}
output: ${b}
nodes:
  a: {tool: shout, with: {text: "${input.text}"}}
  b: {tool: shout, with: {text: "${a}"}}
"""


def test_given_value_kept_though_dependency_failed() -> None:
    events, called = played(
        CHAIN, {"b": Override("mended")}, 1.0, answers={"shout": lambda call: CallError(code="T004", reason="no")}
    )
    assert isinstance(outcomes(events)["a"], FailedOutcome)
    assert outcomes(events)["b"] == ValueOutcome("mended")
    assert set(called) == {"a"}


ALL = """
input: {text: str}
output: ${each.values}
nodes:
  words: {tool: split, with: {text: "${input.text}"}}
  each: {tool: shout, each: "${words}", as: word, at_least: all, with: {text: "${word}"}}
"""


def test_given_list_of_other_length_replays_in_old_run() -> None:
    events, _ = played(ALL, {"each": Override(["one"])}, 0.7)
    assert outcomes(events)["each"] == ValueOutcome(["one"])
    assert replay(program(ALL), events).reason == ""
    assert Oracle(program(ALL), RunRecord.from_events(events)).evaluate().objections == []
    events, _ = played(ALL, {"each": Override(["one"], requires_all=True)}, 0.7)
    assert isinstance(outcomes(events)["each"], FailedOutcome)
    assert Oracle(program(ALL), RunRecord.from_events(events)).evaluate().objections == []


ASKS = "input: {text: str}\noutput: ${sure}\nnodes:\n  sure: {ask: 'Is ${input.text} right?', options: ['yes', 'no']}"


@pytest.mark.parametrize("same", [True, False])
def test_given_answer_used_for_same_question_only(same: bool) -> None:
    events, _ = played(ASKS, {}, 1.0)
    (asked,) = History.of(events).open_questions
    shown = asked.question_digest if same else "another"
    events, _ = played(ASKS, {"sure": Override("yes", OverrideSource("ann", "r1"), shown)}, 1.0)
    assert outcomes(events)["sure"] == (ValueOutcome("yes") if same else None)
    assert bool(History.of(events).open_questions) != same
    assert Oracle(program(ASKS), RunRecord.from_events(events)).evaluate().objections == []


def test_given_result_only_for_call_in_doubt() -> None:
    events, _ = played(ASKS, {}, 1.0)
    (asked,) = History.of(events).open_questions

    async def scene(clock: VirtualClock) -> str:
        theatre = Theatre(clock)
        said = theatre.engine.rejection_reason(
            asked,
            InboxMessage(
                kind="answer", node="sure", value="yes", question_digest=asked.question_digest, call_happened=True
            ),
        )
        await theatre.engine.close()
        return said

    assert run_simulated(scene) == "it asks for an answer, and not for what a call gave"

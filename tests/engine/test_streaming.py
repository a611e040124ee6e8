"""Plans that run while they are written: start times, waits, abandoned steps; a resume at any event loses nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from typing import Any

import pytest

from orchestra.core.events import AttemptFinished, AttemptStarted, NodeFinished, RunResumed
from orchestra.core.outcomes import FailedOutcome, ValueOutcome
from orchestra.core.protocols import CallRequest
from orchestra.engine.replay import replay
from orchestra.testing import VirtualClock, run_simulated
from tests.engine.durable import Theatre
from tests.engine.kinds.test_plan import LOUDLY, with_workflows
from tests.engine.stage import Played, play, program
from tests.simulation.lab.invariants import AuditCase, audit

pytestmark = pytest.mark.slow

WORK = """
input: {text: str}
output: ${solve}
nodes:
  solve: {plan: go, with: {text: "${input.text}"}, tools: [shout, split, count, send], agents: [writer], returns: str, confirm: false, %s}
"""  # noqa: E501
CHAIN = ("s1 = shout(text=input.text)", "s2 = writer(text=s1)", "s3 = shout(text=s2)", "return s3")
SENDING = ("s1 = shout(text=input.text)", "s2 = send(s1, text=input.text)", "s3 = shout(text=s2)", "return s3")


def router(*lines: str) -> Callable[[CallRequest], Any]:
    """Writes the next of these lines for the current length of the plan."""
    return lambda call: lines[min(call.inputs["plan"].count("\n") + bool(call.inputs["plan"]), len(lines) - 1)]


def paced(**seconds: float) -> Callable[[CallRequest, Random], float]:
    """Seconds of calls by agent or tool; one second for the others."""
    return lambda call, chance: seconds.get(call.name, 1.0)


def planned(more: str, *lines: str, answers: Mapping[str, Any] | None = None, **options: Any) -> Played:
    return play(
        WORK % more,
        {"text": "a"},
        answers={"router": router(*lines), **(answers or {})},
        **{"latency": paced(), **options},
    )


def began(played: Played) -> dict[str, float]:
    """Returns the start of each call in seconds since the start of the run."""
    start = played.events[0].at
    found: dict[str, float] = {}
    for event in played.events:
        if isinstance(event, AttemptStarted):
            found.setdefault(event.node, event.at - start)
    return found


def test_streaming_step_starts_when_line_and_needs_ready() -> None:
    times = began(planned("repairs: 0", *CHAIN))
    assert times == {
        "solve#1/line": 0.0,
        "solve#2/line": 1.0,
        "solve@1/s1": 1.0,
        "solve#3/line": 2.0,
        "solve@1/s2": 2.0,
        "solve#4/line": 3.0,
        "solve@1/s3": 3.0,
    }


def test_streaming_first_step_starts_after_one_line() -> None:
    streamed, whole = planned("streaming: true", *CHAIN), planned("streaming: false", *CHAIN)
    assert streamed.outcome == whole.outcome == ValueOutcome("<A>")
    assert (began(streamed)["solve@1/s1"], began(whole)["solve@1/s1"]) == (1.0, 4.0)
    assert (streamed.events[-1].at - streamed.events[0].at, whole.events[-1].at - whole.events[0].at) == (4.0, 7.0)


LISTED = ('s1 = [writer(text=x) for x in ["a", "b", "c"]]', "s2 = [shout(text=x) for x in s1]", "return s2[2]")


def test_streaming_literal_list_calls_start_together() -> None:
    played = planned("repairs: 0", *LISTED)
    assert played.outcome == ValueOutcome("<C>")
    times = began(played)
    assert [times[f"solve@1/s1[{number}]"] for number in range(3)] == [1.0, 1.0, 1.0]
    assert times["solve#3/line"] == times["solve@1/s2[0]"] == 2.0
    assert audit(AuditCase(program(WORK % "repairs: 0"), played.events)) == []


def test_streaming_effects_wait_for_whole_plan() -> None:
    played = planned("repairs: 0", *SENDING)
    times = began(played)
    assert times["solve@1/s1"] == 1.0
    assert (times["solve@1/s2"], times["solve@1/s3"]) == (4.0, 5.0)
    assert played.outcome == ValueOutcome("SENT")


def test_streaming_whole_plan_repeats_no_step() -> None:
    played = planned("repairs: 0", *CHAIN)
    assert {name: played.workers.counts[name] for name in ("shout", "writer", "router")} == {
        "shout": 2,
        "writer": 1,
        "router": 4,
    }


def test_streaming_step_unused_by_answer_abandoned() -> None:
    lines = ("s1 = writer(text=input.text)", "s2 = shout(text=input.text)", "return s2")
    played = planned("repairs: 0", *lines, latency=paced(writer=1000.0))
    assert played.outcome == ValueOutcome("A")
    assert played.events[-1].at - played.events[0].at == 3.0
    assert [call.name for call in played.workers.cancelled] == ["writer"]


def test_abandoned_workflow_cancels_its_calls() -> None:
    """The plan runs for longer than the abandoned calls would have taken."""
    text = (
        WORK.replace("tools: [shout, split, count, send], agents: [writer]", "tools: [shout], workflows: [loudly]")
        % "repairs: 0"
    )
    known = with_workflows(LOUDLY)
    lines = ("s1 = loudly(text=input.text)", "s2 = shout(text=input.text)", "return s2")
    answers = {"router": router(*lines)}
    played = play(text, {"text": "a"}, answers, catalog=known, latency=paced(split=2.5, shout=4.0))
    assert [call.node for call in played.workers.cancelled] == ["solve@1/s1/words"]
    assert "solve@1/s1/loud" not in played.outcomes
    found = replay(program(text, known), played.events)
    assert (found.first_difference, found.reason) == (None, "")


def test_streaming_refused_plan_abandons_steps_counts_cost() -> None:
    played = planned(
        "repairs: 0", "s1 = writer(text=input.text)", "s2 = writer(text=s1)", "nonsense", latency=paced(writer=1.5)
    )
    assert isinstance(played.outcome, FailedOutcome)
    assert played.outcome.code == "R007"
    assert [call.node for call in played.workers.cancelled] == ["solve@1/s2"]
    assert played.finished.usage.calls == 4  # three lines, and the step that finished
    fallen = planned(
        "repairs: 0, fallback: quiet", "s1 = writer(text=input.text)", "nonsense", latency=paced(writer=9.0)
    )
    assert fallen.outcome == ValueOutcome("quiet")
    assert len(fallen.workers.cancelled) == 1


def test_streaming_plan_and_step_end_in_same_turn() -> None:
    """The budget suffices for two lines, but neither for the third nor for an element of the step that starts with
    it.
    """
    lines = ("s1 = split(text=input.text)", "s2 = [writer(text=x) for x in s1]", "return s2[0]")
    played = play(
        WORK % "repairs: 0" + "budget: {calls: 2}\n",
        {"text": "a"},
        answers={"router": router(*lines)},
        latency=paced(split=0.5),
    )
    assert isinstance(played.outcome, FailedOutcome)
    assert played.outcome.code == "E005"
    assert "solve@1/s2[0]" not in played.outcomes


def test_streaming_timeout_covers_lines_and_steps() -> None:
    played = planned("timeout: 2.5", *CHAIN, latency=paced(shout=9.0))
    assert isinstance(played.outcome, FailedOutcome)
    assert played.outcome.code == "E006"
    assert {call.node for call in played.workers.cancelled} == {"solve@1/s1", "solve#3/line"}


def test_streaming_steps_within_run_budget() -> None:
    text = "budget: {calls: 3}\n" + WORK % "repairs: 0"
    played = play(text, {"text": "a"}, answers={"router": router(*CHAIN)}, latency=paced())
    assert isinstance(played.outcome, FailedOutcome)
    assert played.outcome.code == "E005"
    assert played.workers.counts["router"] + played.workers.counts["writer"] == 3


STORIES: dict[str, tuple[str, Mapping[str, Any]]] = {
    "a chain": ("repairs: 0", {"router": router(*CHAIN)}),
    "with an effect": ("repairs: 0", {"router": router(*SENDING)}),
    "at once": ("streaming: false", {"router": router(*CHAIN)}),
    "a list": (
        "repairs: 0",
        {"router": router("s1 = split(text=input.text)", "s2 = [writer(text=x) for x in s1]", "return s2[0]")},
    ),
    "refused": ("repairs: 1, fallback: none", {"router": router("s1 = shout(text=input.text)", "nonsense")}),
}


@pytest.mark.parametrize("name", STORIES)
@pytest.mark.parametrize("pace", [0.0, 0.4, 2.5])
def test_streaming_plan_resumes_at_any_event(name: str, pace: float) -> None:
    more, answers = STORIES[name]
    latency = paced(shout=pace, writer=pace)
    whole = play(WORK % more, {"text": "a b"}, answers=answers, latency=latency)
    compiled = program(WORK % more)
    assert audit(AuditCase(compiled, whole.events)) == []

    async def scene(clock: VirtualClock) -> None:
        for cut in range(1, len(whole.events)):
            theatre = Theatre(clock, answers, latency=latency)
            before = whole.events[:cut]
            theatre.put(before)
            run = await theatre.engine.resume(compiled, whole.events[0].run)  # type: ignore[union-attr]  # the first is a RunStarted
            await run.wait_until_blocked()
            for asked in run.questions:  # the message may have been sent before the interruption
                await theatre.engine.journal.send(run.id, again(asked))
            assert (await run.wait()).outcome == whole.outcome
            events = await theatre.journal.read(run.id)
            assert events[:cut] == list(before)
            assert isinstance(events[cut], RunResumed) or cut == len(whole.events) - 1
            assert not ended(before) & {call.node for call in theatre.workers.calls}
            found = replay(compiled, events)
            assert (found.first_difference, found.reason) == (None, "")
            assert audit(AuditCase(compiled, events)) == []
            await theatre.engine.close()

    run_simulated(scene, 0)


def again(asked: Any) -> Any:
    from orchestra.core.protocols import InboxMessage

    return InboxMessage(kind="answer", node=asked.node, value="again", question_digest=asked.question_digest, by="ann")


def ended(events: Any) -> set[str]:
    return {
        event.node
        for event in events
        if isinstance(event, NodeFinished) or (isinstance(event, AttemptFinished) and event.final)
    }

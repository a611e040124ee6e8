"""Runs that end when the plan of a request is accepted: only the planners are called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from orchestra.core.errors import InputError
from orchestra.core.events import AttemptFinished, Event, RunFinished, RunStarted, TurnStarted
from orchestra.core.outcomes import FailedOutcome, ValueOutcome
from orchestra.engine.replay import replay
from orchestra.engine.request import RunRequest
from orchestra.engine.run import Execution
from orchestra.testing import VirtualClock, run_simulated
from orchestra.workflows.program import Program
from tests.engine.durable import Theatre, resumed
from tests.engine.stage import program

WORK = """
input: {text: str}
output: ${solve}
nodes:
  solve:
    plan: Make it loud.
    with: {text: "${input.text}"}
    tools: [shout, split, count, send]
    agents: [writer]
    literals: true
    confirm: false
    returns: %s
"""
LOUD = ("s1 = split(text=input.text)", "s2 = shout(text=input.text)", "return s2")
SENT = ("s1 = send(text=input.text)", "return s1")
TEXTS = {"text": "a b"}


def router(*lines: str) -> Any:
    return lambda call: lines[min(len(str(call.inputs["plan"]).splitlines()), len(lines) - 1)]


def start(theatre: Theatre, compiled: Program, run: str = "") -> Execution:
    return theatre.engine.start(compiled, RunRequest(inputs=TEXTS, graph="0" * 32, run=run, plan_only=True))


def planned(
    answer: Any, returns: str = "str", more: Mapping[str, Any] | None = None
) -> tuple[RunFinished, list[Event], Theatre]:
    """Returns the end of a run that only plans, its events, and the harness."""

    async def scene(clock: VirtualClock) -> tuple[RunFinished, list[Event], Theatre]:
        theatre = Theatre(clock, {"router": answer, **(more or {})}, latency=0.5)
        run = start(theatre, program(WORK % returns))
        finished = await run.wait()
        events = await theatre.journal.read(run.id)
        await theatre.engine.close()
        return finished, events, theatre

    return run_simulated(scene, 0)


def test_plan_run_value_is_plan_and_no_step_is_called() -> None:
    finished, events, theatre = planned(router(*LOUD))
    assert (finished.status, finished.outcome) == ("done", ValueOutcome("\n".join(LOUD)))
    assert set(theatre.workers.counts) == {"router"}
    assert isinstance(events[0], RunStarted)
    assert (events[0].plan_only, events[0].workflow) == (True, "plan")
    drafts = [event.draft for event in events if isinstance(event, TurnStarted) and event.draft is not None]
    assert drafts[-1].lines == LOUD
    assert all(draft.plan is None for draft in drafts), "no step waits to be started"


def test_plan_run_makes_no_call_with_effects() -> None:
    finished, _, theatre = planned(router(*SENT))
    assert finished.outcome == ValueOutcome("\n".join(SENT))
    assert set(theatre.workers.counts) == {"router"}


@pytest.mark.parametrize("more", ["int", "str, checks: [quote], against: '${input.text}', otherwise: [abstain]"])
def test_plan_run_value_is_not_judged(more: str) -> None:
    lines = LOUD if more != "int" else (LOUD[0], "s2 = count(items=s1)", "return s2")
    finished, _, theatre = planned(router(*lines), more.replace(", ", "\n    "))
    assert finished.outcome == ValueOutcome("\n".join(lines))
    assert set(theatre.workers.counts) == {"router"}


def test_plan_run_elects_majority_of_samples() -> None:
    quiet = ("s1 = writer(text=input.text)", "return s1")
    plans = (quiet, LOUD, LOUD)
    finished, events, theatre = planned(
        lambda call: router(*plans[call.sample - 1])(call), "str\n    votes: 3\n    repairs: 0"
    )
    assert finished.outcome == ValueOutcome("\n".join(LOUD))
    assert set(theatre.workers.counts) == {"router"}
    (drafted,) = [one.draft for one in events if isinstance(one, TurnStarted) and one.draft and one.draft.sampled_plans]
    assert drafted.agreement == 2 / 3


def test_plan_run_without_plan_fails_with_reasons() -> None:
    finished, _, _ = planned(router("nonsense"))
    assert finished.status == "failed"
    assert isinstance(finished.outcome, FailedOutcome)
    assert (finished.outcome.code, finished.outcome.origin) == ("R007", "solve")


def test_plan_run_repairs_rejected_line() -> None:
    def answer(call: Any) -> str:
        fresh = not call.inputs["plan"] and "Not accepted" not in call.inputs["request"]
        return "s1 = shuot()" if fresh else str(router(*LOUD)(call))

    finished, events, _ = planned(answer)
    assert finished.outcome == ValueOutcome("\n".join(LOUD))
    drafts = [event.draft for event in events if isinstance(event, TurnStarted) and event.draft is not None]
    assert (drafts[1].rejections[0][0], drafts[-1].repaired_lines) == ("R002", 1)


@pytest.mark.parametrize("more", ["str", "str\n    stepwise: false"])
def test_plan_run_stores_no_plan(more: str) -> None:
    async def scene(clock: VirtualClock) -> None:
        whole = "stepwise" in more
        theatre = Theatre(clock, {"router": (lambda _: "\n".join(LOUD)) if whole else router(*LOUD)})
        compiled = program(WORK % more)
        for number in (1, 2):
            assert (await start(theatre, compiled).wait()).outcome == ValueOutcome("\n".join(LOUD))
            assert theatre.workers.counts["router"] == number * (1 if whole else len(LOUD))
        await theatre.engine.close()

    run_simulated(scene, 0)


def test_plan_run_reuses_plan_of_run_that_ran_it() -> None:
    async def scene(clock: VirtualClock) -> None:
        theatre = Theatre(clock, {"router": router(*LOUD)})
        compiled = program(WORK % "str")
        first = theatre.start(compiled, TEXTS)
        assert (await first.wait()).outcome == ValueOutcome("A B")
        before = dict(theatre.workers.counts)
        again = start(theatre, compiled)
        assert (await again.wait()).outcome == ValueOutcome("\n".join(LOUD))
        events = await theatre.journal.read(again.id)
        (turn,) = [event for event in events if isinstance(event, TurnStarted)]
        assert turn.draft is not None
        assert turn.draft.reused_from == first.id
        assert dict(theatre.workers.counts) == before
        found = replay(compiled, events)
        assert (found.first_difference, found.reason) == (None, "")
        await theatre.engine.close()

    run_simulated(scene, 0)


def test_plan_run_resumed_at_each_event_ends_with_same_plan() -> None:
    answer = {"router": router(*LOUD)}
    finished, events, _ = planned(answer["router"])
    compiled = program(WORK % "str")
    found = replay(compiled, events)
    assert (found.first_difference, found.reason, found.event_count) == (None, "", len(events))
    for cut in range(1, len(events)):
        again, _, theatre = resumed(compiled, events[:cut], answer, latency=0.5)
        assert again.outcome == finished.outcome
        done = sum(isinstance(event, AttemptFinished) for event in events[:cut])
        assert dict(theatre.workers.counts) == ({"router": len(LOUD) - done} if done < len(LOUD) else {})


def test_plan_run_of_other_workflow_is_refused_unrecorded() -> None:
    two = program("input: {text: str}\noutput: ${a}\nnodes:\n  a: {tool: shout, with: {text: '${input.text}'}}\n")

    async def scene(clock: VirtualClock) -> None:
        theatre = Theatre(clock)
        with pytest.raises(InputError) as refusal:
            start(theatre, two, "r1")
        assert refusal.value.code == "R030"
        assert theatre.engine.find_run("r1") is None
        assert await theatre.journal.list_runs(1) == []
        await theatre.engine.close()

    run_simulated(scene, 0)


def test_plan_run_budget_limits_questions() -> None:
    finished, _, theatre = planned(router(*LOUD), "str\nbudget: {calls: 2}")
    assert (finished.status, theatre.workers.counts["router"]) == ("budget", 2)

"""What-if over random workflows: without changes no agent is called and the result is the same. With any change, no
effect happens.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import msgspec
import pytest

from orchestra.app.whatif import RecordedRun, WhatifResult, simulate_run
from orchestra.core.events import AttemptFinished, AttemptStarted, Event, NodeFinished, RunResumed, RunStarted
from orchestra.core.outcomes import FailedOutcome
from orchestra.core.protocols import CallRequest, InboxMessage
from orchestra.engine.engine import Engine
from orchestra.engine.request import RunRequest
from orchestra.journal.memory import MemoryJournal
from orchestra.testing import SimulatedWorkers
from orchestra.testing.virtual_clock import VirtualClock, run_simulated
from tests.simulation.lab.catalog import EFFECTS, catalog
from tests.simulation.lab.people import decline_reason, person_answer
from tests.simulation.lab.random_workflows import RandomWorkflow, random_workflow
from tests.simulation.lab.storms import simulated_answer

PROGRAMS = range(100)
AGENTS = frozenset(catalog().agents)


def engine(clock: VirtualClock, seed: int) -> tuple[Engine, SimulatedWorkers]:
    workers = SimulatedWorkers(lambda call: simulated_answer(seed, call), latency=0.0)
    return Engine(clock, MemoryJournal(), workers), workers


async def ran(clock: VirtualClock, drawn: RandomWorkflow) -> RecordedRun:
    """Returns a run of a random workflow whose questions are answered at once."""
    stage, _ = engine(clock, 1)
    run = stage.start(drawn.program, RunRequest(inputs=drawn.inputs, graph="", label=drawn.program.label))
    while await run.wait_until_blocked() is None:
        for one in run.questions:
            value = person_answer(1, one.node, one.question, one.options, one.schema)
            letter = InboxMessage(
                kind="answer", node=one.node, value=value, question_digest=one.question_digest, by="ann", at=clock.now()
            )
            why = decline_reason(1, one.node, one.question) if one.kind != "effect" else ""
            await stage.journal.send(run.id, msgspec.structs.replace(letter, decline_reason=why))
        await clock.sleep(1)
    events = await stage.journal.read(run.id)
    await stage.close()
    first = events[0]
    assert isinstance(first, RunStarted)
    return RecordedRun(drawn.program, first, events)


def gone_through(number: int, seed: int, asked: Sequence[str]) -> tuple[RecordedRun, WhatifResult, list[CallRequest]]:
    """Returns a run, its what-if result with these agents called again, and the calls that were sent."""

    async def scene(clock: VirtualClock) -> tuple[RecordedRun, WhatifResult, list[CallRequest]]:
        recorded = await ran(clock, drawn)
        stage, workers = engine(clock, seed)
        found = await simulate_run(stage, recorded, drawn.program, drawn.inputs, asked)
        await stage.close()
        return recorded, found, list(workers.calls)

    drawn = random_workflow(number)
    return run_simulated(scene, number)


def cut_off(events: Sequence[Event]) -> set[tuple[str, int]]:
    """Returns the calls without an end in the journal, because the unit that contains them had its outcome earlier."""
    begun = {(event.node, event.attempt) for event in events if isinstance(event, AttemptStarted)}
    return begun - {(event.node, event.attempt) for event in events if isinstance(event, AttemptFinished)}


def raced(events: Sequence[Event]) -> bool:
    """Returns whether the order decided which calls were made: the budget did not suffice for a call, or a list ended
    before all of its elements.
    """
    outcomes = (event.outcome for event in events if isinstance(event, NodeFinished))
    return any(isinstance(outcome, FailedOutcome) and outcome.code in ("E005", "E034") for outcome in outcomes)


@pytest.mark.parametrize("block", range(5))
def test_whatif_without_changes_calls_nothing(block: int) -> None:
    compared, renewed = 0, set()
    for number in PROGRAMS[block::5]:
        recorded, found, calls = gone_through(number, 1, ())
        if found.timed_out or raced(recorded.events):
            continue  # recalled calls take no time, so the timeout may not be reached again
        compared += 1
        anew = {(call.node, call.attempt) for call in calls} - cut_off(recorded.events)
        assert all("@" in node or node.endswith("/line") for node, _ in anew), number
        renewed |= {number for _ in anew}
        # Another element may have stored a plan before its router is asked: then the plan has no lines. The order of
        # answers
        # does not determine whether a step of a failing plan ends before the next line arrives.
        changed = [
            change.node for change in found.differences if not change.node.endswith("/line") and "@" not in change.node
        ]
        assert (found.verdict, changed, found.stops) == ("same", [], ()), number
    assert compared >= 10  # of twenty
    assert len(renewed) <= 4, (
        "steps of plans, and lines of their next version, are asked anew where an order decided which were asked at"
        " all: few in a hundred"
    )


def test_whatif_excludes_time_before_resume() -> None:
    async def scene(clock: VirtualClock) -> RecordedRun:
        return await ran(clock, random_workflow(0))

    whole = run_simulated(scene, 0)
    last = msgspec.structs.replace(whole.events[-1], at=whole.events[-2].at + 90_010)
    late = dataclasses.replace(whole, events=[*whole.events[:-1], last])
    resumed = RunResumed(seq=last.seq, at=last.at - 10, epoch=2)
    again = dataclasses.replace(whole, events=[*whole.events[:-1], resumed, last])
    assert late.active_seconds == pytest.approx(again.active_seconds + 90_000)


@pytest.mark.parametrize("block", range(5))
def test_whatif_changes_have_no_effects_and_new_calls_only(block: int) -> None:
    stopped = 0
    for number in PROGRAMS[block::5]:
        _, found, calls = gone_through(number, 2, sorted(AGENTS))
        assert not {call.name for call in calls} & EFFECTS.keys(), number
        assert len(calls) == found.new_calls, number
        assert all(stop.name in EFFECTS or stop.name == "a person" for stop in found.stops), number
        stopped += found.verdict == "stopped"
    assert stopped

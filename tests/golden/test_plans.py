"""Runs of older engines with plans are replayed and resumed, at every event, as they began.

`plans-1` is from the engine of commit 2c6d2a7, which ran a plan only once it was complete (`PlanDraft.version` 0): a
plan with a repaired line, a refused plan, and a plan with a failed step. `plans-2` is from the engine of commit
fc20942, which made the samples of a vote one after the other (`PlanDraft.parallel` false): three samples, and two in
each of two versions. The names of fields and types were rewritten to version 2 of the events.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestra.core.events import AttemptFinished, Event, RunFinished, RunStarted, TurnStarted, decode
from orchestra.core.protocols import CallError, CallRequest
from orchestra.engine.replay import replay
from orchestra.testing import VirtualClock, run_simulated
from tests.engine import test_plan_votes as votes
from tests.engine.durable import Theatre
from tests.engine.kinds.test_plan import PLAN, WORK, router
from tests.engine.stage import program

FOLDER, VOTED = Path(__file__).parent / "plans-1", Path(__file__).parent / "plans-2"
MORE = {
    "repaired": 'returns: "list[str]"',
    "refused": "returns: str",
    "failed": 'returns: "list[str]", limits: {steps: 3, width: 2}',
}


def events(name: str, folder: Path = FOLDER) -> list[Event]:
    return [decode(line) for line in (folder / f"{name}.jsonl").read_bytes().splitlines()]


def answer(name: str) -> object:
    def line(call: CallRequest) -> str:
        if name == "refused":
            return "I would shout it"
        if name == "repaired" and not call.inputs["plan"] and "Not accepted" not in call.inputs["request"]:
            return "nonsense"
        return str(router(*PLAN)(call))

    return line


def test_golden_plans_are_of_older_engine() -> None:
    files = sorted(FOLDER.glob("*.jsonl"))
    assert [path.stem for path in files] == sorted(MORE)
    for path in files:
        drafted = [event.draft for event in events(path.stem) if isinstance(event, TurnStarted)]
        assert {one.version for one in drafted if one is not None} == {0}


@pytest.mark.parametrize("name", MORE)
def test_golden_plan_replays_and_continues(name: str) -> None:
    before = events(name)
    compiled = program(WORK % MORE[name])
    found = replay(compiled, before)
    assert (found.first_difference, found.reason, found.event_count) == (None, "", len(before))
    first, last = before[0], before[-1]
    assert isinstance(first, RunStarted)
    assert isinstance(last, RunFinished)

    async def scene(clock: VirtualClock) -> None:
        for cut in range(2, len(before)):  # today's engine plans a run without a plan in its own way
            theatre = Theatre(clock, {"router": answer(name)}, latency=0.5)
            theatre.put(before[:cut])
            run = await theatre.engine.resume(compiled, first.run)
            assert (await run.wait()).outcome == last.outcome
            done = {event.node for event in before[:cut] if isinstance(event, AttemptFinished)}
            assert not done & {call.node for call in theatre.workers.calls}
            again = replay(compiled, await theatre.journal.read(first.run))
            assert (again.first_difference, again.reason) == (None, "")
            await theatre.engine.close()

    run_simulated(scene, 0)


def sampled(call: CallRequest) -> str:
    return votes.line((votes.QUIET, votes.LOUD, votes.LOUD_AGAIN)[call.sample - 1], call)


def sampled_again(call: CallRequest) -> str:
    return votes.line(votes.LOUD if "These calls failed" in call.inputs["request"] else votes.QUIET, call)


VOTES: dict[str, tuple[int, dict[str, Any]]] = {
    "voted": (3, {"router": sampled}),
    "voted_again": (
        2,
        {"router": sampled_again, "writer": lambda call: CallError(code="T009", reason="the pen is dry")},
    ),
}


@pytest.mark.parametrize("name", VOTES)
def test_golden_sequential_samples_continue_sequentially(name: str) -> None:
    before = events(name, VOTED)
    count, answers = VOTES[name]
    compiled = program(WORK % f"returns: str, repairs: 0, votes: {count}")
    found = replay(compiled, before)
    assert (found.first_difference, found.reason, found.event_count) == (None, "", len(before))
    assert not any(
        event.draft.parallel for event in before if isinstance(event, TurnStarted) and event.draft is not None
    )
    first, last = before[0], before[-1]
    assert isinstance(first, RunStarted)
    assert isinstance(last, RunFinished)

    async def scene(clock: VirtualClock) -> None:
        for cut in range(2, len(before)):
            theatre = Theatre(clock, answers, latency=0.5)
            theatre.put(before[:cut])
            run = await theatre.engine.resume(compiled, first.run)
            assert (await run.wait()).outcome == last.outcome
            done = {event.node for event in before[:cut] if isinstance(event, AttemptFinished)}
            assert not done & {call.node for call in theatre.workers.calls}
            again = replay(compiled, await theatre.journal.read(first.run))
            assert (again.first_difference, again.reason) == (None, "")
            await theatre.engine.close()

    run_simulated(scene, 0)

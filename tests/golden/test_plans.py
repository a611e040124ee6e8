"""Runs of engines that ran a plan only once it was whole (`Drafted.version` 0) are replayed and resumed, at every event, as they began.

They were written by the engine of commit 2c6d2a7: a plan with a line that was repaired, one that was refused, one of which a step failed.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestra.doors import Call
from orchestra.engine.replay import replay
from orchestra.events import AttemptFinished, Event, RunFinished, RunStarted, TurnStarted, decode
from orchestra.testing import VirtualClock, run_simulated
from tests.engine.durable import Theatre
from tests.engine.stage import program
from tests.engine.test_planning import PLAN, WORK, router

FOLDER = Path(__file__).parent / "plans-1"
MORE = {
    "repaired": 'returns: "list[str]"',
    "refused": "returns: str",
    "failed": 'returns: "list[str]", limits: {steps: 3, width: 2}',
}


def events(name: str) -> list[Event]:
    return [decode(line) for line in (FOLDER / f"{name}.jsonl").read_bytes().splitlines()]


def answer(name: str) -> object:
    def line(call: Call) -> str:
        if name == "refused":
            return "I would shout it"
        if name == "repaired" and not call.inputs["plan"] and "Not accepted" not in call.inputs["request"]:
            return "nonsense"
        return str(router(*PLAN)(call))

    return line


def test_every_file_is_of_a_plan_of_an_older_engine() -> None:
    files = sorted(FOLDER.glob("*.jsonl"))
    assert [path.stem for path in files] == sorted(MORE)
    for path in files:
        drafted = [event.drafted for event in events(path.stem) if isinstance(event, TurnStarted)]
        assert {one.version for one in drafted if one is not None} == {0}


@pytest.mark.parametrize("name", MORE)
def test_an_older_plan_is_replayed_and_goes_on_as_it_began(name: str) -> None:
    before = events(name)
    compiled = program(WORK % MORE[name])
    found = replay(compiled, before)
    assert (found.different, found.reason, found.events) == (None, "", len(before))
    first, last = before[0], before[-1]
    assert isinstance(first, RunStarted)
    assert isinstance(last, RunFinished)

    async def scene(clock: VirtualClock) -> None:
        for cut in range(2, len(before)):  # of one that had not begun to plan, today's engine plans as today
            theatre = Theatre(clock, {"router": answer(name)}, latency=0.5)
            theatre.put(before[:cut])
            run = await theatre.engine.resume(compiled, first.run)
            assert (await run.wait()).outcome == last.outcome
            done = {event.node for event in before[:cut] if isinstance(event, AttemptFinished)}
            assert not done & {call.node for call in theatre.workers.calls}
            again = replay(compiled, await theatre.journal.read(first.run))
            assert (again.different, again.reason) == (None, "")
            await theatre.engine.close()

    run_simulated(scene, 0)

"""Test harness for runs that are interrupted and resumed: one store, one workflow, several engines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orchestra.core.events import Event, RunFinished
from orchestra.engine.engine import Engine
from orchestra.engine.request import RunRequest
from orchestra.engine.run import Execution
from orchestra.journal.memory import MemoryJournal, MemoryStore
from orchestra.testing import SimulatedWorkers, VirtualClock, run_simulated
from orchestra.workflows.program import Program
from tests.engine.stage import ANSWERS


class Theatre:
    """A store that outlives engines; `open` returns an engine with a new journal over it."""

    def __init__(self, clock: VirtualClock, answers: Mapping[str, Any] | None = None, **simulation: Any) -> None:
        self.clock = clock
        self.store = MemoryStore()
        self.workers = SimulatedWorkers({**ANSWERS, **(answers or {})}, clock=clock, **simulation)
        self.journal = MemoryJournal(self.store)
        self.engine = Engine(clock, self.journal, self.workers)

    async def crash(self) -> None:
        """Simulates a process crash with its pending work, and starts another process."""
        await self.journal.close()
        await self.engine.close()
        self.journal = MemoryJournal(self.store)
        self.engine = Engine(self.clock, self.journal, self.workers)

    def put(self, events: Sequence[Event]) -> None:
        """Writes a run that another process left."""
        other = MemoryJournal(self.store)
        other.append(events[0].run, events)  # type: ignore[union-attr]  # the first event is a RunStarted
        other._closed = True
        self.store.journals.remove(other)

    def start(
        self, program: Program, inputs: Mapping[str, Any] | None = None, tiers: tuple[str, ...] = ()
    ) -> Execution:
        return self.engine.start(program, RunRequest(inputs=inputs or {}, graph="0" * 32, tiers=tiers))


def resumed(
    compiled: Program,
    before: Sequence[Event],
    answers: Mapping[str, Any] | None = None,
    *,
    seed: int = 0,
    **simulation: Any,
) -> tuple[RunFinished, list[Event], Theatre]:
    """Returns the end of a run that another process resumes after the events `before`, all of its events, and the
    harness.
    """

    async def scene(clock: VirtualClock) -> tuple[RunFinished, list[Event], Theatre]:
        theatre = Theatre(clock, answers, seed=seed, **simulation)
        theatre.put(before)
        run = await theatre.engine.resume(compiled, before[0].run, by="a test")  # type: ignore[union-attr]  # the first is a RunStarted
        finished = await run.wait()
        events = await theatre.journal.read(run.id)
        await theatre.engine.close()
        return finished, events, theatre

    return run_simulated(scene, seed)

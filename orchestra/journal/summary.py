"""Summaries: one row for each run, folded from its events as they are appended."""

from __future__ import annotations

from dataclasses import dataclass, field

from orchestra.doors import RunSummary
from orchestra.events import NOTHING, AttemptFinished, Event, NodeFinished, RunFinished, RunStarted, Usage
from orchestra.journal.error import JournalError


@dataclass(slots=True)
class Tally:
    """A run as far as its log goes. `last` is the greatest `seq`; `nodes` counts nodes that have their outcome."""

    run: str
    last: int = 0
    workflow: str = ""
    status: str = "running"
    started: float = 0.0
    finished: float | None = None
    nodes: int = 0
    usage: Usage = field(default=NOTHING)

    def add(self, event: Event) -> None:
        """Takes the next event; raises `JournalError` J001 where its `seq` is not the next one."""
        if event.seq != self.last + 1:
            raise JournalError(
                "J001",
                f"event {event.seq} of run {self.run} cannot follow event {self.last}",
                why="the events of a run are numbered 1, 2, 3, … without a gap; only one writer may append to a run",
                hint="start a new run, or read the run's events again before appending to it",
            )
        self.last = event.seq
        match event:
            case NodeFinished():
                self.nodes += 1
            case AttemptFinished():
                self.usage = self.usage + event.usage
            case RunStarted():
                self.workflow, self.started = event.workflow, event.at
            case RunFinished():
                self.status, self.finished = event.status, event.at
                self.usage = event.usage if event.usage != NOTHING else self.usage
            case _:
                pass

    def summary(self) -> RunSummary:
        """The row that `orchestra runs list` shows."""
        return RunSummary(
            run=self.run,
            workflow=self.workflow,
            status=self.status,
            started=self.started,
            finished=self.finished,
            nodes=self.nodes,
            usage=self.usage,
        )

"""A run's events as what people ask of them: what each node took, and what it came to."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from orchestra.events import (
    NOTHING,
    AttemptFinished,
    AttemptStarted,
    Event,
    Expanded,
    Judged,
    NodeFinished,
    RetryPlanned,
    RunFinished,
    RunStarted,
    TurnStarted,
    Usage,
)
from orchestra.values import outcome as outcomes
from orchestra.values.outcome import Outcome

_ELEMENT = re.compile(r"\[\d+\]")
MAX_ROWS = 40
"""Rows of a table that are shown one by one; more are gathered by node."""


@dataclass(slots=True)
class NodeStory:
    """What happened at one path."""

    path: str
    name: str = ""
    """The agent or tool that was asked."""
    attempts: int = 0
    started: float = 0.0
    finished: float | None = None
    """Seconds since the epoch."""
    usage: Usage = NOTHING
    outcome: Outcome | None = None
    """None while the node goes on."""
    reason: str = ""
    """Why the last attempt gave no value, or was not accepted."""
    calls: list[AttemptFinished] = field(default_factory=list)
    verdicts: list[Judged] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """From its first event to its outcome."""
        return max(0.0, (self.finished or self.started) - self.started)

    @property
    def status(self) -> str:
        """What it came to, in one word."""
        return status_of(self.outcome)

    @property
    def why(self) -> str:
        """Why there is no value; empty where there is one."""
        match self.outcome:
            case outcomes.Skipped(reason=reason) | outcomes.Abstained(reason=reason) | outcomes.Failed(reason=reason):
                return reason
            case _:
                return ""


def status_of(outcome: Outcome | None) -> str:
    """An outcome in one word."""
    match outcome:
        case None:
            return "running"
        case outcomes.Value():
            return "done"
        case outcomes.Skipped():
            return "skipped"
        case outcomes.Abstained():
            return "abstained"
        case outcomes.Failed():
            return "failed"


def tell(events: Iterable[Event]) -> list[NodeStory]:
    """The stories of all nodes, in the order in which they began."""
    stories: dict[str, NodeStory] = {}
    for event in events:
        if isinstance(event, AttemptStarted | AttemptFinished | Judged | RetryPlanned | NodeFinished | Expanded | TurnStarted):
            _add(stories.setdefault(event.node, NodeStory(event.node, started=event.at)), event)
    return list(stories.values())


def _add(story: NodeStory, event: Event) -> None:
    match event:
        case AttemptStarted(name=name, attempt=attempt):
            story.name, story.attempts = name or story.name, max(story.attempts, attempt)
        case AttemptFinished(usage=usage, error=error, reason=reason):
            story.calls.append(event)
            story.usage += usage
            story.reason = f"{error}: {reason}" if error else story.reason
        case Judged(accepted=accepted, reason=reason):
            story.verdicts.append(event)
            story.reason = story.reason if accepted else reason
        case NodeFinished(outcome=outcome, at=at):
            story.outcome, story.finished = outcome, at
        case _:
            pass


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the table of nodes; `count` elements of one node may share it."""

    path: str
    count: int
    name: str
    status: str
    attempts: int
    seconds: float
    usage: Usage


def lines(stories: Sequence[NodeStory], *, gather: bool) -> list[Line]:
    """One line a node; with `gather` the elements of a list share one."""
    groups: dict[str, list[NodeStory]] = {}
    for story in stories:
        groups.setdefault(_ELEMENT.sub("[*]", story.path) if gather else story.path, []).append(story)
    return [_line(path, group) for path, group in groups.items()]


def _line(path: str, group: list[NodeStory]) -> Line:
    statuses: dict[str, int] = {}
    for story in group:
        statuses[story.status] = statuses.get(story.status, 0) + 1
    said = ", ".join(status if len(group) == 1 else f"{count} {status}" for status, count in statuses.items())
    finished = max((story.finished or story.started) for story in group)
    usage = sum((story.usage for story in group), NOTHING)
    began = min(story.started for story in group)
    return Line(path, len(group), group[0].name, said, sum(story.attempts for story in group), max(0.0, finished - began), usage)


def bounds(events: Sequence[Event]) -> tuple[RunStarted | None, RunFinished | None]:
    """A run's first and last event, where they are there."""
    started = next((event for event in events if isinstance(event, RunStarted)), None)
    finished = next((event for event in reversed(events) if isinstance(event, RunFinished)), None)
    return started, finished

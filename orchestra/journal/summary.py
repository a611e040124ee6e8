"""Summaries of runs: one row per run, and index entries, folded from events."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from orchestra.core.events import (
    NO_USAGE,
    AttemptFinished,
    Event,
    NodeFinished,
    RunFinished,
    RunStarted,
    TurnStarted,
    Usage,
    last_read_message,
    reused_plan,
)
from orchestra.core.protocols import OutboxMessage, RunSummary
from orchestra.core.tags import is_tag
from orchestra.journal.errors import JournalError, after_end_error


@dataclass(slots=True)
class LogEnd:
    """The end of a run's log: its greatest `seq`, and whether the last event is recorded."""

    run: str
    last_seq: int = 0
    is_ended: bool = False

    def extend(self, events: Sequence[Event]) -> None:
        """Adds the next events, all or none.

        Raises:
            JournalError: J001 for a gap in `seq`, J006 after the last event.
        """
        seq, is_ended = self.last_seq, self.is_ended
        for event in events:
            if is_ended:
                raise after_end_error(self.run, event.seq)
            seq += 1
            if event.seq != seq:
                raise _gap_error(self.run, event.seq, seq - 1)
            is_ended = type(event) is RunFinished
        self.last_seq, self.is_ended = seq, is_ended


def _gap_error(run: str, seq: int, last: int) -> JournalError:
    return JournalError(
        "J001",
        f"event {seq} of run {run} cannot follow event {last}",
        why="events of a run are numbered 1, 2, 3, … without gaps, and one writer appends them",
        hint="start a new run, or read the run's events again before appending",
    )


def outbox_message(number: int, run: str, event: Event) -> OutboxMessage | None:
    """Returns the outbox message of an event, or None."""
    if type(event) is not AttemptFinished or not event.outbox:
        return None
    return OutboxMessage(
        number=number, run=run, node=event.node, name=event.name, key=f"{run}/{event.node}", value=event.value
    )


def blob_digests(events: Iterable[Event]) -> Iterator[str]:
    """Returns the digests of blobs that events use."""
    for event in events:
        if type(event) is AttemptFinished:
            if event.sent:
                yield event.sent
            if event.received:
                yield event.received
        elif type(event) is RunStarted:
            yield from filter(None, (event.graph, *event.versions.values()))


def source_runs(event: Event) -> set[str]:
    """Returns the runs that an event copies from: inputs, an answer, or a plan."""
    sources = set[str]()
    match event:
        case RunStarted(parent=parent):
            sources.add(parent)
            if (plan := reused_plan(event)) is not None:
                sources.add(plan[0])
        case AttemptFinished(reused_from=recalled_run):
            sources.add(recalled_run)
        case TurnStarted(draft=draft) if draft is not None:
            sources.add(draft.reused_from)
        case _:
            pass
    return sources - {""}


def searchable_tags(event: Event) -> dict[str, str]:
    """Returns the valid tags in a run's first event."""
    if type(event) is not RunStarted or not event.options.get("tags"):
        return {}
    return {name: value for name, value in event.tags.items() if is_tag(name, value)}


@dataclass(slots=True)
class IndexEntries:
    """New index entries of one transaction."""

    tags: list[tuple[str, str, float, str]] = field(default_factory=list)
    """Name, value, start of the run, run."""
    copies: set[tuple[str, str]] = field(default_factory=set)
    """Source run, and the run that copies from it."""
    usages: list[tuple[str, int, bytes, bytes]] = field(default_factory=list)
    """Run, number and hash of the last counted event, encoded usage."""

    def add(self, run: str, event: Event) -> None:
        """Adds the entries of an event; most events have none."""
        self.tags += [(name, value, float(event.at), run) for name, value in searchable_tags(event).items()]
        self.copies.update((source, run) for source in source_runs(event) if source != run)


@dataclass(slots=True)
class SummaryFold:
    """Fold of a run's summary. `nodes` counts the nodes with an outcome."""

    run: str
    workflow: str = ""
    status: str = "running"
    started: float = 0.0
    finished: float | None = None
    nodes: int = 0
    usage: Usage = field(default=NO_USAGE)

    def add(self, event: Event) -> None:
        """Adds the next event."""
        match event:
            case NodeFinished():
                self.nodes += 1
            case AttemptFinished():
                self.nodes += event.final
                if event.usage is not NO_USAGE:
                    self.usage = self.usage + event.usage
            case RunStarted():
                self.workflow, self.started = event.workflow, event.at
            case RunFinished():
                self.status, self.finished = event.status, event.at
                self.usage = event.usage if event.usage != NO_USAGE else self.usage
            case _:
                pass

    def summary(self) -> RunSummary:
        """Returns the row for `orchestra runs list`."""
        return RunSummary(
            run=self.run,
            workflow=self.workflow,
            status=self.status,
            started=self.started,
            finished=self.finished,
            nodes=self.nodes,
            usage=self.usage,
        )


def unleased_summary(summary: RunSummary, events: Sequence[Event], message_count: int) -> RunSummary:
    """Returns the summary of a run without an end and without a lease.

    Its status is `waiting` if only questions are open, until the first of their deadlines, or until an inbox message
    arrives. Else it is `interrupted`; so is a run whose events are not valid, which reading them reports.
    `message_count` is the number of its inbox messages.
    """
    try:
        from orchestra.journal.history import History

        history = History.of(events)
    except JournalError:
        return replace(summary, status="interrupted")
    if not history.is_waiting or message_count > last_read_message(events):
        return replace(summary, status="interrupted")
    return replace(
        summary,
        status="waiting",
        due=min((question.due for question in history.open_questions if question.due), default=0.0),
    )


def summary_at(summary: RunSummary, now: float) -> RunSummary:
    """Returns the summary at a time: a waiting run whose deadline has passed is `interrupted`, because it must be
    resumed.
    """
    late = summary.status == "waiting" and 0 < summary.due <= now
    return replace(summary, status="interrupted") if late else summary

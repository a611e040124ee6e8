"""The status of runs, read from the journal without taking their lease."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from math import inf
from typing import Any, Literal, TypeAlias, cast, get_args

from msgspec.structs import replace

from orchestra.app.inputs import run_not_found, unanswered_questions
from orchestra.app.result import Result, build_result, identity, run_content
from orchestra.app.run_queries import first_and_last_events, run_pages
from orchestra.app.snapshot_store import stored_workflows
from orchestra.core.errors import InputError
from orchestra.core.events import Event, QuestionAsked, RunFinished, RunStarted, last_read_message
from orchestra.core.labels import Label
from orchestra.core.protocols import Journal, RunSelection, RunSummary
from orchestra.core.suggestions import closest_match
from orchestra.core.tags import Tags, validate_tags
from orchestra.core.timestamps import TimeSpec, to_timestamp
from orchestra.journal.history import History
from orchestra.journal.summary import summary_at

RunStatus: TypeAlias = Literal[
    "running", "waiting", "interrupted", "done", "failed", "abstained", "budget", "cancelled"
]
STATUSES: tuple[str, ...] = get_args(RunStatus)


PAGE_SIZE = 1000
"""Runs that are read together if only some of them are wanted."""


@dataclass(frozen=True)
class RunView:
    """A run as recorded."""

    run: str
    workflow: str
    status: RunStatus
    """`running` if a live process holds its lease. Else `waiting` if it only waits for persons; `interrupted` if not,
    also if a deadline of a question has passed or the answers are not handled yet; or the status with which it ended.
    """
    label: Label
    """The label of its inputs."""
    started: float
    """Seconds since the epoch."""
    finished: float | None
    questions: tuple[QuestionAsked, ...]
    """Open questions to persons, in the order of asking; other nodes may still run."""
    result: Result[Any] | None
    """The result, with the output as plain JSON; None if the run has not ended."""
    tags: Tags = field(default_factory=dict)
    """The tags of the run."""
    events: Sequence[Event] = field(default=(), repr=False)
    """The run's events so far."""

    def _repr_html_(self) -> str:
        """The run in a notebook: its timeline, its open questions, and its answer with the evidence."""
        from orchestra.app.html.content import RunContent
        from orchestra.app.html.render import render_run

        return render_run(
            run_content(self.result)
            if self.result is not None
            else RunContent(self.events, self.status, questions=self.questions)
        )


async def view_run(journal: Journal, run: str, now: float) -> RunView:
    """Returns the status of a run, without changing it. Raises `InputError` E020 for an unknown run."""
    summary = await journal.summary(run)
    events = await journal.read(run)
    if summary is None or not events or not isinstance(first := events[0], RunStarted):
        raise run_not_found(run)
    if not isinstance(last := events[-1], RunFinished):
        questions = tuple(
            unanswered_questions(History.of(events).open_questions, await journal.inbox(run, last_read_message(events)))
        )
        status = cast(RunStatus, summary_at(summary, now).status)
        return RunView(run, first.workflow, status, first.label, first.at, None, questions, None, first.tags, events)
    result = build_result(last, events, run, identity, await stored_workflows(journal, first))
    return RunView(run, first.workflow, result.status, first.label, first.at, last.at, (), result, first.tags, events)


@dataclass(frozen=True, slots=True)
class RunListQuery:
    """A query of runs: the latest ones that match all fields."""

    limit: int = 50
    workflow: str = ""
    status: tuple[str, ...] = ()
    """One of these statuses; any if empty."""
    tags: Tags = field(default_factory=dict)
    since: float = -inf
    until: float = inf
    before: str = ""
    """A run: only runs after it in the list, newest first."""

    @classmethod
    def of(
        cls,
        limit: int,
        workflow: str,
        status: str | Iterable[str] | None,
        tags: Tags | None,
        since: TimeSpec,
        until: TimeSpec,
        before: str,
    ) -> RunListQuery:
        """Builds a query. Raises `InputError` C010 for an invalid status or time, E040 for invalid tags."""
        statuses = (status,) if isinstance(status, str) else tuple(status or ())
        return cls(
            limit,
            workflow,
            check_statuses(statuses),
            validate_tags(tags or {}),
            to_timestamp(since, -inf),
            to_timestamp(until, inf),
            before,
        )

    @property
    def is_unfiltered(self) -> bool:
        """Whether runs of any workflow and any status match."""
        return not (self.workflow or self.status)

    def matches(self, run: RunSummary) -> bool:
        """Whether a run matches, apart from its tags."""
        return (
            self.workflow in ("", run.workflow)
            and (not self.status or run.status in self.status)
            and self.since <= run.started < self.until
        )


def check_statuses(statuses: Iterable[str]) -> tuple[str, ...]:
    """Returns the statuses; an empty one means any. Raises `InputError` C010 for an invalid one."""
    valid_statuses = tuple(status for status in statuses if status)
    for status in valid_statuses:
        if status not in STATUSES:
            near = closest_match(status, STATUSES)
            raise InputError(
                "C010",
                f"no run is {status!r}",
                hint=f"did you mean {near!r}?" if near else f"one of: {', '.join(STATUSES)}",
            )
    return valid_statuses


async def latest_runs(journal: Journal, now: float, wanted: RunListQuery) -> Sequence[RunSummary]:
    """Returns the latest matching runs, newest first. Raises `InputError` E020 if the run `before` is unknown."""
    selection = RunSelection(tags=wanted.tags, since=wanted.since, until=wanted.until)
    if wanted.before:
        if (last := await journal.summary(wanted.before)) is None:
            raise run_not_found(wanted.before)
        selection = replace(selection, before=(last.started, last.run))
    summaries = list[RunSummary]()
    size = max(0, wanted.limit) if wanted.is_unfiltered else max(PAGE_SIZE, wanted.limit)
    async with aclosing(run_pages(journal, size, selection)) as pages:
        async for page in pages:
            summaries += filter(wanted.matches, (summary_at(run, now) for run in page))
            if len(summaries) >= wanted.limit:
                break
    return summaries[: max(0, wanted.limit)]


async def started_events(journal: Journal, runs: Sequence[RunSummary]) -> AsyncGenerator[tuple[str, RunStarted], None]:
    """Yields the first events of these runs, in the same order, without large inputs; unreadable ones are left out."""
    for start in range(0, len(runs), PAGE_SIZE):
        names = [run.run for run in runs[start : start + PAGE_SIZE]]
        events_by_run = await first_and_last_events(journal, names)
        for run in names:
            if run in events_by_run and isinstance(first := events_by_run[run][0], RunStarted):
                yield run, first

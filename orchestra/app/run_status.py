"""Runs looked at: how one stands, and the latest ones of the journal; whoever has them in hand keeps them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from math import inf
from typing import Any, Literal, TypeAlias, cast, get_args

from msgspec.structs import replace

from orchestra.app.inputs import nowhere, unanswered
from orchestra.app.result import Result, plainly, result_of
from orchestra.app.run_queries import ends, pages
from orchestra.app.snapshot_store import workflows
from orchestra.core.errors import InputError
from orchestra.core.events import Asked, RunFinished, RunStarted, opened
from orchestra.core.labels import Label
from orchestra.core.protocols import Journal, RunSummary, Selection
from orchestra.core.suggestions import nearest
from orchestra.core.tags import Tags, checked
from orchestra.core.timestamps import When, moment
from orchestra.journal.history import History
from orchestra.journal.summary import standing

RunStatus: TypeAlias = Literal["running", "waiting", "interrupted", "done", "failed", "abstained", "budget", "cancelled"]
STATUSES: tuple[str, ...] = get_args(RunStatus)


PAGE = 1000
"""Runs that are looked at together where only some of them are wanted."""


@dataclass(frozen=True)
class Seen:
    """A run as it stands on record."""

    run: str
    workflow: str
    status: RunStatus
    """`running` where some process has it in hand; where none has, `waiting` for persons alone, or `interrupted`, also by a deadline of
    theirs that has passed, or where they have answered and nobody has gone on with it; or how it ended."""
    label: Label
    """Of its inputs."""
    started: float
    """Seconds since the epoch."""
    finished: float | None
    asked: tuple[Asked, ...]
    """What persons are asked and have not answered, in the order of asking; others may go on meanwhile."""
    result: Result[Any] | None
    """What it came to, the output as plain JSON; None where it has not ended."""
    tags: Tags = field(default_factory=dict)
    """What its caller finds it by."""


async def look(journal: Journal, run: str, now: float) -> Seen:
    """How a run stands; nothing of it is changed. Raises `InputError` E020 for one that is not there."""
    summary = await journal.summary(run)
    events = await journal.read(run)
    if summary is None or not events or not isinstance(first := events[0], RunStarted):
        raise nowhere(run)
    if not isinstance(last := events[-1], RunFinished):
        asked = tuple(unanswered(History.of(events).asked, await journal.letters(run, opened(events))))
        status = cast(RunStatus, standing(summary, now).status)
        return Seen(run, first.workflow, status, first.label, first.at, None, asked, None, first.tags)
    result = result_of(last, events, run, plainly, await workflows(journal, first))
    return Seen(run, first.workflow, result.status, first.label, first.at, last.at, (), result, first.tags)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which runs are listed: the latest of those that are all this."""

    limit: int = 50
    workflow: str = ""
    status: tuple[str, ...] = ()
    """One of these; any where there is none."""
    tags: Tags = field(default_factory=dict)
    since: float = -inf
    until: float = inf
    before: str = ""
    """A run: those that come behind it, the newest first."""

    @classmethod
    def of(
        cls, limit: int, workflow: str, status: str | Iterable[str] | None, tags: Tags | None, since: When, until: When, before: str
    ) -> Wanted:
        """What was asked for. Raises `InputError` C010 for what is no status or no moment, E040 for tags that are none."""
        named = (status,) if isinstance(status, str) else tuple(status or ())
        return cls(limit, workflow, known(named), checked(tags or {}), moment(since, -inf), moment(until, inf), before)

    @property
    def any(self) -> bool:
        """Whether runs of any workflow and any status are wanted."""
        return not (self.workflow or self.status)

    def has(self, run: RunSummary) -> bool:
        """Whether a run is such a one, its tags aside."""
        return (
            self.workflow in ("", run.workflow)
            and (not self.status or run.status in self.status)
            and self.since <= run.started < self.until
        )


def known(statuses: Iterable[str]) -> tuple[str, ...]:
    """Statuses; an empty one is any. Raises `InputError` C010 for what is none."""
    named = tuple(status for status in statuses if status)
    for status in named:
        if status not in STATUSES:
            near = nearest(status, STATUSES)
            raise InputError("C010", f"no run is {status!r}", hint=f"did you mean {near!r}?" if near else f"one of: {', '.join(STATUSES)}")
    return named


async def listed(journal: Journal, now: float, wanted: Wanted) -> Sequence[RunSummary]:
    """The latest runs, newest first, of those that are wanted. Raises `InputError` E020 for a run `before` that is not there."""
    where = Selection(tags=wanted.tags, since=wanted.since, until=wanted.until)
    if wanted.before:
        if (last := await journal.summary(wanted.before)) is None:
            raise nowhere(wanted.before)
        where = replace(where, before=(last.started, last.run))
    found = list[RunSummary]()
    size = max(0, wanted.limit) if wanted.any else max(PAGE, wanted.limit)
    async with aclosing(pages(journal, size, where)) as some:
        async for page in some:
            found += filter(wanted.has, (standing(run, now) for run in page))
            if len(found) >= wanted.limit:
                break
    return found[: max(0, wanted.limit)]


async def begun(journal: Journal, runs: Sequence[RunSummary]) -> AsyncGenerator[tuple[str, RunStarted], None]:
    """How these runs began, in the same order, without large inputs; those that cannot be read are left out."""
    for start in range(0, len(runs), PAGE):
        names = [run.run for run in runs[start : start + PAGE]]
        found = await ends(journal, names)
        for run in names:
            if run in found and isinstance(first := found[run][0], RunStarted):
                yield run, first

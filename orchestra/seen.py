"""Runs looked at: how one stands, and the latest ones of the journal; whoever has them in hand keeps them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast, get_args

from orchestra.doors import EVERY, Journal, RunSummary
from orchestra.errors import InputError
from orchestra.events import Asked, RunFinished, RunStarted, opened
from orchestra.inputs import nowhere, unanswered
from orchestra.journal.history import History
from orchestra.journal.summary import standing
from orchestra.result import Result, plainly, result_of
from orchestra.stored import workflows
from orchestra.values.labels import Label
from orchestra.values.schema import nearest

RunStatus: TypeAlias = Literal["running", "waiting", "interrupted", "done", "failed", "abstained", "budget", "cancelled"]
STATUSES: tuple[str, ...] = get_args(RunStatus)


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


async def look(journal: Journal, run: str, now: float) -> Seen:
    """How a run stands; nothing of it is changed. Raises `InputError` E020 for one that is not there."""
    summary = await journal.summary(run)
    events = await journal.read(run)
    if summary is None or not events or not isinstance(first := events[0], RunStarted):
        raise nowhere(run)
    if not isinstance(last := events[-1], RunFinished):
        asked = tuple(unanswered(History.of(events).asked, await journal.letters(run, opened(events))))
        return Seen(run, first.workflow, cast(RunStatus, standing(summary, now).status), first.label, first.at, None, asked, None)
    result = result_of(last, events, run, plainly, await workflows(journal, first))
    return Seen(run, first.workflow, result.status, first.label, first.at, last.at, (), result)


def known(status: str) -> None:
    """Raises `InputError` C010 for what is no status; an empty one is any."""
    if status and status not in STATUSES:
        near = nearest(status, STATUSES)
        raise InputError("C010", f"no run is {status!r}", hint=f"did you mean {near!r}?" if near else f"one of: {', '.join(STATUSES)}")


async def listed(journal: Journal, now: float, *, limit: int, workflow: str = "", status: str = "") -> Sequence[RunSummary]:
    """The latest runs, newest first; with a `workflow` or a `status` those alone. Raises `InputError` C010 for what is no status."""
    known(status)
    runs = [standing(run, now) for run in await journal.runs(EVERY if status or workflow else limit)]
    return [run for run in runs if status in ("", run.status) and workflow in ("", run.workflow)][: max(0, limit)]

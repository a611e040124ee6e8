"""Opens the journal for reading, resolves run names, and lists runs."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from msgspec.structs import asdict

from orchestra.app.open_journal import journal_exists, open_journal
from orchestra.app.run_queries import first_and_last_events
from orchestra.app.run_status import RunListQuery, latest_runs
from orchestra.cli.context import load_settings_to_inspect
from orchestra.cli.output import print_json, print_note, print_table, print_text
from orchestra.cli.signals import suspend_between_commits
from orchestra.core.errors import InputError
from orchestra.core.events import Event, RunFinished, RunStarted, last_read_message
from orchestra.core.outcomes import AbstainedOutcome, FailedOutcome, SkippedOutcome
from orchestra.core.protocols import InboxMessage, Journal
from orchestra.core.quantities import format_duration, format_money, format_time
from orchestra.core.tags import format_tags
from orchestra.core.untrusted_text import escape_invisible, shorten
from orchestra.journal.errors import JournalError
from orchestra.journal.history import History
from orchestra.journal.summary import summary_at
from orchestra.workflows.model import ASK_WORKFLOW, PLAN_WORKFLOW, REQUEST


@asynccontextmanager
async def open_existing_journal() -> AsyncIterator[Journal | None]:
    """Opens the journal; None if there is none, because reading creates none. In a read-only folder it is opened for
    reading, with a message. Raises `InputError` C018 if the journal is off.
    """
    settings = load_settings_to_inspect()
    if not journal_exists(settings):
        yield None
        return
    with ExitStack() as signals:  # outlasts the closing, which commits too
        async with AsyncExitStack() as stack:
            try:
                journal = await stack.enter_async_context(open_journal(settings))
            except JournalError:
                from orchestra.journal.sqlite.queries import ReadOnlyJournal, is_read_only

                if not isinstance(settings.journal, Path) or not is_read_only(settings.journal):
                    raise
                journal = await stack.enter_async_context(ReadOnlyJournal.open(settings.journal))
                print_note(f"{settings.journal.parent} is not writable: the journal is opened read-only")
            signals.enter_context(suspend_between_commits(journal))
            yield journal


@asynccontextmanager
async def open_journal_of(name: str) -> AsyncIterator[tuple[Journal, str]]:
    """Opens the journal, and resolves a run name to its id. Raises `InputError` C018."""
    async with open_existing_journal() as journal:
        if journal is None:
            raise no_runs_error(repr(name))
        yield journal, await find_run(journal, name)


def no_runs_error(which: str) -> InputError:
    """The error for a run name without a journal."""
    return InputError(
        "C018", f"there is no run {which}: nothing is recorded yet", hint="start one with: orchestra run NAME"
    )


async def find_run(journal: Journal, name: str) -> str:
    """Resolves a run name: an id, a unique prefix, or `last`. Raises `InputError` C018 for none or several."""
    if name == "last":
        latest = await journal.list_runs(1)
        if not latest:
            raise InputError("C018", "there are no runs yet", hint="start one with: orchestra run NAME")
        return latest[0].run
    run_names = await journal.find_runs(name)
    if name in run_names or len(run_names) == 1:
        return name if name in run_names else run_names[0]
    if run_names:
        raise InputError(
            "C018", f"{len(run_names)} runs match {name!r}: {', '.join(run_names[:5])}", hint="use a longer prefix"
        )
    raise InputError("C018", f"there is no run {name!r}", hint="orchestra runs list")


async def status_of(journal: Journal, run: str) -> str:
    """The status of a run as in `runs list`; empty if it no longer exists."""
    run_summary = await journal.summary(run)
    return summary_at(run_summary, time.time()).status if run_summary is not None else ""


async def why_interrupted(journal: Journal, run: str, events: Sequence[Event]) -> str:
    """Why an interrupted run does not continue, and the command for it."""
    if not History.of(events).is_waiting:
        reason = "its process has ended"
    elif letters := await journal.inbox(run, last_read_message(events)):
        reasons = [
            f"{letter.node} is {'declined' if letter.decline_reason else 'answered'}{_author_suffix(letter)}"
            if letter.node
            else f"it was asked to end{_author_suffix(letter)}"
            for letter in letters
        ]
        reason = f"{', '.join(reasons)}, and no process holds it"
    else:
        reason = "the deadline of a question has passed, and no process holds it"
    return f"{reason}; resume it with: orchestra runs resume {run}"


async def describe_owner(journal: Journal, run: str) -> str:
    """The process that holds the lease of an active run."""
    run_summary = await journal.summary(run)
    by = f" in {run_summary.holder}" if run_summary is not None and run_summary.holder else ""
    return escape_invisible(f"active{by}; follow it: orchestra runs tail {run}")


def _author_suffix(letter: InboxMessage) -> str:
    return f" by {letter.by}" if letter.by else ""


_REQUEST_WORKFLOWS = (ASK_WORKFLOW, PLAN_WORKFLOW)
MAX_REQUEST_LENGTH = 50
"""The maximum number of characters of a request in a table."""


async def list_runs(run_filter: RunListQuery, *, as_json: bool) -> None:
    """Prints the selected runs, newest first. Raises `InputError` C018 for an unknown run `before`."""
    async with open_existing_journal() as journal:
        if journal is not None and run_filter.before:
            run_filter = replace(run_filter, before=await find_run(journal, run_filter.before))
        run_summaries = await latest_runs(journal, time.time(), run_filter) if journal is not None else []
        none = not run_summaries and (journal is None or not await journal.list_runs(1))
        runs = [run.run for run in run_summaries if run.workflow in _REQUEST_WORKFLOWS and not as_json]
        requests = {
            run: shorten_request(request_of(History.of((await journal.read(run))[:1])))
            for run in runs
            if journal is not None
        }
        events_by_run = (
            await first_and_last_events(journal, [run.run for run in run_summaries]) if journal is not None else {}
        )
    if as_json:
        print_json([{**asdict(run), **_extra_data(*events_by_run.get(run.run, (None, None)))} for run in run_summaries])
        return
    if not run_summaries:
        print_text("no matching runs" if not none else "no runs yet; start one with: orchestra run NAME")
        return
    tags = {
        run: format_tags(first.tags)
        for run, (first, _) in events_by_run.items()
        if isinstance(first, RunStarted) and first.tags
    }
    has_costs = any(summary.usage.money > 0 for summary in run_summaries)
    rows = [
        (
            summary.run,
            summary.workflow + (f": {requests[summary.run]}" if requests.get(summary.run) else ""),
            summary.status,
            format_time(summary.started),
            format_duration(summary.finished - summary.started) if summary.finished else "",
            str(summary.nodes),
            str(summary.usage.prompt_tokens + summary.usage.output_tokens),
            *((format_money(summary.usage.money),) if has_costs else ()),
            *((escape_invisible(tags.get(summary.run, "")),) if tags else ()),
        )
        for summary in run_summaries
    ]
    headings = (
        "run",
        "workflow",
        "status",
        "started",
        "took",
        "nodes",
        "tokens",
        *(("money",) if has_costs else ()),
        *(("tags",) if tags else ()),
    )
    print_table(headings, rows, right=range(4, len(headings) - bool(tags)))


def _extra_data(first: Event | None, last: Event | None) -> dict[str, Any]:
    """The tags of a run and, without an output, its error; empty for an unreadable run."""
    error = None
    match last:
        case RunFinished(outcome=FailedOutcome(code, reason, node)):
            error = {"code": code, "message": reason, "node": node}
        case RunFinished(outcome=AbstainedOutcome(reason, node) | SkippedOutcome(reason, node)):
            error = {"code": "", "message": reason, "node": node}
        case _:
            pass
    return {"tags": first.tags if isinstance(first, RunStarted) else {}, "error": error}


def request_of(history: History) -> str:
    """The request of a run of `orchestra ask` or `orchestra plan`; empty for other workflows."""
    request_text = (
        history.inputs.get(REQUEST)
        if history.workflow in _REQUEST_WORKFLOWS and isinstance(history.inputs, Mapping)
        else None
    )
    return request_text if isinstance(request_text, str) else ""


def shorten_request(request: str) -> str:
    """Shortens a request for a table."""
    return shorten(" ".join(request.split()), MAX_REQUEST_LENGTH)

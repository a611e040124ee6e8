"""What `orchestra runs list` does: the latest runs of the journal, one a row."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from msgspec.structs import asdict

from orchestra.app.run_queries import first_and_last_events
from orchestra.app.run_status import RunListQuery, latest_runs
from orchestra.cli.output import format_duration, format_money, format_time, print_json, print_table, print_text
from orchestra.cli.runs.find import find_run, open_existing_journal
from orchestra.core.events import Event, RunFinished, RunStarted
from orchestra.core.outcomes import AbstainedOutcome, FailedOutcome, SkippedOutcome
from orchestra.core.tags import format_tags
from orchestra.core.untrusted_text import escape_invisible, shorten
from orchestra.journal.history import History
from orchestra.workflows.model import ASK_WORKFLOW, REQUEST

MAX_REQUEST_LENGTH = 50
"""Characters of a request in a row of a table."""


async def list_runs(run_filter: RunListQuery, *, as_json: bool) -> None:
    """Prints the latest runs that are wanted, newest first. Raises `InputError` C018 for a run `before` that is not there."""
    async with open_existing_journal() as journal:
        if journal is not None and run_filter.before:
            run_filter = replace(run_filter, before=await find_run(journal, run_filter.before))
        found = await latest_runs(journal, time.time(), run_filter) if journal is not None else []
        none = not found and (journal is None or not await journal.list_runs(1))
        asked = [run.run for run in found if run.workflow == ASK_WORKFLOW and journal is not None and not as_json]
        requests = {
            run: shorten_request(request_of(History.of((await journal.read(run))[:1])))
            for run in asked
            if journal is not None
        }
        read = await first_and_last_events(journal, [run.run for run in found]) if journal is not None else {}
    if as_json:
        print_json([{**asdict(run), **_extra_data(*read.get(run.run, (None, None)))} for run in found])
        return
    if not found:
        print_text("no such runs" if not none else "no runs yet; begin with: orchestra run NAME")
        return
    tags = {
        run: format_tags(first.tags) for run, (first, _) in read.items() if isinstance(first, RunStarted) and first.tags
    }
    paid = any(summary.usage.money > 0 for summary in found)
    rows = [
        (
            summary.run,
            summary.workflow + (f": {requests[summary.run]}" if requests.get(summary.run) else ""),
            summary.status,
            format_time(summary.started),
            format_duration(summary.finished - summary.started) if summary.finished else "",
            str(summary.nodes),
            str(summary.usage.prompt_tokens + summary.usage.output_tokens),
            *((format_money(summary.usage.money),) if paid else ()),
            *((escape_invisible(tags.get(summary.run, "")),) if tags else ()),
        )
        for summary in found
    ]
    headings = (
        "run",
        "workflow",
        "status",
        "started",
        "took",
        "nodes",
        "tokens",
        *(("money",) if paid else ()),
        *(("tags",) if tags else ()),
    )
    print_table(headings, rows, right=range(4, len(headings) - bool(tags)))


def _extra_data(first: Event | None, last: Event | None) -> dict[str, Any]:
    """What the row of a run does not have: its tags, and its error where it has no output; of one that cannot be read neither."""
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
    """What a run of `orchestra ask` was asked; empty for one of another workflow."""
    said = (
        history.inputs.get(REQUEST)
        if history.workflow == ASK_WORKFLOW and isinstance(history.inputs, Mapping)
        else None
    )
    return said if isinstance(said, str) else ""


def shorten_request(request: str) -> str:
    """A request in a row of a table."""
    return shorten(" ".join(request.split()), MAX_REQUEST_LENGTH)

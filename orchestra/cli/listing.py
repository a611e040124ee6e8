"""What `orchestra runs list` does: the latest runs of the journal, one a row."""

from __future__ import annotations

import time
from collections.abc import Mapping

from orchestra.cli.finding import opened_journal
from orchestra.cli.screen import moment, money, print_json, print_table, say, seconds
from orchestra.journal.history import History
from orchestra.seen import known, listed
from orchestra.values.text import shortened
from orchestra.workflow.nodes import ASK, REQUEST

LONGEST = 50
"""Characters of a request in a row of a table."""


async def list_runs(limit: int, status: str, workflow: str, *, as_json: bool) -> None:
    """Prints the latest runs, newest first; with a `status` or a `workflow` those alone. Raises `InputError` C010 for no status."""
    known(status)
    async with opened_journal() as journal:
        found = await listed(journal, time.time(), limit=limit, workflow=workflow, status=status) if journal is not None else []
        none = not found and (journal is None or not await journal.runs(1))
        asked = [run.run for run in found if run.workflow == ASK and journal is not None and not as_json]
        wanted = {run: short(request_of(History.of((await journal.read(run))[:1]))) for run in asked if journal is not None}
    if as_json:
        print_json(found)
        return
    if not found:
        say("no such runs" if not none else "no runs yet; begin with: orchestra run NAME")
        return
    paid = any(summary.usage.money > 0 for summary in found)
    rows = [
        (
            summary.run,
            summary.workflow + (f": {wanted[summary.run]}" if wanted.get(summary.run) else ""),
            summary.status,
            moment(summary.started),
            seconds(summary.finished - summary.started) if summary.finished else "",
            str(summary.nodes),
            str(summary.usage.prompt_tokens + summary.usage.output_tokens),
            *((money(summary.usage.money),) if paid else ()),
        )
        for summary in found
    ]
    headings = ("run", "workflow", "status", "started", "took", "nodes", "tokens", *(("money",) if paid else ()))
    print_table(headings, rows, right=range(4, len(headings)))


def request_of(history: History) -> str:
    """What a run of `orchestra ask` was asked; empty for one of another workflow."""
    said = history.inputs.get(REQUEST) if history.workflow == ASK and isinstance(history.inputs, Mapping) else None
    return said if isinstance(said, str) else ""


def short(request: str) -> str:
    """A request in a row of a table."""
    return shortened(" ".join(request.split()), LONGEST)

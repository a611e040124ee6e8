"""What `orchestra runs recover` does: the loss of commits accepted, and runs that may have lost events confirmed."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from orchestra.cli.context import load_settings
from orchestra.cli.output import print_json, print_note, print_text
from orchestra.cli.run import questions
from orchestra.cli.runs.find import find_run, open_journal_of
from orchestra.core.errors import InputError
from orchestra.core.untrusted_text import pluralize
from orchestra.journal.sqlite.commit_loss import AcceptedLoss, accept_loss, find_loss
from orchestra.journal.sqlite.journal import SqliteJournal

LOCK_TIMEOUT = 10.0
"""Seconds that another process may keep the file locked."""


async def accept_commit_loss(*, confirmed: bool, as_json: bool) -> None:
    """Takes the journal's file as it is, and lists the runs without an end. Raises `InputError` C010 where nobody can be asked,
    `JournalError` J027 where another process has the journal open."""
    place = load_settings().journal
    loss = await asyncio.to_thread(find_loss, place, LOCK_TIMEOUT) if isinstance(place, Path) else None
    if loss is None or not isinstance(place, Path):
        _report_no_loss(as_json=as_json)
        return
    print_note(f"{place}: {loss.description}")
    if not confirmed and not await _confirm_at_terminal():
        print_text("nothing was changed")
        return
    accepted = await asyncio.to_thread(accept_loss, place)
    if accepted is None:
        _report_no_loss(as_json=as_json)
    elif as_json:
        log = str(accepted.log_copy) if accepted.log_copy else None
        print_json(
            {"lost": accepted.loss.description, "commits": accepted.loss.commits, "log": log, "runs": accepted.runs}
        )
    else:
        _report_loss(accepted)


def _report_no_loss(*, as_json: bool) -> None:
    if as_json:
        print_json({"lost": None, "commits": 0, "log": None, "runs": []})
    else:
        print_text("nothing is missing")


def _report_loss(accepted: AcceptedLoss) -> None:
    print_text("accepted; the journal can be opened again")
    if accepted.log_copy:
        print_text(f"the log as it was found: {accepted.log_copy}")
    print_text(
        "runs that began after the loss are not there: a request that is repeated under its key begins again",
        style="yellow",
    )
    if accepted.runs:
        said = "may have lost events; look at each (orchestra runs show RUN), then: orchestra runs recover RUN"
        print_text(f"{pluralize(len(accepted.runs), 'run')} without an end {said}", style="yellow")
        for run in accepted.runs:
            print_text(run)


async def confirm_runs(names: Sequence[str], *, as_json: bool) -> None:
    """Lets runs go on that may have lost their last events. Raises `InputError` C018 for a run that is not there."""
    async with open_journal_of(names[0]) as (journal, first):
        for run in dict.fromkeys([first, *[await find_run(journal, name) for name in names[1:]]]):
            confirmed = isinstance(journal, SqliteJournal) and await journal.confirm_loss(run)
            if as_json:
                print_json({"run": run, "confirmed": confirmed})
            else:
                print_text(
                    f"{run}  may go on: orchestra runs resume {run}"
                    if confirmed
                    else f"{run}  has lost nothing that is known of"
                )


async def _confirm_at_terminal() -> bool:
    """Whether the person at the terminal wants it. Raises `InputError` C010 where nobody sits there."""
    if not questions.is_interactive():
        raise InputError(
            "C010", "the loss would be accepted", hint="add --yes, once the file and its log cannot be put back"
        )
    sys.stderr.write("go on without what is lost? [y/N] ")
    sys.stderr.flush()
    return (await questions.read_terminal_line() or "").strip().lower() in ("y", "yes")

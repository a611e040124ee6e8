"""What `orchestra runs recover` does: the loss of commits accepted, and runs that may have lost events confirmed."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from orchestra.cli.context import settings
from orchestra.cli.output import note, print_json, say
from orchestra.cli.run import questions
from orchestra.cli.runs.find import find_run, opened_at
from orchestra.core.errors import InputError
from orchestra.core.untrusted_text import counted
from orchestra.journal.sqlite.commit_loss import Accepted, accept_loss, find_loss
from orchestra.journal.sqlite.journal import SqliteJournal

WAIT = 10.0
"""Seconds that another process may keep the file locked."""


async def accept(*, sure: bool, as_json: bool) -> None:
    """Takes the journal's file as it is, and lists the runs without an end. Raises `InputError` C010 where nobody can be asked,
    `JournalError` J027 where another process has the journal open."""
    place = settings().journal
    loss = await asyncio.to_thread(find_loss, place, WAIT) if isinstance(place, Path) else None
    if loss is None or not isinstance(place, Path):
        _tell_nothing(as_json=as_json)
        return
    note(f"{place}: {loss.what}")
    if not sure and not await _agreed():
        say("nothing was changed")
        return
    accepted = await asyncio.to_thread(accept_loss, place)
    if accepted is None:
        _tell_nothing(as_json=as_json)
    elif as_json:
        log = str(accepted.log) if accepted.log else None
        print_json({"lost": accepted.loss.what, "commits": accepted.loss.commits, "log": log, "runs": accepted.runs})
    else:
        _tell(accepted)


def _tell_nothing(*, as_json: bool) -> None:
    if as_json:
        print_json({"lost": None, "commits": 0, "log": None, "runs": []})
    else:
        say("nothing is missing")


def _tell(accepted: Accepted) -> None:
    say("accepted; the journal can be opened again")
    if accepted.log:
        say(f"the log as it was found: {accepted.log}")
    say("runs that began after the loss are not there: a request that is repeated under its key begins again", style="yellow")
    if accepted.runs:
        said = "may have lost events; look at each (orchestra runs show RUN), then: orchestra runs recover RUN"
        say(f"{counted(len(accepted.runs), 'run')} without an end {said}", style="yellow")
        for run in accepted.runs:
            say(run)


async def confirm(names: Sequence[str], *, as_json: bool) -> None:
    """Lets runs go on that may have lost their last events. Raises `InputError` C018 for a run that is not there."""
    async with opened_at(names[0]) as (journal, first):
        for run in dict.fromkeys([first, *[await find_run(journal, name) for name in names[1:]]]):
            confirmed = isinstance(journal, SqliteJournal) and await journal.confirm(run)
            if as_json:
                print_json({"run": run, "confirmed": confirmed})
            else:
                say(f"{run}  may go on: orchestra runs resume {run}" if confirmed else f"{run}  has lost nothing that is known of")


async def _agreed() -> bool:
    """Whether the person at the terminal wants it. Raises `InputError` C010 where nobody sits there."""
    if not questions.somebody_is_here():
        raise InputError("C010", "the loss would be accepted", hint="add --yes, once the file and its log cannot be put back")
    sys.stderr.write("go on without what is lost? [y/N] ")
    sys.stderr.flush()
    return (await questions.line_from_terminal() or "").strip().lower() in ("y", "yes")

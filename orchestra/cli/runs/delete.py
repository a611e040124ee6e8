"""What `orchestra runs delete` does: named runs deleted for good, and what they leave behind said."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence

from orchestra.app.run_queries import copies
from orchestra.app.run_status import Wanted, listed
from orchestra.cli.output import moment, note, print_json, say, size
from orchestra.cli.runs.export import GONE, agreed, removed, room
from orchestra.cli.runs.find import find_run, nothing, opened_journal
from orchestra.core.errors import InputError
from orchestra.core.protocols import EVERY, Journal, RunSummary
from orchestra.core.tags import Tags, written
from orchestra.core.untrusted_text import counted
from orchestra.journal.errors import undelivered
from orchestra.journal.sqlite.journal import SqliteJournal
from orchestra.journal.summary import standing

MAX_HEIRS = 5
ELSEWHERE = "not in the journal, and left as they are: files made of runs (exports, pages, batches, rows to learn from), logs, backups"


async def delete(names: Sequence[str], tags: Tags, *, dry_run: bool, sure: bool, as_json: bool) -> None:
    """Deletes runs, those that are named and those with all of these tags; none where one of them cannot go.

    Raises `InputError` C018 for one that is not there, C056 for one that has not ended, C010 where nobody can be asked; `JournalError` J024
    where messages of one are not delivered. A fault of the journal in the middle says what was deleted before.
    """
    async with opened_journal() as journal:
        if journal is None:
            raise nothing(repr(names[0]) if names else f"with the tag {written(tags)}")
        tagged = await listed(journal, time.time(), Wanted(EVERY, tags=tags)) if tags else ()
        found = await _ended(journal, dict.fromkeys([*[await find_run(journal, name) for name in names], *(run.run for run in tagged)]))
        if not found:
            raise InputError("C018", f"no run has the tag {written(tags)}", hint="orchestra runs list --tag NAME=VALUE")
        heirs = await copies(journal, {run.run for run in found})
        if not as_json:
            for run in found:
                note(f"{run.run}  {run.workflow}  {run.status}  {moment(run.started)}")
            _tell(heirs)
        if not dry_run and not sure and not await agreed(len(found)):
            say("nothing was deleted")
            return
        before = room()
        gone, _ = await removed(journal, [] if dry_run else [run.run for run in found], (GONE,))
        if gone and isinstance(journal, SqliteJournal):  # a database gives room back by itself
            await journal.compact()
        freed = max(0, before - room())
        left = room("-wal") if gone else 0
    if as_json:
        told = {"runs": [run.run for run in found], "deleted": len(gone), "freed": freed}
        print_json({**told, "copies": heirs, "wal": left})
        return
    if dry_run:
        say(f"{counted(len(found), 'run')} would be deleted")
        return
    say(f"{counted(len(gone), 'run')} deleted, {size(freed)} freed")
    if left:
        note("other processes read the journal: its -wal has pages of before until they close it, or the next: orchestra runs gc")


async def _ended(journal: Journal, names: Collection[str]) -> list[RunSummary]:
    """The runs of these ids. Raises as `delete` does where one cannot go."""
    found, now = [], time.time()
    for name in names:
        if (summary := await journal.summary(name)) is None:
            raise InputError("C018", f"there is no run {name!r}", hint="orchestra runs list")
        if summary.finished is None:
            status = standing(summary, now).status
            raise InputError("C056", f"run {name} is {status}, and may go on", hint=f"end it first: orchestra runs cancel {name}")
        found.append(summary)
    after = 0
    while messages := await journal.outbox(after):
        if message := next((message for message in messages if message.run in names), None):
            raise undelivered(message.run)
        after = messages[-1].number
    return found


def _tell(heirs: Sequence[str]) -> None:
    """What stays, on stderr."""
    if heirs:
        more = f" and {len(heirs) - MAX_HEIRS} more" if len(heirs) > MAX_HEIRS else ""
        note(f"{counted(len(heirs), 'other run')} with copies of what they were given or answered: {' '.join(heirs[:MAX_HEIRS])}{more}")
    note(ELSEWHERE)

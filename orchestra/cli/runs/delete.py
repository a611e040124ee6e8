"""What `orchestra runs delete` does: named runs deleted for good, and what they leave behind said."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence

from orchestra.app.run_queries import derived_runs
from orchestra.app.run_status import RunListQuery, latest_runs
from orchestra.cli.output import format_size, format_time, print_json, print_note, print_text
from orchestra.cli.runs.export import DELETED_CODE, confirm_deletion, delete_in_batches, size_on_disk
from orchestra.cli.runs.find import find_run, no_runs_error, open_existing_journal
from orchestra.core.errors import InputError
from orchestra.core.protocols import NO_LIMIT, Journal, RunSummary
from orchestra.core.tags import Tags, format_tags
from orchestra.core.untrusted_text import pluralize
from orchestra.journal.errors import undelivered_error
from orchestra.journal.sqlite.journal import SqliteJournal
from orchestra.journal.summary import summary_at

MAX_DEPENDENTS_SHOWN = 5
COPIES_NOTE = "not in the journal, and left as they are: files made of runs (exports, pages, batches, rows to learn from), logs, backups"


async def delete(names: Sequence[str], tags: Tags, *, dry_run: bool, confirmed: bool, as_json: bool) -> None:
    """Deletes runs, those that are named and those with all of these tags; none where one of them cannot go.

    Raises `InputError` C018 for one that is not there, C056 for one that has not ended, C010 where nobody can be asked; `JournalError` J024
    where messages of one are not delivered. A fault of the journal in the middle says what was deleted before.
    """
    async with open_existing_journal() as journal:
        if journal is None:
            raise no_runs_error(repr(names[0]) if names else f"with the tag {format_tags(tags)}")
        tagged = await latest_runs(journal, time.time(), RunListQuery(NO_LIMIT, tags=tags)) if tags else ()
        found = await _find_ended(
            journal, dict.fromkeys([*[await find_run(journal, name) for name in names], *(run.run for run in tagged)])
        )
        if not found:
            raise InputError(
                "C018", f"no run has the tag {format_tags(tags)}", hint="orchestra runs list --tag NAME=VALUE"
            )
        heirs = await derived_runs(journal, {run.run for run in found})
        if not as_json:
            for run in found:
                print_note(f"{run.run}  {run.workflow}  {run.status}  {format_time(run.started)}")
            _report_dependents(heirs)
        if not dry_run and not confirmed and not await confirm_deletion(len(found)):
            print_text("nothing was deleted")
            return
        before = size_on_disk()
        gone, _ = await delete_in_batches(journal, [] if dry_run else [run.run for run in found], (DELETED_CODE,))
        if gone and isinstance(journal, SqliteJournal):  # a database gives room back by itself
            await journal.compact()
        freed = max(0, before - size_on_disk())
        left = size_on_disk("-wal") if gone else 0
    if as_json:
        told = {"runs": [run.run for run in found], "deleted": len(gone), "freed": freed}
        print_json({**told, "copies": heirs, "wal": left})
        return
    if dry_run:
        print_text(f"{pluralize(len(found), 'run')} would be deleted")
        return
    print_text(f"{pluralize(len(gone), 'run')} deleted, {format_size(freed)} freed")
    if left:
        print_note(
            "other processes read the journal: its -wal has pages of before until they close it, or the next: orchestra runs gc"
        )


async def _find_ended(journal: Journal, names: Collection[str]) -> list[RunSummary]:
    """The runs of these ids. Raises as `delete` does where one cannot go."""
    found, now = [], time.time()
    for name in names:
        if (summary := await journal.summary(name)) is None:
            raise InputError("C018", f"there is no run {name!r}", hint="orchestra runs list")
        if summary.finished is None:
            status = summary_at(summary, now).status
            raise InputError(
                "C056", f"run {name} is {status}, and may go on", hint=f"end it first: orchestra runs cancel {name}"
            )
        found.append(summary)
    after = 0
    while messages := await journal.outbox(after):
        if message := next((message for message in messages if message.run in names), None):
            raise undelivered_error(message.run)
        after = messages[-1].number
    return found


def _report_dependents(dependents: Sequence[str]) -> None:
    """What stays, on stderr."""
    if dependents:
        more = f" and {len(dependents) - MAX_DEPENDENTS_SHOWN} more" if len(dependents) > MAX_DEPENDENTS_SHOWN else ""
        print_note(
            f"{pluralize(len(dependents), 'other run')} with copies of what they were given or answered: {' '.join(dependents[:MAX_DEPENDENTS_SHOWN])}{more}"
        )
    print_note(COPIES_NOTE)

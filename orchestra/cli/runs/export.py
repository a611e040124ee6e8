"""What `orchestra runs export` and `gc` do: runs written to a file, and runs deleted when they are old."""

from __future__ import annotations

import base64
import os
import sys
import time
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import msgspec

from orchestra.app.run_queries import delete_runs, first_and_last_events
from orchestra.cli.context import load_settings_to_inspect
from orchestra.cli.output import format_size, json_line, print_json, print_note, print_text
from orchestra.cli.run import questions
from orchestra.cli.runs.batch_marks import KEYED_RUN_PREFIX, BatchMarks
from orchestra.cli.runs.find import find_run, open_existing_journal, open_journal_of, status_of
from orchestra.cli.timestamps import parse_age
from orchestra.core.atomic_files import open_private_file
from orchestra.core.errors import InputError, OrchestraError
from orchestra.core.events import Event, RunStarted, encode
from orchestra.core.protocols import NO_LIMIT, Journal, OutboxMessage, RunSummary
from orchestra.core.untrusted_text import pluralize
from orchestra.journal.errors import JournalError
from orchestra.journal.hash_chain import next_hash
from orchestra.journal.sqlite.journal import SqliteJournal
from orchestra.journal.summary import blob_digests

FORMAT = "orchestra/export/v1"
DELETE_BATCH_SIZE = 1000
"""Runs that are deleted in one transaction: a few tenths of a second, for which others wait."""
UNDELIVERED_CODE = "J024"
DELETED_CODE = "J023"


async def export(names: Sequence[str], target: Path | None, *, blobs: bool, as_json: bool) -> None:
    """Writes runs as lines of JSON: what one is, its events, its letters, then each blob that they name, in base64 under its digest.

    Raises `InputError` C018 for a run that is not there, before anything is written, and `OrchestraError` C023 where that cannot be.
    """
    async with open_journal_of(names[0]) as (journal, first):
        runs = list(dict.fromkeys([first, *[await find_run(journal, name) for name in names[1:]]]))
        try:
            with nullcontext(None) if target is None else open_private_file(target) as file:
                told = [(run, *await write_run(journal, run, file, blobs=blobs)) for run in runs]
                (file or sys.stdout).flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise _unwritable_error(target, error) from error
    for run, events, stored in told if target is not None else ():
        if as_json:
            print_json({"file": str(target), "run": run, "events": events, "blobs": stored})
        else:
            print_note(f"{target}: {events} events, {stored} blobs of run {run}")


async def write_run(journal: Journal, run: str, file: IO[bytes] | None, *, blobs: bool = True) -> tuple[int, int]:
    """Writes a run's export, on stdout where there is no file; gives how many events and blobs it has."""
    status = await status_of(journal, run)
    events, letters = await journal.read(run), await journal.inbox(run)
    digests = dict.fromkeys(blob_digests(events)) if blobs else {}
    marks = BatchMarks(journal)
    told: dict[str, Any] = {
        "status": status,
        "chain": chain_digest(run, events),
        "undelivered": await _undelivered_nodes(journal, run),
    }
    told |= {"unwritten": await marks.is_unwritten(run), "followed": bool(await marks.follow_state(run))}
    _write_line(file, {"schema": FORMAT, "run": run, "events": len(events), "blobs": len(digests), **told})
    for event in events:
        _write_line(file, {"event": msgspec.Raw(encode(event))})
    for letter in letters:
        _write_line(file, {"letter": letter})
    for digest in digests:
        data = await journal.get_blob(digest)
        _write_line(file, {"blob": digest, "base64": None if data is None else base64.b64encode(data).decode()})
    return len(events), len(digests)


def chain_digest(run: str, events: Iterable[Event]) -> str:
    """The last link of a hash chain of events, whichever journal has them, in hexadecimal."""
    last = run.encode()
    for event in events:
        last = next_hash(last, encode(event))
    return last.hex()


async def _undelivered_nodes(journal: Journal, run: str) -> list[str]:
    """The nodes of a run whose messages in the outbox are not delivered."""
    return [message.node async for message in _read_outbox(journal) if message.run == run]


async def _undelivered_runs(journal: Journal) -> set[str]:
    """The runs with messages in the outbox that are not delivered."""
    return {message.run async for message in _read_outbox(journal)}


async def _read_outbox(journal: Journal) -> AsyncIterator[OutboxMessage]:
    after = 0
    while messages := await journal.outbox(after):
        for message in messages:
            yield message
        after = messages[-1].number


def _write_line(file: IO[bytes] | None, value: dict[str, Any]) -> None:
    encoded = msgspec.json.encode(value)
    if file is None:
        sys.stdout.write(json_line(encoded))
    else:
        file.write(encoded + b"\n")


def _unwritable_error(target: Path | None, error: OSError) -> OrchestraError:
    return OrchestraError(
        "C023", f"{target or 'the output'} cannot be written: {error.strerror}", hint="name another with --output"
    )


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """Which ended runs are to go: those that ended before `older`, and are not among the newest `keep`."""

    older: float | None
    """Seconds; None for any age."""
    keep: int

    @classmethod
    def from_options(cls, older: str | None, keep: int | None) -> RetentionPolicy:
        """What the options say, else the setting `retention`. Raises `InputError` C010 where nothing does."""
        if older is None and keep is None:
            older = load_settings_to_inspect().retention
            if older == "off":
                hint = "orchestra runs gc --older 30d; or set retention in orchestra.toml"
                raise InputError("C010", "nothing says which runs are old", hint=hint)
        return cls(None if older is None else parse_age(older), keep or 0)

    def select(self, runs: list[RunSummary], now: float) -> list[RunSummary]:
        """Those of the runs, newest first, that are to go, oldest first."""
        ended = [run for run in runs if run.finished is not None][self.keep :]
        return [run for run in reversed(ended) if self.older is None or now - (run.finished or now) > self.older]


async def collect_garbage(policy: RetentionPolicy, *, dry_run: bool, confirmed: bool, as_json: bool) -> None:
    """Deletes ended runs that are old, and gives their room back; none with messages that are not delivered. Raises `InputError` C010."""
    async with open_existing_journal() as journal:
        found, unwritten = await _expired_runs(journal, policy) if journal is not None else ([], 0)
        if dry_run or not found or journal is None:
            if as_json:
                print_json(
                    {"runs": [run.run for run in found], "deleted": 0, "kept": 0, "unwritten": unwritten, "freed": 0}
                )
                return
            for run in found:
                print_text(f"{run.run}  {run.workflow}  {run.status}")
            if found or not unwritten:
                print_text(f"{pluralize(len(found), 'run')} would be deleted" if found else "no run is old enough")
            _report_unwritten(unwritten)
            return
        if not confirmed and not await confirm_deletion(len(found)):
            print_text("nothing was deleted")
            return
        before = size_on_disk()
        deleted, spared = await delete_in_batches(journal, [run.run for run in found], (UNDELIVERED_CODE, DELETED_CODE))
        kept = sum(error.code == UNDELIVERED_CODE for error in spared)
        if isinstance(journal, SqliteJournal):  # a database gives room back by itself
            await journal.compact()
        freed = max(0, before - size_on_disk())
    if as_json:
        print_json({"runs": deleted, "deleted": len(deleted), "kept": kept, "unwritten": unwritten, "freed": freed})
        return
    print_text(f"{pluralize(len(deleted), 'run')} deleted, {format_size(freed)} freed")
    if kept:
        print_text(f"{kept} kept: their messages in the outbox are not delivered yet", style="yellow")
    _report_unwritten(unwritten)


def _report_unwritten(count: int) -> None:
    if count:
        said = "their batch has not written what they came to: give it again, or name them: orchestra runs delete RUN"
        print_text(f"{count} kept: {said}", style="yellow")


async def _expired_runs(journal: Journal, policy: RetentionPolicy) -> tuple[list[RunSummary], int]:
    """The runs that are to go, and how many stay because a batch still needs them."""
    chosen, unwritten = policy.select(await journal.list_runs(NO_LIMIT), time.time()), set[str]()
    for some in split_batches([run.run for run in chosen if run.run.startswith(KEYED_RUN_PREFIX)], DELETE_BATCH_SIZE):
        unwritten |= await BatchMarks(journal).filter_unwritten(some)
    return [run for run in chosen if run.run not in unwritten], len(unwritten)


async def delete_in_batches(
    journal: Journal, runs: Sequence[str], tolerated_codes: Collection[str]
) -> tuple[list[str], list[OrchestraError]]:
    """Deletes runs; gives those that are deleted, and why others are not, where that has a code that is `is_transient`. Raises the first other
    `JournalError`, which says what is deleted all the same. Marks stay of what others must know of the runs."""
    gone, kept = list[str](), list[OrchestraError]()
    for some in split_batches(runs, DELETE_BATCH_SIZE):  # each a transaction of its own: others write in between
        firsts = {
            run: first for run, (first, _) in (await first_and_last_events(journal, some)).items()
        }  # a damaged one may go all the same
        parents = {run: first.parent if isinstance(first := firsts.get(run), RunStarted) else "" for run in some}
        await BatchMarks(journal).mark_before_delete(parents)
        told = await delete_runs(journal, some)
        gone += [run for run, error in zip(some, told, strict=True) if error is None]
        for error in filter(None, told):
            if error.code not in tolerated_codes:
                said = f"{len(gone)} of {pluralize(len(runs), 'run')} deleted: {' '.join(gone) or 'none'}"
                raise JournalError(
                    error.code, error.message, location=error.location, hint=error.hint, why=said
                ) from error
            kept.append(error)
    return gone, kept


def split_batches(runs: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    """The same in lists of so many."""
    return (runs[start : start + size] for start in range(0, len(runs), size))


async def confirm_deletion(count: int) -> bool:
    """Whether the person at the terminal wants it. Raises `InputError` C010 where nobody sits there."""
    if not questions.is_interactive():
        raise InputError(
            "C010",
            f"{pluralize(count, 'run')} would be deleted for good",
            hint="add --yes, or look first with --dry-run",
        )
    sys.stderr.write(f"delete {pluralize(count, 'run')} for good? [y/N] ")
    sys.stderr.flush()
    return (await questions.read_terminal_line() or "").strip().lower() in ("y", "yes")


def size_on_disk(*parts: str) -> int:
    """Bytes on disk of the journal's file and its log, or of what else stands beside it."""
    place = load_settings_to_inspect().journal
    files = [place.with_name(place.name + part) for part in parts or ("", "-wal")] if isinstance(place, Path) else []
    return sum(os.stat(file).st_size for file in files if file.exists())

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

from orchestra.app.run_queries import delete_all, ends
from orchestra.cli.context import settings_to_inspect
from orchestra.cli.output import json_line, note, print_json, say, size
from orchestra.cli.run import questions
from orchestra.cli.runs.batch_marks import KEYED, Marks
from orchestra.cli.runs.find import find_run, opened_at, opened_journal, status_of
from orchestra.cli.timestamps import age
from orchestra.core.atomic_files import private_file
from orchestra.core.errors import InputError, OrchestraError
from orchestra.core.events import Event, RunStarted, encode
from orchestra.core.protocols import EVERY, Journal, Message, RunSummary
from orchestra.core.untrusted_text import counted
from orchestra.journal.errors import JournalError
from orchestra.journal.hash_chain import link
from orchestra.journal.sqlite.journal import SqliteJournal
from orchestra.journal.summary import named

FORMAT = "orchestra/export/v1"
AT_ONCE = 1000
"""Runs that are deleted in one transaction: a few tenths of a second, for which others wait."""
UNDELIVERED = "J024"
GONE = "J023"


async def export(names: Sequence[str], target: Path | None, *, blobs: bool, as_json: bool) -> None:
    """Writes runs as lines of JSON: what one is, its events, its letters, then each blob that they name, in base64 under its digest.

    Raises `InputError` C018 for a run that is not there, before anything is written, and `OrchestraError` C023 where that cannot be.
    """
    async with opened_at(names[0]) as (journal, first):
        runs = list(dict.fromkeys([first, *[await find_run(journal, name) for name in names[1:]]]))
        try:
            with nullcontext(None) if target is None else private_file(target) as file:
                told = [(run, *await write(journal, run, file, blobs=blobs)) for run in runs]
                (file or sys.stdout).flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise _unwritable(target, error) from error
    for run, events, stored in told if target is not None else ():
        if as_json:
            print_json({"file": str(target), "run": run, "events": events, "blobs": stored})
        else:
            note(f"{target}: {events} events, {stored} blobs of run {run}")


async def write(journal: Journal, run: str, file: IO[bytes] | None, *, blobs: bool = True) -> tuple[int, int]:
    """Writes a run's export, on stdout where there is no file; gives how many events and blobs it has."""
    status = await status_of(journal, run)
    events, letters = await journal.read(run), await journal.letters(run)
    digests = dict.fromkeys(named(events)) if blobs else {}
    marks = Marks(journal)
    told: dict[str, Any] = {"status": status, "chain": chain(run, events), "undelivered": await _undelivered(journal, run)}
    told |= {"unwritten": await marks.unwritten(run), "followed": bool(await marks.followed(run))}
    _line(file, {"schema": FORMAT, "run": run, "events": len(events), "blobs": len(digests), **told})
    for event in events:
        _line(file, {"event": msgspec.Raw(encode(event))})
    for letter in letters:
        _line(file, {"letter": letter})
    for digest in digests:
        data = await journal.blob(digest)
        _line(file, {"blob": digest, "base64": None if data is None else base64.b64encode(data).decode()})
    return len(events), len(digests)


def chain(run: str, events: Iterable[Event]) -> str:
    """The last link of a hash chain of events, whichever journal has them, in hexadecimal."""
    last = run.encode()
    for event in events:
        last = link(last, encode(event))
    return last.hex()


async def _undelivered(journal: Journal, run: str) -> list[str]:
    """The nodes of a run whose messages in the outbox are not delivered."""
    return [message.node async for message in _outbox(journal) if message.run == run]


async def _senders(journal: Journal) -> set[str]:
    """The runs with messages in the outbox that are not delivered."""
    return {message.run async for message in _outbox(journal)}


async def _outbox(journal: Journal) -> AsyncIterator[Message]:
    after = 0
    while messages := await journal.outbox(after):
        for message in messages:
            yield message
        after = messages[-1].number


def _line(file: IO[bytes] | None, value: dict[str, Any]) -> None:
    encoded = msgspec.json.encode(value)
    if file is None:
        sys.stdout.write(json_line(encoded))
    else:
        file.write(encoded + b"\n")


def _unwritable(target: Path | None, error: OSError) -> OrchestraError:
    return OrchestraError("C023", f"{target or 'the output'} cannot be written: {error.strerror}", hint="name another with --output")


@dataclass(frozen=True, slots=True)
class Sweep:
    """Which ended runs are to go: those that ended before `older`, and are not among the newest `keep`."""

    older: float | None
    """Seconds; None for any age."""
    keep: int

    @classmethod
    def of(cls, older: str | None, keep: int | None) -> Sweep:
        """What the options say, else the setting `retention`. Raises `InputError` C010 where nothing does."""
        if older is None and keep is None:
            older = settings_to_inspect().retention
            if older == "off":
                hint = "orchestra runs gc --older 30d; or set retention in orchestra.toml"
                raise InputError("C010", "nothing says which runs are old", hint=hint)
        return cls(None if older is None else age(older), keep or 0)

    def chosen(self, runs: list[RunSummary], now: float) -> list[RunSummary]:
        """Those of the runs, newest first, that are to go, oldest first."""
        ended = [run for run in runs if run.finished is not None][self.keep :]
        return [run for run in reversed(ended) if self.older is None or now - (run.finished or now) > self.older]


async def sweep(wanted: Sweep, *, dry_run: bool, sure: bool, as_json: bool) -> None:
    """Deletes ended runs that are old, and gives their room back; none with messages that are not delivered. Raises `InputError` C010."""
    async with opened_journal() as journal:
        found, unwritten = await _old(journal, wanted) if journal is not None else ([], 0)
        if dry_run or not found or journal is None:
            if as_json:
                print_json({"runs": [run.run for run in found], "deleted": 0, "kept": 0, "unwritten": unwritten, "freed": 0})
                return
            for run in found:
                say(f"{run.run}  {run.workflow}  {run.status}")
            if found or not unwritten:
                say(f"{counted(len(found), 'run')} would be deleted" if found else "no run is old enough")
            _tell_unwritten(unwritten)
            return
        if not sure and not await agreed(len(found)):
            say("nothing was deleted")
            return
        before = room()
        deleted, spared = await removed(journal, [run.run for run in found], (UNDELIVERED, GONE))
        kept = sum(error.code == UNDELIVERED for error in spared)
        if isinstance(journal, SqliteJournal):  # a database gives room back by itself
            await journal.compact()
        freed = max(0, before - room())
    if as_json:
        print_json({"runs": deleted, "deleted": len(deleted), "kept": kept, "unwritten": unwritten, "freed": freed})
        return
    say(f"{counted(len(deleted), 'run')} deleted, {size(freed)} freed")
    if kept:
        say(f"{kept} kept: their messages in the outbox are not delivered yet", style="yellow")
    _tell_unwritten(unwritten)


def _tell_unwritten(count: int) -> None:
    if count:
        said = "their batch has not written what they came to: give it again, or name them: orchestra runs delete RUN"
        say(f"{count} kept: {said}", style="yellow")


async def _old(journal: Journal, wanted: Sweep) -> tuple[list[RunSummary], int]:
    """The runs that are to go, and how many stay because a batch still needs them."""
    chosen, unwritten = wanted.chosen(await journal.runs(EVERY), time.time()), set[str]()
    for some in batched([run.run for run in chosen if run.run.startswith(KEYED)], AT_ONCE):
        unwritten |= await Marks(journal).unwritten_of(some)
    return [run for run in chosen if run.run not in unwritten], len(unwritten)


async def removed(journal: Journal, runs: Sequence[str], passing: Collection[str]) -> tuple[list[str], list[OrchestraError]]:
    """Deletes runs; gives those that are deleted, and why others are not, where that has a code that is `passing`. Raises the first other
    `JournalError`, which says what is deleted all the same. Marks stay of what others must know of the runs."""
    gone, kept = list[str](), list[OrchestraError]()
    for some in batched(runs, AT_ONCE):  # each a transaction of its own: others write in between
        firsts = {run: first for run, (first, _) in (await ends(journal, some)).items()}  # a damaged one may go all the same
        parents = {run: first.parent if isinstance(first := firsts.get(run), RunStarted) else "" for run in some}
        await Marks(journal).leave(parents)
        told = await delete_all(journal, some)
        gone += [run for run, error in zip(some, told, strict=True) if error is None]
        for error in filter(None, told):
            if error.code not in passing:
                said = f"{len(gone)} of {counted(len(runs), 'run')} deleted: {' '.join(gone) or 'none'}"
                raise JournalError(error.code, error.message, place=error.place, hint=error.hint, why=said) from error
            kept.append(error)
    return gone, kept


def batched(runs: Sequence[str], most: int) -> Iterator[Sequence[str]]:
    """The same in lists of so many."""
    return (runs[start : start + most] for start in range(0, len(runs), most))


async def agreed(count: int) -> bool:
    """Whether the person at the terminal wants it. Raises `InputError` C010 where nobody sits there."""
    if not questions.somebody_is_here():
        raise InputError("C010", f"{counted(count, 'run')} would be deleted for good", hint="add --yes, or look first with --dry-run")
    sys.stderr.write(f"delete {counted(count, 'run')} for good? [y/N] ")
    sys.stderr.flush()
    return (await questions.line_from_terminal() or "").strip().lower() in ("y", "yes")


def room(*parts: str) -> int:
    """Bytes on disk of the journal's file and its log, or of what else stands beside it."""
    place = settings_to_inspect().journal
    files = [place.with_name(place.name + part) for part in parts or ("", "-wal")] if isinstance(place, Path) else []
    return sum(os.stat(file).st_size for file in files if file.exists())

"""What `orchestra runs import` does: runs that were exported, put into this journal as they were."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from orchestra.app.open_journal import open_journal
from orchestra.cli.batch.rows import rereadable_file
from orchestra.cli.context import load_settings_to_inspect
from orchestra.cli.output import print_json, print_note, print_text
from orchestra.cli.runs.batch_marks import BatchMarks
from orchestra.cli.runs.export import FORMAT, chain_digest
from orchestra.cli.runs.find import status_of
from orchestra.cli.signals import suspend_between_commits
from orchestra.core.error_codes import LEASE_HELD
from orchestra.core.errors import InputError, SourceLocation
from orchestra.core.events import AttemptFinished, Event, RunFinished, RunStarted, decode
from orchestra.core.protocols import InboxMessage, Journal
from orchestra.core.untrusted_text import escape_invisible, pluralize
from orchestra.journal.errors import JournalError
from orchestra.journal.summary import LogEnd, blob_digests, unleased_summary
from orchestra.schema.strict_json import digest

EXPORT_HINT = "export it once more: orchestra runs export RUN -o run.jsonl"
_RUN_ID = re.compile(r"(?!last\Z)[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


class _ExportHeader(msgspec.Struct, frozen=True, kw_only=True):
    """The first line of an export; earlier versions wrote less."""

    run: str
    events: int
    status: str = ""
    chain: str | None = None
    undelivered: tuple[str, ...] = ()
    unwritten: bool = False
    """Whether its batch had still to write what it came to."""
    followed: bool = False
    """Whether it was followed by another try."""


@dataclass(slots=True)
class ExportedRun:
    """A run as its export has it."""

    place: SourceLocation
    """Where it begins."""
    header: dict[str, Any]
    events: list[Event] = field(default_factory=list)
    blobs: dict[str, bytes] = field(default_factory=dict)
    missing_blobs: set[str] = field(default_factory=set)
    """Blobs that the journal of before did not have either."""
    messages: list[InboxMessage] = field(default_factory=list)

    @property
    def run(self) -> str:
        """Its id."""
        return str(self.header.get("run", ""))


async def import_runs(files: Sequence[Path], *, as_json: bool) -> None:
    """Puts exported runs into the journal: all of the files are looked through first, and where one is faulty, none is taken.

    Raises `InputError` C057 for what is no whole export, C058 for a run that is here with other events, or goes on elsewhere.
    """
    with ExitStack() as stack:
        sources = [(str(path), stack.enter_context(rereadable_file(path))) for path in files]
        chains: dict[str, str] = {}
        for run in read_runs(sources):
            check_run(run)
            if chains.setdefault(run.run, found := chain_digest(run.run, run.events)) != found:
                said = f"run {run.run} is in these files twice, with other events"
                raise InputError(
                    "C058", said, location=run.place, hint="name the file that was written last, and not the other"
                )
        await _import_files(sources, as_json=as_json)


async def _import_files(sources: Sequence[tuple[str, Path]], *, as_json: bool) -> None:
    with ExitStack() as signals:  # which outlasts the closing: it commits too
        await _import_all(sources, signals, as_json=as_json)


async def _import_all(sources: Sequence[tuple[str, Path]], signals: ExitStack, *, as_json: bool) -> None:
    async with open_journal(load_settings_to_inspect()) as journal:
        signals.enter_context(suspend_between_commits(journal))
        for run in read_runs(sources):
            await _refuse_conflicting(journal, run)
        for run in read_runs(sources):
            if new := not await journal.read(run.run):
                await put_run(journal, run)
            lacked = not new and await complete_run(journal, run)
            status = await status_of(journal, run.run)
            if as_json:
                print_json(
                    {"run": run.run, "workflow": getattr(run.events[0], "workflow", ""), "status": status, "new": new}
                )
                continue
            here = "" if new else ": what was missing of it is here now" if lacked else ": it is here already"
            print_text(f"{run.run}  {status}{here}")
            if (new or lacked) and status in ("waiting", "interrupted"):
                print_note(
                    "it may go on here: do not resume or answer it where it came from, or what it does is done twice"
                )


def check_run(run: ExportedRun) -> None:
    """Raises `InputError` C057 for an export that is not whole, C058 for a run that was under way."""
    events = run.events
    try:
        head = msgspec.convert(run.header, _ExportHeader)
    except msgspec.ValidationError as error:
        raise _export_error(run.place, f"this is no first line of an export: {error}") from error
    if not _RUN_ID.fullmatch(run.run):
        raise _export_error(run.place, f"{run.run!r} is no id of a run")
    try:
        LogEnd(run.run).extend(events)
    except JournalError as error:
        raise _export_error(run.place, error.message) from error
    if (
        not events
        or not isinstance(first := events[0], RunStarted)
        or first.run != run.run
        or len(events) != head.events
    ):
        raise _export_error(run.place, f"the events of run {run.run!r} are not all there")
    if head.chain is not None and head.chain != chain_digest(run.run, events):
        raise _export_error(run.place, f"the events of run {run.run} are not those that were exported")
    if lacking := set(blob_digests(events)) - run.blobs.keys() - run.missing_blobs:
        raise _export_error(
            run.place,
            f"{pluralize(len(lacking), 'blob')} of run {run.run} are not there",
            "export it without --no-blobs",
        )
    if head.status == "running" and not isinstance(events[-1], RunFinished):
        hint = f"let it end, or stop its process, and export it once more: orchestra runs export {run.run}"
        raise InputError(
            "C058",
            f"run {run.run} was under way when it was exported, and goes on there",
            location=run.place,
            hint=hint,
        )


async def put_run(journal: Journal, run: ExportedRun) -> None:
    """Puts a run that is not there into a journal. One without an end is let go of: it waits, or is interrupted."""
    for data in run.blobs.values():
        journal.put_blob(data)
    _restore_marks(journal, run)
    # Messages were delivered where the run came from, but for those that the export names.
    open_ = set(run.header.get("undelivered", ()))
    journal.append(
        run.run,
        run.events,
        {one.node for one in run.events if isinstance(one, AttemptFinished) and one.node not in open_},
    )
    await journal.wait_durable(run.run, len(run.events))
    if not isinstance(run.events[-1], RunFinished):
        await _restore_messages(journal, run)
        await journal.release(run.run)


async def complete_run(journal: Journal, run: ExportedRun) -> bool:
    """Adds what a journal lacks of a run whose events it has, for its import was cut off, and lets go of one without an end; gives whether
    it lacked anything."""
    _restore_marks(journal, run)
    lacked = "undelivered" in run.header and await _restore_delivered(journal, run)
    if isinstance(run.events[-1], RunFinished):
        return lacked
    posted = await _restore_messages(journal, run)
    return await _release_lease(journal, run) or posted or lacked


async def _release_lease(journal: Journal, run: ExportedRun) -> bool:
    """Gives back the lease of an import that is gone, where the run waits for persons alone. Gives whether it did."""
    found = await journal.summary(run.run)
    if found is None or found.status != "interrupted":
        return False
    if unleased_summary(found, run.events, len(await journal.inbox(run.run))).status != "waiting":
        return False
    try:
        await journal.lease(run.run)
    except JournalError as error:
        if error.code != LEASE_HELD:
            raise
        return False  # somebody goes on with it
    await journal.release(run.run)
    return True


def _restore_marks(journal: Journal, run: ExportedRun) -> None:
    told = run.header.get
    BatchMarks(journal).mark_imported(run.run, unwritten=told("unwritten") is True, followed=told("followed") is True)


async def _restore_delivered(journal: Journal, run: ExportedRun) -> bool:
    """Marks the messages that were delivered where the run came from. Gives whether any were open."""
    after, open_, found = 0, set(run.header.get("undelivered", ())), False
    while messages := await journal.outbox(after):
        if numbers := [one.number for one in messages if one.run == run.run and one.node not in open_]:
            await journal.mark_delivered(numbers)
            found = True
        after = messages[-1].number
    return found


async def _restore_messages(journal: Journal, run: ExportedRun) -> bool:
    """Posts the letters that come behind those that are there; none where others are there. Gives whether there were any."""
    here, letters = (
        [msgspec.structs.replace(one, number=0) for one in some]
        for some in (await journal.inbox(run.run), run.messages)
    )
    missing = letters[len(here) :] if letters[: len(here)] == here else []
    for letter in missing:
        await journal.send(run.run, letter)
    return bool(missing)


async def _refuse_conflicting(journal: Journal, run: ExportedRun) -> None:
    there = await journal.read(run.run)
    if there and there != run.events:
        raise InputError(
            "C058",
            f"run {run.run} is in this journal, with other events",
            location=run.place,
            hint=f"orchestra runs show {run.run}",
        )


def read_runs(files: Iterable[tuple[str, Path]]) -> Iterator[ExportedRun]:
    """The runs of some files, which are named, one at a time. Raises `InputError` C057."""
    for name, path in files:
        with ExitStack() as stack:
            try:
                file = stack.enter_context(path.open("rb"))
                yield from _read_file(name, file)
            except OSError as error:
                raise InputError(
                    "C057", f"{name} cannot be read: {error.strerror}", hint="name a file of orchestra runs export"
                ) from error


def _read_file(name: str, file: BinaryIO) -> Iterator[ExportedRun]:
    run: ExportedRun | None = None
    for number, text in enumerate(file, 1):
        place = SourceLocation(name, number)
        try:
            line = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
            match line:
                case {"schema": schema}:
                    if run is not None:
                        yield run
                    run = ExportedRun(place, msgspec.json.decode(text))
                    if msgspec.json.decode(schema) != FORMAT:
                        raise _export_error(place, f"this is no {FORMAT}")
                case {"event": event} if run is not None:
                    run.events.append(decode(event))
                case {"letter": letter} if run is not None:
                    run.messages.append(msgspec.json.decode(letter, type=InboxMessage))
                case {"blob": blob, "base64": data} if run is not None:
                    _add_blob(
                        run, place, msgspec.json.decode(blob, type=str), msgspec.json.decode(data, type=str | None)
                    )
                case _:
                    raise _export_error(place, "this is no line of an export")
        except msgspec.ValidationError as error:
            said = f"it is of a kind that this version does not know: {error}"
            raise _export_error(
                place, said, "a newer Orchestra may have written it: pip install --upgrade orchestra-slm"
            ) from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise _export_error(place, f"this is no line of an export: {error}") from error
    if run is None:
        raise _export_error(SourceLocation(name, 1), "there is no run in it")
    yield run


def _add_blob(run: ExportedRun, place: SourceLocation, name: str, text: str | None) -> None:
    if text is None:
        run.missing_blobs.add(name)
        return
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _export_error(place, f"blob {name} is no base64") from error
    if digest(data) != name:
        raise _export_error(place, f"blob {name} is not what was exported")
    run.blobs[name] = data


def _export_error(place: SourceLocation, said: str, hint: str = EXPORT_HINT) -> InputError:
    return InputError("C057", escape_invisible(said), location=place, hint=hint)

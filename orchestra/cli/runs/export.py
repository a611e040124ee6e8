"""Moves runs out of and into a journal: `orchestra runs export`, `import`, `delete` and `gc`."""

from __future__ import annotations

import base64
import binascii
import os
import re
import sys
import time
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, BinaryIO

import msgspec

from orchestra.app.open_journal import open_journal
from orchestra.app.run_queries import delete_runs, derived_runs, first_and_last_events
from orchestra.app.run_status import RunListQuery, latest_runs
from orchestra.cli.context import load_settings_to_inspect
from orchestra.cli.options import parse_age
from orchestra.cli.output import is_interactive, json_line, print_json, print_note, print_text
from orchestra.cli.run import questions
from orchestra.cli.run.batch_row_state import KEYED_RUN_PREFIX, BatchMarks
from orchestra.cli.run.batch_rows import rereadable_file
from orchestra.cli.runs.find import find_run, no_runs_error, open_existing_journal, open_journal_of, status_of
from orchestra.cli.signals import suspend_between_commits
from orchestra.core.atomic_files import open_private_file
from orchestra.core.error_codes import LEASE_HELD
from orchestra.core.errors import InputError, OrchestraError, SourceLocation
from orchestra.core.events import AttemptFinished, Event, RunFinished, RunStarted, decode, encode
from orchestra.core.protocols import NO_LIMIT, InboxMessage, Journal, OutboxMessage, RunSummary
from orchestra.core.quantities import format_size, format_time
from orchestra.core.tags import Tags, format_tags
from orchestra.core.untrusted_text import escape_invisible, pluralize
from orchestra.journal.errors import JournalError, undelivered_error
from orchestra.journal.hash_chain import next_hash
from orchestra.journal.sqlite.journal import SqliteJournal
from orchestra.journal.summary import LogEnd, blob_digests, summary_at, unleased_summary
from orchestra.schema.strict_json import digest

FORMAT = "orchestra/export/v1"
DELETE_BATCH_SIZE = 1000
"""Runs deleted in one transaction, which blocks other writers for a few tenths of a second."""
UNDELIVERED_CODE = "J024"
DELETED_CODE = "J023"


async def export(names: Sequence[str], target: Path | None, *, blobs: bool, as_json: bool) -> None:
    """Writes runs as lines of JSON: a header, the events, the inbox messages, then each referenced blob in base64 with
    its digest.

    Raises `InputError` C018 for an unknown run, before anything is written, and `OrchestraError` C023 if the file
    cannot be written.
    """
    async with open_journal_of(names[0]) as (journal, first):
        runs = list(dict.fromkeys([first, *[await find_run(journal, name) for name in names[1:]]]))
        try:
            with nullcontext(None) if target is None else open_private_file(target) as file:
                written_runs = [(run, *await write_run(journal, run, file, blobs=blobs)) for run in runs]
                (file or sys.stdout).flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise _unwritable_error(target, error) from error
    for run, events, blob_count in written_runs if target is not None else ():
        if as_json:
            print_json({"file": str(target), "run": run, "events": events, "blobs": blob_count})
        else:
            print_note(f"{target}: {events} events, {blob_count} blobs of run {run}")


async def write_run(journal: Journal, run: str, file: IO[bytes] | None, *, blobs: bool = True) -> tuple[int, int]:
    """Writes the export of a run, to stdout without a file; returns the number of events and blobs."""
    status = await status_of(journal, run)
    events, letters = await journal.read(run), await journal.inbox(run)
    digests = dict.fromkeys(blob_digests(events)) if blobs else {}
    marks = BatchMarks(journal)
    trailer: dict[str, Any] = {
        "status": status,
        "chain": chain_digest(run, events),
        "undelivered": await _undelivered_nodes(journal, run),
    }
    trailer |= {"unwritten": await marks.is_unwritten(run), "followed": bool(await marks.follow_state(run))}
    _write_line(file, {"schema": FORMAT, "run": run, "events": len(events), "blobs": len(digests), **trailer})
    for event in events:
        _write_line(file, {"event": msgspec.Raw(encode(event))})
    for letter in letters:
        _write_line(file, {"letter": letter})
    for blob_digest in digests:
        data = await journal.get_blob(blob_digest)
        _write_line(file, {"blob": blob_digest, "base64": None if data is None else base64.b64encode(data).decode()})
    return len(events), len(digests)


def chain_digest(run: str, events: Iterable[Event]) -> str:
    """The last link of a hash chain of events in hexadecimal; the same in every journal."""
    last = run.encode()
    for event in events:
        last = next_hash(last, encode(event))
    return last.hex()


async def _undelivered_nodes(journal: Journal, run: str) -> list[str]:
    """The nodes of a run with undelivered messages in the outbox."""
    return [message.node async for message in _read_outbox(journal) if message.run == run]


async def _undelivered_runs(journal: Journal) -> set[str]:
    """The runs with undelivered messages in the outbox."""
    return {message.run async for message in _read_outbox(journal)}


async def _read_outbox(journal: Journal) -> AsyncIterator[OutboxMessage]:
    after = 0
    while messages := await journal.outbox(after):
        for message in messages:
            yield message
        after = messages[-1].number


def _write_line(file: IO[bytes] | None, value: dict[str, Any]) -> None:
    line_bytes = msgspec.json.encode(value)
    if file is None:
        sys.stdout.write(json_line(line_bytes))
    else:
        file.write(line_bytes + b"\n")


def _unwritable_error(target: Path | None, error: OSError) -> OrchestraError:
    return OrchestraError(
        "C023", f"{target or 'the output'} cannot be written: {error.strerror}", hint="choose another one with --output"
    )


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """Which ended runs are deleted: those older than `older` that are not among the newest `keep`."""

    older: float | None
    """Seconds; None for any age."""
    keep: int

    @classmethod
    def from_options(cls, older: str | None, keep: int | None) -> RetentionPolicy:
        """From the options, or the setting `retention`. Raises `InputError` C010 without either."""
        if older is None and keep is None:
            older = load_settings_to_inspect().retention
            if older == "off":
                hint = "orchestra runs gc --older 30d; or set retention in orchestra.toml"
                raise InputError("C010", "no age is set", hint=hint)
        return cls(None if older is None else parse_age(older), keep or 0)

    def select(self, runs: list[RunSummary], now: float) -> list[RunSummary]:
        """Selects from runs, newest first, those to delete, oldest first."""
        ended_runs = [run for run in runs if run.finished is not None][self.keep :]
        return [run for run in reversed(ended_runs) if self.older is None or now - (run.finished or now) > self.older]


async def collect_garbage(policy: RetentionPolicy, *, dry_run: bool, confirmed: bool, as_json: bool) -> None:
    """Deletes old ended runs without undelivered messages, and returns their disk space. Raises `InputError` C010."""
    async with open_existing_journal() as journal:
        run_summaries, unwritten = await _expired_runs(journal, policy) if journal is not None else ([], 0)
        if dry_run or not run_summaries or journal is None:
            if as_json:
                print_json(
                    {
                        "runs": [run.run for run in run_summaries],
                        "deleted": 0,
                        "kept": 0,
                        "unwritten": unwritten,
                        "freed": 0,
                    }
                )
                return
            for run in run_summaries:
                print_text(f"{run.run}  {run.workflow}  {run.status}")
            if run_summaries or not unwritten:
                print_text(
                    f"{pluralize(len(run_summaries), 'run')} would be deleted"
                    if run_summaries
                    else "no run is old enough"
                )
            _report_unwritten(unwritten)
            return
        if not confirmed and not await confirm_deletion(len(run_summaries)):
            print_text("nothing was deleted")
            return
        before = size_on_disk()
        deleted_runs, errors = await delete_in_batches(
            journal, [run.run for run in run_summaries], (UNDELIVERED_CODE, DELETED_CODE)
        )
        undelivered_count = sum(error.code == UNDELIVERED_CODE for error in errors)
        if isinstance(journal, SqliteJournal):  # PostgreSQL returns space by itself
            await journal.compact()
        freed_bytes = max(0, before - size_on_disk())
    if as_json:
        print_json(
            {
                "runs": deleted_runs,
                "deleted": len(deleted_runs),
                "kept": undelivered_count,
                "unwritten": unwritten,
                "freed": freed_bytes,
            }
        )
        return
    print_text(f"{pluralize(len(deleted_runs), 'run')} deleted, {format_size(freed_bytes)} freed")
    if undelivered_count:
        print_text(f"{undelivered_count} kept: their messages in the outbox are undelivered", style="yellow")
    _report_unwritten(unwritten)


def _report_unwritten(count: int) -> None:
    if count:
        advice = (
            "their batch has not written their results: repeat the batch, or delete them by name: "
            "orchestra runs delete RUN"
        )
        print_text(f"{count} kept: {advice}", style="yellow")


async def _expired_runs(journal: Journal, policy: RetentionPolicy) -> tuple[list[RunSummary], int]:
    """The runs to delete, and the number of those that a batch still needs."""
    selected_runs, unwritten = policy.select(await journal.list_runs(NO_LIMIT), time.time()), set[str]()
    for batch in split_batches(
        [run.run for run in selected_runs if run.run.startswith(KEYED_RUN_PREFIX)], DELETE_BATCH_SIZE
    ):
        unwritten |= await BatchMarks(journal).filter_unwritten(batch)
    return [run for run in selected_runs if run.run not in unwritten], len(unwritten)


async def delete_in_batches(
    journal: Journal, runs: Sequence[str], tolerated_codes: Collection[str]
) -> tuple[list[str], list[OrchestraError]]:
    """Deletes runs. Returns the deleted ones, and the errors of the others if these are `is_transient`. Raises the
    first other `JournalError`, which states what was deleted. Marks keep what other runs must know.
    """
    deleted_runs, run_errors = list[str](), list[OrchestraError]()
    for batch in split_batches(runs, DELETE_BATCH_SIZE):  # one transaction each, so that others can write in between
        firsts = {
            run: first for run, (first, _) in (await first_and_last_events(journal, batch)).items()
        }  # a damaged run may be deleted too
        parents = {run: first.parent if isinstance(first := firsts.get(run), RunStarted) else "" for run in batch}
        await BatchMarks(journal).mark_before_delete(parents)
        run_failures = await delete_runs(journal, batch)
        deleted_runs += [run for run, error in zip(batch, run_failures, strict=True) if error is None]
        for error in filter(None, run_failures):
            if error.code not in tolerated_codes:
                message = (
                    f"{len(deleted_runs)} of {pluralize(len(runs), 'run')} deleted: {' '.join(deleted_runs) or 'none'}"
                )
                raise JournalError(
                    error.code, error.message, location=error.location, hint=error.hint, why=message
                ) from error
            run_errors.append(error)
    return deleted_runs, run_errors


def split_batches(runs: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    """Splits a list into lists of a maximum length."""
    return (runs[start : start + size] for start in range(0, len(runs), size))


async def confirm_deletion(count: int) -> bool:
    """Asks for confirmation at the terminal. Raises `InputError` C010 without a terminal."""
    if not is_interactive():
        raise InputError(
            "C010",
            f"{pluralize(count, 'run')} would be deleted permanently",
            hint="add --yes, or check first with --dry-run",
        )
    sys.stderr.write(f"delete {pluralize(count, 'run')} permanently? [y/N] ")
    sys.stderr.flush()
    return (await questions.read_terminal_line() or "").strip().lower() in ("y", "yes")


def size_on_disk(*parts: str) -> int:
    """Bytes on disk of the journal file, its log and companion files."""
    place = load_settings_to_inspect().journal
    files = [place.with_name(place.name + part) for part in parts or ("", "-wal")] if isinstance(place, Path) else []
    return sum(os.stat(file).st_size for file in files if file.exists())


MAX_DEPENDENTS_SHOWN = 5
COPIES_NOTE = (
    "not deleted, because not in the journal: files made from runs (exports, pages, batches, datasets), logs, backups"
)


async def delete(names: Sequence[str], tags: Tags, *, dry_run: bool, confirmed: bool, as_json: bool) -> None:
    """Deletes the named runs and those with all of these tags; none if one of them cannot be deleted.

    Raises `InputError` C018 for an unknown run, C056 for an unfinished one, C010 without a terminal; `JournalError`
    J024 for undelivered messages. A journal error midway states what was deleted before.
    """
    async with open_existing_journal() as journal:
        if journal is None:
            raise no_runs_error(repr(names[0]) if names else f"with the tag {format_tags(tags)}")
        tagged_runs = await latest_runs(journal, time.time(), RunListQuery(NO_LIMIT, tags=tags)) if tags else ()
        ended_runs = await _find_ended(
            journal,
            dict.fromkeys([*[await find_run(journal, name) for name in names], *(run.run for run in tagged_runs)]),
        )
        if not ended_runs:
            raise InputError(
                "C018", f"no run has the tag {format_tags(tags)}", hint="orchestra runs list --tag NAME=VALUE"
            )
        heirs = await derived_runs(journal, {run.run for run in ended_runs})
        if not as_json:
            for run in ended_runs:
                print_note(f"{run.run}  {run.workflow}  {run.status}  {format_time(run.started)}")
            _report_dependents(heirs)
        if not dry_run and not confirmed and not await confirm_deletion(len(ended_runs)):
            print_text("nothing was deleted")
            return
        before = size_on_disk()
        deleted_runs, _ = await delete_in_batches(
            journal, [] if dry_run else [run.run for run in ended_runs], (DELETED_CODE,)
        )
        if deleted_runs and isinstance(journal, SqliteJournal):  # PostgreSQL returns space by itself
            await journal.compact()
        freed_bytes = max(0, before - size_on_disk())
        log_size = size_on_disk("-wal") if deleted_runs else 0
    if as_json:
        report = {"runs": [run.run for run in ended_runs], "deleted": len(deleted_runs), "freed": freed_bytes}
        print_json({**report, "copies": heirs, "wal": log_size})
        return
    if dry_run:
        print_text(f"{pluralize(len(ended_runs), 'run')} would be deleted")
        return
    print_text(f"{pluralize(len(deleted_runs), 'run')} deleted, {format_size(freed_bytes)} freed")
    if log_size:
        print_note(
            "other processes read the journal: its -wal keeps old pages until they close it, or until the "
            "next: orchestra runs gc"
        )


async def _find_ended(journal: Journal, names: Collection[str]) -> list[RunSummary]:
    """The runs with these ids. Raises the errors of `delete`."""
    run_summaries, now = [], time.time()
    for name in names:
        if (summary := await journal.summary(name)) is None:
            raise InputError("C018", f"there is no run {name!r}", hint="orchestra runs list")
        if summary.finished is None:
            status = summary_at(summary, now).status
            raise InputError(
                "C056", f"run {name} is {status}, and may continue", hint=f"end it first: orchestra runs cancel {name}"
            )
        run_summaries.append(summary)
    after = 0
    while messages := await journal.outbox(after):
        if message := next((message for message in messages if message.run in names), None):
            raise undelivered_error(message.run)
        after = messages[-1].number
    return run_summaries


def _report_dependents(dependents: Sequence[str]) -> None:
    """Prints to stderr what remains."""
    if dependents:
        more_text = (
            f" and {len(dependents) - MAX_DEPENDENTS_SHOWN} more" if len(dependents) > MAX_DEPENDENTS_SHOWN else ""
        )
        print_note(
            f"{pluralize(len(dependents), 'other run')} with copies of their inputs or outputs: "
            f"{' '.join(dependents[:MAX_DEPENDENTS_SHOWN])}{more_text}"
        )
    print_note(COPIES_NOTE)


EXPORT_HINT = "export it again: orchestra runs export RUN -o run.jsonl"
_RUN_ID = re.compile(r"(?!last\Z)[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


class _ExportHeader(msgspec.Struct, frozen=True, kw_only=True):
    """The first line of an export. Earlier versions wrote fewer fields."""

    run: str
    events: int
    status: str = ""
    chain: str | None = None
    undelivered: tuple[str, ...] = ()
    unwritten: bool = False
    """True if its batch had not written its result."""
    followed: bool = False
    """True if it was repeated."""


@dataclass(slots=True)
class ExportedRun:
    """A run read from an export."""

    location: SourceLocation
    """The location of its first line."""
    header: dict[str, Any]
    events: list[Event] = field(default_factory=list)
    blobs: dict[str, bytes] = field(default_factory=dict)
    missing_blobs: set[str] = field(default_factory=set)
    """Blobs that the exporting journal lacked too."""
    messages: list[InboxMessage] = field(default_factory=list)

    @property
    def run(self) -> str:
        """Its id."""
        return str(self.header.get("run", ""))


async def import_runs(files: Sequence[Path], *, as_json: bool) -> None:
    """Imports exported runs into the journal. All files are checked first; if one is invalid, none is imported.

    Raises `InputError` C057 for an incomplete export, C058 for a run that exists with other events or is active
    elsewhere.
    """
    with ExitStack() as stack:
        sources = [(str(path), stack.enter_context(rereadable_file(path))) for path in files]
        chains: dict[str, str] = {}
        for run in read_runs(sources):
            check_run(run)
            if chains.setdefault(run.run, run_digest := chain_digest(run.run, run.events)) != run_digest:
                message = f"run {run.run} is in these files twice, with different events"
                raise InputError(
                    "C058", message, location=run.location, hint="import only the file that was written last"
                )
        await _import_files(sources, as_json=as_json)


async def _import_files(sources: Sequence[tuple[str, Path]], *, as_json: bool) -> None:
    with ExitStack() as signals:  # outlasts the closing, which commits too
        await _import_all(sources, signals, as_json=as_json)


async def _import_all(sources: Sequence[tuple[str, Path]], signals: ExitStack, *, as_json: bool) -> None:
    async with open_journal(load_settings_to_inspect()) as journal:
        signals.enter_context(suspend_between_commits(journal))
        for run in read_runs(sources):
            await _refuse_conflicting(journal, run)
        for run in read_runs(sources):
            if new := not await journal.read(run.run):
                await put_run(journal, run)
            was_completed = not new and await complete_run(journal, run)
            status = await status_of(journal, run.run)
            if as_json:
                print_json(
                    {"run": run.run, "workflow": getattr(run.events[0], "workflow", ""), "status": status, "new": new}
                )
                continue
            state_text = "" if new else ": its missing parts were added" if was_completed else ": it exists already"
            print_text(f"{run.run}  {status}{state_text}")
            if (new or was_completed) and status in ("waiting", "interrupted"):
                print_note(
                    "it may continue here: do not resume or answer it in the other journal, or its calls are made twice"
                )


def check_run(run: ExportedRun) -> None:
    """Raises `InputError` C057 for an incomplete export, C058 for a run that was active."""
    events = run.events
    try:
        head = msgspec.convert(run.header, _ExportHeader)
    except msgspec.ValidationError as error:
        raise _export_error(run.location, f"this is not the first line of an export: {error}") from error
    if not _RUN_ID.fullmatch(run.run):
        raise _export_error(run.location, f"{run.run!r} is not a run id")
    try:
        LogEnd(run.run).extend(events)
    except JournalError as error:
        raise _export_error(run.location, error.message) from error
    if (
        not events
        or not isinstance(first := events[0], RunStarted)
        or first.run != run.run
        or len(events) != head.events
    ):
        raise _export_error(run.location, f"events of run {run.run!r} are missing")
    if head.chain is not None and head.chain != chain_digest(run.run, events):
        raise _export_error(run.location, f"the events of run {run.run} differ from the exported ones")
    if missing_blobs := set(blob_digests(events)) - run.blobs.keys() - run.missing_blobs:
        raise _export_error(
            run.location,
            f"{pluralize(len(missing_blobs), 'blob')} of run {run.run} are missing",
            "export it without --no-blobs",
        )
    if head.status == "running" and not isinstance(events[-1], RunFinished):
        hint = f"let it end, or stop its process, and export it again: orchestra runs export {run.run}"
        raise InputError(
            "C058",
            f"run {run.run} was active when it was exported, and continues there",
            location=run.location,
            hint=hint,
        )


async def put_run(journal: Journal, run: ExportedRun) -> None:
    """Adds a new run to a journal. An unfinished run is released: it waits, or is interrupted."""
    for data in run.blobs.values():
        journal.put_blob(data)
    _restore_marks(journal, run)
    # Messages were delivered by the exporting journal, except those that the export lists.
    open_ = set(run.header.get("undelivered", ()))
    journal.append(
        run.run,
        run.events,
        {event.node for event in run.events if isinstance(event, AttemptFinished) and event.node not in open_},
    )
    await journal.wait_durable(run.run, len(run.events))
    if not isinstance(run.events[-1], RunFinished):
        await _restore_messages(journal, run)
        await journal.release(run.run)


async def complete_run(journal: Journal, run: ExportedRun) -> bool:
    """Adds missing data of a run whose import was interrupted, and releases an unfinished one. Returns whether data was
    missing.
    """
    _restore_marks(journal, run)
    was_delivered = "undelivered" in run.header and await _restore_delivered(journal, run)
    if isinstance(run.events[-1], RunFinished):
        return was_delivered
    messages = await _restore_messages(journal, run)
    return await _release_lease(journal, run) or messages or was_delivered


async def _release_lease(journal: Journal, run: ExportedRun) -> bool:
    """Releases the lease of a dead import if the run only waits for persons. Returns whether it did."""
    run_summary = await journal.summary(run.run)
    if run_summary is None or run_summary.status != "interrupted":
        return False
    if unleased_summary(run_summary, run.events, len(await journal.inbox(run.run))).status != "waiting":
        return False
    try:
        await journal.lease(run.run)
    except JournalError as error:
        if error.code != LEASE_HELD:
            raise
        return False  # another process continues it
    await journal.release(run.run)
    return True


def _restore_marks(journal: Journal, run: ExportedRun) -> None:
    read_header = run.header.get
    BatchMarks(journal).mark_imported(
        run.run, unwritten=read_header("unwritten") is True, followed=read_header("followed") is True
    )


async def _restore_delivered(journal: Journal, run: ExportedRun) -> bool:
    """Marks messages delivered by the exporting journal. Returns whether any were open."""
    after, open_, is_delivered = 0, set(run.header.get("undelivered", ())), False
    while messages := await journal.outbox(after):
        if numbers := [message.number for message in messages if message.run == run.run and message.node not in open_]:
            await journal.mark_delivered(numbers)
            is_delivered = True
        after = messages[-1].number
    return is_delivered


async def _restore_messages(journal: Journal, run: ExportedRun) -> bool:
    """Posts missing inbox messages behind equal existing ones; none if others exist. Returns whether any were
    posted.
    """
    inbox_messages, letters = (
        [msgspec.structs.replace(inbox_message, number=0) for inbox_message in message_list]
        for message_list in (await journal.inbox(run.run), run.messages)
    )
    missing = letters[len(inbox_messages) :] if letters[: len(inbox_messages)] == inbox_messages else []
    for letter in missing:
        await journal.send(run.run, letter)
    return bool(missing)


async def _refuse_conflicting(journal: Journal, run: ExportedRun) -> None:
    events = await journal.read(run.run)
    if events and events != run.events:
        raise InputError(
            "C058",
            f"run {run.run} is already in this journal, with other events",
            location=run.location,
            hint=f"orchestra runs show {run.run}",
        )


def read_runs(files: Iterable[tuple[str, Path]]) -> Iterator[ExportedRun]:
    """Reads the runs of files, one at a time. Raises `InputError` C057."""
    for name, path in files:
        with ExitStack() as stack:
            try:
                file = stack.enter_context(path.open("rb"))
                yield from _read_file(name, file)
            except OSError as error:
                raise InputError(
                    "C057", f"{name} cannot be read: {error.strerror}", hint="choose a file of orchestra runs export"
                ) from error


def _read_file(name: str, file: BinaryIO) -> Iterator[ExportedRun]:
    run: ExportedRun | None = None
    for number, text in enumerate(file, 1):
        location = SourceLocation(name, number)
        try:
            line = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
            match line:
                case {"schema": schema}:
                    if run is not None:
                        yield run
                    run = ExportedRun(location, msgspec.json.decode(text))
                    if msgspec.json.decode(schema) != FORMAT:
                        raise _export_error(location, f"this is not {FORMAT}")
                case {"event": event} if run is not None:
                    run.events.append(decode(event))
                case {"letter": letter} if run is not None:
                    run.messages.append(msgspec.json.decode(letter, type=InboxMessage))
                case {"blob": blob, "base64": data} if run is not None:
                    _add_blob(
                        run, location, msgspec.json.decode(blob, type=str), msgspec.json.decode(data, type=str | None)
                    )
                case _:
                    raise _export_error(location, "this is not a line of an export")
        except msgspec.ValidationError as error:
            message = f"its kind is unknown to this version: {error}"
            raise _export_error(
                location, message, "a newer Orchestra may have written it: pip install --upgrade orchestra-slm"
            ) from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise _export_error(location, f"this is not a line of an export: {error}") from error
    if run is None:
        raise _export_error(SourceLocation(name, 1), "it contains no run")
    yield run


def _add_blob(run: ExportedRun, location: SourceLocation, name: str, text: str | None) -> None:
    if text is None:
        run.missing_blobs.add(name)
        return
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _export_error(location, f"blob {name} is not base64") from error
    if digest(data) != name:
        raise _export_error(location, f"blob {name} differs from the exported one")
    run.blobs[name] = data


def _export_error(location: SourceLocation, message: str, hint: str = EXPORT_HINT) -> InputError:
    return InputError("C057", escape_invisible(message), location=location, hint=hint)

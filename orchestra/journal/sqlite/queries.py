"""Answers: what the file of a journal tells whoever looks, whether it is written here or only read."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from math import inf
from pathlib import Path
from typing import Any, Self, TypeVar

import msgspec

from orchestra.core.events import Event
from orchestra.core.protocols import InboxMessage, OutboxMessage, RunSelection, RunSummary, RunUsageResult, ScannedRun
from orchestra.journal import MAX_FOUND_RUNS
from orchestra.journal.encoding import is_encodable
from orchestra.journal.errors import JournalError, closed_error
from orchestra.journal.sqlite.commit_loss import compare_with_mark
from orchestra.journal.sqlite.commit_mark import mark_path, read_mark
from orchestra.journal.sqlite.errors import SQLITE_ERRORS, commits_missing_error
from orchestra.journal.sqlite.liveness import PresenceFolder
from orchestra.journal.sqlite.reader import SqliteReader
from orchestra.journal.usage import ALL_RUNS

T = TypeVar("T")


class SqliteQueries:
    """The half of the `Journal` door that looks. The file is read on a thread of its own, for SQLite blocks."""

    def __init__(self, reading: SqliteReader, others: PresenceFolder, reader: ThreadPoolExecutor) -> None:
        self._sqlite, self._presences, self._executor = reading, others, reader
        self._loop = asyncio.get_running_loop()
        self._closed = False

    async def inbox(self, run: str, after: int = 0) -> list[InboxMessage]:
        """The letters of a run with a greater number, in order."""
        return await self._query(lambda: self._sqlite.inbox(run, after)) if is_encodable(run) else []

    async def get_memo(self, memo: str) -> tuple[str, Any] | None:
        """The run that gave the answer, and the answer; or None. Raises `JournalError` J013 where it is not what was stored."""
        return (await self._query(lambda: self._sqlite.get_memos((memo,)))).get(memo)

    async def get_memos(self, memos: Collection[str]) -> dict[str, tuple[str, Any]]:
        """What `get_memo` gives for each of these keys that is there."""
        return await self._query(lambda: self._sqlite.get_memos(memos))

    async def outbox(self, after: int = 0, limit: int = 100) -> list[OutboxMessage]:
        """Messages with a greater number that nobody has marked as delivered, in order; only what is on disk."""
        return await self._query(lambda: self._sqlite.outbox(after, limit))

    async def read(self, run: str, after: int = 0) -> list[Event]:
        """The events with `seq > after`, those in line included; empty for a run that is not there.

        Numbers and hash chain are checked: raises `JournalError` J013 where the log is not what was written, J021 for an unknown kind.
        """
        await self._flush(run)
        return await self._query(lambda: self._sqlite.events(run, after)) if is_encodable(run) else []

    async def get_blob(self, digest: str) -> bytes | None:
        """A blob's bytes, or None; raises `JournalError` J013 where they are not what was stored."""
        return await self._query(lambda: self._sqlite.get_blob(digest))

    async def list_runs(self, limit: int = 50) -> list[RunSummary]:
        """The latest runs, newest first.

        A run without an end that nobody has in hand is `waiting` where persons are asked and nothing else is under way, else `interrupted`.
        """
        return await self.query_runs(limit, ALL_RUNS)

    async def query_runs(self, limit: int, where: RunSelection) -> list[RunSummary]:
        """The latest runs of a selection, newest first, as `runs` gives them."""
        await self._flush()
        return await self._query(lambda: self._summaries(limit, where))

    async def query_usages(self, where: RunSelection) -> AsyncGenerator[RunUsageResult, None]:
        """What each run of a selection used, newest first; one that cannot be read says so.

        Raises `JournalError` J013 where the list of runs is damaged.
        """
        await self._flush()
        while (some := await self._query(partial(self._sqlite.query_usages, where))).found:
            await self._store_usages(some.computed)
            for used in some.found:
                yield used
            where = msgspec.structs.replace(where, before=(used.started, used.run))

    async def first_and_last_events(self, runs: Collection[str]) -> dict[str, tuple[Event, Event]]:
        """The first and the last event of each of these runs, without large values; those that cannot be read are left out."""
        await self._flush(*runs)
        return await self._query(lambda: self._sqlite.first_and_last_events(list(filter(is_encodable, runs))))

    async def derived_runs(self, runs: Collection[str]) -> list[str]:
        """Other runs that have something of what these were given or answered. Raises `JournalError` J013 where that list is damaged."""
        await self._flush()
        return await self._query(lambda: self._sqlite.derived_runs(list(filter(is_encodable, runs))))

    async def existing_runs(self, runs: Collection[str]) -> set[str]:
        """Those of these runs that are there."""
        await self._flush(*runs)
        return await self._query(lambda: self._sqlite.existing_runs(list(filter(is_encodable, runs))))

    async def summary(self, run: str) -> RunSummary | None:
        """The row of one run, or None."""
        await self._flush(run)
        return await self._query(lambda: self._summary(run)) if is_encodable(run) else None

    async def scan(self, since: float = -inf) -> AsyncGenerator[ScannedRun, None]:
        """The runs that began at `since` or later, newest first, without large values; one that is damaged says so.

        Raises `JournalError` J013 where the list of runs is damaged.
        """
        await self._flush()
        page = await self._query(lambda: self._sqlite.scan(since, None))
        while page:
            for found in page:
                yield found
            before = found.started, found.run
            page = await self._query(partial(self._sqlite.scan, since, before))

    async def find_runs(self, prefix: str) -> list[str]:
        """The ids of runs that begin so, in order; at most 100."""
        await self._flush()
        return await self._query(lambda: self._sqlite.find_runs(prefix, MAX_FOUND_RUNS)) if is_encodable(prefix) else []

    async def _flush(self, *runs: str) -> None:
        """Waits for what is in line of these runs, or of all: nothing, where nothing is written."""

    async def _store_usages(self, usages: Sequence[tuple[str, int, bytes, bytes]]) -> None:
        """Stores usages of runs that were folded from their events: not where nothing is written."""

    def _summaries(self, limit: int, where: RunSelection) -> list[RunSummary]:
        alive = dict[str, bool]()
        return [self._with_status(summary, writer, alive) for summary, writer in self._sqlite.summaries(limit, where)]

    def _summary(self, run: str) -> RunSummary | None:
        row = self._sqlite.row(run)
        return self._with_status(row.summary_fold.summary(), row.writer, {}) if row is not None else None

    def _with_status(self, summary: RunSummary, writer: str, alive: dict[str, bool]) -> RunSummary:
        """A row with what has become of a run without an end; `alive` is what is known of writers."""
        if summary.status != "running":
            return summary
        if not writer:
            return self._sqlite.unleased_summary(summary)
        if writer not in alive:
            alive[writer] = self._presences.is_alive(writer)
        if not alive[writer]:
            return msgspec.structs.replace(summary, status="interrupted")
        return msgspec.structs.replace(summary, holder=self._presences.process_name(writer))

    async def _query(self, question: Callable[[], T]) -> T:
        if self._closed:
            raise closed_error()
        try:
            return await self._loop.run_in_executor(self._executor, question)
        except SQLITE_ERRORS as error:
            raise self._sqlite.to_journal_error(error) from error


class ReadOnlyJournal(SqliteQueries):
    """Stands behind the `Journal` door; made by `ReadOnlyJournal.open`. Whatever would write raises `JournalError` J011."""

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path) -> AsyncIterator[Self]:
        """The journal of a file, as it is: nothing is made beside it. Raises `JournalError`."""
        reader = ThreadPoolExecutor(1, thread_name_prefix="orchestra-journal-reader")
        try:
            reading = await asyncio.get_running_loop().run_in_executor(reader, partial(_open_checked, path))
        except BaseException:
            reader.shutdown(wait=False)
            raise
        journal = cls(reading, PresenceFolder(path.with_name(path.name + "-writers")), reader)
        try:
            yield journal
        finally:
            await journal.close()

    def append(self, run: str, events: Sequence[Event], delivered: Collection[str] = ()) -> None:
        """Raises J011."""
        raise self._read_only_error()

    def put_blob(self, data: bytes) -> str:
        """Raises J011."""
        raise self._read_only_error()

    def put_memo(self, memo: str, run: str, value: Any) -> None:
        """Raises J011."""
        raise self._read_only_error()

    async def check_writable(self) -> None:
        """Raises J011."""
        raise self._read_only_error()

    async def lease(self, run: str) -> int:
        """Raises J011."""
        raise self._read_only_error()

    async def release(self, run: str) -> None:
        """Raises J011."""
        raise self._read_only_error()

    async def send(self, run: str, message: InboxMessage, since: int | None = None) -> int:
        """Raises J011."""
        raise self._read_only_error()

    async def wait_for_messages(self) -> set[str]:
        """Raises J011."""
        raise self._read_only_error()

    async def mark_delivered(self, numbers: Sequence[int]) -> None:
        """Raises J011."""
        raise self._read_only_error()

    async def delete(self, run: str) -> None:
        """Raises J011."""
        raise self._read_only_error()

    async def wait_durable(self, run: str, seq: int) -> None:
        """Raises J011."""
        raise self._read_only_error()

    async def close(self) -> None:
        """Lets go of the file."""
        if not self._closed:
            self._closed = True
            await asyncio.shield(self._loop.run_in_executor(self._executor, self._sqlite.close))
            self._executor.shutdown()

    def _read_only_error(self) -> JournalError:
        path = self._sqlite.path
        hint = f"copy {path} into a folder that you may write into, and name that with `journal:`"
        return JournalError("J011", f"the journal's folder cannot be written: {path.parent}", hint=hint)


def _open_checked(path: Path) -> SqliteReader:
    """The connection to the file. Raises `JournalError`: J025 where durable commits are missing."""
    noted = read_mark(mark_path(path))
    reading = SqliteReader(path, read_only=True)
    try:
        if noted is not None and (loss := compare_with_mark(reading.sql, path, noted)) is not None:
            raise commits_missing_error(path, loss.description)
    except BaseException:
        reading.close()
        raise
    return reading


def is_read_only(path: Path) -> bool:
    """Whether a journal's file is there in a folder that cannot be written."""
    return path.is_file() and not os.access(path.parent, os.W_OK)

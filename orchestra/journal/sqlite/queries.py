"""Queries of the SQLite journal, and the journal for read-only folders."""

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
    """The query methods of a `Journal` in a file. SQLite blocks, so a separate thread reads the file."""

    def __init__(self, sqlite: SqliteReader, presences: PresenceFolder, executor: ThreadPoolExecutor) -> None:
        self._sqlite, self._presences, self._executor = sqlite, presences, executor
        self._loop = asyncio.get_running_loop()
        self._closed = False

    async def inbox(self, run: str, after: int = 0) -> list[InboxMessage]:
        """Returns the inbox messages of a run with a greater number, in order."""
        return await self._query(lambda: self._sqlite.inbox(run, after)) if is_encodable(run) else []

    async def get_memo(self, memo: str) -> tuple[str, Any] | None:
        """Returns the run that produced the answer, and the answer; or None. Raises `JournalError` J013 if it was
        altered.
        """
        return (await self._query(lambda: self._sqlite.get_memos((memo,)))).get(memo)

    async def get_memos(self, memos: Collection[str]) -> dict[str, tuple[str, Any]]:
        """Returns the result of `get_memo` for each known key."""
        return await self._query(lambda: self._sqlite.get_memos(memos))

    async def outbox(self, after: int = 0, limit: int = 100) -> list[OutboxMessage]:
        """Returns durable messages with a greater number that are not marked as delivered, in order."""
        return await self._query(lambda: self._sqlite.outbox(after, limit))

    async def read(self, run: str, after: int = 0) -> list[Event]:
        """Returns the events with `seq > after`, including queued ones; empty for an unknown run.

        Raises:
            JournalError: J013 if numbers or hashes were altered, J021 for an unknown kind.
        """
        await self._flush(run)
        return await self._query(lambda: self._sqlite.events(run, after)) if is_encodable(run) else []

    async def get_blob(self, digest: str) -> bytes | None:
        """Returns the bytes of a blob, or None. Raises `JournalError` J013 if they were altered."""
        return await self._query(lambda: self._sqlite.get_blob(digest))

    async def list_runs(self, limit: int = 50) -> list[RunSummary]:
        """Returns the latest runs, newest first.

        A run without an end and without a live holder is `waiting` if only questions to people are open, else
        `interrupted`.
        """
        return await self.query_runs(limit, ALL_RUNS)

    async def query_runs(self, limit: int, where: RunSelection) -> list[RunSummary]:
        """Returns the latest runs of a selection, newest first, as in `list_runs`."""
        await self._flush()
        return await self._query(lambda: self._summaries(limit, where))

    async def query_usages(self, where: RunSelection) -> AsyncGenerator[RunUsageResult, None]:
        """Yields the usage of each run of a selection, newest first; a run that cannot be read has its error.

        Raises:
            JournalError: J013 if the list of runs is damaged.
        """
        await self._flush()
        while (page := await self._query(partial(self._sqlite.query_usages, where))).found:
            await self._store_usages(page.computed)
            for usage_result in page.found:
                yield usage_result
            where = msgspec.structs.replace(where, before=(usage_result.started, usage_result.run))

    async def first_and_last_events(self, runs: Collection[str]) -> dict[str, tuple[Event, Event]]:
        """Returns the first and the last event of each run, without large values. Runs that cannot be read are left
        out.
        """
        await self._flush(*runs)
        return await self._query(lambda: self._sqlite.first_and_last_events(list(filter(is_encodable, runs))))

    async def derived_runs(self, runs: Collection[str]) -> list[str]:
        """Returns the other runs that contain inputs or answers of these runs. Raises `JournalError` J013 if that list
        is damaged.
        """
        await self._flush()
        return await self._query(lambda: self._sqlite.derived_runs(list(filter(is_encodable, runs))))

    async def existing_runs(self, runs: Collection[str]) -> set[str]:
        """Returns the ids that belong to existing runs."""
        await self._flush(*runs)
        return await self._query(lambda: self._sqlite.existing_runs(list(filter(is_encodable, runs))))

    async def summary(self, run: str) -> RunSummary | None:
        """Returns the summary of one run, or None."""
        await self._flush(run)
        return await self._query(lambda: self._summary(run)) if is_encodable(run) else None

    async def scan(self, since: float = -inf) -> AsyncGenerator[ScannedRun, None]:
        """Yields the runs that started at `since` or later, newest first, without large values; a damaged run has its
        error.

        Raises:
            JournalError: J013 if the list of runs is damaged.
        """
        await self._flush()
        page = await self._query(lambda: self._sqlite.scan(since, None))
        while page:
            for scanned_run in page:
                yield scanned_run
            before = scanned_run.started, scanned_run.run
            page = await self._query(partial(self._sqlite.scan, since, before))

    async def find_runs(self, prefix: str) -> list[str]:
        """Returns at most 100 ids of runs with this prefix, in order."""
        await self._flush()
        return await self._query(lambda: self._sqlite.find_runs(prefix, MAX_FOUND_RUNS)) if is_encodable(prefix) else []

    async def _flush(self, *runs: str) -> None:
        """Waits for queued events of these runs, or of all. Does nothing in a read-only journal."""

    async def _store_usages(self, usages: Sequence[tuple[str, int, bytes, bytes]]) -> None:
        """Stores computed usages of runs. Does nothing in a read-only journal."""

    def _summaries(self, limit: int, selection: RunSelection) -> list[RunSummary]:
        alive = dict[str, bool]()
        return [
            self._with_status(summary, writer, alive) for summary, writer in self._sqlite.summaries(limit, selection)
        ]

    def _summary(self, run: str) -> RunSummary | None:
        row = self._sqlite.row(run)
        return self._with_status(row.summary_fold.summary(), row.writer, {}) if row is not None else None

    def _with_status(self, summary: RunSummary, writer: str, alive: dict[str, bool]) -> RunSummary:
        """Adds the status and holder of a run without an end. `alive` caches the liveness of writers."""
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
    """A read-only `Journal` for a file in a folder that cannot be written, such as a mounted backup. Created by
    `ReadOnlyJournal.open`.

    Methods that write raise `JournalError` J011.
    """

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path) -> AsyncIterator[Self]:
        """Opens the journal of a file and creates no other files. Raises `JournalError`."""
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
        """Closes the file."""
        if not self._closed:
            self._closed = True
            await asyncio.shield(self._loop.run_in_executor(self._executor, self._sqlite.close))
            self._executor.shutdown()

    def _read_only_error(self) -> JournalError:
        path = self._sqlite.path
        hint = f"copy {path} into a folder that you may write, and set `journal:` to the copy"
        return JournalError("J011", f"the journal's folder cannot be written: {path.parent}", hint=hint)


def _open_checked(path: Path) -> SqliteReader:
    """Opens the connection to the file. Raises `JournalError`: J025 if durable commits are missing."""
    mark_content = read_mark(mark_path(path))
    reading = SqliteReader(path, read_only=True)
    try:
        if mark_content is not None and (loss := compare_with_mark(reading.sql, path, mark_content)) is not None:
            raise commits_missing_error(path, loss.description)
    except BaseException:
        reading.close()
        raise
    return reading


def is_read_only(path: Path) -> bool:
    """Returns whether a journal's file exists in a folder that cannot be written."""
    return path.is_file() and not os.access(path.parent, os.W_OK)

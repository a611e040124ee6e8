"""The writer of a Postgres journal: one task that commits queued entries, many events per commit."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import asyncpg

from orchestra.core.error_codes import LEASE_LOST
from orchestra.core.events import Event
from orchestra.journal import GROUP_COMMIT_DELAY, MAX_BATCH_ENTRIES
from orchestra.journal.errors import JournalError, closed_error, lease_lost_error
from orchestra.journal.postgres.connections import RETRY_PAUSE
from orchestra.journal.postgres.errors import POSTGRES_ERRORS, from_postgres, is_transient
from orchestra.journal.postgres.rows import LogTail, PostgresBatch
from orchestra.journal.postgres.tables import PostgresTables
from orchestra.journal.summary import LogEnd, SummaryFold
from orchestra.journal.usage import UsageFold

MAX_BATCH_BYTES = 16 << 20
"""Approximate maximum size of one commit in bytes."""

Connect: TypeAlias = Callable[[], Awaitable[asyncpg.Connection]]


class RunLog:
    """One run whose lease this journal holds: the end of its log in the queue, in the writer, and on disk; and waiting
    callers.
    """

    def __init__(self, run: str, epoch: int = 1, tail: LogTail | None = None) -> None:
        """`tail` is the end on disk of a run that was taken over."""
        self.run, self.epoch = run, epoch
        self.tail = tail or LogTail(SummaryFold(run), 0, run.encode(), UsageFold())
        self.end = LogEnd(run, self.tail.last_seq)
        self.durable_seq = self.tail.last_seq
        self.error: JournalError | None = None
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []

    def wait(self, seq: int) -> asyncio.Future[None]:
        """Returns a future that is done once the events up to `seq` are on disk."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append((seq, future))
        return future

    def set_durable(self, seq: int) -> None:
        """Records that the events up to `seq` are on disk."""
        self.durable_seq = seq
        waiters, self._waiters = self._waiters, []
        for awaited_seq, future in waiters:
            if awaited_seq > seq:
                self._waiters.append((awaited_seq, future))
            elif not future.done():
                future.set_result(None)

    def is_restart(self, seq: int) -> bool:
        """Returns whether a run starts again after it failed with the database. The commit finds out whether any of its
        events exist.
        """
        return seq == 1 and self.error is not None and self.error.code != LEASE_LOST

    def fail(self, error: JournalError) -> bool:
        """Fails the run. Returns whether a caller was waiting."""
        waiters, self._waiters = self._waiters, []
        pending = [future for _, future in waiters if not future.done()]
        for future in pending:
            future.set_exception(error.copy())
        return bool(pending)


@dataclass(slots=True, frozen=True)
class AppendEntry:
    """Queued events with their bytes, and the nodes whose messages were delivered."""

    log: RunLog
    events: Sequence[Event]
    bodies: Sequence[bytes]
    delivered: Collection[str]


@dataclass(slots=True, frozen=True)
class BlobEntry:
    """A queued blob."""

    digest: str
    data: bytes


@dataclass(slots=True, frozen=True)
class MemoEntry:
    """A queued answer for the memo."""

    key: bytes
    run: str
    value: bytes


Entry: TypeAlias = AppendEntry | BlobEntry | MemoEntry


@dataclass(slots=True)
class PostgresCommitReport:
    """Result of a commit: the last events on disk by run, runs that failed alone, blobs and answers; or a permanent
    fault.
    """

    durable_seqs: list[tuple[RunLog, int]] = field(default_factory=list)
    failed: list[tuple[RunLog, JournalError]] = field(default_factory=list)
    blobs: Sequence[str] = ()
    memos: Sequence[bytes] = ()
    fault: JournalError | None = None


class PostgresWriter:
    """Commits entries in order of arrival: at once if a caller waits, else after at most `GROUP_COMMIT_DELAY` seconds.

    If the connection is lost during a commit, its result is unknown. The writer then reconnects and repeats the batch:
    its statement has no effect twice, and detects what exists. Only then the result is reported.
    """

    def __init__(
        self,
        tables: PostgresTables,
        connect: Connect,
        presence: int,
        report: Callable[[PostgresCommitReport], None],
        *,
        one_by_one: bool,
        retry_timeout: float,
    ) -> None:
        """`one_by_one` makes each append a separate commit; `retry_timeout` is the time limit in seconds to restore a
        lost connection.
        """
        self._tables, self._connect, self._presence, self._report = tables, connect, presence, report
        self._one_by_one, self._retry_timeout = one_by_one, retry_timeout
        self._sql: asyncpg.Connection | None = None
        self._queue: deque[Entry] = deque()
        self._queued_writes = 0
        self._has_work, self._flush_requested = asyncio.Event(), asyncio.Event()
        self._closing = False
        self._stop_error: JournalError | None = None

    def put(self, entry: Entry) -> None:
        """Queues an entry. A blob is written with the append after it, so that it never exists unused."""
        self._queue.append(entry)
        if not isinstance(entry, BlobEntry):
            self._queued_writes += 1
            self._has_work.set()

    def flush(self) -> None:
        """Commits queued entries at once, because a caller waits."""
        self._flush_requested.set()

    def finish(self) -> None:
        """Ends the task once the queue is empty."""
        self._closing = True
        self._has_work.set()
        self._flush_requested.set()

    def stop(self, error: JournalError) -> None:
        """Ends the task with a fault after the current commit."""
        self._stop_error = self._stop_error or error
        self.finish()

    async def run(self) -> None:
        """Commits until `finish`, or until a fault."""
        fault = JournalError(
            "J033", f"the journal's writer ended early: {self._tables.display_name}", hint="open the journal again"
        )
        try:
            while await self._wait_for_work():
                self._report(await self._commit(*self._take_batch()))
            fault = self._stop_error or closed_error()
        except JournalError as error:
            fault = error
        finally:
            # In any case, no caller may wait for this task any longer.
            self._report(PostgresCommitReport(fault=fault))
            self._disconnect()

    async def _wait_for_work(self) -> bool:
        """Waits for entries; returns false at the end."""
        await self._has_work.wait()
        if not (self._closing or self._one_by_one):
            try:
                async with asyncio.timeout(GROUP_COMMIT_DELAY):
                    await self._flush_requested.wait()
            except TimeoutError:
                pass
        self._flush_requested.clear()
        return self._stop_error is None and bool(self._queue)

    def _take_batch(self) -> tuple[PostgresBatch, dict[str, RunLog]]:
        batch, logs, batch_size = PostgresBatch(), dict[str, RunLog](), 0
        while self._queue and (self._queued_writes or self._closing):
            entry = self._queue.popleft()
            batch_size += 1
            match entry:
                case BlobEntry():
                    batch.blobs[entry.digest] = entry.data
                    batch.size += len(entry.data)
                    continue
                case MemoEntry():
                    batch.memos.setdefault(entry.key, (entry.run, entry.value))
                    batch.size += len(entry.value)
                case AppendEntry(log=log) if log.error is None:
                    batch.add_events(log.run, log.epoch, log.tail, entry.events, entry.bodies, entry.delivered)
                    logs[log.run] = log
                case AppendEntry():
                    pass  # another journal holds the run; waiting callers have the error
            self._queued_writes -= 1
            if batch_size >= MAX_BATCH_ENTRIES or batch.size >= MAX_BATCH_BYTES or self._one_by_one:
                break
        if self._queued_writes:
            self._flush_requested.set()
        elif not self._closing:
            self._has_work.clear()
        return batch, logs

    async def _commit(self, batch: PostgresBatch, logs: dict[str, RunLog]) -> PostgresCommitReport:
        existing_runs = await self._write(batch)
        report = PostgresCommitReport(blobs=list(batch.blobs), memos=list(batch.memos))
        for run, log in logs.items():
            if run in existing_runs:
                report.durable_seqs.append((log, batch.runs[run].last_seq))
            else:
                report.failed.append((log, lease_lost_error(run)))
        return report

    async def _write(self, batch: PostgresBatch) -> set[str]:
        again, pause, clock = False, RETRY_PAUSE, asyncio.get_running_loop().time
        give_up: float | None = None
        while True:
            try:
                if self._sql is None or self._sql.is_closed():
                    self._sql = await self._connect()
                return await self._tables.write(self._sql, batch, self._presence, is_retry=again)
            except POSTGRES_ERRORS as error:
                self._disconnect()
                give_up = clock() + self._retry_timeout if give_up is None else give_up
                if not is_transient(error) or clock() + pause > give_up:
                    raise from_postgres(error, self._tables.display_name) from error
            again = True
            await asyncio.sleep(pause)
            pause = min(1.0, pause * 2)

    def _disconnect(self) -> None:
        if self._sql is not None:
            self._sql.terminate()
            self._sql = None

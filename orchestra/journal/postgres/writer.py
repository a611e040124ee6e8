"""The writer of a Postgres journal: one task that puts what is in line on disk, many events a commit."""

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
"""Bytes in one commit, about."""

Connect: TypeAlias = Callable[[], Awaitable[asyncpg.Connection]]


class RunLog:
    """One run whose lease this journal holds: where its log ends in line, in the writer's hands, and on disk; and who waits."""

    def __init__(self, run: str, epoch: int = 1, tail: LogTail | None = None) -> None:
        """`tail` is the end on disk of a run that was taken over."""
        self.run, self.epoch = run, epoch
        self.tail = tail or LogTail(SummaryFold(run), 0, run.encode(), UsageFold())
        self.end = LogEnd(run, self.tail.last_seq)
        self.durable_seq = self.tail.last_seq
        self.error: JournalError | None = None
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []

    def wait(self, seq: int) -> asyncio.Future[None]:
        """Done once the events up to `seq` are on disk."""
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append((seq, waiting))
        return waiting

    def set_durable(self, seq: int) -> None:
        """The events up to `seq` are on disk."""
        self.durable_seq = seq
        waiting, self._waiters = self._waiters, []
        for wanted, future in waiting:
            if wanted > seq:
                self._waiters.append((wanted, future))
            elif not future.done():
                future.set_result(None)

    def is_restart(self, seq: int) -> bool:
        """Whether a run begins that failed with the database: nothing of it may be there, which the commit finds out."""
        return seq == 1 and self.error is not None and self.error.code != LEASE_LOST

    def fail(self, error: JournalError) -> bool:
        """Nothing more of the run comes on disk; whether somebody was told."""
        waiting, self._waiters = self._waiters, []
        told = [future for _, future in waiting if not future.done()]
        for future in told:
            future.set_exception(error.copy())
        return bool(told)


@dataclass(slots=True, frozen=True)
class AppendEntry:
    """Events in line, with their bytes, and the nodes whose messages were delivered."""

    log: RunLog
    events: Sequence[Event]
    bodies: Sequence[bytes]
    delivered: Collection[str]


@dataclass(slots=True, frozen=True)
class BlobEntry:
    """A blob in line."""

    digest: str
    data: bytes


@dataclass(slots=True, frozen=True)
class MemoEntry:
    """An answer in line for the memo."""

    key: bytes
    run: str
    value: bytes


Entry: TypeAlias = AppendEntry | BlobEntry | MemoEntry


@dataclass(slots=True)
class PostgresCommitReport:
    """What a commit did: up to where each run is on disk, which failed alone, blobs and answers among it; or the fault that ends it all."""

    durable_seqs: list[tuple[RunLog, int]] = field(default_factory=list)
    failed: list[tuple[RunLog, JournalError]] = field(default_factory=list)
    blobs: Sequence[str] = ()
    memos: Sequence[bytes] = ()
    fault: JournalError | None = None


class PostgresWriter:
    """Commits in order of arrival, at once where somebody waits, else after at most `GROUP_COMMIT_DELAY` seconds.

    Where the connection is lost during a commit, nobody knows whether it went through. The writer then connects again and repeats
    the batch: its statement does nothing twice, and finds what is there. Only then it tells anybody anything.
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
        """`one_by_one` makes each append a separate commit; `retry_timeout` is the time limit in seconds to restore a lost connection."""
        self._tables, self._connect, self._presence, self._report = tables, connect, presence, report
        self._one_by_one, self._retry_timeout = one_by_one, retry_timeout
        self._sql: asyncpg.Connection | None = None
        self._queue: deque[Entry] = deque()
        self._queued_writes = 0
        self._has_work, self._flush_requested = asyncio.Event(), asyncio.Event()
        self._closing = False
        self._stop_error: JournalError | None = None

    def put(self, entry: Entry) -> None:
        """Puts an entry in line. A blob goes to disk with the append that comes after it, so that it is never there unnamed."""
        self._queue.append(entry)
        if not isinstance(entry, BlobEntry):
            self._queued_writes += 1
            self._has_work.set()

    def flush(self) -> None:
        """Somebody waits: what is in line goes to disk at once."""
        self._flush_requested.set()

    def finish(self) -> None:
        """Lets the task end once the line is empty."""
        self._closing = True
        self._has_work.set()
        self._flush_requested.set()

    def stop(self, error: JournalError) -> None:
        """Ends the task with a fault once the commit under way is settled."""
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
            # Whatever happened, nobody may wait for this task any longer.
            self._report(PostgresCommitReport(fault=fault))
            self._disconnect()

    async def _wait_for_work(self) -> bool:
        """Waits until there is something to commit; false where the end has come."""
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
        batch, logs, taken = PostgresBatch(), dict[str, RunLog](), 0
        while self._queue and (self._queued_writes or self._closing):
            entry = self._queue.popleft()
            taken += 1
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
                    pass  # another journal has the run; whoever waited was told
            self._queued_writes -= 1
            if taken >= MAX_BATCH_ENTRIES or batch.size >= MAX_BATCH_BYTES or self._one_by_one:
                break
        if self._queued_writes:
            self._flush_requested.set()
        elif not self._closing:
            self._has_work.clear()
        return batch, logs

    async def _commit(self, batch: PostgresBatch, logs: dict[str, RunLog]) -> PostgresCommitReport:
        there = await self._write(batch)
        report = PostgresCommitReport(blobs=list(batch.blobs), memos=list(batch.memos))
        for run, log in logs.items():
            if run in there:
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

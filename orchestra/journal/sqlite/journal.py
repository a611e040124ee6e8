"""The journal in a file: SQLite with a write-ahead log and group commit in one writer thread.

Several processes of one host may share the file on a local disk. Events that `wait_durable` has returned for survive
the end of the process, and under `group` and `strict` also a power failure.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

import msgspec

from orchestra.core.errors import OrchestraError
from orchestra.core.events import Event
from orchestra.core.protocols import InboxMessage
from orchestra.journal import Durability
from orchestra.journal.encoding import encode_event, encode_value, is_encodable
from orchestra.journal.errors import (
    FaultListener,
    JournalError,
    closed_error,
    ignore_faults,
    lease_lost_error,
    never_appended_error,
    no_run_error,
)
from orchestra.journal.sqlite import operations
from orchestra.journal.sqlite.commit_loss import check_no_loss
from orchestra.journal.sqlite.commit_mark import CommitMark, mark_path
from orchestra.journal.sqlite.database import RunRow
from orchestra.journal.sqlite.errors import SQLITE_ERRORS, from_os
from orchestra.journal.sqlite.liveness import SqlitePresence
from orchestra.journal.sqlite.queries import SqliteQueries
from orchestra.journal.sqlite.reader import InboxPosition, SqliteReader
from orchestra.journal.sqlite.store import JournalOperation, SqliteStore
from orchestra.journal.sqlite.writer import QueuedBlob, QueuedMemo, SqliteCommitReport, SqliteWriter
from orchestra.journal.summary import LogEnd
from orchestra.schema.strict_json import digest


class SqliteConnections(NamedTuple):
    """Connections to one file: for the writer thread, for the reader thread, and for look-ups of new runs in the event
    loop's thread.
    """

    store: SqliteStore
    reader: SqliteReader
    lookup: SqliteReader
    inbox_position: InboxPosition
    """End of the inboxes at the opening."""

    def close(self) -> None:
        """Closes all connections."""
        for connection in (self.store, self.reader, self.lookup):
            connection.close()


def open_connections(
    path: Path, durability: Durability, busy: float, max_bytes: int | None
) -> tuple[SqliteConnections, SqlitePresence]:
    """Opens the connections to a file and creates this writer's presence. All are closed again if one fails.

    Args:
        path: The file.
        durability: When commits are on disk.
        busy: Seconds to wait for other connections.
        max_bytes: Maximum size of the file.

    Raises:
        JournalError: J025 if durable commits are missing, and others.
    """
    check_no_loss(path, busy)
    with ExitStack() as stack:
        glance = stack.enter_context(closing(SqliteReader(path, busy_timeout=busy)))
        mark = stack.enter_context(closing(CommitMark(mark_path(path), synced=durability != "off")))
        reading = stack.enter_context(closing(SqliteReader(path, busy_timeout=busy, mark=mark)))
        try:
            presence = SqlitePresence(path.with_name(path.name + "-writers"))
        except OSError as error:
            raise from_os(error, str(path)) from error
        stack.callback(presence.release)
        sqlite_store = stack.enter_context(
            closing(SqliteStore(path, presence, durability=durability, busy=busy, max_bytes=max_bytes, mark=mark))
        )
        try:
            stores = SqliteConnections(sqlite_store, reading, glance, reading.inbox_end())
        except SQLITE_ERRORS as error:
            raise reading.to_journal_error(error) from error
        stack.pop_all()
        return stores, presence


T = TypeVar("T")

POLL_INTERVAL = 0.2
"""Seconds between two polls for messages from other processes, while a caller waits for messages."""


class SqliteJournal(SqliteQueries):
    """The `Journal` in an SQLite file, created by `SqliteJournal.open`.

    `append` checks and encodes in the event loop's thread. A writer thread computes hashes, folds the run's row and
    commits. A reader thread runs queries. Each has its own connection.

    A fault of the store is raised by each pending `wait_durable`, and by every `append` while it lasts. The open runs
    then fail with it: their leases are released, and a process that resumes them continues from the events on disk. A
    transient fault, such as a full disk, ends as soon as the file can be written again, which is tried each second.
    """

    def __init__(
        self,
        connections: SqliteConnections,
        presence: SqlitePresence,
        executor: ThreadPoolExecutor,
        durability: Durability,
        alarm: FaultListener = ignore_faults,
    ) -> None:
        super().__init__(connections.reader, presence, executor)
        self._connections, self._presence = connections, presence
        self._skips_waiting = durability == "off"
        self._log_ends: dict[str, LogEnd] = {}
        self._durable_seqs: dict[str, int] = {}
        self._waiters: dict[str, list[tuple[int, asyncio.Future[None]]]] = {}
        self._pending_blobs: dict[str, bytes] = {}
        self._pending_memos: dict[str, tuple[str, bytes]] = {}
        self._pending_operations: set[asyncio.Future[Any]] = set()
        self._inbox_position = connections.inbox_position
        self._wakeup = asyncio.Event()
        self._run_errors: dict[str, JournalError] = {}
        self._fault: JournalError | None = None
        self._unreported_fault: JournalError | None = None  # a fault that was not raised to any caller yet
        self._alarm = alarm
        self._writer = SqliteWriter(connections.store, self._post_report, one_by_one=durability == "strict")
        self._writer.start()

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        path: str | os.PathLike[str],
        *,
        durability: Durability = "group",
        busy_timeout: float = 10.0,
        max_bytes: int | None = None,
        alarm: FaultListener = ignore_faults,
    ) -> AsyncIterator[Self]:
        """Opens the journal of a file, or creates it with access for its owner only.

        Args:
            path: The file.
            durability: `group` commits many events at once, at most 5 ms later. `strict` commits each append
                separately. `off` does not wait for the disk: a power failure may lose the last seconds, the end of the
                process at most the queued events.
            busy_timeout: Seconds to wait for other processes that lock the file.
            max_bytes: Maximum size of the file.
            alarm: Is called with faults of the journal.

        Raises:
            JournalError: The file cannot be opened.
        """
        # A separate thread, because SQLite blocks. The same thread opens and reads.
        reader = ThreadPoolExecutor(1, thread_name_prefix="orchestra-journal-reader")
        loop = asyncio.get_running_loop()
        try:
            stores, presence = await loop.run_in_executor(
                reader, open_connections, Path(path), durability, busy_timeout, max_bytes
            )
            journal = cls(stores, presence, reader, durability, alarm)
        except BaseException:
            reader.shutdown(wait=False)
            raise
        try:
            yield journal
        except BaseException:
            with suppress(JournalError):  # the error in the body is raised, not an error of closing
                await journal.close()
            raise
        await journal.close()

    def append(self, run: str, events: Sequence[Event], delivered: Collection[str] = ()) -> None:
        """Queues events, all or none.

        Raises:
            JournalError: J001 for a gap in `seq`, J002 after `close`, J004 for invalid JSON, J005 without the run's
                lease, J006 after the end of a run, and the fault of the store while it lasts.
        """
        if self._fault is not None or self._closed or (run in self._run_errors and not self._restarts_run(run, events)):
            raise self._current_error(run)
        line = self._log_ends.get(run) or self._find_log_end(run)
        bodies = [encode_event(run, event) for event in events]
        line.extend(events)
        if bodies:
            self._writer.put((run, tuple(events), bodies, delivered))

    def put_blob(self, data: bytes) -> str:
        """Stores a blob with the next commit and returns its digest. Raises the fault of the store while it lasts."""
        if self._fault is not None or self._closed:
            raise self._current_error("")
        name = digest(data)
        if name not in self._pending_blobs:
            self._pending_blobs[name] = data
            self._writer.put(QueuedBlob(name, data))
        return name

    def put_memo(self, memo: str, run: str, value: Any) -> None:
        """Stores an accepted answer under its memo key with the next commit. The first answer of a key is kept.

        Raises:
            JournalError: J004 for invalid JSON, and the fault of the store while it lasts.
        """
        if self._fault is not None or self._closed:
            raise self._current_error("")
        if memo not in self._pending_memos:
            body = encode_value(f"answer {memo}", value)
            self._pending_memos[memo] = run, body
            self._writer.put(QueuedMemo(memo, run, body))

    async def check_writable(self) -> None:
        """Writes to the disk and returns. Raises a fault of the store, J010 if the disk is nearly full."""
        await self._submit("", SqliteStore.check_writable)

    async def lease(self, run: str) -> int:
        """Takes over the free lease of a run and returns its epoch. From then on this journal may append.

        Raises:
            JournalError: J022 if a live journal holds it (this one, too), J023 for an unknown run, J006 for an ended
                one.
        """
        lease_future: asyncio.Future[RunRow] = self._submit(run, lambda store: operations.lease(store, run))
        try:
            row = await asyncio.shield(lease_future)
        except asyncio.CancelledError:
            # The caller was cancelled: the lease is released again.
            lease_future.add_done_callback(
                lambda future: None if future.cancelled() or future.exception() else self._release_later(run)
            )
            raise
        self._run_errors.pop(run, None)
        self._log_ends[run], self._durable_seqs[run] = LogEnd(run, row.last_seq), row.last_seq
        return row.epoch

    async def release(self, run: str) -> None:
        """Releases the lease of a run that waits, after all queued events are on disk.

        Raises:
            JournalError: J005 if the lease was lost before, J023, and the fault of the store.
        """
        await self._submit(run, lambda store: operations.release(store, run))
        self._log_ends.pop(run, None)
        self._durable_seqs.pop(run, None)
        if run in self._run_errors:
            raise self._current_error(run)

    async def confirm_loss(self, run: str) -> bool:
        """Allows a run to continue that may have lost its last events (J026). Returns false for other runs. Raises
        `JournalError` J023.
        """
        is_confirmed: bool = await self._submit(run, lambda store: operations.confirm_loss(store, run))
        return is_confirmed

    @contextmanager
    def pause_transactions(self, seconds: float) -> Iterator[None]:
        """Waits for the current transaction, at most `timeout` seconds, and prevents new ones. A process that is
        stopped inside this context does not block others.
        """
        is_acquired = self._connections.store.transaction_lock.acquire(timeout=seconds)
        try:
            yield
        finally:
            if is_acquired:
                self._connections.store.transaction_lock.release()

    async def send(self, run: str, message: InboxMessage, since: int | None = None) -> int:
        """Adds a message to the inbox of a run and returns its number once it is on disk.

        With `since`, the message is only added if no later message answers the same question; else 0 is returned.
        Raises `JournalError` J004, J006, J023.
        """
        body = encode_value(f"the message to run {run}", msgspec.structs.replace(message, number=0))
        number: int = await self._submit(run, lambda store: operations.send(store, run, body, since))
        return number

    async def wait_for_messages(self) -> set[str]:
        """Waits for inbox messages and returns the runs that got some since the last call, or since the opening.

        Messages sent through this journal arrive at once, those of other processes within a second. One of several
        waiting callers gets them.
        """
        while True:
            inbox_position = self._inbox_position
            news = await self._query(partial(self._sqlite.new_messages, inbox_position))
            if self._inbox_position is inbox_position:
                self._inbox_position = news._replace(runs=frozenset())
                if news.runs:
                    return set(news.runs)
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_INTERVAL):
                    await self._wakeup.wait()
            if not self._closed:
                self._wakeup.clear()

    async def get_memo(self, memo: str) -> tuple[str, Any] | None:
        """Returns the run that produced the answer, and the answer; or None. Raises `JournalError` J013 if it was
        altered.
        """
        fresh = self._pending_memos.get(memo)
        if (memo_value := await super().get_memo(memo)) is not None or fresh is None:
            return memo_value
        return fresh[0], msgspec.json.decode(fresh[1])

    async def get_memos(self, memos: Collection[str]) -> dict[str, tuple[str, Any]]:
        """Returns the result of `get_memo` for each known key."""
        fresh = {memo: self._pending_memos[memo] for memo in memos if memo in self._pending_memos}
        memo_values = await super().get_memos(memos)
        return {memo: (run, msgspec.json.decode(body)) for memo, (run, body) in fresh.items()} | memo_values

    async def mark_delivered(self, numbers: Sequence[int]) -> None:
        """Marks messages as delivered; on disk on return."""
        if message_numbers := tuple(numbers):
            await self._submit("", lambda store: operations.mark_delivered(store, message_numbers))

    async def delete(self, run: str) -> None:
        """Deletes a run: events, inbox messages, answers, delivered outbox messages, and blobs that no other run uses.

        Raises:
            JournalError: J022 if a live process holds the lease, J024 if messages are not delivered, J023.
        """
        (error,) = await self.delete_runs((run,))
        if error is not None:
            raise error

    async def delete_runs(self, runs: Sequence[str]) -> list[OrchestraError | None]:
        """Deletes runs in one transaction. Returns for each run None, or the error that `delete` would raise."""
        encodable_runs = [run for run in runs if is_encodable(run)]
        only_run = encodable_runs[0] if len(encodable_runs) == 1 else ""
        errors: Mapping[str, OrchestraError] = await self._submit(
            only_run, lambda store: operations.delete_runs(store, encodable_runs), is_last=not only_run
        )
        for run in encodable_runs:
            if run not in errors:
                for run_table in (self._log_ends, self._durable_seqs, self._run_errors):
                    run_table.pop(run, None)
        return [errors.get(run) if is_encodable(run) else no_run_error(run) for run in runs]

    async def compact(self) -> None:
        """Returns the space of deleted runs to the disk, in steps between which others may write.

        A file without incremental vacuum is rewritten once, which blocks writers: about a second for 200 MB.
        """
        await self._submit("", operations.remove_orphans, is_last=True)
        if not await self._query(self._sqlite.has_incremental_vacuum):
            await self._query(self._sqlite.vacuum)
        while await self._query(self._sqlite.vacuum_step):
            pass
        await self._query(self._sqlite.truncate_log)

    async def wait_durable(self, run: str, seq: int) -> None:
        """Waits until the run's events up to `seq`, and the blobs stored before them, are on disk.

        Returns at once under `off`. Raises the fault of the store, and `JournalError` J003 for an event that was never
        appended.
        """
        if seq <= self._durable_seqs.get(run, 0):
            return
        if self._fault is not None or run in self._run_errors:
            raise self._current_error(run)
        line = self._log_ends.get(run)
        if line is None or seq > line.last_seq:
            # A run of another journal, or one that has ended: it is looked up in the file.
            row = await self._query(lambda: self._sqlite.row(run))
            if row is None or seq > row.last_seq:
                raise never_appended_error(run, seq)
            return
        if self._skips_waiting:
            return
        await self._wait_durable(run, seq)

    async def get_blob(self, digest: str) -> bytes | None:
        """Returns the bytes of a blob, or None. Raises `JournalError` J013 if they were altered."""
        if (fresh := self._pending_blobs.get(digest)) is not None:
            return fresh
        return await super().get_blob(digest)

    async def close(self) -> None:
        """Commits queued events and closes the file. Raises a fault of the store that was not raised before."""
        if not self._closed:
            self._closed = True
            self._writer.finish()
            self._wakeup.set()
            # Shielded: the file is closed even if the caller is cancelled here.
            await asyncio.shield(self._loop.run_in_executor(self._executor, self._close_files))
            self._executor.shutdown()  # the thread is idle, so this does not block
            if self._unreported_fault is not None:
                raise self._unreported_fault.copy()

    def _close_files(self) -> None:
        self._writer.join()
        self._connections.close()
        self._presence.release()

    def _find_log_end(self, run: str) -> LogEnd:
        """Reads the end of a run's log that this journal does not write yet. It takes tens of microseconds, once per
        run.
        """
        if not is_encodable(run):
            raise no_run_error(run)
        try:
            row = self._connections.lookup.row(run)
        except SQLITE_ERRORS as error:
            raise self._connections.lookup.to_journal_error(error) from error
        if row is None:
            line = self._log_ends[run] = LogEnd(run)
            return line
        if row.summary_fold.status == "running":
            raise lease_lost_error(run)
        return LogEnd(run, row.last_seq, is_ended=True)

    def _submit(self, run: str, operation: Callable[[SqliteStore], T], *, is_last: bool = False) -> asyncio.Future[T]:
        """Queues an operation. The result is available once it is on disk."""
        if self._fault is not None or self._closed:
            raise self._current_error("")
        if not is_encodable(run):
            raise no_run_error(run)
        waiter: asyncio.Future[T] = self._loop.create_future()
        self._pending_operations.add(waiter)
        self._writer.put(JournalOperation(operation, waiter, is_last, run))
        self._writer.flush()
        return waiter

    def _release_later(self, run: str) -> None:
        if self._fault is None and not self._closed:
            self._writer.put(JournalOperation(lambda store: operations.release(store, run), run=run))

    async def _store_usages(self, usages: Sequence[tuple[str, int, bytes, bytes]]) -> None:
        """Stores computed usages. If the file cannot be written, they are computed again later."""
        if usages:
            with suppress(JournalError):
                await self._submit("", lambda store: store.store_usages(usages))

    async def _flush(self, *runs: str) -> None:
        """Waits for queued events of these runs, or of all. Faults are ignored: what is on disk can still be read."""
        with suppress(JournalError):
            for run in runs or [
                run for run, line in self._log_ends.items() if line.last_seq > self._durable_seqs.get(run, 0)
            ]:
                if (line := self._log_ends.get(run)) is not None and line.last_seq > self._durable_seqs.get(run, 0):
                    await self._wait_durable(run, line.last_seq)

    async def _wait_durable(self, run: str, seq: int) -> None:
        if self._fault is not None or run in self._run_errors:
            raise self._current_error(run)
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiters.setdefault(run, []).append((seq, future))
        self._writer.flush()
        await future

    def _current_error(self, run: str) -> JournalError:
        error = self._run_errors.get(run) or self._fault or closed_error()
        self._unreported_fault = None if error is self._unreported_fault else self._unreported_fault
        return error.copy()

    def _restarts_run(self, run: str, events: Sequence[Event]) -> bool:
        """Returns whether a run starts again after it failed with the store. The file shows whether any of its events
        were written.
        """
        if not events or events[0].seq != 1 or run in self._log_ends:
            return False
        del self._run_errors[run]
        return True

    def _post_report(self, report: SqliteCommitReport) -> None:
        """Passes the writer's report to the event loop. If the loop is closed, no caller waits."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._apply_report, report)

    def _apply_report(self, report: SqliteCommitReport) -> None:
        for name in report.blobs:
            self._pending_blobs.pop(name, None)
        for memo in report.memos:
            self._pending_memos.pop(memo, None)
        for run, seq in report.durable_seqs.items():
            self._durable_seqs[run] = seq
            self._wake(run, seq)
            if (line := self._log_ends.get(run)) is None or (line.is_ended and line.last_seq == seq):
                self._log_ends.pop(run, None)
                del self._durable_seqs[run]
        for run, error in report.failed.items():
            self._run_errors[run] = error
            self._wake(run, None)
        for operation, answer in report.answers:
            self._resolve_waiter(operation.waiter, answer)
        if report.fault is not None:
            self._fail(report.fault)
        elif report.recovered:
            self._fault = None
            for name, data in self._pending_blobs.items():  # an event that uses them may follow
                self._writer.put(QueuedBlob(name, data))
            self._alarm(None)

    def _fail(self, fault: JournalError) -> None:
        """Fails everything that is queued and all open runs."""
        is_same_fault = self._fault is not None and self._fault.code == fault.code
        self._fault = fault
        if fault.code != "J002" and not is_same_fault:
            self._unreported_fault = fault
            self._alarm(fault)
        if fault.is_transient:
            self._run_errors.update(dict.fromkeys(self._log_ends, fault))
        for run in list(self._waiters):
            self._wake(run, None)
        for waiter in list(self._pending_operations):
            self._resolve_waiter(waiter, self._current_error(""))
        if fault.is_transient:
            for run_table in (self._log_ends, self._durable_seqs, self._pending_memos):
                run_table.clear()
            self._writer.discard()
        self._wakeup.set()

    def _resolve_waiter(self, waiter: asyncio.Future[Any] | None, answer: Any) -> None:
        self._wakeup.set()  # it may have been a message
        if waiter is None:
            return
        self._pending_operations.discard(waiter)
        if waiter.done():
            return
        if isinstance(answer, JournalError):
            waiter.set_exception(answer)
        else:
            waiter.set_result(answer)

    def _wake(self, run: str, seq: int | None) -> None:
        """Wakes waiting callers: their events are on disk up to `seq`, or have failed if it is None."""
        still: list[tuple[int, asyncio.Future[None]]] = []
        for awaited_seq, future in self._waiters.pop(run, ()):
            if seq is not None and awaited_seq > seq:
                still.append((awaited_seq, future))
            elif future.done():
                continue
            elif seq is None:
                future.set_exception(self._current_error(run))
            else:
                future.set_result(None)
        if still:
            self._waiters[run] = still

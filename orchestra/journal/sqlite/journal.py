"""The journal in a file: SQLite with a write-ahead log, written by one thread with group commit.

Several processes of one host may share the file, on a local disk. What `wait_durable` returned for survives the end of the
process and, under `group` and `strict`, of the power.
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
    """Connections to one file: the writer's, the reader's, and one for the glance that the loop's own thread takes at a new run."""

    store: SqliteStore
    reader: SqliteReader
    lookup: SqliteReader
    inbox_position: InboxPosition
    """Where the inboxes end at the opening."""

    def close(self) -> None:
        """Lets go of the file."""
        for connection in (self.store, self.reader, self.lookup):
            connection.close()


def open_connections(
    path: Path, durability: Durability, busy: float, max_bytes: int | None
) -> tuple[SqliteConnections, SqlitePresence]:
    """The connections to a file, and this writer's presence beside it; none is left open where one cannot be had. A connection waits `busy`
    seconds for another; the file grows to `max_bytes` bytes at most. Raises `JournalError`: J025 where durable commits are missing."""
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
        writing = stack.enter_context(
            closing(SqliteStore(path, presence, durability=durability, busy=busy, max_bytes=max_bytes, mark=mark))
        )
        try:
            stores = SqliteConnections(writing, reading, glance, reading.inbox_end())
        except SQLITE_ERRORS as error:
            raise reading.to_journal_error(error) from error
        stack.pop_all()
        return stores, presence


T = TypeVar("T")

POLL_INTERVAL = 0.2
"""Seconds between two looks for letters of other processes, while somebody waits for mail."""


class SqliteJournal(SqliteQueries):
    """Stands behind the `Journal` door; made by `SqliteJournal.open`.

    `append` checks and encodes on the loop's thread; a writer thread hashes, folds the run's row and commits; a reader thread
    answers questions; each has a connection of its own.

    A fault of the store is raised by each pending `wait_durable`, and by every `append` while it lasts. The open runs then fail with it:
    their leases are released, and a process that resumes them continues from the events on disk. A transient fault, such as a full disk,
    ends as soon as the file can be written again, which is tried each second.
    """

    def __init__(
        self,
        stores: SqliteConnections,
        presence: SqlitePresence,
        reader: ThreadPoolExecutor,
        durability: Durability,
        alarm: FaultListener = ignore_faults,
    ) -> None:
        super().__init__(stores.reader, presence, reader)
        self._connections, self._presence = stores, presence
        self._skips_waiting = durability == "off"
        self._log_ends: dict[str, LogEnd] = {}
        self._durable_seqs: dict[str, int] = {}
        self._waiters: dict[str, list[tuple[int, asyncio.Future[None]]]] = {}
        self._pending_blobs: dict[str, bytes] = {}
        self._pending_memos: dict[str, tuple[str, bytes]] = {}
        self._pending_operations: set[asyncio.Future[Any]] = set()
        self._inbox_position = stores.inbox_position
        self._wakeup = asyncio.Event()
        self._run_errors: dict[str, JournalError] = {}
        self._fault: JournalError | None = None
        self._unreported_fault: JournalError | None = None  # a fault that nobody has been told yet
        self._alarm = alarm
        self._writer = SqliteWriter(stores.store, self._post_report, one_by_one=durability == "strict")
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
        """The journal of a file, made where it is not there, for its owner's eyes only.

        `group` commits many events at once, at most 5 ms later; `strict` gives each append a commit of its own; `off` waits for no
        disk: a power cut may take the last seconds, the end of the process takes at most what was in line. `busy_timeout` is how many
        seconds other processes may hold the file; `max_bytes` is how large it may grow; `alarm` hears of its faults. Raises `JournalError`.
        """
        # A thread of our own, for SQLite blocks; what it opens, it also reads with.
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
            with suppress(JournalError):  # what ended the work is told, and not that its journal cannot be closed
                await journal.close()
            raise
        await journal.close()

    def append(self, run: str, events: Sequence[Event], delivered: Collection[str] = ()) -> None:
        """Puts events in line, all or none.

        Raises `JournalError`: J001 for a gap in `seq`, J002 after `close`, J004 for what is no JSON, J005 without the run's lease,
        J006 after a run's end; and the store's fault while it is known.
        """
        if self._fault is not None or self._closed or (run in self._run_errors and not self._restarts_run(run, events)):
            raise self._current_error(run)
        line = self._log_ends.get(run) or self._find_log_end(run)
        bodies = [encode_event(run, event) for event in events]
        line.extend(events)
        if bodies:
            self._writer.put((run, tuple(events), bodies, delivered))

    def put_blob(self, data: bytes) -> str:
        """Stores a blob with the next commit and gives its digest. Raises the store's fault while it is known."""
        if self._fault is not None or self._closed:
            raise self._current_error("")
        name = digest(data)
        if name not in self._pending_blobs:
            self._pending_blobs[name] = data
            self._writer.put(QueuedBlob(name, data))
        return name

    def put_memo(self, memo: str, run: str, value: Any) -> None:
        """Keeps an accepted answer under its key with the next commit; the first one stays.

        Raises `JournalError` J004 for what is no JSON, and the store's fault while it is known.
        """
        if self._fault is not None or self._closed:
            raise self._current_error("")
        if memo not in self._pending_memos:
            body = encode_value(f"answer {memo}", value)
            self._pending_memos[memo] = run, body
            self._writer.put(QueuedMemo(memo, run, body))

    async def check_writable(self) -> None:
        """Returns once something was written to the disk. Raises the store's fault where it cannot be, J010 where it soon will not be."""
        await self._submit("", SqliteStore.check_writable)

    async def lease(self, run: str) -> int:
        """Takes over the lease of a run that nobody holds, and gives its epoch; from then on this journal appends.

        Raises `JournalError`: J022 where a journal that is alive holds it (this one, too), J023 where there is no such run,
        J006 where it has ended.
        """
        taking: asyncio.Future[RunRow] = self._submit(run, lambda store: operations.lease(store, run))
        try:
            row = await asyncio.shield(taking)
        except asyncio.CancelledError:
            # Whoever asked is gone: what he gets all the same goes back.
            taking.add_done_callback(
                lambda done: None if done.cancelled() or done.exception() else self._release_later(run)
            )
            raise
        self._run_errors.pop(run, None)
        self._log_ends[run], self._durable_seqs[run] = LogEnd(run, row.last_seq), row.last_seq
        return row.epoch

    async def release(self, run: str) -> None:
        """Gives the lease back, once everything that is in line is on disk: the run waits.

        Raises `JournalError`: J005 where the lease was lost before, J023, and the store's fault.
        """
        await self._submit(run, lambda store: operations.release(store, run))
        self._log_ends.pop(run, None)
        self._durable_seqs.pop(run, None)
        if run in self._run_errors:
            raise self._current_error(run)

    async def confirm_loss(self, run: str) -> bool:
        """Lets a run go on that may have lost its last events (J026); false for one that has not. Raises `JournalError` J023."""
        confirmed: bool = await self._submit(run, lambda store: operations.confirm_loss(store, run))
        return confirmed

    @contextmanager
    def pause_transactions(self, seconds: float) -> Iterator[None]:
        """Waits for the transaction that is under way, for so many seconds at most, and lets none begin while it lasts. A process that is
        stopped inside keeps no other one waiting."""
        held = self._connections.store.transaction_lock.acquire(timeout=seconds)
        try:
            yield
        finally:
            if held:
                self._connections.store.transaction_lock.release()

    async def send(self, run: str, message: InboxMessage, since: int | None = None) -> int:
        """Puts a letter into a run's inbox; gives its number once it is on disk. With `since` only where no later letter answers the same
        question, else gives 0. Raises `JournalError` J004, J006, J023."""
        body = encode_value(f"the letter to run {run}", msgspec.structs.replace(message, number=0))
        number: int = await self._submit(run, lambda store: operations.send(store, run, body, since))
        return number

    async def wait_for_messages(self) -> set[str]:
        """Waits until letters came, and names the runs that got some since the last call; at the first call, since the opening.

        Letters of this journal are seen at once, those of others within a second. Of several who wait, one gets the news.
        """
        while True:
            seen = self._inbox_position
            news = await self._query(partial(self._sqlite.new_messages, seen))
            if self._inbox_position is seen:
                self._inbox_position = news._replace(runs=frozenset())
                if news.runs:
                    return set(news.runs)
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_INTERVAL):
                    await self._wakeup.wait()
            if not self._closed:
                self._wakeup.clear()

    async def get_memo(self, memo: str) -> tuple[str, Any] | None:
        """The run that gave the answer, and the answer; or None. Raises `JournalError` J013 where it is not what was stored."""
        fresh = self._pending_memos.get(memo)
        if (found := await super().get_memo(memo)) is not None or fresh is None:
            return found
        return fresh[0], msgspec.json.decode(fresh[1])

    async def get_memos(self, memos: Collection[str]) -> dict[str, tuple[str, Any]]:
        """What `get_memo` gives for each of these keys that is there."""
        fresh = {memo: self._pending_memos[memo] for memo in memos if memo in self._pending_memos}
        found = await super().get_memos(memos)
        return {memo: (run, msgspec.json.decode(body)) for memo, (run, body) in fresh.items()} | found

    async def mark_delivered(self, numbers: Sequence[int]) -> None:
        """Marks messages as delivered; on disk when it returns."""
        if marked := tuple(numbers):
            await self._submit("", lambda store: operations.mark_delivered(store, marked))

    async def delete(self, run: str) -> None:
        """Removes a run: events, letters, answers, messages that were delivered, and blobs that no other run names.

        Raises `JournalError`: J022 where somebody who lives holds its lease, J024 where messages are not delivered yet, J023.
        """
        (error,) = await self.delete_runs((run,))
        if error is not None:
            raise error

    async def delete_runs(self, runs: Sequence[str]) -> list[OrchestraError | None]:
        """Deletes runs in one transaction; for each why it is not deleted, as `delete` raises it, or None."""
        there = [run for run in runs if is_encodable(run)]
        one = there[0] if len(there) == 1 else ""
        found: Mapping[str, OrchestraError] = await self._submit(
            one, lambda store: operations.delete_runs(store, there), is_last=not one
        )
        for run in there:
            if run not in found:
                for known in (self._log_ends, self._durable_seqs, self._run_errors):
                    known.pop(run, None)
        return [found.get(run) if is_encodable(run) else no_run_error(run) for run in runs]

    async def compact(self) -> None:
        """Gives the room of deleted runs back to the disk, in steps between which others write.

        A file without incremental vacuum is rewritten once, which blocks writers: about a second for 200 MB.
        """
        await self._submit("", operations.remove_orphans, is_last=True)
        if not await self._query(self._sqlite.has_incremental_vacuum):
            await self._query(self._sqlite.vacuum)
        while await self._query(self._sqlite.vacuum_step):
            pass
        await self._query(self._sqlite.truncate_log)

    async def wait_durable(self, run: str, seq: int) -> None:
        """Waits until the run's events up to `seq`, and the blobs put before them, are on disk.

        Returns at once under `off`. Raises the store's fault, and `JournalError` J003 for what was never appended.
        """
        if seq <= self._durable_seqs.get(run, 0):
            return
        if self._fault is not None or run in self._run_errors:
            raise self._current_error(run)
        line = self._log_ends.get(run)
        if line is None or seq > line.last_seq:
            # Not one of ours, or one that has ended: the file knows.
            row = await self._query(lambda: self._sqlite.row(run))
            if row is None or seq > row.last_seq:
                raise never_appended_error(run, seq)
            return
        if self._skips_waiting:
            return
        await self._wait_durable(run, seq)

    async def get_blob(self, digest: str) -> bytes | None:
        """A blob's bytes, or None; raises `JournalError` J013 where they are not what was stored."""
        if (fresh := self._pending_blobs.get(digest)) is not None:
            return fresh
        return await super().get_blob(digest)

    async def close(self) -> None:
        """Commits what is in line and lets go of the file. Raises a fault of the store that nobody has been told yet."""
        if not self._closed:
            self._closed = True
            self._writer.finish()
            self._wakeup.set()
            # Shielded: a caller who is cancelled here may go, but the file is still closed behind him.
            await asyncio.shield(self._loop.run_in_executor(self._executor, self._close_files))
            self._executor.shutdown()  # idle by now: this waits for no more than the thread's last breath
            if self._unreported_fault is not None:
                raise self._unreported_fault.copy()

    def _close_files(self) -> None:
        self._writer.join()
        self._connections.close()
        self._presence.release()

    def _find_log_end(self, run: str) -> LogEnd:
        """Where a run's log ends that this journal does not write yet: one look into the file, tens of microseconds, once a run."""
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
        """Puts an errand in line; the answer comes once it is on disk."""
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
        """Stores what runs used, so that it need not be folded again; where the file cannot be written it will be."""
        if usages:
            with suppress(JournalError):
                await self._submit("", lambda store: store.store_usages(usages))

    async def _flush(self, *runs: str) -> None:
        """Waits for what is in line of these runs, or of all; a fault is no reason not to read what is on disk."""
        with suppress(JournalError):
            for run in runs or [
                run for run, line in self._log_ends.items() if line.last_seq > self._durable_seqs.get(run, 0)
            ]:
                if (line := self._log_ends.get(run)) is not None and line.last_seq > self._durable_seqs.get(run, 0):
                    await self._wait_durable(run, line.last_seq)

    async def _wait_durable(self, run: str, seq: int) -> None:
        if self._fault is not None or run in self._run_errors:
            raise self._current_error(run)
        waiting: asyncio.Future[None] = self._loop.create_future()
        self._waiters.setdefault(run, []).append((seq, waiting))
        self._writer.flush()
        await waiting

    def _current_error(self, run: str) -> JournalError:
        error = self._run_errors.get(run) or self._fault or closed_error()
        self._unreported_fault = None if error is self._unreported_fault else self._unreported_fault
        return error.copy()

    def _restarts_run(self, run: str, events: Sequence[Event]) -> bool:
        """Whether a run begins that failed with the store: nothing of it may be on disk, which the file knows."""
        if not events or events[0].seq != 1 or run in self._log_ends:
            return False
        del self._run_errors[run]
        return True

    def _post_report(self, report: SqliteCommitReport) -> None:
        """Takes the writer's report over to the loop's thread; a loop that is gone has nobody who waits."""
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
        for errand, answer in report.answers:
            self._resolve_waiter(errand.waiter, answer)
        if report.fault is not None:
            self._fail(report.fault)
        elif report.recovered:
            self._fault = None
            for name, data in self._pending_blobs.items():  # whoever put them may be about to name them
                self._writer.put(QueuedBlob(name, data))
            self._alarm(None)

    def _fail(self, fault: JournalError) -> None:
        """Nothing that is in line will be on disk; nobody who has a run in hand goes on with it."""
        known = self._fault is not None and self._fault.code == fault.code
        self._fault = fault
        if fault.code != "J002" and not known:
            self._unreported_fault = fault
            self._alarm(fault)
        if fault.is_transient:
            self._run_errors.update(dict.fromkeys(self._log_ends, fault))
        for run in list(self._waiters):
            self._wake(run, None)
        for waiter in list(self._pending_operations):
            self._resolve_waiter(waiter, self._current_error(""))
        if fault.is_transient:
            for lost in (self._log_ends, self._durable_seqs, self._pending_memos):
                lost.clear()
            self._writer.discard()
        self._wakeup.set()

    def _resolve_waiter(self, waiter: asyncio.Future[Any] | None, answer: Any) -> None:
        self._wakeup.set()  # it may have been a letter
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
        """Tells those who wait: their events are on disk up to `seq`, or, where it is None, never will be."""
        still: list[tuple[int, asyncio.Future[None]]] = []
        for wanted, waiting in self._waiters.pop(run, ()):
            if seq is not None and wanted > seq:
                still.append((wanted, waiting))
            elif waiting.done():
                continue
            elif seq is None:
                waiting.set_exception(self._current_error(run))
            else:
                waiting.set_result(None)
        if still:
            self._waiters[run] = still

"""The writer: one thread that commits queued entries, many events per commit."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from orchestra.core.events import Event
from orchestra.journal import GROUP_COMMIT_DELAY, MAX_BATCH_ENTRIES, RETRY_INTERVAL
from orchestra.journal.errors import JournalError, damaged_rows_error, lease_lost_error
from orchestra.journal.sqlite.errors import SQLITE_ERRORS
from orchestra.journal.sqlite.store import JournalOperation, LeaseConflict, SqliteBatch, SqliteStore


@dataclass(slots=True, frozen=True)
class QueuedBlob:
    """A blob to store under its digest."""

    digest: str
    data: bytes


@dataclass(slots=True, frozen=True)
class QueuedMemo:
    """An answer to memoize: its key, the run that produced it, and its bytes."""

    key: str
    run: str
    value: bytes


Entry: TypeAlias = (
    tuple[str, Sequence[Event], Sequence[bytes], Collection[str]] | QueuedBlob | QueuedMemo | JournalOperation
)
"""The next events of a run with their bytes and the nodes whose messages were delivered, or another entry to write."""


@dataclass(slots=True)
class SqliteCommitReport:
    """Result of a commit.

    `durable_seqs` are the last events on disk by run; `answers` are results of operations; `failed` are runs that
    failed alone; `fault` stops the writing of queued entries; `recovered` ends it.
    """

    durable_seqs: dict[str, int] = field(default_factory=dict)
    blobs: list[str] = field(default_factory=list)
    memos: list[str] = field(default_factory=list)
    answers: list[tuple[JournalOperation, Any]] = field(default_factory=list)
    failed: dict[str, JournalError] = field(default_factory=dict)
    fault: JournalError | None = None
    recovered: bool = False


class SqliteWriter(threading.Thread):
    """Commits entries in order of arrival: at once if a caller waits, else after at most `GROUP_COMMIT_DELAY` seconds.

    `report` is called in this thread with the result of each commit. After a fault, queued entries are not committed;
    after a permanent one, nothing is.
    """

    def __init__(
        self, store: SqliteStore, report: Callable[[SqliteCommitReport], None], *, one_by_one: bool = False
    ) -> None:
        """`one_by_one` commits each append separately."""
        super().__init__(name="orchestra-journal", daemon=True)
        self._store, self._report = store, report
        self._one_by_one = one_by_one
        self._queue: deque[Entry] = deque()
        self._changed = threading.Condition()
        self._idle = False
        self._flush_requested = one_by_one
        self._closing = False
        self._discarded = False

    def put(self, entry: Entry) -> None:
        """Queues an entry."""
        self._queue.append(entry)
        if self._idle:
            with self._changed:
                self._changed.notify()

    def flush(self) -> None:
        """Commits queued entries at once, because a caller waits."""
        if not self._flush_requested:
            with self._changed:
                self._flush_requested = True
                self._changed.notify()

    def discard(self) -> None:
        """Drops queued entries. After a transient fault the thread waits for this before it tries again."""
        with self._changed:
            self._queue.clear()
            self._discarded = True
            self._changed.notify()

    def finish(self) -> None:
        """Ends the thread once the queue is empty."""
        with self._changed:
            self._closing = True
            self._changed.notify()

    def run(self) -> None:
        """Commits until `finish`, or until a permanent fault."""
        fault = JournalError("J019", f"the journal's writer failed: {self._store.path}", hint="open the journal again")
        try:
            while self._wait_for_work():
                report = self._commit(self._take_batch())
                self._report(report)
                if report.fault is not None:
                    if (error := self._recover(report.fault)) is not None:
                        fault = error
                        return
                    self._report(SqliteCommitReport(recovered=True))
            fault = JournalError(
                "J002", "the journal is closed", hint="append before `close`, or open the journal again"
            )
        finally:
            # In any case, no caller may wait for this thread any longer.
            self._report(SqliteCommitReport(fault=fault))

    def _wait_for_work(self) -> bool:
        """Waits for entries; returns false at the end."""
        with self._changed:
            self._idle = True
            self._changed.wait_for(lambda: self._queue or self._closing)
            self._idle = False
            if not self._closing:
                self._changed.wait_for(lambda: self._flush_requested or self._closing, timeout=GROUP_COMMIT_DELAY)
            self._flush_requested = self._one_by_one
            return bool(self._queue)

    def _recover(self, fault: JournalError) -> JournalError | None:
        """Waits until the store can be written again. Returns the fault if it is permanent, or if the journal is closed
        before.
        """
        if not fault.is_transient:
            return fault
        with self._changed:
            # Queued entries were appended before the fault was known; they follow lost events.
            self._changed.wait_for(lambda: self._discarded or self._closing)
            self._discarded = False
        while fault.is_transient:
            with self._changed:
                if self._changed.wait_for(lambda: self._closing, timeout=RETRY_INTERVAL):
                    break
            try:
                self._store.recover()
            except SQLITE_ERRORS as error:
                fault = self._store.to_journal_error(error)
            except JournalError as error:
                fault = error
            else:
                return None
        return fault

    def _take_batch(self) -> SqliteBatch:
        batch, line = SqliteBatch(), self._queue
        trailing: list[QueuedBlob] = []
        closed_runs: set[str] = set()
        for _ in range(MAX_BATCH_ENTRIES):
            if not line:
                break
            entry = line.popleft()
            if isinstance(entry, QueuedBlob):
                trailing.append(entry)
                continue
            if trailing:
                batch.blobs.update((blob.digest, blob.data) for blob in trailing)
                trailing.clear()
            if isinstance(entry, tuple):
                run, events, bodies, delivered_numbers = entry
                if run in closed_runs:  # events come before operations in a commit
                    line.appendleft(entry)
                    break
                batch.runs.setdefault(run, []).append((events, bodies, delivered_numbers))
                if self._one_by_one:
                    break
            elif isinstance(entry, QueuedMemo):
                batch.memos.setdefault(entry.key, (entry.run, entry.value))
            else:
                batch.operations.append(entry)
                if entry.is_last or self._one_by_one:
                    break
                closed_runs.add(entry.run)
        if batch.runs:
            # The event that uses them follows: stored in the same commit, they need no pin.
            line.extendleft(reversed(trailing))
        else:
            batch.blobs.update((blob.digest, blob.data) for blob in trailing)
        return batch

    def _commit(self, batch: SqliteBatch) -> SqliteCommitReport:
        report = SqliteCommitReport()
        try:
            try:
                _add_results(report, batch, self._store.commit(batch))
            except LeaseConflict:
                for part in batch.split():
                    self._commit_alone(part, report)
        except SQLITE_ERRORS as error:
            report.fault = self._store.to_journal_error(error)
        except JournalError as error:
            report.fault = error
        return report

    def _commit_alone(self, part: SqliteBatch, report: SqliteCommitReport) -> None:
        try:
            _add_results(report, part, self._store.commit(part))
        except LeaseConflict:
            if not part.runs and not part.operations:
                raise damaged_rows_error("its tables", "they are inconsistent") from None
            for run in part.runs:
                self._store.forget(run)
                report.failed[run] = lease_lost_error(run)
            for operation in part.operations:
                report.answers.append((operation, damaged_rows_error("its tables", "they are inconsistent")))


def _add_results(report: SqliteCommitReport, batch: SqliteBatch, answers: list[tuple[JournalOperation, Any]]) -> None:
    report.blobs += batch.blobs
    report.memos += batch.memos
    report.answers += answers
    for run, parts in batch.runs.items():
        report.durable_seqs[run] = parts[-1][0][-1].seq

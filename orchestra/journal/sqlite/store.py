"""The connection that writes: many events of many runs in one transaction. Synchronous; used by the writer's thread."""

from __future__ import annotations

import shutil
import sqlite3
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from orchestra.core.events import AttemptFinished, Event, RunStarted, TurnStarted, encode
from orchestra.core.protocols import OutboxMessage
from orchestra.journal import Durability
from orchestra.journal.encoding import LARGE_EVENT_BYTES, split_value
from orchestra.journal.errors import JournalError, damaged_rows_error
from orchestra.journal.sqlite.commit_mark import CommitMark
from orchestra.journal.sqlite.database import (
    LOST_WRITER,
    RunRow,
    SqliteFile,
    insert_rows,
    read_row,
    row_checksum,
    update_rows,
)
from orchestra.journal.sqlite.database import write_entries as write_entries
from orchestra.journal.sqlite.errors import SQLITE_ERRORS, disk_full_error, from_os
from orchestra.journal.sqlite.liveness import SqlitePresence
from orchestra.journal.summary import IndexEntries, SummaryFold, blob_digests, outbox_message
from orchestra.journal.usage import COUNTED_EVENTS, UsageFold, encode_usage
from orchestra.schema.strict_json import digest

MIN_FREE_BYTES = 256 << 10
"""Bytes that must be free on a disk before new events are accepted after it was full."""


class LeaseConflict(Exception):
    """A run of the batch belongs to another lease holder, or its event number exists. The writer converts it to a coded
    error.
    """


@dataclass(slots=True, eq=False)
class JournalOperation:
    """An operation in a commit, after the events queued before it. `waiter` gets the result."""

    operation: Callable[[SqliteStore], Any]
    waiter: Any = None
    is_last: bool = False
    """Whether no entry queued after it may be in the same commit."""
    run: str = ""
    """The run whose later events may not be in the same commit; empty for none."""

    def execute(self, store: SqliteStore) -> Any:
        """Runs the operation. Returns its result, or a `JournalError` for the waiter."""
        try:
            return self.operation(store)
        except JournalError as error:
            return error


@dataclass(slots=True)
class SqliteBatch:
    """Content of one transaction: blobs by digest, answers by memo key, each run's next events with their bytes, and
    operations.
    """

    blobs: dict[str, bytes] = field(default_factory=dict)
    memos: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    runs: dict[str, list[tuple[Sequence[Event], Sequence[bytes], Collection[str]]]] = field(default_factory=dict)
    operations: list[JournalOperation] = field(default_factory=list)

    def split(self) -> list[SqliteBatch]:
        """Splits the batch: first blobs and memos, then each run, then each operation."""
        return [
            SqliteBatch(self.blobs, self.memos),
            *(SqliteBatch(runs={run: parts}) for run, parts in self.runs.items()),
            *(SqliteBatch(operations=[operation]) for operation in self.operations),
        ]


@dataclass(slots=True)
class _RowChanges:
    """The new rows of a batch by table."""

    blobs: dict[str, bytes]
    events: list[tuple[str, int, bytes, bytes, str]] = field(default_factory=list)
    blob_uses: set[tuple[str, str]] = field(default_factory=set)
    messages: list[tuple[OutboxMessage, bool]] = field(default_factory=list)
    """Each with whether it was delivered."""
    new_rows: list[RunRow] = field(default_factory=list)
    extended_rows: list[tuple[RunRow, RunRow]] = field(default_factory=list)
    entries: IndexEntries = field(default_factory=IndexEntries)


class SqliteStore(SqliteFile):
    """Writes batches. It keeps the row of each run that its journal leases, and appends events only to that end."""

    def __init__(
        self,
        path: Path,
        presence: SqlitePresence,
        *,
        durability: Durability = "group",
        busy: float = 10.0,
        max_bytes: int | None = None,
        mark: CommitMark | None = None,
    ) -> None:
        """Opens the file. `presence` is the lease holder; each commit is noted in the `mark`. Raises `JournalError`."""
        super().__init__(path, durability=durability, busy_timeout=busy, max_bytes=max_bytes, mark=mark)
        self.presence = presence
        self._journal_id = self.identity()
        self.transaction_lock = threading.Lock()
        """Held while this store may hold the file's write lock. A process that is stopped while holding it does not
        block others.
        """
        self._rows: dict[str, RunRow] = {}
        self._folds: dict[str, UsageFold] = {}
        """Usage of open runs that started here. The usage of other runs is computed on demand."""
        self._pinned: set[str] = set()
        self._leases: dict[str, RunRow | None] = {}
        """Lease changes of the current transaction; copied to `_rows` once they are on disk."""

    def commit(self, batch: SqliteBatch) -> list[tuple[JournalOperation, Any]]:
        """Writes a batch, all or nothing, and returns the results of its operations.

        Raises:
            sqlite3.Error: The transaction failed.
            LeaseConflict: A run belongs to another lease holder.
            JournalError: J016 if the file was moved.
        """
        try:
            return self._commit(batch)
        except BaseException:
            for run in batch.runs:  # folded events are not on disk, and may be tried again
                self._folds.pop(run, None)
            raise

    def _commit(self, batch: SqliteBatch) -> list[tuple[JournalOperation, Any]]:
        self.check_not_moved()
        change = _RowChanges(dict(batch.blobs))
        for run, parts in batch.runs.items():
            self._extend_run(run, parts, change)
        self._leases.clear()
        try:
            with self._transaction():
                pinned_blobs = self._write(change)
                if batch.memos:
                    self._write_memos(batch.memos)
                answers = [(operation, operation.execute(self)) for operation in batch.operations]
        except sqlite3.IntegrityError as error:
            raise LeaseConflict from error
        self._pinned = pinned_blobs
        for row in change.new_rows:
            self._update_row(row)
        for _, row in change.extended_rows:
            self._update_row(row)
        for run, lease in self._leases.items():
            if lease is None:
                self.forget(run)
            else:
                self._rows[run] = lease
        return answers

    def recover(self) -> None:
        """Recovers from a transient fault: releases all leases in a commit, which shows that the file can be written
        again.

        Open runs may have lost events, so they continue from the events on disk. Raises as `commit` does, and
        `JournalError` J010.
        """
        self.check_not_moved()
        with self._transaction():
            self.check_writable()
            for row in self._rows.values():
                update_rows(
                    self.sql, [(row, RunRow(row.summary_fold, row.last_seq, row.chain, "", row.epoch))]
                )  # false if another process holds it already
        self._rows.clear()
        self._folds.clear()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """A transaction that is counted, and noted in the mark once it is on disk. Checkpoints are made after it."""
        sql = self.sql
        with self.transaction_lock:
            try:
                sql.execute("BEGIN IMMEDIATE")
                yield
                number = self._count_commit()
                sql.execute("COMMIT")
            finally:
                if sql.in_transaction:
                    sql.execute("ROLLBACK")
            if self.mark is not None:
                self.mark.note_commit(self._journal_id, number)
            self.checkpoint_if_long()

    def _count_commit(self) -> int:
        """Increments the commit counter. Raises `JournalError` J013 if it was altered."""
        rows = self.sql.execute(
            "UPDATE commits SET number = number + 1, inverse = inverse - 1 RETURNING number, inverse"
        ).fetchall()
        if len(rows) != 1 or rows[0][0] + rows[0][1] != -1:
            raise damaged_rows_error("the commit counter", "it was altered")
        number: int = rows[0][0]
        return number

    def close(self) -> None:
        """Writes the log back if no other connection is open, as SQLite would, but noted in the mark; then closes the
        file.
        """
        with suppress(*SQLITE_ERRORS, JournalError, OSError):  # what is not written back remains in the log
            if self.presence.is_alone():
                self.check_not_moved()
                self.checkpoint()
        super().close()
        if self.mark is not None:
            self.mark.close()

    def accept_loss(self, number: int) -> list[str]:
        """Sets the counter to the number of the mark and returns the runs without an end. Each may have lost its last
        events: its lease is refused until `operations.confirm_loss`.
        """
        loss = list[str]()
        with self._transaction():
            for (run,) in self.sql.execute(
                "SELECT CAST(run AS TEXT) FROM runs WHERE status = 'running' ORDER BY run"
            ).fetchall():
                with suppress(JournalError):  # a damaged row refuses its lease itself
                    if (row := self.row(run)) is not None and row.summary_fold.status == "running":
                        update_rows(
                            self.sql, [(row, RunRow(row.summary_fold, row.last_seq, row.chain, LOST_WRITER, row.epoch))]
                        )
                        loss.append(run)
            self.sql.execute(
                "UPDATE commits SET number = max(number, ?), inverse = min(inverse, -1 - ?)", (number, number)
            )
        return loss

    def forget(self, run: str) -> None:
        """Drops the lease of a run from the memory of this store."""
        self._rows.pop(run, None)
        self._folds.pop(run, None)

    # For operations, inside the transaction

    def check_writable(self) -> None:
        """Writes without changing content, if enough space is free. Raises `JournalError` J010."""
        path, folder = str(self.path), str(self.path.parent)
        try:
            free = shutil.disk_usage(folder).free
        except OSError as error:
            raise from_os(error, path) from error
        if free < MIN_FREE_BYTES:
            raise disk_full_error(path, folder, free)
        self.sql.execute("PRAGMA user_version = 0")  # modifies the file's first page in any case

    def store_usages(self, usages: Iterable[tuple[str, int, bytes, bytes]]) -> None:
        """Writes usages, each with its last counted event and that event's hash. Runs that are longer by now, or
        deleted, are skipped.
        """
        self.sql.executemany(
            "INSERT OR REPLACE INTO run_usage SELECT run, last, ?, ? FROM runs"
            " WHERE run = ? AND last = ? AND chain = ?",
            [(body, row_checksum(run, last, chain, body), run, last, chain) for run, last, chain, body in usages],
        )

    def row(self, run: str) -> RunRow | None:
        """Returns the run's row as the transaction sees it."""
        return read_row(self.sql, run)

    def has_lease(self, run: str) -> bool:
        """Returns whether this store holds the run's lease, as far as it knows."""
        return run in self._rows

    def write_lease(self, run: str, before: RunRow, after: RunRow | None) -> None:
        """Writes a lease into the run's row; None releases it. Raises `LeaseConflict` if the holder has changed."""
        run_row = RunRow(before.summary_fold, before.last_seq, before.chain, "", before.epoch)
        if not update_rows(self.sql, [(before, after or run_row)]):
            raise LeaseConflict
        self._leases[run] = after

    def _update_row(self, row: RunRow) -> None:
        if row.summary_fold.status == "running":
            self._rows[row.summary_fold.run] = row
        else:
            self.forget(row.summary_fold.run)

    def _extend_run(
        self, run: str, parts: Iterable[tuple[Sequence[Event], Sequence[bytes], Collection[str]]], change: _RowChanges
    ) -> None:
        """Folds a run's next events into its row, and collects their rows for other tables."""
        before = self._rows.get(run)
        if before is None:
            tally, last, chain = SummaryFold(run), 0, run.encode()
            self._folds[run] = UsageFold()
        else:
            summary_fold = before.summary_fold
            tally = SummaryFold(
                run,
                summary_fold.workflow,
                summary_fold.status,
                summary_fold.started,
                summary_fold.finished,
                summary_fold.nodes,
                summary_fold.usage,
            )
            last, chain = before.last_seq, before.chain
        rows, fold = change.events, self._folds.get(run)
        for events, bodies, delivered_numbers in parts:
            if events[0].seq != last + 1:
                raise LeaseConflict
            for event, body in zip(events, bodies, strict=True):
                tally.add(event)
                kind, big = type(event), ""
                if len(body) > LARGE_EVENT_BYTES:
                    body, big = _extract_value(run, event, body, change)
                if fold is not None and kind in COUNTED_EVENTS:
                    fold.add(event)
                if kind is AttemptFinished or kind is RunStarted or kind is TurnStarted:
                    _index_event(run, event, change, delivered_numbers)
                chain = sha256(
                    chain + body + big.encode() if big else chain + body
                ).digest()  # inlined `next_hash`, for speed
                rows.append((run, event.seq, body, chain, big))
            last = events[-1].seq
        if fold is not None and tally.status != "running" and (run_usage := fold.result()) is not None:
            change.entries.usages.append((run, last, chain, encode_usage(run_usage)))
        row = RunRow(tally, last, chain, self.presence.name)
        if before is None:
            change.new_rows.append(row)
        else:
            row.epoch = before.epoch
            tally.workflow, tally.started = summary_fold.workflow, summary_fold.started
            change.extended_rows.append((before, row))

    def _write(self, change: _RowChanges) -> set[str]:
        """Writes the rows of a batch and returns the blobs that are pinned afterwards."""
        sql, pinned_blobs = self.sql, self._pinned
        if change.blobs or change.blob_uses:
            pinned_blobs = self._write_blobs(change)
        if change.events:
            sql.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?)", change.events)
        if change.new_rows:
            insert_rows(sql, change.new_rows)
        if change.extended_rows and not update_rows(sql, change.extended_rows):
            raise LeaseConflict
        write_entries(sql, change.entries)
        if change.entries.usages:
            self.store_usages(change.entries.usages)
        if change.messages:
            self._write_messages(change.messages)
        return pinned_blobs

    def _write_blobs(self, change: _RowChanges) -> set[str]:
        """Stores blobs, each with a run that uses it, and records other runs that use it. Returns the blobs that are
        pinned afterwards.

        An unused blob is pinned, so that no `delete_runs` removes it before it is used.
        """
        sql, owners = self.sql, {name: run for run, name in change.blob_uses}
        rows = [(name, owners.get(name, ""), data) for name, data in change.blobs.items()]
        added_count = sql.executemany(
            "INSERT INTO blobs (digest, run, data) VALUES (?, ?, ?) ON CONFLICT DO NOTHING", rows
        ).rowcount
        # If all of them are new, as in most cases, their rows are complete.
        blob_keys = {(owner, name) for name, owner, _ in rows} if added_count == len(rows) else set[tuple[str, str]]()
        if blob_uses := change.blob_uses - blob_keys:
            # For existing blobs: a run becomes the owner of one without an owner, otherwise it is recorded as a further
            # user.
            sql.executemany("UPDATE blobs SET run = ? WHERE digest = ? AND run = ''", blob_uses)
            sql.executemany(
                "INSERT OR IGNORE INTO blob_uses SELECT digest, ? FROM blobs WHERE digest = ? AND run <> ?",
                [(run, name, run) for run, name in blob_uses],
            )
        loose = change.blobs.keys() - owners.keys()
        freed_blobs = self._pinned & owners.keys()
        if not loose and not freed_blobs:
            return self._pinned
        writer = self.presence.name
        sql.executemany("INSERT OR IGNORE INTO blob_pins VALUES (?, ?)", [(name, writer) for name in loose])
        sql.executemany(
            "DELETE FROM blob_pins WHERE digest = ? AND writer = ?", [(name, writer) for name in freed_blobs]
        )
        return (self._pinned | loose) - freed_blobs

    def _write_memos(self, memos: dict[str, tuple[str, bytes]]) -> None:
        self.sql.executemany(
            "INSERT OR IGNORE INTO memo VALUES (?, ?, ?, ?)",
            [(memo, run, value, row_checksum(memo, run, value)) for memo, (run, value) in memos.items()],
        )

    def _write_messages(self, messages: Sequence[tuple[OutboxMessage, bool]]) -> None:
        """Adds messages to the outbox. A message with an existing key was sent before."""
        row = self.sql.execute("SELECT seq FROM sqlite_sequence WHERE name = 'outbox'").fetchone()
        number: int = row[0] if row else 0
        for number, (message, is_delivered) in enumerate(messages, number + 1):  # noqa: B020  # counts on from what was there
            columns = (number, message.run, message.node, message.name, message.key, encode(message.value))
            self.sql.execute(
                "INSERT INTO outbox (number, run, node, name, key, value, checksum, delivered)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (key) DO NOTHING",
                (*columns, row_checksum(*columns), int(is_delivered)),
            )


def _extract_value(run: str, event: Event, body: bytes, change: _RowChanges) -> tuple[bytes, str]:
    """Returns the body without its value and the digest of the value, which becomes a blob; the whole body if it has no
    value.
    """
    if (parts := split_value(event, body)) is None:
        return body, ""
    shell, value = parts
    name = digest(value)
    change.blobs[name] = value
    change.blob_uses.add((run, name))
    return shell, name


def _index_event(run: str, event: Event, change: _RowChanges, is_delivered: Collection[str]) -> None:
    """Collects the blobs that an event uses, its outbox message, and its index entries."""
    if type(event) is AttemptFinished and not (event.sent or event.received or event.outbox or event.reused_from):
        return  # the frequent case: results of tools
    if type(event) is not AttemptFinished or event.reused_from:
        change.entries.add(run, event)
    change.blob_uses.update((run, name) for name in blob_digests((event,)))
    if (message := outbox_message(0, run, event)) is not None:
        change.messages.append((message, message.node in is_delivered))

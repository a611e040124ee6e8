"""Operations on a journal's file: leases, inbox, deletion. They run inside the writer's transactions.

Each operation checks before it writes: one that raises `JournalError` has changed nothing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from contextlib import suppress

import msgspec

from orchestra.core.events import decode
from orchestra.core.protocols import InboxMessage
from orchestra.journal.errors import (
    JournalError,
    damaged_rows_error,
    events_lost_error,
    lease_held_error,
    no_run_error,
    run_ended_error,
    undelivered_error,
)
from orchestra.journal.sqlite.database import LOST_WRITER, RunRow, row_checksum
from orchestra.journal.sqlite.store import SqliteStore
from orchestra.journal.summary import blob_digests

_SELECT_OWNER = (
    "SELECT run, (SELECT run FROM blob_uses WHERE blob_uses.digest = blobs.digest LIMIT 1),"
    " EXISTS (SELECT 1 FROM blob_pins WHERE blob_pins.digest = blobs.digest) FROM blobs WHERE digest = ?"
)
"""The run that owns a blob, another run that uses it, and whether a writer is about to use it."""

_decode_message = msgspec.json.Decoder(InboxMessage).decode


def lease(store: SqliteStore, run: str) -> RunRow:
    """Takes over the lease of a run without a live holder and returns its row. Raises `JournalError` J022, J023, J006,
    J026.
    """
    row = _open_run(store, run)
    if row.writer == LOST_WRITER:
        raise events_lost_error(run)
    if store.presence.is_alive(row.writer):
        raise lease_held_error(
            run, store.presence.process_name(row.writer), store.presence.inaccessible_file(row.writer)
        )
    run_row = RunRow(row.summary_fold, row.last_seq, row.chain, store.presence.name, row.epoch + 1)
    store.write_lease(run, row, run_row)
    return run_row


def release(store: SqliteStore, run: str) -> None:
    """Releases the lease if this journal holds it. Raises `JournalError` J023."""
    if (row := store.row(run)) is None:
        raise no_run_error(run)
    if row.writer == store.presence.name:
        store.write_lease(run, row, None)


def confirm_loss(store: SqliteStore, run: str) -> bool:
    """Allows a run to continue that may have lost its last events. Returns false for other runs. Raises `JournalError`
    J023.
    """
    if (row := store.row(run)) is None:
        raise no_run_error(run)
    if row.writer != LOST_WRITER:
        return False
    store.write_lease(run, row, None)
    return True


def send(store: SqliteStore, run: str, body: bytes, since: int | None = None) -> int:
    """Adds an encoded message to a run's inbox and returns its number; 0 if a message after `since` answers the same
    question. Raises `JournalError` J023, J006.
    """
    _open_run(store, run)
    if since is not None:
        letter = _decode_message(body)
        rows = store.sql.execute("SELECT number, body, checksum FROM inbox WHERE run = ? AND number > ?", (run, since))
        if any(letter.answers_same_question(read_message(run, *row)) for row in rows):
            return 0
    number = message_count(store.sql, run) + 1
    store.sql.execute("INSERT INTO inbox VALUES (?, ?, ?, ?)", (run, number, body, row_checksum(run, number, body)))
    # The new row is at the end, so that readers can detect new messages.
    store.sql.execute(
        "INSERT OR REPLACE INTO inbox_counts (run, messages, checksum) VALUES (?, ?, ?)",
        (run, number, row_checksum(run, number)),
    )
    return number


def read_message(run: str, number: int, body: bytes, stated: int) -> InboxMessage:
    """Reads a message of an inbox. Raises `JournalError` J013, J021."""
    if stated != row_checksum(run, number, body):
        raise damaged_rows_error(f"message {number} to run {run}", "it was altered")
    try:
        return _decode_message(body)
    except msgspec.ValidationError as error:
        raise JournalError(
            "J021",
            f"message {number} to run {run} has a type that this version does not support: {error}",
            hint="a newer Orchestra wrote it: pip install --upgrade orchestra-slm",
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise damaged_rows_error(f"message {number} to run {run}", str(error)) from error


def message_count(sql: sqlite3.Connection, run: str) -> int:
    """Returns the number of a run's inbox messages. Raises `JournalError` J013."""
    row = sql.execute("SELECT run, messages, checksum FROM inbox_counts WHERE run = ?", (run,)).fetchone()
    if row is None:
        return 0
    name, messages, stored_checksum = row
    if stored_checksum != row_checksum(name, messages) or name != run:
        raise damaged_rows_error(f"the inbox of run {run}", "the number of its messages was altered")
    return int(messages)


def mark_delivered(store: SqliteStore, numbers: Sequence[int]) -> None:
    """Marks messages as delivered."""
    store.sql.executemany(
        "UPDATE outbox SET delivered = 1 WHERE number = ? AND delivered = 0", [(number,) for number in numbers]
    )


def delete_runs(store: SqliteStore, runs: Collection[str]) -> dict[str, JournalError]:
    """Deletes runs and the blobs that no other run uses. Returns errors by run for the runs that cannot be deleted:
    J022, J023, J024.
    """
    sql, errors, names = store.sql, dict[str, JournalError](), set[tuple[str, str]]()
    for run in dict.fromkeys(runs):
        try:
            _check_deletable(store, run)
        except JournalError as error:
            errors[run] = error
        else:
            names.update((name, run) for name in _blob_names(sql, run))
    run_rows = [(run,) for run in dict.fromkeys(runs) if run not in errors]
    for table in ("events", "runs", "inbox", "inbox_counts", "memo", "outbox", "tags", "copies", "run_usage"):
        sql.executemany(f"DELETE FROM {table} WHERE run = ?", run_rows)  # noqa: S608  # names from this line
    if names:
        _remove_stale_pins(store)
        _delete_blobs(sql, names)
    return errors


def _check_deletable(store: SqliteStore, run: str) -> None:
    """Raises `JournalError` J022, J023, J024 if a run cannot be deleted."""
    if (row := store.row(run)) is None:
        raise no_run_error(run)
    if row.summary_fold.status == "running" and store.presence.is_alive(row.writer):
        raise lease_held_error(
            run, store.presence.process_name(row.writer), store.presence.inaccessible_file(row.writer)
        )
    if store.sql.execute("SELECT 1 FROM outbox WHERE run = ? AND delivered = 0 LIMIT 1", (run,)).fetchone() is not None:
        raise undelivered_error(run)


def remove_orphans(store: SqliteStore) -> None:
    """Deletes blobs that no run uses: blobs of dead processes, or of runs that could not be read. Also deletes answers
    of runs that never started, if no other process could be about to start one.
    """
    _remove_stale_pins(store)
    if store.presence.is_alone():
        store.sql.execute(
            "DELETE FROM memo WHERE run <> '' AND run IN (SELECT run FROM memo EXCEPT SELECT run FROM runs)"
        )
    store.sql.execute("DELETE FROM blob_uses WHERE NOT EXISTS (SELECT 1 FROM runs WHERE runs.run = blob_uses.run)")
    store.sql.execute(
        "DELETE FROM blobs WHERE NOT EXISTS (SELECT 1 FROM runs WHERE runs.run = blobs.run)"
        " AND NOT EXISTS (SELECT 1 FROM blob_uses WHERE blob_uses.digest = blobs.digest)"
        " AND NOT EXISTS (SELECT 1 FROM blob_pins WHERE blob_pins.digest = blobs.digest)"
    )


def _blob_names(sql: sqlite3.Connection, run: str) -> set[str]:
    """Returns the blobs that a run uses. Blobs of unreadable events are left for `remove_orphans`."""
    names = set[str]()
    for body, big in sql.execute("SELECT CAST(body AS BLOB), CAST(big AS TEXT) FROM events WHERE run = ?", (run,)):
        with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            names.update(blob_digests([decode(body)]))
        names.add(big)
    return names - {""}


def _delete_blobs(sql: sqlite3.Connection, names: Collection[tuple[str, str]]) -> None:
    """Deletes blobs of deleted runs, given with their owners. A blob that another run uses gets that run as owner."""
    sql.executemany("DELETE FROM blob_uses WHERE digest = ? AND run = ?", names)
    owned_blobs = []
    for name in sorted({name for name, _ in names}):
        row = sql.execute(_SELECT_OWNER, (name,)).fetchone()
        if row is not None and (name, row[0]) in names:
            owned_blobs.append((name, row[1], row[2]))
    heirs = [(heir, name) for name, heir, _ in owned_blobs if heir is not None]
    sql.executemany("DELETE FROM blob_uses WHERE run = ? AND digest = ?", heirs)
    sql.executemany("UPDATE blobs SET run = ? WHERE digest = ?", heirs)
    sql.executemany(
        "UPDATE blobs SET run = '' WHERE digest = ?",
        [(name,) for name, heir, is_pinned in owned_blobs if heir is None and is_pinned],
    )
    sql.executemany(
        "DELETE FROM blobs WHERE digest = ?",
        [(name,) for name, heir, is_pinned in owned_blobs if heir is None and not is_pinned],
    )


def _remove_stale_pins(store: SqliteStore) -> None:
    """Removes the pins of dead writers."""
    for (writer,) in store.sql.execute("SELECT DISTINCT writer FROM blob_pins").fetchall():
        if not store.presence.is_alive(str(writer)):
            store.sql.execute("DELETE FROM blob_pins WHERE writer = ?", (writer,))


def _open_run(store: SqliteStore, run: str) -> RunRow:
    """Returns the row of a run that has not ended."""
    if (row := store.row(run)) is None:
        raise no_run_error(run)
    if row.summary_fold.status != "running":
        raise run_ended_error(run)
    return row

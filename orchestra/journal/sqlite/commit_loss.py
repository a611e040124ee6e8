"""Detection of lost commits: commits that were durable according to the commit mark, but are missing in the database. A
loss is reported before anything is changed.
"""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from orchestra.journal.sqlite.commit_mark import CommitMark, MarkContent, mark_path, read_mark
from orchestra.journal.sqlite.database import APPLICATION_ID, has_commit_counter, read_commit_count
from orchestra.journal.sqlite.errors import SQLITE_ERRORS, commits_missing_error, from_os, from_sqlite, in_use_error
from orchestra.journal.sqlite.liveness import SqlitePresence
from orchestra.journal.sqlite.store import SqliteStore
from orchestra.journal.sqlite.wal import has_valid_transaction, log_path


@dataclass(frozen=True, slots=True)
class CommitLoss:
    """Description of a loss, and the number of lost commits; None if it is unknown."""

    description: str
    commits: int | None = None


def check_no_loss(path: Path, busy: float) -> None:
    """Checks that no commits are missing. Neither database nor log is written.

    Raises:
        JournalError: J025 if commits are missing, and errors of opening the file.
    """
    if (loss := find_loss(path, busy)) is not None:
        raise commits_missing_error(path, loss.description)


def find_loss(path: Path, busy: float) -> CommitLoss | None:
    """Compares the file of a journal with its mark. Returns the loss, or None without a loss or without a mark. Raises
    `JournalError`.
    """
    if (mark_content := read_mark(mark_path(path))) is None:
        return None
    try:
        if not path.exists() or not path.stat().st_size:
            return CommitLoss("the database file is missing or empty", mark_content.commit_number)
    except OSError as error:
        raise from_os(error, str(path)) from error
    if not path.is_file():
        return None  # opening it reports the error
    try:
        # Read-only: closing a writable connection would delete the log, including the part that SQLite did not read.
        with closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", timeout=busy, isolation_level=None, uri=True)
        ) as sql:
            return compare_with_mark(sql, path, mark_content)
    except SQLITE_ERRORS as error:
        raise from_sqlite(error, str(path), str(path.parent)) from error


def compare_with_mark(sql: sqlite3.Connection, path: Path, noted: MarkContent) -> CommitLoss | None:
    """Compares a database with its mark, which was read before. Raises `sqlite3.Error`, and `JournalError` J013."""
    sql.execute("PRAGMA trusted_schema = OFF")
    tables = sql.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    if tables and sql.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        return None  # opening it reports that this is not a journal
    if not tables:
        return CommitLoss("the database is empty", noted.commit_number)
    if not has_commit_counter(sql):
        return CommitLoss("the database is a different one")
    commit_count = read_commit_count(sql)
    if commit_count.journal_id != noted.journal_id:
        return CommitLoss("the database belongs to another journal")
    if commit_count.commit_number < noted.commit_number:
        missing = noted.commit_number - commit_count.commit_number
        return CommitLoss(f"{missing} of {noted.commit_number} commits are missing", missing)
    if noted.in_checkpoint and not has_valid_transaction(log_path(path)) and is_checkpoint_noted(path):
        # The process ended during a checkpoint: the database file may have only some pages of the last commits.
        return CommitLoss("the write-ahead log is missing or damaged, and was being written back into the database")
    return None


def is_checkpoint_noted(path: Path) -> bool:
    """Returns whether the mark notes a checkpoint in progress; another live process may have finished it since."""
    mark_content = read_mark(mark_path(path))
    return mark_content is not None and mark_content.in_checkpoint


@dataclass(frozen=True, slots=True)
class AcceptedLoss:
    """An accepted loss: the runs without an end, and the copy of the log, if there was one."""

    loss: CommitLoss
    runs: list[str]
    log_copy: Path | None


def accept_loss(path: Path, busy: float = 10.0) -> AcceptedLoss | None:
    """Accepts a loss and continues with the journal in its current state. Returns None if nothing is missing.

    Runs without an end may have lost their last events. Their leases are refused (J026) until a person confirms them.

    Raises:
        JournalError: J027 if another process has the journal open, and others.
    """
    mark = mark_path(path)
    if (loss := find_loss(path, busy)) is None or (mark_content := read_mark(mark)) is None:
        return None
    try:
        presence = SqlitePresence(path.with_name(path.name + "-writers"))
    except OSError as error:
        raise from_os(error, str(path)) from error
    try:
        if not presence.is_alone():
            raise in_use_error(path)
        log_copy = _copy_log(path)
        with closing(SqliteStore(path, presence, busy=busy)) as store:
            runs = store.accept_loss(mark_content.commit_number)
            identity, number = read_commit_count(store.sql)
            mark.unlink(missing_ok=True)
            with closing(CommitMark(mark)) as fresh:
                fresh.note_commit(identity, number)
    except SQLITE_ERRORS as error:
        raise from_sqlite(error, str(path), str(path.parent)) from error
    except OSError as error:
        raise from_os(error, str(path)) from error
    finally:
        presence.release()
    return AcceptedLoss(loss, runs, log_copy)


def _copy_log(path: Path) -> Path | None:
    """Copies the log before SQLite overwrites the part that it did not read."""
    log = log_path(path)
    if not log.exists() or not log.stat().st_size:
        return None
    copy_path = log.with_name(log.name + ".damaged")
    shutil.copyfile(log, copy_path)
    copy_path.chmod(0o600)
    return copy_path

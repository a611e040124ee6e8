"""Loss: commits that the mark says were durable and that the database does not have. It is reported before anything is changed."""

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
    """What is missing, in words, and how many commits; None where that is not known."""

    description: str
    commits: int | None = None


def check_no_loss(path: Path, busy: float) -> None:
    """Raises `JournalError` J025 where commits are missing, and what opening the file raises. Nothing is written to database and log."""
    if (loss := find_loss(path, busy)) is not None:
        raise commits_missing_error(path, loss.description)


def find_loss(path: Path, busy: float) -> CommitLoss | None:
    """The commits that a journal's file has lost, by its mark; None where nothing is missing or there is no mark. Raises `JournalError`."""
    if (noted := read_mark(mark_path(path))) is None:
        return None
    try:
        if not path.exists() or not path.stat().st_size:
            return CommitLoss("the database file is gone or empty", noted.commit_number)
    except OSError as error:
        raise from_os(error, str(path)) from error
    if not path.is_file():
        return None  # the opening says what it is
    try:
        # Read-only: a connection that may write would delete the log at its close, with all that SQLite did not read of it.
        with closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", timeout=busy, isolation_level=None, uri=True)
        ) as sql:
            return compare_with_mark(sql, path, noted)
    except SQLITE_ERRORS as error:
        raise from_sqlite(error, str(path), str(path.parent)) from error


def compare_with_mark(sql: sqlite3.Connection, path: Path, noted: MarkContent) -> CommitLoss | None:
    """What a database lacks of the commits in its mark, which was read before. Raises `sqlite3.Error`, and `JournalError` J013."""
    sql.execute("PRAGMA trusted_schema = OFF")
    tables = sql.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    if tables and sql.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        return None  # the opening says that this is no journal
    if not tables:
        return CommitLoss("the database is empty", noted.commit_number)
    if not has_commit_counter(sql):
        return CommitLoss("the database is another one")
    found = read_commit_count(sql)
    if found.journal_id != noted.journal_id:
        return CommitLoss("the database is that of another journal")
    if found.commit_number < noted.commit_number:
        missing = noted.commit_number - found.commit_number
        return CommitLoss(f"{missing} of {noted.commit_number} commits are missing", missing)
    if noted.in_checkpoint and not has_valid_transaction(log_path(path)) and is_checkpoint_noted(path):
        # The process ended within a checkpoint: the database file may have some pages of the last commits and not others.
        return CommitLoss("the write-ahead log is missing or damaged, and was being written back into the database")
    return None


def is_checkpoint_noted(path: Path) -> bool:
    """Whether a checkpoint is noted as under way; a process that is alive may have ended it meanwhile."""
    noted = read_mark(mark_path(path))
    return noted is not None and noted.in_checkpoint


@dataclass(frozen=True, slots=True)
class AcceptedLoss:
    """A loss that was accepted: the runs without an end, and the copy of the log as it was found, where there was one."""

    loss: CommitLoss
    runs: list[str]
    log_copy: Path | None


def accept_loss(path: Path, busy: float = 10.0) -> AcceptedLoss | None:
    """Takes the journal as it is; None where nothing is missing. The runs without an end may have lost their last events: their leases are
    refused (J026) until somebody confirms them. Raises `JournalError`, J027 where another process has the journal open."""
    mark = mark_path(path)
    if (loss := find_loss(path, busy)) is None or (noted := read_mark(mark)) is None:
        return None
    try:
        presence = SqlitePresence(path.with_name(path.name + "-writers"))
    except OSError as error:
        raise from_os(error, str(path)) from error
    try:
        if not presence.is_alone():
            raise in_use_error(path)
        kept = _copy_log(path)
        with closing(SqliteStore(path, presence, busy=busy)) as store:
            runs = store.accept_loss(noted.commit_number)
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
    return AcceptedLoss(loss, runs, kept)


def _copy_log(path: Path) -> Path | None:
    """Copies the log aside before SQLite writes over what it did not read of it."""
    log = log_path(path)
    if not log.exists() or not log.stat().st_size:
        return None
    kept = log.with_name(log.name + ".damaged")
    shutil.copyfile(log, kept)
    kept.chmod(0o600)
    return kept

"""Loss: commits that the mark says were durable and that the database does not have. It is reported before anything is changed."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from orchestra.journal.errors import FROM_SQLITE, commits_missing, from_os, from_sqlite, in_use
from orchestra.journal.sqlite.commit_mark import Mark, Noted, mark_of, read_mark
from orchestra.journal.sqlite.database import APPLICATION_ID, counted, has_counter
from orchestra.journal.sqlite.liveness import Presence
from orchestra.journal.sqlite.store import Store
from orchestra.journal.sqlite.wal import is_used, log_of


@dataclass(frozen=True, slots=True)
class Loss:
    """What is missing, in words, and how many commits; None where that is not known."""

    what: str
    commits: int | None = None


def refuse_loss(path: Path, busy: float) -> None:
    """Raises `JournalError` J025 where commits are missing, and what opening the file raises. Nothing is written to database and log."""
    if (loss := find_loss(path, busy)) is not None:
        raise commits_missing(path, loss.what)


def find_loss(path: Path, busy: float) -> Loss | None:
    """The commits that a journal's file has lost, by its mark; None where nothing is missing or there is no mark. Raises `JournalError`."""
    if (noted := read_mark(mark_of(path))) is None:
        return None
    try:
        if not path.exists() or not path.stat().st_size:
            return Loss("the database file is gone or empty", noted.number)
    except OSError as error:
        raise from_os(error, str(path)) from error
    if not path.is_file():
        return None  # the opening says what it is
    try:
        # Read-only: a connection that may write would delete the log at its close, with all that SQLite did not read of it.
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", timeout=busy, isolation_level=None, uri=True)) as sql:
            return compare(sql, path, noted)
    except FROM_SQLITE as error:
        raise from_sqlite(error, str(path), str(path.parent)) from error


def compare(sql: sqlite3.Connection, path: Path, noted: Noted) -> Loss | None:
    """What a database lacks of the commits in its mark, which was read before. Raises `sqlite3.Error`, and `JournalError` J013."""
    sql.execute("PRAGMA trusted_schema = OFF")
    tables = sql.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    if tables and sql.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        return None  # the opening says that this is no journal
    if not tables:
        return Loss("the database is empty", noted.number)
    if not has_counter(sql):
        return Loss("the database is another one")
    found = counted(sql)
    if found.journal != noted.journal:
        return Loss("the database is that of another journal")
    if found.number < noted.number:
        missing = noted.number - found.number
        return Loss(f"{missing} of {noted.number} commits are missing", missing)
    if noted.checkpoint and not is_used(log_of(path)) and is_still_noted(path):
        # The process ended within a checkpoint: the database file may have some pages of the last commits and not others.
        return Loss("the write-ahead log is missing or damaged, and was being written back into the database")
    return None


def is_still_noted(path: Path) -> bool:
    """Whether a checkpoint is noted as under way; a process that is alive may have ended it meanwhile."""
    noted = read_mark(mark_of(path))
    return noted is not None and noted.checkpoint


@dataclass(frozen=True, slots=True)
class Accepted:
    """A loss that was accepted: the runs without an end, and the copy of the log as it was found, where there was one."""

    loss: Loss
    runs: list[str]
    log: Path | None


def accept_loss(path: Path, busy: float = 10.0) -> Accepted | None:
    """Takes the journal as it is; None where nothing is missing. The runs without an end may have lost their last events: their leases are
    refused (J026) until somebody confirms them. Raises `JournalError`, J027 where another process has the journal open."""
    mark = mark_of(path)
    if (loss := find_loss(path, busy)) is None or (noted := read_mark(mark)) is None:
        return None
    try:
        presence = Presence(path.with_name(path.name + "-writers"))
    except OSError as error:
        raise from_os(error, str(path)) from error
    try:
        if not presence.alone():
            raise in_use(path)
        kept = _keep_log(path)
        with closing(Store(path, presence, busy=busy)) as store:
            runs = store.accept(noted.number)
            identity, number = counted(store.sql)
            mark.unlink(missing_ok=True)
            with closing(Mark(mark)) as fresh:
                fresh.note(identity, number)
    except FROM_SQLITE as error:
        raise from_sqlite(error, str(path), str(path.parent)) from error
    except OSError as error:
        raise from_os(error, str(path)) from error
    finally:
        presence.leave()
    return Accepted(loss, runs, kept)


def _keep_log(path: Path) -> Path | None:
    """Copies the log aside before SQLite writes over what it did not read of it."""
    log = log_of(path)
    if not log.exists() or not log.stat().st_size:
        return None
    kept = log.with_name(log.name + ".damaged")
    shutil.copyfile(log, kept)
    kept.chmod(0o600)
    return kept

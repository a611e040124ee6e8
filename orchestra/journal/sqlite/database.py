"""One connection to a journal's SQLite file: tables, rows, checks of the file, and checkpoints."""

from __future__ import annotations

import os
import sqlite3
import stat
import zlib
from collections.abc import Iterable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from orchestra.core.events import Usage, encode
from orchestra.journal import Durability
from orchestra.journal.errors import JournalError, damaged_event_error, damaged_rows_error
from orchestra.journal.sqlite.commit_mark import CommitMark
from orchestra.journal.sqlite.errors import SQLITE_ERRORS, from_os, from_sqlite, locked_error, moved_error
from orchestra.journal.sqlite.liveness import find_lock_holder
from orchestra.journal.sqlite.wal import WalFile, log_path
from orchestra.journal.summary import IndexEntries, SummaryFold
from orchestra.schema.strict_json import canonical

SCHEMA_VERSION = 4
"""Version of the tables below."""
APPLICATION_ID = 0x4F726368
"""Identifies a journal file: `Orch` in ASCII (`PRAGMA application_id`)."""

_FIND_FOREIGN_OBJECT = (
    "SELECT type FROM sqlite_schema WHERE type NOT IN ('table', 'index') OR sql LIKE 'create virtual%' LIMIT 1"
)
# `checksum` is the `row_checksum` of the row's other columns; `events.chain` is the checksum of an event. `runs.writer`
# is the presence name of the lease holder; empty without a lease. `events.big` is the digest of the blob that holds the
# event's value; empty if the value is in the body. `blobs.run` is one run that uses the blob, or empty. It comes before
# the bytes, which may be many. `blob_uses` has the other runs that use a blob; `blob_pins` the writers that stored a
# blob before any run used it. `inbox_counts` has one row for each run with inbox messages: their count, and a place
# that increases with every message of any run.
_TABLES = """
CREATE TABLE schema_version (version INTEGER NOT NULL);
CREATE TABLE runs (
  run TEXT PRIMARY KEY, workflow TEXT NOT NULL, status TEXT NOT NULL, started REAL NOT NULL, finished REAL,
  nodes INTEGER NOT NULL, usage BLOB NOT NULL, last INTEGER NOT NULL, chain BLOB NOT NULL, writer TEXT NOT NULL,
  epoch INTEGER NOT NULL DEFAULT 1, checksum INTEGER
) WITHOUT ROWID;
CREATE INDEX runs_started ON runs (started, run);
CREATE TABLE events (
  run TEXT NOT NULL, seq INTEGER NOT NULL, body BLOB NOT NULL, chain BLOB NOT NULL, big TEXT NOT NULL DEFAULT '',
  PRIMARY KEY (run, seq)
) WITHOUT ROWID;
CREATE TABLE blobs (digest TEXT PRIMARY KEY, run TEXT NOT NULL, data BLOB NOT NULL);
CREATE TABLE blob_uses (digest TEXT NOT NULL, run TEXT NOT NULL, PRIMARY KEY (digest, run)) WITHOUT ROWID;
CREATE TABLE blob_pins (digest TEXT NOT NULL, writer TEXT NOT NULL, PRIMARY KEY (digest, writer)) WITHOUT ROWID;
CREATE TABLE inbox (
  run TEXT NOT NULL, number INTEGER NOT NULL, body BLOB NOT NULL, checksum INTEGER NOT NULL, PRIMARY KEY (run, number)
) WITHOUT ROWID;
CREATE TABLE inbox_counts (
  place INTEGER PRIMARY KEY AUTOINCREMENT, run TEXT NOT NULL UNIQUE, messages INTEGER NOT NULL,
  checksum INTEGER NOT NULL
);
CREATE TABLE memo (memo TEXT PRIMARY KEY, run TEXT NOT NULL, value BLOB NOT NULL, checksum INTEGER NOT NULL);
CREATE INDEX memo_run ON memo (run);
CREATE TABLE outbox (
  number INTEGER PRIMARY KEY AUTOINCREMENT, run TEXT NOT NULL, node TEXT NOT NULL, name TEXT NOT NULL,
  key TEXT NOT NULL UNIQUE,
  value BLOB NOT NULL, delivered INTEGER NOT NULL DEFAULT 0, checksum INTEGER NOT NULL
);
CREATE INDEX outbox_run ON outbox (run);
CREATE INDEX outbox_open ON outbox (number) WHERE delivered = 0;
CREATE INDEX outbox_open_run ON outbox (run) WHERE delivered = 0
"""
_INDEX_TABLES = """
CREATE TABLE tags (
  name TEXT NOT NULL, value TEXT NOT NULL, started REAL NOT NULL, run TEXT NOT NULL,
  PRIMARY KEY (name, value, started, run)
) WITHOUT ROWID;
CREATE INDEX tags_run ON tags (run);
CREATE TABLE copies (source TEXT NOT NULL, run TEXT NOT NULL, PRIMARY KEY (source, run)) WITHOUT ROWID;
CREATE INDEX copies_run ON copies (run);
CREATE TABLE run_usage (
  run TEXT PRIMARY KEY, last INTEGER NOT NULL, body BLOB NOT NULL, checksum INTEGER NOT NULL
) WITHOUT ROWID
"""
"""An index of a table without row ids contains all of its columns, so `tags` and `copies` are stored twice; queries
compare both. `run_usage.last` is the number of the last counted event; the checksum includes the hash of that event.
"""
COMMITS_TABLE = "CREATE TABLE commits (journal BLOB NOT NULL, number INTEGER NOT NULL, inverse INTEGER NOT NULL)"
"""One row: the journal's identity and the number of commits; `inverse` is -1 - `number`."""
MAX_LOG_FRAMES = 1000
"""Frames of the log after which a checkpoint is made, as in SQLite by default."""
_SYNCHRONOUS: dict[Durability, str] = {"strict": "EXTRA", "group": "FULL", "off": "NORMAL"}


def row_checksum(*columns: object) -> int:
    """Returns the checksum of a row's columns, which is stored with the row to detect flipped bits."""
    return zlib.crc32(encode(columns))


class SqliteFile:
    """One connection to a journal's file. Only one thread uses it at a time."""

    def __init__(
        self,
        path: Path,
        *,
        durability: Durability = "group",
        busy_timeout: float = 10.0,
        max_bytes: int | None = None,
        read_only: bool = False,
        mark: CommitMark | None = None,
    ) -> None:
        """Opens the file, or creates it with access for its owner only.

        Args:
            path: The file. A file that is neither a journal nor empty is not changed.
            durability: When commits are on disk.
            busy_timeout: Seconds to wait for other connections.
            max_bytes: Maximum size of the file.
            read_only: Whether the file is only read.
            mark: The commit mark, in which checkpoints are noted.

        Raises:
            JournalError: The file cannot be opened.
        """
        self.path = path
        self.mark = mark
        self._wal = WalFile(log_path(path))
        try:
            if not read_only:
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                with suppress(FileExistsError):
                    # Never for an existing file: closing it would release the locks of this process's other
                    # connections.
                    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
            stat_result = os.stat(path)
        except OSError as error:
            raise from_os(error, str(path)) from error
        if not stat.S_ISREG(stat_result.st_mode):
            file_kind = "a folder" if stat.S_ISDIR(stat_result.st_mode) else "a pipe, a socket or a device"
            raise JournalError(
                "J015", f"the journal's path is {file_kind}, not a file: {path}", hint="set `journal:` to a file"
            )
        self._identity = _file_identity(stat_result)
        try:
            place = _read_only_uri(path) if read_only else path
            self.sql = sqlite3.connect(
                place, timeout=busy_timeout, isolation_level=None, check_same_thread=False, uri=read_only
            )
            try:
                if not read_only:
                    self._prepare(durability, max_bytes)
                elif self._check_version() != SCHEMA_VERSION:
                    hint = f"copy {path} into a folder that you may write, and set `journal:` to the copy"
                    raise JournalError(
                        "J011", f"the journal has an old version and cannot be written: {path}", hint=hint
                    )
            except BaseException:
                self.sql.close()
                raise
        except SQLITE_ERRORS as error:
            raise self.to_journal_error(error) from error

    def to_journal_error(self, error: sqlite3.Error | UnicodeDecodeError) -> JournalError:
        """Converts an SQLite error. The result names the process that locks the file, if it is known."""
        is_busy = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
        if is_busy and (holder := find_lock_holder(self.path)) is not None:
            return locked_error(self.path, error, holder)
        return from_sqlite(error, str(self.path), str(self.path.parent))

    def close(self) -> None:
        """Closes the file."""
        self._wal.close()
        self.sql.close()

    def checkpoint(self, mode: Literal["PASSIVE", "TRUNCATE"] = "PASSIVE") -> None:
        """Writes the log back into the database, as far as other connections allow. Raises `sqlite3.Error`."""
        with nullcontext() if self.mark is None else self.mark.checkpoint(self.identity()):
            self.sql.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()

    def checkpoint_if_long(self) -> None:
        """Makes a checkpoint if the log has `MAX_LOG_FRAMES` frames. Errors are ignored: the log keeps what could not
        be written back.
        """
        if self._wal.has_frames(MAX_LOG_FRAMES):
            with suppress(*SQLITE_ERRORS):
                self.checkpoint()

    def identity(self) -> bytes:
        """Returns the journal's identity, which is also in its mark. Raises `JournalError` J013."""
        return read_commit_count(self.sql).journal_id

    def check_not_moved(self) -> None:
        """Raises `JournalError` J016 if the file was moved or replaced."""
        try:
            is_same_file = _file_identity(os.stat(self.path)) == self._identity
        except OSError:
            is_same_file = False
        if not is_same_file:
            raise moved_error(str(self.path))

    def _check_version(self) -> int | None:
        """Disables trust in the schema of the file and returns the version of its tables."""
        self.sql.execute("PRAGMA trusted_schema = OFF")
        self.sql.execute("PRAGMA cell_size_check = ON")
        return self._read_version()

    def _prepare(self, durability: Durability, max_bytes: int | None) -> None:
        sql = self.sql
        version = self._check_version()
        if version is None and self.path.is_symlink():
            hint = "set `journal:` to the file itself"
            raise JournalError("J018", f"the journal is a link to a file that is not a journal: {self.path}", hint=hint)
        self._restrict_permissions()
        if version is None:
            sql.execute("PRAGMA auto_vacuum = INCREMENTAL")  # only effective before the first page is written
        if sql.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
            raise JournalError(
                "J017",
                f"the journal's folder does not support a write-ahead log: {self.path}",
                hint="put the journal on a local disk",
            )
        sql.execute(f"PRAGMA synchronous = {_SYNCHRONOUS[durability]}")
        sql.execute("PRAGMA wal_autocheckpoint = 0")  # `checkpoint` notes checkpoints in the mark
        sql.execute(
            "PRAGMA secure_delete = ON"
        )  # deleted content is overwritten, which only some builds of SQLite do by default
        if version is None or not has_commit_counter(sql):
            self._make_tables()
        if max_bytes is not None:
            page = sql.execute("PRAGMA page_size").fetchone()[0]
            sql.execute(f"PRAGMA max_page_count = {max(1, max_bytes // page)}")

    def _restrict_permissions(self) -> None:
        """Removes read access of other users; SQLite applies the same mode to its companion files. Raises
        `JournalError`.
        """
        self.check_not_moved()
        try:
            if os.stat(self.path).st_mode & 0o077:
                os.chmod(self.path, 0o600)
        except OSError as error:
            raise from_os(error, str(self.path)) from error

    def _read_version(self) -> int | None:
        """Returns the version of the tables, or None for an empty file. Raises J018 for other databases, J020 for other
        versions.
        """
        if not self.sql.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            return None
        if self.sql.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
            raise JournalError(
                "J018",
                f"the file is a database, but not a journal: {self.path}",
                hint="set `journal:` to another file",
            )
        # Foreign views may run forever and foreign triggers would run on writes, so they are refused before anything is
        # read.
        if (strange := self.sql.execute(_FIND_FOREIGN_OBJECT).fetchone()) is not None:
            message = f"the journal has a {strange[0]} that Orchestra did not create: {self.path}"
            raise JournalError("J013", message, hint="restore the file from a backup, or set `journal:` to another one")
        version: int | None = self.sql.execute("SELECT CAST(max(version) AS INTEGER) FROM schema_version").fetchone()[0]
        if version is None or version < 1:
            raise JournalError(
                "J013", f"the journal has no schema version: {self.path}", hint="restore the file from a backup"
            )
        if version != SCHEMA_VERSION:
            older = (
                f"move {self.path}* away to start a new journal, or read it with the version of Orchestra that wrote it"
            )
            newer = "pip install --upgrade orchestra-slm, or set `journal:` to another file"
            raise JournalError(
                "J020",
                f"the journal has schema version {version}, this Orchestra reads version {SCHEMA_VERSION}: {self.path}",
                hint=older if version < SCHEMA_VERSION else newer,
            )
        return version

    def _make_tables(self) -> None:
        """Creates the tables in one transaction, unless another process created them meanwhile."""
        sql = self.sql
        sql.execute("BEGIN IMMEDIATE")
        try:
            if self._read_version() is None:
                sql.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                self._execute(_TABLES, _INDEX_TABLES)
                sql.execute("INSERT INTO schema_version VALUES (?)", (SCHEMA_VERSION,))
            if not has_commit_counter(sql):
                sql.execute(COMMITS_TABLE)
                sql.execute("INSERT INTO commits VALUES (?, 0, -1)", (os.urandom(16),))
            sql.execute("COMMIT")
        finally:
            if sql.in_transaction:
                sql.execute("ROLLBACK")

    def _execute(self, *scripts: str) -> None:
        for statement in _split_statements(scripts):
            self.sql.execute(statement)


class CommitCount(NamedTuple):
    """The journal's identity and the number of commits in its database."""

    journal_id: bytes
    commit_number: int


def has_commit_counter(sql: sqlite3.Connection) -> bool:
    """Returns whether the database has the commits table exactly as it is created here."""
    cursor = sql.execute(
        "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'commits' AND sql = ?", (COMMITS_TABLE,)
    )
    return bool(cursor.fetchone()[0])


def read_commit_count(sql: sqlite3.Connection) -> CommitCount:
    """Reads the commit counter. Raises `JournalError` J013 if it was altered."""
    rows = sql.execute("SELECT journal, number, inverse FROM commits").fetchall()
    if len(rows) != 1 or [type(value) for value in rows[0]] != [bytes, int, int] or rows[0][1] + rows[0][2] != -1:
        raise damaged_rows_error("the commit counter", "it was altered")
    return CommitCount(*rows[0][:2])


def _read_only_uri(path: Path) -> str:
    """Returns the URI for reading a file in a folder that cannot be written. Raises `JournalError` J011.

    Changes of another process in the log are read through its index. Without a log the file is opened as immutable
    (https://www.sqlite.org/wal.html#read_only_databases).
    """
    log, index = (path.with_name(path.name + part) for part in ("-wal", "-shm"))
    pages = log.exists() and log.stat().st_size > 0
    if pages and not index.exists():
        hint = f"copy {path} and {log} into a folder that you may write, and set `journal:` to the copy"
        raise JournalError(
            "J011", f"the journal's folder cannot be written, and its log lacks the index: {log}", hint=hint
        )
    return f"{path.absolute().as_uri()}?mode=ro{'' if index.exists() else '&immutable=1'}"


def _split_statements(scripts: Iterable[str]) -> Iterable[str]:
    return (statement for script in scripts for statement in script.split(";"))


def _file_identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


COLUMNS = (
    "CAST(runs.workflow AS TEXT), CAST(runs.status AS TEXT), CAST(runs.started AS REAL), CAST(runs.finished AS REAL),"
    " CAST(runs.nodes AS INTEGER), CAST(runs.usage AS BLOB), CAST(runs.last AS INTEGER), CAST(runs.chain AS BLOB),"
    " CAST(runs.writer AS TEXT), CAST(runs.epoch AS INTEGER)"
)
"""SQLite stores any type in any column, and a damaged file may contain other types than were written: casts restore
ours.
"""
LOST_WRITER = "lost"
"""The writer of a run whose last events may be missing. No presence has this name."""
_INSERT = (
    "INSERT INTO runs (workflow, status, started, finished, nodes, usage, last, chain, writer, epoch, checksum, run)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
# `workflow` and `started` never change, so the index of `started` is not updated.
_UPDATE = (
    "UPDATE runs SET status = ?, finished = ?, nodes = ?, usage = ?, last = ?, chain = ?, writer = ?, epoch = ?,"
    " checksum = ? WHERE run = ? AND epoch = ? AND writer = ?"
)
_decode_usage = msgspec.json.Decoder(Usage).decode


@dataclass(slots=True)
class RunRow:
    """A run's row, which is also the end of its log. `chain` is the last hash, `writer` the lease holder."""

    summary_fold: SummaryFold
    last_seq: int
    chain: bytes
    writer: str
    epoch: int = 1

    def columns(self) -> tuple[object, ...]:
        """Returns the values of `COLUMNS` in order, then the checksum, then the run. An ended run has no lease."""
        tally = self.summary_fold
        finish_time = None if tally.finished is None else float(tally.finished)
        writer = self.writer if tally.status == "running" else ""
        values = (
            *(tally.workflow, tally.status, float(tally.started), finish_time, tally.nodes, canonical(tally.usage)),
            *(self.last_seq, self.chain, writer, self.epoch),
        )
        return (*values, row_checksum(tally.run, *values), tally.run)


def parse_row(run: str, values: Sequence[Any], stated: int | None) -> RunRow:
    """Parses a row. Raises `JournalError` J013 if it was altered."""
    if stated is not None and stated != row_checksum(run, *values):
        raise damaged_event_error(run, values[6], "the run's summary was altered")
    workflow, status, start_time, finish_time, nodes, usage, last, chain, writer, epoch = values
    try:
        run_usage = _decode_usage(usage)
    except msgspec.DecodeError as error:
        raise damaged_event_error(run, last, f"its summary cannot be read ({error})") from error
    return RunRow(
        SummaryFold(run, workflow, status, start_time, finish_time, nodes, run_usage), last, chain, writer, epoch
    )


def read_row(sql: sqlite3.Connection, run: str) -> RunRow | None:
    """Reads the row of a run, or returns None. Raises `sqlite3.Error`, or `JournalError` J013."""
    row = sql.execute(f"SELECT {COLUMNS}, checksum FROM runs WHERE run = ?", (run,)).fetchone()  # noqa: S608  # a constant
    return None if row is None else parse_row(run, row[:-1], row[-1])


def insert_rows(sql: sqlite3.Connection, rows: Sequence[RunRow]) -> None:
    """Inserts rows of new runs. Raises `sqlite3.IntegrityError` for an existing one."""
    sql.executemany(_INSERT, [row.columns() for row in rows])


def update_rows(sql: sqlite3.Connection, rows: Sequence[tuple[RunRow, RunRow]]) -> bool:
    """Replaces rows. Returns false if a lease has changed since the row before."""
    cursor = sql.executemany(
        _UPDATE,
        [
            (columns[1], *columns[3:], before.epoch, before.writer)
            for before, row in rows
            for columns in (row.columns(),)
        ],
    )
    return cursor.rowcount == len(rows)


def write_entries(sql: sqlite3.Connection, entries: IndexEntries) -> None:
    """Writes tags and copies. Raises `sqlite3.Error`."""
    if entries.tags:
        sql.executemany("INSERT OR IGNORE INTO tags VALUES (?, ?, ?, ?)", entries.tags)
    if entries.copies:
        sql.executemany("INSERT OR IGNORE INTO copies VALUES (?, ?)", entries.copies)

"""The store: tables of one SQLite file, how they are written and read. Synchronous; one thread uses a store at a time."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec

from orchestra.doors import RunSummary
from orchestra.events import Event, Usage, decode
from orchestra.journal.error import JournalError, damaged, from_os, from_sqlite, moved, unknown_event
from orchestra.journal.summary import Line, Tally
from orchestra.values.json import canonical, digest

Durability: TypeAlias = Literal["strict", "group", "off"]

SCHEMA = 1
"""Version of the tables below."""
APPLICATION_ID = 0x4F726368
"""Marks the file as ours: `Orch` in ASCII (`PRAGMA application_id`)."""

_TABLES = """
CREATE TABLE schema_version (version INTEGER NOT NULL);
CREATE TABLE runs (
  run TEXT PRIMARY KEY, workflow TEXT NOT NULL, status TEXT NOT NULL, started REAL NOT NULL, finished REAL,
  nodes INTEGER NOT NULL, usage BLOB NOT NULL, last INTEGER NOT NULL, chain BLOB NOT NULL, writer TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX runs_started ON runs (started, run);
CREATE TABLE events (
  run TEXT NOT NULL, seq INTEGER NOT NULL, body BLOB NOT NULL, chain BLOB NOT NULL, PRIMARY KEY (run, seq)
) WITHOUT ROWID;
CREATE TABLE blobs (digest TEXT PRIMARY KEY, data BLOB NOT NULL);
"""
_SYNCHRONOUS: dict[Durability, str] = {"strict": "EXTRA", "group": "FULL", "off": "NORMAL"}
_ROW = "workflow, status, CAST(started AS REAL), CAST(finished AS REAL), CAST(nodes AS INTEGER), CAST(usage AS BLOB), CAST(last AS INTEGER)"
"""SQLite keeps any type in any column, and a damaged file may hold another one than was written: casts keep ours."""
_UPSERT = "INSERT OR REPLACE INTO runs VALUES (?,?,?,?,?,?,?,?,?,?)"


@dataclass(slots=True)
class Batch:
    """What goes to disk in one transaction: blobs by digest, and for each run its next events with their bytes."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    runs: dict[str, list[tuple[Sequence[Event], Sequence[bytes]]]] = field(default_factory=dict)

    def apart(self) -> list[Batch]:
        """The same in many: the blobs first, then each run by itself."""
        return [Batch(self.blobs), *(Batch({}, {run: parts}) for run, parts in self.runs.items())]


@dataclass(slots=True)
class _Tail:
    """The end of one run's log: its row so far, its greatest `seq` and the last link of its chain."""

    tally: Tally
    last: int
    chain: bytes


def link(chain: bytes, body: bytes) -> bytes:
    """The next link of a hash chain: SHA-256 of the link before and the event's bytes. A chain begins with the run's id in UTF-8."""
    return hashlib.sha256(chain + body).digest()


class Store:
    """One connection to a journal's file."""

    def __init__(self, path: Path, *, durability: Durability = "group", busy: float = 10.0, max_bytes: int | None = None) -> None:
        """Opens the file, and makes it where it is not there, readable by its owner only. Raises `JournalError`."""
        self.path = path
        self._tails: dict[str, _Tail] = {}
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
            self._identity = _identity(os.fstat(descriptor))
            os.close(descriptor)
            if os.stat(path).st_mode & 0o077:
                os.chmod(path, 0o600)
        except OSError as error:
            raise from_os(error, str(path)) from error
        try:
            self._sql = sqlite3.connect(path, timeout=busy, isolation_level=None, check_same_thread=False)
            try:
                self._prepare(durability, max_bytes)
            except BaseException:
                self._sql.close()
                raise
        except sqlite3.Error as error:
            raise self.fault(error) from error

    def fault(self, error: sqlite3.Error) -> JournalError:
        """The store's error, coded."""
        return from_sqlite(error, str(self.path), str(self.path.parent))

    def close(self) -> None:
        """Lets go of the file."""
        self._sql.close()

    def _prepare(self, durability: Durability, max_bytes: int | None) -> None:
        sql = self._sql
        sql.execute("PRAGMA trusted_schema = OFF")
        sql.execute("PRAGMA cell_size_check = ON")
        version = self._version()
        if sql.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
            raise JournalError(
                "J017", f"the journal's folder knows no write-ahead log: {self.path}", hint="put the journal on a local disk"
            )
        sql.execute(f"PRAGMA synchronous = {_SYNCHRONOUS[durability]}")
        if version is None:
            self._make_tables()
        if max_bytes is not None:
            page = sql.execute("PRAGMA page_size").fetchone()[0]
            sql.execute(f"PRAGMA max_page_count = {max(1, max_bytes // page)}")

    def _version(self) -> int | None:
        """The version of the tables in the file, or None where it is empty; refuses strangers and the future."""
        if not self._sql.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            return None
        if self._sql.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
            raise JournalError("J018", f"the file is a database, but not a journal: {self.path}", hint="name another file with `journal:`")
        version: int = self._sql.execute("SELECT max(version) FROM schema_version").fetchone()[0]
        if version > SCHEMA:
            raise JournalError(
                "J020",
                f"the journal has schema version {version}, this Orchestra knows {SCHEMA}: {self.path}",
                hint="pip install --upgrade orchestra-slm, or name another file with `journal:`",
            )
        return version

    def _make_tables(self) -> None:
        sql = self._sql
        sql.execute("BEGIN IMMEDIATE")
        try:
            if self._version() is None:
                sql.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                for statement in _TABLES.split(";"):
                    sql.execute(statement)
                sql.execute("INSERT INTO schema_version VALUES (?)", (SCHEMA,))
            sql.execute("COMMIT")
        finally:
            if sql.in_transaction:
                sql.execute("ROLLBACK")

    # Writing

    def commit(self, batch: Batch, writer: str) -> None:
        """Puts a batch on disk, all or nothing. Raises `sqlite3.Error`, or `JournalError` J016 where the file was moved away.

        `sqlite3.IntegrityError` says that another process appended to one of the runs.
        """
        self._refuse_moved()
        sql = self._sql
        tails: dict[str, _Tail] = {}
        rows: list[tuple[str, int, bytes, bytes]] = []
        for run, parts in batch.runs.items():
            tails[run] = self._extended(run, parts, rows)
        try:
            sql.execute("BEGIN IMMEDIATE")
            if batch.blobs:
                sql.executemany("INSERT OR IGNORE INTO blobs VALUES (?, ?)", batch.blobs.items())
            sql.executemany("INSERT INTO events VALUES (?, ?, ?, ?)", rows)
            sql.executemany(_UPSERT, [_row(tail, writer) for tail in tails.values()])
            sql.execute("COMMIT")
        finally:
            if sql.in_transaction:
                sql.execute("ROLLBACK")
        for run, tail in tails.items():
            if tail.tally.status == "running":
                self._tails[run] = tail
            else:
                self._tails.pop(run, None)

    def _extended(
        self, run: str, parts: Iterable[tuple[Sequence[Event], Sequence[bytes]]], rows: list[tuple[str, int, bytes, bytes]]
    ) -> _Tail:
        before = self._tails.get(run) or self._tail(run)
        known = before.tally
        tally = Tally(run, known.workflow, known.status, known.started, known.finished, known.nodes, known.usage)
        last, chain = before.last, before.chain
        for events, bodies in parts:
            for event, body in zip(events, bodies, strict=True):
                tally.add(event)
                chain = link(chain, body)
                last = event.seq
                rows.append((run, last, body, chain))
        return _Tail(tally, last, chain)

    def _tail(self, run: str) -> _Tail:
        row = self._sql.execute(
            f"SELECT {_ROW}, CAST(chain AS BLOB) FROM runs WHERE run = ?",  # noqa: S608  # a constant
            (run,),
        ).fetchone()
        if row is None:
            return _Tail(Tally(run), 0, run.encode())
        workflow, status, started, finished, nodes, usage, last, chain = row
        return _Tail(Tally(run, workflow, status, started, finished, nodes, _usage(run, last, usage)), last, chain)

    def _refuse_moved(self) -> None:
        try:
            same = _identity(os.stat(self.path)) == self._identity
        except OSError:
            same = False
        if not same:
            raise moved(str(self.path))

    # Reading

    def line(self, run: str) -> Line:
        """Where a run's log ends on disk."""
        row = self._sql.execute("SELECT CAST(last AS INTEGER), status FROM runs WHERE run = ?", (run,)).fetchone()
        return Line(run) if row is None else Line(run, row[0], row[1] != "running")

    def events(self, run: str, after: int) -> list[Event]:
        """The events with `seq > after`.

        Raises `JournalError`: J013 where numbers, chain or end are not as they were written, J021 for an unknown kind.
        """
        sql = self._sql
        sql.execute("BEGIN")
        try:
            end = sql.execute("SELECT CAST(last AS INTEGER), CAST(chain AS BLOB) FROM runs WHERE run = ?", (run,)).fetchone() or (
                0,
                run.encode(),
            )
            rows = sql.execute(
                "SELECT seq, CAST(body AS BLOB), CAST(chain AS BLOB) FROM events WHERE run = ? AND seq >= ? ORDER BY seq",
                (run, max(0, after)),
            ).fetchall()
        finally:
            sql.execute("ROLLBACK")
        seq, chain = 0, run.encode()
        if after > 0:
            if not rows or rows[0][0] != after:
                if after > end[0]:
                    return []
                raise damaged(run, after, "it is missing")
            seq, _, chain = rows.pop(0)
        found = []
        for number, body, stated in rows:
            seq, chain = seq + 1, link(chain, body)
            if number != seq:
                raise damaged(run, seq, "it is missing")
            if chain != stated:
                raise damaged(run, seq, "its hash differs from what was written")
            found.append(_event(run, seq, body))
        if (seq, chain) != (end[0], end[1]):
            raise damaged(run, seq + 1, f"the log should end at {end[0]}")
        return found

    def blob(self, name: str) -> bytes | None:
        """A blob's bytes; raises `JournalError` J013 where they are not what was stored."""
        row = self._sql.execute("SELECT CAST(data AS BLOB) FROM blobs WHERE digest = ?", (name,)).fetchone()
        if row is None:
            return None
        data: bytes = row[0]
        if digest(data) != name:
            raise JournalError("J013", f"the journal is damaged: blob {name} is not what was stored", hint="restore the file from a copy")
        return data

    def summaries(self, limit: int) -> list[tuple[RunSummary, str]]:
        """The latest runs, newest first, each with the name of its writer."""
        rows = self._sql.execute(
            f"SELECT run, {_ROW}, writer FROM runs ORDER BY started DESC, run DESC LIMIT ?",  # noqa: S608  # a constant
            (max(0, limit),),
        )
        return [
            (Tally(run, workflow, status, started, finished, nodes, _usage(run, last, usage)).summary(), writer)
            for run, workflow, status, started, finished, nodes, usage, last, writer in rows.fetchall()
        ]

    def find(self, prefix: str, limit: int) -> list[str]:
        """Ids of runs that begin with the prefix, in order."""
        rows = self._sql.execute(
            "SELECT run FROM runs WHERE run >= ? AND substr(run, 1, ?) = ? ORDER BY run LIMIT ?", (prefix, len(prefix), prefix, limit)
        )
        return [row[0] for row in rows]


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _row(tail: _Tail, writer: str) -> tuple[object, ...]:
    tally = tail.tally
    usage = canonical(tally.usage)
    return (tally.run, tally.workflow, tally.status, tally.started, tally.finished, tally.nodes, usage, tail.last, tail.chain, writer)


def _usage(run: str, seq: int, data: bytes) -> Usage:
    try:
        return msgspec.json.decode(data, type=Usage)
    except msgspec.DecodeError as error:
        raise damaged(run, seq, f"its summary cannot be read ({error})") from error


def _event(run: str, seq: int, body: bytes) -> Event:
    try:
        event: Event = decode(body)
    except msgspec.ValidationError as error:
        raise unknown_event(run, seq, str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise damaged(run, seq, str(error)) from error
    if event.seq != seq:
        raise damaged(run, seq, f"it calls itself {event.seq}")
    return event

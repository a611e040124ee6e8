"""What the server stores besides runs: keys, files, threads, schedules, webhooks, batches. Records by kind and id.

They are in a file beside the journal, or in the database of the journal, so that all processes with the same journal
share them. A record is replaced only
by a writer that has read its latest version, so that two processes never both win.
"""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from orchestra.core.errors import OrchestraError

T = TypeVar("T")
_SCHEMA = """
CREATE TABLE IF NOT EXISTS records (
  kind TEXT NOT NULL, id TEXT NOT NULL, tenant TEXT NOT NULL, version INTEGER NOT NULL, created REAL NOT NULL,
  data BLOB NOT NULL, due REAL, PRIMARY KEY (kind, id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS records_of_tenant ON records (kind, tenant, created DESC, id DESC);
"""
_DUE_INDEX = "CREATE INDEX IF NOT EXISTS records_due ON records (kind, due) WHERE due IS NOT NULL"
_SET_DUE = """
UPDATE records SET due = json_extract(CAST(data AS TEXT), '$.next_attempt')
WHERE kind = 'delivery' AND json_extract(CAST(data AS TEXT), '$.status') = 'pending'
"""
"""Sets the times of deliveries that were recorded before the column existed."""
_COLUMNS = "kind, id, tenant, version, created, data, due"
LOCK_SECONDS = 10.0


class Record(msgspec.Struct, frozen=True):
    """One record. `version` counts from 1."""

    kind: str
    id: str
    tenant: str
    version: int
    created: float
    data: bytes
    due: float | None = None
    """When something must be done about it, in seconds since 1970. None: nothing."""


NO_RECORD_LIMIT: Final = 1 << 30
"""More records than any store has of a kind."""


class Records(ABC):
    """The store of records."""

    @abstractmethod
    async def add(self, kind: str, id: str, tenant: str, data: bytes, due: float | None = None) -> Record | None:
        """Adds a record; None if the id is taken."""

    @abstractmethod
    async def get(self, kind: str, id: str) -> Record | None:
        """Returns a record, or None."""

    @abstractmethod
    async def replace(self, record: Record, data: bytes, due: float | None = None) -> Record | None:
        """Replaces the data and the time of a record; None if another writer was first, or the record was deleted."""

    @abstractmethod
    async def delete(self, kind: str, id: str) -> bool:
        """Deletes a record; returns whether it was there."""

    @abstractmethod
    async def list(
        self, kind: str, tenant: str | None, limit: int = NO_RECORD_LIMIT, before: tuple[float, str] | None = None
    ) -> Sequence[Record]:
        """Returns the records of a kind and a tenant (None for all), newest first; those after the creation time and
        id of `before` in this order.
        """

    @abstractmethod
    async def list_due(self, kind: str, now: float, limit: int) -> Sequence[Record]:
        """Returns the records of a kind that are due at a time, the longest due first. An index finds them: the cost
        does not depend on the number of other records.
        """


class SqliteRecords(Records):
    """The store of records in a file or in memory. Its methods run on a thread of their own."""

    def __init__(self, connection: sqlite3.Connection, thread: ThreadPoolExecutor) -> None:
        self._connection, self._thread = connection, thread

    @classmethod
    @asynccontextmanager
    async def open_file(cls, journal: Path | None) -> AsyncIterator[SqliteRecords]:
        """Opens the store of a journal; in memory without a file. Raises `OrchestraError` S010 if it cannot be
        opened.
        """
        thread = ThreadPoolExecutor(1, "records")
        try:
            path = ":memory:" if journal is None else str(journal.with_name(f"{journal.name}-server"))
            connection = await asyncio.get_running_loop().run_in_executor(thread, _connect, path)
            try:
                yield cls(connection, thread)
            finally:
                await asyncio.get_running_loop().run_in_executor(thread, connection.close)
        finally:
            thread.shutdown(wait=False)

    async def _execute(self, work: Callable[[sqlite3.Connection], T]) -> T:
        def run() -> T:
            try:
                return work(self._connection)
            except sqlite3.Error as error:
                raise storage_fault(error) from error

        return await asyncio.get_running_loop().run_in_executor(self._thread, run)

    async def add(self, kind: str, id: str, tenant: str, data: bytes, due: float | None = None) -> Record | None:
        """Adds a record; None if the id is taken."""
        record = Record(kind, id, tenant, 1, time.time(), data, due)

        def insert(connection: sqlite3.Connection) -> bool:
            sql = f"INSERT OR IGNORE INTO records ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - constants
            with connection:
                return connection.execute(sql, msgspec.structs.astuple(record)).rowcount == 1

        return record if await self._execute(insert) else None

    async def get(self, kind: str, id: str) -> Record | None:
        """Returns a record, or None."""

        def select(connection: sqlite3.Connection) -> Record | None:
            sql = f"SELECT {_COLUMNS} FROM records WHERE kind = ? AND id = ?"  # noqa: S608 - constants
            row = connection.execute(sql, (kind, id)).fetchone()
            return None if row is None else Record(*row)

        return await self._execute(select)

    async def replace(self, record: Record, data: bytes, due: float | None = None) -> Record | None:
        """Replaces the data and the time of a record; None if another writer was first, or the record was deleted."""

        def update(connection: sqlite3.Connection) -> bool:
            sql = (
                "UPDATE records SET data = ?, due = ?, version = version + 1 WHERE kind = ? AND id = ? AND version = ?"
            )
            with connection:
                return connection.execute(sql, (data, due, record.kind, record.id, record.version)).rowcount == 1

        if not await self._execute(update):
            return None
        return msgspec.structs.replace(record, data=data, due=due, version=record.version + 1)

    async def delete(self, kind: str, id: str) -> bool:
        """Deletes a record; returns whether it was there."""

        def remove(connection: sqlite3.Connection) -> bool:
            with connection:
                return connection.execute("DELETE FROM records WHERE kind = ? AND id = ?", (kind, id)).rowcount == 1

        return await self._execute(remove)

    async def list(
        self, kind: str, tenant: str | None, limit: int = NO_RECORD_LIMIT, before: tuple[float, str] | None = None
    ) -> Sequence[Record]:
        """Returns the records of a kind and a tenant (None for all), newest first; those after the creation time and
        id of `before` in this order.
        """
        created, last = before or (float("inf"), "")

        def select(connection: sqlite3.Connection) -> Sequence[Record]:
            of_tenant = "" if tenant is None else "AND tenant = :tenant"
            sql = (
                f"SELECT {_COLUMNS} FROM records WHERE kind = :kind {of_tenant} "  # noqa: S608 - constants
                "AND (created, id) < (:created, :last) ORDER BY created DESC, id DESC LIMIT :limit"
            )
            values = {"kind": kind, "tenant": tenant, "created": created, "last": last, "limit": limit}
            return [Record(*row) for row in connection.execute(sql, values)]

        return await self._execute(select)

    async def list_due(self, kind: str, now: float, limit: int) -> Sequence[Record]:
        """Returns the records of a kind that are due at a time, the longest due first."""

        def select(connection: sqlite3.Connection) -> Sequence[Record]:
            sql = f"SELECT {_COLUMNS} FROM records WHERE kind = ? AND due <= ? ORDER BY due LIMIT ?"  # noqa: S608 - constants
            return [Record(*row) for row in connection.execute(sql, (kind, now, limit))]

        return await self._execute(select)


def new_id(prefix: str) -> str:
    """Returns a new id that cannot be guessed."""
    return f"{prefix}_{secrets.token_hex(12)}"


def storage_fault(error: Exception) -> OrchestraError:
    """Returns the error for a store that cannot be read or written."""
    return OrchestraError(
        "S010", f"the server's records cannot be used: {error}", hint="see the disk, or the database, of the journal"
    )


def _connect(path: str) -> sqlite3.Connection:
    try:
        connection = sqlite3.connect(path, timeout=LOCK_SECONDS, check_same_thread=False)
        with closing(connection.cursor()) as cursor:
            cursor.execute("PRAGMA journal_mode = WAL")
            cursor.execute("PRAGMA synchronous = FULL")
            cursor.executescript(_SCHEMA)
        _migrate(connection)
    except sqlite3.Error as error:
        raise storage_fault(error) from error
    return connection


def _migrate(connection: sqlite3.Connection) -> None:
    """Adds the column of times to a file of an earlier version."""
    if not _has_due(connection):
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            if not _has_due(connection):  # Another process may have been first.
                connection.execute("ALTER TABLE records ADD COLUMN due REAL")
                connection.execute(_SET_DUE)
    with connection:
        connection.execute(_DUE_INDEX)


def _has_due(connection: sqlite3.Connection) -> bool:
    return any(row[1] == "due" for row in connection.execute("PRAGMA table_info(records)"))

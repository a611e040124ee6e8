"""The records of the server in Postgres, beside a journal there: all servers with that journal share them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final, TypeVar

import asyncpg
import msgspec

from orchestra.journal.postgres.connections import PostgresDatabase, redact_dsn, split_dsn
from orchestra.journal.postgres.errors import POSTGRES_ERRORS, is_transient, unreachable_error
from orchestra.journal.postgres.rows import is_storable
from orchestra.server.records import NO_RECORD_LIMIT, Record, Records, storage_fault

T = TypeVar("T")
SCHEMA_SUFFIX: Final = "_server"
"""The schema of the records is that of the journal with this ending."""
CREATION_LOCK: Final = 0x4F726373
"""The advisory lock for creating the table."""
RETRY_TIMEOUT: Final = 10.0
"""Seconds in which a statement must end."""
_COLUMNS: Final = "kind, id, tenant, version, created, data, due"
_TABLE: Final = """
CREATE SCHEMA IF NOT EXISTS {schema};
CREATE TABLE IF NOT EXISTS {schema}.records (
  kind text COLLATE "C" NOT NULL, id text COLLATE "C" NOT NULL, tenant text COLLATE "C" NOT NULL,
  version bigint NOT NULL, created double precision NOT NULL, data bytea NOT NULL, due double precision,
  PRIMARY KEY (kind, id)
);
CREATE INDEX IF NOT EXISTS records_of_tenant ON {schema}.records (kind, tenant, created DESC, id DESC);
ALTER TABLE {schema}.records ADD COLUMN IF NOT EXISTS due double precision;
CREATE INDEX IF NOT EXISTS records_due ON {schema}.records (kind, due) WHERE due IS NOT NULL;
"""
_SET_DUE: Final = """
UPDATE {schema}.records SET due = (convert_from(data, 'UTF8')::json ->> 'next_attempt')::double precision
WHERE kind = 'delivery' AND convert_from(data, 'UTF8')::json ->> 'status' = 'pending'
"""
"""Sets the times of deliveries that were recorded before the column existed."""


class PostgresRecords(Records):
    """The store of records in a database."""

    def __init__(self, pool: asyncpg.Pool, table: str) -> None:
        self._pool, self._table = pool, table

    async def _execute(self, work: Callable[[asyncpg.Connection], Awaitable[T]], *, is_repeatable: bool = False) -> T:
        """Runs a statement; once more after a lost connection, if that cannot change anything twice."""
        for is_last in (not is_repeatable, True):
            try:
                async with self._pool.acquire() as sql:
                    return await work(sql)
            except POSTGRES_ERRORS as error:
                if is_last or not is_transient(error):
                    raise storage_fault(error) from error
        raise AssertionError("the second attempt returns or raises")

    async def add(self, kind: str, id: str, tenant: str, data: bytes, due: float | None = None) -> Record | None:
        """Adds a record; None if the id is taken."""
        record = Record(kind, id, tenant, 1, time.time(), data, due)
        values = "$1, $2, $3, $4, $5, $6, $7"
        sql = f"INSERT INTO {self._table} ({_COLUMNS}) VALUES ({values}) ON CONFLICT DO NOTHING"  # noqa: S608 - constants
        command_status = await self._execute(
            lambda connection: connection.execute(sql, *msgspec.structs.astuple(record))
        )
        return record if _count(command_status) == 1 else None

    async def get(self, kind: str, id: str) -> Record | None:
        """Returns a record, or None."""
        if not is_storable(id):
            return None
        sql = f"SELECT {_COLUMNS} FROM {self._table} WHERE kind = $1 AND id = $2"  # noqa: S608 - constants
        row = await self._execute(lambda connection: connection.fetchrow(sql, kind, id), is_repeatable=True)
        return None if row is None else Record(*row)

    async def replace(self, record: Record, data: bytes, due: float | None = None) -> Record | None:
        """Replaces the data and the time of a record; None if another writer was first, or the record was deleted."""
        sql = (
            f"UPDATE {self._table} SET data = $1, due = $2, version = version + 1 "  # noqa: S608 - constants
            "WHERE kind = $3 AND id = $4 AND version = $5"
        )
        command_status = await self._execute(
            lambda connection: connection.execute(sql, data, due, record.kind, record.id, record.version)
        )
        if _count(command_status) != 1:
            return None
        return msgspec.structs.replace(record, data=data, due=due, version=record.version + 1)

    async def delete(self, kind: str, id: str) -> bool:
        """Deletes a record; returns whether it was there."""
        if not is_storable(id):
            return False
        sql = f"DELETE FROM {self._table} WHERE kind = $1 AND id = $2"  # noqa: S608 - constants
        return _count(await self._execute(lambda connection: connection.execute(sql, kind, id))) == 1

    async def list(
        self, kind: str, tenant: str | None, limit: int = NO_RECORD_LIMIT, before: tuple[float, str] | None = None
    ) -> Sequence[Record]:
        """Returns the records of a kind and a tenant (None for all), newest first; those after the creation time and
        id of `before` in this order.
        """
        created, last = before or (float("inf"), "")
        sql = (
            f"SELECT {_COLUMNS} FROM {self._table} WHERE kind = $1 AND ($2::text IS NULL OR tenant = $2) "  # noqa: S608 - constants
            'AND (created, id) < ($3, $4 COLLATE "C") ORDER BY created DESC, id DESC LIMIT $5'
        )
        rows = await self._execute(
            lambda connection: connection.fetch(sql, kind, tenant, created, last, limit), is_repeatable=True
        )
        return [Record(*row) for row in rows]

    async def list_due(self, kind: str, now: float, limit: int) -> Sequence[Record]:
        """Returns the records of a kind that are due at a time, the longest due first."""
        sql = f"SELECT {_COLUMNS} FROM {self._table} WHERE kind = $1 AND due <= $2 ORDER BY due LIMIT $3"  # noqa: S608 - constants
        rows = await self._execute(lambda connection: connection.fetch(sql, kind, now, limit), is_repeatable=True)
        return [Record(*row) for row in rows]


def _count(command_status: str) -> int:
    """Returns the number of rows of a finished statement, such as `UPDATE 1`."""
    return int(command_status.rpartition(" ")[2])


@asynccontextmanager
async def open_postgres_records(dsn: str) -> AsyncIterator[PostgresRecords]:
    """Opens the records beside the journal of a database; creates their schema if it is missing.

    Raises:
        JournalError: J030: the database cannot be reached.
        OrchestraError: S010: the schema cannot be created.
    """
    address, schema = split_dsn(dsn)
    database = PostgresDatabase(address, redact_dsn(address), "group", RETRY_TIMEOUT)
    quoted_schema = '"{}"'.format(f"{schema}{SCHEMA_SUFFIX}".replace('"', '""'))
    try:
        pool = await database.pool()
        sql = await pool.acquire()
    except (*POSTGRES_ERRORS, ValueError) as error:
        raise unreachable_error(error, database.display_name) from error
    try:
        try:
            await _create(sql, quoted_schema)
        finally:
            await pool.release(sql)
        yield PostgresRecords(pool, f"{quoted_schema}.records")
    finally:
        await _close(pool)


async def _create(sql: asyncpg.Connection, schema: str) -> None:
    try:
        if await _has_column(sql, schema, "due"):
            return  # A role that may not create tables may use them.
        async with sql.transaction():
            await sql.execute("SELECT pg_advisory_xact_lock($1)", CREATION_LOCK)
            if await _has_column(sql, schema, "due"):
                return  # Another process was first.
            await sql.execute(_TABLE.format(schema=schema))
            await sql.execute(_SET_DUE.format(schema=schema))
    except POSTGRES_ERRORS as error:
        raise storage_fault(error) from error


async def _has_column(sql: asyncpg.Connection, schema: str, name: str) -> bool:
    """Whether the table of records is there and has a column."""
    query = "SELECT count(*) FROM pg_attribute WHERE attrelid = to_regclass($1) AND attname = $2"
    return bool(await sql.fetchval(query, f"{schema}.records", name))


async def _close(pool: asyncpg.Pool) -> None:
    """Closes the connections; at once if the server does not answer."""
    try:
        async with asyncio.timeout(RETRY_TIMEOUT):
            await pool.close()
    except (TimeoutError, *POSTGRES_ERRORS):
        pool.terminate()

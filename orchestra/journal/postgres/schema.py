"""The schema of a journal in a Postgres database: its tables, how they are made, and how those of an older version are migrated."""

from __future__ import annotations

from contextlib import suppress

import asyncpg
import msgspec

from orchestra.core.events import decode
from orchestra.journal.postgres.errors import foreign_schema_error, newer_schema_error, no_create_error
from orchestra.journal.postgres.rows import is_storable, restore_body
from orchestra.journal.run_index import IndexEntries
from orchestra.schema.strict_json import digest

SCHEMA_VERSION = 2
"""Version of the tables below."""
MIGRATION_LOCK = 0x4F726368
"""The advisory lock of whoever makes the tables."""

_TABLES = """
CREATE TABLE schema_version (version integer NOT NULL);
CREATE TABLE runs (
  run text COLLATE "C" PRIMARY KEY, started double precision NOT NULL, ended boolean NOT NULL, last bigint NOT NULL, chain bytea NOT NULL,
  summary bytea NOT NULL, epoch bigint NOT NULL, holder bigint, letters bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 60);
CREATE INDEX runs_started ON runs (started, run);
CREATE TABLE events (
  run text COLLATE "C" NOT NULL, seq bigint NOT NULL, body bytea NOT NULL, chain bytea NOT NULL, big text, cut integer,
  PRIMARY KEY (run, seq)
);
CREATE TABLE blobs (digest text COLLATE "C" PRIMARY KEY, data bytea NOT NULL);
CREATE TABLE named (run text COLLATE "C" NOT NULL, digest text COLLATE "C" NOT NULL, PRIMARY KEY (run, digest));
CREATE INDEX named_digest ON named (digest);
CREATE TABLE letters (
  run text COLLATE "C" NOT NULL, number bigint NOT NULL, id text NOT NULL UNIQUE, body bytea NOT NULL, PRIMARY KEY (run, number)
);
CREATE TABLE memo (memo bytea PRIMARY KEY, run text COLLATE "C" NOT NULL, value bytea NOT NULL);
CREATE INDEX memo_run ON memo (run);
CREATE TABLE outbox (
  number bigint PRIMARY KEY, run text COLLATE "C" NOT NULL, key bytea NOT NULL UNIQUE, body bytea NOT NULL,
  delivered boolean NOT NULL DEFAULT false
);
CREATE INDEX outbox_run ON outbox (run);
CREATE INDEX outbox_open ON outbox (number) WHERE NOT delivered;
CREATE TABLE counters (messages bigint NOT NULL);
INSERT INTO counters VALUES (0);
"""
_SINCE_2 = """
CREATE TABLE tags (
  name text COLLATE "C" NOT NULL, value text COLLATE "C" NOT NULL, started double precision NOT NULL, run text COLLATE "C" NOT NULL,
  PRIMARY KEY (name, value, started, run)
);
CREATE INDEX tags_run ON tags (run);
CREATE TABLE copies (source text COLLATE "C" NOT NULL, run text COLLATE "C" NOT NULL, PRIMARY KEY (source, run));
CREATE INDEX copies_run ON copies (run);
CREATE TABLE run_usage (run text COLLATE "C" PRIMARY KEY, last bigint NOT NULL, chain bytea NOT NULL, body bytea NOT NULL);
"""
# The first events, and those that took an answer or a plan over from another run.
_SELECT_SOURCES = """SELECT run, body, cut FROM @events WHERE seq = 1 OR position('"recalled":"'::bytea IN body) > 0"""
_BATCH_ROWS = 10_000


class PostgresSchema:
    """One schema of a database, named in all statements."""

    def __init__(self, schema: str, where: str) -> None:
        """`where` is the database's name in errors."""
        self.schema, self.display_name = schema, where
        self.channel = f"orchestra_{digest(schema.encode())}"
        """Where letters are announced."""
        self._name = '"' + schema.replace('"', '""') + '"'

    def _qualify(self, statement: str) -> str:
        return statement.replace("@", self._name + ".")

    # Making

    async def prepare(self, sql: asyncpg.Connection) -> None:
        """Makes schema and tables where they are not there, and migrates those of an older version.

        Raises `JournalError`: J018 for a stranger's schema, J020 for the future.
        """
        if await self._read_version(sql) != SCHEMA_VERSION:
            # Held by the session, not by a transaction: only a new transaction is sure to see what another has made meanwhile.
            await sql.execute("SELECT pg_advisory_lock($1)", MIGRATION_LOCK)
            try:
                match await self._read_version(sql):
                    case None:
                        await self._create(sql)
                    case version if version < SCHEMA_VERSION:
                        await self._migrate(sql)
                    case _:
                        pass
            finally:
                await sql.execute("SELECT pg_advisory_unlock($1)", MIGRATION_LOCK)

    async def _create(self, sql: asyncpg.Connection) -> None:
        async with sql.transaction():
            if await sql.fetchval(
                "SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1)", self.schema
            ):
                raise foreign_schema_error(self.schema, self.display_name)
            if not await sql.fetchval("SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)", self.schema):
                database, role = await sql.fetchrow("SELECT current_database(), current_user")
                try:
                    await sql.execute(f"CREATE SCHEMA {self._name}")
                except asyncpg.InsufficientPrivilegeError as error:
                    raise no_create_error(self.schema, database, role, self.display_name) from error
            await sql.execute(f"SET LOCAL search_path TO {self._name}")
            await sql.execute(_TABLES + _SINCE_2)
            await sql.execute(self._qualify("INSERT INTO @schema_version VALUES ($1)"), SCHEMA_VERSION)

    async def _migrate(self, sql: asyncpg.Connection) -> None:
        async with sql.transaction():
            await sql.execute(f"SET LOCAL search_path TO {self._name}")
            await sql.execute(_SINCE_2)
            await self._backfill(sql)
            await sql.execute(self._qualify("UPDATE @schema_version SET version = $1"), SCHEMA_VERSION)

    async def _backfill(self, sql: asyncpg.Connection) -> None:
        """Writes the tags and copies of tables of version 1; usages are written when they are first asked for."""
        cursor = await sql.cursor(self._qualify(_SELECT_SOURCES))
        while rows := await cursor.fetch(_BATCH_ROWS):
            entries = IndexEntries()
            for row in rows:
                with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # what it names stays unknown, as it was
                    entries.add(row["run"], decode(restore_body(row["body"], row["cut"], b"null")))
            copies = sorted(copy for copy in entries.copies if is_storable(copy[0]))
            await sql.executemany(self._qualify("INSERT INTO @tags VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING"), entries.tags)
            await sql.executemany(self._qualify("INSERT INTO @copies VALUES ($1, $2) ON CONFLICT DO NOTHING"), copies)

    async def _read_version(self, sql: asyncpg.Connection) -> int | None:
        """The version of the tables; None where there are none."""
        if await sql.fetchval("SELECT to_regclass($1)::text", f"{self._name}.schema_version") is None:
            return None
        version: int | None = await sql.fetchval(self._qualify("SELECT max(version) FROM @schema_version"))
        if version is not None and version > SCHEMA_VERSION:
            raise newer_schema_error(version, SCHEMA_VERSION, self.display_name)
        return version

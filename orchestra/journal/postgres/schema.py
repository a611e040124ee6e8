"""The schema of a journal in a Postgres database: its tables and their version."""

from __future__ import annotations

import asyncpg

from orchestra.journal.postgres.errors import foreign_schema_error, no_create_error, schema_version_error
from orchestra.schema.strict_json import digest

SCHEMA_VERSION = 3
"""Version of the tables below."""
MIGRATION_LOCK = 0x4F726368
"""The advisory lock of whoever makes the tables."""

_TABLES = """
CREATE TABLE schema_version (version integer NOT NULL);
CREATE TABLE runs (
  run text COLLATE "C" PRIMARY KEY, started double precision NOT NULL, ended boolean NOT NULL, last bigint NOT NULL, chain bytea NOT NULL,
  summary bytea NOT NULL, epoch bigint NOT NULL, holder bigint, messages bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 60);
CREATE INDEX runs_started ON runs (started, run);
CREATE TABLE events (
  run text COLLATE "C" NOT NULL, seq bigint NOT NULL, body bytea NOT NULL, chain bytea NOT NULL, big text, cut integer,
  PRIMARY KEY (run, seq)
);
CREATE TABLE blobs (digest text COLLATE "C" PRIMARY KEY, data bytea NOT NULL);
CREATE TABLE blob_uses (run text COLLATE "C" NOT NULL, digest text COLLATE "C" NOT NULL, PRIMARY KEY (run, digest));
CREATE INDEX blob_uses_digest ON blob_uses (digest);
CREATE TABLE inbox (
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
CREATE TABLE tags (
  name text COLLATE "C" NOT NULL, value text COLLATE "C" NOT NULL, started double precision NOT NULL, run text COLLATE "C" NOT NULL,
  PRIMARY KEY (name, value, started, run)
);
CREATE INDEX tags_run ON tags (run);
CREATE TABLE copies (source text COLLATE "C" NOT NULL, run text COLLATE "C" NOT NULL, PRIMARY KEY (source, run));
CREATE INDEX copies_run ON copies (run);
CREATE TABLE run_usage (run text COLLATE "C" PRIMARY KEY, last bigint NOT NULL, chain bytea NOT NULL, body bytea NOT NULL);
"""


class PostgresSchema:
    """One schema of a database, named in all statements."""

    def __init__(self, schema: str, where: str) -> None:
        """`where` is the database's name in errors."""
        self.schema, self.display_name = schema, where
        self.channel = f"orchestra_{digest(schema.encode())}"
        """The channel of the notifications about inbox messages."""
        self._name = '"' + schema.replace('"', '""') + '"'

    def _qualify(self, statement: str) -> str:
        return statement.replace("@", self._name + ".")

    # Making

    async def prepare(self, sql: asyncpg.Connection) -> None:
        """Creates schema and tables if they are missing.

        Raises:
            JournalError: J018 if the schema holds other tables, J020 if its tables have another version.
        """
        if await self._read_version(sql) is None:
            # Held by the session, not by a transaction: only a new transaction is sure to see what another has made meanwhile.
            await sql.execute("SELECT pg_advisory_lock($1)", MIGRATION_LOCK)
            try:
                if await self._read_version(sql) is None:
                    await self._create(sql)
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
            await sql.execute(_TABLES)
            await sql.execute(self._qualify("INSERT INTO @schema_version VALUES ($1)"), SCHEMA_VERSION)

    async def _read_version(self, sql: asyncpg.Connection) -> int | None:
        """Returns the version of the tables, or None if there are none. Raises J020 for another version."""
        if await sql.fetchval("SELECT to_regclass($1)::text", f"{self._name}.schema_version") is None:
            return None
        version: int | None = await sql.fetchval(self._qualify("SELECT max(version) FROM @schema_version"))
        if version is not None and version != SCHEMA_VERSION:
            raise schema_version_error(version, SCHEMA_VERSION, self.display_name)
        return version

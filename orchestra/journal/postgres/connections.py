"""The connections of a Postgres journal: what each kind is for, and how it is set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import asyncpg

from orchestra.journal.errors import this_process_name

Durability: TypeAlias = Literal["strict", "group", "off"]

MAX_READERS = 4
"""Connections for questions, at most."""


SESSION_PREFIX = "orchestra journal: "
"""How the names of its sessions begin, at the server, which cuts them off after 63 bytes."""
PRESENCE_PREFIX = "presence "
"""How that of a presence goes on: `presence 123 on HOST`."""


@dataclass(frozen=True, slots=True)
class PostgresDatabase:
    """Where the journal lies, and how long it may be away."""

    dsn: str
    display_name: str
    durability: Durability
    retry_timeout: float

    async def connect(self) -> asyncpg.Connection:
        """A connection that waits for the disk, except under `off`. Raises what asyncpg raises."""
        sql = await asyncpg.connect(
            self.dsn, timeout=self.retry_timeout, command_timeout=self.retry_timeout, server_settings=_session_settings("writer")
        )
        await _set_durability(sql, wait=self.durability != "off")
        return sql

    async def pool(self) -> asyncpg.Pool:
        """Connections for questions, and for what is on disk when the caller has his answer: leases, letters."""
        return await asyncpg.create_pool(
            self.dsn,
            min_size=0,  # with a floor asyncpg tells of each try to restore it, on stderr
            max_size=MAX_READERS,
            timeout=self.retry_timeout,
            command_timeout=self.retry_timeout,
            server_settings=_session_settings("reader"),
            init=_set_durability,
            reset=_skip_reset,
        )

    async def presence(self) -> asyncpg.Connection:
        """The connection whose session shows that the journal is alive. The server gives a machine up that is silent for half a minute."""
        sql = await asyncpg.connect(
            self.dsn,
            timeout=self.retry_timeout,
            server_settings=_session_settings(f"{PRESENCE_PREFIX}{this_process_name().removeprefix('process ')}"),
        )
        await sql.execute("SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 4")
        return sql


async def has_own_session(presence: asyncpg.Connection, pool: asyncpg.Pool) -> bool:
    """Whether a connection keeps its session at the server. A pooler in transaction mode lends it to whoever asks next."""
    before = await presence.fetchval("SELECT pg_backend_pid()")
    async with pool.acquire() as sql, sql.transaction():
        # The one that was free a moment ago is the first that a pooler gives away.
        other = await sql.fetchval("SELECT pg_backend_pid()")
        after = await presence.fetchval("SELECT pg_backend_pid()")
    return bool(before == after != other)


def _session_settings(use: str) -> dict[str, str]:
    # Nothing more: a pooler refuses connections that come with settings that it does not know.
    return {"application_name": f"{SESSION_PREFIX}{use}"}


async def _set_durability(sql: asyncpg.Connection, wait: bool = True) -> None:
    """Makes commits of a session wait for the disk, or not. A server that asks for more, such as a standby's disk, is left so."""
    await sql.execute("SET jit = off")  # it takes longer than any statement of ours
    await sql.execute(
        "SELECT set_config('synchronous_commit', CASE WHEN NOT $1 THEN 'off' WHEN now IN ('off', 'local') THEN 'on' ELSE now END, false)"
        " FROM current_setting('synchronous_commit') AS now",
        wait,
    )


async def _skip_reset(_sql: object) -> None:
    """What a reader's connection needs between two questions: they leave no state behind."""

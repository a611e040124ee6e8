"""The connections of a Postgres journal: what each kind is for, and how it is set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import asyncpg

Durability: TypeAlias = Literal["strict", "group", "off"]

READERS = 4
"""Connections for questions, at most."""


@dataclass(frozen=True, slots=True)
class Database:
    """Where the journal lies, and how long it may be away."""

    dsn: str
    where: str
    durability: Durability
    patience: float

    async def connect(self) -> asyncpg.Connection:
        """A connection that waits for the disk, except under `off`. Raises what asyncpg raises."""
        sql = await asyncpg.connect(self.dsn, timeout=self.patience, command_timeout=self.patience, server_settings=_settings("writer"))
        await _durable(sql, wait=self.durability != "off")
        return sql

    async def pool(self) -> asyncpg.Pool:
        """Connections for questions, and for what is on disk when the caller has his answer: leases, letters."""
        return await asyncpg.create_pool(
            self.dsn,
            min_size=1,
            max_size=READERS,
            timeout=self.patience,
            command_timeout=self.patience,
            server_settings=_settings("reader"),
            init=_durable,
            reset=_nothing,
        )

    async def presence(self) -> asyncpg.Connection:
        """The connection whose session shows that the journal is alive. The server gives a machine up that is silent for half a minute."""
        silent = {"tcp_keepalives_idle": "10", "tcp_keepalives_interval": "5", "tcp_keepalives_count": "4"}
        return await asyncpg.connect(self.dsn, timeout=self.patience, server_settings=_settings("presence") | silent)


def _settings(use: str) -> dict[str, str]:
    # Just-in-time compilation takes longer than any statement of ours.
    return {"application_name": f"orchestra journal: {use}", "jit": "off"}


async def _durable(sql: asyncpg.Connection, wait: bool = True) -> None:
    """Makes commits of a session wait for the disk, or not. A server that asks for more, such as a standby's disk, is left so."""
    await sql.execute(
        "SELECT set_config('synchronous_commit', CASE WHEN NOT $1 THEN 'off' WHEN now IN ('off', 'local') THEN 'on' ELSE now END, false)"
        " FROM current_setting('synchronous_commit') AS now",
        wait,
    )


async def _nothing(_sql: object) -> None:
    """What a reader's connection needs between two questions: they leave no state behind."""

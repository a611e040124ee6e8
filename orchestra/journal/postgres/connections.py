"""The connections of a Postgres journal: what each kind is for, and how it is set."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

import asyncpg
from tenacity import AsyncRetrying, retry_if_exception, stop_before_delay, wait_exponential, wait_random

from orchestra.journal import Durability
from orchestra.journal.errors import this_process_name
from orchestra.journal.postgres.errors import POSTGRES_ERRORS, is_transient

DEFAULT_SCHEMA = "orchestra"
"""The schema of a journal whose address names none."""
_SCHEMA_OPTION = "schema="


def split_dsn(dsn: str) -> tuple[str, str]:
    """The address as the server is told it, and the schema that it names with `?schema=NAME`, which no server knows."""
    address, _, query = dsn.partition("?")
    told = query.split("&") if query else []
    named = [unquote(part.removeprefix(_SCHEMA_OPTION)) for part in told if part.startswith(_SCHEMA_OPTION)]
    kept = "&".join(part for part in told if not part.startswith(_SCHEMA_OPTION))
    return f"{address}?{kept}" if kept else address, (named[-1] if named else "") or DEFAULT_SCHEMA


def redact_dsn(dsn: str) -> str:
    """A DSN without its password and its options: what an error may show."""
    try:
        parts = urlsplit(dsn)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "the database"
    return f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path}" if parts.scheme else "the database"


RETRY_PAUSE = 0.05
"""Seconds before a lost connection is tried again; twice as long each time, up to a second."""
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
            self.dsn,
            timeout=self.retry_timeout,
            command_timeout=self.retry_timeout,
            server_settings=_session_settings("writer"),
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


HEARTBEAT_INTERVAL = 10.0
"""Seconds between two looks at the connection."""


class PostgresPresence:
    """Others take the runs of a journal over once its `lock_number` is locked no more.

    Where the session is lost, a new one takes the same lock. Until then others may have taken runs; what they took they have under
    another epoch, which each commit looks at.
    """

    def __init__(self, database: PostgresDatabase, channel: str) -> None:
        """`channel` is where letters are announced."""
        self.lock_number = secrets.randbits(63)
        self.runs_with_messages: set[str] = set()
        """Runs that got letters."""
        self.wakeup = asyncio.Event()
        self._database, self._channel = database, channel
        self._sql: asyncpg.Connection | None = None
        self._lost = asyncio.Event()
        self._abandoned = False

    async def connect(self) -> asyncpg.Connection:
        """A new session. Raises what asyncpg raises."""
        self._sql = await self._database.presence()
        return self._sql

    async def acquire(self) -> None:
        """The lock. From here on nobody's letter is missed: what was posted before is read by whoever resumes the run."""
        assert self._sql is not None, "it is connected first"
        # The session that was lost may live on, at the server's end, until the server notices.
        await self._sql.execute("SELECT pg_advisory_lock($1)", self.lock_number, timeout=self._database.retry_timeout)
        await self._sql.add_listener(self._channel, self._on_notification)
        self._lost.clear()
        self._sql.add_termination_listener(self._on_termination)

    async def renew(self) -> asyncpg.Connection:
        """A session under another number: what the one before had in hand is nobody's. Raises what asyncpg raises."""
        self.lock_number, self._abandoned = secrets.randbits(63), False
        sql = await self.connect()
        await self.acquire()
        return sql

    async def watch(self, on_restored: Callable[[asyncpg.Connection], Awaitable[None]]) -> None:
        """Finds out that the session is lost, also where the network does not say so, and begins a new one, which `on_restored` is told of.

        Ends with what asyncpg raises once the database stays away for too long.
        """
        while True:
            try:
                async with asyncio.timeout(HEARTBEAT_INTERVAL):
                    await self._lost.wait()
            except TimeoutError:
                await self._ping()
                continue
            await self._reconnect(on_restored)

    async def _ping(self) -> None:
        assert self._sql is not None, "it is connected first"
        try:
            await self._sql.execute("SELECT 1", timeout=HEARTBEAT_INTERVAL)
        except POSTGRES_ERRORS:
            self._sql.terminate()
            self._lost.set()

    async def _reconnect(self, on_restored: Callable[[asyncpg.Connection], Awaitable[None]]) -> None:
        async for attempt in AsyncRetrying(
            retry=retry_if_exception(lambda error: isinstance(error, POSTGRES_ERRORS) and is_transient(error)),
            stop=stop_before_delay(self._database.retry_timeout),
            wait=wait_exponential(multiplier=RETRY_PAUSE, max=1.0) + wait_random(0, RETRY_PAUSE),
            reraise=True,
        ):
            with attempt:
                self.terminate()
                sql = await self.connect()
                await self.acquire()
                await on_restored(sql)

    def terminate(self) -> None:
        """Ends the session at once: others may take the runs over."""
        if self._sql is not None:
            self._sql.terminate()

    def abandon(self) -> None:
        """Ends it for good."""
        self._abandoned = True
        self.terminate()

    async def close(self) -> None:
        """Ends the session politely. Raises what asyncpg raises."""
        self._abandoned = True
        if self._sql is not None:
            with suppress(asyncpg.InterfaceError):  # it is lost already
                # A pooler in session mode ends the session a moment after we have gone; who comes next need not wait for it.
                await self._sql.execute("SELECT pg_advisory_unlock($1)", self.lock_number)
                await self._sql.close()

    def _on_notification(self, _sql: object, _process: int, _channel: str, run: object) -> None:
        self.runs_with_messages.add(str(run))
        self.wakeup.set()

    def _on_termination(self, sql: object) -> None:
        if sql is self._sql and not self._abandoned:
            self._lost.set()

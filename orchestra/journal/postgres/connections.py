"""Connections of a Postgres journal: the address, the writer, the pool of readers, and the presence session that keeps
the leases.
"""

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
    """Splits an address into the part for the server and the schema that `?schema=NAME` names, which Postgres does not
    support.
    """
    address, _, query = dsn.partition("?")
    options = query.split("&") if query else []
    schemas = [unquote(part.removeprefix(_SCHEMA_OPTION)) for part in options if part.startswith(_SCHEMA_OPTION)]
    remaining_options = "&".join(part for part in options if not part.startswith(_SCHEMA_OPTION))
    return f"{address}?{remaining_options}" if remaining_options else address, (
        schemas[-1] if schemas else ""
    ) or DEFAULT_SCHEMA


def redact_dsn(dsn: str) -> str:
    """Returns a DSN without password and options, for errors."""
    try:
        parts = urlsplit(dsn)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "the database"
    return f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path}" if parts.scheme else "the database"


RETRY_PAUSE = 0.05
"""Seconds before a lost connection is tried again; doubled each time, up to a second."""
MAX_READERS = 4
"""Maximum number of reader connections."""


SESSION_PREFIX = "orchestra journal: "
"""Prefix of the session names at the server, which cuts names off after 63 bytes."""
PRESENCE_PREFIX = "presence "
"""The rest of the name of a presence session is the process: `presence 123 on HOST`."""


@dataclass(frozen=True, slots=True)
class PostgresDatabase:
    """The database of a journal, and how long it may be unreachable."""

    dsn: str
    display_name: str
    durability: Durability
    retry_timeout: float

    async def connect(self) -> asyncpg.Connection:
        """Opens a connection whose commits wait for the disk, except under `off`. Raises the exceptions of asyncpg."""
        sql = await asyncpg.connect(
            self.dsn,
            timeout=self.retry_timeout,
            command_timeout=self.retry_timeout,
            server_settings=_session_settings("writer"),
        )
        await _set_durability(sql, wait=self.durability != "off")
        return sql

    async def pool(self) -> asyncpg.Pool:
        """Opens the connections for queries, and for leases and inbox messages, which are on disk when the call
        returns.
        """
        return await asyncpg.create_pool(
            self.dsn,
            min_size=0,  # with a minimum, asyncpg prints each attempt to restore it to stderr
            max_size=MAX_READERS,
            timeout=self.retry_timeout,
            command_timeout=self.retry_timeout,
            server_settings=_session_settings("reader"),
            init=_set_durability,
            reset=_skip_reset,
        )

    async def presence(self) -> asyncpg.Connection:
        """Opens the presence session, which shows that the journal is alive. The server drops a client after 30 seconds
        of silence.
        """
        sql = await asyncpg.connect(
            self.dsn,
            timeout=self.retry_timeout,
            server_settings=_session_settings(f"{PRESENCE_PREFIX}{this_process_name().removeprefix('process ')}"),
        )
        await sql.execute("SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 4")
        return sql


async def has_own_session(presence: asyncpg.Connection, pool: asyncpg.Pool) -> bool:
    """Returns whether a connection keeps its session at the server. A pooler in transaction mode gives it to the next
    client.
    """
    before = await presence.fetchval("SELECT pg_backend_pid()")
    async with pool.acquire() as sql, sql.transaction():
        # A pooler gives away the session first that was released last.
        other_session = await sql.fetchval("SELECT pg_backend_pid()")
        after = await presence.fetchval("SELECT pg_backend_pid()")
    return bool(before == after != other_session)


def _session_settings(use: str) -> dict[str, str]:
    # No further settings: poolers refuse connections with settings that they do not know.
    return {"application_name": f"{SESSION_PREFIX}{use}"}


async def _set_durability(sql: asyncpg.Connection, wait: bool = True) -> None:
    """Makes the commits of a session wait for the disk, or not. A stricter setting of the server, such as a standby's
    disk, is kept.
    """
    await sql.execute("SET jit = off")  # compiling takes longer than any of these statements
    await sql.execute(
        "SELECT set_config('synchronous_commit',"
        " CASE WHEN NOT $1 THEN 'off' WHEN now IN ('off', 'local') THEN 'on' ELSE now END, false)"
        " FROM current_setting('synchronous_commit') AS now",
        wait,
    )


async def _skip_reset(_sql: object) -> None:
    """Readers leave no state in a session, so there is nothing to reset."""


HEARTBEAT_INTERVAL = 10.0
"""Seconds between two checks of the connection."""


class PostgresPresence:
    """The presence of a journal: a session that holds a lock and receives notifications about inbox messages.

    Other journals may take over the runs once `lock_number` is unlocked. After a lost session, a new one takes the same
    lock. Runs that were taken over in between have another epoch, which each commit checks.
    """

    def __init__(self, database: PostgresDatabase, channel: str) -> None:
        """`channel` is the channel of the notifications."""
        self.lock_number = secrets.randbits(63)
        self.runs_with_messages: set[str] = set()
        """Runs with new messages."""
        self.wakeup = asyncio.Event()
        self._database, self._channel = database, channel
        self._sql: asyncpg.Connection | None = None
        self._lost = asyncio.Event()
        self._abandoned = False

    async def connect(self) -> asyncpg.Connection:
        """Opens a new session. Raises the exceptions of asyncpg."""
        self._sql = await self._database.presence()
        return self._sql

    async def acquire(self) -> None:
        """Takes the lock. From here on no notification is lost; earlier messages are read when a run is resumed."""
        assert self._sql is not None, "it is connected first"
        # The server may not have noticed yet that the old session was lost.
        await self._sql.execute("SELECT pg_advisory_lock($1)", self.lock_number, timeout=self._database.retry_timeout)
        await self._sql.add_listener(self._channel, self._on_notification)
        self._lost.clear()
        self._sql.add_termination_listener(self._on_termination)

    async def renew(self) -> asyncpg.Connection:
        """Opens a session with a new lock number: the runs of the old one are released. Raises the exceptions of
        asyncpg.
        """
        self.lock_number, self._abandoned = secrets.randbits(63), False
        sql = await self.connect()
        await self.acquire()
        return sql

    async def watch(self, on_restored: Callable[[asyncpg.Connection], Awaitable[None]]) -> None:
        """Watches the session, also for failures that the network does not report, and replaces a lost one.

        Args:
            on_restored: Is called with each new session.

        Raises:
            Exception: An exception of asyncpg once the database is unreachable for too long.
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
        """Closes the session at once: others may take over the runs."""
        if self._sql is not None:
            self._sql.terminate()

    def abandon(self) -> None:
        """Closes the session for good."""
        self._abandoned = True
        self.terminate()

    async def close(self) -> None:
        """Closes the session properly. Raises the exceptions of asyncpg."""
        self._abandoned = True
        if self._sql is not None:
            with suppress(asyncpg.InterfaceError):  # the session is already lost
                # A pooler in session mode closes the session a moment later; without the lock, other journals need not
                # wait for that.
                await self._sql.execute("SELECT pg_advisory_unlock($1)", self.lock_number)
                await self._sql.close()

    def _on_notification(self, _sql: object, _process: int, _channel: str, run: object) -> None:
        self.runs_with_messages.add(str(run))
        self.wakeup.set()

    def _on_termination(self, sql: object) -> None:
        if sql is self._sql and not self._abandoned:
            self._lost.set()

"""The presence of a Postgres journal: a session that holds a lock as long as the journal is alive, and that hears of letters."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress

import asyncpg
from tenacity import AsyncRetrying, retry_if_exception, stop_before_delay, wait_exponential, wait_random

from orchestra.journal.postgres.connections import PostgresDatabase
from orchestra.journal.postgres.errors import POSTGRES_ERRORS, is_transient
from orchestra.journal.postgres.writer import RETRY_PAUSE

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

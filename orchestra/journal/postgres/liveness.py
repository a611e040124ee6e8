"""The presence of a Postgres journal: a session that holds a lock as long as the journal is alive, and that hears of letters."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress

import asyncpg
from tenacity import AsyncRetrying, retry_if_exception, stop_before_delay, wait_exponential, wait_random

from orchestra.journal.postgres.connections import Database
from orchestra.journal.postgres.errors import FAULTS, passing
from orchestra.journal.postgres.writer import PAUSE

HEARTBEAT = 10.0
"""Seconds between two looks at the connection."""


class Presence:
    """Others take the runs of a journal over once its `number` is locked no more.

    Where the session is lost, a new one takes the same lock. Until then others may have taken runs; what they took they have under
    another epoch, which each commit looks at.
    """

    def __init__(self, database: Database, channel: str) -> None:
        """`channel` is where letters are announced."""
        self.number = secrets.randbits(63)
        self.mail: set[str] = set()
        """Runs that got letters."""
        self.rings = asyncio.Event()
        self._database, self._channel = database, channel
        self._sql: asyncpg.Connection | None = None
        self._lost = asyncio.Event()
        self._given_up = False

    async def connect(self) -> asyncpg.Connection:
        """A new session. Raises what asyncpg raises."""
        self._sql = await self._database.presence()
        return self._sql

    async def take(self) -> None:
        """The lock. From here on nobody's letter is missed: what was posted before is read by whoever resumes the run."""
        assert self._sql is not None, "it is connected first"
        # The session that was lost may live on, at the server's end, until the server notices.
        await self._sql.execute("SELECT pg_advisory_lock($1)", self.number, timeout=self._database.patience)
        await self._sql.add_listener(self._channel, self._hear)
        self._lost.clear()
        self._sql.add_termination_listener(self._lose)

    async def renew(self) -> asyncpg.Connection:
        """A session under another number: what the one before had in hand is nobody's. Raises what asyncpg raises."""
        self.number, self._given_up = secrets.randbits(63), False
        sql = await self.connect()
        await self.take()
        return sql

    async def watch(self, back: Callable[[asyncpg.Connection], Awaitable[None]]) -> None:
        """Finds out that the session is lost, also where the network does not say so, and begins a new one, which `back` is told of.

        Ends with what asyncpg raises once the database stays away for too long.
        """
        while True:
            try:
                async with asyncio.timeout(HEARTBEAT):
                    await self._lost.wait()
            except TimeoutError:
                await self._look()
                continue
            await self._return(back)

    async def _look(self) -> None:
        assert self._sql is not None, "it is connected first"
        try:
            await self._sql.execute("SELECT 1", timeout=HEARTBEAT)
        except FAULTS:
            self._sql.terminate()
            self._lost.set()

    async def _return(self, back: Callable[[asyncpg.Connection], Awaitable[None]]) -> None:
        async for attempt in AsyncRetrying(
            retry=retry_if_exception(lambda error: isinstance(error, FAULTS) and passing(error)),
            stop=stop_before_delay(self._database.patience),
            wait=wait_exponential(multiplier=PAUSE, max=1.0) + wait_random(0, PAUSE),
            reraise=True,
        ):
            with attempt:
                self.leave()
                sql = await self.connect()
                await self.take()
                await back(sql)

    def leave(self) -> None:
        """Ends the session at once: others may take the runs over."""
        if self._sql is not None:
            self._sql.terminate()

    def give_up(self) -> None:
        """Ends it for good."""
        self._given_up = True
        self.leave()

    async def close(self) -> None:
        """Ends the session politely. Raises what asyncpg raises."""
        self._given_up = True
        if self._sql is not None:
            with suppress(asyncpg.InterfaceError):  # it is lost already
                # A pooler in session mode ends the session a moment after we have gone; who comes next need not wait for it.
                await self._sql.execute("SELECT pg_advisory_unlock($1)", self.number)
                await self._sql.close()

    def _hear(self, _sql: object, _process: int, _channel: str, run: object) -> None:
        self.mail.add(str(run))
        self.rings.set()

    def _lose(self, sql: object) -> None:
        if sql is self._sql and not self._given_up:
            self._lost.set()

"""Answers: what the tables of a journal in Postgres tell whoever asks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from functools import partial
from math import inf
from typing import TypeVar

import asyncpg
import msgspec

from orchestra.core.events import Event
from orchestra.core.protocols import InboxMessage, OutboxMessage, RunSelection, RunSummary, RunUsageResult, ScannedRun
from orchestra.journal import MAX_FOUND_RUNS
from orchestra.journal.errors import JournalError
from orchestra.journal.postgres.rows import is_storable
from orchestra.journal.postgres.run_index import IndexedTables, PostgresUsages

T = TypeVar("T")
ALL_RUNS = RunSelection()


class PostgresQueries(ABC):
    """The half of the `Journal` door that looks."""

    _tables: IndexedTables

    async def read(self, run: str, after: int = 0) -> list[Event]:
        """The events with `seq > after`, those in line included; empty for a run that is not there.

        Numbers and hash chain are checked: raises `JournalError` J013 where the log is not what was written, J021 for an unknown kind.
        """
        await self._flush(run)
        return await self._query(lambda sql, _: self._tables.events(sql, run, after)) if is_storable(run) else []

    async def list_runs(self, limit: int = 50) -> list[RunSummary]:
        """The latest runs, newest first.

        A run without an end that nobody has in hand is `waiting` where persons are asked and nothing else is under way, else `interrupted`.
        """
        return await self.query_runs(limit, ALL_RUNS)

    async def query_runs(self, limit: int, where: RunSelection) -> list[RunSummary]:
        """The latest runs of a selection, newest first, as `runs` gives them."""
        await self._flush()
        return await self._query(lambda sql, _: self._tables.query_runs(sql, limit, where))

    async def query_usages(self, where: RunSelection) -> AsyncGenerator[RunUsageResult, None]:
        """What each run of a selection used, newest first; one that cannot be read says so."""
        await self._flush()
        while (some := await self._query(partial(_query_usages, self._tables, where))).found:
            if some.computed:
                with suppress(JournalError):  # where the database may only be read it is folded again
                    await self._query(partial(_store_usages, self._tables, some.computed))
            for used in some.found:
                yield used
            where = msgspec.structs.replace(where, before=(used.started, used.run))

    async def first_and_last_events(self, runs: Collection[str]) -> dict[str, tuple[Event, Event]]:
        """The first and the last event of each of these runs, without large values; those that cannot be read are left out."""
        await self._flush(*runs)
        return await self._query(lambda sql, _: self._tables.first_and_last_events(sql, list(filter(is_storable, runs))))

    async def derived_runs(self, runs: Collection[str]) -> list[str]:
        """Other runs that have something of what these were given or answered."""
        await self._flush()
        return await self._query(lambda sql, _: self._tables.derived_runs(sql, set(filter(is_storable, runs))))

    async def existing_runs(self, runs: Collection[str]) -> set[str]:
        """Those of these runs that are there."""
        await self._flush(*runs)
        return await self._query(lambda sql, _: self._tables.existing_runs(sql, list(filter(is_storable, runs))))

    async def summary(self, run: str) -> RunSummary | None:
        """The row of one run, or None."""
        await self._flush(run)
        return await self._query(lambda sql, _: self._tables.summary(sql, run)) if is_storable(run) else None

    async def scan(self, since: float = -inf) -> AsyncGenerator[ScannedRun, None]:
        """The runs that began at `since` or later, newest first, without large values; one that is damaged says so."""
        await self._flush()
        page = await self._query(lambda sql, _: self._tables.scan(sql, since, None))
        while page:
            for found in page:
                yield found
            before = found.started, found.run
            page = await self._query(lambda sql, _: self._tables.scan(sql, since, before))  # noqa: B023  # asked at once

    async def find_runs(self, prefix: str) -> list[str]:
        """The ids of runs that begin so, in order; at most 100."""
        await self._flush()
        return await self._query(lambda sql, _: self._tables.find_runs(sql, prefix, MAX_FOUND_RUNS)) if is_storable(prefix) else []

    async def inbox(self, run: str, after: int = 0) -> list[InboxMessage]:
        """The letters with a greater number, in order."""
        return await self._query(lambda sql, _: self._tables.inbox(sql, run, after)) if is_storable(run) else []

    async def outbox(self, after: int = 0, limit: int = 100) -> list[OutboxMessage]:
        """Messages that nobody has marked as delivered, in order; only what is on disk."""
        return await self._query(lambda sql, _: self._tables.outbox(sql, after, limit))

    @abstractmethod
    async def _query(self, question: Callable[[asyncpg.Connection, bool], Awaitable[T]]) -> T:
        """An answer, over another connection where one is lost; then the second argument is true, for the first try may have succeeded."""

    @abstractmethod
    async def _flush(self, *runs: str) -> None:
        """Waits for what is in line of these runs, or of all."""


async def _query_usages(tables: IndexedTables, where: RunSelection, sql: asyncpg.Connection, _: bool) -> PostgresUsages:
    return await tables.query_usages(sql, where)


async def _store_usages(tables: IndexedTables, usages: Sequence[tuple[str, int, bytes, bytes]], sql: asyncpg.Connection, _: bool) -> None:
    await tables.store_usages(sql, usages)

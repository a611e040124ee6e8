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
from orchestra.core.protocols import Letter, Message, RunSummary, Selection, Skimmed, Used
from orchestra.journal import FOUND
from orchestra.journal.errors import JournalError
from orchestra.journal.postgres.rows import usable
from orchestra.journal.postgres.run_index import IndexedTables, Usages

T = TypeVar("T")
EVERYTHING = Selection()


class PostgresAnswers(ABC):
    """The half of the `Journal` door that looks."""

    _tables: IndexedTables

    async def read(self, run: str, after: int = 0) -> list[Event]:
        """The events with `seq > after`, those in line included; empty for a run that is not there.

        Numbers and hash chain are checked: raises `JournalError` J013 where the log is not what was written, J021 for an unknown kind.
        """
        await self._settle(run)
        return await self._ask(lambda sql, _: self._tables.events(sql, run, after)) if usable(run) else []

    async def runs(self, limit: int = 50) -> list[RunSummary]:
        """The latest runs, newest first.

        A run without an end that nobody has in hand is `waiting` where persons are asked and nothing else is under way, else `interrupted`.
        """
        return await self.page(limit, EVERYTHING)

    async def page(self, limit: int, where: Selection) -> list[RunSummary]:
        """The latest runs of a selection, newest first, as `runs` gives them."""
        await self._settle()
        return await self._ask(lambda sql, _: self._tables.page(sql, limit, where))

    async def usages(self, where: Selection) -> AsyncGenerator[Used, None]:
        """What each run of a selection used, newest first; one that cannot be read says so."""
        await self._settle()
        while (some := await self._ask(partial(_usages, self._tables, where))).found:
            if some.folded:
                with suppress(JournalError):  # where the database may only be read it is folded again
                    await self._ask(partial(_keep, self._tables, some.folded))
            for used in some.found:
                yield used
            where = msgspec.structs.replace(where, before=(used.started, used.run))

    async def ends(self, runs: Collection[str]) -> dict[str, tuple[Event, Event]]:
        """The first and the last event of each of these runs, without large values; those that cannot be read are left out."""
        await self._settle(*runs)
        return await self._ask(lambda sql, _: self._tables.ends(sql, list(filter(usable, runs))))

    async def copies(self, runs: Collection[str]) -> list[str]:
        """Other runs that have something of what these were given or answered."""
        await self._settle()
        return await self._ask(lambda sql, _: self._tables.copies(sql, set(filter(usable, runs))))

    async def known(self, runs: Collection[str]) -> set[str]:
        """Those of these runs that are there."""
        await self._settle(*runs)
        return await self._ask(lambda sql, _: self._tables.known(sql, list(filter(usable, runs))))

    async def summary(self, run: str) -> RunSummary | None:
        """The row of one run, or None."""
        await self._settle(run)
        return await self._ask(lambda sql, _: self._tables.summary(sql, run)) if usable(run) else None

    async def skim(self, since: float = -inf) -> AsyncGenerator[Skimmed, None]:
        """The runs that began at `since` or later, newest first, without large values; one that is damaged says so."""
        await self._settle()
        page = await self._ask(lambda sql, _: self._tables.skim(sql, since, None))
        while page:
            for found in page:
                yield found
            before = found.started, found.run
            page = await self._ask(lambda sql, _: self._tables.skim(sql, since, before))  # noqa: B023  # asked at once

    async def find(self, prefix: str) -> list[str]:
        """The ids of runs that begin so, in order; at most 100."""
        await self._settle()
        return await self._ask(lambda sql, _: self._tables.find(sql, prefix, FOUND)) if usable(prefix) else []

    async def letters(self, run: str, after: int = 0) -> list[Letter]:
        """The letters with a greater number, in order."""
        return await self._ask(lambda sql, _: self._tables.letters(sql, run, after)) if usable(run) else []

    async def outbox(self, after: int = 0, limit: int = 100) -> list[Message]:
        """Messages that nobody has marked as delivered, in order; only what is on disk."""
        return await self._ask(lambda sql, _: self._tables.outbox(sql, after, limit))

    @abstractmethod
    async def _ask(self, question: Callable[[asyncpg.Connection, bool], Awaitable[T]]) -> T:
        """An answer, over another connection where one is lost; then the second argument is true, for the first try may have succeeded."""

    @abstractmethod
    async def _settle(self, *runs: str) -> None:
        """Waits for what is in line of these runs, or of all."""


async def _usages(tables: IndexedTables, where: Selection, sql: asyncpg.Connection, _: bool) -> Usages:
    return await tables.usages(sql, where)


async def _keep(tables: IndexedTables, usages: Sequence[tuple[str, int, bytes, bytes]], sql: asyncpg.Connection, _: bool) -> None:
    await tables.keep_usages(sql, usages)

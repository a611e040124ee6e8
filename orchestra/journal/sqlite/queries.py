"""Answers: what the file of a journal tells whoever looks, whether it is written here or only read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from math import inf
from typing import Any, TypeVar

import msgspec

from orchestra.core.events import Event
from orchestra.core.protocols import Letter, Message, RunSummary, Selection, Skimmed, Used
from orchestra.journal import FOUND
from orchestra.journal.errors import FROM_SQLITE, closed
from orchestra.journal.sqlite.encoding import is_text
from orchestra.journal.sqlite.liveness import Others
from orchestra.journal.sqlite.reader import EVERYTHING, Reading

T = TypeVar("T")


class Answers:
    """The half of the `Journal` door that looks. The file is read on a thread of its own, for SQLite blocks."""

    def __init__(self, reading: Reading, others: Others, reader: ThreadPoolExecutor) -> None:
        self._reading, self._others, self._reader = reading, others, reader
        self._loop = asyncio.get_running_loop()
        self._closed = False

    async def letters(self, run: str, after: int = 0) -> list[Letter]:
        """The letters of a run with a greater number, in order."""
        return await self._ask(lambda: self._reading.letters(run, after)) if is_text(run) else []

    async def recall(self, memo: str) -> tuple[str, Any] | None:
        """The run that gave the answer, and the answer; or None. Raises `JournalError` J013 where it is not what was stored."""
        return (await self._ask(lambda: self._reading.recall((memo,)))).get(memo)

    async def recall_all(self, memos: Collection[str]) -> dict[str, tuple[str, Any]]:
        """What `recall` gives for each of these keys that is there."""
        return await self._ask(lambda: self._reading.recall(memos))

    async def outbox(self, after: int = 0, limit: int = 100) -> list[Message]:
        """Messages with a greater number that nobody has marked as delivered, in order; only what is on disk."""
        return await self._ask(lambda: self._reading.outbox(after, limit))

    async def read(self, run: str, after: int = 0) -> list[Event]:
        """The events with `seq > after`, those in line included; empty for a run that is not there.

        Numbers and hash chain are checked: raises `JournalError` J013 where the log is not what was written, J021 for an unknown kind.
        """
        await self._settle(run)
        return await self._ask(lambda: self._reading.events(run, after)) if is_text(run) else []

    async def blob(self, digest: str) -> bytes | None:
        """A blob's bytes, or None; raises `JournalError` J013 where they are not what was stored."""
        return await self._ask(lambda: self._reading.blob(digest))

    async def runs(self, limit: int = 50) -> list[RunSummary]:
        """The latest runs, newest first.

        A run without an end that nobody has in hand is `waiting` where persons are asked and nothing else is under way, else `interrupted`.
        """
        return await self.page(limit, EVERYTHING)

    async def page(self, limit: int, where: Selection) -> list[RunSummary]:
        """The latest runs of a selection, newest first, as `runs` gives them."""
        await self._settle()
        return await self._ask(lambda: self._summaries(limit, where))

    async def usages(self, where: Selection) -> AsyncGenerator[Used, None]:
        """What each run of a selection used, newest first; one that cannot be read says so.

        Raises `JournalError` J013 where the list of runs is damaged.
        """
        await self._settle()
        while (some := await self._ask(partial(self._reading.usages, where))).found:
            await self._keep_usages(some.folded)
            for used in some.found:
                yield used
            where = msgspec.structs.replace(where, before=(used.started, used.run))

    async def ends(self, runs: Collection[str]) -> dict[str, tuple[Event, Event]]:
        """The first and the last event of each of these runs, without large values; those that cannot be read are left out."""
        await self._settle(*runs)
        return await self._ask(lambda: self._reading.ends(list(filter(is_text, runs))))

    async def copies(self, runs: Collection[str]) -> list[str]:
        """Other runs that have something of what these were given or answered. Raises `JournalError` J013 where that list is damaged."""
        await self._settle()
        return await self._ask(lambda: self._reading.copies(list(filter(is_text, runs))))

    async def known(self, runs: Collection[str]) -> set[str]:
        """Those of these runs that are there."""
        await self._settle(*runs)
        return await self._ask(lambda: self._reading.known(list(filter(is_text, runs))))

    async def summary(self, run: str) -> RunSummary | None:
        """The row of one run, or None."""
        await self._settle(run)
        return await self._ask(lambda: self._summary(run)) if is_text(run) else None

    async def skim(self, since: float = -inf) -> AsyncGenerator[Skimmed, None]:
        """The runs that began at `since` or later, newest first, without large values; one that is damaged says so.

        Raises `JournalError` J013 where the list of runs is damaged.
        """
        await self._settle()
        page = await self._ask(lambda: self._reading.skim(since, None))
        while page:
            for found in page:
                yield found
            before = found.started, found.run
            page = await self._ask(partial(self._reading.skim, since, before))

    async def find(self, prefix: str) -> list[str]:
        """The ids of runs that begin so, in order; at most 100."""
        await self._settle()
        return await self._ask(lambda: self._reading.find(prefix, FOUND)) if is_text(prefix) else []

    async def _settle(self, *runs: str) -> None:
        """Waits for what is in line of these runs, or of all: nothing, where nothing is written."""

    async def _keep_usages(self, usages: Sequence[tuple[str, int, bytes, bytes]]) -> None:
        """Stores usages of runs that were folded from their events: not where nothing is written."""

    def _summaries(self, limit: int, where: Selection) -> list[RunSummary]:
        alive = dict[str, bool]()
        return [self._stands(summary, writer, alive) for summary, writer in self._reading.summaries(limit, where)]

    def _summary(self, run: str) -> RunSummary | None:
        row = self._reading.row(run)
        return self._stands(row.tally.summary(), row.writer, {}) if row is not None else None

    def _stands(self, summary: RunSummary, writer: str, alive: dict[str, bool]) -> RunSummary:
        """A row with what has become of a run without an end; `alive` is what is known of writers."""
        if summary.status != "running":
            return summary
        if not writer:
            return self._reading.let_go(summary)
        if writer not in alive:
            alive[writer] = self._others.alive(writer)
        if not alive[writer]:
            return msgspec.structs.replace(summary, status="interrupted")
        return msgspec.structs.replace(summary, holder=self._others.who(writer))

    async def _ask(self, question: Callable[[], T]) -> T:
        if self._closed:
            raise closed()
        try:
            return await self._loop.run_in_executor(self._reader, question)
        except FROM_SQLITE as error:
            raise self._reading.fault(error) from error

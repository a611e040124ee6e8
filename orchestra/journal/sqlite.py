"""The journal in a file: SQLite with a write-ahead log, written by one thread with group commit.

Several processes of one host may share the file, on a local disk. What `durable` returned for survives the end of the
process and, under `group` and `strict`, of the power.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, closing, suppress
from pathlib import Path
from typing import NamedTuple, Self, TypeVar

import msgspec

from orchestra.doors import RunSummary
from orchestra.events import Event, encode
from orchestra.journal.error import JournalError, closed, from_os, never_appended, not_json
from orchestra.journal.presence import Presence
from orchestra.journal.store import Durability, Store
from orchestra.journal.summary import Line
from orchestra.journal.writer import Report, Writer
from orchestra.values.json import digest

T = TypeVar("T")

MAX_BODY = 64 << 20
"""Bytes of one event at most."""
FOUND = 100
"""Ids that `find` gives at most."""


class SqliteJournal:
    """Stands behind the `Journal` door; made by `SqliteJournal.open`.

    `append` checks and encodes on the loop's thread; a writer thread hashes, folds the run's row and commits; a reader thread
    answers questions; each has a connection of its own. A fault of the store reaches everyone who waits in `durable`, and
    every later `append`.
    """

    def __init__(self, stores: _Stores, presence: Presence, reader: ThreadPoolExecutor, durability: Durability) -> None:
        self._stores, self._presence, self._reader = stores, presence, reader
        self._reading = stores.reading
        self._lax = durability == "off"
        self._loop = asyncio.get_running_loop()
        self._lines: dict[str, Line] = {}
        self._marks: dict[str, int] = {}
        self._waiting: dict[str, list[tuple[int, asyncio.Future[None]]]] = {}
        self._fresh: dict[str, bytes] = {}
        self._failed: dict[str, JournalError] = {}
        self._fault: JournalError | None = None
        self._told = False
        self._closed = False
        self._writer = Writer(stores.writing, presence.name, self._hand_over, one_by_one=durability == "strict")
        self._writer.start()

    @classmethod
    @asynccontextmanager
    async def open(
        cls, path: str | os.PathLike[str], *, durability: Durability = "group", busy: float = 10.0, max_bytes: int | None = None
    ) -> AsyncIterator[Self]:
        """The journal of a file, made where it is not there, for its owner's eyes only.

        `group` commits many events at once, at most 5 ms later; `strict` gives each append a commit of its own; `off` waits for no
        disk: a power cut may take the last seconds, the end of the process takes at most what was in line. `busy` is how many
        seconds other processes may hold the file; `max_bytes` is how large it may grow. Raises `JournalError`.
        """
        # A thread of our own, for SQLite blocks; what it opens, it also reads with.
        reader = ThreadPoolExecutor(1, thread_name_prefix="orchestra-journal-reader")
        loop = asyncio.get_running_loop()
        try:
            stores, presence = await loop.run_in_executor(reader, _open, Path(path), durability, busy, max_bytes)
            journal = cls(stores, presence, reader, durability)
        except BaseException:
            reader.shutdown(wait=False)
            raise
        try:
            yield journal
        except BaseException:
            with suppress(JournalError):
                await journal.close()
            raise
        await journal.close()

    def append(self, run: str, events: Sequence[Event]) -> None:
        """Puts events in line, all or none.

        Raises `JournalError`: J001 for a gap in `seq`, J002 after `close`, J004 for what is no JSON, J005 where another process
        appended to the run, J006 after a run's end; and the store's fault once it is known.
        """
        if self._fault is not None or self._closed or run in self._failed:
            raise self._refusal(run)
        line = self._lines.get(run) or self._known(run)
        bodies = [_body(run, event) for event in events]
        line.extend(events)
        if bodies:
            self._writer.put((run, tuple(events), bodies))

    def put(self, data: bytes) -> str:
        """Stores a blob with the next commit and gives its digest. Raises the store's fault once it is known."""
        if self._fault is not None or self._closed:
            raise self._refusal("")
        name = digest(data)
        if name not in self._fresh:
            self._fresh[name] = data
            self._writer.put((name, data))
        return name

    async def durable(self, run: str, seq: int) -> None:
        """Waits until the run's events up to `seq`, and the blobs put before them, are on disk.

        Returns at once under `off`. Raises the store's fault, and `JournalError` J003 for what was never appended.
        """
        if seq <= self._marks.get(run, 0):
            return
        if self._fault is not None or run in self._failed:
            raise self._refusal(run)
        line = self._lines.get(run)
        if line is None or seq > line.last:
            # Not one of ours, or one that has ended: the file knows.
            if seq > (await self._ask(lambda: self._reading.line(run))).last:
                raise never_appended(run, seq)
            return
        if self._lax:
            return
        await self._wait(run, seq)

    async def read(self, run: str, after: int = 0) -> list[Event]:
        """The events with `seq > after`, those in line included; empty for a run that is not there.

        Numbers and hash chain are checked: raises `JournalError` J013 where the log is not what was written, J021 for an unknown kind.
        """
        await self._settle(run)
        return await self._ask(lambda: self._reading.events(run, after))

    async def blob(self, digest: str) -> bytes | None:
        """A blob's bytes, or None; raises `JournalError` J013 where they are not what was stored."""
        if (fresh := self._fresh.get(digest)) is not None:
            return fresh
        return await self._ask(lambda: self._reading.blob(digest))

    async def runs(self, limit: int = 50) -> list[RunSummary]:
        """The latest runs, newest first. A run without an end whose process is gone has the status `interrupted`."""
        await self._settle()
        return await self._ask(lambda: self._summaries(limit))

    async def find(self, prefix: str) -> list[str]:
        """The ids of runs that begin so, in order; at most 100."""
        await self._settle()
        return await self._ask(lambda: self._reading.find(prefix, FOUND))

    async def close(self) -> None:
        """Commits what is in line and lets go of the file. Raises a fault of the store that nobody has been told yet."""
        if not self._closed:
            self._closed = True
            self._writer.finish()
            # Shielded: a caller who is cancelled here may go, but the file is still closed behind him.
            await asyncio.shield(self._loop.run_in_executor(self._reader, self._let_go))
            self._reader.shutdown()  # idle by now: this waits for no more than the thread's last breath
            if self._fault is not None and self._fault.code != "J002" and not self._told:
                raise self._refusal("")

    def _let_go(self) -> None:
        self._writer.join()
        for store in self._stores:
            store.close()
        self._presence.leave()

    def _known(self, run: str) -> Line:
        """Where a run's log ends that this journal has not seen yet: one look into the file, tens of microseconds, once a run."""
        try:
            line = self._lines[run] = self._stores.glance.line(run)
        except sqlite3.Error as error:
            raise self._stores.glance.fault(error) from error
        self._marks[run] = line.last
        return line

    def _summaries(self, limit: int) -> list[RunSummary]:
        found, alive = [], dict[str, bool]()
        for summary, writer in self._reading.summaries(limit):
            if summary.status == "running":
                if writer not in alive:
                    alive[writer] = self._presence.alive(writer)
                if not alive[writer]:
                    summary = msgspec.structs.replace(summary, status="interrupted")
            found.append(summary)
        return found

    async def _ask(self, question: Callable[[], T]) -> T:
        if self._closed:
            raise closed()
        try:
            return await self._loop.run_in_executor(self._reader, question)
        except sqlite3.Error as error:
            raise self._reading.fault(error) from error

    async def _settle(self, *runs: str) -> None:
        """Waits for what is in line of these runs, or of all; a fault is no reason not to read what is on disk."""
        with suppress(JournalError):
            for run in runs or [run for run, line in self._lines.items() if line.last > self._marks.get(run, 0)]:
                if (line := self._lines.get(run)) is not None and line.last > self._marks.get(run, 0):
                    await self._wait(run, line.last)

    async def _wait(self, run: str, seq: int) -> None:
        if self._fault is not None or run in self._failed:
            raise self._refusal(run)
        waiting: asyncio.Future[None] = self._loop.create_future()
        self._waiting.setdefault(run, []).append((seq, waiting))
        self._writer.hurry()
        await waiting

    def _refusal(self, run: str) -> JournalError:
        error = self._failed.get(run) or self._fault or closed()
        self._told = self._told or error is self._fault
        return error.again()

    def _hand_over(self, report: Report) -> None:
        """Takes the writer's report over to the loop's thread; a loop that is gone has nobody who waits."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._take_in, report)

    def _take_in(self, report: Report) -> None:
        for name in report.blobs:
            self._fresh.pop(name, None)
        for run, seq in report.marks.items():
            self._marks[run] = seq
            self._wake(run, seq)
            if self._lines[run].ended and self._lines[run].last == seq:
                del self._lines[run], self._marks[run]
        for run, error in report.failed.items():
            self._failed[run] = error
            self._wake(run, None)
        if report.fault is not None:
            self._fault = report.fault
            for run in list(self._waiting):
                self._wake(run, None)

    def _wake(self, run: str, seq: int | None) -> None:
        """Tells those who wait: their events are on disk up to `seq`, or, where it is None, never will be."""
        still: list[tuple[int, asyncio.Future[None]]] = []
        for wanted, waiting in self._waiting.pop(run, ()):
            if seq is not None and wanted > seq:
                still.append((wanted, waiting))
            elif waiting.done():
                continue
            elif seq is None:
                waiting.set_exception(self._refusal(run))
            else:
                waiting.set_result(None)
        if still:
            self._waiting[run] = still


class _Stores(NamedTuple):
    """Connections to one file: the writer's, the reader's, and one for the glance that the loop's own thread takes at a new run."""

    writing: Store
    reading: Store
    glance: Store


def _open(path: Path, durability: Durability, busy: float, max_bytes: int | None) -> tuple[_Stores, Presence]:
    with ExitStack() as stack:
        stores = _Stores(
            stack.enter_context(closing(Store(path, durability=durability, busy=busy, max_bytes=max_bytes))),
            stack.enter_context(closing(Store(path, busy=busy))),
            stack.enter_context(closing(Store(path, busy=busy))),
        )
        try:
            presence = Presence(path.with_name(path.name + "-writers"))
        except OSError as error:
            raise from_os(error, str(path)) from error
        stack.pop_all()
        return stores, presence


def _body(run: str, event: Event) -> bytes:
    try:
        body = encode(event)
    except (TypeError, ValueError, OverflowError, msgspec.MsgspecError) as error:
        raise not_json(run, event.seq, str(error)) from error
    if len(body) > MAX_BODY:
        raise not_json(run, event.seq, f"{len(body)} bytes")
    return body

"""The writer of a Postgres journal: one task that puts what is in line on disk, many events a commit."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import asyncpg

from orchestra.core.error_codes import LOST
from orchestra.core.events import Event
from orchestra.journal import GATHER, MOST
from orchestra.journal.errors import JournalError, closed, other_writer
from orchestra.journal.postgres.errors import FAULTS, from_postgres, passing
from orchestra.journal.postgres.rows import Batch, Tail
from orchestra.journal.postgres.tables import Tables
from orchestra.journal.summary import Line, Tally
from orchestra.journal.usage import UsageFold

HEAVY = 16 << 20
"""Bytes in one commit, about."""
PAUSE = 0.05
"""Seconds before a lost connection is tried again; twice as long each time, up to a second."""

Connect: TypeAlias = Callable[[], Awaitable[asyncpg.Connection]]


class Log:
    """One run whose lease this journal holds: where its log ends in line, in the writer's hands, and on disk; and who waits."""

    def __init__(self, run: str, epoch: int = 1, tail: Tail | None = None) -> None:
        """`tail` is the end on disk of a run that was taken over."""
        self.run, self.epoch = run, epoch
        self.tail = tail or Tail(Tally(run), 0, run.encode(), UsageFold())
        self.line = Line(run, self.tail.last)
        self.mark = self.tail.last
        self.failed: JournalError | None = None
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []

    def wait(self, seq: int) -> asyncio.Future[None]:
        """Done once the events up to `seq` are on disk."""
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((seq, waiting))
        return waiting

    def reached(self, seq: int) -> None:
        """The events up to `seq` are on disk."""
        self.mark = seq
        waiting, self._waiting = self._waiting, []
        for wanted, future in waiting:
            if wanted > seq:
                self._waiting.append((wanted, future))
            elif not future.done():
                future.set_result(None)

    def anew(self, seq: int) -> bool:
        """Whether a run begins that failed with the database: nothing of it may be there, which the commit finds out."""
        return seq == 1 and self.failed is not None and self.failed.code != LOST

    def fail(self, error: JournalError) -> bool:
        """Nothing more of the run comes on disk; whether somebody was told."""
        waiting, self._waiting = self._waiting, []
        told = [future for _, future in waiting if not future.done()]
        for future in told:
            future.set_exception(error.again())
        return bool(told)


@dataclass(slots=True, frozen=True)
class Appended:
    """Events in line, with their bytes, and the nodes whose messages were delivered."""

    log: Log
    events: Sequence[Event]
    bodies: Sequence[bytes]
    delivered: Collection[str]


@dataclass(slots=True, frozen=True)
class Kept:
    """A blob in line."""

    digest: str
    data: bytes


@dataclass(slots=True, frozen=True)
class Remembered:
    """An answer in line for the memo."""

    key: bytes
    run: str
    value: bytes


Entry: TypeAlias = Appended | Kept | Remembered


@dataclass(slots=True)
class Report:
    """What a commit did: up to where each run is on disk, which failed alone, blobs and answers among it; or the fault that ends it all."""

    marks: list[tuple[Log, int]] = field(default_factory=list)
    failed: list[tuple[Log, JournalError]] = field(default_factory=list)
    blobs: Sequence[str] = ()
    memo: Sequence[bytes] = ()
    fault: JournalError | None = None


class Writer:
    """Commits in order of arrival, at once where somebody waits, else after at most `GATHER` seconds.

    Where the connection is lost during a commit, nobody knows whether it went through. The writer then connects again and repeats
    the batch: its statement does nothing twice, and finds what is there. Only then it tells anybody anything.
    """

    def __init__(
        self, tables: Tables, connect: Connect, presence: int, report: Callable[[Report], None], *, one_by_one: bool, patience: float
    ) -> None:
        """`one_by_one` makes each append a commit of its own; `patience` is how many seconds a lost connection may take to come back."""
        self._tables, self._connect, self._presence, self._report = tables, connect, presence, report
        self._one_by_one, self._patience = one_by_one, patience
        self._sql: asyncpg.Connection | None = None
        self._line: deque[Entry] = deque()
        self._due = 0
        self._something, self._hurry = asyncio.Event(), asyncio.Event()
        self._closing = False
        self._stopped: JournalError | None = None

    def put(self, entry: Entry) -> None:
        """Puts an entry in line. A blob goes to disk with the append that comes after it, so that it is never there unnamed."""
        self._line.append(entry)
        if not isinstance(entry, Kept):
            self._due += 1
            self._something.set()

    def hurry(self) -> None:
        """Somebody waits: what is in line goes to disk at once."""
        self._hurry.set()

    def finish(self) -> None:
        """Lets the task end once the line is empty."""
        self._closing = True
        self._something.set()
        self._hurry.set()

    def stop(self, error: JournalError) -> None:
        """Ends the task with a fault once the commit under way is settled."""
        self._stopped = self._stopped or error
        self.finish()

    async def run(self) -> None:
        """Commits until `finish`, or until a fault."""
        fault = JournalError("J033", f"the journal's writer ended early: {self._tables.where}", hint="open the journal again")
        try:
            while await self._ready():
                self._report(await self._commit(*self._take()))
            fault = self._stopped or closed()
        except JournalError as error:
            fault = error
        finally:
            # Whatever happened, nobody may wait for this task any longer.
            self._report(Report(fault=fault))
            self._drop()

    async def _ready(self) -> bool:
        """Waits until there is something to commit; false where the end has come."""
        await self._something.wait()
        if not (self._closing or self._one_by_one):
            try:
                async with asyncio.timeout(GATHER):
                    await self._hurry.wait()
            except TimeoutError:
                pass
        self._hurry.clear()
        return self._stopped is None and bool(self._line)

    def _take(self) -> tuple[Batch, dict[str, Log]]:
        batch, logs, taken = Batch(), dict[str, Log](), 0
        while self._line and (self._due or self._closing):
            entry = self._line.popleft()
            taken += 1
            match entry:
                case Kept():
                    batch.blobs[entry.digest] = entry.data
                    batch.size += len(entry.data)
                    continue
                case Remembered():
                    batch.memo.setdefault(entry.key, (entry.run, entry.value))
                    batch.size += len(entry.value)
                case Appended(log=log) if log.failed is None:
                    batch.grow(log.run, log.epoch, log.tail, entry.events, entry.bodies, entry.delivered)
                    logs[log.run] = log
                case Appended():
                    pass  # another journal has the run; whoever waited was told
            self._due -= 1
            if taken >= MOST or batch.size >= HEAVY or self._one_by_one:
                break
        if self._due:
            self._hurry.set()
        elif not self._closing:
            self._something.clear()
        return batch, logs

    async def _commit(self, batch: Batch, logs: dict[str, Log]) -> Report:
        there = await self._written(batch)
        report = Report(blobs=list(batch.blobs), memo=list(batch.memo))
        for run, log in logs.items():
            if run in there:
                report.marks.append((log, batch.runs[run].last))
            else:
                report.failed.append((log, other_writer(run)))
        return report

    async def _written(self, batch: Batch) -> set[str]:
        again, pause, clock = False, PAUSE, asyncio.get_running_loop().time
        give_up: float | None = None
        while True:
            try:
                if self._sql is None or self._sql.is_closed():
                    self._sql = await self._connect()
                return await self._tables.write(self._sql, batch, self._presence, again=again)
            except FAULTS as error:
                self._drop()
                give_up = clock() + self._patience if give_up is None else give_up
                if not passing(error) or clock() + pause > give_up:
                    raise from_postgres(error, self._tables.where) from error
            again = True
            await asyncio.sleep(pause)
            pause = min(1.0, pause * 2)

    def _drop(self) -> None:
        if self._sql is not None:
            self._sql.terminate()
            self._sql = None

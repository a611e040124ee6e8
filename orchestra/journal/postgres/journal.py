"""The journal in Postgres: for several processes, on several machines, that share one log. Needs the extra `postgres` (asyncpg).

What `durable` returned for is committed; under `group` and `strict` it survives whatever the server's `fsync` and
`synchronous_commit` promise. A connection that is lost comes back by itself, and so do all of them after a restart of the server.
The database must be UTF-8, and reached directly or through a pooler in session mode: the lease of a run rests on a lock that lives as
long as a session.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Self, TypeVar

import asyncpg
import msgspec

from orchestra.core.errors import OrchestraError
from orchestra.core.events import Event
from orchestra.core.protocols import Letter
from orchestra.journal import AGAIN
from orchestra.journal.errors import (
    Alarm,
    JournalError,
    after_the_end,
    closed,
    held,
    never_appended,
    no_run,
    not_json,
    other_writer,
    silent,
    this_process,
)
from orchestra.journal.postgres.connections import Database, Durability, session_of_its_own
from orchestra.journal.postgres.dsn import apart, place
from orchestra.journal.postgres.errors import FAULTS, from_postgres, gone, not_held, passing, pooled, unreachable
from orchestra.journal.postgres.liveness import Presence
from orchestra.journal.postgres.queries import PostgresAnswers
from orchestra.journal.postgres.rows import MAX_ID, Tail, key, usable
from orchestra.journal.postgres.run_index import IndexedTables
from orchestra.journal.postgres.writer import PAUSE, Appended, Kept, Log, Remembered, Report, Writer
from orchestra.journal.sqlite.encoding import body_of, bounded
from orchestra.schema.strict_json import digest

T = TypeVar("T")

ENDED = 4096
"""Runs that ended here lately, of which the journal still knows it."""


class PostgresJournal(PostgresAnswers):
    """Stands behind the `Journal` door; made by `PostgresJournal.open`.

    Three kinds of connection: one that the writer commits over, one that is the journal's presence and hears of letters, and up to
    four for questions. Each is made anew where it is lost. A fault of the database, or that it stays away for longer than `patience`,
    reaches everyone who waits in `durable`, and every `append` while it lasts; where only the lease of one run is lost, only that run
    fails (J005). The runs that were in hand at a fault fail with it, and anybody may take them over, for this journal's presence is
    gone; it has another one once the database can be written again, which is tried each second.
    """

    def __init__(self, database: Database, tables: IndexedTables, presence: Presence, pool: asyncpg.Pool, alarm: Alarm) -> None:
        self._database, self._tables, self._presence, self._pool, self._alarm = database, tables, presence, pool, alarm
        self._lax = database.durability == "off"
        self._logs: dict[str, Log] = {}
        self._ended: dict[str, None] = {}
        self._fresh: dict[str, bytes] = {}
        self._memo: dict[bytes, tuple[str, bytes]] = {}
        self._fault: JournalError | None = None
        self._untold: JournalError | None = None
        """A fault that nobody has been told yet."""
        self._recovering: asyncio.Task[None] | None = None
        self._giving: set[asyncio.Task[None]] = set()
        self._closing: asyncio.Task[None] | None = None
        self._begin()

    def _begin(self) -> None:
        """Writes, as the presence that there is."""
        database, presence = self._database, self._presence
        strict, patience = database.durability == "strict", database.patience
        self._writer = Writer(self._tables, database.connect, presence.number, self._take_in, one_by_one=strict, patience=patience)
        self._writing = asyncio.create_task(self._writer.run())
        self._watching = asyncio.create_task(presence.watch(self._back))
        self._watching.add_done_callback(self._gone)

    @classmethod
    @asynccontextmanager
    async def open(
        cls, dsn: str, *, durability: Durability = "group", schema: str = "", patience: float = 30.0, alarm: Alarm = silent
    ) -> AsyncIterator[Self]:
        """The journal of a database, in a schema of its own, made where it is not there: the one that `schema` names, else the address
        (`?schema=NAME`), else `orchestra`.

        `group` commits many events at once, at most 5 ms later; `strict` gives each append a commit of its own; `off` waits for no
        disk: a crash of the server may take the last moments. `patience` is how many seconds a lost connection may take to come
        back; `alarm` hears of faults of the database. Raises `JournalError`: J030 where the database cannot be reached, J034 behind a
        pooler in transaction mode, J018, J020.
        """
        dsn, named = apart(dsn)
        database = Database(dsn, place(dsn), durability, patience)
        journal = await cls._opened(database, IndexedTables(schema or named, database.where), alarm)
        try:
            yield journal
        except BaseException:
            with suppress(JournalError):  # what ended the work is told, and not that its journal cannot be closed
                await journal.close()
            raise
        await journal.close()

    @classmethod
    async def _opened(cls, database: Database, tables: IndexedTables, alarm: Alarm) -> Self:
        presence = Presence(database, tables.channel)
        try:
            sql = await presence.connect()
        except (*FAULTS, ValueError) as error:
            raise unreachable(error, database.where) from error
        try:
            await tables.prepare(sql)
            await presence.take()
            pool = await database.pool()
            if not await session_of_its_own(sql, pool):
                pool.terminate()
                raise pooled(database.where)
        except FAULTS as error:
            presence.give_up()
            raise from_postgres(error, database.where) from error
        except BaseException:
            presence.give_up()
            raise
        return cls(database, tables, presence, pool, alarm)

    # Events

    def append(self, run: str, events: Sequence[Event], delivered: Collection[str] = ()) -> None:
        """Puts events in line, all or none.

        Raises `JournalError`: J001 for a gap in `seq`, J002 after `close`, J004 for what is no JSON, J005 where this journal does not
        hold the run's lease, J006 after a run's end; and the database's fault while it is known. That another journal began a run of
        the same id is known only at the commit, and reaches `durable`.
        """
        if self._fault is not None or self._closing is not None:
            raise self._refusal()
        log = self._logs.get(run)
        if not events:
            return
        if log is None or log.anew(events[0].seq):
            if run in self._ended:
                raise after_the_end(run, events[0].seq)
            if events[0].seq != 1:
                raise not_held(run)
            if not usable(run):
                raise not_json(f"event 1 of run {run}", f"ids are text without NUL, of at most {MAX_ID} bytes")
            log = Log(run)
        elif log.failed is not None:
            raise log.failed.again()
        bodies = [body_of(run, event) for event in events]
        log.line.extend(events)
        self._logs[run] = log
        self._writer.put(Appended(log, tuple(events), bodies, delivered))

    def put(self, data: bytes) -> str:
        """Stores a blob with the next append and gives its digest. Raises the database's fault while it is known."""
        if self._fault is not None or self._closing is not None:
            raise self._refusal()
        name = digest(data)
        self._fresh[name] = data
        self._writer.put(Kept(name, data))
        return name

    async def durable(self, run: str, seq: int) -> None:
        """Waits until the run's events up to `seq`, and the blobs put before them, are on disk.

        Returns at once under `off`. Raises the database's fault, `JournalError` J003 for what was never appended, and J005 where
        another journal has the run's lease.
        """
        log = self._logs.get(run)
        if log is not None and seq <= log.mark:
            return
        if log is not None and log.failed is not None:
            raise log.failed.again()
        if self._fault is not None:
            raise self._refusal()
        if log is None or seq > log.line.last:
            if not usable(run) or seq > await self._ask(lambda sql, _: self._tables.end(sql, run)):
                raise never_appended(run, seq)
        elif not self._lax:
            await self._wait(log, seq)

    async def blob(self, digest: str) -> bytes | None:
        """A blob's bytes, or None; raises `JournalError` J013 where they are not what was stored."""
        if (fresh := self._fresh.get(digest)) is not None:
            return fresh
        return await self._ask(lambda sql, _: self._tables.blob(sql, digest)) if usable(digest) else None

    async def ready(self) -> None:
        """Returns where the tables may be written. Raises the database's fault where they may not."""
        self._refuse_fault()
        await self._ask(lambda sql, _: self._tables.touch(sql))

    # Leases

    async def lease(self, run: str) -> int:
        """Takes the lease over and gives its epoch. Raises `JournalError` J022 where a journal that lives holds it, J023, J006."""
        self._refuse_fault()
        if (log := self._logs.get(run)) is not None and log.failed is None:
            if not log.line.ended:
                raise held(run, this_process())
            await self._settle(run)
        taking = asyncio.ensure_future(
            self._ask(lambda sql, again: self._tables.lease(sql, _there(run), self._presence.number, again=again))
        )
        try:
            taken = await asyncio.shield(taking)
        except asyncio.CancelledError:
            # Whoever asked is gone: what he gets all the same goes back.
            taking.add_done_callback(lambda done: None if done.cancelled() or done.exception() else self._give_back(run))
            raise
        self._logs[run] = Log(run, taken.epoch, Tail(taken.tally, taken.last, taken.chain))
        return taken.epoch

    async def release(self, run: str) -> None:
        """Gives the lease back, once everything that is in line is on disk.

        Raises `JournalError`: J005 where the lease was lost before, J023, and the database's fault.
        """
        log = self._logs.get(run)
        while log is not None and log.mark < log.line.last:
            if log.failed is not None:
                raise log.failed.again()
            await self._wait(log, log.line.last)
        if log is not None and self._logs.get(run) is log:
            del self._logs[run]
        await self._ask(lambda sql, _: self._tables.release(sql, _there(run), self._presence.number))

    def _give_back(self, run: str) -> None:
        if self._fault is None and self._closing is None:
            giving = asyncio.create_task(self.release(run))
            self._giving.add(giving)
            giving.add_done_callback(self._given_back)

    def _given_back(self, giving: asyncio.Task[None]) -> None:
        self._giving.discard(giving)
        if not giving.cancelled():
            giving.exception()  # there is nobody to tell: the run is interrupted then, and can be taken over as well

    async def delete(self, run: str) -> None:
        """Removes a run: events, letters, answers, messages that were delivered, and blobs that no other run names.

        Raises `JournalError`: J022 where somebody who lives holds its lease, J024 where messages are not delivered yet, J023.
        """
        (error,) = await self.delete_all((run,))
        if error is not None:
            raise error

    async def delete_all(self, runs: Sequence[str]) -> list[OrchestraError | None]:
        """Deletes runs in one transaction; for each why it is not deleted, as `delete` raises it, or None."""
        there = [run for run in runs if usable(run)]
        await self._settle(*there)
        refused = await self._ask(lambda sql, again: self._tables.delete(sql, there, again=again))
        for run in there:
            if run not in refused:
                self._ended.pop(run, None)
                self._logs.pop(run, None)
        return [refused.get(run) if usable(run) else no_run(run) for run in runs]

    # The inbox

    async def post(self, run: str, letter: Letter, since: int | None = None) -> int:
        """Puts a letter into the inbox; it is on disk when its number comes. With `since` only where no later letter answers the same
        question, else gives 0. Raises `JournalError` J004, J006, J023."""
        bounded(f"the letter to run {run}", letter)
        self._refuse_fault()
        await self._settle(run)
        name = secrets.token_hex(16)
        return await self._ask(lambda sql, _: self._tables.post(sql, _there(run), letter, name, since))

    async def mail(self) -> set[str]:
        """Waits for letters, through a fault of the database too, and names the runs that got some. Raises J002 once it is closed."""
        presence = self._presence
        while not presence.mail:
            if self._closing is not None:
                raise closed()
            presence.rings.clear()
            await presence.rings.wait()
        found, presence.mail = presence.mail, set()
        return found

    # Memo and outbox

    def remember(self, memo: str, run: str, value: Any) -> None:
        """Keeps an answer with the next commit; the first one stays. Raises `JournalError` J004 for what is no JSON."""
        if self._fault is not None or self._closing is not None:
            raise self._refusal()
        if (name := key(memo)) not in self._memo:
            data = bounded(f"answer {memo}", value)
            if not usable(run):
                raise not_json(f"answer {memo}", f"{run[:80]!r} is no run's id")
            self._memo[name] = run, data
            self._writer.put(Remembered(name, run, data))

    async def recall(self, memo: str) -> tuple[str, Any] | None:
        """The run that gave the answer, and the answer; or None."""
        fresh = self._memo.get(name := key(memo))
        if (found := await self._ask(lambda sql, _: self._tables.recall(sql, name))) is not None or fresh is None:
            return found
        return fresh[0], msgspec.json.decode(fresh[1])

    async def recall_all(self, memos: Collection[str]) -> dict[str, tuple[str, Any]]:
        """What `recall` gives for each of these keys that is there."""
        names = {key(memo): memo for memo in memos}
        fresh = {name: self._memo[name] for name in names if name in self._memo}
        found = await self._ask(lambda sql, _: self._tables.recall_all(sql, names))
        found = {name: (run, msgspec.json.decode(value)) for name, (run, value) in fresh.items()} | found
        return {names[name]: answer for name, answer in found.items()}

    async def delivered(self, numbers: Sequence[int]) -> None:
        """Marks messages as delivered; on disk when it returns."""
        await self._ask(lambda sql, _: self._tables.delivered(sql, numbers))

    async def close(self) -> None:
        """Commits what is in line and lets go of the database. Raises a fault that nobody has been told yet."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._let_go())
            # Shielded: a caller who is cancelled here may go, but the connections are still closed behind him.
            await asyncio.shield(self._closing)
            if self._untold is not None:
                raise self._untold.again()
        else:
            await asyncio.shield(self._closing)

    async def _let_go(self) -> None:
        if self._recovering is not None:
            self._recovering.cancel()
            await asyncio.gather(self._recovering, return_exceptions=True)
        self._writer.finish()
        await self._writing
        self._watching.cancel()
        await asyncio.gather(self._watching, return_exceptions=True)
        self._presence.rings.set()
        try:
            async with asyncio.timeout(self._database.patience):
                await self._pool.close()
                await self._presence.close()
        except FAULTS:
            self._pool.terminate()
            self._presence.give_up()

    async def _ask(self, question: Callable[[asyncpg.Connection, bool], Awaitable[T]]) -> T:
        """An answer, over another connection where one is lost; then `again` is true, for the first try may have gone through."""
        again, pause, clock = False, PAUSE, asyncio.get_running_loop().time
        give_up = clock() + self._database.patience
        while True:
            if self._closing is not None:
                raise closed()
            try:
                async with self._pool.acquire(timeout=self._database.patience) as sql:
                    return await question(sql, again)
            except FAULTS as error:
                if not passing(error) or clock() + pause > give_up:
                    raise from_postgres(error, self._database.where) from error
            again = True
            await asyncio.sleep(pause)
            pause = min(1.0, pause * 2)

    async def _settle(self, *runs: str) -> None:
        """Waits for what is in line of these runs, or of all; a fault is no reason not to read what is on disk."""
        with suppress(JournalError):
            for run in runs or list(self._logs):
                if (log := self._logs.get(run)) is not None and log.failed is None and log.line.last > log.mark:
                    await self._wait(log, log.line.last)

    async def _wait(self, log: Log, seq: int) -> None:
        self._refuse_fault()
        self._writer.hurry()
        await log.wait(seq)

    def _refuse_fault(self) -> None:
        if self._fault is not None:
            raise self._refusal()

    def _refusal(self) -> JournalError:
        error = self._fault or closed()
        self._untold = None if error is self._untold else self._untold
        return error.again()

    def _take_in(self, report: Report) -> None:
        for name in report.blobs:
            self._fresh.pop(name, None)
        for memo in report.memo:
            self._memo.pop(memo, None)
        for log, seq in report.marks:
            log.reached(seq)
            if log.line.ended and log.line.last == seq and self._logs.pop(log.run, None) is not None:
                self._ended[log.run] = None
                if len(self._ended) > ENDED:
                    del self._ended[next(iter(self._ended))]
        for log, error in report.failed:
            log.failed = error
            log.fail(error)
        if report.fault is not None:
            fault = self._fail(report.fault)
            self._memo.clear()
            for log in self._logs.values():
                log.failed = log.failed or fault
                if log.fail(fault):
                    self._untold = None
            self._presence.rings.set()
            if self._closing is None:
                self._presence.give_up()  # nobody goes on with what it had in hand: others may take its runs over
                self._watching.cancel()
                self._recovering = asyncio.create_task(self._recover())

    def _fail(self, fault: JournalError) -> JournalError:
        """There is a fault: this one, or another one is known."""
        if self._fault is None:
            self._fault = fault
            if fault.code != "J002":
                self._untold = fault
                self._alarm(fault)
        return self._fault

    async def _recover(self) -> None:
        """Tries until the database can be written again. Nothing of before goes on: the presence is another one, and so is the writer."""
        while True:
            await asyncio.sleep(AGAIN)
            try:
                sql = await self._presence.renew()
                await self._tables.touch(sql)
                self._presence.mail |= await self._tables.lettered(sql)
            except (*FAULTS, JournalError):
                self._presence.give_up()
            else:
                break
        self._begin()
        for name, data in self._fresh.items():  # whoever put them may be about to name them
            self._writer.put(Kept(name, data))
        self._fault = None
        self._presence.rings.set()
        self._alarm(None)

    async def _back(self, sql: asyncpg.Connection) -> None:
        """There is a new presence: which runs were taken meanwhile, and which got letters that nobody announced to us."""
        logs = dict(self._logs)
        leases = await self._tables.leases(sql, list(logs))
        for run, lease in leases.items():
            log = logs[run]
            if self._logs.get(run) is log and log.failed is None and (log.epoch, self._presence.number) != lease:
                log.failed = other_writer(run)
                log.fail(log.failed)
        self._presence.mail |= await self._tables.lettered(sql)
        self._presence.rings.set()

    def _gone(self, watching: asyncio.Task[None]) -> None:
        """There will be no presence: others may take the runs over, so nothing more is appended; the commit under way is still settled."""
        if watching.cancelled() or (error := watching.exception()) is None:
            return
        self._writer.stop(self._fail(gone(self._database.where, str(error) or type(error).__name__)))
        self._presence.rings.set()


def _there(run: str) -> str:
    """A run's id as Postgres knows it; nothing is there under an id that it cannot keep."""
    if not usable(run):
        raise no_run(run)
    return run

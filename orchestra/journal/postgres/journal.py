"""The journal in Postgres: for several processes, on several machines, that share one log. Needs the extra `postgres` (asyncpg).

What `wait_durable` returned for is committed; under `group` and `strict` it survives whatever the server's `fsync` and
`synchronous_commit` promise. A connection that is lost comes back by itself, and so do all of them after a restart of the server.
The database must be UTF-8, and reached directly or through a pooler in session mode: the lease of a run rests on a lock that lives as
long as a session.
"""

from __future__ import annotations

import asyncio
import secrets
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from math import inf
from typing import Any, Self, TypeVar

import asyncpg
import msgspec

from orchestra.core.errors import OrchestraError
from orchestra.core.events import Event
from orchestra.core.protocols import InboxMessage, OutboxMessage, RunSelection, RunSummary, RunUsageResult, ScannedRun
from orchestra.journal import MAX_FOUND_RUNS, RETRY_INTERVAL, Durability
from orchestra.journal.encoding import encode_event, encode_value
from orchestra.journal.errors import (
    FaultListener,
    JournalError,
    after_end_error,
    closed_error,
    ignore_faults,
    lease_held_error,
    lease_lost_error,
    never_appended_error,
    no_run_error,
    not_json_error,
    this_process_name,
)
from orchestra.journal.postgres.connections import (
    RETRY_PAUSE,
    PostgresDatabase,
    PostgresPresence,
    has_own_session,
    redact_dsn,
    split_dsn,
)
from orchestra.journal.postgres.errors import (
    POSTGRES_ERRORS,
    from_postgres,
    is_transient,
    not_leased_error,
    pooler_error,
    presence_lost_error,
    unreachable_error,
)
from orchestra.journal.postgres.rows import MAX_ID_BYTES, LogTail, hash_key, is_storable
from orchestra.journal.postgres.tables import PostgresTables
from orchestra.journal.postgres.writer import (
    AppendEntry,
    BlobEntry,
    MemoEntry,
    PostgresCommitReport,
    PostgresWriter,
    RunLog,
)
from orchestra.journal.usage import ALL_RUNS, UsagePage
from orchestra.schema.strict_json import digest


class PostgresQueries(ABC):
    """The half of the `Journal` door that looks."""

    _tables: PostgresTables

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
        return await self._query(
            lambda sql, _: self._tables.first_and_last_events(sql, list(filter(is_storable, runs)))
        )

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
        return (
            await self._query(lambda sql, _: self._tables.find_runs(sql, prefix, MAX_FOUND_RUNS))
            if is_storable(prefix)
            else []
        )

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


async def _query_usages(tables: PostgresTables, where: RunSelection, sql: asyncpg.Connection, _: bool) -> UsagePage:
    return await tables.query_usages(sql, where)


async def _store_usages(
    tables: PostgresTables, usages: Sequence[tuple[str, int, bytes, bytes]], sql: asyncpg.Connection, _: bool
) -> None:
    await tables.store_usages(sql, usages)


T = TypeVar("T")

MAX_ENDED_RUNS = 4096
"""Runs that ended here lately, of which the journal still knows it."""


class PostgresJournal(PostgresQueries):
    """Stands behind the `Journal` door; made by `PostgresJournal.open`.

    Three kinds of connection: one that the writer commits over, one that is the journal's presence and hears of letters, and up to
    four for questions. Each is made anew where it is lost. A fault of the database, or that it stays away for longer than `patience`,
    reaches everyone who waits in `wait_durable`, and every `append` while it lasts; where only the lease of one run is lost, only that run
    fails (J005). The runs that were in hand at a fault fail with it, and anybody may take them over, for this journal's presence is
    gone; it has another one once the database can be written again, which is tried each second.
    """

    def __init__(
        self,
        database: PostgresDatabase,
        tables: PostgresTables,
        presence: PostgresPresence,
        pool: asyncpg.Pool,
        alarm: FaultListener,
    ) -> None:
        self._database, self._tables, self._presence, self._pool, self._alarm = database, tables, presence, pool, alarm
        self._skips_waiting = database.durability == "off"
        self._logs: dict[str, RunLog] = {}
        self._ended: dict[str, None] = {}
        self._pending_blobs: dict[str, bytes] = {}
        self._pending_memos: dict[bytes, tuple[str, bytes]] = {}
        self._fault: JournalError | None = None
        self._unreported_fault: JournalError | None = None
        """A fault that nobody has been told yet."""
        self._recovering: asyncio.Task[None] | None = None
        self._releases: set[asyncio.Task[None]] = set()
        self._closing: asyncio.Task[None] | None = None
        self._start_writer()

    def _start_writer(self) -> None:
        """Writes, as the presence that there is."""
        database, presence = self._database, self._presence
        strict, patience = database.durability == "strict", database.retry_timeout
        self._writer = PostgresWriter(
            self._tables,
            database.connect,
            presence.lock_number,
            self._apply_report,
            one_by_one=strict,
            retry_timeout=patience,
        )
        self._writing = asyncio.create_task(self._writer.run())
        self._watching = asyncio.create_task(presence.watch(self._on_presence_restored))
        self._watching.add_done_callback(self._on_presence_lost)

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        dsn: str,
        *,
        durability: Durability = "group",
        schema: str = "",
        retry_timeout: float = 30.0,
        alarm: FaultListener = ignore_faults,
    ) -> AsyncIterator[Self]:
        """The journal of a database, in a schema of its own, made where it is not there: the one that `schema` names, else the address
        (`?schema=NAME`), else `orchestra`.

        `group` commits many events at once, at most 5 ms later; `strict` gives each append a commit of its own; `off` waits for no
        disk: a crash of the server may take the last moments. `patience` is how many seconds a lost connection may take to come
        back; `alarm` hears of faults of the database. Raises `JournalError`: J030 where the database cannot be reached, J034 behind a
        pooler in transaction mode, J018, J020.
        """
        dsn, named = split_dsn(dsn)
        database = PostgresDatabase(dsn, redact_dsn(dsn), durability, retry_timeout)
        journal = await cls._connect(database, PostgresTables(schema or named, database.display_name), alarm)
        try:
            yield journal
        except BaseException:
            with suppress(JournalError):  # what ended the work is told, and not that its journal cannot be closed
                await journal.close()
            raise
        await journal.close()

    @classmethod
    async def _connect(cls, database: PostgresDatabase, tables: PostgresTables, alarm: FaultListener) -> Self:
        presence = PostgresPresence(database, tables.channel)
        try:
            sql = await presence.connect()
        except (*POSTGRES_ERRORS, ValueError) as error:
            raise unreachable_error(error, database.display_name) from error
        try:
            await tables.prepare(sql)
            await presence.acquire()
            pool = await database.pool()
            if not await has_own_session(sql, pool):
                pool.terminate()
                raise pooler_error(database.display_name)
        except POSTGRES_ERRORS as error:
            presence.abandon()
            raise from_postgres(error, database.display_name) from error
        except BaseException:
            presence.abandon()
            raise
        return cls(database, tables, presence, pool, alarm)

    # Events

    def append(self, run: str, events: Sequence[Event], delivered: Collection[str] = ()) -> None:
        """Puts events in line, all or none.

        Raises `JournalError`: J001 for a gap in `seq`, J002 after `close`, J004 for what is no JSON, J005 where this journal does not
        hold the run's lease, J006 after a run's end; and the database's fault while it is known. That another journal began a run of
        the same id is known only at the commit, and reaches `wait_durable`.
        """
        if self._fault is not None or self._closing is not None:
            raise self._current_error()
        log = self._logs.get(run)
        if not events:
            return
        if log is None or log.is_restart(events[0].seq):
            if run in self._ended:
                raise after_end_error(run, events[0].seq)
            if events[0].seq != 1:
                raise not_leased_error(run)
            if not is_storable(run):
                raise not_json_error(
                    f"event 1 of run {run}", f"ids are text without NUL, of at most {MAX_ID_BYTES} bytes"
                )
            log = RunLog(run)
        elif log.error is not None:
            raise log.error.copy()
        bodies = [encode_event(run, event) for event in events]
        log.end.extend(events)
        self._logs[run] = log
        self._writer.put(AppendEntry(log, tuple(events), bodies, delivered))

    def put_blob(self, data: bytes) -> str:
        """Stores a blob with the next append and gives its digest. Raises the database's fault while it is known."""
        if self._fault is not None or self._closing is not None:
            raise self._current_error()
        name = digest(data)
        self._pending_blobs[name] = data
        self._writer.put(BlobEntry(name, data))
        return name

    async def wait_durable(self, run: str, seq: int) -> None:
        """Waits until the run's events up to `seq`, and the blobs put before them, are on disk.

        Returns at once under `off`. Raises the database's fault, `JournalError` J003 for what was never appended, and J005 where
        another journal has the run's lease.
        """
        log = self._logs.get(run)
        if log is not None and seq <= log.durable_seq:
            return
        if log is not None and log.error is not None:
            raise log.error.copy()
        if self._fault is not None:
            raise self._current_error()
        if log is None or seq > log.end.last_seq:
            if not is_storable(run) or seq > await self._query(lambda sql, _: self._tables.last_seq(sql, run)):
                raise never_appended_error(run, seq)
        elif not self._skips_waiting:
            await self._wait_durable(log, seq)

    async def get_blob(self, digest: str) -> bytes | None:
        """A blob's bytes, or None; raises `JournalError` J013 where they are not what was stored."""
        if (fresh := self._pending_blobs.get(digest)) is not None:
            return fresh
        return await self._query(lambda sql, _: self._tables.get_blob(sql, digest)) if is_storable(digest) else None

    async def check_writable(self) -> None:
        """Returns where the tables may be written. Raises the database's fault where they may not."""
        self._raise_fault()
        await self._query(lambda sql, _: self._tables.check_writable(sql))

    # Leases

    async def lease(self, run: str) -> int:
        """Takes the lease over and gives its epoch. Raises `JournalError` J022 where a journal that lives holds it, J023, J006."""
        self._raise_fault()
        if (log := self._logs.get(run)) is not None and log.error is None:
            if not log.end.is_ended:
                raise lease_held_error(run, this_process_name())
            await self._flush(run)
        taking = asyncio.ensure_future(
            self._query(
                lambda sql, again: self._tables.lease(
                    sql, _valid_run_id(run), self._presence.lock_number, is_retry=again
                )
            )
        )
        try:
            taken = await asyncio.shield(taking)
        except asyncio.CancelledError:
            # Whoever asked is gone: what he gets all the same goes back.
            taking.add_done_callback(
                lambda done: None if done.cancelled() or done.exception() else self._release_later(run)
            )
            raise
        self._logs[run] = RunLog(run, taken.epoch, LogTail(taken.summary_fold, taken.last_seq, taken.chain))
        return taken.epoch

    async def release(self, run: str) -> None:
        """Gives the lease back, once everything that is in line is on disk.

        Raises `JournalError`: J005 where the lease was lost before, J023, and the database's fault.
        """
        log = self._logs.get(run)
        while log is not None and log.durable_seq < log.end.last_seq:
            if log.error is not None:
                raise log.error.copy()
            await self._wait_durable(log, log.end.last_seq)
        if log is not None and self._logs.get(run) is log:
            del self._logs[run]
        await self._query(lambda sql, _: self._tables.release(sql, _valid_run_id(run), self._presence.lock_number))

    def _release_later(self, run: str) -> None:
        if self._fault is None and self._closing is None:
            giving = asyncio.create_task(self.release(run))
            self._releases.add(giving)
            giving.add_done_callback(self._on_released)

    def _on_released(self, giving: asyncio.Task[None]) -> None:
        self._releases.discard(giving)
        if not giving.cancelled():
            giving.exception()  # there is nobody to tell: the run is interrupted then, and can be taken over as well

    async def delete(self, run: str) -> None:
        """Removes a run: events, letters, answers, messages that were delivered, and blobs that no other run names.

        Raises `JournalError`: J022 where somebody who lives holds its lease, J024 where messages are not delivered yet, J023.
        """
        (error,) = await self.delete_runs((run,))
        if error is not None:
            raise error

    async def delete_runs(self, runs: Sequence[str]) -> list[OrchestraError | None]:
        """Deletes runs in one transaction; for each why it is not deleted, as `delete` raises it, or None."""
        there = [run for run in runs if is_storable(run)]
        await self._flush(*there)
        refused = await self._query(lambda sql, again: self._tables.delete_runs(sql, there, is_retry=again))
        for run in there:
            if run not in refused:
                self._ended.pop(run, None)
                self._logs.pop(run, None)
        return [refused.get(run) if is_storable(run) else no_run_error(run) for run in runs]

    # The inbox

    async def send(self, run: str, message: InboxMessage, since: int | None = None) -> int:
        """Puts a letter into the inbox; it is on disk when its number comes. With `since` only where no later letter answers the same
        question, else gives 0. Raises `JournalError` J004, J006, J023."""
        encode_value(f"the letter to run {run}", message)
        self._raise_fault()
        await self._flush(run)
        name = secrets.token_hex(16)
        return await self._query(lambda sql, _: self._tables.send(sql, _valid_run_id(run), message, name, since))

    async def wait_for_messages(self) -> set[str]:
        """Waits for letters, through a fault of the database too, and names the runs that got some. Raises J002 once it is closed."""
        presence = self._presence
        while not presence.runs_with_messages:
            if self._closing is not None:
                raise closed_error()
            presence.wakeup.clear()
            await presence.wakeup.wait()
        found, presence.runs_with_messages = presence.runs_with_messages, set()
        return found

    # Memo and outbox

    def put_memo(self, memo: str, run: str, value: Any) -> None:
        """Keeps an answer with the next commit; the first one stays. Raises `JournalError` J004 for what is no JSON."""
        if self._fault is not None or self._closing is not None:
            raise self._current_error()
        if (name := hash_key(memo)) not in self._pending_memos:
            data = encode_value(f"answer {memo}", value)
            if not is_storable(run):
                raise not_json_error(f"answer {memo}", f"{run[:80]!r} is no run's id")
            self._pending_memos[name] = run, data
            self._writer.put(MemoEntry(name, run, data))

    async def get_memo(self, memo: str) -> tuple[str, Any] | None:
        """The run that gave the answer, and the answer; or None."""
        fresh = self._pending_memos.get(name := hash_key(memo))
        if (found := await self._query(lambda sql, _: self._tables.get_memo(sql, name))) is not None or fresh is None:
            return found
        return fresh[0], msgspec.json.decode(fresh[1])

    async def get_memos(self, memos: Collection[str]) -> dict[str, tuple[str, Any]]:
        """What `get_memo` gives for each of these keys that is there."""
        names = {hash_key(memo): memo for memo in memos}
        fresh = {name: self._pending_memos[name] for name in names if name in self._pending_memos}
        found = await self._query(lambda sql, _: self._tables.get_memos(sql, names))
        found = {name: (run, msgspec.json.decode(value)) for name, (run, value) in fresh.items()} | found
        return {names[name]: answer for name, answer in found.items()}

    async def mark_delivered(self, numbers: Sequence[int]) -> None:
        """Marks messages as delivered; on disk when it returns."""
        await self._query(lambda sql, _: self._tables.mark_delivered(sql, numbers))

    async def close(self) -> None:
        """Commits what is in line and lets go of the database. Raises a fault that nobody has been told yet."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close_connections())
            # Shielded: a caller who is cancelled here may go, but the connections are still closed behind him.
            await asyncio.shield(self._closing)
            if self._unreported_fault is not None:
                raise self._unreported_fault.copy()
        else:
            await asyncio.shield(self._closing)

    async def _close_connections(self) -> None:
        if self._recovering is not None:
            self._recovering.cancel()
            await asyncio.gather(self._recovering, return_exceptions=True)
        self._writer.finish()
        await self._writing
        self._watching.cancel()
        await asyncio.gather(self._watching, return_exceptions=True)
        self._presence.wakeup.set()
        try:
            async with asyncio.timeout(self._database.retry_timeout):
                await self._pool.close()
                await self._presence.close()
        except POSTGRES_ERRORS:
            self._pool.terminate()
            self._presence.abandon()

    async def _query(self, question: Callable[[asyncpg.Connection, bool], Awaitable[T]]) -> T:
        """An answer, over another connection where one is lost; then `again` is true, for the first try may have gone through."""
        again, pause, clock = False, RETRY_PAUSE, asyncio.get_running_loop().time
        give_up = clock() + self._database.retry_timeout
        while True:
            if self._closing is not None:
                raise closed_error()
            try:
                async with self._pool.acquire(timeout=self._database.retry_timeout) as sql:
                    return await question(sql, again)
            except POSTGRES_ERRORS as error:
                if not is_transient(error) or clock() + pause > give_up:
                    raise from_postgres(error, self._database.display_name) from error
            again = True
            await asyncio.sleep(pause)
            pause = min(1.0, pause * 2)

    async def _flush(self, *runs: str) -> None:
        """Waits for what is in line of these runs, or of all; a fault is no reason not to read what is on disk."""
        with suppress(JournalError):
            for run in runs or list(self._logs):
                if (
                    (log := self._logs.get(run)) is not None
                    and log.error is None
                    and log.end.last_seq > log.durable_seq
                ):
                    await self._wait_durable(log, log.end.last_seq)

    async def _wait_durable(self, log: RunLog, seq: int) -> None:
        self._raise_fault()
        self._writer.flush()
        await log.wait(seq)

    def _raise_fault(self) -> None:
        if self._fault is not None:
            raise self._current_error()

    def _current_error(self) -> JournalError:
        error = self._fault or closed_error()
        self._unreported_fault = None if error is self._unreported_fault else self._unreported_fault
        return error.copy()

    def _apply_report(self, report: PostgresCommitReport) -> None:
        for name in report.blobs:
            self._pending_blobs.pop(name, None)
        for memo in report.memos:
            self._pending_memos.pop(memo, None)
        for log, seq in report.durable_seqs:
            log.set_durable(seq)
            if log.end.is_ended and log.end.last_seq == seq and self._logs.pop(log.run, None) is not None:
                self._ended[log.run] = None
                if len(self._ended) > MAX_ENDED_RUNS:
                    del self._ended[next(iter(self._ended))]
        for log, error in report.failed:
            log.error = error
            log.fail(error)
        if report.fault is not None:
            fault = self._fail(report.fault)
            self._pending_memos.clear()
            for log in self._logs.values():
                log.error = log.error or fault
                if log.fail(fault):
                    self._unreported_fault = None
            self._presence.wakeup.set()
            if self._closing is None:
                self._presence.abandon()  # nobody goes on with what it had in hand: others may take its runs over
                self._watching.cancel()
                self._recovering = asyncio.create_task(self._recover())

    def _fail(self, fault: JournalError) -> JournalError:
        """There is a fault: this one, or another one is known."""
        if self._fault is None:
            self._fault = fault
            if fault.code != "J002":
                self._unreported_fault = fault
                self._alarm(fault)
        return self._fault

    async def _recover(self) -> None:
        """Tries until the database can be written again. Nothing of before goes on: the presence is another one, and so is the writer."""
        while True:
            await asyncio.sleep(RETRY_INTERVAL)
            try:
                sql = await self._presence.renew()
                await self._tables.check_writable(sql)
                self._presence.runs_with_messages |= await self._tables.runs_with_messages(sql)
            except (*POSTGRES_ERRORS, JournalError):
                self._presence.abandon()
            else:
                break
        self._start_writer()
        for name, data in self._pending_blobs.items():  # whoever put them may be about to name them
            self._writer.put(BlobEntry(name, data))
        self._fault = None
        self._presence.wakeup.set()
        self._alarm(None)

    async def _on_presence_restored(self, sql: asyncpg.Connection) -> None:
        """There is a new presence: which runs were taken meanwhile, and which got letters that nobody announced to us."""
        logs = dict(self._logs)
        leases = await self._tables.leases(sql, list(logs))
        for run, lease in leases.items():
            log = logs[run]
            if self._logs.get(run) is log and log.error is None and (log.epoch, self._presence.lock_number) != lease:
                log.error = lease_lost_error(run)
                log.fail(log.error)
        self._presence.runs_with_messages |= await self._tables.runs_with_messages(sql)
        self._presence.wakeup.set()

    def _on_presence_lost(self, watching: asyncio.Task[None]) -> None:
        """There will be no presence: others may take the runs over, so nothing more is appended; the commit under way is still settled."""
        if watching.cancelled() or (error := watching.exception()) is None:
            return
        self._writer.stop(
            self._fail(presence_lost_error(self._database.display_name, str(error) or type(error).__name__))
        )
        self._presence.wakeup.set()


def _valid_run_id(run: str) -> str:
    """A run's id as Postgres knows it; nothing is there under an id that it cannot keep."""
    if not is_storable(run):
        raise no_run_error(run)
    return run

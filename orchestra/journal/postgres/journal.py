"""The journal in Postgres, for several processes on several machines that share one log. Needs the extra `postgres`
(asyncpg).

Events that `wait_durable` has returned for are committed. Under `group` and `strict` they survive what the server's
`fsync` and `synchronous_commit` guarantee. Lost connections are restored, also after a restart of the server. The
database must use UTF-8, and be reached directly or through a pooler in session mode: the lease of a run is a lock that
lives as long as a session.
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
    """The query methods of a `Journal` in Postgres."""

    _tables: PostgresTables

    async def read(self, run: str, after: int = 0) -> list[Event]:
        """Returns the events with `seq > after`, including queued ones; empty for an unknown run.

        Raises:
            JournalError: J013 if numbers or hashes were altered, J021 for an unknown kind.
        """
        await self._flush(run)
        return await self._query(lambda sql, _: self._tables.events(sql, run, after)) if is_storable(run) else []

    async def list_runs(self, limit: int = 50) -> list[RunSummary]:
        """Returns the latest runs, newest first.

        A run without an end and without a live holder is `waiting` if only questions to people are open, else
        `interrupted`.
        """
        return await self.query_runs(limit, ALL_RUNS)

    async def query_runs(self, limit: int, where: RunSelection) -> list[RunSummary]:
        """Returns the latest runs of a selection, newest first, as in `list_runs`."""
        await self._flush()
        return await self._query(lambda sql, _: self._tables.query_runs(sql, limit, where))

    async def query_usages(self, where: RunSelection) -> AsyncGenerator[RunUsageResult, None]:
        """Yields the usage of each run of a selection, newest first; a run that cannot be read has its error."""
        await self._flush()
        while (page := await self._query(partial(_query_usages, self._tables, where))).found:
            if page.computed:
                with suppress(JournalError):  # a read-only database cannot store it; it is computed again next time
                    await self._query(partial(_store_usages, self._tables, page.computed))
            for usage_result in page.found:
                yield usage_result
            where = msgspec.structs.replace(where, before=(usage_result.started, usage_result.run))

    async def first_and_last_events(self, runs: Collection[str]) -> dict[str, tuple[Event, Event]]:
        """Returns the first and the last event of each run, without large values. Runs that cannot be read are left
        out.
        """
        await self._flush(*runs)
        return await self._query(
            lambda sql, _: self._tables.first_and_last_events(sql, list(filter(is_storable, runs)))
        )

    async def derived_runs(self, runs: Collection[str]) -> list[str]:
        """Returns the other runs that contain inputs or answers of these runs."""
        await self._flush()
        return await self._query(lambda sql, _: self._tables.derived_runs(sql, set(filter(is_storable, runs))))

    async def existing_runs(self, runs: Collection[str]) -> set[str]:
        """Returns the ids that belong to existing runs."""
        await self._flush(*runs)
        return await self._query(lambda sql, _: self._tables.existing_runs(sql, list(filter(is_storable, runs))))

    async def summary(self, run: str) -> RunSummary | None:
        """Returns the summary of one run, or None."""
        await self._flush(run)
        return await self._query(lambda sql, _: self._tables.summary(sql, run)) if is_storable(run) else None

    async def scan(self, since: float = -inf) -> AsyncGenerator[ScannedRun, None]:
        """Yields the runs that started at `since` or later, newest first, without large values; a damaged run has its
        error.
        """
        await self._flush()
        page = await self._query(lambda sql, _: self._tables.scan(sql, since, None))
        while page:
            for scanned_run in page:
                yield scanned_run
            before = scanned_run.started, scanned_run.run
            page = await self._query(lambda sql, _: self._tables.scan(sql, since, before))  # noqa: B023  # asked at once

    async def find_runs(self, prefix: str) -> list[str]:
        """Returns at most 100 ids of runs with this prefix, in order."""
        await self._flush()
        return (
            await self._query(lambda sql, _: self._tables.find_runs(sql, prefix, MAX_FOUND_RUNS))
            if is_storable(prefix)
            else []
        )

    async def inbox(self, run: str, after: int = 0) -> list[InboxMessage]:
        """Returns the inbox messages with a greater number, in order."""
        return await self._query(lambda sql, _: self._tables.inbox(sql, run, after)) if is_storable(run) else []

    async def outbox(self, after: int = 0, limit: int = 100) -> list[OutboxMessage]:
        """Returns durable messages that are not marked as delivered, in order."""
        return await self._query(lambda sql, _: self._tables.outbox(sql, after, limit))

    @abstractmethod
    async def _query(self, question: Callable[[asyncpg.Connection, bool], Awaitable[T]]) -> T:
        """Runs a query, again over another connection if one is lost. In that case the second argument is true, because
        the first try may have succeeded.
        """

    @abstractmethod
    async def _flush(self, *runs: str) -> None:
        """Waits for queued events of these runs, or of all."""


async def _query_usages(tables: PostgresTables, selection: RunSelection, sql: asyncpg.Connection, _: bool) -> UsagePage:
    return await tables.query_usages(sql, selection)


async def _store_usages(
    tables: PostgresTables, usages: Sequence[tuple[str, int, bytes, bytes]], sql: asyncpg.Connection, _: bool
) -> None:
    await tables.store_usages(sql, usages)


T = TypeVar("T")

MAX_ENDED_RUNS = 4096
"""Number of runs that ended in this journal and are remembered as ended."""


class PostgresJournal(PostgresQueries):
    """The `Journal` in Postgres, created by `PostgresJournal.open`.

    It has three kinds of connections, each restored when it is lost: one for the writer, one for the presence, and up
    to four for queries.

    A fault of the database, or its absence for longer than `retry_timeout`, is raised by each pending `wait_durable`,
    and by every `append` while it lasts. If only the lease of one run is lost, only that run fails (J005). At a fault
    the open runs fail, and other journals may take them over, because the presence of this one is gone. It gets a new
    presence once the database can be written again, which is tried each second.
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
        """A fault that was not raised to any caller yet."""
        self._recovering: asyncio.Task[None] | None = None
        self._releases: set[asyncio.Task[None]] = set()
        self._closing: asyncio.Task[None] | None = None
        self._start_writer()

    def _start_writer(self) -> None:
        """Starts a writer with the current presence."""
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
        """Opens the journal of a database in its own schema, which is created if it is missing.

        Args:
            dsn: Address of the database. `?schema=NAME` names the schema.
            schema: The schema; default: that of the address, else `orchestra`.
            durability: `group` commits many events at once, at most 5 ms later. `strict` commits each append
                separately. `off` does not wait for the disk: a crash of the server may lose the last moments.
            retry_timeout: Seconds in which a lost connection must be restored.
            alarm: Is called with faults of the database.

        Raises:
            JournalError: J030 if the database cannot be reached, J034 behind a pooler in transaction mode, J018, J020.
        """
        dsn, schema_name = split_dsn(dsn)
        database = PostgresDatabase(dsn, redact_dsn(dsn), durability, retry_timeout)
        journal = await cls._connect(database, PostgresTables(schema or schema_name, database.display_name), alarm)
        try:
            yield journal
        except BaseException:
            with suppress(JournalError):  # the error in the body is raised, not an error of closing
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
        """Queues events, all or none. If another journal started a run with the same id, only `wait_durable` raises
        this.

        Raises:
            JournalError: J001 for a gap in `seq`, J002 after `close`, J004 for invalid JSON, J005 without the run's
                lease, J006 after the end of a run, and the fault of the database while it lasts.
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
                    f"event 1 of run {run}", f"ids are strings without NUL, of at most {MAX_ID_BYTES} bytes"
                )
            log = RunLog(run)
        elif log.error is not None:
            raise log.error.copy()
        bodies = [encode_event(run, event) for event in events]
        log.end.extend(events)
        self._logs[run] = log
        self._writer.put(AppendEntry(log, tuple(events), bodies, delivered))

    def put_blob(self, data: bytes) -> str:
        """Stores a blob with the next append and returns its digest. Raises a current fault of the database."""
        if self._fault is not None or self._closing is not None:
            raise self._current_error()
        name = digest(data)
        self._pending_blobs[name] = data
        self._writer.put(BlobEntry(name, data))
        return name

    async def wait_durable(self, run: str, seq: int) -> None:
        """Waits until the run's events up to `seq`, and the blobs stored before them, are on disk.

        Returns at once under `off`. Raises the fault of the database, and `JournalError` J003 for an event that was
        never appended, J005 if another journal holds the run's lease.
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
        """Returns the bytes of a blob, or None. Raises `JournalError` J013 if they were altered."""
        if (fresh := self._pending_blobs.get(digest)) is not None:
            return fresh
        return await self._query(lambda sql, _: self._tables.get_blob(sql, digest)) if is_storable(digest) else None

    async def check_writable(self) -> None:
        """Returns if the tables can be written. Raises the fault of the database otherwise."""
        self._raise_fault()
        await self._query(lambda sql, _: self._tables.check_writable(sql))

    # Leases

    async def lease(self, run: str) -> int:
        """Takes over the lease and returns its epoch. Raises `JournalError` J022 if a live journal holds it, J023,
        J006.
        """
        self._raise_fault()
        if (log := self._logs.get(run)) is not None and log.error is None:
            if not log.end.is_ended:
                raise lease_held_error(run, this_process_name())
            await self._flush(run)
        lease_task = asyncio.ensure_future(
            self._query(
                lambda sql, again: self._tables.lease(
                    sql, _valid_run_id(run), self._presence.lock_number, is_retry=again
                )
            )
        )
        try:
            acquired_lease = await asyncio.shield(lease_task)
        except asyncio.CancelledError:
            # The caller was cancelled: the lease is released again.
            lease_task.add_done_callback(
                lambda task: None if task.cancelled() or task.exception() else self._release_later(run)
            )
            raise
        self._logs[run] = RunLog(
            run,
            acquired_lease.epoch,
            LogTail(acquired_lease.summary_fold, acquired_lease.last_seq, acquired_lease.chain),
        )
        return acquired_lease.epoch

    async def release(self, run: str) -> None:
        """Releases the lease after all queued events are on disk.

        Raises:
            JournalError: J005 if the lease was lost before, J023, and the fault of the database.
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
            release_task = asyncio.create_task(self.release(run))
            self._releases.add(release_task)
            release_task.add_done_callback(self._on_released)

    def _on_released(self, task: asyncio.Task[None]) -> None:
        self._releases.discard(task)
        if not task.cancelled():
            task.exception()  # no caller is left to raise it to: the run is interrupted then, and can be taken over

    async def delete(self, run: str) -> None:
        """Deletes a run: events, inbox messages, answers, delivered outbox messages, and blobs that no other run uses.

        Raises:
            JournalError: J022 if a live process holds the lease, J024 if messages are not delivered, J023.
        """
        (error,) = await self.delete_runs((run,))
        if error is not None:
            raise error

    async def delete_runs(self, runs: Sequence[str]) -> list[OrchestraError | None]:
        """Deletes runs in one transaction. Returns for each run None, or the error that `delete` would raise."""
        storable_runs = [run for run in runs if is_storable(run)]
        await self._flush(*storable_runs)
        errors = await self._query(lambda sql, again: self._tables.delete_runs(sql, storable_runs, is_retry=again))
        for run in storable_runs:
            if run not in errors:
                self._ended.pop(run, None)
                self._logs.pop(run, None)
        return [errors.get(run) if is_storable(run) else no_run_error(run) for run in runs]

    # The inbox

    async def send(self, run: str, message: InboxMessage, since: int | None = None) -> int:
        """Adds a message to the inbox and returns its number once it is on disk.

        With `since`, the message is only added if no later message answers the same question; else 0 is returned.
        Raises `JournalError` J004, J006, J023.
        """
        encode_value(f"the message to run {run}", message)
        self._raise_fault()
        await self._flush(run)
        name = secrets.token_hex(16)
        return await self._query(lambda sql, _: self._tables.send(sql, _valid_run_id(run), message, name, since))

    async def wait_for_messages(self) -> set[str]:
        """Waits for inbox messages, also during a fault of the database, and returns the runs that got some. Raises
        J002 after `close`.
        """
        presence = self._presence
        while not presence.runs_with_messages:
            if self._closing is not None:
                raise closed_error()
            presence.wakeup.clear()
            await presence.wakeup.wait()
        runs_with_messages, presence.runs_with_messages = presence.runs_with_messages, set()
        return runs_with_messages

    # Memo and outbox

    def put_memo(self, memo: str, run: str, value: Any) -> None:
        """Memoizes an answer with the next commit; the first answer of a key is kept. Raises `JournalError` J004 for
        invalid JSON.
        """
        if self._fault is not None or self._closing is not None:
            raise self._current_error()
        if (name := hash_key(memo)) not in self._pending_memos:
            data = encode_value(f"answer {memo}", value)
            if not is_storable(run):
                raise not_json_error(f"answer {memo}", f"{run[:80]!r} is not a run id")
            self._pending_memos[name] = run, data
            self._writer.put(MemoEntry(name, run, data))

    async def get_memo(self, memo: str) -> tuple[str, Any] | None:
        """Returns the run that produced the answer, and the answer; or None."""
        fresh = self._pending_memos.get(name := hash_key(memo))
        if (
            memo_value := await self._query(lambda sql, _: self._tables.get_memo(sql, name))
        ) is not None or fresh is None:
            return memo_value
        return fresh[0], msgspec.json.decode(fresh[1])

    async def get_memos(self, memos: Collection[str]) -> dict[str, tuple[str, Any]]:
        """Returns the result of `get_memo` for each known key."""
        names = {hash_key(memo): memo for memo in memos}
        fresh = {name: self._pending_memos[name] for name in names if name in self._pending_memos}
        memo_values = await self._query(lambda sql, _: self._tables.get_memos(sql, names))
        memo_values = {name: (run, msgspec.json.decode(value)) for name, (run, value) in fresh.items()} | memo_values
        return {names[name]: answer for name, answer in memo_values.items()}

    async def mark_delivered(self, numbers: Sequence[int]) -> None:
        """Marks messages as delivered; on disk on return."""
        await self._query(lambda sql, _: self._tables.mark_delivered(sql, numbers))

    async def close(self) -> None:
        """Commits queued events and closes the connections. Raises a fault that was not raised before."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close_connections())
            # Shielded: the connections are closed even if the caller is cancelled here.
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
        """Runs a query, again over another connection if one is lost; then `again` is true, because the first try may
        have succeeded.
        """
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
        """Waits for queued events of these runs, or of all. Faults are ignored: what is on disk can still be read."""
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
                self._presence.abandon()  # the open runs have failed: others may take them over
                self._watching.cancel()
                self._recovering = asyncio.create_task(self._recover())

    def _fail(self, fault: JournalError) -> JournalError:
        """Records a fault, unless another one is known."""
        if self._fault is None:
            self._fault = fault
            if fault.code != "J002":
                self._unreported_fault = fault
                self._alarm(fault)
        return self._fault

    async def _recover(self) -> None:
        """Waits until the database can be written again, then starts a new writer with a new presence. Runs from before
        do not continue.
        """
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
        for name, data in self._pending_blobs.items():  # an event that uses them may follow
            self._writer.put(BlobEntry(name, data))
        self._fault = None
        self._presence.wakeup.set()
        self._alarm(None)

    async def _on_presence_restored(self, sql: asyncpg.Connection) -> None:
        """After a new presence session: checks which runs were taken over meanwhile, and which got messages without a
        notification.
        """
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
        """After a presence is lost for good: others may take over the runs, so nothing more is appended; the current
        commit is still completed.
        """
        if watching.cancelled() or (error := watching.exception()) is None:
            return
        self._writer.stop(
            self._fail(presence_lost_error(self._database.display_name, str(error) or type(error).__name__))
        )
        self._presence.wakeup.set()


def _valid_run_id(run: str) -> str:
    """Returns an id that Postgres can store. No run exists under another id."""
    if not is_storable(run):
        raise no_run_error(run)
    return run

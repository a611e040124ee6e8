"""Processes that may crash at any step, and a journal that loses what was not on disk.

A `SimulatedProcess` counts its steps: each event that its engine records, and each use of a protocol, before and after.
At its fatal step it is dead: its tasks have no further effect. `CrashingJournal` uses a `MemoryStore` like a journal
uses a file: entries wait in a queue until a commit. At a crash some prefix of the queue is on disk, and the rest is
lost.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Sequence
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from random import Random
from typing import Any, TypeAlias, TypeVar

from orchestra.core.events import Event
from orchestra.core.protocols import Clock, InboxMessage, OutboxMessage, RunSummary
from orchestra.journal.errors import JournalError
from orchestra.journal.memory import MemoryJournal, MemoryStore
from orchestra.journal.summary import blob_digests
from orchestra.schema.strict_json import digest

T = TypeVar("T")

MAX_STEPS = 60_000
"""Steps after which a process counts as an endless loop."""
COMMIT_DELAY = 0.005
"""Seconds before a commit that no caller waits for."""
STORE_FAULT_CODES = {"busy": "J012", "full": "J010", "io": "J014"}
"""Faults of a store to the codes of their errors."""
_CURRENT_PROCESS: ContextVar[SimulatedProcess | None] = ContextVar("process", default=None)


class SimulatedProcess:
    """A process of a simulation: its tasks, and whether it is alive."""

    def __init__(self, number: int, fatal_step: int | None = None) -> None:
        """`fatal_step` is the step at which it dies; None for never."""
        self.number, self.fatal_step = number, fatal_step
        self.alive, self.steps = True, 0
        self.died: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.tasks: dict[asyncio.Task[Any], None] = {}
        """In order of their start: the cancellation order of a set would not be reproducible."""
        self.death_callbacks: list[Callable[[], None]] = []
        """Called when it dies."""

    def step(self) -> bool:
        """Counts a step, and returns whether the process is alive after it."""
        self.steps += 1
        if self.alive and self.steps in (self.fatal_step, MAX_STEPS):
            self.kill()
        return self.alive

    def kill(self) -> None:
        """Ends the process, like SIGKILL."""
        if self.alive:
            self.alive = False
            for word in self.death_callbacks:
                word()
            self.died.set_result(None)

    async def step_or_hang(self) -> None:
        """Counts a step. Never returns from the fatal one."""
        if not self.step():
            await self.hang()

    async def hang(self) -> None:
        """Never returns."""
        await asyncio.get_running_loop().create_future()

    def task(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Starts a task of this process. Its child tasks belong to the process as well."""
        context = copy_context()
        context.run(_CURRENT_PROCESS.set, self)
        return asyncio.get_running_loop().create_task(work, context=context)

    async def cancel_tasks(self) -> list[str]:
        """Cancels the remaining tasks, and returns the names of those that did not end."""
        for _ in range(200):
            left = [task for task in self.tasks if not task.done()]
            if not left:
                return []
            for task in left:
                task.cancel()
            await asyncio.sleep(0)
        return [task.get_name() for task in self.tasks if not task.done()]


def detached_task(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Starts a task that belongs to no process."""
    context = copy_context()
    context.run(_CURRENT_PROCESS.set, None)
    return asyncio.get_running_loop().create_task(work, context=context)


def track_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """Makes a loop record the process of each task."""

    def factory(loop: asyncio.AbstractEventLoop, work: Any, context: Any = None) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, context=context)
        process = _CURRENT_PROCESS.get() if context is None else context.get(_CURRENT_PROCESS)
        if process is not None:
            process.tasks[task] = None
            task.add_done_callback(lambda task: process.tasks.pop(task, None))
            if not process.alive:
                task.cancel()
        return task

    loop.set_task_factory(factory)


@dataclass(frozen=True, slots=True)
class StoreFaults:
    """The faults of a store. `fault` is one of `STORE_FAULT_CODES`, and starts at commit number `at_commit`; it
    persists.
    """

    fault: str = ""
    at_commit: int = 0
    latency: tuple[float, float] = (0.0, 0.0)
    """Range of the seconds of a commit."""
    message_delay: float = 0.0
    """Seconds after which inbox messages are noticed; then they are noticed twice."""


NO_STORE_FAULTS = StoreFaults()
_Entry: TypeAlias = tuple[str, Event] | tuple[str, str, Any]


class CrashingJournal:
    """The `Journal` of one process. `on_commit` is called with the content of each commit."""

    def __init__(
        self,
        store: MemoryStore,
        process: SimulatedProcess,
        clock: Clock,
        random: Random,
        faults: StoreFaults = NO_STORE_FAULTS,
        on_commit: Callable[[str, Sequence[Event]], None] | None = None,
    ) -> None:
        self.store, self.faults = store, faults
        self._inner = MemoryJournal(store)
        self._process, self._clock, self._random = process, clock, random
        self._queue: deque[_Entry] = deque()
        self._commits = 0
        self._on_commit = on_commit
        self._commit_scheduled = False
        self._blobs: dict[str, bytes] = {}
        """Blobs that no event on disk refers to yet."""
        self._durable_seqs: dict[str, int] = {}
        """The last durable event of each run, as far as this journal wrote it."""
        self._run_errors: dict[str, JournalError] = {}
        self._store_error: JournalError | None = None
        self._repeated_runs: set[str] = set()
        self.message_notices = 0
        """The number of notifications of inbox messages."""
        self.fault_count = 0
        """The number of faults so far."""
        self.lost_events = 0
        """Events that were lost."""
        process.death_callbacks.append(self._lose_queue)

    # Queue and commits

    def append(self, run: str, events: Sequence[Event], delivered: Collection[str] = ()) -> None:
        """Adds events to the queue; a crash may come before or after. Imports are not simulated: `delivered` stays
        empty.
        """
        if not self._process.step():
            return
        if self._store_error is not None:
            raise self._store_error.copy()
        if run in self._run_errors:
            raise self._run_errors[run].copy()
        self._queue.extend((run, event) for event in events)
        self._schedule_commit()
        self._process.step()

    def put_blob(self, data: bytes) -> str:
        """Keeps a blob until the events that refer to it are committed, together with it."""
        name = digest(data)
        self._blobs[name] = data
        return name

    def put_memo(self, memo: str, run: str, value: Any) -> None:
        """Adds a memo value to the queue."""
        if self._process.step() and self._store_error is None:
            self._queue.append((memo, run, value))
            self._schedule_commit()

    def has_lease(self, run: str) -> bool:
        """Whether it has the lease of a run, or the run is not on disk yet."""
        log = self.store.logs.get(run)
        return log is None or log.holder is self._inner

    async def wait_durable(self, run: str, seq: int) -> None:
        """Waits for a commit, which may fail, or crash the process."""
        await self._process.step_or_hang()
        self._raise_error(run)
        if self._durable_seqs.get(run, 0) >= seq:
            return
        low, high = self.faults.latency
        await self._clock.sleep(self._random.uniform(low, high) if high else 0.0)
        await self._process.step_or_hang()
        self._commit()
        await self._process.step_or_hang()
        self._raise_error(run)
        await self._inner.wait_durable(run, seq)

    def _schedule_commit(self) -> None:
        if not self._commit_scheduled:
            self._commit_scheduled = True
            asyncio.get_running_loop().call_later(COMMIT_DELAY + self.faults.latency[1], self._run_scheduled_commit)

    def _run_scheduled_commit(self) -> None:
        self._commit_scheduled = False
        if self._process.alive:
            self._commit()
            self._process.step()

    def _raise_error(self, run: str) -> None:
        if self._store_error is not None:
            raise self._store_error.copy()
        if run in self._run_errors:
            raise self._run_errors[run].copy()

    def _commit(self) -> None:
        """Commits the queue; if the store fails, a prefix of it."""
        if not self._queue or self._store_error is not None:
            return
        self._commits += 1
        if self.faults.fault and self._commits == self.faults.at_commit:
            self.fault_count += 1
            self._write(self._random.randint(0, len(self._queue)))
            self.lost_events += len(self._queue)
            self._queue.clear()
            code = STORE_FAULT_CODES[self.faults.fault]
            self._store_error = JournalError(
                code, f"the store is {self.faults.fault} (simulated)", hint="wait, then resume the run"
            )
            return
        self._write(len(self._queue))

    def _write(self, count: int) -> None:
        """Commits the first entries of the queue, with a run's events together."""
        batch: list[Event] = []
        run = ""
        for _ in range(count):
            entry = self._queue.popleft()
            if len(entry) == 3:
                self._inner.put_memo(*entry)
                continue
            if batch and entry[0] != run:
                self._append_batch(run, batch)
                batch = []
            run = entry[0]
            batch.append(entry[1])
        if batch:
            self._append_batch(run, batch)

    def _append_batch(self, run: str, events: list[Event]) -> None:
        if run in self._run_errors:
            return
        try:
            self._inner.append(run, events)
        except JournalError as error:
            self._run_errors[run] = error
            return
        for name in blob_digests(events):
            if (data := self._blobs.pop(name, None)) is not None:
                self._inner.put_blob(data)
        self._durable_seqs[run] = events[-1].seq
        if self._on_commit is not None:
            self._on_commit(run, events)

    def _lose_queue(self) -> None:
        """Simulates a crash: some prefix of the queue is on disk, and the rest is lost."""
        if self._store_error is None:
            self._write(self._random.choice((0, len(self._queue), self._random.randint(0, len(self._queue)))))
        self.lost_events += len(self._queue)
        self._queue.clear()
        self._blobs.clear()
        self._inner._closed = True  # a journal of a dead process: no notifications, and its leases are free
        if self._inner in self.store.journals:
            self.store.journals.remove(self._inner)

    # Operations without a queue

    async def check_writable(self) -> None:
        """Returns if a commit would succeed."""
        await self._process.step_or_hang()
        if self._store_error is not None:
            raise self._store_error.copy()

    async def lease(self, run: str) -> int:
        """Acquires a lease."""
        await self._process.step_or_hang()
        self._run_errors.pop(run, None)
        self._durable_seqs.pop(run, None)
        epoch = await self._inner.lease(run)
        await self._process.step_or_hang()
        return epoch

    async def release(self, run: str) -> None:
        """Releases a lease after a commit."""
        await self._process.step_or_hang()
        self._commit()
        self._raise_error(run)
        await self._process.step_or_hang()
        await self._inner.release(run)
        await self._process.step_or_hang()

    async def send(self, run: str, message: InboxMessage, since: int | None = None) -> int:
        """Sends an inbox message."""
        await self._process.step_or_hang()
        return await self._inner.send(run, message, since)

    async def inbox(self, run: str, after: int = 0) -> list[InboxMessage]:
        """Returns the inbox messages with a higher number."""
        await self._process.step_or_hang()
        return await self._inner.inbox(run, after)

    async def wait_for_messages(self) -> set[str]:
        """Waits for inbox messages. With store faults they are noticed late, and twice."""
        if self._repeated_runs:
            again, self._repeated_runs = self._repeated_runs, set()
            return again
        found = await self._inner.wait_for_messages()
        self.message_notices += 1
        if self.faults.message_delay:
            await self._clock.sleep(self.faults.message_delay)
            self._repeated_runs = set(found)
        await self._process.step_or_hang()
        return found

    async def get_memo(self, memo: str) -> tuple[str, Any] | None:
        """Returns a memo value."""
        await self._process.step_or_hang()
        return await self._inner.get_memo(memo)

    async def outbox(self, after: int = 0, limit: int = 100) -> list[OutboxMessage]:
        """Returns undelivered messages."""
        await self._process.step_or_hang()
        return await self._inner.outbox(after, limit)

    async def mark_delivered(self, numbers: Sequence[int]) -> None:
        """Marks messages as delivered."""
        await self._process.step_or_hang()
        await self._inner.mark_delivered(numbers)

    async def delete(self, run: str) -> None:
        """Deletes a run."""
        await self._inner.delete(run)

    async def read(self, run: str, after: int = 0) -> list[Event]:
        """Returns the events with `seq > after`, including the queue."""
        await self._process.step_or_hang()
        self._commit()
        return await self._inner.read(run, after)

    async def get_blob(self, digest: str) -> bytes | None:
        """Returns a blob."""
        return self._blobs.get(digest) or await self._inner.get_blob(digest)

    async def list_runs(self, limit: int = 50) -> list[RunSummary]:
        """Returns the latest runs."""
        return await self._inner.list_runs(limit)

    async def summary(self, run: str) -> RunSummary | None:
        """Returns the row of one run."""
        return await self._inner.summary(run)

    async def find_runs(self, prefix: str) -> list[str]:
        """Returns the ids of runs with a prefix."""
        return await self._inner.find_runs(prefix)

    async def close(self) -> None:
        """Commits the queue if the store works, and closes the journal."""
        if self._process.alive:
            self._commit()
        await self._inner.close()


def expire_lease(store: MemoryStore, run: str) -> None:
    """Ends the lease of a run although its holder lives, so that another process can acquire it."""
    if (log := store.logs.get(run)) is not None:
        log.holder = None

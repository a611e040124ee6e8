"""Processes that may die at any step, and a journal that loses what was not on disk when its process died.

A `Process` counts its steps: each event that its engine records, and each use of a door, before and after. At its fatal step it is
dead: nothing that its tasks still do reaches the world. `CrashingJournal` stands over a `MemoryStore` as a journal stands over a file:
what is appended waits in line until a commit, and at a crash some of the line, from its beginning, is on disk, and the rest is lost.
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
from orchestra.core.protocols import Clock, Letter, Message, RunSummary
from orchestra.journal.errors import JournalError
from orchestra.journal.memory import MemoryJournal, MemoryStore
from orchestra.journal.summary import named
from orchestra.schema.strict_json import digest

T = TypeVar("T")

EXHAUSTED = 60_000
"""Steps after which a process counts as one that turns on the spot."""
GATHER = 0.005
"""Seconds that events wait for a commit when nobody waits for them."""
FAULTS = {"busy": "J012", "full": "J010", "io": "J014"}
"""Faults of a store, with the codes under which they are reported."""
_CURRENT: ContextVar[Process | None] = ContextVar("process", default=None)


class Process:
    """A process of a simulation: its tasks, and whether it is alive."""

    def __init__(self, number: int, fatal: int | None = None) -> None:
        """`fatal` is the step at which it dies; None for never."""
        self.number, self.fatal = number, fatal
        self.alive, self.steps = True, 0
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.tasks: dict[asyncio.Task[Any], None] = {}
        """In order of their beginning: a set would cancel them in another order each time."""
        self.last_words: list[Callable[[], None]] = []
        """What happens to the world when it dies."""

    def step(self) -> bool:
        """One step; gives whether the process is alive after it."""
        self.steps += 1
        if self.alive and self.steps in (self.fatal, EXHAUSTED):
            self.kill()
        return self.alive

    def kill(self) -> None:
        """The process is gone, like after SIGKILL."""
        if self.alive:
            self.alive = False
            for word in self.last_words:
                word()
            self.gone.set_result(None)

    async def goes_on(self) -> None:
        """One step; does not come back from the fatal one."""
        if not self.step():
            await self.silence()

    async def silence(self) -> None:
        """Waits for what never comes."""
        await asyncio.get_running_loop().create_future()

    def task(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """A task of this process; what it starts belongs to the process as well."""
        context = copy_context()
        context.run(_CURRENT.set, self)
        return asyncio.get_running_loop().create_task(work, context=context)

    async def bury(self) -> list[str]:
        """Cancels what the process has left behind; names what would not go."""
        for _ in range(200):
            left = [task for task in self.tasks if not task.done()]
            if not left:
                return []
            for task in left:
                task.cancel()
            await asyncio.sleep(0)
        return [task.get_name() for task in self.tasks if not task.done()]


def nobodys_task(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """A task that belongs to no process, whoever starts it."""
    context = copy_context()
    context.run(_CURRENT.set, None)
    return asyncio.get_running_loop().create_task(work, context=context)


def attribute_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """Makes a loop note which process each of its tasks belongs to."""

    def factory(loop: asyncio.AbstractEventLoop, work: Any, context: Any = None) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, context=context)
        process = _CURRENT.get() if context is None else context.get(_CURRENT)
        if process is not None:
            process.tasks[task] = None
            task.add_done_callback(lambda task: process.tasks.pop(task, None))
            if not process.alive:
                task.cancel()
        return task

    loop.set_task_factory(factory)


@dataclass(frozen=True, slots=True)
class Weather:
    """What a store does to a journal. `fault` is one of `FAULTS`, and hits commit number `at`; a fault lasts."""

    fault: str = ""
    at: int = 0
    latency: tuple[float, float] = (0.0, 0.0)
    """Seconds that a commit takes, somewhere between."""
    late_mail: float = 0.0
    """Seconds after which letters are noticed; and then they are noticed twice."""


CALM = Weather()
_Entry: TypeAlias = tuple[str, Event] | tuple[str, str, Any]


class CrashingJournal:
    """Stands behind the `Journal` door of one process. `committed` is told what each commit brought to disk."""

    def __init__(
        self,
        store: MemoryStore,
        process: Process,
        clock: Clock,
        chance: Random,
        weather: Weather = CALM,
        committed: Callable[[str, Sequence[Event]], None] | None = None,
    ) -> None:
        self.store, self.weather = store, weather
        self._inner = MemoryJournal(store)
        self._process, self._clock, self._chance = process, clock, chance
        self._line: deque[_Entry] = deque()
        self._commits = 0
        self._committed = committed
        self._due = False
        self._blobs: dict[str, bytes] = {}
        """Blobs that no event on disk names yet."""
        self._marks: dict[str, int] = {}
        """Up to where each run's events are on disk, as far as this journal wrote them."""
        self._failed: dict[str, JournalError] = {}
        self._fault: JournalError | None = None
        self._again: set[str] = set()
        self.rang = 0
        """How often letters were noticed."""
        self.struck = 0
        """How many faults have hit."""
        self.unwritten = 0
        """Events that were lost."""
        process.last_words.append(self._lose)

    # What is appended, and when it is on disk

    def append(self, run: str, events: Sequence[Event], delivered: Collection[str] = ()) -> None:
        """Puts events in line; a crash may come before or after. Nothing is imported here: `delivered` stays empty."""
        if not self._process.step():
            return
        if self._fault is not None:
            raise self._fault.again()
        if run in self._failed:
            raise self._failed[run].again()
        self._line.extend((run, event) for event in events)
        self._soon()
        self._process.step()

    def put(self, data: bytes) -> str:
        """Keeps a blob until the events that name it are on disk, and it with them."""
        name = digest(data)
        self._blobs[name] = data
        return name

    def remember(self, memo: str, run: str, value: Any) -> None:
        """Puts an answer in line."""
        if self._process.step() and self._fault is None:
            self._line.append((memo, run, value))
            self._soon()

    def holds(self, run: str) -> bool:
        """Whether it has the lease of a run, or the run is not on disk yet."""
        log = self.store.logs.get(run)
        return log is None or log.holder is self._inner

    async def durable(self, run: str, seq: int) -> None:
        """Waits for a commit, which may fail, or be the last thing that the process does."""
        await self._process.goes_on()
        self._objection(run)
        if self._marks.get(run, 0) >= seq:
            return
        low, high = self.weather.latency
        await self._clock.sleep(self._chance.uniform(low, high) if high else 0.0)
        await self._process.goes_on()
        self._commit()
        await self._process.goes_on()
        self._objection(run)
        await self._inner.durable(run, seq)

    def _soon(self) -> None:
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_later(GATHER + self.weather.latency[1], self._gathered)

    def _gathered(self) -> None:
        self._due = False
        if self._process.alive:
            self._commit()
            self._process.step()

    def _objection(self, run: str) -> None:
        if self._fault is not None:
            raise self._fault.again()
        if run in self._failed:
            raise self._failed[run].again()

    def _commit(self) -> None:
        """Brings the line to disk; all of it, or, where the store fails, its beginning."""
        if not self._line or self._fault is not None:
            return
        self._commits += 1
        if self.weather.fault and self._commits == self.weather.at:
            self.struck += 1
            self._write(self._chance.randint(0, len(self._line)))
            self.unwritten += len(self._line)
            self._line.clear()
            code = FAULTS[self.weather.fault]
            self._fault = JournalError(code, f"the store is {self.weather.fault} (simulated)", hint="wait, then resume the run")
            return
        self._write(len(self._line))

    def _write(self, count: int) -> None:
        """Brings the first entries of the line to disk, a run's events together."""
        batch: list[Event] = []
        run = ""
        for _ in range(count):
            entry = self._line.popleft()
            if len(entry) == 3:
                self._inner.remember(*entry)
                continue
            if batch and entry[0] != run:
                self._extend(run, batch)
                batch = []
            run = entry[0]
            batch.append(entry[1])
        if batch:
            self._extend(run, batch)

    def _extend(self, run: str, events: list[Event]) -> None:
        if run in self._failed:
            return
        try:
            self._inner.append(run, events)
        except JournalError as error:
            self._failed[run] = error
            return
        for name in named(events):
            if (data := self._blobs.pop(name, None)) is not None:
                self._inner.put(data)
        self._marks[run] = events[-1].seq
        if self._committed is not None:
            self._committed(run, events)

    def _lose(self) -> None:
        """The process died: some of the line is on disk, and the rest is lost."""
        if self._fault is None:
            self._write(self._chance.choice((0, len(self._line), self._chance.randint(0, len(self._line)))))
        self.unwritten += len(self._line)
        self._line.clear()
        self._blobs.clear()
        self._inner._closed = True  # a journal whose process is gone: it said nothing, and its leases are free
        if self._inner in self.store.readers:
            self.store.readers.remove(self._inner)

    # What goes to the store at once

    async def ready(self) -> None:
        """Returns where a commit would go well."""
        await self._process.goes_on()
        if self._fault is not None:
            raise self._fault.again()

    async def lease(self, run: str) -> int:
        """Takes a lease over."""
        await self._process.goes_on()
        self._failed.pop(run, None)
        self._marks.pop(run, None)
        epoch = await self._inner.lease(run)
        await self._process.goes_on()
        return epoch

    async def release(self, run: str) -> None:
        """Gives a lease back, after a commit."""
        await self._process.goes_on()
        self._commit()
        self._objection(run)
        await self._process.goes_on()
        await self._inner.release(run)
        await self._process.goes_on()

    async def post(self, run: str, letter: Letter, since: int | None = None) -> int:
        """Posts a letter."""
        await self._process.goes_on()
        return await self._inner.post(run, letter, since)

    async def letters(self, run: str, after: int = 0) -> list[Letter]:
        """The letters with a greater number."""
        await self._process.goes_on()
        return await self._inner.letters(run, after)

    async def mail(self) -> set[str]:
        """Waits for letters; in bad weather they are noticed late, and twice."""
        if self._again:
            again, self._again = self._again, set()
            return again
        found = await self._inner.mail()
        self.rang += 1
        if self.weather.late_mail:
            await self._clock.sleep(self.weather.late_mail)
            self._again = set(found)
        await self._process.goes_on()
        return found

    async def recall(self, memo: str) -> tuple[str, Any] | None:
        """A remembered answer."""
        await self._process.goes_on()
        return await self._inner.recall(memo)

    async def outbox(self, after: int = 0, limit: int = 100) -> list[Message]:
        """Messages that are not delivered."""
        await self._process.goes_on()
        return await self._inner.outbox(after, limit)

    async def delivered(self, numbers: Sequence[int]) -> None:
        """Marks messages."""
        await self._process.goes_on()
        await self._inner.delivered(numbers)

    async def delete(self, run: str) -> None:
        """Removes a run."""
        await self._inner.delete(run)

    async def read(self, run: str, after: int = 0) -> list[Event]:
        """The events with `seq > after`, those in line included."""
        await self._process.goes_on()
        self._commit()
        return await self._inner.read(run, after)

    async def blob(self, digest: str) -> bytes | None:
        """A blob."""
        return self._blobs.get(digest) or await self._inner.blob(digest)

    async def runs(self, limit: int = 50) -> list[RunSummary]:
        """The latest runs."""
        return await self._inner.runs(limit)

    async def summary(self, run: str) -> RunSummary | None:
        """The row of one run."""
        return await self._inner.summary(run)

    async def find(self, prefix: str) -> list[str]:
        """The ids of runs that begin so."""
        return await self._inner.find(prefix)

    async def close(self) -> None:
        """Commits what is in line, where the store still works, and lets go of it."""
        if self._process.alive:
            self._commit()
        await self._inner.close()


def expire(store: MemoryStore, run: str) -> None:
    """The lease of a run is over though its holder lives: another one may take it."""
    if (log := store.logs.get(run)) is not None:
        log.holder = None

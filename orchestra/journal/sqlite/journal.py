"""The journal in a file: SQLite with a write-ahead log, written by one thread with group commit.

Several processes of one host may share the file, on a local disk. What `durable` returned for survives the end of the
process and, under `group` and `strict`, of the power.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

import msgspec

from orchestra.core.errors import OrchestraError
from orchestra.core.events import Event
from orchestra.core.protocols import Letter
from orchestra.journal.errors import FROM_SQLITE, Alarm, JournalError, closed, never_appended, no_run, other_writer, silent
from orchestra.journal.sqlite import operations
from orchestra.journal.sqlite.database import Durability
from orchestra.journal.sqlite.encoding import body_of, bounded, is_text
from orchestra.journal.sqlite.liveness import Presence
from orchestra.journal.sqlite.open import Stores, connect
from orchestra.journal.sqlite.queries import Answers
from orchestra.journal.sqlite.rows import Row
from orchestra.journal.sqlite.store import Errand, Store
from orchestra.journal.sqlite.writer import Blob, Memo, Report, Writer
from orchestra.journal.summary import Line
from orchestra.schema.strict_json import digest

T = TypeVar("T")

POLL = 0.2
"""Seconds between two looks for letters of other processes, while somebody waits for mail."""


class SqliteJournal(Answers):
    """Stands behind the `Journal` door; made by `SqliteJournal.open`.

    `append` checks and encodes on the loop's thread; a writer thread hashes, folds the run's row and commits; a reader thread
    answers questions; each has a connection of its own.

    A fault of the store reaches everyone who waits in `durable`, and every `append` while it lasts. The runs that were in hand then fail
    with it: their leases are given back, and they go on from what is on disk, once somebody takes them over. A fault that may pass, as
    of a disk that is full, is over as soon as the file can be written again, which is tried each second.
    """

    def __init__(
        self, stores: Stores, presence: Presence, reader: ThreadPoolExecutor, durability: Durability, alarm: Alarm = silent
    ) -> None:
        super().__init__(stores.reading, presence, reader)
        self._stores, self._presence = stores, presence
        self._lax = durability == "off"
        self._lines: dict[str, Line] = {}
        self._marks: dict[str, int] = {}
        self._waiting: dict[str, list[tuple[int, asyncio.Future[None]]]] = {}
        self._fresh: dict[str, bytes] = {}
        self._memos: dict[str, tuple[str, bytes]] = {}
        self._answers: set[asyncio.Future[Any]] = set()
        self._news = stores.news
        self._rings = asyncio.Event()
        self._failed: dict[str, JournalError] = {}
        self._fault: JournalError | None = None
        self._untold: JournalError | None = None  # a fault that nobody has been told yet
        self._alarm = alarm
        self._writer = Writer(stores.writing, self._hand_over, one_by_one=durability == "strict")
        self._writer.start()

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        path: str | os.PathLike[str],
        *,
        durability: Durability = "group",
        busy: float = 10.0,
        max_bytes: int | None = None,
        alarm: Alarm = silent,
    ) -> AsyncIterator[Self]:
        """The journal of a file, made where it is not there, for its owner's eyes only.

        `group` commits many events at once, at most 5 ms later; `strict` gives each append a commit of its own; `off` waits for no
        disk: a power cut may take the last seconds, the end of the process takes at most what was in line. `busy` is how many
        seconds other processes may hold the file; `max_bytes` is how large it may grow; `alarm` hears of its faults. Raises `JournalError`.
        """
        # A thread of our own, for SQLite blocks; what it opens, it also reads with.
        reader = ThreadPoolExecutor(1, thread_name_prefix="orchestra-journal-reader")
        loop = asyncio.get_running_loop()
        try:
            stores, presence = await loop.run_in_executor(reader, connect, Path(path), durability, busy, max_bytes)
            journal = cls(stores, presence, reader, durability, alarm)
        except BaseException:
            reader.shutdown(wait=False)
            raise
        try:
            yield journal
        except BaseException:
            with suppress(JournalError):  # what ended the work is told, and not that its journal cannot be closed
                await journal.close()
            raise
        await journal.close()

    def append(self, run: str, events: Sequence[Event], delivered: Collection[str] = ()) -> None:
        """Puts events in line, all or none.

        Raises `JournalError`: J001 for a gap in `seq`, J002 after `close`, J004 for what is no JSON, J005 without the run's lease,
        J006 after a run's end; and the store's fault while it is known.
        """
        if self._fault is not None or self._closed or (run in self._failed and not self._anew(run, events)):
            raise self._refusal(run)
        line = self._lines.get(run) or self._known(run)
        bodies = [body_of(run, event) for event in events]
        line.extend(events)
        if bodies:
            self._writer.put((run, tuple(events), bodies, delivered))

    def put(self, data: bytes) -> str:
        """Stores a blob with the next commit and gives its digest. Raises the store's fault while it is known."""
        if self._fault is not None or self._closed:
            raise self._refusal("")
        name = digest(data)
        if name not in self._fresh:
            self._fresh[name] = data
            self._writer.put(Blob(name, data))
        return name

    def remember(self, memo: str, run: str, value: Any) -> None:
        """Keeps an accepted answer under its key with the next commit; the first one stays.

        Raises `JournalError` J004 for what is no JSON, and the store's fault while it is known.
        """
        if self._fault is not None or self._closed:
            raise self._refusal("")
        if memo not in self._memos:
            body = bounded(f"answer {memo}", value)
            self._memos[memo] = run, body
            self._writer.put(Memo(memo, run, body))

    async def ready(self) -> None:
        """Returns once something was written to the disk. Raises the store's fault where it cannot be, J010 where it soon will not be."""
        await self._errand("", Store.touch)

    async def lease(self, run: str) -> int:
        """Takes over the lease of a run that nobody holds, and gives its epoch; from then on this journal appends.

        Raises `JournalError`: J022 where a journal that is alive holds it (this one, too), J023 where there is no such run,
        J006 where it has ended.
        """
        taking: asyncio.Future[Row] = self._errand(run, lambda store: operations.lease(store, run))
        try:
            row = await asyncio.shield(taking)
        except asyncio.CancelledError:
            # Whoever asked is gone: what he gets all the same goes back.
            taking.add_done_callback(lambda done: None if done.cancelled() or done.exception() else self._give_back(run))
            raise
        self._failed.pop(run, None)
        self._lines[run], self._marks[run] = Line(run, row.last), row.last
        return row.epoch

    async def release(self, run: str) -> None:
        """Gives the lease back, once everything that is in line is on disk: the run waits.

        Raises `JournalError`: J005 where the lease was lost before, J023, and the store's fault.
        """
        await self._errand(run, lambda store: operations.release(store, run))
        self._lines.pop(run, None)
        self._marks.pop(run, None)
        if run in self._failed:
            raise self._refusal(run)

    async def confirm(self, run: str) -> bool:
        """Lets a run go on that may have lost its last events (J026); false for one that has not. Raises `JournalError` J023."""
        confirmed: bool = await self._errand(run, lambda store: operations.confirm(store, run))
        return confirmed

    @contextmanager
    def no_transaction(self, seconds: float) -> Iterator[None]:
        """Waits for the transaction that is under way, for so many seconds at most, and lets none begin while it lasts. A process that is
        stopped inside keeps no other one waiting."""
        held = self._stores.writing.transactions.acquire(timeout=seconds)
        try:
            yield
        finally:
            if held:
                self._stores.writing.transactions.release()

    async def post(self, run: str, letter: Letter, since: int | None = None) -> int:
        """Puts a letter into a run's inbox; gives its number once it is on disk. With `since` only where no later letter answers the same
        question, else gives 0. Raises `JournalError` J004, J006, J023."""
        body = bounded(f"the letter to run {run}", msgspec.structs.replace(letter, number=0))
        number: int = await self._errand(run, lambda store: operations.post(store, run, body, since))
        return number

    async def mail(self) -> set[str]:
        """Waits until letters came, and names the runs that got some since the last call; at the first call, since the opening.

        Letters of this journal are seen at once, those of others within a second. Of several who wait, one gets the news.
        """
        while True:
            seen = self._news
            news = await self._ask(partial(self._reading.news, seen))
            if self._news is seen:
                self._news = news._replace(runs=frozenset())
                if news.runs:
                    return set(news.runs)
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL):
                    await self._rings.wait()
            if not self._closed:
                self._rings.clear()

    async def recall(self, memo: str) -> tuple[str, Any] | None:
        """The run that gave the answer, and the answer; or None. Raises `JournalError` J013 where it is not what was stored."""
        fresh = self._memos.get(memo)
        if (found := await super().recall(memo)) is not None or fresh is None:
            return found
        return fresh[0], msgspec.json.decode(fresh[1])

    async def recall_all(self, memos: Collection[str]) -> dict[str, tuple[str, Any]]:
        """What `recall` gives for each of these keys that is there."""
        fresh = {memo: self._memos[memo] for memo in memos if memo in self._memos}
        found = await super().recall_all(memos)
        return {memo: (run, msgspec.json.decode(body)) for memo, (run, body) in fresh.items()} | found

    async def delivered(self, numbers: Sequence[int]) -> None:
        """Marks messages as delivered; on disk when it returns."""
        if marked := tuple(numbers):
            await self._errand("", lambda store: operations.delivered(store, marked))

    async def delete(self, run: str) -> None:
        """Removes a run: events, letters, answers, messages that were delivered, and blobs that no other run names.

        Raises `JournalError`: J022 where somebody who lives holds its lease, J024 where messages are not delivered yet, J023.
        """
        (error,) = await self.delete_all((run,))
        if error is not None:
            raise error

    async def delete_all(self, runs: Sequence[str]) -> list[OrchestraError | None]:
        """Deletes runs in one transaction; for each why it is not deleted, as `delete` raises it, or None."""
        there = [run for run in runs if is_text(run)]
        one = there[0] if len(there) == 1 else ""
        found: Mapping[str, OrchestraError] = await self._errand(one, lambda store: operations.delete(store, there), last=not one)
        for run in there:
            if run not in found:
                for known in (self._lines, self._marks, self._failed):
                    known.pop(run, None)
        return [found.get(run) if is_text(run) else no_run(run) for run in runs]

    async def compact(self) -> None:
        """Gives the room of deleted runs back to the disk, in steps between which others write.

        A file that version 1 made is written anew the first time, which keeps writers waiting: about a second for 200 MB.
        """
        await self._errand("", operations.sweep, last=True)
        if not await self._ask(self._reading.loose):
            await self._ask(self._reading.rebuild)
        while await self._ask(self._reading.give_back):
            pass
        await self._ask(self._reading.shorten)

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
            row = await self._ask(lambda: self._reading.row(run))
            if row is None or seq > row.last:
                raise never_appended(run, seq)
            return
        if self._lax:
            return
        await self._wait(run, seq)

    async def blob(self, digest: str) -> bytes | None:
        """A blob's bytes, or None; raises `JournalError` J013 where they are not what was stored."""
        if (fresh := self._fresh.get(digest)) is not None:
            return fresh
        return await super().blob(digest)

    async def close(self) -> None:
        """Commits what is in line and lets go of the file. Raises a fault of the store that nobody has been told yet."""
        if not self._closed:
            self._closed = True
            self._writer.finish()
            self._rings.set()
            # Shielded: a caller who is cancelled here may go, but the file is still closed behind him.
            await asyncio.shield(self._loop.run_in_executor(self._reader, self._let_go))
            self._reader.shutdown()  # idle by now: this waits for no more than the thread's last breath
            if self._untold is not None:
                raise self._untold.again()

    def _let_go(self) -> None:
        self._writer.join()
        self._stores.close()
        self._presence.leave()

    def _known(self, run: str) -> Line:
        """Where a run's log ends that this journal does not write yet: one look into the file, tens of microseconds, once a run."""
        if not is_text(run):
            raise no_run(run)
        try:
            row = self._stores.glance.row(run)
        except FROM_SQLITE as error:
            raise self._stores.glance.fault(error) from error
        if row is None:
            line = self._lines[run] = Line(run)
            return line
        if row.tally.status == "running":
            raise other_writer(run)
        return Line(run, row.last, ended=True)

    def _errand(self, run: str, do: Callable[[Store], T], *, last: bool = False) -> asyncio.Future[T]:
        """Puts an errand in line; the answer comes once it is on disk."""
        if self._fault is not None or self._closed:
            raise self._refusal("")
        if not is_text(run):
            raise no_run(run)
        waiter: asyncio.Future[T] = self._loop.create_future()
        self._answers.add(waiter)
        self._writer.put(Errand(do, waiter, last, run))
        self._writer.hurry()
        return waiter

    def _give_back(self, run: str) -> None:
        if self._fault is None and not self._closed:
            self._writer.put(Errand(lambda store: operations.release(store, run), run=run))

    async def _keep_usages(self, usages: Sequence[tuple[str, int, bytes, bytes]]) -> None:
        """Stores what runs used, so that it need not be folded again; where the file cannot be written it will be."""
        if usages:
            with suppress(JournalError):
                await self._errand("", lambda store: store.keep_usages(usages))

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
        self._untold = None if error is self._untold else self._untold
        return error.again()

    def _anew(self, run: str, events: Sequence[Event]) -> bool:
        """Whether a run begins that failed with the store: nothing of it may be on disk, which the file knows."""
        if not events or events[0].seq != 1 or run in self._lines:
            return False
        del self._failed[run]
        return True

    def _hand_over(self, report: Report) -> None:
        """Takes the writer's report over to the loop's thread; a loop that is gone has nobody who waits."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._take_in, report)

    def _take_in(self, report: Report) -> None:
        for name in report.blobs:
            self._fresh.pop(name, None)
        for memo in report.memos:
            self._memos.pop(memo, None)
        for run, seq in report.marks.items():
            self._marks[run] = seq
            self._wake(run, seq)
            if (line := self._lines.get(run)) is None or (line.ended and line.last == seq):
                self._lines.pop(run, None)
                del self._marks[run]
        for run, error in report.failed.items():
            self._failed[run] = error
            self._wake(run, None)
        for errand, answer in report.answers:
            self._answer(errand.waiter, answer)
        if report.fault is not None:
            self._fail(report.fault)
        elif report.passed:
            self._fault = None
            for name, data in self._fresh.items():  # whoever put them may be about to name them
                self._writer.put(Blob(name, data))
            self._alarm(None)

    def _fail(self, fault: JournalError) -> None:
        """Nothing that is in line will be on disk; nobody who has a run in hand goes on with it."""
        known = self._fault is not None and self._fault.code == fault.code
        self._fault = fault
        if fault.code != "J002" and not known:
            self._untold = fault
            self._alarm(fault)
        if fault.passes:
            self._failed.update(dict.fromkeys(self._lines, fault))
        for run in list(self._waiting):
            self._wake(run, None)
        for waiter in list(self._answers):
            self._answer(waiter, self._refusal(""))
        if fault.passes:
            for lost in (self._lines, self._marks, self._memos):
                lost.clear()
            self._writer.give_up()
        self._rings.set()

    def _answer(self, waiter: asyncio.Future[Any] | None, answer: Any) -> None:
        self._rings.set()  # it may have been a letter
        if waiter is None:
            return
        self._answers.discard(waiter)
        if waiter.done():
            return
        if isinstance(answer, JournalError):
            waiter.set_exception(answer)
        else:
            waiter.set_result(answer)

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

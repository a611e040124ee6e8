"""A journal in memory: for tests, and for `journal: off`. It forgets everything when the process ends."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncGenerator, Collection, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any

import msgspec

from orchestra.core.events import AttemptFinished, Event
from orchestra.core.protocols import Letter, Message, RunSummary, Skimmed
from orchestra.journal.errors import closed, ended, held, never_appended, no_run, other_writer, this_process, undelivered
from orchestra.journal.summary import Line, Tally, message, named, unheld
from orchestra.schema.strict_json import digest

MAX_BLOBS = 16 << 20
"""Bytes of blobs that are kept at most where a journal does not keep everything; the latest stay."""


BLOB = 200
"""Bytes that a blob takes beside its own, in its key and in the dictionary."""


@dataclass(slots=True)
class _Log:
    """One run: its events, its lease, its inbox."""

    line: Line
    events: list[Event] = field(default_factory=list)
    letters: list[Letter] = field(default_factory=list)
    epoch: int = 1
    holder: MemoryJournal | None = None


@dataclass(slots=True)
class MemoryStore:
    """What several journals of one process may share, as processes share a file."""

    logs: dict[str, _Log] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    memo: dict[str, tuple[str, Any]] = field(default_factory=dict)
    memos: dict[str, list[str]] = field(default_factory=dict)
    """By run: the keys of its answers in the memo."""
    messages: dict[int, Message] = field(default_factory=dict)
    sent: set[str] = field(default_factory=set)
    """The keys of all messages, delivered or not."""
    posts: dict[str, list[tuple[int, str]]] = field(default_factory=dict)
    """By run: the numbers and keys of its messages."""
    last_message: int = 0
    readers: list[MemoryJournal] = field(default_factory=list)


class MemoryJournal:
    """Stands behind the `Journal` door. Everything is durable at once, as far as it ever will be."""

    def __init__(self, store: MemoryStore | None = None, *, keep: int | None = None) -> None:
        """`keep` is how many runs that have ended are remembered, the latest, with their answers; then blobs take `MAX_BLOBS` bytes at
        most. None: all."""
        self.store = store or MemoryStore()
        self._keep = keep
        self._ended: deque[str] = deque()
        self._bytes = 0
        self._uses: Counter[str] = Counter()
        """How often remembered runs name each blob: kept where runs are forgotten."""
        self._fresh: set[str] = set()
        """Blobs that were put, and that no event has named since."""
        self.store.readers.append(self)
        self._epochs: dict[str, int] = {}
        self._mail: set[str] = set()
        self._rings = asyncio.Event()
        self._closed = False

    def append(self, run: str, events: Sequence[Event], delivered: Collection[str] = ()) -> None:
        """Keeps the events. Raises `JournalError`: J001 gap in `seq`, J002 closed, J005 without the lease, J006 after a run's end."""
        if self._closed:
            raise closed()
        log = self.store.logs.get(run)
        if log is None:
            log = _Log(Line(run), holder=self)
            log.line.extend(events)
            self.store.logs[run] = log
            self._epochs[run] = 1
        else:
            if not log.line.ended and self._epochs.get(run) != log.epoch:
                raise other_writer(run)
            log.line.extend(events)
        log.events += events
        if self._keep is not None or self._fresh:
            self._count(events)
        for event in events:
            if type(event) is not AttemptFinished or not event.outbox:
                continue
            found = message(self.store.last_message + 1, run, event)
            if found is not None and found.key not in self.store.sent:
                self.store.sent.add(found.key)
                self.store.last_message = found.number
                if event.node not in delivered:
                    self.store.messages[found.number] = found
                self.store.posts.setdefault(run, []).append((found.number, found.key))
        if log.line.ended:
            log.holder = None
            self._epochs.pop(run, None)
            if self._keep is not None:
                self._ended.append(run)
                if len(self._ended) > self._keep and (old := self.store.logs.pop(self._ended.popleft(), None)) is not None:
                    self._forget(old)

    def _count(self, events: Sequence[Event]) -> None:
        for name in named(events):
            self._fresh.discard(name)
            if self._keep is not None:
                self._uses[name] += 1

    def _forget(self, log: _Log) -> None:
        """The blobs that only this run named go with it, its answers, and the keys of its messages. What is not delivered yet stays."""
        for memo in self.store.memos.pop(log.line.run, ()):
            self.store.memo.pop(memo, None)
        posts = self.store.posts.pop(log.line.run, ())
        self.store.sent.difference_update(key for number, key in posts if number not in self.store.messages)
        for name in named(log.events):
            self._uses[name] -= 1
            if not self._uses[name]:
                del self._uses[name]
                if name not in self._fresh and (data := self.store.blobs.pop(name, None)) is not None:
                    self._bytes -= len(data) + BLOB

    def put(self, data: bytes) -> str:
        """Keeps a blob and gives its digest."""
        name = digest(data)
        blobs = self.store.blobs
        self._fresh.add(name)
        if self._keep is None:
            blobs.setdefault(name, data)
            return name
        self._bytes += len(data) + BLOB if blobs.pop(name, None) is None else 0
        blobs[name] = data
        while self._bytes > MAX_BLOBS and len(blobs) > 1:
            oldest = next(iter(blobs))
            self._bytes -= len(blobs.pop(oldest)) + BLOB
            self._fresh.discard(oldest)
        return name

    async def durable(self, run: str, seq: int) -> None:
        """Returns at once; raises `JournalError` J003 for events that were never appended."""
        log = self.store.logs.get(run)
        if log is None and self._keep is not None:
            return  # it has ended, and is forgotten
        if seq > (log.line.last if log else 0):
            raise never_appended(run, seq)

    async def read(self, run: str, after: int = 0) -> list[Event]:
        """The events with `seq > after`, in order."""
        log = self.store.logs.get(run)
        return [] if log is None else log.events[max(0, after) :]

    async def blob(self, digest: str) -> bytes | None:
        """A blob's bytes, or None."""
        return self.store.blobs.get(digest)

    async def runs(self, limit: int = 50) -> list[RunSummary]:
        """The latest runs, newest first."""
        found = [_summary(run, log) for run, log in self.store.logs.items() if log.events]
        found.sort(key=lambda summary: (summary.started, summary.run), reverse=True)
        return found[: max(0, limit)]

    async def summary(self, run: str) -> RunSummary | None:
        """The row of one run, or None."""
        log = self.store.logs.get(run)
        return _summary(run, log) if log is not None and log.events else None

    async def skim(self, since: float = -inf) -> AsyncGenerator[Skimmed, None]:
        """The runs that began at `since` or later, newest first."""
        found = [(log.events[0].at, run) for run, log in self.store.logs.items() if log.events and log.events[0].at >= since]
        for started, run in sorted(found, reverse=True):
            if (log := self.store.logs.get(run)) is not None:
                yield Skimmed(run, started, tuple(log.events))

    async def find(self, prefix: str) -> list[str]:
        """The ids of runs that begin so, in order; at most 100."""
        return sorted(run for run in self.store.logs if run.startswith(prefix))[:100]

    async def ready(self) -> None:
        """Returns at once. Raises `JournalError` J002 once it is closed."""
        if self._closed:
            raise closed()

    async def lease(self, run: str) -> int:
        """Takes the lease over. Raises `JournalError` J022 where another open journal holds it, J023, J006."""
        log = self._log(run)
        if log.line.ended:
            raise ended(run)
        if log.holder is not None and not log.holder._closed:
            raise held(run, this_process())
        log.epoch += 1
        log.holder = self
        self._epochs[run] = log.epoch
        return log.epoch

    async def release(self, run: str) -> None:
        """Gives the lease back."""
        log = self._log(run)
        if log.holder is self:
            log.holder = None
            self._epochs.pop(run, None)

    async def post(self, run: str, letter: Letter, since: int | None = None) -> int:
        """Puts a letter into the inbox; with `since` only where no later one answers its question. Raises `JournalError` J023, J006."""
        log = self._log(run)
        if log.line.ended:
            raise ended(run)
        if since is not None and any(map(letter.repeats, log.letters[since:])):
            return 0
        log.letters.append(msgspec.structs.replace(letter, number=len(log.letters) + 1))
        for reader in self.store.readers:
            reader._mail.add(run)
            reader._rings.set()
        return len(log.letters)

    async def letters(self, run: str, after: int = 0) -> list[Letter]:
        """The letters with a greater number."""
        log = self.store.logs.get(run)
        return [] if log is None else log.letters[max(0, after) :]

    async def mail(self) -> set[str]:
        """Waits for letters."""
        await self._rings.wait()
        self._rings.clear()
        found, self._mail = self._mail, set()
        return found

    def remember(self, memo: str, run: str, value: Any) -> None:
        """Keeps an answer, as long as its run; the first one stays."""
        if memo not in self.store.memo:
            self.store.memo[memo] = (run, value)
            self.store.memos.setdefault(run, []).append(memo)

    async def recall(self, memo: str) -> tuple[str, Any] | None:
        """The run and the answer."""
        return self.store.memo.get(memo)

    async def outbox(self, after: int = 0, limit: int = 100) -> list[Message]:
        """Messages that are not delivered."""
        return [found for number, found in sorted(self.store.messages.items()) if number > after][:limit]

    async def delivered(self, numbers: Sequence[int]) -> None:
        """Marks messages as delivered."""
        for number in numbers:
            found = self.store.messages.pop(number, None)
            if found is not None and self._keep is not None and found.run not in self.store.logs:
                self.store.sent.discard(found.key)

    async def delete(self, run: str) -> None:
        """Removes a run, its answers, and blobs that no other run names. Raises `JournalError` J022, J023, J024."""
        log = self._log(run)
        if log.holder is not None and not log.holder._closed:
            raise held(run, this_process())
        if any(found.run == run for found in self.store.messages.values()):
            raise undelivered(run)
        del self.store.logs[run]
        if run in self._ended:
            self._ended.remove(run)
        for memo in self.store.memos.pop(run, ()):
            self.store.memo.pop(memo, None)
        if self._keep is not None:
            self._forget(log)
            return
        self.store.posts.pop(run, None)
        others = {name for other in self.store.logs.values() for name in named(other.events)}
        others.update(*(reader._fresh for reader in self.store.readers))  # a run that names them is about to be written
        for name in set(named(log.events)) - others:
            self.store.blobs.pop(name, None)

    async def close(self) -> None:
        """Takes no more events, and lets go of its leases. What is there can still be read."""
        self._closed = True
        if self in self.store.readers:
            self.store.readers.remove(self)

    def _log(self, run: str) -> _Log:
        if (log := self.store.logs.get(run)) is None:
            raise no_run(run)
        return log


def _summary(run: str, log: _Log) -> RunSummary:
    tally = Tally(run)
    for event in log.events:
        tally.add(event)
    summary = tally.summary()
    if summary.status != "running":
        return summary
    if log.holder is not None and not log.holder._closed:
        return msgspec.structs.replace(summary, holder=this_process())
    if log.holder is None:
        return unheld(summary, log.events, len(log.letters))
    return msgspec.structs.replace(summary, status="interrupted")

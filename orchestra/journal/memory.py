"""A journal in memory, for tests and for `journal: off`. Its content is lost when the process ends."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncGenerator, Collection, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any

import msgspec

from orchestra.core.events import AttemptFinished, Event
from orchestra.core.protocols import InboxMessage, OutboxMessage, RunSummary, ScannedRun
from orchestra.journal.errors import (
    closed_error,
    lease_held_error,
    lease_lost_error,
    never_appended_error,
    no_run_error,
    run_ended_error,
    this_process_name,
    undelivered_error,
)
from orchestra.journal.summary import LogEnd, SummaryFold, blob_digests, outbox_message, unleased_summary
from orchestra.schema.strict_json import digest

MAX_BLOBS = 16 << 20
"""Maximum bytes of blobs in a journal that keeps a limited number of runs; the latest are kept."""


BLOB_OVERHEAD_BYTES = 200
"""Bytes that a blob takes besides its content, for its key and the dictionary entry."""


@dataclass(slots=True)
class _RunLog:
    """One run: its events, lease and inbox."""

    end: LogEnd
    events: list[Event] = field(default_factory=list)
    inbox: list[InboxMessage] = field(default_factory=list)
    epoch: int = 1
    holder: MemoryJournal | None = None


@dataclass(slots=True)
class MemoryStore:
    """Content that several journals of one process may share, as processes share a file."""

    logs: dict[str, _RunLog] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    memos: dict[str, tuple[str, Any]] = field(default_factory=dict)
    memo_keys: dict[str, list[str]] = field(default_factory=dict)
    """Keys of memoized answers by run."""
    messages: dict[int, OutboxMessage] = field(default_factory=dict)
    sent_keys: set[str] = field(default_factory=set)
    """Keys of all messages, delivered or not."""
    message_keys: dict[str, list[tuple[int, str]]] = field(default_factory=dict)
    """Numbers and keys of messages by run."""
    last_message: int = 0
    journals: list[MemoryJournal] = field(default_factory=list)


class MemoryJournal:
    """A `Journal` in memory. All appended events count as durable."""

    def __init__(self, store: MemoryStore | None = None, *, max_ended_runs: int | None = None) -> None:
        """`max_ended_runs` is the number of ended runs to keep, the latest; None keeps all. With a number, blobs take
        at most `MAX_BLOBS` bytes.
        """
        self.store = store or MemoryStore()
        self._max_ended_runs = max_ended_runs
        self._ended: deque[str] = deque()
        self._blob_bytes = 0
        self._blob_uses: Counter[str] = Counter()
        """Number of uses of each blob by kept runs; only maintained if runs are dropped."""
        self._unnamed_blobs: set[str] = set()
        """Blobs that no event has used yet."""
        self.store.journals.append(self)
        self._epochs: dict[str, int] = {}
        self._runs_with_messages: set[str] = set()
        self._wakeup = asyncio.Event()
        self._closed = False

    def append(self, run: str, events: Sequence[Event], delivered: Collection[str] = ()) -> None:
        """Appends events.

        Raises:
            JournalError: J001 gap in `seq`, J002 closed, J005 without the lease, J006 after the end of a run.
        """
        if self._closed:
            raise closed_error()
        log = self.store.logs.get(run)
        if log is None:
            log = _RunLog(LogEnd(run), holder=self)
            log.end.extend(events)
            self.store.logs[run] = log
            self._epochs[run] = 1
        else:
            if not log.end.is_ended and self._epochs.get(run) != log.epoch:
                raise lease_lost_error(run)
            log.end.extend(events)
        log.events += events
        if self._max_ended_runs is not None or self._unnamed_blobs:
            self._count_blob_uses(events)
        for event in events:
            if type(event) is not AttemptFinished or not event.outbox:
                continue
            message = outbox_message(self.store.last_message + 1, run, event)
            if message is not None and message.key not in self.store.sent_keys:
                self.store.sent_keys.add(message.key)
                self.store.last_message = message.number
                if event.node not in delivered:
                    self.store.messages[message.number] = message
                self.store.message_keys.setdefault(run, []).append((message.number, message.key))
        if log.end.is_ended:
            log.holder = None
            self._epochs.pop(run, None)
            if self._max_ended_runs is not None:
                self._ended.append(run)
                if (
                    len(self._ended) > self._max_ended_runs
                    and (old := self.store.logs.pop(self._ended.popleft(), None)) is not None
                ):
                    self._forget_run(old)

    def _count_blob_uses(self, events: Sequence[Event]) -> None:
        for name in blob_digests(events):
            self._unnamed_blobs.discard(name)
            if self._max_ended_runs is not None:
                self._blob_uses[name] += 1

    def _forget_run(self, log: _RunLog) -> None:
        """Drops a run with its answers, the blobs that only it uses, and the keys of its messages. Undelivered messages
        are kept.
        """
        for memo in self.store.memo_keys.pop(log.end.run, ()):
            self.store.memos.pop(memo, None)
        posts = self.store.message_keys.pop(log.end.run, ())
        self.store.sent_keys.difference_update(key for number, key in posts if number not in self.store.messages)
        for name in blob_digests(log.events):
            self._blob_uses[name] -= 1
            if not self._blob_uses[name]:
                del self._blob_uses[name]
                if name not in self._unnamed_blobs and (data := self.store.blobs.pop(name, None)) is not None:
                    self._blob_bytes -= len(data) + BLOB_OVERHEAD_BYTES

    def put_blob(self, data: bytes) -> str:
        """Stores a blob and returns its digest."""
        name = digest(data)
        blobs = self.store.blobs
        self._unnamed_blobs.add(name)
        if self._max_ended_runs is None:
            blobs.setdefault(name, data)
            return name
        self._blob_bytes += len(data) + BLOB_OVERHEAD_BYTES if blobs.pop(name, None) is None else 0
        blobs[name] = data
        while self._blob_bytes > MAX_BLOBS and len(blobs) > 1:
            oldest = next(iter(blobs))
            self._blob_bytes -= len(blobs.pop(oldest)) + BLOB_OVERHEAD_BYTES
            self._unnamed_blobs.discard(oldest)
        return name

    async def wait_durable(self, run: str, seq: int) -> None:
        """Returns at once. Raises `JournalError` J003 for events that were never appended."""
        log = self.store.logs.get(run)
        if log is None and self._max_ended_runs is not None:
            return  # it has ended and was dropped
        if seq > (log.end.last_seq if log else 0):
            raise never_appended_error(run, seq)

    async def read(self, run: str, after: int = 0) -> list[Event]:
        """Returns the events with `seq > after`, in order."""
        log = self.store.logs.get(run)
        return [] if log is None else log.events[max(0, after) :]

    async def get_blob(self, digest: str) -> bytes | None:
        """Returns the bytes of a blob, or None."""
        return self.store.blobs.get(digest)

    async def list_runs(self, limit: int = 50) -> list[RunSummary]:
        """Returns the latest runs, newest first."""
        run_summaries = [_summary(run, log) for run, log in self.store.logs.items() if log.events]
        run_summaries.sort(key=lambda summary: (summary.started, summary.run), reverse=True)
        return run_summaries[: max(0, limit)]

    async def summary(self, run: str) -> RunSummary | None:
        """Returns the summary of one run, or None."""
        log = self.store.logs.get(run)
        return _summary(run, log) if log is not None and log.events else None

    async def scan(self, since: float = -inf) -> AsyncGenerator[ScannedRun, None]:
        """Yields the runs that started at `since` or later, newest first."""
        started_runs = [
            (log.events[0].at, run) for run, log in self.store.logs.items() if log.events and log.events[0].at >= since
        ]
        for start_time, run in sorted(started_runs, reverse=True):
            if (log := self.store.logs.get(run)) is not None:
                yield ScannedRun(run, start_time, tuple(log.events))

    async def find_runs(self, prefix: str) -> list[str]:
        """Returns at most 100 ids of runs with this prefix, in order."""
        return sorted(run for run in self.store.logs if run.startswith(prefix))[:100]

    async def check_writable(self) -> None:
        """Returns at once. Raises `JournalError` J002 after `close`."""
        if self._closed:
            raise closed_error()

    async def lease(self, run: str) -> int:
        """Takes over the lease. Raises `JournalError` J022 if another open journal holds it, J023, J006."""
        log = self._log(run)
        if log.end.is_ended:
            raise run_ended_error(run)
        if log.holder is not None and not log.holder._closed:
            raise lease_held_error(run, this_process_name())
        log.epoch += 1
        log.holder = self
        self._epochs[run] = log.epoch
        return log.epoch

    async def release(self, run: str) -> None:
        """Releases the lease."""
        log = self._log(run)
        if log.holder is self:
            log.holder = None
            self._epochs.pop(run, None)

    async def send(self, run: str, message: InboxMessage, since: int | None = None) -> int:
        """Adds a message to the inbox; with `since` only if no later message answers the same question. Raises
        `JournalError` J023, J006.
        """
        log = self._log(run)
        if log.end.is_ended:
            raise run_ended_error(run)
        if since is not None and any(map(message.answers_same_question, log.inbox[since:])):
            return 0
        log.inbox.append(msgspec.structs.replace(message, number=len(log.inbox) + 1))
        for reader in self.store.journals:
            reader._runs_with_messages.add(run)
            reader._wakeup.set()
        return len(log.inbox)

    async def inbox(self, run: str, after: int = 0) -> list[InboxMessage]:
        """Returns the inbox messages with a greater number."""
        log = self.store.logs.get(run)
        return [] if log is None else log.inbox[max(0, after) :]

    async def wait_for_messages(self) -> set[str]:
        """Waits for inbox messages."""
        await self._wakeup.wait()
        self._wakeup.clear()
        runs_with_messages, self._runs_with_messages = self._runs_with_messages, set()
        return runs_with_messages

    def put_memo(self, memo: str, run: str, value: Any) -> None:
        """Memoizes an answer as long as its run is kept; the first answer is kept."""
        if memo not in self.store.memos:
            self.store.memos[memo] = (run, value)
            self.store.memo_keys.setdefault(run, []).append(memo)

    async def get_memo(self, memo: str) -> tuple[str, Any] | None:
        """Returns the run and the answer, or None."""
        return self.store.memos.get(memo)

    async def outbox(self, after: int = 0, limit: int = 100) -> list[OutboxMessage]:
        """Returns the messages that are not delivered."""
        return [message for number, message in sorted(self.store.messages.items()) if number > after][:limit]

    async def mark_delivered(self, numbers: Sequence[int]) -> None:
        """Marks messages as delivered."""
        for number in numbers:
            message = self.store.messages.pop(number, None)
            if message is not None and self._max_ended_runs is not None and message.run not in self.store.logs:
                self.store.sent_keys.discard(message.key)

    async def delete(self, run: str) -> None:
        """Deletes a run, its answers, and the blobs that no other run uses. Raises `JournalError` J022, J023, J024."""
        log = self._log(run)
        if log.holder is not None and not log.holder._closed:
            raise lease_held_error(run, this_process_name())
        if any(message.run == run for message in self.store.messages.values()):
            raise undelivered_error(run)
        del self.store.logs[run]
        if run in self._ended:
            self._ended.remove(run)
        for memo in self.store.memo_keys.pop(run, ()):
            self.store.memos.pop(memo, None)
        if self._max_ended_runs is not None:
            self._forget_run(log)
            return
        self.store.message_keys.pop(run, None)
        other_digests = {name for other_log in self.store.logs.values() for name in blob_digests(other_log.events)}
        other_digests.update(
            *(reader._unnamed_blobs for reader in self.store.journals)
        )  # a run that uses them is about to be written
        for name in set(blob_digests(log.events)) - other_digests:
            self.store.blobs.pop(name, None)

    async def close(self) -> None:
        """Accepts no more events and releases all leases. The content can still be read."""
        self._closed = True
        if self in self.store.journals:
            self.store.journals.remove(self)

    def _log(self, run: str) -> _RunLog:
        if (log := self.store.logs.get(run)) is None:
            raise no_run_error(run)
        return log


def _summary(run: str, log: _RunLog) -> RunSummary:
    tally = SummaryFold(run)
    for event in log.events:
        tally.add(event)
    summary = tally.summary()
    if summary.status != "running":
        return summary
    if log.holder is not None and not log.holder._closed:
        return msgspec.structs.replace(summary, holder=this_process_name())
    if log.holder is None:
        return unleased_summary(summary, log.events, len(log.inbox))
    return msgspec.structs.replace(summary, status="interrupted")

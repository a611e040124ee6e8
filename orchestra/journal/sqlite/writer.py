"""The writer: one thread that puts what is in line on disk, many events a commit."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from orchestra.core.events import Event
from orchestra.journal import AGAIN, GATHER, MOST
from orchestra.journal.errors import FROM_SQLITE, JournalError, damaged_rows, other_writer
from orchestra.journal.sqlite.store import Batch, Errand, NotOurs, Store


@dataclass(slots=True, frozen=True)
class Blob:
    """Bytes to be stored under their digest."""

    digest: str
    data: bytes


@dataclass(slots=True, frozen=True)
class Memo:
    """An answer to be remembered: its key, the run that gave it, and its bytes."""

    memo: str
    run: str
    value: bytes


Entry: TypeAlias = tuple[str, Sequence[Event], Sequence[bytes], Collection[str]] | Blob | Memo | Errand
"""A run's next events with their bytes and the nodes whose messages were delivered, or what else is to be written."""


@dataclass(slots=True)
class Report:
    """What a commit did: up to where each run is on disk, blobs and memos among them, the errands' answers, runs that failed alone,
    the fault for which nothing that is in line is written any more, and that it has passed."""

    marks: dict[str, int] = field(default_factory=dict)
    blobs: list[str] = field(default_factory=list)
    memos: list[str] = field(default_factory=list)
    answers: list[tuple[Errand, Any]] = field(default_factory=list)
    failed: dict[str, JournalError] = field(default_factory=dict)
    fault: JournalError | None = None
    passed: bool = False


class Writer(threading.Thread):
    """Commits in order of arrival, at once where somebody waits, else after at most `GATHER` seconds.

    Tells `report`, on this thread, what each commit did. After a fault it commits nothing of what was in line, and after one that does
    not pass nothing more at all.
    """

    def __init__(self, store: Store, report: Callable[[Report], None], *, one_by_one: bool = False) -> None:
        """`one_by_one` makes each append a commit of its own."""
        super().__init__(name="orchestra-journal", daemon=True)
        self._store, self._report = store, report
        self._one_by_one = one_by_one
        self._line: deque[Entry] = deque()
        self._changed = threading.Condition()
        self._idle = False
        self._hurry = one_by_one
        self._closing = False
        self._given_up = False

    def put(self, entry: Entry) -> None:
        """Puts an entry in line."""
        self._line.append(entry)
        if self._idle:
            with self._changed:
                self._changed.notify()

    def hurry(self) -> None:
        """Somebody waits: what is in line goes to disk at once."""
        if not self._hurry:
            with self._changed:
                self._hurry = True
                self._changed.notify()

    def give_up(self) -> None:
        """What is in line is not written. After a fault that passes, the thread waits for this before it tries again."""
        with self._changed:
            self._line.clear()
            self._given_up = True
            self._changed.notify()

    def finish(self) -> None:
        """Lets the thread end once the line is empty."""
        with self._changed:
            self._closing = True
            self._changed.notify()

    def run(self) -> None:
        """Commits until `finish`, or until a fault that does not pass."""
        fault = JournalError("J019", f"the journal's writer died: {self._store.path}", hint="open the journal again")
        try:
            while self._wait():
                report = self._commit(self._take())
                self._report(report)
                if report.fault is not None:
                    if (lasting := self._recovered(report.fault)) is not None:
                        fault = lasting
                        return
                    self._report(Report(passed=True))
            fault = JournalError("J002", "the journal is closed", hint="append before `close`, or open the journal again")
        finally:
            # Whatever happened, nobody may wait for this thread any longer.
            self._report(Report(fault=fault))

    def _wait(self) -> bool:
        """Waits until there is something to commit; false where the end has come."""
        with self._changed:
            self._idle = True
            self._changed.wait_for(lambda: self._line or self._closing)
            self._idle = False
            if not self._closing:
                self._changed.wait_for(lambda: self._hurry or self._closing, timeout=GATHER)
            self._hurry = self._one_by_one
            return bool(self._line)

    def _recovered(self, fault: JournalError) -> JournalError | None:
        """Waits until the store can be written again; gives the fault of one that cannot be, or that is closed before."""
        if not fault.passes:
            return fault
        with self._changed:
            # What is in line comes from before anybody knew: events that follow on lost ones.
            self._changed.wait_for(lambda: self._given_up or self._closing)
            self._given_up = False
        while fault.passes:
            with self._changed:
                if self._changed.wait_for(lambda: self._closing, timeout=AGAIN):
                    break
            try:
                self._store.recover()
            except FROM_SQLITE as error:
                fault = self._store.fault(error)
            except JournalError as error:
                fault = error
            else:
                return None
        return fault

    def _take(self) -> Batch:
        batch, line = Batch(), self._line
        trailing: list[Blob] = []
        shut: set[str] = set()
        for _ in range(MOST):
            if not line:
                break
            entry = line.popleft()
            if isinstance(entry, Blob):
                trailing.append(entry)
                continue
            if trailing:
                batch.blobs.update((blob.digest, blob.data) for blob in trailing)
                trailing.clear()
            if isinstance(entry, tuple):
                run, events, bodies, delivered = entry
                if run in shut:  # events stand before errands in a commit
                    line.appendleft(entry)
                    break
                batch.runs.setdefault(run, []).append((events, bodies, delivered))
                if self._one_by_one:
                    break
            elif isinstance(entry, Memo):
                batch.memos.setdefault(entry.memo, (entry.run, entry.value))
            else:
                batch.errands.append(entry)
                if entry.last or self._one_by_one:
                    break
                shut.add(entry.run)
        if batch.runs:
            # The event that names them is about to come: stored with it, they need no pin.
            line.extendleft(reversed(trailing))
        else:
            batch.blobs.update((blob.digest, blob.data) for blob in trailing)
        return batch

    def _commit(self, batch: Batch) -> Report:
        report = Report()
        try:
            try:
                _note(report, batch, self._store.commit(batch))
            except NotOurs:
                for part in batch.apart():
                    self._commit_alone(part, report)
        except FROM_SQLITE as error:
            report.fault = self._store.fault(error)
        except JournalError as error:
            report.fault = error
        return report

    def _commit_alone(self, part: Batch, report: Report) -> None:
        try:
            _note(report, part, self._store.commit(part))
        except NotOurs:
            if not part.runs and not part.errands:
                raise damaged_rows("its tables", "they contradict each other") from None
            for run in part.runs:
                self._store.forget(run)
                report.failed[run] = other_writer(run)
            for errand in part.errands:
                report.answers.append((errand, damaged_rows("its tables", "they contradict each other")))


def _note(report: Report, batch: Batch, answers: list[tuple[Errand, Any]]) -> None:
    report.blobs += batch.blobs
    report.memos += batch.memos
    report.answers += answers
    for run, parts in batch.runs.items():
        report.marks[run] = parts[-1][0][-1].seq

"""The writer: one thread that puts what is in line on disk, many events a commit."""

from __future__ import annotations

import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from orchestra.events import Event
from orchestra.journal.error import JournalError, other_writer
from orchestra.journal.store import Batch, Store

GATHER = 0.005
"""Seconds that events wait for company while nobody waits for them."""
MOST = 8_192
"""Appends in one commit at most, so that those who wait are served steadily."""

Entry: TypeAlias = tuple[str, Sequence[Event], Sequence[bytes]] | tuple[str, bytes]
"""A run's next events with their bytes; or a blob's digest and bytes."""


@dataclass(slots=True)
class Report:
    """What a commit did: up to where each run is on disk, blobs among them, runs that failed alone, and the fault that ends it all."""

    marks: dict[str, int] = field(default_factory=dict)
    blobs: list[str] = field(default_factory=list)
    failed: dict[str, JournalError] = field(default_factory=dict)
    fault: JournalError | None = None


class Writer(threading.Thread):
    """Commits in order of arrival, at once where somebody waits, else after at most `GATHER` seconds.

    Tells `report`, on this thread, what each commit did. After a fault it commits nothing more.
    """

    def __init__(self, store: Store, name: str, report: Callable[[Report], None], *, one_by_one: bool = False) -> None:
        """`name` is the opener's name for the runs' rows; `one_by_one` makes each append a commit of its own."""
        super().__init__(name="orchestra-journal", daemon=True)
        self._store, self._opener, self._report = store, name, report
        self._most = 1 if one_by_one else MOST
        self._line: deque[Entry] = deque()
        self._changed = threading.Condition()
        self._idle = False
        self._hurry = one_by_one
        self._always = one_by_one
        self._closing = False

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

    def finish(self) -> None:
        """Lets the thread end once the line is empty."""
        with self._changed:
            self._closing = True
            self._changed.notify()

    def run(self) -> None:
        """Commits until `finish`, or until a fault."""
        fault = JournalError("J019", f"the journal's writer died: {self._store.path}", hint="open the journal again")
        try:
            while self._wait():
                report = self._commit(self._take())
                if report.fault is not None:
                    fault = report.fault
                    return
                self._report(report)
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
            self._hurry = self._always
            return bool(self._line)

    def _take(self) -> Batch:
        batch, line = Batch(), self._line
        for _ in range(MOST):
            if not line:
                break
            entry = line.popleft()
            if len(entry) == 2:
                batch.blobs[entry[0]] = entry[1]
                continue
            run, events, bodies = entry
            batch.runs.setdefault(run, []).append((events, bodies))
            if self._most == 1:
                break
        return batch

    def _commit(self, batch: Batch) -> Report:
        report = Report()
        try:
            try:
                self._store.commit(batch, self._opener)
                _mark(report, batch)
            except sqlite3.IntegrityError:
                for part in batch.apart():
                    self._commit_alone(part, report)
        except sqlite3.Error as error:
            report.fault = self._store.fault(error)
        except JournalError as error:
            report.fault = error
        return report

    def _commit_alone(self, part: Batch, report: Report) -> None:
        try:
            self._store.commit(part, self._opener)
            _mark(report, part)
        except sqlite3.IntegrityError:
            for run in part.runs:
                report.failed[run] = other_writer(run)


def _mark(report: Report, batch: Batch) -> None:
    report.blobs += batch.blobs
    for run, parts in batch.runs.items():
        report.marks[run] = parts[-1][0][-1].seq

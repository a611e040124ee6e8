"""A journal in memory: for tests, and for `journal: off`. It forgets everything when the process ends."""

from __future__ import annotations

from collections.abc import Sequence

from orchestra.doors import RunSummary
from orchestra.events import Event
from orchestra.journal.error import closed, never_appended
from orchestra.journal.summary import Line, Tally
from orchestra.values.json import digest


class MemoryJournal:
    """Stands behind the `Journal` door. Everything is durable at once, as far as it ever will be."""

    def __init__(self) -> None:
        self._events: dict[str, list[Event]] = {}
        self._lines: dict[str, Line] = {}
        self._blobs: dict[str, bytes] = {}
        self._closed = False

    def append(self, run: str, events: Sequence[Event]) -> None:
        """Keeps the events. Raises `JournalError`: J001 for a gap in `seq`, J002 after `close`, J006 after a run's end."""
        if self._closed:
            raise closed()
        line = self._lines.get(run)
        if line is None:
            line = self._lines[run] = Line(run)
            self._events[run] = []
        line.extend(events)
        self._events[run] += events

    def put(self, data: bytes) -> str:
        """Keeps a blob and gives its digest."""
        name = digest(data)
        self._blobs.setdefault(name, data)
        return name

    async def durable(self, run: str, seq: int) -> None:
        """Returns at once; raises `JournalError` J003 for events that were never appended."""
        line = self._lines.get(run)
        if seq > (line.last if line else 0):
            raise never_appended(run, seq)

    async def read(self, run: str, after: int = 0) -> list[Event]:
        """The events with `seq > after`, in order."""
        return self._events.get(run, [])[max(0, after) :]

    async def blob(self, digest: str) -> bytes | None:
        """A blob's bytes, or None."""
        return self._blobs.get(digest)

    async def runs(self, limit: int = 50) -> list[RunSummary]:
        """The latest runs, newest first."""
        tallies = [_tally(run, events) for run, events in self._events.items() if events]
        tallies.sort(key=lambda tally: (tally.started, tally.run), reverse=True)
        return [tally.summary() for tally in tallies[: max(0, limit)]]

    async def find(self, prefix: str) -> list[str]:
        """The ids of runs that begin so, in order; at most 100."""
        return sorted(run for run, events in self._events.items() if events and run.startswith(prefix))[:100]

    async def close(self) -> None:
        """Takes no more events. What is there can still be read."""
        self._closed = True


def _tally(run: str, events: Sequence[Event]) -> Tally:
    tally = Tally(run)
    for event in events:
        tally.add(event)
    return tally

"""A journal in memory: for tests, and for `journal: off`. It forgets everything when the process ends."""

from __future__ import annotations

from collections.abc import Sequence

from orchestra.doors import RunSummary
from orchestra.events import Event
from orchestra.journal.error import JournalError
from orchestra.journal.summary import Tally
from orchestra.values.json import digest


class MemoryJournal:
    """Stands behind the `Journal` door. Everything is durable at once, as far as it ever will be."""

    def __init__(self) -> None:
        self._events: dict[str, list[Event]] = {}
        self._tallies: dict[str, Tally] = {}
        self._blobs: dict[str, bytes] = {}
        self._closed = False

    def append(self, run: str, events: Sequence[Event]) -> None:
        """Keeps the events. Raises `JournalError`: J001 for a gap in `seq`, J002 after `close`."""
        if self._closed:
            raise closed()
        tally = self._tallies.setdefault(run, Tally(run))
        kept = self._events.setdefault(run, [])
        for event in events:
            tally.add(event)
            kept.append(event)

    def put(self, data: bytes) -> str:
        """Keeps a blob and gives its digest."""
        name = digest(data)
        self._blobs.setdefault(name, data)
        return name

    async def durable(self, run: str, seq: int) -> None:
        """Returns at once; raises `JournalError` J003 for events that were never appended."""
        tally = self._tallies.get(run)
        if seq > (tally.last if tally else 0):
            raise never_appended(run, seq)

    async def read(self, run: str, after: int = 0) -> list[Event]:
        """The events with `seq > after`, in order."""
        return self._events.get(run, [])[max(0, after) :]

    async def blob(self, digest: str) -> bytes | None:
        """A blob's bytes, or None."""
        return self._blobs.get(digest)

    async def runs(self, limit: int = 50) -> list[RunSummary]:
        """The latest runs, newest first."""
        tallies = sorted(self._tallies.values(), key=lambda tally: (tally.started, tally.run), reverse=True)
        return [tally.summary() for tally in tallies[:limit]]

    async def find(self, prefix: str) -> list[str]:
        """The ids of runs that begin so, in order; at most 100."""
        return sorted(run for run in self._tallies if run.startswith(prefix))[:100]

    async def close(self) -> None:
        """Takes no more events. What is there can still be read."""
        self._closed = True


def closed() -> JournalError:
    """The error of a journal that takes no more events because it was closed."""
    return JournalError("J002", "the journal is closed", hint="append before `close`, or open the journal again")


def never_appended(run: str, seq: int) -> JournalError:
    """The error of waiting for what nobody appended; waiting would never end."""
    return JournalError("J003", f"event {seq} of run {run} was never appended, so it cannot become durable", hint="append before `durable`")

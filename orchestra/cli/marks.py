"""Marks in the journal beside the runs: whose results stand in the output of their batch, and which were followed by another try."""

from __future__ import annotations

from typing import Literal

from orchestra.doors import Journal
from orchestra.options import Options
from orchestra.values.json import canonical, digest

KEYED = "k"
"""How the ids of runs with an idempotency key begin: those of batches are such."""


def next_key(run: str) -> str:
    """The idempotency key of the try that comes next after a run: two commands that make it, also at once, make one."""
    return digest(canonical(["next", run]))


def next_run(run: str) -> str:
    """The id of that try."""
    return Options(next_key(run)).run


class Marks:
    """What is known of runs beside their events.

    A batch marks a run before it begins: from then on a result that is not marked as written is not written. Of runs of earlier versions,
    and of those that came from another journal, nobody knows. A run that was followed is not the last try of what it was to do, whether or
    not the later one can be found; this outlives the run.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def begin(self, run: str) -> None:
        """The result of a run is not written yet; from now on that is marked."""
        self._journal.remember(_mark("kept", run), run, True)

    def write(self, run: str) -> None:
        """The result of a run stands in the output, on disk."""
        self._journal.remember(_mark("written", run), run, True)

    async def written(self, run: str, head: str) -> bool | None:
        """Whether the result of a run was written, by the batch that began the run `head` of the same row; None where nobody knows."""
        if await self._is("written", run):
            return True
        return False if await self._is("kept", run) or await self._is("kept", head) else None

    def follow(self, run: str, *, lost: bool = False) -> None:
        """Another try comes after a run; with `lost` one that is deleted, and whose result was not written, as far as anybody knows."""
        what = "lost" if lost else "followed"
        self._journal.remember(_mark(what, run), "", what)  # each has a mark of its own, since the first word of a mark stays

    async def followed(self, run: str) -> Literal["", "followed", "lost"]:
        """What was said of the try after a run."""
        if await self._journal.recall(_mark("lost", run)) is not None:
            return "lost"
        found = await self._journal.recall(_mark("followed", run))
        return "" if found is None else "lost" if found[1] == "lost" else "followed"

    async def unwritten(self, run: str) -> bool:
        """Whether a batch still has to write what a run came to, or to try its row once more, as far as that is known here."""
        found = await self._journal.recall(_mark("kept", run)) if run.startswith(KEYED) else None
        if found is None or await self._is("written", run) or await self.followed(run):
            return False
        return await self._journal.summary(next_run(run)) is None

    def bring(self, run: str, *, unwritten: bool, followed: bool) -> None:
        """Marks a run that comes from another journal: its batch may go on here, with another output; what was written says nothing."""
        if unwritten:
            self._journal.remember(_mark("kept", run), run, "elsewhere")
        if followed:
            self.follow(run)

    async def leave(self, run: str, parent: str) -> None:
        """Marks what must be known of a run, forked from `parent`, once it is deleted."""
        written = await self._is("written", run)
        if await self.unwritten(run):
            self.follow(run, lost=True)
        elif await self._journal.summary(next_run(run)) is not None:
            self.follow(run)
        if parent.startswith(KEYED) or (parent and await self._journal.summary(parent) is not None):
            self.follow(parent, lost=not written)

    async def _is(self, what: str, run: str) -> bool:
        found = await self._journal.recall(_mark(what, run))
        return found is not None and found[1] is True


def _mark(what: str, run: str) -> str:
    return digest(canonical(["batch", what, run]))

"""Marks in the journal beside the runs: whose results stand in the output of their batch, and which were followed by another try."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

from orchestra.app.run_options import Options
from orchestra.app.run_queries import known, recall_all
from orchestra.core.protocols import Journal
from orchestra.schema.strict_json import canonical, digest

KEYED = "k"
"""How the ids of runs with an idempotency key begin: those of batches are such."""


def next_key(run: str) -> str:
    """The idempotency key of the try that comes next after a run: two commands that make it, also at once, make one."""
    return digest(canonical(["next", run]))


def next_run(run: str) -> str:
    """The id of that try."""
    return Options(next_key(run)).run


@dataclass(slots=True)
class _Standing:
    written: set[str] = field(default_factory=set)
    followed: set[str] = field(default_factory=set)
    """Runs whose next try is there."""
    unwritten: set[str] = field(default_factory=set)


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
        return bool((await self._standing((run,))).unwritten)

    async def unwritten_of(self, runs: Collection[str]) -> set[str]:
        """Those of these runs that are `unwritten`."""
        return (await self._standing(runs)).unwritten

    def bring(self, run: str, *, unwritten: bool, followed: bool) -> None:
        """Marks a run that comes from another journal: its batch may go on here, with another output; what was written says nothing."""
        if unwritten:
            self._journal.remember(_mark("kept", run), run, "elsewhere")
        if followed:
            self.follow(run)

    async def leave(self, parents: Mapping[str, str]) -> None:
        """Marks what must be known of runs once they are deleted; each has the run that it was forked from, or an empty text."""
        standing = await self._standing(parents)
        there = await known(self._journal, set(parents.values()) - {""})
        for run, parent in parents.items():
            if run in standing.unwritten:
                self.follow(run, lost=True)
            elif run in standing.followed:
                self.follow(run)
            if parent.startswith(KEYED) or parent in there:
                self.follow(parent, lost=run not in standing.written)

    async def _standing(self, runs: Collection[str]) -> _Standing:
        """What is known of runs, by few questions whatever their number."""
        words = {run: ("written", "kept", "lost", "followed") if run.startswith(KEYED) else ("written",) for run in runs}
        marks = {(run, word): _mark(word, run) for run, those in words.items() for word in those}
        said = await recall_all(self._journal, set(marks.values()))
        later = {run: next_run(run) for run in runs}
        there = await known(self._journal, set(later.values()))
        found = _Standing()
        for run in runs:
            mark = {word: said.get(marks[run, word]) for word in words[run]}
            done = mark["written"]
            if written := done is not None and done[1] is True:
                found.written.add(run)
            if later[run] in there:
                found.followed.add(run)
            elif mark.get("kept") and not (written or mark.get("lost") or mark.get("followed")):
                found.unwritten.add(run)
        return found

    async def _is(self, what: str, run: str) -> bool:
        found = await self._journal.recall(_mark(what, run))
        return found is not None and found[1] is True


def _mark(what: str, run: str) -> str:
    return digest(canonical(["batch", what, run]))

"""Marks in the journal beside the runs: whose results stand in the output of their batch, and which were followed by another try."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

from orchestra.app.run_queries import existing_runs, get_memos
from orchestra.core.protocols import Journal
from orchestra.engine.request import RunOptions
from orchestra.schema.strict_json import canonical, digest

KEYED_RUN_PREFIX = "k"
"""How the ids of runs with an idempotency key begin: those of batches are such."""


def next_key(run: str) -> str:
    """The idempotency key of the try that comes next after a run: two commands that make it, also at once, make one."""
    return digest(canonical(["next", run]))


def next_run(run: str) -> str:
    """The id of that try."""
    return RunOptions(next_key(run)).run_id


@dataclass(slots=True)
class _MarkedRuns:
    written: set[str] = field(default_factory=set)
    followed: set[str] = field(default_factory=set)
    """Runs whose next try is there."""
    unwritten: set[str] = field(default_factory=set)


class BatchMarks:
    """What is known of runs beside their events.

    A batch marks a run before it begins: from then on a result that is not marked as written is not written. Of runs of earlier versions,
    and of those that came from another journal, nobody knows. A run that was followed is not the last try of what it was to do, whether or
    not the later one can be found; this outlives the run.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def mark_begun(self, run: str) -> None:
        """The result of a run is not written yet; from now on that is marked."""
        self._journal.put_memo(_mark_key("kept", run), run, True)

    def mark_written(self, run: str) -> None:
        """The result of a run stands in the output, on disk."""
        self._journal.put_memo(_mark_key("written", run), run, True)

    async def is_written(self, run: str, head: str) -> bool | None:
        """Whether the result of a run was written, by the batch that began the run `head` of the same row; None where nobody knows."""
        if await self._has_mark("written", run):
            return True
        return False if await self._has_mark("kept", run) or await self._has_mark("kept", head) else None

    def mark_followed(self, run: str, *, lost: bool = False) -> None:
        """Another try comes after a run; with `lost` one that is deleted, and whose result was not written, as far as anybody knows."""
        what = "lost" if lost else "followed"
        self._journal.put_memo(
            _mark_key(what, run), "", what
        )  # each has a mark of its own, since the first word of a mark stays

    async def follow_state(self, run: str) -> Literal["", "followed", "lost"]:
        """What was said of the try after a run."""
        if await self._journal.get_memo(_mark_key("lost", run)) is not None:
            return "lost"
        found = await self._journal.get_memo(_mark_key("followed", run))
        return "" if found is None else "lost" if found[1] == "lost" else "followed"

    async def is_unwritten(self, run: str) -> bool:
        """Whether a batch still has to write what a run came to, or to try its row once more, as far as that is known here."""
        return bool((await self._load_marked_runs((run,))).unwritten)

    async def filter_unwritten(self, runs: Collection[str]) -> set[str]:
        """Those of these runs that are `unwritten`."""
        return (await self._load_marked_runs(runs)).unwritten

    def mark_imported(self, run: str, *, unwritten: bool, followed: bool) -> None:
        """Marks a run that comes from another journal: its batch may go on here, with another output; what was written says nothing."""
        if unwritten:
            self._journal.put_memo(_mark_key("kept", run), run, "elsewhere")
        if followed:
            self.mark_followed(run)

    async def mark_before_delete(self, parents: Mapping[str, str]) -> None:
        """Marks what must be known of runs once they are deleted; each has the run that it was forked from, or an empty text."""
        standing = await self._load_marked_runs(parents)
        there = await existing_runs(self._journal, set(parents.values()) - {""})
        for run, parent in parents.items():
            if run in standing.unwritten:
                self.mark_followed(run, lost=True)
            elif run in standing.followed:
                self.mark_followed(run)
            if parent.startswith(KEYED_RUN_PREFIX) or parent in there:
                self.mark_followed(parent, lost=run not in standing.written)

    async def _load_marked_runs(self, runs: Collection[str]) -> _MarkedRuns:
        """What is known of runs, by few questions whatever their number."""
        words = {
            run: ("written", "kept", "lost", "followed") if run.startswith(KEYED_RUN_PREFIX) else ("written",)
            for run in runs
        }
        marks = {(run, word): _mark_key(word, run) for run, those in words.items() for word in those}
        said = await get_memos(self._journal, set(marks.values()))
        later = {run: next_run(run) for run in runs}
        there = await existing_runs(self._journal, set(later.values()))
        found = _MarkedRuns()
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

    async def _has_mark(self, what: str, run: str) -> bool:
        found = await self._journal.get_memo(_mark_key(what, run))
        return found is not None and found[1] is True


def _mark_key(what: str, run: str) -> str:
    return digest(canonical(["batch", what, run]))

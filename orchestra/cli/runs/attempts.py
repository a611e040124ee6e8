"""The runs that have tried one thing: the first, and all that were forked from it. Which of them was the last, and what did they do?"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from math import inf

from orchestra.app.fork_effects import has_effects
from orchestra.core.events import Event, RunFinished, RunStarted
from orchestra.core.protocols import Journal
from orchestra.journal.scan import scan
from orchestra.schema.strict_json import canonical


@dataclass(frozen=True, slots=True)
class LineageRun:
    """One run of several that have tried the same."""

    started: RunStarted
    events: Sequence[Event]

    @property
    def run(self) -> str:
        """Its id."""
        return self.started.run

    @property
    def finished(self) -> RunFinished | None:
        """How it ended; None for one that may go on."""
        last = self.events[-1]
        return last if isinstance(last, RunFinished) else None

    @property
    def succeeded(self) -> bool:
        """Whether it ended with an answer, or withheld one."""
        return self.finished is not None and self.finished.status in ("done", "abstained")

    @classmethod
    def from_events(cls, events: Sequence[Event], inputs: bytes) -> LineageRun | None:
        """A run with these inputs; None where it is not there, or has others."""
        first = events[0] if events else None
        return cls(first, events) if isinstance(first, RunStarted) and canonical(first.inputs) == inputs else None


class ForkLineage:
    """Which runs of a journal were forked from which. The journal is gone through once, and then as far as runs have begun since."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._forks: dict[str, dict[str, None]] = {}
        self._since = -inf
        self._refresh_lock = asyncio.Lock()

    async def runs_in_lineage(self, runs: Iterable[str], inputs: bytes) -> list[LineageRun]:
        """Runs, those that they were forked from, and all forks of these, oldest first; without those that have other inputs."""
        await self._refresh()
        found: dict[str, LineageRun] = {}
        open_, seen = list(runs), set[str]()
        while open_:
            if (run := open_.pop()) in seen:
                continue
            seen.add(run)
            if (one := LineageRun.from_events(await self._journal.read(run), inputs)) is not None:
                found[run] = one
                open_.append(one.started.parent or run)
            open_ += self._forks.get(run, ())
        return sorted(found.values(), key=lambda one: (one.started.at, one.run))

    async def _refresh(self) -> None:
        async with self._refresh_lock:
            latest = self._since
            async with aclosing(scan(self._journal, self._since)) as runs:
                async for run, started, events, _ in runs:
                    latest = max(latest, started)
                    if events and isinstance(first := events[0], RunStarted) and first.parent:
                        self._forks.setdefault(first.parent, {})[run] = None
            self._since = latest


def latest_run(runs: Sequence[LineageRun], effect_tools: Collection[str]) -> LineageRun | None:
    """The latest try that nothing was forked from, or that may go on, and that knows of all that was done with the `effect_tools`; None
    where that was done on several ways, none of which knows of the others."""
    parents = {one.run: one.started.parent for one in runs}
    acted = {one.run for one in runs if has_effects(one.events, effect_tools)}
    for one in reversed(runs):
        if one.finished is not None and one.run in parents.values():
            continue
        known, run = set[str](), one.run
        while run in parents and run not in known:
            known.add(run)
            run = parents[run]
        if acted <= known:
            return one
    return None

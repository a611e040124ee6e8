"""The runs that have tried one thing: the first, and all that were forked from it. Which of them was the last, and what did they do?"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from math import inf

from orchestra.app.fork_effects import acts
from orchestra.core.events import Event, RunFinished, RunStarted
from orchestra.core.protocols import Journal
from orchestra.journal.scan import skim
from orchestra.schema.strict_json import canonical


@dataclass(frozen=True, slots=True)
class Try:
    """One run of several that have tried the same."""

    first: RunStarted
    events: Sequence[Event]

    @property
    def run(self) -> str:
        """Its id."""
        return self.first.run

    @property
    def end(self) -> RunFinished | None:
        """How it ended; None for one that may go on."""
        last = self.events[-1]
        return last if isinstance(last, RunFinished) else None

    @property
    def succeeded(self) -> bool:
        """Whether it ended with an answer, or withheld one."""
        return self.end is not None and self.end.status in ("done", "abstained")

    @classmethod
    def of(cls, events: Sequence[Event], inputs: bytes) -> Try | None:
        """A run with these inputs; None where it is not there, or has others."""
        first = events[0] if events else None
        return cls(first, events) if isinstance(first, RunStarted) and canonical(first.inputs) == inputs else None


class Lineage:
    """Which runs of a journal were forked from which. The journal is gone through once, and then as far as runs have begun since."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._forks: dict[str, dict[str, None]] = {}
        self._since = -inf
        self._looking = asyncio.Lock()

    async def tries(self, runs: Iterable[str], inputs: bytes) -> list[Try]:
        """Runs, those that they were forked from, and all forks of these, oldest first; without those that have other inputs."""
        await self._look()
        found: dict[str, Try] = {}
        open_, seen = list(runs), set[str]()
        while open_:
            if (run := open_.pop()) in seen:
                continue
            seen.add(run)
            if (one := Try.of(await self._journal.read(run), inputs)) is not None:
                found[run] = one
                open_.append(one.first.parent or run)
            open_ += self._forks.get(run, ())
        return sorted(found.values(), key=lambda one: (one.first.at, one.run))

    async def _look(self) -> None:
        async with self._looking:
            latest = self._since
            async with aclosing(skim(self._journal, self._since)) as runs:
                async for run, started, events, _ in runs:
                    latest = max(latest, started)
                    if events and isinstance(first := events[0], RunStarted) and first.parent:
                        self._forks.setdefault(first.parent, {})[run] = None
            self._since = latest


def newest(tries: Sequence[Try], lasting: Collection[str]) -> Try | None:
    """The latest try that nothing was forked from, or that may go on, and that knows of all that was done with the tools `lasting`; None
    where that was done on several ways, none of which knows of the others."""
    parents = {one.run: one.first.parent for one in tries}
    acted = {one.run for one in tries if acts(one.events, lasting)}
    for one in reversed(tries):
        if one.end is not None and one.run in parents.values():
            continue
        known, run = set[str](), one.run
        while run in parents and run not in known:
            known.add(run)
            run = parents[run]
        if acted <= known:
            return one
    return None

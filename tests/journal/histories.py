"""Random histories of a journal that several openers share: runs started, taken over, cut off, finished, imported and
deleted.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from random import Random
from typing import Any, TypeAlias

from orchestra.core.events import (
    AttemptFinished,
    AttemptStarted,
    Event,
    NodeFinished,
    PlanDraft,
    RunFinished,
    RunResumed,
    RunStarted,
    TurnStarted,
    Usage,
)
from orchestra.core.outcomes import ValueOutcome
from orchestra.journal.errors import JournalError

Open: TypeAlias = Callable[[], AbstractAsyncContextManager[Any]]
TAGS: tuple[dict[str, Any], ...] = (
    {},
    {"customer": "1"},
    {"customer": "2"},
    {"customer": "1", "kind": "a b=c"},
    {"customer": "2", "kind": "é"},
    {"kind": 7, "no name": "x"},
)
"""Tags of runs; the last ones cannot be queried."""
OPENERS = 2


class History:
    """Operations on one journal, the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self.chance = Random(seed)
        self.begun: list[str] = []
        self._ids = iter(range(1_000_000))

    async def play(self, open_journal: Open, steps: int, pause: Callable[[], Awaitable[None]] | None = None) -> None:
        """Executes a number of steps; `pause` is awaited sometimes, with open journals and queued events."""
        chance = self.chance
        async with AsyncExitStack() as stack:
            openers = [await stack.enter_async_context(open_journal()) for _ in range(OPENERS)]
            for _ in range(steps):
                journal = chance.choice(openers)
                with suppress(JournalError):  # refused, as for a run that another opener holds
                    await chance.choices(
                        (self.begin, self.go_on, self.take_over, self.delete, self.collide), (5, 12, 3, 1, 1)
                    )[0](journal, openers)
                if pause is not None and chance.random() < 0.05:
                    await pause()
            for journal in openers:
                for run in self.begun:
                    if (events := await journal.read(run)) and chance.random() < 0.5:
                        with suppress(JournalError):
                            await journal.wait_durable(run, events[-1].seq)

    async def begin(self, journal: Any, openers: Sequence[Any]) -> None:
        """Starts a run: its first event alone, or all events at once, as an import does."""
        run = self._new()
        events: list[Event] = [self._started(run)]
        if self.chance.random() < 0.3:
            events += self._more(2, self.chance.randint(1, 8))
            events.append(self._finished(len(events) + 1))
        journal.append(run, events)
        if self.chance.random() < 0.5:
            await journal.wait_durable(run, len(events))

    async def go_on(self, journal: Any, openers: Sequence[Any]) -> None:
        """Appends events to a run, and sometimes its end."""
        run = self._known()
        events = await journal.read(run)
        if not events or isinstance(events[-1], RunFinished):
            return
        more = self._more(len(events) + 1, self.chance.randint(1, 4))
        if self.chance.random() < 0.3:
            more.append(self._finished(len(events) + len(more) + 1))
        journal.append(run, more)
        if self.chance.random() < 0.5:
            await journal.wait_durable(run, more[-1].seq)

    async def take_over(self, journal: Any, openers: Sequence[Any]) -> None:
        """Releases a run, and sometimes resumes it in another opener."""
        run = self._known()
        await journal.release(run)
        if self.chance.random() < 0.7:
            other = self.chance.choice(openers)
            epoch = await other.lease(run)
            last = len(await other.read(run))
            other.append(run, [RunResumed(seq=last + 1, at=float(last + 1), epoch=epoch)])

    async def delete(self, journal: Any, openers: Sequence[Any]) -> None:
        """Deletes some ended runs together."""
        await journal.delete_runs([self._known() for _ in range(self.chance.randint(1, 4))])

    async def collide(self, journal: Any, openers: Sequence[Any]) -> None:
        """Two openers start the same run: one of them is refused at the commit."""
        run = self._new()
        for one in openers:
            one.append(run, [self._started(run), *self._more(2, 2), self._finished(4)])
        for one in openers:
            with suppress(JournalError):
                await one.wait_durable(run, 4)

    def _new(self) -> str:
        run = f"r{next(self._ids):04d}"
        self.begun.append(run)
        return run

    def _known(self) -> str:
        return self.chance.choice(self.begun) if self.begun and self.chance.random() < 0.95 else "nowhere"

    def _started(self, run: str) -> RunStarted:
        chance = self.chance
        options: dict[str, Any] = {"tags": tags} if (tags := chance.choice(TAGS)) else {}
        if chance.random() < 0.2:
            options["planned"] = {"run": self._known(), "saved": {"calls": 1, "prompt_tokens": 5, "output_tokens": 2}}
        if chance.random() < 0.1:
            options["purpose"] = "evaluation"
        inputs = {"text": "x" * (20_000 if chance.random() < 0.1 else 5)}
        parent = self._known() if chance.random() < 0.3 else ""
        at = float(chance.randint(1, 30))
        return RunStarted(
            seq=1,
            at=at,
            run=run,
            workflow=chance.choice("vw"),
            graph="",
            inputs=inputs,
            parent=parent,
            label="public",
            options=options,
        )

    def _more(self, first: int, count: int) -> list[Event]:
        return [self._event(seq) for seq in range(first, first + count)]

    def _event(self, seq: int) -> Event:
        chance, at = self.chance, float(seq)
        node, attempt, name = chance.choice("abc"), chance.randint(1, 2), chance.choice(("reader", "search"))
        kind = chance.random()
        if kind < 0.35:
            return AttemptStarted(seq=seq, at=at, node=node, attempt=attempt, name=name)
        if kind < 0.8:
            recalled = self._known() if chance.random() < 0.2 else ""
            usage = (
                Usage()
                if recalled
                else Usage(chance.choice((0, 7)), chance.choice((0, 0, 3)), chance.choice((0, 5)), 1, 0.1)
            )
            server, model = chance.choice((("", ""), ("paid", "m"), ("gateway", "m")))
            value = "x" * (20_000 if chance.random() < 0.05 else 5)
            return AttemptFinished(
                seq=seq,
                at=at,
                node=node,
                attempt=attempt,
                name=name,
                value=value,
                usage=usage,
                server=server,
                model=model,
                reused_from=recalled,
                final=True,
            )
        if kind < 0.9:
            return TurnStarted(
                seq=seq,
                at=at,
                node=node,
                turn=1,
                draft=PlanDraft(None, reused_from=chance.choice(("", self._known())), saved_usage=Usage(calls=2)),
            )
        return NodeFinished(seq=seq, at=at, node=node, outcome=ValueOutcome(1))

    def _finished(self, seq: int) -> RunFinished:
        return RunFinished(
            seq=seq, at=float(seq), status=self.chance.choice(("done", "failed")), outcome=ValueOutcome(1)
        )

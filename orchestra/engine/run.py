"""Runs: the handle of one execution, for whoever started it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from orchestra.doors import Journal
from orchestra.events import Event, RunFinished, RunStarted
from orchestra.log import Observer


class Run:
    """One execution of a program: wait for its end, watch its events, cancel it."""

    def __init__(self, run: str, journal: Journal, log: list[Event] | None = None, observe: Observer | None = None) -> None:
        self.id = run
        self._observe = observe
        self.journal = journal
        self.log: list[Event] = log or []
        """All events so far. Those that `events` gives are on disk; the last few here may not be."""
        self._grown = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._cancel_by = ""
        self._cancelled = asyncio.Event()

    def record(self, event: Event) -> None:
        """Takes a new event into the log, and wakes who watches."""
        self.log.append(event)
        self._grown.set()
        if self._observe is not None:
            self._observe(self.id, event)

    def attach(self, task: asyncio.Task[None]) -> None:
        """Names the task that drives the run."""
        self._task = task

    def cancel(self, by: str = "") -> None:
        """Asks the run to end. Its calls are cancelled up to the servers; what has finished stays. Idempotent."""
        self._cancel_by = by
        self._cancelled.set()

    async def cancellation(self) -> str:
        """Waits until somebody cancels; gives who."""
        await self._cancelled.wait()
        return self._cancel_by

    @property
    def of(self) -> tuple[str, Any]:
        """What runs, on what: the digest of the workflow, and the inputs."""
        first = self.log[0] if self.log else None
        return (first.graph, first.inputs) if isinstance(first, RunStarted) else ("", None)

    @property
    def finished(self) -> RunFinished | None:
        """The last event, once it is there."""
        last = self.log[-1] if self.log else None
        return last if isinstance(last, RunFinished) else None

    async def wait(self) -> RunFinished:
        """The last event, on disk. Cancelling this wait does not cancel the run. Raises what broke the engine or the journal."""
        if self._task is not None:
            await asyncio.shield(self._task)
        finished = self.finished
        if finished is None:
            raise RuntimeError(f"the driver of run {self.id} ended before the run")
        return finished

    async def events(self, after: int = 0) -> AsyncGenerator[Event, None]:
        """The events with `seq > after` as they get durable, up to the last one. Every reader sees the same."""
        position = after
        while True:
            batch = self.log[position:]
            if not batch:
                if self.finished is not None or (self._task is not None and self._task.done()):
                    return
                self._grown.clear()
                await self._woken()
                continue
            await self.journal.durable(self.id, batch[-1].seq)
            for event in batch:
                yield event
            position += len(batch)

    async def _woken(self) -> None:
        """Waits for a new event, or for the end of the driver, which may break without one."""
        grown = asyncio.ensure_future(self._grown.wait())
        try:
            await asyncio.wait({grown, self._task} if self._task is not None else {grown}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            grown.cancel()

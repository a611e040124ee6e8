"""Follows a run until it has ended or waits for a person, with its events in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from orchestra.app.run import Run
from orchestra.core.events import Event
from orchestra.server.endpoints import Call
from orchestra.server.streams import stop_error


async def events_until_blocked(call: Call[Any, Any], run: Run[Any], after: int = 0) -> AsyncGenerator[Event, None]:
    """Yields the events of a run with greater numbers, until it has ended or waits for a person.

    Raises:
        RequestError: S010 if the server stops.
    """
    async with aclosing(run.events(after)) as events:
        ending: asyncio.Task[Any] = asyncio.ensure_future(run.wait_until_blocked())
        stopping: asyncio.Task[Any] = asyncio.ensure_future(call.services.stopping.wait())
        reading: asyncio.Task[Event | None] = asyncio.ensure_future(anext(events, None))
        waiting: set[asyncio.Task[Any]] = {ending, stopping, reading}
        try:
            while True:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                if reading in waiting and reading.done():
                    waiting.discard(reading)
                    if (event := reading.result()) is not None:
                        after = event.seq
                        yield event
                        reading = asyncio.ensure_future(anext(events, None))
                        waiting.add(reading)
                elif ending.done():
                    ending.result()
                    break
                elif stopping.done():
                    raise stop_error(run.id)
        finally:
            for task in (ending, stopping, reading):
                task.cancel()
            await asyncio.gather(ending, stopping, reading, return_exceptions=True)
    for event in await call.orchestra.journal.read(run.id, after):
        yield event

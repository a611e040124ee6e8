"""Follows a run until it has ended or waits for a person: its events, or the text that models write."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, TypeVar

from orchestra.app.run import Run
from orchestra.core.events import Event
from orchestra.server.services import Services
from orchestra.server.streams import stop_error

T = TypeVar("T")


async def items_until_blocked(
    services: Services, run: Run[Any], items: AsyncGenerator[T, None]
) -> AsyncGenerator[T, None]:
    """Yields what a generator of a run yields, until the run has ended or waits for a person.

    Raises:
        RequestError: S010 if the server stops.
    """
    async with aclosing(items):
        ending: asyncio.Task[Any] = asyncio.ensure_future(run.wait_until_blocked())
        stopping: asyncio.Task[Any] = asyncio.ensure_future(services.stopping.wait())
        reading: asyncio.Task[T | None] = asyncio.ensure_future(anext(items, None))
        waiting: set[asyncio.Task[Any]] = {ending, stopping, reading}
        try:
            while True:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                if reading in waiting and reading.done():
                    waiting.discard(reading)
                    if (item := reading.result()) is not None:
                        yield item
                        reading = asyncio.ensure_future(anext(items, None))
                        waiting.add(reading)
                elif ending.done():
                    ending.result()
                    return
                elif stopping.done():
                    raise stop_error(run.id)
        finally:
            for task in (ending, stopping, reading):
                task.cancel()
            await asyncio.gather(ending, stopping, reading, return_exceptions=True)


async def events_until_blocked(services: Services, run: Run[Any], after: int = 0) -> AsyncGenerator[Event, None]:
    """Yields the events of a run with greater numbers, until it has ended or waits for a person.

    Raises:
        RequestError: S010 if the server stops.
    """
    async with aclosing(items_until_blocked(services, run, run.events(after))) as events:
        async for event in events:
            after = event.seq
            yield event
    for event in await services.orchestra.journal.read(run.id, after):
        yield event

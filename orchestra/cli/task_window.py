"""A stream of rows through a window of tasks: results come out in the order of the rows, and memory does not grow with them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

WINDOW_SLACK = 4
"""Rows a concurrent call that are begun or wait to be written: so a slow row does not stop those behind it at once."""


async def map_in_order(
    rows: Iterable[T], function: Callable[[T], Awaitable[R]], concurrency: int
) -> AsyncGenerator[R, None]:
    """Yields the result of `function` for each row, in order, with at most `concurrency` calls at once.

    When the reader stops early, or `function` raises, the tasks that are under way are cancelled and awaited.
    """
    places = asyncio.Semaphore(concurrency)

    async def one(row: T) -> R:
        async with places:
            return await function(row)

    window: deque[asyncio.Task[R]] = deque()
    coming = iter(rows)
    try:
        while True:
            while len(window) < concurrency * WINDOW_SLACK and (row := next(coming, None)) is not None:
                window.append(asyncio.create_task(one(row)))
            if not window:
                return
            yield await window[0]
            window.popleft()
    finally:
        for task in window:
            task.cancel()
        await asyncio.gather(*window, return_exceptions=True)

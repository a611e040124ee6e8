"""Cancels a run when the client that waits for it disconnects."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from orchestra.app.result import Result
from orchestra.app.run import Run

R = TypeVar("R")

CLIENT = "its client"
"""Who cancels such a run."""


async def run_until_disconnected(
    run: Run[R] | Coroutine[Any, Any, Result[R]],
    is_disconnected: Callable[[], Awaitable[bool]],
    *,
    interval: float = 0.5,
) -> Result[R] | None:
    """Waits for a run, and cancels it if the client disconnects: requests to model servers are closed.

    Web frameworks do not cancel a handler whose client has gone. Starlette and FastAPI offer
    `request.is_disconnected`; read the body of the request before.

    Args:
        run: `orchestra.run(...)`, or a started run. With an idempotency key, `orchestra.run(...)` is only left: its run
            continues for other callers.
        is_disconnected: Returns whether the client has gone.
        interval: Seconds between two calls of it.

    Returns:
        The result; None if the client has disconnected.

    Raises:
        OrchestraError: As `await run`.
    """
    task = asyncio.ensure_future(run)
    try:
        while not task.done():
            await asyncio.wait({task}, timeout=interval)
            if not task.done() and await is_disconnected():
                return None
        return task.result()
    finally:
        if not task.done():
            if isinstance(run, Run):
                run.cancel(CLIENT)
            else:
                task.cancel()
            await asyncio.gather(task, return_exceptions=True)

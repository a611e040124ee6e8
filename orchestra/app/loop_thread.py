"""An event loop in a thread of its own, for code without asyncio and for code under another event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from concurrent.futures import wait
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

from orchestra.core.errors import OrchestraError

T = TypeVar("T")

POLL_SECONDS = 0.1
"""Seconds between two calls of `meanwhile`."""


class LoopThread:
    """A thread that runs an event loop, and the async contexts that are open on it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._contexts: list[AbstractAsyncContextManager[Any]] = []
        self._thread = threading.Thread(target=self._loop.run_forever, name="orchestra", daemon=True)
        self._thread.start()

    def enter(self, context: AbstractAsyncContextManager[T]) -> T:
        """Opens a context on the loop; `close` leaves it. Closes the loop if the context cannot be opened."""
        try:
            value = self.run(_enter(context))
        except BaseException:
            self.close()
            raise
        self._contexts.append(context)
        return value

    def run(self, work: Coroutine[Any, Any, T], meanwhile: Callable[[], None] | None = None) -> T:
        """Runs a coroutine on the loop and returns its result. Ctrl-C cancels it there, and is raised once it has
        ended.

        Args:
            work: The coroutine.
            meanwhile: Called on this thread every tenth of a second until the coroutine has ended.

        Raises:
            OrchestraError: E027 on the loop's own thread, which would wait for itself; E028 after `close`.
        """
        if (refusal := self.error()) is not None:
            work.close()
            raise refusal
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            while meanwhile is not None and not wait((future,), POLL_SECONDS).done:
                meanwhile()
            return future.result()
        except KeyboardInterrupt:
            # `future.cancel()` does not wait until the coroutine has ended.
            self._loop.call_soon_threadsafe(_cancel_task, self._loop, work)
            wait((future,))
            raise

    def iterate(self, items: AsyncGenerator[T, None], on_end: Callable[[], None]) -> Generator[T, None, None]:
        """Yields the items on this thread. `on_end` is called after the last one, and if the iteration is left early.

        Raises `OrchestraError` as `run` does.
        """
        try:
            while True:
                try:
                    yield self.run(anext(items))
                except StopAsyncIteration:
                    return
        finally:
            on_end()
            # Otherwise the loop is closed, or this runs on the loop's own thread.
            if self.error() is None:
                self.run(items.aclose())

    def error(self) -> OrchestraError | None:
        """Returns why this thread cannot wait for the loop; None if it can."""
        if self._loop.is_closed():
            hint = "open another one: Orchestra.open_sync(); or call it inside of its  with blocking():"
            return OrchestraError("E028", "this Orchestra is closed", hint=hint)
        try:
            is_own_loop = asyncio.get_running_loop() is self._loop
        except RuntimeError:  # No loop runs on this thread.
            return None
        hint = (
            "make the tool a plain function (def, not async def): it runs on a thread; or call the workflow as a step"
        )
        return (
            OrchestraError("E027", "a coroutine that this Orchestra runs would wait for itself", hint=hint)
            if is_own_loop
            else None
        )

    def close(self) -> None:
        """Leaves the contexts, the last one first, and ends loop and thread. Idempotent. Raises `OrchestraError` E027
        on the loop's own thread.
        """
        if self._loop.is_closed():
            return
        if (refusal := self.error()) is not None:
            raise refusal
        try:
            while self._contexts:
                self.run(_leave(self._contexts.pop()))
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()


def _cancel_task(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any]) -> None:
    for task in asyncio.all_tasks(loop):
        if task.get_coro() is work:
            task.cancel()


async def _enter(context: AbstractAsyncContextManager[T]) -> T:
    return await context.__aenter__()


async def _leave(context: AbstractAsyncContextManager[Any]) -> None:
    await context.__aexit__(None, None, None)

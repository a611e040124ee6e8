"""The API without asyncio: a thread with an event loop of its own, for scripts, notebooks and consoles.

    with orchestra.blocking() as fleet:
        print(fleet.run(fleet.find("answer_from_documents"), question="…", documents=documents).output)

It works in a notebook cell, where a loop already runs: its own loop runs in another thread.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterator
from concurrent.futures import wait
from contextlib import AbstractAsyncContextManager, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

from typing_extensions import TypeVar

from orchestra.app.orchestra import Orchestra
from orchestra.core.errors import OrchestraError
from orchestra.core.settings import Settings

if TYPE_CHECKING:
    from orchestra.app.result import Result
    from orchestra.app.run import Run
    from orchestra.app.workers import FleetMode
    from orchestra.core.events import Event
    from orchestra.core.protocols import Workers
    from orchestra.engine.streaming import TextPiece
    from orchestra.fleet.progress import Progress
    from orchestra.workflows.python.steps import Step

P = ParamSpec("P")
R = TypeVar("R", default=Any)
T = TypeVar("T")


class BlockingOrchestra:
    """An open `Orchestra` whose methods block. They raise `OrchestraError` E027 on its own loop, and E028 after it is
    closed.
    """

    def __init__(
        self, inner: Orchestra, loop: asyncio.AbstractEventLoop, text: Callable[[TextPiece], None] | None = None
    ) -> None:
        self.inner = inner
        """The `Orchestra`; use it on its own loop only."""
        self._loop, self._text = loop, text

    def run(self, step: Step[P, R], /, *args: P.args, **inputs: P.kwargs) -> Result[R]:
        """Runs a workflow, an agent or a tool to its end. Ctrl-C cancels the run. Raises as `Orchestra.run` does."""
        if self._text is None:
            return self._wait(self.inner.run(step, *args, **inputs))
        run = self._wait(self.inner.options(live=True).start(step, *args, **inputs))
        with closing(self._iterate(run, run.text())) as pieces:
            for piece in pieces:
                self._text(piece)
        return self._wait(_await_run(run))

    def stream(self, step: Step[P, R], /, *args: P.args, **inputs: P.kwargs) -> Generator[Event, None, None]:
        """Runs a step and yields its events once they are on disk. Leaving it early (`break`, `close()`, Ctrl-C)
        cancels the run; a run with an idempotency key continues. Raises as `Orchestra.start` and `Run.events` do.
        """
        run = self._wait(self.inner.start(step, *args, **inputs))
        yield from self._iterate(run, run.events())

    def _iterate(self, run: Run[Any], coming: AsyncGenerator[T, None]) -> Generator[T, None, None]:
        """Yields the items of a run, to its end. Leaving it early cancels the run, unless it has a key."""
        try:
            while True:
                try:
                    yield self._wait(anext(coming))
                except StopAsyncIteration:
                    return
        finally:
            if not self.inner.has_key:
                run.cancel()
            # Otherwise the loop is closed, or this runs on the loop's own thread.
            if _loop_error(self._loop) is None:
                self._wait(coming.aclose())

    def find(self, name: str, /) -> Step[..., Any]:
        """Returns a workflow, agent or tool by name, as `Orchestra.find`."""
        return self.inner.find(name)

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return _run_on_loop(self._loop, work)


@contextmanager
def blocking(
    config: str | Path | Settings | None = None,
    *,
    project: str | Path | None = None,
    fleet: FleetMode = "start",
    workers: Workers | None = None,
    progress: Callable[[Progress], None] | None = None,
    text: Callable[[TextPiece], None] | None = None,
) -> Iterator[BlockingOrchestra]:
    """Opens an `Orchestra` for code without asyncio. The parameters are those of `Orchestra.open`.

    Args:
        text: Called with each piece of text that models write, on the thread that called `run`; not verified
        (`Run.text`).
    """
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="orchestra", daemon=True)
    thread.start()
    opened = Orchestra.open(config, project=project, fleet=fleet, workers=workers, progress=progress)
    try:
        inner = _run_on_loop(loop, _enter(opened))
        try:
            yield BlockingOrchestra(inner, loop, text)
        finally:
            _run_on_loop(loop, _leave(opened))
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _run_on_loop(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine on another thread's loop and returns its result. Ctrl-C cancels it there, and is raised once it
    has ended.

    Raises `OrchestraError` E027 on that thread, which would wait for itself, and E028 if the loop is closed.
    """
    if (refusal := _loop_error(loop)) is not None:
        work.close()
        raise refusal
    future = asyncio.run_coroutine_threadsafe(work, loop)
    try:
        return future.result()
    except KeyboardInterrupt:
        # `future.cancel()` does not wait until the coroutine has ended.
        loop.call_soon_threadsafe(_cancel_task, loop, work)
        wait((future,))
        raise


def _cancel_task(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any]) -> None:
    for task in asyncio.all_tasks(loop):
        if task.get_coro() is work:
            task.cancel()


def _loop_error(loop: asyncio.AbstractEventLoop) -> OrchestraError | None:
    """Returns why this thread cannot wait for a loop; None if it can."""
    if loop.is_closed():
        return OrchestraError("E028", "this Orchestra is closed", hint="call it inside of its  with blocking():")
    try:
        own = asyncio.get_running_loop() is loop
    except RuntimeError:  # No loop runs on this thread.
        return None
    hint = "make the tool a plain function (def, not async def): it runs on a thread; or call the workflow as a step"
    return (
        OrchestraError("E027", "a coroutine that this Orchestra runs would wait for itself", hint=hint) if own else None
    )


async def _await_run(run: Run[R]) -> Result[R]:
    return await run


async def _enter(opened: AbstractAsyncContextManager[Orchestra]) -> Orchestra:
    return await opened.__aenter__()


async def _leave(opened: AbstractAsyncContextManager[Orchestra]) -> None:
    await opened.__aexit__(None, None, None)

"""The process of `orchestra serve`: its event loop, and its garbage collection.

The event loop is that of uvloop if it is installed, which needs less time for sockets and timers. An application that
mounts `create_app` decides both for itself.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

T = TypeVar("T")
GC_THRESHOLDS: Final = (2000, 20, 20)
"""Objects, and collections of younger ones, after which garbage is searched for. The runs in progress are many objects,
and each search looks at them; with the thresholds of Python it takes a fifth of the time of a run.
"""


def run(work: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine as `asyncio.run` does, on the event loop of the server."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(work)


def tune_collection() -> None:
    """Makes searches for garbage rarer, and leaves out what is there now: modules, types and the project. For a process
    that does nothing but serve.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Returns what makes the loop; None for the standard one: uvloop is not made for every platform."""
    try:
        from uvloop import new_event_loop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = new_event_loop
    return factory

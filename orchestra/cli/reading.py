"""Reads that a signal ends: of files and pipes, by verbs that carry out runs.

A read that waits for a pipe blocks the event loop. So a handler that only schedules something there is never heard. Inside `endable` the
handler raises instead (`orchestra.cli.signals`), and the read ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

ENDABLE: ContextVar[bool] = ContextVar("orchestra_endable", default=False)
"""Whether the code that runs is such a read. Python runs signal handlers in the context of the code that they break in on."""


@contextmanager
def endable() -> Iterator[None]:
    """While it lasts, the first signal raises `asyncio.CancelledError` where it finds the main thread."""
    before = ENDABLE.set(True)
    try:
        yield
    finally:
        ENDABLE.reset(before)

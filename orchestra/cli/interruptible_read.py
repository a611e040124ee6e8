"""Reads that a signal ends: of files and pipes, by verbs that carry out runs.

A read that waits for a pipe blocks the event loop. So a handler that only schedules something there is never heard. Inside `interruptible` the
handler raises instead (`orchestra.cli.signals`), and the read ends.

Python runs a handler between two instructions, or where a signal breaks off a system call (PEP 475). A signal that comes just before the
call blocks, or that the system gives to another thread, breaks off none, and its handler would wait for the pipe. So a timer breaks off
what blocks, several times a second.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

INTERRUPTIBLE: ContextVar[bool] = ContextVar("orchestra_endable", default=False)
"""Whether the code that runs is such a read. Python runs signal handlers in the context of the code that they break in on."""
TIMER_SECONDS = 0.2
"""Seconds after which a signal is heard at the latest."""


@contextmanager
def interruptible() -> Iterator[None]:
    """While it lasts, the first signal raises `asyncio.CancelledError` where it finds the main thread."""
    before = INTERRUPTIBLE.set(True)
    try:
        with _interval_timer():
            yield
    finally:
        INTERRUPTIBLE.reset(before)


@contextmanager
def _interval_timer() -> Iterator[None]:
    """Has a timer break off what blocks, and do nothing else; on the main thread, where handlers run."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return
    handler = signal.signal(signal.SIGALRM, lambda *_: None)
    timer = signal.setitimer(signal.ITIMER_REAL, TIMER_SECONDS, TIMER_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *timer)
        signal.signal(signal.SIGALRM, handler)

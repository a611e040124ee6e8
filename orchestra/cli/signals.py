"""Signals, reads that signals interrupt, and ordered concurrent tasks.

The first SIGINT cancels the work of a command cleanly. SIGTERM releases the run, which can be resumed. A second signal
ends the process at once.

A read from a pipe blocks the event loop, so a handler that only schedules a callback would never run. Within
`interruptible` the handler raises instead, and the read ends. Python runs handlers between two instructions, or when a
signal interrupts a system call (PEP 475). A signal that arrives just before the call blocks, or in another thread,
interrupts nothing. A timer therefore interrupts the blocked call several times a second.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from orchestra.cli.typer_adapter import INTERRUPTED, TERMINATED
from orchestra.core.untrusted_text import pluralize

if TYPE_CHECKING:
    from orchestra.core.protocols import Journal

T = TypeVar("T")

GRACE_SECONDS = 5.0
"""Seconds that running plain functions get before the process ends. `docker stop` kills after ten seconds."""
COMMIT_WAIT_SECONDS = 2.0
"""The longest time in seconds that Ctrl-Z waits for a transaction; a longer transaction waits for the lock itself."""
JOIN_SECONDS = 0.2
"""Seconds within which the threads of finished functions have ended."""


class StopSignal:
    """The state of stop requests. It installs signal handlers of its own, which also work while the event loop is
    blocked.
    """

    def __init__(self) -> None:
        self.terminating = False
        """True after SIGTERM: the current run is released, not cancelled."""
        self.run = ""
        """The id of the current run, for the hint to resume it."""
        self.requested = False
        """True after any signal. Work that never waits must check it."""

    @property
    def resume_hint(self) -> str:
        """The command that resumes the released run; empty without a run."""
        return f"resume with: orchestra runs resume {self.run}" if self.run else ""

    @contextmanager
    def handle_signals(self, task: asyncio.Task[Any]) -> Iterator[None]:
        """Handles signals within the context: the first one cancels the task or ends a blocking read, the second one
        ends the process.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = task.get_loop()

        def handle(number: int, _: FrameType | None) -> None:
            if self.requested:
                self._exit_now(INTERRUPTED if number == signal.SIGINT else TERMINATED)
            self.requested, self.terminating = True, number == signal.SIGTERM
            if INTERRUPTIBLE.get():
                raise asyncio.CancelledError
            if number == signal.SIGINT and self.run and sys.stderr.isatty():
                os.write(2, b"\nthe run is being cancelled; Ctrl-C once more leaves at once\n")
            loop.call_soon_threadsafe(task.cancel)

        before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _exit_now(self, code: int) -> None:
        """Ends the process at once. Its runs are interrupted as after a power cut, and can be resumed."""
        os.write(2, f"exited at once{f'; {self.resume_hint}' if self.resume_hint else ''}\n".encode())
        os._exit(code)


@contextmanager
def suspend_between_commits(journal: Journal) -> Iterator[None]:
    """Within the context, Ctrl-Z (SIGTSTP) stops the process after the current journal transaction: a process stopped
    within a transaction blocks all other writers. SIGSTOP cannot be handled.
    """
    number = getattr(signal, "SIGTSTP", None)
    if (
        number is None
        or threading.current_thread() is not threading.main_thread()
        or signal.getsignal(number) is not signal.SIG_DFL
    ):
        yield
        return
    from orchestra.journal.sqlite.journal import SqliteJournal

    if not isinstance(journal, SqliteJournal):
        yield
        return

    def suspend(_number: int, _frame: FrameType | None) -> None:
        with journal.pause_transactions(COMMIT_WAIT_SECONDS):
            os.kill(os.getpid(), signal.SIGSTOP)

    signal.signal(number, suspend)
    try:
        yield
    finally:
        signal.signal(number, signal.SIG_DFL)


def run_with_signals(work: Callable[[StopSignal], Coroutine[Any, Any, T]]) -> T:
    """Runs a coroutine as `asyncio.run` does, with signal handling. Raises `KeyboardInterrupt` after SIGINT and
    `typer.Exit` 143 after SIGTERM.
    """
    stop = StopSignal()

    async def main() -> T:
        task = asyncio.current_task()
        assert task is not None  # a running coroutine belongs to a task
        with stop.handle_signals(task):
            return await work(stop)

    try:
        return asyncio.run(main())
    except asyncio.CancelledError as error:
        if stop.terminating:
            raise typer.Exit(TERMINATED) from error
        raise KeyboardInterrupt from error


def exit_process(code: int) -> None:
    """Ends the process although plain functions of tools, which cannot be cancelled, still run: after `GRACE_SECONDS`,
    or at another signal. Python itself would wait until they return.

    Their runs are released and on disk. The results of these functions are discarded; their calls count as interrupted.
    """
    if threading.active_count() == 1:
        return
    from orchestra.app.workers import THREAD_PREFIX

    threads = [thread for thread in threading.enumerate() if thread.name.startswith(THREAD_PREFIX)]
    if not _join_threads(threads, JOIN_SECONDS):
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: os._exit(code))
        busy = pluralize(sum(thread.is_alive() for thread in threads), "plain function")
        os.write(2, f"waiting for {busy}, at most {GRACE_SECONDS:g} s; another signal exits at once\n".encode())
        if not _join_threads(threads, GRACE_SECONDS):
            sys.stdout.flush()
            os._exit(code)


def _join_threads(threads: Sequence[threading.Thread], seconds: float) -> bool:
    end = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    return not any(thread.is_alive() for thread in threads)


INTERRUPTIBLE: ContextVar[bool] = ContextVar("orchestra_endable", default=False)
"""True while an interruptible read runs. Python runs signal handlers in the context of the interrupted code."""
TIMER_SECONDS = 0.2
"""The longest delay in seconds until a signal is handled."""


@contextmanager
def interruptible() -> Iterator[None]:
    """Within the context, the first signal raises `asyncio.CancelledError` in the main thread."""
    before = INTERRUPTIBLE.set(True)
    try:
        with _interval_timer():
            yield
    finally:
        INTERRUPTIBLE.reset(before)


@contextmanager
def _interval_timer() -> Iterator[None]:
    """Interrupts blocking system calls with a timer. It works on the main thread only, where handlers run."""
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


Row = TypeVar("Row")
RowResult = TypeVar("RowResult")

WINDOW_SLACK = 4
"""Rows in progress or finished but unwritten, as a multiple of the concurrency: a slow row does not block later rows at
once.
"""


async def map_in_order(
    rows: Iterable[Row], function: Callable[[Row], Awaitable[RowResult]], concurrency: int
) -> AsyncGenerator[RowResult, None]:
    """Yields the result of `function` for each row, in order, with at most `concurrency` concurrent calls. Memory does
    not grow with the rows.

    If the consumer stops early or `function` raises, the pending tasks are cancelled and awaited.
    """
    slots = asyncio.Semaphore(concurrency)

    async def call(row: Row) -> RowResult:
        async with slots:
            return await function(row)

    window: deque[asyncio.Task[RowResult]] = deque()
    row_iterator = iter(rows)
    try:
        while True:
            while len(window) < concurrency * WINDOW_SLACK and (row := next(row_iterator, None)) is not None:
                window.append(asyncio.create_task(call(row)))
            if not window:
                return
            yield await window[0]
            window.popleft()
    finally:
        for task in window:
            task.cancel()
        await asyncio.gather(*window, return_exceptions=True)

"""Signals: the first SIGINT ends a verb's work cleanly, SIGTERM lets go of it so that it can be resumed, a second one leaves at once."""

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
"""Seconds that plain functions are given to return in, once the process was told to end: `docker stop` kills it after ten."""
COMMIT_WAIT_SECONDS = 2.0
"""Seconds that Ctrl-Z waits for a transaction at most; one that takes longer waits for the lock itself."""
JOIN_SECONDS = 0.2
"""Seconds in which the threads of functions that have returned are gone."""


class StopSignal:
    """Whether the process was told to end, and how. Handlers of its own, and not the loop's, work while the loop is blocked too."""

    def __init__(self) -> None:
        self.terminating = False
        """Whether it was SIGTERM: what is under way is let go of, not cancelled."""
        self.run = ""
        """The run that is being carried out, for whoever wants to go on with it."""
        self.requested = False
        """Whether there was a signal. Work that does not wait hears of it here alone."""

    @property
    def resume_hint(self) -> str:
        """How to go on with what is let go of; empty where nothing is under way."""
        return f"go on with: orchestra runs resume {self.run}" if self.run else ""

    @contextmanager
    def handle_signals(self, task: asyncio.Task[Any]) -> Iterator[None]:
        """While it lasts, a signal cancels the task, and a second one ends the process. One that finds a read under way ends the read."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = task.get_loop()

        def heard(number: int, _: FrameType | None) -> None:
            if self.requested:
                self._exit_now(INTERRUPTED if number == signal.SIGINT else TERMINATED)
            self.requested, self.terminating = True, number == signal.SIGTERM
            if INTERRUPTIBLE.get():
                raise asyncio.CancelledError
            if number == signal.SIGINT and self.run and sys.stderr.isatty():
                os.write(2, b"\nthe run is being cancelled; Ctrl-C once more leaves at once\n")
            loop.call_soon_threadsafe(task.cancel)

        before = {number: signal.signal(number, heard) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _exit_now(self, code: int) -> None:
        """Ends the process without another step: its runs are interrupted, as if the power were cut, and can be resumed."""
        os.write(2, f"left at once{f'; {self.resume_hint}' if self.resume_hint else ''}\n".encode())
        os._exit(code)


@contextmanager
def suspend_between_commits(journal: Journal) -> Iterator[None]:
    """While it lasts, Ctrl-Z (SIGTSTP) stops the process after the transaction of the journal that is under way: a process that is stopped
    inside of one keeps all others from writing. SIGSTOP cannot be handled."""
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

    def stop(_number: int, _frame: FrameType | None) -> None:
        with journal.pause_transactions(COMMIT_WAIT_SECONDS):
            os.kill(os.getpid(), signal.SIGSTOP)

    signal.signal(number, stop)
    try:
        yield
    finally:
        signal.signal(number, signal.SIG_DFL)


def run_with_signals(work: Callable[[StopSignal], Coroutine[Any, Any, T]]) -> T:
    """`asyncio.run` for verbs that carry out runs. Raises `KeyboardInterrupt` after SIGINT and `typer.Exit` 143 after SIGTERM."""
    stop = StopSignal()

    async def main() -> T:
        task = asyncio.current_task()
        assert task is not None  # a coroutine that runs is in a task
        with stop.handle_signals(task):
            return await work(stop)

    try:
        return asyncio.run(main())
    except asyncio.CancelledError as error:
        if stop.terminating:
            raise typer.Exit(TERMINATED) from error
        raise KeyboardInterrupt from error


def exit_process(code: int) -> None:
    """Ends a process that was told to end, though plain functions of tools still run, which nobody can cancel: after `GRACE_SECONDS`, or at another
    signal. Python itself would wait until they return.

    Its runs were let go of, and are on disk: what these functions give is asked for no more, and a call of theirs is one that was cut off.
    """
    if threading.active_count() == 1:
        return
    from orchestra.app.workers import THREAD_PREFIX

    threads = [one for one in threading.enumerate() if one.name.startswith(THREAD_PREFIX)]
    if not _join_threads(threads, JOIN_SECONDS):
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: os._exit(code))
        busy = pluralize(sum(one.is_alive() for one in threads), "plain function")
        os.write(2, f"waits for {busy}, for at most {GRACE_SECONDS:g} s; another signal leaves at once\n".encode())
        if not _join_threads(threads, GRACE_SECONDS):
            sys.stdout.flush()
            os._exit(code)


def _join_threads(threads: Sequence[threading.Thread], seconds: float) -> bool:
    end = time.monotonic() + seconds
    for one in threads:
        one.join(max(0.0, end - time.monotonic()))
    return not any(one.is_alive() for one in threads)


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


Row = TypeVar("Row")
RowResult = TypeVar("RowResult")

WINDOW_SLACK = 4
"""Rows a concurrent call that are begun or wait to be written: so a slow row does not stop those behind it at once."""


async def map_in_order(
    rows: Iterable[Row], function: Callable[[Row], Awaitable[RowResult]], concurrency: int
) -> AsyncGenerator[RowResult, None]:
    """Yields the result of `function` for each row, in order, with at most `concurrency` calls at once.

    When the reader stops early, or `function` raises, the tasks that are under way are cancelled and awaited.
    """
    places = asyncio.Semaphore(concurrency)

    async def one(row: Row) -> RowResult:
        async with places:
            return await function(row)

    window: deque[asyncio.Task[RowResult]] = deque()
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

"""The engine's handle of one run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from typing import TYPE_CHECKING, Self

import msgspec

from orchestra.core.errors import OrchestraError
from orchestra.core.events import Event, QuestionAsked, RunFinished, RunStarted
from orchestra.core.lifecycle import LoopAffinity
from orchestra.core.outcomes import FailedOutcome
from orchestra.core.protocols import Journal, Workers
from orchestra.workflows.program import Program

if TYPE_CHECKING:
    from orchestra.engine.streaming import TextPiece, TextStream

NOT_STORABLE = "J004"
"""Error code of the journal for an event that it cannot store: too large, or not JSON."""


class Execution:
    """One execution of a program: wait for its end, read its events, cancel it. While the run waits for a person, this
    handle is all that is left of it in memory.
    """

    __slots__ = (
        "_affinity",
        "_answered_questions",
        "_cancel",
        "_end",
        "_error",
        "_open_questions",
        "_waiters",
        "flushed",
        "id",
        "journal",
        "log",
        "log_offset",
        "program",
        "started",
        "text_stream",
        "workers",
    )  # fmt: skip

    program: Program
    """Set by the engine before it drives the run."""
    workers: Workers
    """Make the calls of the run; set together with `program`."""

    def __init__(self, run: str, journal: Journal, log: list[Event] | None = None) -> None:
        self.id = run
        self.journal = journal
        self.log: list[Event] = log if log is not None else []
        """The latest events. The last few may not be on disk yet; `events` yields only those that are."""
        self.flushed = len(self.log)
        """How many events of `log` were passed to the journal. Readers see no others."""
        self.text_stream: TextStream | None = None
        """The text that models write; None unless the run is read live."""
        self.log_offset = 0
        """How many events precede `log`. The journal has them."""
        first = self.log[0] if self.log else None
        self.started = first if isinstance(first, RunStarted) else None
        last = self.log[-1] if self.log else None
        self._end = last if isinstance(last, RunFinished) else None
        self._error: BaseException | None = None
        self._open_questions: tuple[QuestionAsked, ...] = ()
        self._answered_questions: set[int] = set()
        """Event numbers of questions whose answers are in the inbox but may not be handled yet."""
        self._waiters: list[asyncio.Future[None]] = []
        self._cancel: Callable[[str], None] | None = None
        self._affinity: LoopAffinity | None = None

    # Called by the engine

    def flush(self) -> None:
        """Passes new events to the journal, and wakes the readers."""
        if self.flushed < len(self.log):
            fresh = self.log[self.flushed :]
            try:
                self.journal.append(self.id, fresh)
            except OrchestraError as error:
                if error.code != NOT_STORABLE:
                    self.flushed = len(self.log)
                    raise
                self._flush_individually(fresh)
            self.flushed = len(self.log)
            if self._waiters:
                self.wake()

    def _flush_individually(self, fresh: Sequence[Event]) -> None:
        """Passes events to the journal one by one, up to one that it cannot store. Raises J004 for that event. If it is
        the last event of the run, because the whole output is too large, the run fails with that error instead.
        """
        for event in fresh:
            try:
                self.journal.append(self.id, [event])
            except OrchestraError as error:
                if error.code != NOT_STORABLE or not isinstance(event, RunFinished):
                    raise
                failed_outcome = FailedOutcome(error.code, error.message, "output", error.hint)
                self.log[-1] = msgspec.structs.replace(event, status="failed", outcome=failed_outcome)
                self.journal.append(self.id, self.log[-1:])
            self.flushed += 1

    def attach(self, cancel: Callable[[str], None], affinity: LoopAffinity) -> None:
        """Connects the handle to a driver on the engine's loop; `cancel(by)` cancels it."""
        self._cancel, self._open_questions, self._affinity = cancel, (), affinity

    def sleep(self, questions: Sequence[QuestionAsked], cancel: Callable[[str], None]) -> None:
        """Marks the run as waiting for persons. Its events so far are only in the journal."""
        self._open_questions, self._cancel, self._affinity = tuple(questions), cancel, self._affinity or LoopAffinity()
        self.log_offset += len(self.log)
        self.log.clear()
        self.flushed = 0
        self.wake()

    def mark_answered(self, question: QuestionAsked) -> None:
        """Notes that the answer to a question is in the inbox."""
        self._answered_questions.add(question.seq)

    def end(self, finished: RunFinished | None, error: BaseException | None = None) -> None:
        """Ends the handle: with the last event, which is on disk, or with an error of the engine or the journal."""
        self._end, self._error, self._cancel = finished, error, None
        self.wake()
        if self.text_stream is not None:
            self.text_stream.wake()

    def enable_text_stream(self, enabled: bool = True) -> Self:
        """From now on keeps the text of models for readers (`text`), if `enabled`. It cannot be disabled again."""
        if enabled and self.text_stream is None:
            from orchestra.engine.streaming import TextStream

            self.text_stream = TextStream()
        return self

    def wake(self) -> None:
        """Wakes all waiting readers."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    # Called from any task

    def cancel(self, by: str = "") -> None:
        """Cancels the run and its calls, up to the servers. Finished nodes keep their values. Idempotent, and callable
        from any thread.
        """
        if self._cancel is not None and self._affinity is not None:
            self._affinity.call_on_loop(self._request_cancel, by)

    def _request_cancel(self, by: str) -> None:
        if self._cancel is not None:  # It may have ended meanwhile.
            self._cancel(by)

    @property
    def is_over(self) -> bool:
        """Whether the run has ended or failed."""
        return self._end is not None or self._error is not None

    @property
    def finished(self) -> RunFinished | None:
        """The last event, once it is on disk."""
        return self._end

    @property
    def questions(self) -> tuple[QuestionAsked, ...]:
        """Open questions to persons, while the run waits for nothing else; without those already answered."""
        return tuple(
            open_question for open_question in self._open_questions if open_question.seq not in self._answered_questions
        )

    async def wait(self) -> RunFinished:
        """Returns the last event, once it is on disk. Cancelling the wait does not cancel the run.

        Raises:
            BaseException: The error that stopped the engine or the journal.
        """
        while self._end is None:
            if self._error is not None:
                raise self._error
            await self._next_change()
        return self._end

    async def wait_started(self) -> None:
        """Waits until the first event is on disk. Raises as `wait` does."""
        while not self.flushed and not self.log_offset and not self.is_over:
            await self._next_change()
        if self._error is None and self._end is None:
            await self.journal.wait_durable(self.id, 1)
        if self._error is not None:
            raise self._error

    async def wait_until_blocked(self) -> RunFinished | None:
        """Returns the last event; or None as soon as the run only waits for a person. An answer that is not handled yet
        counts as progress. Raises as `wait` does.
        """
        while (
            self._end is None
            and self._error is None
            and not (self._open_questions and self.questions == self._open_questions)
        ):
            await self._next_change()
        if self._error is not None:
            raise self._error
        return self._end

    async def history(self) -> list[Event]:
        """Returns all events so far."""
        if not self.log_offset:
            return self.log
        return [*(await self.journal.read(self.id))[: self.log_offset], *self.log]

    async def events(self, after: int = 0) -> AsyncGenerator[Event, None]:
        """Yields the events with `seq > after` once they are on disk, to the last one. Raises as `wait` does."""
        position = after
        if self._affinity is not None:
            self._affinity.check()
        while True:
            batch = await self._events_since(position)
            if not batch:
                if self._error is not None:
                    raise self._error
                if self._end is not None:
                    return
                await self._next_change()
                continue
            if self._end is None:  # Otherwise everything is on disk.
                await self.journal.wait_durable(self.id, batch[-1].seq)
            for event in batch:
                yield event
            position += len(batch)

    async def text(
        self, stream: TextStream, nodes: Collection[str], agents: Collection[str]
    ) -> AsyncGenerator[TextPiece, None]:
        """Yields pieces of text that models write in this process, of these nodes and agents, or of all. Raises as
        `wait` does.
        """
        if self._affinity is not None:
            self._affinity.check()
        with stream.open_reader(nodes, agents) as reader:
            while True:
                if (piece := reader.take()) is not None:
                    yield piece
                elif self._error is not None:
                    raise self._error
                elif self._end is not None:
                    return
                else:
                    await reader.wait_for_more()

    async def _events_since(self, position: int) -> list[Event]:
        if position >= self.log_offset:
            return self.log[position - self.log_offset : self.flushed]
        return (await self.journal.read(self.id, position))[: self.log_offset - position]

    def _next_change(self) -> asyncio.Future[None]:
        """Returns a future that is done at the next change. Raises `InputError` E030 on another event loop than the
        engine's.
        """
        if self._affinity is not None:
            self._affinity.check()
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters = [waiter for waiter in self._waiters if not waiter.done()]  # Drop waiters that gave up.
        self._waiters.append(future)
        return future

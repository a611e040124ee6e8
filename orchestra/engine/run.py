"""Runs: the handle of one execution, for whoever started it."""

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
"""Code of the journal for an event that it cannot keep: it is too large, or no JSON."""


class Execution:
    """One execution of a program: wait for its end, watch its events, cancel it. It outlives the times at which the run waits for a
    person, when nothing of the run is in memory but this."""

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
    """The program of the run; set by the engine before it drives the run."""
    workers: Workers
    """The workers that make its calls; set together with `program`."""

    def __init__(self, run: str, journal: Journal, log: list[Event] | None = None) -> None:
        self.id = run
        self.journal = journal
        self.log: list[Event] = log if log is not None else []
        """The latest events. Those that `events` gives are on disk; the last few here may not be."""
        self.flushed = len(self.log)
        """How many of `log` the journal has in line; readers see no others."""
        self.text_stream: TextStream | None = None
        """What its models write; None where nobody asked for it."""
        self.log_offset = 0
        """How many events came before those of `log`; the journal has them."""
        first = self.log[0] if self.log else None
        self.started = first if isinstance(first, RunStarted) else None
        last = self.log[-1] if self.log else None
        self._end = last if isinstance(last, RunFinished) else None
        self._error: BaseException | None = None
        self._open_questions: tuple[QuestionAsked, ...] = ()
        self._answered_questions: set[int] = set()
        """The numbers of questions whose answers lie in the inbox; the run may not have opened them."""
        self._waiters: list[asyncio.Future[None]] = []
        self._cancel: Callable[[str], None] | None = None
        self._affinity: LoopAffinity | None = None

    # What the engine says

    def flush(self) -> None:
        """What has happened goes into the journal's line, and those who watch may see it."""
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
        """What stands before an event that the journal cannot keep goes into its line, so that nothing of it is done again. Raises J004
        for that event; but a whole output that cannot be kept, where each value could, is the end of a run that failed for that."""
        for event in fresh:
            try:
                self.journal.append(self.id, [event])
            except OrchestraError as error:
                if error.code != NOT_STORABLE or not isinstance(event, RunFinished):
                    raise
                failed = FailedOutcome(error.code, error.message, "output", error.hint)
                self.log[-1] = msgspec.structs.replace(event, status="failed", outcome=failed)
                self.journal.append(self.id, self.log[-1:])
            self.flushed += 1

    def attach(self, cancel: Callable[[str], None], affinity: LoopAffinity) -> None:
        """The engine has the run in hand, on its loop; `cancel(by)` reaches it."""
        self._cancel, self._open_questions, self._affinity = cancel, (), affinity

    def sleep(self, questions: Sequence[QuestionAsked], cancel: Callable[[str], None]) -> None:
        """The run waits for persons; its events so far are in the journal alone."""
        self._open_questions, self._cancel, self._affinity = tuple(questions), cancel, self._affinity or LoopAffinity()
        self.log_offset += len(self.log)
        self.log.clear()
        self.flushed = 0
        self.wake()

    def mark_answered(self, question: QuestionAsked) -> None:
        """The answer to a question of this run lies in its inbox: it will go on."""
        self._answered_questions.add(question.seq)

    def end(self, finished: RunFinished | None, error: BaseException | None = None) -> None:
        """The run is over, its last event on disk; or the engine or the journal broke."""
        self._end, self._error, self._cancel = finished, error, None
        self.wake()
        if self.text_stream is not None:
            self.text_stream.wake()

    def enable_text_stream(self, enabled: bool = True) -> Self:
        """Has what models write from now on kept for those who read it (`text`), where that is wanted. Nobody takes that back."""
        if enabled and self.text_stream is None:
            from orchestra.engine.streaming import TextStream

            self.text_stream = TextStream()
        return self

    def wake(self) -> None:
        """Something has happened: those who wait look again."""
        waiters, self._waiters = self._waiters, []
        for waiting in waiters:
            if not waiting.done():
                waiting.set_result(None)

    # What everybody may ask

    def cancel(self, by: str = "") -> None:
        """Asks the run to end. Its calls are cancelled up to the servers; what has finished stays. Idempotent; from any thread."""
        if self._cancel is not None and self._affinity is not None:
            self._affinity.call_on_loop(self._request_cancel, by)

    def _request_cancel(self, by: str) -> None:
        if self._cancel is not None:  # it may have ended meanwhile
            self._cancel(by)

    @property
    def is_over(self) -> bool:
        """Whether nothing will come any more."""
        return self._end is not None or self._error is not None

    @property
    def finished(self) -> RunFinished | None:
        """The last event, once it is on disk."""
        return self._end

    @property
    def questions(self) -> tuple[QuestionAsked, ...]:
        """What persons are asked, while the run waits for nothing else; without what was answered here and not taken yet."""
        return tuple(one for one in self._open_questions if one.seq not in self._answered_questions)

    async def wait(self) -> RunFinished:
        """The last event, on disk. Cancelling this wait does not cancel the run. Raises what broke the engine or the journal."""
        while self._end is None:
            if self._error is not None:
                raise self._error
            await self._next_change()
        return self._end

    async def wait_started(self) -> None:
        """Waits until the first event is on disk. Raises what broke the engine or the journal meanwhile."""
        while not self.flushed and not self.log_offset and not self.is_over:
            await self._next_change()
        if self._error is None and self._end is None:
            await self.journal.wait_durable(self.id, 1)
        if self._error is not None:
            raise self._error

    async def wait_until_blocked(self) -> RunFinished | None:
        """The last event, on disk; or None as soon as the run waits for a person and for nothing else, such as an answer that was given
        here and not taken yet. Raises as `wait` does."""
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
        """All events so far."""
        if not self.log_offset:
            return self.log
        return [*(await self.journal.read(self.id))[: self.log_offset], *self.log]

    async def events(self, after: int = 0) -> AsyncGenerator[Event, None]:
        """The events with `seq > after` as they get durable, up to the last one. Every reader sees the same. Raises as `wait` does."""
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
            if self._end is None:  # else all is on disk
                await self.journal.wait_durable(self.id, batch[-1].seq)
            for event in batch:
                yield event
            position += len(batch)

    async def text(
        self, stream: TextStream, nodes: Collection[str], agents: Collection[str]
    ) -> AsyncGenerator[TextPiece, None]:
        """The pieces that are written in this process, of these nodes and agents, or of all. Raises as `wait` does."""
        if self._affinity is not None:
            self._affinity.check()
        with stream.open_reader(nodes, agents) as unread:
            while True:
                if (piece := unread.take()) is not None:
                    yield piece
                elif self._error is not None:
                    raise self._error
                elif self._end is not None:
                    return
                else:
                    await unread.wait_for_more()

    async def _events_since(self, position: int) -> list[Event]:
        if position >= self.log_offset:
            return self.log[position - self.log_offset : self.flushed]
        return (await self.journal.read(self.id, position))[: self.log_offset - position]

    def _next_change(self) -> asyncio.Future[None]:
        """Done as soon as something happens to the run. Raises `InputError` E030 on another event loop than that of the engine."""
        if self._affinity is not None:
            self._affinity.check()
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters = [one for one in self._waiters if not one.done()]  # whoever gave up waiting is forgotten
        self._waiters.append(waiting)
        return waiting

"""The engine: executes any number of runs on one event loop, behind the protocols clock, journal and workers."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from orchestra.core.error_codes import LEASE_HELD, LEASE_LOST, RUN_ENDED
from orchestra.core.errors import OrchestraError
from orchestra.core.event_logging import CALLER_TRACE, HistoryObserver, Observer, combine_observers
from orchestra.core.events import (
    NO_USAGE,
    AttemptFinished,
    CancelRequested,
    Event,
    QuestionAsked,
    RunFinished,
    RunResumed,
    RunStarted,
)
from orchestra.core.lifecycle import LoopAffinity
from orchestra.core.outcomes import FailedOutcome
from orchestra.core.protocols import Clock, InboxMessage, Journal, Workers
from orchestra.engine import deadlines
from orchestra.engine.driver import Driver
from orchestra.engine.evolve import evolve
from orchestra.engine.request import RunRequest
from orchestra.engine.run import Execution
from orchestra.engine.state import RunState, WorkItem
from orchestra.schema.types import Validator
from orchestra.workflows.program import Program, stop_at_plan

if TYPE_CHECKING:
    from orchestra.engine.run_context import RunContext, Tracer

OWNED_ELSEWHERE = (LEASE_HELD, RUN_ENDED, LEASE_LOST)
"""Error codes of runs that this process does not hold: another process has the lease, or the run has ended."""
TOO_LATE = "its time was up"
"""Why an answer is rejected that arrived after the deadline of its question."""
MAX_VALIDATORS = 4_096
"""Size of the validator cache. A program that is compiled again has schemas of its own."""
POLL_INTERVAL = 0.5
"""Seconds between polls of a run that another process holds."""
_PLAIN_TYPES: Mapping[str, type] = {"string": str, "integer": int, "boolean": bool}
_PLAIN_SCHEMA_KEYS = frozenset({"type", "title", "description"})


@dataclass(frozen=True, slots=True)
class EngineActivity:
    """What an engine does at one moment."""

    running: int
    """Runs with a driver."""
    waiting: int
    """Runs that wait for a person."""
    followed: int
    """Runs that another process holds, and that a caller of this process waits for."""
    calls: int
    """Calls in progress."""
    queued_calls: int
    """Calls that wait for a task."""


class Engine:
    """Runs programs. A run that waits for a person is released from memory, and resumed when a message arrives."""

    def __init__(
        self,
        clock: Clock,
        journal: Journal,
        workers: Workers,
        *,
        concurrency: int = 256,
        strict: bool = False,
        observe: Observer | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self.clock, self.journal, self.workers, self.observe = clock, journal, workers, observe
        self.tracer = tracer
        """Follows runs and calls for traces; None unless they are exported."""
        self._restorers: list[HistoryObserver] = [] if tracer is None else [tracer.restore]
        """Get the earlier events of a run before it is continued."""
        self.concurrency = concurrency
        """Concurrent calls per run at most."""
        self.strict = strict
        """Whether every call waits until the events before it are on disk; otherwise only calls with effects do."""
        self._drivers: dict[str, Driver] = {}
        self._finishing: dict[str, asyncio.Task[None]] = {}
        """The last step of runs that end or go to sleep, by run."""
        self._sleeping: dict[str, Execution] = {}
        self._timers: dict[str, asyncio.Task[None]] = {}
        """Timers of sleeping runs that have a deadline."""
        self._resuming: dict[str, tuple[asyncio.Task[None], Execution]] = {}
        """Resumptions in progress. Each run is resumed by one task, however many callers wait for it."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._followers: dict[str, tuple[asyncio.Task[None], Execution]] = {}
        """Runs that another process holds, with the task that polls their events."""
        self._inbox_task: asyncio.Task[None] | None = None
        self._affinity: LoopAffinity | None = None
        """The event loop of the runs."""
        self._validators: dict[int, tuple[dict[str, Any], type | None, Validator]] = {}
        """Validators by the identity of their schema, which is kept alive here; with the exact Python type of a plain
        schema.
        """
        self._closed = False

    def start(self, program: Program, request: RunRequest, *, workers: Workers | None = None) -> Execution:
        """Starts a run of a program.

        Args:
            program: The compiled workflow.
            request: The request; its inputs are already checked against the types of `program`.
            workers: Makes the calls of this run instead of the engine's own workers.

        Raises:
            InputError: R030: only a plan is requested, and `program` is not that of a request.
        """
        program = stop_at_plan(program) if request.plan_only else program
        handle = Execution(request.run or self.clock.new_id(), self.journal).enable_text_stream(request.options.live)
        trace = CALLER_TRACE.get() if self.tracer is None else self.tracer.caller()
        request = msgspec.structs.replace(request, trace=trace) if trace else request
        start_event = request.started_event(handle.id, program.name, program.budget, self.clock.now())
        handle.started = start_event
        handle.program, handle.workers = program, workers or self.workers
        driver = self._create_driver(handle, RunState(self.concurrency, handle.workers.estimate))
        driver.use_memo = request.options.memo
        driver.record(start_event)
        driver.begin()
        return handle

    async def resume(
        self, program: Program, run: str, *, by: str = "", workers: Workers | None = None, stream_text: bool = False
    ) -> Execution:
        """Resumes a run that no live process holds. Calls that have ended are not made again.

        Args:
            program: The program with which the run began.
            run: The id of the run.
            by: Who resumes it, for the event `RunResumed`.
            workers: Make the calls of this run instead of the engine's own workers.
            stream_text: Whether the text of models can be read while they write it.

        Raises:
            JournalError: J022: a live process holds the lease; J023: there is no such run; J006: the run has ended.
            OrchestraError: E018: the events do not match `program`.
        """
        if run in self._drivers and not self._drivers[run].ending:
            return self._drivers[run].run.enable_text_stream(stream_text)
        handle = (self.find_run(run) or Execution(run, self.journal)).enable_text_stream(stream_text)
        if run not in self._resuming:
            handle.program, handle.workers = program, workers or self.workers
        await self._resume_once(handle, by)
        return self.find_run(run) or handle

    async def _resume_once(self, run: Execution, by: str, alarm_time: float = 0.0) -> None:
        """Resumes a run in one task; other callers wait for the same task. `alarm_time` is the time of the timer that
        caused it.
        """
        if run.id not in self._resuming:
            task = asyncio.get_running_loop().create_task(self._acquire(run, by, alarm_time))
            self._resuming[run.id] = (task, run)
            task.add_done_callback(lambda _: self._resuming.pop(run.id, None))
        await asyncio.shield(self._resuming[run.id][0])

    async def _acquire(self, run: Execution, by: str, alarm_time: float) -> None:
        epoch = await self.journal.lease(run.id)
        try:
            await self._continue(run, epoch, by, alarm_time)
        except BaseException:
            if run.id not in self._drivers:  # Never driven here: another process may resume it.
                with suppress(OrchestraError):
                    await self.journal.release(run.id)
            raise

    async def _continue(self, run: Execution, epoch: int, by: str, alarm_time: float) -> None:
        """Continues a run whose lease this journal holds, or lets it sleep again if it still waits for a person."""
        events = await self.journal.read(run.id)
        for restore in self._restorers:
            restore(run.id, events)
        state = self.fold(run.program, events, run.workers)
        messages = await self.journal.inbox(run.id, state.last_message)
        first = events[0]
        run.started = first if isinstance(first, RunStarted) else None
        run.log_offset, run.log, run.flushed = len(events), [], 0
        late = (waits := deadlines.next_due(state)) is not None and waits.due <= max(alarm_time, self.clock.now())
        if state.is_idle and not messages and not state.cancelled and not late:
            await self.journal.release(run.id)
            await self._sleep(run, state)
            return
        driver = self._create_driver(run, state)
        self._remove_sleeping(run.id)
        driver.use_memo = bool(run.started and run.started.options.get("memo"))
        now = self.clock.now()
        driver.record(
            RunResumed(seq=state.seq + 1, at=now, epoch=epoch, by=by, idle_seconds=max(0.0, now - events[-1].at))
        )
        state.prune()
        driver.begin(messages, alarm_time)

    async def terminate(self, run: str, by: str) -> None:
        """Ends a run that no process holds, without its program. Raises `JournalError` J022, J023, J006 as `resume`
        does.
        """
        await self.journal.lease(run)
        try:
            await self._write_cancellation(run, by)
        except OrchestraError:
            with suppress(OrchestraError):
                await self.journal.release(run)
            raise

    async def _write_cancellation(self, run: str, by: str) -> None:
        events = await self.journal.read(run)
        messages = await self.journal.inbox(run)
        seq, at = events[-1].seq, self.clock.now()
        usage = sum((event.usage for event in events if isinstance(event, AttemptFinished)), NO_USAGE)
        outcome = FailedOutcome("E008", f"cancelled{f' by {by}' if by else ''}", hint=f"orchestra runs show {run}")
        last = (
            CancelRequested(seq=seq + 1, at=at, by=by, message_number=messages[-1].number if messages else 0),
            RunFinished(seq=seq + 2, at=at, status="cancelled", outcome=outcome, usage=usage),
        )
        self.journal.append(run, last)
        for restore in self._restorers:
            restore(run, events)
        if self.observe is not None:
            for event in last:
                self.observe(run, event)
        await self.journal.wait_durable(run, seq + 2)

    def fold(self, program: Program, events: Sequence[Event], workers: Workers) -> RunState:
        """Returns the state after some events. `workers` estimate the cost of calls.

        Raises:
            OrchestraError: E018: the events do not match `program`.
        """
        state = RunState(self.concurrency, workers.estimate)
        for event in events:
            try:
                evolve(state, event, program)
            except (KeyError, IndexError) as error:
                message = f"event {event.seq} of run {state.run} names {error}, which its workflow does not have"
                raise OrchestraError("E018", message, hint=f"orchestra runs fork {state.run}") from error
        state.prune()
        return state

    def _create_driver(self, run: Execution, state: RunState) -> Driver:
        if self._closed:
            raise OrchestraError(
                "E017", "the engine is closed", hint="open another: async with Orchestra.open() as orchestra"
            )
        driver = self._drivers[run.id] = Driver(self, run, state)
        self._affinity = self._affinity or LoopAffinity()
        run.attach(driver.cancel, self._affinity)
        self._ensure_inbox_task()
        return driver

    def _ensure_inbox_task(self) -> None:
        """Starts the task that delivers inbox messages, unless it runs."""
        if self._inbox_task is None or self._inbox_task.done():
            self._inbox_task = asyncio.get_running_loop().create_task(self._deliver_messages(), name="inbox")

    def add_observer(self, observer: Observer, restore: HistoryObserver | None = None) -> None:
        """Calls `observer` with each further event of all runs that this engine drives, and `restore` with the earlier
        events of a run that it continues. They must not raise.
        """
        self.observe = combine_observers(self.observe, observer)
        if restore is not None:
            self._restorers.append(restore)

    def activity(self) -> EngineActivity:
        """Returns what this engine does now."""
        drivers = self._drivers.values()
        return EngineActivity(
            running=len(self._drivers),
            waiting=len(self._sleeping),
            followed=len(self._followers),
            calls=sum(invoke is not None for driver in drivers for invoke in driver.tasks.values()),
            queued_calls=sum(len(driver.queue) - driver.queue_head for driver in drivers),
        )

    def find_run(self, run: str) -> Execution | None:
        """Returns the run with this id if this engine drives it, resumes it, has it asleep or follows it."""
        if run in self._drivers:
            return self._drivers[run].run
        if run in self._resuming:
            return self._resuming[run][1]
        if run in self._sleeping:
            return self._sleeping[run]
        return self._followers[run][1] if run in self._followers else None

    # What drivers need

    def validation_error(self, schema: dict[str, Any], value: Any) -> str | None:
        """Returns why a value does not match a schema; None if it does."""
        cache_entry = self._validators.get(id(schema))
        if cache_entry is None:
            exact = (
                _PLAIN_TYPES.get(schema["type"])
                if schema.keys() <= _PLAIN_SCHEMA_KEYS and isinstance(schema.get("type"), str)
                else None
            )
            if len(self._validators) >= MAX_VALIDATORS:
                self._validators.clear()
            cache_entry = self._validators[id(schema)] = (schema, exact, Validator(schema))
        if type(value) is cache_entry[1]:
            return None
        return cache_entry[2].check(value)

    def rejection_reason(self, question: QuestionAsked, message: InboxMessage) -> str:
        """Returns why an answer to a question is rejected; empty if it is accepted."""
        if message.question_digest != question.question_digest:
            return "the question has changed since it was shown"
        if message.question_seq not in (0, question.seq):
            return "it was asked again since it was shown"
        if question.due and message.at >= question.due:
            return TOO_LATE
        if message.call_happened:
            return (
                "it is declined, and says what the call gave"
                if message.decline_reason
                else _result_rejection(question, message.value)
            )
        if message.decline_reason:
            return f"the answer must be one of: {' or '.join(question.options)}" if question.kind == "effect" else ""
        if question.options and message.value not in question.options:
            return f"the answer is none of {', '.join(question.options)}"
        # Not `validation_error`: its cache would keep the schema of every question.
        return (Validator(question.schema).check(message.value) if question.schema else None) or ""

    def finish(self, driver: RunContext, last: Coroutine[Any, Any, None]) -> None:
        """Awaits the last step of a driver in a task, and drops the driver."""
        run = driver.run
        task = self._finishing[run.id] = self._create_task(self._finish(driver, last))
        task.add_done_callback(lambda ended_task: self._on_finish_done(run, ended_task))

    def _on_finish_done(self, run: Execution, task: asyncio.Task[None]) -> None:
        """Ends the run if its last step raised, so that no caller waits forever."""
        if not task.cancelled() and (error := task.exception()) is not None and not run.is_over:
            run.end(None, error)
            self._stop_inbox_task()

    async def _finish(self, driver: RunContext, last: Coroutine[Any, Any, None]) -> None:
        run = driver.run
        try:
            await last
        except OrchestraError as error:
            with suppress(OrchestraError):  # If the end could not be recorded, the run can be resumed.
                await self.journal.release(run.id)
            run.end(None, error)
        finally:
            self._drivers.pop(run.id, None)
            self._finishing.pop(run.id, None)
        if run.is_over:
            self._stop_inbox_task()
        else:
            await self._sleep(run, driver.state)

    async def _sleep(self, run: Execution, state: RunState) -> None:
        """Lets a run wait for persons. It is woken by an inbox message, also one that has already arrived, and by its
        first deadline.
        """
        if self._closed:
            run.end(None, _closed_error(run.id))
            return
        self._sleeping[run.id] = run
        self._ensure_inbox_task()
        self._set_timer(run, deadlines.next_due(state))
        run.sleep(list(state.open_questions.values()), lambda by: self.cancel(run.id, by))
        if await self.journal.inbox(run.id, state.last_message):
            self._create_task(self._notify(run.id))

    def _set_timer(self, run: Execution, unit: WorkItem | None) -> None:
        """Sets the timer that wakes a sleeping run at the deadline of `unit`; None removes it."""
        if (before := self._timers.pop(run.id, None)) is not None:
            before.cancel()
        if unit is not None:
            self._timers[run.id] = asyncio.get_running_loop().create_task(
                self._on_due(run, unit.due, deadlines.max_wait(unit))
            )

    async def _on_due(self, run: Execution, due: float, max_wait: float) -> None:
        await self.clock.sleep(min(max(0.0, due - self.clock.now()), max_wait))
        del self._timers[run.id]  # It must not cancel itself.
        if run.id in self._sleeping:
            self._create_task(self._wake(run, "a deadline", due))

    def _remove_sleeping(self, run: str) -> bool:
        """Removes a run from the sleeping runs; returns whether it was one."""
        if (alarm := self._timers.pop(run, None)) is not None:
            alarm.cancel()
        return self._sleeping.pop(run, None) is not None

    def cancel(self, run: str, by: str) -> None:
        """Cancels a run that waits for a person, or is about to, by an inbox message."""
        self._create_task(self._cancel(run, by))

    async def _cancel(self, run: str, by: str) -> None:
        if run in self._finishing:
            await asyncio.wait({self._finishing[run]})  # Its events may not be on disk yet.
        try:
            await self.journal.send(run, InboxMessage(kind="cancel", by=by, at=self.clock.now()))
        except OrchestraError as error:
            if (handle := self.find_run(run)) is not None and error.code != RUN_ENDED:
                handle.end(None, error)
        else:
            await self._notify(run)

    def _create_task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # Inbox messages

    async def _deliver_messages(self) -> None:
        """Delivers inbox messages to their runs. If the journal fails, sleeping runs end with its error."""
        try:
            while True:
                for run in await self.journal.wait_for_messages():
                    if self.find_run(run) is not None:
                        self._create_task(self._notify(run))
        except OrchestraError as error:
            for execution in self._sleeping.values():
                execution.end(None, error)
            self._sleeping.clear()

    async def _notify(self, run: str) -> None:
        """Passes the inbox of a run to its driver; resumes a sleeping run."""
        try:
            while run in self._resuming:
                await asyncio.wait({self._resuming[run][0]})
            if run in self._drivers:
                await self._drivers[run].read_inbox()
            elif run in self._sleeping:
                await self._wake(self._sleeping[run], "a message")
        except OrchestraError as error:
            if (handle := self.find_run(run)) is not None:
                self._remove_sleeping(run)
                handle.end(None, error)

    async def _wake(self, run: Execution, by: str, alarm_time: float = 0.0) -> None:
        """Resumes a sleeping run; follows it if another process was faster. An error ends the run, so that its callers
        see it.
        """
        try:
            await self._resume_once(run, by, alarm_time)
        except OrchestraError as error:
            # Another task resumes the run: it must not be followed as well.
            if run.id in self._resuming:
                await self._notify(run.id)
                return
            asleep = self._remove_sleeping(run.id)
            if error.code not in OWNED_ELSEWHERE:
                run.end(None, error)
            elif asleep and self._closed:
                run.end(None, _closed_error(run.id))
            elif asleep:  # Otherwise another message resumed it too, and that task did the rest.
                follower = asyncio.get_running_loop().create_task(self._follow(run))
                self._followers[run.id] = (follower, run)
                follower.add_done_callback(lambda _: self._followers.pop(run.id, None))

    async def _follow(self, run: Execution) -> None:
        """Polls the events of a run that another process holds, and resumes the run when that process drops it."""
        try:
            while True:
                events = await self.journal.read(run.id, run.log_offset)
                if self._owns(run):
                    return
                if events and run.id not in self._resuming:
                    run.log_offset += len(events)
                    run.wake()
                    if isinstance(events[-1], RunFinished):
                        run.end(events[-1])
                        return
                await self.clock.sleep(POLL_INTERVAL)
                if self._owns(run):
                    return
                try:
                    await self._resume_once(run, "who watched it")
                except OrchestraError as error:
                    if error.code not in OWNED_ELSEWHERE:
                        raise
                else:
                    return
        except OrchestraError as error:
            run.end(None, error)
        finally:
            if self._closed and not run.is_over:
                run.end(None, _closed_error(run.id))

    def _owns(self, run: Execution) -> bool:
        """Whether this engine drives the run, has it asleep, or has ended it."""
        return run.is_over or run.id in self._drivers or run.id in self._sleeping

    def _stop_inbox_task(self) -> None:
        """Cancels the inbox task if no run is left."""
        if not self._drivers and not self._sleeping and not self._resuming and self._inbox_task is not None:
            self._inbox_task.cancel()
            self._inbox_task = None

    async def wait_idle(self, seconds: float) -> int:
        """Waits until no run is driven here, at most this long; returns the number of those that still are. Runs that
        wait for persons do not count.
        """
        ends = [asyncio.ensure_future(driver.run.wait()) for driver in self._drivers.values()]
        if ends:
            _, running_tasks = await asyncio.wait(ends, timeout=seconds)
            for end in ends:
                end.cancel()
            await asyncio.gather(*ends, return_exceptions=True)
            return len(running_tasks)
        return 0

    async def close(self) -> None:
        """Stops all runs and waits for their tasks. Interrupted runs can be resumed."""
        self._closed = True
        for driver in list(self._drivers.values()):
            driver.stop(_closed_error(driver.run.id))
        for execution in self._sleeping.values():
            execution.end(None, _closed_error(execution.id))
        idle = [*(task for task, _ in self._followers.values()), *self._timers.values()]
        idle += [self._inbox_task] if self._inbox_task is not None else []
        for task in idle:
            task.cancel()
        resume_tasks = [task for task, _ in self._resuming.values()]
        await asyncio.gather(*self._tasks, *resume_tasks, *idle, return_exceptions=True)
        for driver in list(self._drivers.values()):  # Of runs that were being resumed.
            driver.stop(_closed_error(driver.run.id))
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _result_rejection(question: QuestionAsked, value: Any) -> str:
    """Returns why a value is not the result of a call in doubt; empty if it may be."""
    if question.kind != "effect":
        return "it asks for an answer, and not for what a call gave"
    if question.result_schema is None:
        return "it was asked by an older version, which takes no value of the call"
    return Validator(question.result_schema).check(value) or ""


def _closed_error(run: str) -> OrchestraError:
    error = OrchestraError(
        "E017", f"the engine was closed while run {run} was under way", hint=f"orchestra runs resume {run}"
    )
    return error.with_run(run)

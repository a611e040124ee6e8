"""The driver of one run: it executes the proposals of `decide`, and records the results as events."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, assert_never

from orchestra.core.error_codes import TIMEOUT
from orchestra.core.errors import OrchestraError
from orchestra.core.events import (
    NO_OPEN_QUESTION,
    AttemptFinished,
    CancelRequested,
    Event,
    InboxMessageRejected,
    MapExpanded,
    NodeFinished,
    QuestionAnswered,
    QuestionAsked,
    RetryPlanned,
    RunFinished,
    TokensCounted,
    TurnStarted,
)
from orchestra.core.outcomes import FailedOutcome, Outcome
from orchestra.core.protocols import CallError, CallRequest, CallResult, InboxMessage
from orchestra.engine import checks, deadlines, kinds
from orchestra.engine.call_results import (
    attempt_finished,
    attempt_recalled,
    attempt_started,
    call_streaming,
    confidence_key,
    no_reply_error,
    self_cancelled_error,
)
from orchestra.engine.check_budget import PendingCheck
from orchestra.engine.decide import decide, time_out
from orchestra.engine.evolve import evolve
from orchestra.engine.kinds import ask
from orchestra.engine.kinds.checks import has_timed_checks
from orchestra.engine.proposals import (
    AskPerson,
    CountTokens,
    EnterBody,
    ExpandMap,
    FinishNode,
    FinishRun,
    Invoke,
    Proposal,
    RecallPlan,
    RunChecks,
    ScheduleRetry,
    is_stale,
)
from orchestra.engine.run import Execution
from orchestra.engine.state import Phase, RunState, WorkItem, internal_error

if TYPE_CHECKING:
    from orchestra.engine.run_context import RunOwner

YIELD_INTERVAL = 256
"""Calls that return without waiting, after which a task yields to the event loop."""
RUNNING = Phase.RUNNING


class Driver:
    """The driver of one run.

    Calls run in tasks. A task that has finished a call takes the next one from the queue: a chain of quick calls needs
    one task. Events go to the journal once per turn of the event loop.
    """

    __slots__ = (
        "budget_timers",
        "clock",
        "ending",
        "engine",
        "flush_error",
        "flush_scheduled",
        "journal",
        "loop",
        "pending_checks",
        "pending_starts",
        "program",
        "queue",
        "queue_head",
        "run",
        "sleep_timer",
        "starting_tasks",
        "state",
        "tasks",
        "timers",
        "use_memo",
        "workers",
    )  # fmt: skip

    def __init__(self, engine: RunOwner, run: Execution, state: RunState) -> None:
        self.engine, self.program, self.workers = engine, run.program, run.workers
        self.clock, self.journal = engine.clock, engine.journal
        self.run, self.state = run, state
        self.loop = asyncio.get_running_loop()
        self.queue: list[Invoke] = []
        """Calls that wait for a task, from index `queue_head` on."""
        self.queue_head = 0
        self.tasks: dict[asyncio.Task[None], Invoke | None] = {}
        """The tasks of the run, each with its current call."""
        self.pending_checks: list[PendingCheck] | None = None
        """Values whose checks wait for the budget for checks; None if there were none so far."""
        self.starting_tasks = 0
        """Tasks that have not run yet."""
        self.timers: dict[str, asyncio.Task[None]] = {}
        """Timers of units that wait for a time, by path."""
        self.budget_timers: dict[str, asyncio.Task[None]] = {}
        """Timers of budgets with `seconds`: by the path of the unit that calls the workflow, empty for the run itself.
        """
        self.sleep_timer: asyncio.Task[None] | None = None
        """Checks again whether the run may sleep, if the next deadline is near."""
        self.use_memo = False
        """Whether answers are taken from the memo."""
        self.pending_starts: dict[str, Invoke] = {}
        """Calls whose start is not recorded yet, by path. A call that returns at once needs no start event."""
        self.flush_scheduled = False
        """Whether the end of this turn of the loop is scheduled."""
        self.flush_error: OrchestraError | None = None
        """The error of the journal at the end of a turn: its events are lost."""
        self.ending = False

    # Events

    def record(self, event: Event) -> None:
        """Applies an event to the state and adds it to the log; the journal gets it at the end of this turn of the
        loop.
        """
        if not self.flush_scheduled:
            self.schedule_flush()
        evolve(self.state, event, self.program)
        self.run.log.append(event)
        if self.engine.observe is not None:
            self.engine.observe(self.run.id, event)

    def schedule_flush(self) -> None:
        """Schedules the end of this turn of the loop."""
        self.flush_scheduled = True
        self.loop.call_soon(self._flush_turn)

    def _flush_turn(self) -> None:
        """Ends a turn of the loop: records the start of calls that are still running, and flushes the log to the
        journal.
        """
        invokes, self.pending_starts = self.pending_starts, {}
        try:
            for invoke in invokes.values():
                if self.ending:
                    break
                if invoke.unit.phase is RUNNING and invoke.unit.attempt < invoke.call.attempt:
                    self.record(attempt_started(self, invoke))
            self.flush_scheduled = False
            self.run.flush()
        except OrchestraError as error:
            self.flush_error = error
            self._fail(error)
        if self.pending_checks and not self.ending:
            with self._stop_on_error():
                # At the end of the turn, so that all values of the turn compete for the budget.
                if checks.allocate_budget(self):
                    self._continue()

    def stamp(self) -> dict[str, Any]:
        """Returns the number and the time of the next event."""
        return {"seq": self.state.seq + 1, "at": self.clock.now()}

    # Proposals

    def dispatch(self) -> None:
        """Executes the proposals of `decide` until there are none."""
        state = self.state
        has_work = True
        while has_work:
            has_work = False  # Calls alone change nothing yet.
            for proposal in decide(state):
                if type(proposal) is Invoke:
                    self.queue.append(proposal)
                elif state.finished is None:
                    has_work = True
                    if not is_stale(proposal):
                        self._execute(proposal)
        if not self.queue and not self.tasks and not self.ending and not self.pending_checks:
            self._sleep_if_idle()

    def _execute(self, proposal: Proposal) -> None:
        match proposal:
            case FinishNode(unit, outcome, instead, override_source):
                keeping = (
                    kinds.plan_cache.plan_to_cache(self.state, unit, outcome)
                    if unit.plan_progress is not None
                    else None
                )
                self.record(
                    NodeFinished(
                        **self.stamp(),
                        node=unit.path,
                        outcome=outcome,
                        original_outcome=instead,
                        overridden_by=override_source,
                    )
                )
                deadlines.cancel_timers(self, unit.path)
                if unit.plan_progress is not None or self.state.abandoned is not None:
                    self._cancel_abandoned()
                if keeping is not None:
                    for key in keeping.keys:
                        self.journal.put_memo(key, self.run.id, keeping.entry)
            case RunChecks():
                if (reading := checks.run_checks(self, proposal)) is not None:
                    self._create_task(reading)
            case ScheduleRetry(unit, attempt, low, high, reason):
                due = self.clock.now() + low + (high - low) * self.clock.random()
                self.record(RetryPlanned(**self.stamp(), node=unit.path, attempt=attempt, due=due, reason=reason))
                deadlines.set_timer(self, unit)
            case ExpandMap(unit, count):
                self.record(MapExpanded(**self.stamp(), node=unit.path, count=count))
            case EnterBody(unit, turn, draft, because):
                self.record(TurnStarted(**self.stamp(), node=unit.path, turn=turn, draft=draft, choice_reason=because))
                if turn == 1 and unit.due:
                    deadlines.set_timer(self, unit)
                deadlines.watch_budget(self, unit.body)
                if draft is not None:
                    self._cancel_abandoned()
            case AskPerson(unit):
                stamp = self.stamp()
                due = deadlines.answer_deadline(proposal, stamp["at"])
                self.record(QuestionAsked(**stamp, node=unit.path, due=due, **ask.question_fields(proposal)))
                if unit.due:
                    deadlines.set_timer(self, unit)
            case CountTokens(unit, call, bound):
                self._create_task(self._count_tokens(unit, call, bound))
            case RecallPlan(unit, keys):
                self._create_task(self._recall_plans(unit, keys))
            case FinishRun(status, outcome):
                self.finish_run(status, outcome)
            case Invoke():
                self.queue.append(proposal)
            case _:
                assert_never(proposal)

    def remember(self, answer: AttemptFinished) -> None:
        """Puts an accepted answer into the memo. The confidence is written first, so that no answer is stored without
        it.
        """
        if answer.confidence is not None:
            self.journal.put_memo(confidence_key(answer.memo_key), self.run.id, answer.confidence)
        self.journal.put_memo(answer.memo_key, self.run.id, answer.value)

    def finish_run(self, status: str, outcome: Outcome) -> None:
        """Ends the run with this outcome."""
        self.record(RunFinished(**self.stamp(), status=status, outcome=outcome, usage=self.state.usage_counter.total()))
        self._end(self._finish())

    # Tasks

    def _create_task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self.loop.create_task(work)
        self.tasks[task] = None
        task.add_done_callback(self.on_task_done)
        return task

    def on_task_done(self, task: asyncio.Task[None]) -> None:
        """Handles the end of a task: an exception breaks the run, otherwise the next calls start."""
        self.tasks.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)
        elif not self.ending:
            self.start_tasks()
            if not self.queue and not self.tasks and not self.pending_checks:
                self._sleep_if_idle()

    def start_tasks(self) -> None:
        """Starts tasks for queued calls: as many as already run, and at least two."""
        worker_count = min(len(self.queue) - self.queue_head, max(2, len(self.tasks)))
        while self.starting_tasks < worker_count:
            self.starting_tasks += 1
            self._create_task(self._run_calls())

    async def _run_calls(self) -> None:
        """Makes calls from the queue until it is empty."""
        self.starting_tasks -= 1
        task = asyncio.current_task()
        assert task is not None, "a coroutine that runs has a task"
        countdown = YIELD_INTERVAL
        while not self.ending and (invoke := self._next_call()) is not None:
            self.tasks[task] = invoke
            call = invoke.call
            certain = invoke.write_ahead or self.engine.strict
            if certain or invoke.reserved_tokens >= 0 or call.tier or invoke.unit.tier or invoke.escalation_reason:
                self.record(attempt_started(self, invoke))
                if certain:
                    self.run.flush()
                    await self.journal.wait_durable(self.run.id, self.state.seq)
            else:
                if not self.flush_scheduled:
                    self.schedule_flush()
                self.pending_starts[call.node] = invoke
            memo = self.workers.estimate(call).memo_key if self.use_memo else ""
            if memo and (memo_record := await self.journal.get_memo(memo)) is not None:
                sure = await self.journal.get_memo(confidence_key(memo)) if invoke.call.kind == "agent" else None
                answer = attempt_recalled(self, invoke, memo, *memo_record, sure[1] if sure is not None else None)
            else:
                if (tracer := self.engine.tracer) is not None:
                    tracer.enter_call(call)
                start_time = self.clock.monotonic()
                live = self.run.text_stream
                pending_call = (
                    self.workers.call(call)
                    if live is None or call.kind == "tool"
                    else call_streaming(self.workers, call, live)
                )
                try:
                    reply = await (pending_call if call.timeout is None else self._with_timeout(pending_call, call))
                except asyncio.CancelledError:
                    if _cancellation_requested():
                        raise
                    reply = self_cancelled_error(call)
                if reply is None:  # a worker without type checks
                    reply = no_reply_error(call)
                if memo and self.workers.estimate(call).memo_key != memo:
                    memo = ""  # The memo key changed meanwhile: it is unclear which version answered.
                if tracer is not None:
                    tracer.leave_call(call, reply)
                answer = attempt_finished(self, invoke, reply, start_time, memo)
            self.tasks[task] = None
            self.pending_starts.pop(call.node, None)
            # Otherwise the unit has timed out and the answer is dropped.
            if invoke.unit.phase is RUNNING and not self.ending:
                self.record(answer)
                if answer.memo_key and answer.final and not answer.reused_from:
                    self.remember(answer)
                self.dispatch()
            countdown -= 1
            if not countdown:
                countdown = YIELD_INTERVAL
                await asyncio.sleep(0)

    def _next_call(self) -> Invoke | None:
        """Returns the next queued call; skips calls of units that have timed out."""
        line = self.queue
        while line:
            invoke = line[self.queue_head]
            self.queue_head += 1
            if self.queue_head == len(line):
                line.clear()
                self.queue_head = 0
            if invoke.unit.phase is RUNNING:
                if line and not self.starting_tasks:
                    self.start_tasks()
                return invoke
        return None

    async def _with_timeout(
        self, reply: Coroutine[Any, Any, CallResult | CallError], call: CallRequest
    ) -> CallResult | CallError:
        try:
            async with asyncio.timeout(call.timeout):
                return await reply
        except TimeoutError:
            hint = f"raise `timeout:` of {call.node}, or see what the server is doing: orchestra fleet status"
            return CallError(code=TIMEOUT, reason=f"no answer within {call.timeout:g} s", hint=hint, retryable=True)

    async def _count_tokens(self, unit: WorkItem, call: CallRequest, bound: int) -> None:
        try:
            tokens = await self.workers.count_tokens(call)
        except asyncio.CancelledError:
            if _cancellation_requested():
                raise
            tokens = None
        if unit.phase is Phase.COUNTING_TOKENS and not self.ending:
            self.record(
                TokensCounted(**self.stamp(), node=unit.path, prompt_tokens=bound if tokens is None else tokens)
            )
            self.dispatch()

    async def _recall_plans(self, unit: WorkItem, keys: Sequence[str]) -> None:
        """Reads stored plans from the memo. A damaged row is recorded as its error message, and planning continues
        without it.
        """
        plans: list[tuple[str, Any]] = []
        for key in keys:
            try:
                memo_record = await self.journal.get_memo(key)
            except OrchestraError as error:
                memo_record = ("", f"{error.code}: {error.message}")
            plans += [memo_record] if memo_record is not None else []
        if unit.phase is Phase.READING_PLAN_CACHE and not self.ending:
            unit.cached_plans = tuple(plans)
            self.state.enqueue(unit)
            self.dispatch()

    # Time

    def time_out(self, unit: WorkItem, failed: FailedOutcome) -> None:
        """Fails a unit whose deadline has passed, and cancels what runs inside it."""
        self._execute(time_out(unit, failed))
        self._cancel_abandoned()

    def _cancel_abandoned(self) -> None:
        """Cancels calls and timers of units that were abandoned: they timed out, or their plan was replaced."""
        for path in self.state.abandoned or ():
            deadlines.cancel_timers(self, path)
        self.state.abandoned = None
        for task, invoke in self.tasks.items():
            if invoke is not None and invoke.unit.phase is Phase.DONE:
                task.cancel()

    def begin(self, messages: Sequence[InboxMessage] = (), alarm_time: float = 0.0) -> None:
        """Sets the timers, handles inbox messages, and starts what is ready.

        Args:
            messages: New inbox messages.
            alarm_time: A timer for this time has fired, even if the wall clock shows an earlier time.
        """
        with self._stop_on_error():
            self._begin(messages, alarm_time)

    @contextmanager
    def _stop_on_error(self) -> Iterator[None]:
        """Ends the run if the block raises outside of the run's tasks, so that no caller waits forever."""
        try:
            yield
        except BaseException as error:
            self.stop(error)
            raise

    def _begin(self, messages: Sequence[InboxMessage], alarm_time: float) -> None:
        now = self.clock.now()
        deadlines.watch_budget(self, self.state.root)
        for unit in list(self.state.units.values()):
            if unit.phase is Phase.IN_BODY:
                deadlines.watch_budget(self, unit.body)
            if unit.due and (
                unit.phase in (Phase.BACKING_OFF, Phase.IN_BODY, Phase.BODY_DONE, Phase.ASKING_PERSON)
                or has_timed_checks(unit)
            ):
                # `alarm_time` counts as passed even if the wall clock was set back.
                max_wait = 0.0 if unit.due <= alarm_time else deadlines.max_wait(unit)
                deadlines.set_timer(self, unit, max_wait, late=unit.due <= max(alarm_time, now))
        for message in messages:
            self._handle_message(message)
        if self.state.cancelled and not self.ending:
            self._finish_cancelled()  # The previous process stopped between the two events.
        self._continue()

    def _continue(self) -> None:
        if not self.ending:
            self.dispatch()
            self.start_tasks()

    # Inbox messages

    def cancel(self, by: str = "", message_number: int = 0) -> None:
        """Cancels the run and its calls, up to the servers."""
        if not self.ending:
            self.record(CancelRequested(**self.stamp(), by=by, message_number=message_number))
            self._finish_cancelled()
        elif self.state.finished is None:
            self.engine.cancel(self.run.id, by)  # The run is going to sleep: a message wakes it.

    def _finish_cancelled(self) -> None:
        by = self.state.cancelled_by
        self.finish_run(
            "cancelled",
            FailedOutcome("E008", f"cancelled{f' by {by}' if by else ''}", hint=f"orchestra runs show {self.run.id}"),
        )

    def _handle_message(self, message: InboxMessage) -> None:
        """Handles an inbox message. A rejected message is recorded too, so that each is handled once."""
        if self.ending or message.number <= self.state.last_message:
            return
        if message.kind == "cancel":
            self.cancel(message.by, message.number)
            return
        question = self.state.open_questions.get(message.node)
        refusal = NO_OPEN_QUESTION if question is None else self.engine.rejection_reason(question, message)
        if refusal:
            self.record(
                InboxMessageRejected(**self.stamp(), message_number=message.number, node=message.node, reason=refusal)
            )
        else:
            value, number, reason = (
                None if message.decline_reason else message.value,
                message.number,
                message.decline_reason,
            )
            fields: dict[str, Any] = {
                "value": value,
                "by": message.by,
                "message_number": number,
                "decline_reason": reason,
                "call_happened": message.call_happened,
            }
            self.record(QuestionAnswered(**self.stamp(), node=message.node, **fields))

    async def read_inbox(self) -> None:
        """Handles new inbox messages."""
        messages = await self.journal.inbox(self.run.id, self.state.last_message)
        with self._stop_on_error():
            for message in messages:
                self._handle_message(message)
            self._continue()

    # The end

    def _sleep_if_idle(self) -> None:
        """Lets the run sleep if it waits for persons only. A run without anything to wait for is an internal error."""
        state = self.state
        if state.finished is not None or state.cancelled or self.sleep_timer is not None:
            return
        if state.is_idle:
            if deadlines.can_sleep(self):
                self._end(self._sleep())
        else:
            self._fail(internal_error(f"run {self.run.id} has nothing to wait for"))

    def _fail(self, error: BaseException) -> None:
        """Ends the run after an error of the engine or the journal. It can be resumed."""
        if not self.ending or self.state.finished is None:
            self._end(self._end_broken(error))

    def _end(self, last: Coroutine[Any, Any, None]) -> None:
        self.ending = True
        for task in (*self.tasks, *deadlines.timers(self)):
            task.cancel()
        self.engine.finish(self, last)

    def stop(self, error: BaseException) -> None:
        """Stops the run: what has happened is kept, what is running is cancelled."""
        if not self.ending:
            self._end(self._end_broken(error))

    async def wait_for_tasks(self) -> None:
        """Waits until the run has no tasks left."""
        tasks = {*self.tasks, *deadlines.timers(self)}
        while tasks := {task for task in tasks if not task.done()}:
            await asyncio.wait(tasks)

    async def _finish(self) -> None:
        await self.wait_for_tasks()
        if self.flush_error is not None:
            raise self.flush_error
        self.run.flush()
        await self.journal.wait_durable(self.run.id, self.state.seq)
        last = self.run.log[-1]
        self.run.end(last if isinstance(last, RunFinished) else self.state.finished)

    async def _sleep(self) -> None:
        await self.wait_for_tasks()
        self.run.flush()
        await self.journal.release(self.run.id)

    async def _end_broken(self, error: BaseException) -> None:
        """Flushes what has happened and releases the lease, as far as the journal still works."""
        await self.wait_for_tasks()
        with suppress(OrchestraError):
            self.run.flush()
        with suppress(OrchestraError):
            await self.journal.release(self.run.id)
        self.run.end(None, error)


def _cancellation_requested() -> bool:
    """Whether this task was cancelled by a caller; otherwise the worker raised a cancellation of its own."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0

"""Interfaces between the modules of the engine, so that they do not import each other in a circle."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, Protocol

from orchestra.core.event_logging import Observer
from orchestra.core.events import AttemptFinished, Event, QuestionAsked
from orchestra.core.outcomes import FailedOutcome, Outcome
from orchestra.core.protocols import CallError, CallRequest, CallResult, Clock, InboxMessage, Journal, Workers
from orchestra.engine.check_budget import PendingCheck
from orchestra.engine.proposals import Invoke
from orchestra.engine.run import Execution
from orchestra.engine.state import RunState, WorkItem
from orchestra.workflows.program import Program


class Tracer(Protocol):
    """Follows the runs of an engine for traces (`orchestra.telemetry.tracing.RunTracer`). It gets each event as an
    observer of the engine.
    """

    def caller(self) -> str:
        """Returns the W3C `traceparent` of the code that starts a run; empty for none."""

    def restore(self, run: str, events: Sequence[Event]) -> None:
        """Reads the events of a run that is about to be resumed."""

    def enter_call(self, call: CallRequest) -> None:
        """Notes that this task makes a call now."""

    def leave_call(self, call: CallRequest, reply: CallResult | CallError) -> None:
        """Notes the reply of a call, whose event comes next."""


class RunOwner(Protocol):
    """The engine, as the driver of one of its runs uses it (`orchestra.engine.engine.Engine`)."""

    clock: Clock
    journal: Journal
    workers: Workers
    strict: bool
    observe: Observer | None
    tracer: Tracer | None

    def validation_error(self, schema: dict[str, Any], value: Any) -> str | None:
        """Returns why a value does not match a schema; None if it does."""

    def rejection_reason(self, question: QuestionAsked, message: InboxMessage) -> str:
        """Returns why an answer to a question is rejected; empty if it is accepted."""

    def cancel(self, run: str, by: str) -> None:
        """Cancels a run that waits for a person, by an inbox message."""

    def finish(self, driver: RunContext, last: Coroutine[Any, Any, None]) -> None:
        """Awaits the last step of a driver and then drops the driver."""


class RunContext(Protocol):
    """The driver of one run, as its helper modules use it (`orchestra.engine.driver.Driver`)."""

    engine: RunOwner
    workers: Workers
    clock: Clock
    journal: Journal
    loop: asyncio.AbstractEventLoop
    program: Program
    run: Execution
    state: RunState
    tasks: dict[asyncio.Task[None], Invoke | None]
    timers: dict[str, asyncio.Task[None]]
    budget_timers: dict[str, asyncio.Task[None]]
    sleep_timer: asyncio.Task[None] | None
    pending_checks: list[PendingCheck] | None
    flush_scheduled: bool
    ending: bool

    def record(self, event: Event) -> None:
        """Applies an event to the state and adds it to the log; the journal gets it at the end of this turn of the
        loop.
        """

    def remember(self, answer: AttemptFinished) -> None:
        """Puts an accepted answer into the memo."""

    def schedule_flush(self) -> None:
        """Schedules the end of this turn of the loop."""

    def stamp(self) -> dict[str, Any]:
        """Returns the number and the time of the next event."""

    def dispatch(self) -> None:
        """Executes the proposals of `decide` until there are none."""

    def time_out(self, unit: WorkItem, failed: FailedOutcome) -> None:
        """Fails a unit whose deadline has passed."""

    def finish_run(self, status: str, outcome: Outcome) -> None:
        """Ends the run with this outcome."""

    def on_task_done(self, task: asyncio.Task[None]) -> None:
        """Handles the end of a task of the run."""

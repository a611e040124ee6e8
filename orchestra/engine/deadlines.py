"""Deadlines: the seconds of budgets, of the run and of called workflows; and the timers of units.

Budget seconds count the time in which the run is executed. While the run only waits for persons, they do not count. A
`timeout` of a question, or of a body around it, follows the wall clock: the engine wakes the run at the first of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from math import inf
from typing import TYPE_CHECKING, Any

from orchestra.core.error_codes import NO_BUDGET, TIMEOUT
from orchestra.core.outcomes import FailedOutcome
from orchestra.engine.kinds.checks import has_timed_checks
from orchestra.engine.proposals import AskPerson
from orchestra.engine.retry import retry_policy
from orchestra.engine.scopes import ancestors
from orchestra.engine.state import ExecutionScope, Phase, RunState, WorkItem

if TYPE_CHECKING:
    from orchestra.engine.run_context import RunContext

MIN_SLEEP = 1.0
"""Seconds before a deadline in which a run does not go to sleep: each of several close deadlines would wake it."""


def next_due(state: RunState) -> WorkItem | None:
    """Returns the unit with the earliest deadline, of questions to persons and of bodies; None if none has a
    deadline.
    """
    return min((unit for unit in state.units.values() if _has_deadline(unit)), key=lambda unit: unit.due, default=None)


def answer_deadline(ask: AskPerson, at: float) -> float:
    """Returns the wall-clock deadline of a question asked at `at`: by its own `timeout`, or by that of a body around
    it; 0 without one.
    """
    timeout = ask.unit.node.timeout if ask.kind == "answer" else None
    dues = [body.due for body in ancestors(ask.unit) if _has_deadline(body)]
    return min([*dues, at + timeout] if timeout is not None else dues, default=0.0)


def max_wait(unit: WorkItem) -> float:
    """Returns the longest time in seconds that a unit waits: as planned when the wait began."""
    if unit.phase is not Phase.BACKING_OFF:
        return inf if unit.node.timeout is None else unit.node.timeout
    return (
        retry_policy(unit.node, unit.last_attempt.error).backoff_range(unit.attempt)[1]
        if unit.last_attempt is not None
        else inf
    )


def can_sleep(driver: RunContext) -> bool:
    """Whether a run that waits for persons may sleep, because no deadline is near. Otherwise it is checked again
    later.
    """
    waits = next_due(driver.state)
    if waits is None or waits.due >= driver.clock.now() + MIN_SLEEP:
        return True
    driver.sleep_timer = _create_timer(driver, _recheck_sleep(driver))
    return False


async def _recheck_sleep(driver: RunContext) -> None:
    await driver.clock.sleep(MIN_SLEEP)
    driver.sleep_timer = None  # Its end makes `on_task_done` check again.


def timers(driver: RunContext) -> Iterator[asyncio.Task[None]]:
    """Yields the run's timer tasks. Timers of questions and bodies do not keep a run awake; all are cancelled when the
    run ends or goes to sleep.
    """
    yield from driver.timers.values()
    yield from driver.budget_timers.values()
    if driver.sleep_timer is not None:
        yield driver.sleep_timer


def cancel_timers(driver: RunContext, path: str) -> None:
    """Cancels the timers of a unit."""
    for clocks in (driver.timers, driver.budget_timers):
        if (task := clocks.pop(path, None)) is not None:
            task.cancel()


def _create_timer(driver: RunContext, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Creates a task that does not keep the run awake."""
    task = driver.loop.create_task(work)
    task.add_done_callback(driver.on_task_done)
    return task


def _has_deadline(unit: WorkItem) -> bool:
    return unit.due > 0 and (unit.phase in (Phase.IN_BODY, Phase.ASKING_PERSON) or has_timed_checks(unit))


def set_timer(driver: RunContext, unit: WorkItem, most: float = inf, *, late: bool = False) -> None:
    """Sets the timer of a unit. The timer of a question or a body does not keep the run awake, unless the deadline
    passed while no process held the run.
    """
    task = driver.timers[unit.path] = _create_timer(driver, _on_due(driver, unit, unit.due, most))
    if late or unit.phase is Phase.BACKING_OFF:
        driver.tasks[task] = None


async def _on_due(driver: RunContext, unit: WorkItem, due: float, seconds: float) -> None:
    """At its time, a delayed attempt becomes ready, and a question or a body times out."""
    await driver.clock.sleep(min(max(0.0, due - driver.clock.now()), seconds))
    driver.timers.pop(unit.path, None)  # It must not cancel itself.
    if driver.ending or unit.due != due:
        return
    if unit.phase is Phase.BACKING_OFF:
        driver.state.enqueue(unit)
    elif _has_deadline(unit):
        reason = f"{'not answered' if unit.phase is Phase.ASKING_PERSON else 'not done'} within {unit.node.timeout:g} s"
        driver.time_out(unit, FailedOutcome(TIMEOUT, reason, unit.path, f"raise `timeout:` of {unit.path}"))
    driver.dispatch()


def watch_budget(driver: RunContext, scope: ExecutionScope | None) -> None:
    """Ends a scope when the seconds of its budget are over, if it has such a budget."""
    if scope is None or scope.expires_at == inf:
        return
    driver.budget_timers[scope.unit.path if scope.unit is not None else ""] = _create_timer(
        driver, _on_budget_expired(driver, scope)
    )


async def _on_budget_expired(driver: RunContext, scope: ExecutionScope) -> None:
    await driver.clock.sleep(max(0.0, scope.expires_at - driver.state.active_seconds))
    unit, limit = scope.unit, scope.program.time_limit
    if driver.ending:
        return
    if unit is None:
        hint = "raise `seconds` of the workflow's `budget:`, or --budget seconds=…"
        driver.finish_run("budget", FailedOutcome(NO_BUDGET, f"not done within {limit:g} s", hint=hint))
        return
    driver.budget_timers.pop(unit.path, None)  # It must not cancel itself.
    if unit.phase is Phase.IN_BODY:
        name = scope.program.name
        hint = f"raise `seconds` of the `budget:` of {name}"
        driver.time_out(unit, FailedOutcome(NO_BUDGET, f"{name} was not done within {limit:g} s", unit.path, hint))
        driver.dispatch()

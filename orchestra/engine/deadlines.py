"""Deadlines: the seconds of budgets, of the run's own and of those of workflows that it calls; and the times that units wait for.

Seconds count the time in which the run is under way. So they are no tasks that keep a run awake: while nothing is left but questions to
persons the run sleeps, and its seconds stand still. A `timeout`, of a question or of a body that it stands in, goes by the calendar
meanwhile: the engine wakes the run for the first of them.
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
"""Seconds before a deadline in which a run does not go to sleep: of many that are close to each other each would wake it."""


def next_due(state: RunState) -> WorkItem | None:
    """Of the questions to persons, and of the bodies under way, the one whose time is up first; None where none has a time."""
    return min((unit for unit in state.units.values() if _has_deadline(unit)), key=lambda unit: unit.due, default=None)


def answer_deadline(ask: AskPerson, at: float) -> float:
    """The wall-clock time until which a person may answer what is asked `at` a time: by the question's own `timeout`, or by that of a body
    that it stands in; 0 for ever."""
    own = ask.unit.node.timeout if ask.kind == "answer" else None
    stated = [body.due for body in ancestors(ask.unit) if _has_deadline(body)]
    return min([*stated, at + own] if own is not None else stated, default=0.0)


def max_wait(unit: WorkItem) -> float:
    """Seconds that a unit waits for its time at most: as many as were planned when it began to."""
    if unit.phase is not Phase.BACKING_OFF:
        return inf if unit.node.timeout is None else unit.node.timeout
    return (
        retry_policy(unit.node, unit.last_attempt.error).backoff_range(unit.attempt)[1]
        if unit.last_attempt is not None
        else inf
    )


def can_sleep(driver: RunContext) -> bool:
    """Whether a run that waits for persons may sleep, because no deadline is near. Else it looks again a little later."""
    waits = next_due(driver.state)
    if waits is None or waits.due >= driver.clock.now() + MIN_SLEEP:
        return True
    driver.sleep_timer = _create_timer(driver, _recheck_sleep(driver))
    return False


async def _recheck_sleep(driver: RunContext) -> None:
    await driver.clock.sleep(MIN_SLEEP)
    driver.sleep_timer = None  # what it was is over: `on_task_done` looks again


def timers(driver: RunContext) -> Iterator[asyncio.Task[None]]:
    """The run's timer tasks: alarms, budget deadlines, and the nap before a near deadline. Timers of questions and bodies do not keep a run
    awake; all are cancelled when the run ends or goes to sleep."""
    yield from driver.timers.values()
    yield from driver.budget_timers.values()
    if driver.sleep_timer is not None:
        yield driver.sleep_timer


def cancel_timers(driver: RunContext, path: str) -> None:
    """The clocks of a unit ring no more."""
    for clocks in (driver.timers, driver.budget_timers):
        if (task := clocks.pop(path, None)) is not None:
            task.cancel()


def _create_timer(driver: RunContext, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """A task that keeps no run awake."""
    task = driver.loop.create_task(work)
    task.add_done_callback(driver.on_task_done)
    return task


def _has_deadline(unit: WorkItem) -> bool:
    return unit.due > 0 and (unit.phase in (Phase.IN_BODY, Phase.ASKING_PERSON) or has_timed_checks(unit))


def set_timer(driver: RunContext, unit: WorkItem, most: float = inf, *, late: bool = False) -> None:
    """Sets the clock of a unit. That of a question or of a body keeps no run awake, unless its time was up while nobody had the run."""
    task = driver.timers[unit.path] = _create_timer(driver, _on_due(driver, unit, unit.due, most))
    if late or unit.phase is Phase.BACKING_OFF:
        driver.tasks[task] = None


async def _on_due(driver: RunContext, unit: WorkItem, due: float, most: float) -> None:
    """At its due time a paused unit goes on, and one that is asked, or has a body, has run out of time."""
    await driver.clock.sleep(min(max(0.0, due - driver.clock.now()), most))
    driver.timers.pop(unit.path, None)  # it must not cancel itself
    if driver.ending or unit.due != due:
        return
    if unit.phase is Phase.BACKING_OFF:
        driver.state.enqueue(unit)
    elif _has_deadline(unit):
        said = (
            f"{'nobody answered' if unit.phase is Phase.ASKING_PERSON else 'not done'} within {unit.node.timeout:g} s"
        )
        driver.time_out(unit, FailedOutcome(TIMEOUT, said, unit.path, f"raise `timeout:` of {unit.path}"))
    driver.dispatch()


def watch_budget(driver: RunContext, scope: ExecutionScope | None) -> None:
    """Sees to it that a scope ends when the seconds of its budget are over, where it has such a budget."""
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
    driver.budget_timers.pop(unit.path, None)  # it must not cancel itself
    if unit.phase is Phase.IN_BODY:
        name = scope.program.name
        hint = f"raise `seconds` of the `budget:` of {name}"
        driver.time_out(unit, FailedOutcome(NO_BUDGET, f"{name} was not done within {limit:g} s", unit.path, hint))
        driver.dispatch()

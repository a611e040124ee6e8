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

from orchestra.core.error_codes import NO_BUDGET, TIME_IS_UP
from orchestra.core.outcomes import Failed
from orchestra.engine.kinds.checks import timed
from orchestra.engine.proposals import Ask
from orchestra.engine.retry import policy
from orchestra.engine.scopes import around
from orchestra.engine.state import Phase, Scope, State, Unit

if TYPE_CHECKING:
    from orchestra.engine.driver import Driver

NAP = 1.0
"""Seconds before a deadline in which a run does not go to sleep: of many that are close to each other each would wake it."""


def first(state: State) -> Unit | None:
    """Of the questions to persons, and of the bodies under way, the one whose time is up first; None where none has a time."""
    return min((unit for unit in state.units.values() if _ticks(unit)), key=lambda unit: unit.due, default=None)


def until(ask: Ask, at: float) -> float:
    """The wall-clock time until which a person may answer what is asked `at` a time: by the question's own `timeout`, or by that of a body
    that it stands in; 0 for ever."""
    own = ask.unit.node.timeout if ask.about == "answer" else None
    stated = [body.due for body in around(ask.unit) if _ticks(body)]
    return min([*stated, at + own] if own is not None else stated, default=0.0)


def planned(unit: Unit) -> float:
    """Seconds that a unit waits for its time at most: as many as were planned when it began to."""
    if unit.phase is not Phase.PAUSED:
        return inf if unit.node.timeout is None else unit.node.timeout
    return policy(unit.node, unit.answer.error).pause(unit.attempt)[1] if unit.answer is not None else inf


def far(driver: Driver) -> bool:
    """Whether a run that waits for persons may sleep, because no deadline is near. Else it looks again a little later."""
    waits = first(driver.state)
    if waits is None or waits.due >= driver.clock.now() + NAP:
        return True
    driver.dozing = _timer(driver, _doze(driver))
    return False


async def _doze(driver: Driver) -> None:
    await driver.clock.sleep(NAP)
    driver.dozing = None  # what it was is over: `done` looks again


def clocks(driver: Driver) -> Iterator[asyncio.Task[None]]:
    """The run's timer tasks: alarms, budget deadlines, and the nap before a near deadline. Timers of questions and bodies do not keep a run
    awake; all are cancelled when the run ends or goes to sleep."""
    yield from driver.alarms.values()
    yield from driver.deadlines.values()
    if driver.dozing is not None:
        yield driver.dozing


def unset(driver: Driver, path: str) -> None:
    """The clocks of a unit ring no more."""
    for clocks in (driver.alarms, driver.deadlines):
        if (task := clocks.pop(path, None)) is not None:
            task.cancel()


def _timer(driver: Driver, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """A task that keeps no run awake."""
    task = driver.loop.create_task(work)
    task.add_done_callback(driver.done)
    return task


def _ticks(unit: Unit) -> bool:
    return unit.due > 0 and (unit.phase in (Phase.INSIDE, Phase.ASKED) or timed(unit))


def alarm(driver: Driver, unit: Unit, most: float = inf, *, late: bool = False) -> None:
    """Sets the clock of a unit. That of a question or of a body keeps no run awake, unless its time was up while nobody had the run."""
    task = driver.alarms[unit.path] = _timer(driver, _ring(driver, unit, unit.due, most))
    if late or unit.phase is Phase.PAUSED:
        driver.tasks[task] = None


async def _ring(driver: Driver, unit: Unit, due: float, most: float) -> None:
    """At its due time a paused unit goes on, and one that is asked, or has a body, has run out of time."""
    await driver.clock.sleep(min(max(0.0, due - driver.clock.now()), most))
    driver.alarms.pop(unit.path, None)  # it must not cancel itself
    if driver.ending or unit.due != due:
        return
    if unit.phase is Phase.PAUSED:
        driver.state.enqueue(unit)
    elif _ticks(unit):
        said = f"{'nobody answered' if unit.phase is Phase.ASKED else 'not done'} within {unit.node.timeout:g} s"
        driver.give_up(unit, Failed(TIME_IS_UP, said, unit.path, f"raise `timeout:` of {unit.path}"))
    driver.pump()


def watch(driver: Driver, scope: Scope | None) -> None:
    """Sees to it that a scope ends when the seconds of its budget are over, where it has such a budget."""
    if scope is None or scope.expires == inf:
        return
    driver.deadlines[scope.unit.path if scope.unit is not None else ""] = _timer(driver, _expire(driver, scope))


async def _expire(driver: Driver, scope: Scope) -> None:
    await driver.clock.sleep(max(0.0, scope.expires - driver.state.active))
    unit, limit = scope.unit, scope.program.seconds
    if driver.ending:
        return
    if unit is None:
        hint = "raise `seconds` of the workflow's `budget:`, or --budget seconds=…"
        driver.conclude("budget", Failed(NO_BUDGET, f"not done within {limit:g} s", hint=hint))
        return
    driver.deadlines.pop(unit.path, None)  # it must not cancel itself
    if unit.phase is Phase.INSIDE:
        name = scope.program.name
        hint = f"raise `seconds` of the `budget:` of {name}"
        driver.give_up(unit, Failed(NO_BUDGET, f"{name} was not done within {limit:g} s", unit.path, hint))
        driver.pump()

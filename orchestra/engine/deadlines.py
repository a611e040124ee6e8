"""Deadlines: the seconds of budgets, of the run's own and of those of workflows that it calls.

They count the time in which the run is under way. So they are no tasks that keep a run awake: while nothing is left but questions to
persons the run sleeps, and its seconds stand still.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from orchestra.engine.state import Phase, Scope
from orchestra.values.outcome import Failed

if TYPE_CHECKING:
    from orchestra.engine.driver import Driver


def watch(driver: Driver, scope: Scope | None) -> None:
    """Sees to it that a scope ends when the seconds of its budget are over, where it has such a budget."""
    if scope is None or scope.expires == inf:
        return
    task = driver.loop.create_task(_expire(driver, scope))
    driver.deadlines[scope.unit.path if scope.unit is not None else ""] = task
    task.add_done_callback(driver.done)


async def _expire(driver: Driver, scope: Scope) -> None:
    await driver.clock.sleep(max(0.0, scope.expires - driver.state.active))
    unit, limit = scope.unit, scope.program.seconds
    if driver.ending:
        return
    if unit is None:
        hint = "raise `seconds` of the workflow's `budget:`, or --budget seconds=…"
        driver.conclude("budget", Failed("E005", f"not done within {limit:g} s", hint=hint))
        return
    driver.deadlines.pop(unit.path, None)  # it must not cancel itself
    if unit.phase is Phase.INSIDE:
        name = scope.program.name
        hint = f"raise `seconds` of the `budget:` of {name}"
        driver.give_up(unit, Failed("E005", f"{name} was not done within {limit:g} s", unit.path, hint))
        driver.pump()

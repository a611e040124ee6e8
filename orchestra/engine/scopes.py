"""Scopes: how one closes, how one grows line by line, and how what is under way in one is abandoned. Part of the fold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from orchestra.core.outcomes import Value
from orchestra.core.paths import MARKS, first_name
from orchestra.engine import check_budget
from orchestra.engine.state import Phase, Scope, State, Unit
from orchestra.workflows.program import CompiledNode, Program


def close(state: State, scope: Scope) -> None:
    """All that can run in a scope has its outcome: whoever it belongs to asks for a decision, once, though two scopes of it may close."""
    if scope.unit is None:
        state.agenda.append((None, Phase.DONE))
    elif scope.unit.checking is not None and scope.unit.checking.scope is scope:
        if state.allotment is not None:
            check_budget.release(state.allotment, scope.unit)
        state.move(scope.unit, Phase.CHECKED)
    else:
        if scope.unit.writing is not None:
            scope.unit.writing.closed(scope)
        if scope.unit.phase is not Phase.EMERGED:
            state.move(scope.unit, Phase.EMERGED)


def over(state: State, unit: Unit) -> None:
    """An attempt that gave nothing: its place and its reservation are free."""
    state.running -= 1
    if unit.reserved >= 0 and unit.scope.purse is not None:
        unit.scope.purse.release(unit.reserved, unit.promised)
        unit.reserved, unit.promised = -1, 0.0
    if state.lines:
        state.feed()


def abandon(state: State, paths: Iterable[str]) -> None:
    """Units of which nobody wants an outcome any more: their time was up, or their plan has gone another way."""
    freed = []
    gone = state.gone = state.gone or []
    for path in paths:
        inner = state.units.pop(path)
        freed += [inner] if inner.phase is Phase.RUNNING else []
        inner.phase = Phase.DONE
        gone.append(path)
        if state.allotment is not None:
            check_budget.release(state.allotment, inner)
        state.asked.pop(path, None)
    for inner in freed:
        over(state, inner)
    if state.lines:
        state.feed()  # one that was let out of a line may be among them


def beneath(state: State, unit: Unit) -> list[str]:
    """The paths of all that stands in a unit. Not by a look at every unit of the run: that many bodies may run out of time at once."""
    if unit.writing is not None:
        return within(state, unit.path)
    found: list[str] = []
    for scope in (unit.body, unit.checking.scope if unit.checking is not None else None):
        if scope is not None and scope.open:
            found += (scope.path + node.name for node in scope.program.nodes)
    if unit.spreading is not None:
        found += (f"{unit.path}[{index}]" for index in range(unit.spreading.next))
    here = [path for path in found if path in state.units]
    return here + [path for inner in here for path in beneath(state, state.units[inner])]


def around(unit: Unit) -> Iterator[Unit]:
    """The units in whose bodies a unit stands, from the innermost on."""
    while (outer := unit.scope.unit) is not None:
        yield outer
        unit = outer


def within(state: State, path: str, marks: Iterable[str] = MARKS) -> list[str]:
    """The paths of what stands in a unit, behind one of the marks."""
    begins = tuple(path + mark for mark in marks)
    return [one for one in state.units if one.startswith(begins)]


def grow(state: State, scope: Scope, program: Program, *, whole: bool) -> None:
    """The scope of a plan has the nodes of `program` from now on, those that it had among them.

    What has an outcome keeps it, what is under way goes on. Nodes with effects, and those behind them, wait until the plan is `whole`;
    then what its answer does not rest on is abandoned.
    """
    before = scope.program
    known = {node.name: outcome for node, outcome in zip(before.nodes, scope.outcomes, strict=True)}
    scope.program, scope.longest = program, program.longest
    scope.outcomes = [known.get(node.name) for node in program.nodes]
    scope.whole = all(outcome is None or isinstance(outcome, Value) for outcome in scope.outcomes)
    scope.left, scope.open = [], 0
    held: set[int] = set()
    for node in program.nodes:
        waits = node.acts and not whole
        scope.left.append(sum(scope.outcomes[need] is None for need in node.needs) + waits)
        if waits or not held.isdisjoint(node.needs):
            held.add(node.index)
        else:
            scope.open += scope.outcomes[node.index] is None
    names = {node.name for node in program.nodes}
    gone = {node.name for node in before.nodes} - names
    if gone:
        abandon(state, [path for path in within(state, scope.path, ("",)) if first_name(path.removeprefix(scope.path)) in gone])
    for node in program.nodes:
        unit = state.units.get(scope.path + node.name)
        if unit is not None:
            _renew(state, unit, node)
        elif scope.outcomes[node.index] is None and not scope.left[node.index]:
            state.admit(scope, node)
    if whole and not scope.open:
        close(state, scope)


def _renew(state: State, unit: Unit, node: CompiledNode) -> None:
    """A unit that is under way knows who reads it since."""
    unit.node = node
    for index in range(unit.spreading.next if unit.spreading is not None else 0):
        if (element := state.units.get(f"{unit.path}[{index}]")) is not None:
            element.node = node

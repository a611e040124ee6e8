"""Scopes: closing, extending by plan lines, and abandoning what runs inside. Part of the fold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from orchestra.core.outcomes import ValueOutcome
from orchestra.core.paths import SEPARATORS, root_name
from orchestra.engine import check_budget
from orchestra.engine.state import ExecutionScope, Phase, RunState, WorkItem
from orchestra.workflows.program import CompiledNode, Program


def close(state: RunState, scope: ExecutionScope) -> None:
    """Closes a scope in which every node has its outcome, and requests the decision of its owner: once, though it may
    have two scopes.
    """
    if scope.unit is None:
        state.pending_decisions.append((None, Phase.DONE))
    elif scope.unit.check_progress is not None and scope.unit.check_progress.scope is scope:
        if state.check_budget is not None:
            check_budget.release(state.check_budget, scope.unit)
        state.request_decision(scope.unit, Phase.CHECKED)
    else:
        if scope.unit.plan_progress is not None:
            scope.unit.plan_progress.mark_answered(scope)
        if scope.unit.phase is not Phase.BODY_DONE:
            state.request_decision(scope.unit, Phase.BODY_DONE)


def release_attempt(state: RunState, unit: WorkItem) -> None:
    """Releases the slot and the reservation of an attempt without a value."""
    state.running -= 1
    if unit.reserved_tokens >= 0 and unit.scope.account is not None:
        unit.scope.account.release(unit.reserved_tokens, unit.reserved_money)
        unit.reserved_tokens, unit.reserved_money = -1, 0.0
    if state.waiting_accounts:
        state.resume_waiting()


def abandon(state: RunState, paths: Iterable[str]) -> None:
    """Abandons units that timed out, or whose plan was replaced."""
    units = []
    abandoned_paths = state.abandoned = state.abandoned or []
    for path in paths:
        inner = state.units.pop(path)
        units += [inner] if inner.phase is Phase.RUNNING else []
        inner.phase = Phase.DONE
        abandoned_paths.append(path)
        if state.check_budget is not None:
            check_budget.release(state.check_budget, inner)
        state.open_questions.pop(path, None)
    for inner in units:
        release_attempt(state, inner)
    if state.waiting_accounts:
        state.resume_waiting()  # Abandoned units may have left a queue.


def descendants(state: RunState, unit: WorkItem) -> list[str]:
    """Returns the paths of everything inside a unit. It does not scan all units of the run: many bodies may time out at
    once.
    """
    if unit.plan_progress is not None:
        return paths_within(state, unit.path)
    paths: list[str] = []
    for scope in (unit.body, unit.check_progress.scope if unit.check_progress is not None else None):
        if scope is not None and scope.open_nodes:
            paths += (scope.path + node.name for node in scope.program.nodes)
    if unit.map_progress is not None:
        paths += (f"{unit.path}[{index}]" for index in range(unit.map_progress.next_index))
    live_paths = [path for path in paths if path in state.units]
    return live_paths + [path for inner in live_paths for path in descendants(state, state.units[inner])]


def ancestors(unit: WorkItem) -> Iterator[WorkItem]:
    """Yields the units whose bodies contain a unit, from the innermost on."""
    while (outer := unit.scope.unit) is not None:
        yield outer
        unit = outer


def paths_within(state: RunState, path: str, marks: Iterable[str] = SEPARATORS) -> list[str]:
    """Returns the paths inside a unit, after one of the separators."""
    begins = tuple(path + mark for mark in marks)
    return [unit_path for unit_path in state.units if unit_path.startswith(begins)]


def extend(state: RunState, scope: ExecutionScope, program: Program, *, complete: bool) -> None:
    """Gives the scope of a plan the nodes of `program`, which include its nodes so far.

    Outcomes are kept, and what runs goes on. Nodes with effects, and nodes after them, wait until the plan is
    `complete`; then what its answer does not use is abandoned.
    """
    before = scope.program
    outcomes = {node.name: outcome for node, outcome in zip(before.nodes, scope.outcomes, strict=True)}
    scope.program, scope.critical_path_length = program, program.critical_path_length
    scope.outcomes = [outcomes.get(node.name) for node in program.nodes]
    scope.has_all_values = all(outcome is None or isinstance(outcome, ValueOutcome) for outcome in scope.outcomes)
    scope.missing_needs, scope.open_nodes = [], 0
    kept_indexes: set[int] = set()
    for node in program.nodes:
        waits = node.has_effects and not complete
        scope.missing_needs.append(sum(scope.outcomes[need] is None for need in node.needs) + waits)
        if waits or not kept_indexes.isdisjoint(node.needs):
            kept_indexes.add(node.index)
        else:
            scope.open_nodes += scope.outcomes[node.index] is None
    names = {node.name for node in program.nodes}
    removed_names = {node.name for node in before.nodes} - names
    if removed_names:
        abandon(
            state,
            [
                path
                for path in paths_within(state, scope.path, ("",))
                if root_name(path.removeprefix(scope.path)) in removed_names
            ],
        )
    for node in program.nodes:
        unit = state.units.get(scope.path + node.name)
        if unit is not None:
            _update_node(state, unit, node)
        elif scope.outcomes[node.index] is None and not scope.missing_needs[node.index]:
            state.admit(scope, node)
    if complete and not scope.open_nodes:
        close(state, scope)


def _update_node(state: RunState, unit: WorkItem, node: CompiledNode) -> None:
    """Gives a running unit the new version of its node, with its new readers."""
    unit.node = node
    for index in range(unit.map_progress.next_index if unit.map_progress is not None else 0):
        if (element := state.units.get(f"{unit.path}[{index}]")) is not None:
            element.node = node

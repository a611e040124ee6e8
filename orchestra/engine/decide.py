"""The decision: state in, proposals out. Deterministic, without I/O and without a clock."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import TypeAlias

from orchestra.engine.kinds import body, calling, choice
from orchestra.engine.kinds.acceptance import settle
from orchestra.engine.proposals import Conclude, Expand, Finish, Proposal
from orchestra.engine.state import Phase, Scope, State, Unit
from orchestra.errors import OrchestraError
from orchestra.values.outcome import Abstained, Failed, Outcome, Skipped, Value, blamed

_Step: TypeAlias = Callable[[State, Unit], Proposal]


def decide(state: State) -> list[Proposal]:
    """What to do next, given all facts. The caller carries out every proposal, and feeds back what came of it."""
    proposals: list[Proposal] = []
    if state.cancelled or state.finished:
        return proposals
    while state.agenda:
        unit, phase = state.agenda.popleft()
        if unit is None:
            proposals.append(_conclude(state))
        elif unit.phase is phase:
            proposals.append(_safely(state, unit, _advance))
    while state.ready and state.running + len(proposals) < state.limit:
        unit = heapq.heappop(state.ready)[2]
        if unit.phase is Phase.READY:
            proposals.append(_safely(state, unit, _begin))
    return proposals


def _safely(state: State, unit: Unit, step: _Step) -> Proposal:
    """A step of a unit; an expression that fails on these values fails the node."""
    try:
        proposal = step(state, unit)
    except OrchestraError as error:
        proposal = Finish(unit, Failed(error.code, error.message, unit.path, error.hint))
    if isinstance(proposal, Finish):
        return Finish(unit, _or_fallback(unit, proposal.outcome))
    return proposal


def _begin(state: State, unit: Unit) -> Proposal:
    node = unit.node
    if unit.attempt:
        return calling.invoke(state, unit)
    if unit.owner is None and (inherited := _inherited(unit)) is not None:
        return Finish(unit, inherited)
    if node.when is not None and _about_elements(unit) == (unit.owner is not None) and not node.when.evaluate(unit.bindings):
        return Finish(unit, Skipped("its condition is false", unit.path))
    if unit.spread:
        return _spread(unit)
    match node.kind:
        case "agent" | "tool":
            return calling.invoke(state, unit)
        case "first_of":
            return settle(unit, choice.chosen(unit))
        case "call" | "loop":
            return body.enter(unit)
        case "verify":
            return settle(unit, choice.given(unit))
        case kind:
            return Finish(
                unit, Failed("E003", f"nodes of kind `{kind}` do not run yet", unit.path, "they come with the router and with durable runs")
            )


def _about_elements(unit: Unit) -> bool:
    """Whether the node's `when` reads its `as` variable, and so is asked of each element."""
    node = unit.node
    return node.when is not None and node.each is not None and node.variable in node.when.references


def _advance(state: State, unit: Unit) -> Proposal:
    match unit.phase:
        case Phase.ANSWERED:
            return calling.answered(unit)
        case Phase.ERRED:
            return calling.erred(unit)
        case Phase.JUDGED:
            return calling.judged(state, unit)
        case Phase.EXPANDED:
            return Finish(unit, _gathered(unit))
        case Phase.EMERGED:
            return body.emerged(state, unit)
        case phase:
            raise OrchestraError("E002", f"{unit.path} asks for a decision in phase {phase.name}", hint="orchestra doctor")


def _inherited(unit: Unit) -> Outcome | None:
    """The first non-value among the needs that the node does not tolerate, in the order of the file."""
    for need in unit.node.needs:
        outcome = unit.scope.outcomes[need]
        if need not in unit.node.soft and outcome is not None and not isinstance(outcome, Value):
            return blamed(outcome, unit.scope.program.nodes[need].name)
    return None


def _or_fallback(unit: Unit, outcome: Outcome) -> Outcome:
    fallback = unit.node.fallback
    if fallback is None or isinstance(outcome, Value) or unit.spread:
        return outcome
    if any(name not in unit.bindings for name in fallback.references):
        return outcome
    return Value(fallback.evaluate(unit.bindings))


def _spread(unit: Unit) -> Proposal:
    node = unit.node
    items = node.each.evaluate(unit.bindings) if node.each else []
    if len(items) > node.limit:
        hint = f"raise `limit` (at most 10,000), or pass fewer elements to {unit.path}"
        return Finish(unit, Failed("E004", f"{len(items)} elements, and the limit is {node.limit}", unit.path, hint))
    return Expand(unit, len(items))


def _gathered(unit: Unit) -> Outcome:
    """The list of the elements' values. Where every element failed there is nothing to go on with, and the node fails."""
    outcomes = unit.elements
    failures = [outcome for outcome in outcomes if isinstance(outcome, Failed)]
    if failures and len(failures) == len(outcomes):
        return blamed(failures[0], unit.path)
    return Value([outcome.value for outcome in outcomes if isinstance(outcome, Value)])


def _conclude(state: State) -> Proposal:
    root = state.root
    if root is None:
        raise OrchestraError("E002", "the run has no root", hint="orchestra doctor")
    outcome = body.result(root) if (lost := _lost(root)) is None else lost
    status = {Value: "done", Skipped: "abstained", Abstained: "abstained", Failed: "failed"}[type(outcome)]
    if isinstance(outcome, Failed) and outcome.code == "E005":
        status = "budget"
    return Conclude(status, outcome)


def _lost(root: Scope) -> Outcome | None:
    """A failure that nobody reads: of a node without readers that the output does not name."""
    for node, outcome in zip(root.program.nodes, root.outcomes, strict=True):
        if isinstance(outcome, Failed) and not node.children and node.name not in root.program.output.references:
            return blamed(outcome, node.name)
    return None

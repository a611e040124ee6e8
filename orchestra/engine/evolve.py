"""The fold: state and event in, state out. Facts only; nothing is decided here, and nothing is read from outside."""

from __future__ import annotations

from typing import assert_never

from orchestra.engine.state import Bindings, Phase, Scope, State, Unit
from orchestra.errors import OrchestraError
from orchestra.events import (
    Answered,
    Asked,
    AttemptFinished,
    AttemptStarted,
    CancelRequested,
    Event,
    Expanded,
    Judged,
    LetterRefused,
    Measured,
    NodeFinished,
    Resumed,
    RetryPlanned,
    RunFinished,
    RunStarted,
    TurnStarted,
)
from orchestra.values.outcome import Outcome, Value
from orchestra.workflow.program import Program


def evolve(state: State, event: Event, program: Program) -> None:
    """Folds one event of a run of `program` into its state, in place. Raises `OrchestraError` E001 for a gap in `seq`."""
    if event.seq != state.seq + 1:
        raise OrchestraError("E001", f"event {event.seq} follows event {state.seq} of run {state.run}", hint="orchestra doctor")
    state.seq = event.seq
    match event:
        case AttemptStarted():
            unit = state.units[event.node]
            unit.attempt, unit.escalated, unit.phase = event.attempt, event.escalated, Phase.RUNNING
            state.running += 1
        case AttemptFinished():
            unit = state.units[event.node]
            unit.answer = event
            state.running -= 1
            state.usage = state.usage + event.usage
            state.move(unit, Phase.ERRED if event.error else Phase.ANSWERED)
        case NodeFinished():
            _settle(state, state.units.pop(event.node), event.outcome)
        case Judged():
            unit = state.units[event.node]
            unit.judged = event
            if not event.accepted:
                unit.feedback = (*unit.feedback, event.reason)
            state.move(unit, Phase.JUDGED)
        case RetryPlanned():
            unit = state.units[event.node]
            unit.phase, unit.due = Phase.PAUSED, event.due
        case Expanded():
            _expand(state, state.units[event.node], event.count)
        case TurnStarted():
            _enter(state, state.units[event.node], event.turn)
        case RunStarted():
            state.run, state.label, state.budget = event.run, event.label, program.budget
            state.root = state.open_scope("", program, Bindings(input=event.inputs), None)
        case CancelRequested():
            state.cancelled = True
        case RunFinished():
            state.finished = event
        case Resumed() | Asked() | Answered() | LetterRefused() | Measured():
            pass
        case _:
            assert_never(event)


def _enter(state: State, unit: Unit, turn: int) -> None:
    """A body begins. What a loop's turn sees as `previous` is the output of the turn before, computed as `decide` did."""
    body = unit.node.body
    if body is None:
        raise OrchestraError("E002", f"{unit.path} has no body", hint="orchestra doctor")
    if unit.node.kind == "loop":
        before = unit.body
        previous = None if before is None else before.program.output.evaluate(before.bindings)
        path, bindings = f"{unit.path}#{turn}/", Bindings(unit.bindings, turn=turn, previous=previous)
    elif body.lexical:
        path, bindings = f"{unit.path}/", Bindings(unit.bindings)
    else:
        given = unit.node.inputs.evaluate(unit.bindings) if unit.node.inputs else {}
        path, bindings = f"{unit.path}/", Bindings(input=with_defaults(body, given))
    unit.turn, unit.phase = turn, Phase.INSIDE
    unit.body = state.open_scope(path, body, bindings, unit)


def _expand(state: State, unit: Unit, count: int) -> None:
    node = unit.node
    items = node.each.evaluate(unit.bindings) if node.each else []
    unit.items, unit.elements, unit.pending = items[:count], [None] * count, count
    unit.phase = Phase.EXPANDED
    _feed(state, unit)


def _feed(state: State, unit: Unit) -> None:
    """Lets as many elements begin as the node's `concurrency` admits; when all have an outcome, asks for the node's own."""
    node = unit.node
    most = node.concurrency or len(unit.items)
    while unit.busy < most and unit.next < len(unit.items):
        index = unit.next
        bindings = Bindings(unit.bindings, **{node.variable: unit.items[index]})
        element = Unit(f"{unit.path}[{index}]", unit.scope, node, bindings, unit, index)
        state.units[element.path] = element
        state.enqueue(element)
        unit.next += 1
        unit.busy += 1
    if not unit.pending:
        state.move(unit, Phase.EXPANDED)


def with_defaults(program: Program, given: dict[str, object]) -> dict[str, object]:
    """The inputs of a program, with its defaults for those that are not given."""
    return {name: given.get(name, field.default) for name, field in program.inputs.items()}


def _settle(state: State, unit: Unit, outcome: Outcome) -> None:
    unit.phase = Phase.DONE
    if (owner := unit.owner) is not None:
        owner.elements[unit.index] = outcome
        owner.pending -= 1
        owner.busy -= 1
        _feed(state, owner)
        return
    scope, node = unit.scope, unit.node
    scope.outcomes[node.index] = outcome
    scope.open -= 1
    if isinstance(outcome, Value):
        scope.bindings[node.name] = {"values": outcome.value} if node.each is not None else outcome.value
    for child in node.children:
        scope.left[child] -= 1
        if not scope.left[child]:
            state.admit(scope, scope.program.nodes[child])
    if not scope.open:
        _close(state, scope)


def _close(state: State, scope: Scope) -> None:
    if scope.unit is None:
        state.agenda.append((None, Phase.DONE))
    else:
        state.move(scope.unit, Phase.EMERGED)

"""The fold: state and event in, state out. Facts only; nothing is decided here, and nothing is read from outside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from orchestra.engine.state import Bindings, Phase, Scope, Spreading, State, Unit
from orchestra.errors import OrchestraError
from orchestra.events import (
    NOTHING,
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

RUNNING, READY = Phase.RUNNING, Phase.READY


def evolve(state: State, event: Event, program: Program) -> None:
    """Folds one event of a run of `program` into its state, in place. Raises `OrchestraError` E001 for a gap in `seq`."""
    if event.seq != state.seq + 1:
        raise OrchestraError("E001", f"event {event.seq} follows event {state.seq} of run {state.run}", hint="orchestra doctor")
    state.seq = event.seq
    if event.at > state.at:
        if type(event) is not Resumed:
            state.active += event.at - state.at
        state.at = event.at
    FOLDS[type(event)](state, event, program)


def _run_started(state: State, event: RunStarted, program: Program) -> None:
    state.run, state.label, state.active = event.run, event.label, 0.0
    state.root = state.open_scope("", program, Bindings(input=event.inputs), None)


def _resumed(state: State, event: Resumed, program: Program) -> None:
    """Attempts that were under way are made again, under their own number; about those that must happen once somebody is asked."""
    state.epoch = event.epoch
    for unit in list(state.units.values()):
        if unit.phase is RUNNING:
            _over(state, unit)
            contract = unit.node.contract
            if contract is not None and contract.effect == "once":
                state.move(unit, Phase.DOUBTFUL)
            else:
                unit.attempt -= 1
                state.enqueue(unit)


def _attempt_started(state: State, event: AttemptStarted, program: Program) -> None:
    unit = state.units[event.node]
    unit.attempt, unit.escalated = event.attempt, event.escalated
    if not unit.began:
        unit.began = event.at
    if unit.phase is not RUNNING:
        unit.phase = RUNNING
        state.running += 1
    if event.reserved and unit.reserved < 0 and unit.scope.purse is not None:
        unit.reserved = event.reserved
        unit.scope.purse.reserve(event.reserved)


def _attempt_finished(state: State, event: AttemptFinished, program: Program) -> None:
    unit = state.units[event.node]
    if unit.phase is RUNNING:
        state.running -= 1
    unit.attempt = event.attempt
    if not unit.began and not event.settled:
        unit.began = event.at - event.usage.seconds
    purse = unit.scope.purse
    if purse is not None:
        reserved, promised = unit.reserved, unit.promised
        if reserved >= 0:
            purse.release(reserved, promised)
            unit.reserved, unit.promised = -1, 0.0
        if (contract := unit.node.contract) is not None and contract.kind == "agent":
            usage = event.usage
            silent = not event.error and not event.recalled and not usage.prompt_tokens and not usage.output_tokens
            # A worker that does not say what a call has cost is taken to have spent what was reserved.
            if silent and reserved > 0:
                purse.spend(reserved, usage.calls, promised)
            else:
                purse.spend(usage.prompt_tokens + usage.output_tokens, usage.calls, usage.money)
        if state.lines:
            state.feed()
    if event.usage is not NOTHING:
        state.tally.add(event.usage)
    if event.settled:
        del state.units[event.node]
        _settle(state, unit, Value(event.value, event.confidence))
    else:
        unit.answer = event
        state.move(unit, Phase.ERRED if event.error else Phase.ANSWERED)


def _over(state: State, unit: Unit) -> None:
    """An attempt that gave nothing: its place and its reservation are free."""
    state.running -= 1
    if unit.reserved >= 0 and unit.scope.purse is not None:
        unit.scope.purse.release(unit.reserved, unit.promised)
        unit.reserved, unit.promised = -1, 0.0
    if state.lines:
        state.feed()


def _node_finished(state: State, event: NodeFinished, program: Program) -> None:
    unit = state.units.pop(event.node)
    if (unit.body is not None and unit.body.open) or (unit.spreading is not None and unit.spreading.pending):
        _abandon(state, unit)
    elif unit.phase is RUNNING:
        _over(state, unit)
    state.asked.pop(event.node, None)
    _settle(state, unit, event.outcome)


def _abandon(state: State, unit: Unit) -> None:
    """What is still under way inside a unit that has its outcome: its time was up."""
    freed = []
    within = tuple(unit.path + mark for mark in "/#[")
    for path in [path for path in state.units if path.startswith(within)]:
        inner = state.units.pop(path)
        freed += [inner] if inner.phase is RUNNING else []
        inner.phase = Phase.DONE
        state.asked.pop(path, None)
    for inner in freed:
        _over(state, inner)
    if state.lines:
        state.feed()  # one that was let out of a line may be among them


def _judged(state: State, event: Judged, program: Program) -> None:
    unit = state.units[event.node]
    unit.judged = event
    if not event.accepted:
        unit.feedback = (*unit.feedback, event.reason)
    state.move(unit, Phase.JUDGED)


def _retry_planned(state: State, event: RetryPlanned, program: Program) -> None:
    unit = state.units[event.node]
    unit.phase, unit.due = Phase.PAUSED, event.due


def _measured(state: State, event: Measured, program: Program) -> None:
    unit = state.units[event.node]
    unit.measured = event.prompt_tokens
    state.enqueue(unit)


def _asked(state: State, event: Asked, program: Program) -> None:
    unit = state.units[event.node]
    unit.phase, unit.asked = Phase.ASKED, event
    limit = unit.node.timeout if event.about == "answer" else None
    unit.due = 0.0 if limit is None else event.at + limit
    state.asked[event.node] = event


def _answered(state: State, event: Answered, program: Program) -> None:
    unit = state.units[event.node]
    unit.reply = event
    state.letters = max(state.letters, event.letter)
    del state.asked[event.node]
    state.move(unit, Phase.REPLIED)


def _letter_refused(state: State, event: LetterRefused, program: Program) -> None:
    state.letters = max(state.letters, event.letter)


def _cancel_requested(state: State, event: CancelRequested, program: Program) -> None:
    state.cancelled, state.cancelled_by = True, event.by
    state.letters = max(state.letters, event.letter)


def _run_finished(state: State, event: RunFinished, program: Program) -> None:
    state.finished = event


def _turn_started(state: State, event: TurnStarted, program: Program) -> None:
    """A body begins. What a loop's turn sees as `previous` is the output of the turn before, computed as `decide` did."""
    unit = state.units[event.node]
    body = unit.node.body
    if body is None:
        raise OrchestraError("E002", f"{unit.path} has no body", hint="orchestra doctor")
    if unit.node.kind == "loop":
        before = unit.body
        previous = None if before is None else before.program.output.evaluate(before.bindings)
        path, bindings = f"{unit.path}#{event.turn}/", Bindings(unit.bindings, turn=event.turn, previous=previous)
    elif body.lexical:
        path, bindings = f"{unit.path}/", Bindings(unit.bindings)
    else:
        given = unit.node.inputs.evaluate(unit.bindings) if unit.node.inputs else {}
        path, bindings = f"{unit.path}/", Bindings(input=with_defaults(body, given))
    if unit.node.timeout is not None and unit.body is None:
        unit.due = event.at + unit.node.timeout
    unit.turn, unit.phase = event.turn, Phase.INSIDE
    unit.body = state.open_scope(path, body, bindings, unit)


def _expanded(state: State, event: Expanded, program: Program) -> None:
    unit = state.units[event.node]
    items = unit.node.each.evaluate(unit.bindings) if unit.node.each else []
    unit.spreading = Spreading(items[: event.count])
    unit.phase = Phase.EXPANDED
    _feed(state, unit, unit.spreading)


def _feed(state: State, unit: Unit, spreading: Spreading) -> None:
    """Lets as many elements begin as the node's `concurrency` admits; when all have an outcome, asks for the node's own."""
    node = unit.node
    items = spreading.items
    most = node.concurrency or len(items)
    while spreading.busy < most and spreading.next < len(items):
        index = spreading.next
        bindings = Bindings(unit.bindings, **{node.variable: items[index]})
        element = Unit(f"{unit.path}[{index}]", unit.scope, node, bindings, unit, index)
        state.units[element.path] = element
        state.enqueue(element)
        spreading.next += 1
        spreading.busy += 1
    if not spreading.pending:
        state.move(unit, Phase.EXPANDED)


def with_defaults(program: Program, given: dict[str, object]) -> dict[str, object]:
    """The inputs of a program, with its defaults for those that are not given."""
    return {name: given.get(name, field.default) for name, field in program.inputs.items()}


def _settle(state: State, unit: Unit, outcome: Outcome) -> None:
    unit.phase = Phase.DONE
    if (owner := unit.owner) is not None:
        spreading = owner.spreading
        if spreading is not None:
            spreading.outcomes[unit.index] = outcome
            spreading.pending -= 1
            spreading.busy -= 1
            _feed(state, owner, spreading)
        return
    scope, node = unit.scope, unit.node
    scope.outcomes[node.index] = outcome
    scope.open -= 1
    if type(outcome) is Value:
        scope.bindings[node.name] = {"values": outcome.value} if node.each is not None else outcome.value
    else:
        scope.whole = False
    left = scope.left
    for child in node.children:
        left[child] = missing = left[child] - 1
        if not missing:
            state.admit(scope, scope.program.nodes[child])
    if not scope.open:
        _close(state, scope)


def _close(state: State, scope: Scope) -> None:
    if scope.unit is None:
        state.agenda.append((None, Phase.DONE))
    else:
        state.move(scope.unit, Phase.EMERGED)


FOLDS: dict[type[Event], Callable[[State, Any, Program], None]] = {
    AttemptFinished: _attempt_finished,
    AttemptStarted: _attempt_started,
    NodeFinished: _node_finished,
    Judged: _judged,
    RetryPlanned: _retry_planned,
    Measured: _measured,
    Expanded: _expanded,
    TurnStarted: _turn_started,
    Asked: _asked,
    Answered: _answered,
    LetterRefused: _letter_refused,
    CancelRequested: _cancel_requested,
    RunStarted: _run_started,
    Resumed: _resumed,
    RunFinished: _run_finished,
}
"""The fold of each type of event; a test holds it against the closed union."""

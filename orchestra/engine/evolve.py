"""The fold: state and event in, state out. Facts only; nothing is decided here, and nothing is read from outside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from orchestra.core.errors import OrchestraError
from orchestra.core.events import (
    NOTHING,
    Answered,
    Asked,
    AttemptFinished,
    AttemptStarted,
    CancelRequested,
    ChecksStarted,
    Drafted,
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
from orchestra.core.outcomes import Outcome, Skipped, Value
from orchestra.engine import check_budget, kinds
from orchestra.engine.budgets import Purse
from orchestra.engine.kinds import checks
from orchestra.engine.scopes import abandon, around, beneath, close, grow, over, within
from orchestra.engine.state import Bindings, Checking, Phase, Rung, Sample, Scope, Spreading, State, Unit, Writing, contradiction
from orchestra.verification.check_budget import Allotment
from orchestra.workflows.program import Program

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
    state.run, state.label, state.tiers, state.active = event.run, event.label, event.tiers, 0.0
    state.given = event.given
    if state.budgeted and program.budget is not None and program.budget.check_tokens is not None:
        state.allotment = Allotment(program.budget.check_tokens)
    state.root = state.open_scope("", program, Bindings(input=event.inputs), None)


def _resumed(state: State, event: Resumed, program: Program) -> None:
    """Attempts that were under way are made again, under their own number; about those that must happen once somebody is asked. The time of
    bodies, and that between attempts, goes on from where it was; that of questions to persons, and of bodies in which one is open, goes by
    the calendar."""
    state.epoch = event.epoch
    asking = {body.path for path in state.asked for body in around(state.units[path])}
    for unit in list(state.units.values()):
        if unit.began:
            unit.began += event.away
            _moved(unit, event.away)
        if unit.due and unit.path not in asking and (unit.phase in (Phase.INSIDE, Phase.EMERGED) or checks.timed(unit)):
            unit.due += event.away
        if unit.phase is RUNNING:
            over(state, unit)
            contract = unit.node.contract
            if contract is not None and contract.effect == "once":
                state.move(unit, Phase.DOUBTFUL)
            else:
                unit.attempt -= 1
                state.enqueue(unit)


def _moved(unit: Unit, seconds: float) -> None:
    """What a unit came to before its run was away stays as long after its beginning: whether another attempt follows is decided by it."""
    if unit.answer is not None:
        unit.answer = replace(unit.answer, at=unit.answer.at + seconds)
    if unit.judged is not None:
        unit.judged = replace(unit.judged, at=unit.judged.at + seconds)


def _attempt_started(state: State, event: AttemptStarted, program: Program) -> None:
    unit = state.units[event.node]
    unit.attempt, unit.tier = event.attempt, event.tier or int(event.escalated)
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
    if unit.scope.purse is not None:
        _paid(state, unit.scope.purse, unit, event)
    if event.usage is not NOTHING:
        state.tally.add(event.usage)
    if (owner := unit.scope.unit) is not None:
        if state.allotment is not None and owner.checking is not None:
            check_budget.spend(state.allotment, unit, event)
        if owner.writing is not None and kinds.plan.is_question(unit):
            owner.spent = owner.spent + event.usage
    if event.settled:
        del state.units[event.node]
        _settle(state, unit, Value(event.value, event.confidence))
    else:
        unit.answer = event
        if unit.tier:
            unit.climbed = (*unit.climbed, Rung(unit.tier, event.error, event.reason))
        state.move(unit, Phase.ERRED if event.error else Phase.ANSWERED)


def _paid(state: State, purse: Purse, unit: Unit, event: AttemptFinished) -> None:
    """What was reserved for an attempt is free, and what it has cost is spent; there may be room now for others."""
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


def _node_finished(state: State, event: NodeFinished, program: Program) -> None:
    unit = state.units.pop(event.node)
    inside = unit.body is not None or unit.writing is not None
    if (inside and _busy(unit)) or (unit.spreading is not None and unit.spreading.pending) or _asks(unit):
        abandon(state, beneath(state, unit))
    elif unit.phase is RUNNING:
        over(state, unit)
    state.asked.pop(event.node, None)
    if state.allotment is not None:
        check_budget.release(state.allotment, unit)
    if unit.scope.ended is not None and event.given is not None:
        unit.scope.ended.given = True
    _settle(state, unit, event.outcome)


def _busy(unit: Unit) -> bool:
    """Whether something is still under way inside a unit that has a body, though the unit has its outcome."""
    plan = unit.writing.plan if unit.writing is not None else None
    if unit.writing is not None and any(sample.body.open > 0 for sample in unit.writing.samples.values()):
        return True
    return (unit.body is not None and unit.body.open > 0) or (plan is not None and plan.open > 0)


def _asks(unit: Unit) -> bool:
    """Whether something is still under way that its checks asked."""
    return unit.checking is not None and unit.checking.scope.open > 0


def _checks_started(state: State, event: ChecksStarted, program: Program) -> None:
    """Checks ask agents: their questions are calls in a scope beneath the unit, which spends from the unit's budget."""
    unit = state.units[event.node]
    unit.phase = Phase.CHECKING
    scope = state.open_scope(f"{unit.path}?{event.round}/", checks.program(unit, event), Bindings(unit.bindings), unit)
    unit.checking = Checking(event, scope)
    if event.stake is not None and state.allotment is not None:
        check_budget.met(state.allotment, unit, event.stake)
        check_budget.reserve(state.allotment, unit.checking, event.stake)


def _judged(state: State, event: Judged, program: Program) -> None:
    unit = state.units[event.node]
    unit.judged = event
    if event.unasked is not None and state.allotment is not None:
        check_budget.met(state.allotment, unit, event.unasked)
    if not event.accepted:
        told = event.reason if event.told is None else event.told
        unit.feedback = (*unit.feedback, told) if told else unit.feedback
        unit.offered = unit.answer.value if unit.answer is not None else None
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
    if event.drafted is not None:
        begun = _drafted if unit.node.using is None else _tool_turn
        begun(state, unit, event, event.drafted)
        return
    body = unit.node.body
    if body is None:
        raise contradiction(f"{unit.path} has no body")
    if unit.node.kind == "loop":
        before = unit.body
        previous = None if before is None else before.program.output.evaluate(before.bindings)
        path, bindings = f"{unit.path}#{event.turn}/", Bindings(unit.bindings, turn=event.turn, previous=previous)
    elif body.lexical:
        path, bindings = f"{unit.path}/", Bindings(unit.bindings)
    else:
        given = unit.node.inputs.evaluate(unit.bindings) if unit.node.inputs else {}
        path, bindings = f"{unit.path}/", Bindings(input=with_defaults(body, given))
    _enter(state, unit, event, path, body, bindings)


def _enter(state: State, unit: Unit, event: TurnStarted, path: str, body: Program, bindings: Bindings) -> None:
    if unit.node.timeout is not None and unit.body is None:
        unit.due = event.at + unit.node.timeout
    unit.turn, unit.phase = event.turn, Phase.INSIDE
    unit.body = state.open_scope(path, body, bindings, unit)


def _tool_turn(state: State, unit: Unit, event: TurnStarted, drafted: Drafted) -> None:
    """An agent that uses tools is asked for its next line or for its answer, or what its line calls is called."""
    unit.found = kinds.tool_use.gathered(unit, drafted)
    unit.drafted = drafted
    body = kinds.tool_use.program(unit, drafted)
    _enter(state, unit, event, f"{unit.path}#{event.turn}/", body, kinds.tool_use.bindings(unit, body))


def _drafted(state: State, unit: Unit, event: TurnStarted, drafted: Drafted) -> None:
    """A plan goes on: its scope grows by the lines that were accepted, and the next question is open, if there is one.

    Where a version follows one that failed, what is under way of that is abandoned, and what it has finished is at hand.
    """
    writing = unit.writing
    if writing is None:
        writing = unit.writing = Writing(drafted)
        unit.due = event.at + unit.node.timeout if unit.node.timeout is not None else unit.due
    elif writing.drafted.version != drafted.version:
        abandon(state, within(state, unit.path, "#@"))
        kinds.plan.carry(writing, drafted)
    if not drafted.sample:
        writing.samples, writing.answered = {}, []
    writing.drafted, unit.turn, unit.phase = drafted, event.turn, Phase.INSIDE
    whole = kinds.plan.whole(drafted)
    grown = drafted.graph if whole and drafted.version else drafted.plan
    if grown is not None:
        program = kinds.plan.program(unit, grown)
        given = kinds.plan.bindings(unit, program)
        if writing.plan is None:
            writing.plan = Scope(f"{unit.path}@{drafted.version}/", program, given, unit, unit.scope.purse, state.nearest(unit))
        writing.plan.bindings.update(given)
        if whole:
            writing.spare = kinds.plan.finished(writing)
        grow(state, writing.plan, program, whole=whole)
    if not (whole and drafted.version):
        body = kinds.plan.program(unit, drafted.graph, drafted.sample)
        unit.body = state.open_scope(f"{unit.path}#{event.turn}/", body, kinds.plan.bindings(unit, body), unit)
        if drafted.beside:
            writing.samples[drafted.sample] = Sample(drafted, unit.body)
            writing.answered = [number for number in writing.answered if number != drafted.sample]
            if kinds.plan_voting.waits(unit):
                state.move(unit, Phase.EMERGED)


def _expanded(state: State, event: Expanded, program: Program) -> None:
    unit = state.units[event.node]
    items = unit.node.each.evaluate(unit.bindings) if unit.node.each else []
    unit.spreading = Spreading(items[: event.count], unit.node.at_least)
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
    if unit.scope.ended is not None:
        unit.scope.ended.units[unit.path] = unit
    if (owner := unit.owner) is not None:
        spreading = owner.spreading
        if spreading is not None and spreading.spare >= 0:
            spreading.outcomes[unit.index] = outcome
            spreading.pending -= 1
            spreading.busy -= 1
            spreading.staked -= unit.staked
            if type(outcome) is not Value and not (type(outcome) is Skipped and unit.node.at_least == "all"):
                spreading.spare -= 1
            if spreading.spare < 0:
                state.move(owner, Phase.EXPANDED)  # it fails, whatever comes of the others
            else:
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
        close(state, scope)


FOLDS: dict[type[Event], Callable[[State, Any, Program], None]] = {
    AttemptFinished: _attempt_finished,
    AttemptStarted: _attempt_started,
    NodeFinished: _node_finished,
    ChecksStarted: _checks_started,
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

"""Replay: a run's events held against what the engine decides today. No clock, no workers, no journal: facts and decisions alone.

It shows that an old run can be resumed by today's engine; that a journal tells of one honest run; and which calls it made.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from orchestra.doors import Call
from orchestra.engine.decide import decide
from orchestra.engine.evolve import evolve
from orchestra.engine.proposals import Ask, Conclude, Count, Enter, Expand, Finish, Invoke, Judge, Pause, Proposal
from orchestra.engine.state import Phase, State, Unit
from orchestra.events import (
    Asked,
    AttemptFinished,
    AttemptStarted,
    Event,
    Expanded,
    Judged,
    Measured,
    NodeFinished,
    Resumed,
    RetryPlanned,
    RunFinished,
    TurnStarted,
)
from orchestra.values.outcome import Failed, Value
from orchestra.verify import acceptance
from orchestra.workflow.program import Program

TIME_IS_UP = "E006"
NO_BUDGET = "E005"


@dataclass(slots=True)
class Replayed:
    """What a replay found: each attempt's call with how it ended, by node and attempt; and the first event that today's engine
    would not have brought about, with what it would have."""

    calls: dict[tuple[str, int], tuple[Call, AttemptFinished | None]] = field(default_factory=dict)
    different: Event | None = None
    reason: str = ""
    events: int = 0


def replay(program: Program, events: Iterable[Event]) -> Replayed:
    """Goes through a run's events. Raises nothing for a run that differs: `Replayed.different` tells it."""
    state, found = State(budgeted=False), Replayed()
    pending: dict[str, Proposal] = {}
    for event in events:
        try:
            if isinstance(event, Resumed):
                _forget(state, pending)
            reason = _objection(state, pending, event, found)
            if not reason:
                evolve(state, event, program)
        except (KeyError, IndexError) as error:
            reason = f"the workflow has no {error}"
        if reason:
            found.different, found.reason = event, reason
            return found
        found.events += 1
        _decide(state, pending)
    return found


def _forget(state: State, pending: dict[str, Proposal]) -> None:
    """Calls that were decided, and of which no fact is on record, are decided anew by whoever takes a run over."""
    for unit in state.units.values():
        if isinstance(pending.get(unit.path), Invoke):
            del pending[unit.path]
            state.running -= 1
            state.enqueue(unit)


def _decide(state: State, pending: dict[str, Proposal]) -> None:
    for proposal in decide(state):
        pending["" if isinstance(proposal, Conclude) else proposal.unit.path] = proposal


def _objection(state: State, pending: dict[str, Proposal], event: Event, found: Replayed) -> str:
    """Why the engine would not have brought this event about here; empty where it would have. Takes the proposal away."""
    node = getattr(event, "node", "")
    if node in state.units and state.units[node].phase is Phase.PAUSED:
        state.enqueue(state.units[node])  # its time has come
        _decide(state, pending)
    match event:
        case AttemptStarted():
            return _called(pending, event, found)
        case AttemptFinished():
            if ((node, event.attempt) not in found.calls or node in pending) and (reason := _called(pending, event, found)):
                return reason
            found.calls[node, event.attempt] = (found.calls[node, event.attempt][0], event)
            return ""
        case NodeFinished():
            return _finished(state, pending, event)
        case Judged():
            return _judged(pending.pop(node, None), event)
        case Expanded():
            return _expected(pending.pop(node, None), event.count, Expand, "count")
        case TurnStarted():
            return _expected(pending.pop(node, None), event.turn, Enter, "turn")
        case Asked():
            return _expected(pending.pop(node, None), event.question, Ask, "question")
        case RetryPlanned():
            proposal = pending.pop(node, None)
            return "" if isinstance(proposal, Pause) and proposal.attempt == event.attempt else _instead(proposal)
        case Measured():
            if isinstance(pending.pop(node, None), Invoke):
                state.running -= 1
            return ""
        case RunFinished():
            proposal = pending.pop("", None)
            if event.status in ("cancelled", "budget"):
                return ""
            same = isinstance(proposal, Conclude) and (proposal.status, proposal.outcome) == (event.status, event.outcome)
            return "" if same else _instead(proposal)
        case _:
            return ""


def _called(pending: dict[str, Proposal], event: AttemptStarted | AttemptFinished, found: Replayed) -> str:
    proposal = pending.pop(event.node, None)
    if isinstance(proposal, Count):
        proposal = Invoke(proposal.unit, proposal.call)
    if not isinstance(proposal, Invoke) or proposal.call.attempt != event.attempt:
        return _instead(proposal)
    if event.name and proposal.call.name != event.name:
        return f"the engine would ask {proposal.call.name}"
    found.calls[event.node, event.attempt] = (proposal.call, None)
    return ""


def _finished(state: State, pending: dict[str, Proposal], event: NodeFinished) -> str:
    unit = state.units[event.node]
    proposal = pending.pop(event.node, None)
    if isinstance(proposal, Finish) and proposal.outcome == event.outcome:
        return ""
    # Not by the clock: the engine waits in time that never jumps, and stamps events with the wall's, which may.
    timed = unit.due and unit.phase in (Phase.INSIDE, Phase.ASKED)
    if timed and _ended_by(unit, event, TIME_IS_UP):
        within = tuple(event.node + mark for mark in "/#[")
        for path in [path for path in pending if path.startswith(within)]:
            del pending[path]
        return ""
    contract = unit.node.contract
    poor = contract is not None and contract.kind == "agent" and _ended_by(unit, event, NO_BUDGET)
    return "" if poor else _instead(proposal)


def _ended_by(unit: Unit, event: NodeFinished, code: str) -> bool:
    """Whether a node ended in a failure of this code, or in the fallback for one."""
    outcome = event.outcome
    return (isinstance(outcome, Failed) and outcome.code == code) or (unit.node.fallback is not None and isinstance(outcome, Value))


def _judged(proposal: Proposal | None, event: Judged) -> str:
    if not isinstance(proposal, Judge) or proposal.attempt != event.attempt:
        return _instead(proposal)
    ruling = acceptance.start(proposal.situation)
    if (ruling.verdicts, ruling.accepted) != (event.verdicts, event.accepted):
        return "the checks say something else today"
    return ""


def _expected(proposal: Proposal | None, value: object, kind: type[Proposal], name: str) -> str:
    return "" if isinstance(proposal, kind) and getattr(proposal, name) == value else _instead(proposal)


def _instead(proposal: Proposal | None) -> str:
    if proposal is None:
        return "the engine would not do anything here"
    return f"the engine would {_WORDS[type(proposal)]}"


_WORDS: dict[type[Proposal], str] = {
    Invoke: "make a call",
    Judge: "let the checks speak",
    Pause: "plan another attempt",
    Count: "count tokens",
    Ask: "ask a person",
    Expand: "begin elements",
    Enter: "begin a body",
    Finish: "finish the node otherwise",
    Conclude: "end the run otherwise",
}

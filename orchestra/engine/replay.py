"""Replay: a run's events held against what the engine decides today. No clock, no workers, no journal: facts and decisions alone.

It shows that an old run can be resumed by today's engine; that a journal tells of one honest run; and which calls it made.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf

from msgspec.structs import replace

from orchestra.core.error_codes import NO_BUDGET, TIME_IS_UP
from orchestra.core.events import (
    Answered,
    Asked,
    AttemptFinished,
    AttemptStarted,
    ChecksStarted,
    Drafted,
    Event,
    Expanded,
    Given,
    Judged,
    Measured,
    NodeFinished,
    Resumed,
    RetryPlanned,
    RunFinished,
    TurnStarted,
    Verdict,
)
from orchestra.core.outcomes import Failed, Value
from orchestra.core.protocols import Call
from orchestra.engine.decide import decide, give_up
from orchestra.engine.evolve import evolve
from orchestra.engine.kinds import plan, plan_cache, plan_voting
from orchestra.engine.kinds.checks import examined, rounds, timed
from orchestra.engine.kinds.subworkflow import result
from orchestra.engine.proposals import Ask, Conclude, Count, Enter, Expand, Finish, Invoke, Judge, Pause, Proposal, Recall
from orchestra.engine.state import Phase, State, Unit
from orchestra.router.plan import LINE
from orchestra.verification import session
from orchestra.workflows.program import CompiledNode, Program


@dataclass(slots=True)
class Replayed:
    """What a replay found: each attempt's call with how it ended, by node and attempt; and the first event that today's engine
    would not have brought about, with what it would have."""

    calls: dict[tuple[str, int], tuple[Call, AttemptFinished | None]] = field(default_factory=dict)
    counts: list[tuple[Call, int]] = field(default_factory=list)
    """Calls whose prompt a server was asked to count, with its tokens."""
    certified: dict[str, str] = field(default_factory=dict)
    """By node: the digest of the certificate by which its value was judged; empty where there is none."""
    late: list[str] = field(default_factory=list)
    """Nodes whose time was up: the clock decided their outcome, and no answer."""
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
            unit = state.units.get(event.node) if isinstance(event, NodeFinished | TurnStarted) else None
            reason = _objection(state, pending, event, found)
            if not reason:
                if isinstance(event, Judged):
                    found.certified[event.node] = certificate_of(state.units[event.node].node)
                evolve(state, event, program)
                if unit is not None and (unit.due or unit.writing is not None or unit.node.at_least is not None or _limited(unit)):
                    _drop(pending)
        except (KeyError, IndexError) as error:
            reason = f"the workflow has no {error}"
        if reason:
            found.different, found.reason = event, reason
            return found
        found.events += 1
        _decide(state, pending)
    return found


def certificate_of(node: CompiledNode) -> str:
    """The digest of the certificate that a node's values are accepted by; empty without one."""
    certificate = node.acceptance.certificate if node.acceptance is not None else None
    return certificate.digest if certificate is not None else ""


def _forget(state: State, pending: dict[str, Proposal]) -> None:
    """Calls that were decided, and of which no fact is on record, are decided anew by whoever takes a run over; and so is how a plan
    goes on, for more of it may be known by then."""
    for unit in state.units.values():
        if isinstance(pending.get(unit.path), Invoke):
            del pending[unit.path]
            state.running -= 1
            state.enqueue(unit)
        elif unit.writing is not None and unit.phase is Phase.EMERGED and pending.pop(unit.path, None) is not None:
            state.move(unit, Phase.EMERGED)


def _drop(pending: dict[str, Proposal]) -> None:
    """Nothing comes any more of what was abandoned."""
    for path, proposal in list(pending.items()):
        if not isinstance(proposal, Conclude) and proposal.unit.phase is Phase.DONE:
            del pending[path]


def _decide(state: State, pending: dict[str, Proposal]) -> None:
    while proposals := decide(state):
        for proposal in proposals:
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
            if event.error == TIME_IS_UP:
                found.late.append(node)
            return ""
        case NodeFinished():
            return _finished(state, pending, event, found)
        case ChecksStarted():
            return _questioned(pending.pop(node, None), event)
        case Judged():
            return _judged(pending.pop(node, None), event)
        case Expanded():
            return _expected(pending.pop(node, None), event.count, Expand, "count")
        case TurnStarted():
            return _turned(proposal := pending.pop(node, None), event) and _turned(_older_rule(proposal), event)
        case Asked():
            return _expected(pending.pop(node, None), event.question, Ask, "question")
        case Answered() if event.gave:
            attempt = state.units[node].attempt
            if (open_ := found.calls.get((node, attempt))) is not None:
                said = {"name": open_[0].name, "value": event.value, "given": Given(event.by)}
                found.calls[node, attempt] = (open_[0], AttemptFinished(seq=event.seq, at=event.at, node=node, attempt=attempt, **said))
            return ""
        case RetryPlanned():
            proposal = pending.pop(node, None)
            return "" if isinstance(proposal, Pause) and proposal.attempt == event.attempt else _instead(proposal)
        case Measured():
            if isinstance(counted := pending.pop(node, None), Invoke):
                state.running -= 1
                found.counts.append((counted.call, event.prompt_tokens))
            return ""
        case RunFinished():
            proposal = pending.pop("", None)
            if event.status in ("cancelled", "budget"):
                return ""
            same = isinstance(proposal, Conclude) and (proposal.status, proposal.outcome) == (event.status, event.outcome)
            return "" if same else _instead(proposal)
        case _:
            return ""


def _turned(proposal: Proposal | None, event: TurnStarted) -> str:
    if isinstance(proposal, Recall | Enter) and proposal.unit.node.planning is not None and _older(event.drafted):
        proposal = plan.first(proposal.unit, version=0)
    elif isinstance(proposal, Recall):
        proposal = plan_cache.replayed(proposal.unit, event.drafted)
    if isinstance(proposal, Enter) and proposal.because != event.because:
        return "another agent would be asked"
    drafted = not isinstance(proposal, Enter) or _unheld(_as_made(proposal.drafted, event.drafted)) == _unheld(event.drafted)
    return _expected(proposal, event.turn, Enter, "turn") if drafted else "the router's machine would go on otherwise"


def _older_rule(proposal: Proposal | None) -> Proposal | None:
    """What an engine before L123 would have made of the router's answer: what it let through is a fact."""
    unit = proposal.unit if isinstance(proposal, Enter | Finish) else None
    if unit is None or unit.writing is None or unit.phase is not Phase.EMERGED:
        return proposal
    plan.older(unit)
    return plan_voting.emerged(unit) if plan_voting.under_way(unit) else plan.emerged(unit)


def _older(drafted: Drafted | None) -> bool:
    """Whether it is the first question of an engine that knew no versions: it ran plans only once they were whole, and so goes on."""
    return drafted is not None and not drafted.version and not drafted.lines and not drafted.rejected


def _as_made(drafted: Drafted | None, told: Drafted | None) -> Drafted | None:
    """A first question of several samples as an engine asked it that made them one after the other, where the record is of such a one."""
    older = drafted is not None and told is not None and told.sample and not told.beside
    return replace(drafted, beside=False) if older and drafted is not None else drafted


def _unheld(drafted: Drafted | None) -> Drafted | None:
    """A turn of a plan without the grammar of its question: that held a server to what might stand next, and a newer engine may hold it to
    less. What was let through, and what the gates said of it, are facts of their own."""
    line = drafted.graph["nodes"].get(LINE) if drafted is not None and drafted.graph else None
    if drafted is None or line is None:
        return drafted
    said = {name: value for name, value in line["with"].items() if name != "grammar"}
    return replace(drafted, graph={**drafted.graph, "nodes": {**drafted.graph["nodes"], LINE: {**line, "with": said}}})


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


def _finished(state: State, pending: dict[str, Proposal], event: NodeFinished, found: Replayed) -> str:
    unit = state.units[event.node]
    proposal = pending.pop(event.node, None)
    if isinstance(proposal, Recall):
        proposal = plan.first(unit)  # nothing was found, and the router's machine had nothing to ask
        proposal = give_up(unit, proposal.outcome) if isinstance(proposal, Finish) else proposal
    if isinstance(proposal, Enter):
        proposal = _unread(unit) or proposal
    if isinstance(proposal, Finish) and (proposal.outcome, proposal.given) == (event.outcome, event.given):
        return ""
    # Not by the clock: the engine waits in time that never jumps, and stamps events with the wall's, which may.
    late = unit.due and (unit.phase in (Phase.INSIDE, Phase.ASKED) or timed(unit) or isinstance(proposal, Judge))
    spent = unit.phase is Phase.INSIDE and _limited(unit)
    if (late and _ended_by(unit, event, TIME_IS_UP)) or (spent and _ended_by(unit, event, NO_BUDGET)):
        found.late.append(event.node)
        return ""
    contract = unit.node.contract
    poor = contract is not None and contract.kind == "agent" and _ended_by(unit, event, NO_BUDGET)
    return "" if poor else _instead(proposal)


def _unread(unit: Unit) -> Proposal | None:
    """What an engine before R020 made of a line of a plan that could not be read: the node ended in that, or in its fallback."""
    body = unit.body if unit.writing is not None and not plan_voting.under_way(unit) else None
    answer = result(body) if body is not None and not body.open else None
    return give_up(unit, answer) if isinstance(answer, Failed) else None


def _limited(unit: Unit) -> bool:
    """Whether the budget of the workflow that a unit calls states seconds."""
    return unit.body is not None and unit.body.expires < inf


def _ended_by(unit: Unit, event: NodeFinished, code: str) -> bool:
    """Whether a node ended in a failure of this code, or in the fallback for one."""
    outcome = event.outcome
    return (isinstance(outcome, Failed) and outcome.code == code) or (unit.node.fallback is not None and isinstance(outcome, Value))


def _judged(proposal: Proposal | None, event: Judged) -> str:
    if not isinstance(proposal, Judge) or proposal.attempt != event.attempt:
        return _instead(proposal)
    ruling = examined(proposal)
    if isinstance(ruling, session.Asked):
        if event.unasked is None:
            return f"the check {ruling.check} would ask first"
        ruling = session.unasked(proposal.situation, ruling, event.unasked.why)
    if (_as_then(ruling.verdicts, event.verdicts), ruling.accepted) != (event.verdicts, event.accepted):
        return "the checks say something else today"
    return ""


def _as_then(today: tuple[Verdict, ...], told: tuple[Verdict, ...]) -> tuple[Verdict, ...]:
    """What the checks say today, as the journal could tell it: older ones have no places of numbers, or none of dates."""
    known = {verdict.check: verdict.evidence for verdict in told if verdict.check == "numbers"}
    return tuple(
        replace(verdict, evidence=tuple(one for one in verdict.evidence if one in known[verdict.check]))
        if verdict.check in known
        else verdict
        for verdict in today
    )


def _questioned(proposal: Proposal | None, event: ChecksStarted) -> str:
    if not isinstance(proposal, Judge) or (proposal.attempt, rounds(proposal.unit) + 1) != (event.attempt, event.round):
        return _instead(proposal)
    asked = examined(proposal)
    if not isinstance(asked, session.Asked):
        return "the checks would ask nothing"
    same = (asked.check, asked.questions, asked.verdicts) == (event.check, event.questions, event.verdicts)
    return "" if same else "the checks would ask something else today"


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
    Recall: "look for a plan that has served",
    Ask: "ask a person",
    Expand: "begin elements",
    Enter: "begin a body",
    Finish: "finish the node otherwise",
    Conclude: "end the run otherwise",
}

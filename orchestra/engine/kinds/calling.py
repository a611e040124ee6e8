"""Calls: `agent` and `tool` nodes. An attempt, its answer or error, its verdicts, and whether there is another."""

from __future__ import annotations

import msgspec

from orchestra.doors import Call
from orchestra.engine.kinds import body, choice
from orchestra.engine.kinds.acceptance import evidence, settle
from orchestra.engine.proposals import Count, Finish, Invoke, Pause, Proposal
from orchestra.engine.purse import Purse
from orchestra.engine.retry import policy
from orchestra.engine.state import Phase, State, Unit
from orchestra.errors import OrchestraError
from orchestra.values.outcome import Abstained, Failed, Outcome, Value


def invoke(state: State, unit: Unit) -> Proposal | None:
    """The next attempt; or nothing for now, where the budget has no room yet; or the end, where it never will."""
    node = unit.node
    contract = node.contract
    if contract is None:
        raise OrchestraError("E002", f"{unit.path} calls nothing", hint="orchestra doctor")
    acceptance = node.acceptance
    inputs = node.inputs.evaluate(unit.bindings) if node.inputs is not None else {}
    if acceptance is None and not unit.attempt and contract.effect == "pure" and (unit.scope.purse is None or contract.kind == "tool"):
        # The same as below; most calls of most runs are such, and a field costs 30 ns.
        call = Call(
            run=state.run,
            node=unit.path,
            attempt=1,
            kind=contract.kind,
            name=contract.name,
            inputs=inputs,
            timeout=node.timeout,
            priority=unit.scope.longest - node.height,
            label=state.label,
            key=f"{state.run}/{unit.path}",
            version=contract.digest,
        )
        return Invoke(unit, call, False, True)
    call = Call(
        run=state.run,
        node=unit.path,
        attempt=unit.attempt + 1,
        kind=contract.kind,
        name=contract.name,
        inputs=inputs,
        timeout=node.timeout,
        priority=unit.scope.longest - node.height,
        label=state.label,
        evidence=evidence(unit) if acceptance is not None else (),
        feedback=unit.feedback,
        escalate=unit.wanted or unit.escalated,
        key=f"{state.run}/{unit.path}",
        version=contract.digest,
    )
    plain = acceptance is None or not acceptance.checks
    if unit.scope.purse is not None and contract.kind == "agent":
        return reserved(state, unit, unit.scope.purse, Invoke(unit, call, plain=plain))
    return Invoke(unit, call, contract.effect != "pure", plain)


def reserved(state: State, unit: Unit, purse: Purse, wanted: Invoke) -> Proposal | None:
    """A model call, with what it may cost reserved (DESIGN §10): its output shrinks to what is left; else it waits for calls that
    are under way; else its prompt is counted exactly; else there is no room for it."""
    call, fed = wanted.call, unit.fed
    unit.fed = False
    measure = state.measure(call)
    bound = measure.prompt_tokens if unit.measured < 0 else min(unit.measured, measure.prompt_tokens)
    room, calls = purse.room, purse.calls_left
    if (calls is None or calls > 0) and (room is None or (room > 0 and bound + min(measure.min_output, measure.max_output) <= room)):
        most = measure.max_output if room is None else min(measure.max_output, room - bound)
        if most < measure.max_output:
            call = msgspec.structs.replace(call, max_output=most)
        state.feed(purse)
        return Invoke(unit, call, plain=wanted.plain, reserved=bound + most)
    if purse.waits:
        state.starve(unit, purse, first=fed)
        return None
    state.feed(purse)
    if unit.measured < 0 and bound and room is not None and room > measure.min_output and (calls is None or calls > 0):
        unit.phase = Phase.COUNTING
        return Count(unit, call, bound)
    why = purse.spent()
    if room is not None and room > 0 and (calls is None or calls > 0):
        why = f"{room:,} tokens are left, and the next call may take {bound + measure.min_output:,}"
    return Finish(unit, Failed("E005", why, unit.path, "raise `budget:` in the workflow, or --budget"))


def answered(unit: Unit) -> Proposal:
    """An attempt's value, to be judged where the node has checks."""
    return settle(unit, _candidate(unit))


def _candidate(unit: Unit) -> Outcome:
    """The value that waits for its verdicts: a call's answer, or what a body, a choice or a `verify` node gave."""
    if unit.answer is not None:
        return Value(unit.answer.value, unit.answer.confidence)
    if unit.reply is not None:
        return Value(unit.reply.value)
    match unit.node.kind:
        case "call" | "loop":
            return body.result(body.inside(unit))
        case "first_of":
            return choice.chosen(unit)
        case _:
            return choice.given(unit)


def erred(unit: Unit) -> Proposal:
    """An attempt without a value: another one where that can help, else the end."""
    answer = unit.answer
    if answer is None:
        raise OrchestraError("E002", f"{unit.path} has no answer", hint="orchestra doctor")
    if answer.retryable:
        retry = policy(unit.node, answer.error)
        if retry.again(unit.attempt, answer.at - unit.began):
            return Pause(unit, unit.attempt + 1, *retry.pause(unit.attempt), answer.reason)
    if unit.escalated:
        return Finish(unit, Abstained(f"not accepted, and the larger model did not help: {answer.reason}", unit.path))
    return Finish(unit, Failed(answer.error, answer.reason, unit.path, answer.hint))


def judged(state: State, unit: Unit) -> Proposal | None:
    """Accepted: the value, with its evidence. Not accepted: what `otherwise` says, and at last an abstention."""
    ruling, acceptance = unit.judged, unit.node.acceptance
    if ruling is None or acceptance is None:
        raise OrchestraError("E002", f"{unit.path} was not judged", hint="orchestra doctor")
    if ruling.accepted:
        candidate = _candidate(unit)
        if not isinstance(candidate, Value):
            return Finish(unit, candidate)
        found = tuple(evidence for verdict in ruling.verdicts for evidence in verdict.evidence)
        return Finish(unit, Value(candidate.value, ruling.score, found))
    if unit.answer is not None and not unit.escalated:
        contract = unit.node.contract
        if "retry" in acceptance.otherwise and policy(unit.node, "V001").again(unit.attempt, ruling.at - unit.began):
            state.enqueue(unit)
            return None
        if "escalate" in acceptance.otherwise and contract is not None and contract.kind == "agent":
            unit.wanted = True
            state.enqueue(unit)
            return None
    return Finish(unit, Abstained(ruling.reason, unit.path, ruling.score))

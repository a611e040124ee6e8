"""Calls: `agent` and `tool` nodes. An attempt, its answer or error, its verdicts, and whether there is another."""

from __future__ import annotations

from orchestra.doors import Call
from orchestra.engine.kinds import body, choice
from orchestra.engine.kinds.acceptance import evidence, settle
from orchestra.engine.proposals import Finish, Invoke, Pause, Proposal
from orchestra.engine.retry import attempts, waiting
from orchestra.engine.state import State, Unit
from orchestra.errors import OrchestraError
from orchestra.values.outcome import Abstained, Failed, Outcome, Value


def invoke(state: State, unit: Unit, *, escalate: bool = False) -> Proposal:
    """The next attempt; or the end, where the budget is spent."""
    node, contract = unit.node, unit.node.contract
    if contract is None:
        raise OrchestraError("E002", f"{unit.path} calls nothing", hint="orchestra doctor")
    if (spent := _overspent(state)) and contract.kind == "agent":
        return Finish(unit, Failed("E005", spent, unit.path, "raise `budget:` in the workflow, or --budget"))
    call = Call(
        run=state.run,
        node=unit.path,
        attempt=unit.attempt + 1,
        kind=contract.kind,
        name=contract.name,
        inputs=node.inputs.evaluate(unit.bindings) if node.inputs else {},
        timeout=node.timeout,
        priority=_priority(unit),
        label=state.label,
        evidence=evidence(unit),
        feedback=unit.feedback,
        escalate=escalate,
        key=f"{state.run}/{unit.path}",
    )
    return Invoke(unit, call, settled=contract.effect != "pure")


def _priority(unit: Unit) -> int:
    """0 on the critical path of the unit's scope, more for those that can wait (vLLM serves low numbers first)."""
    return unit.scope.longest - unit.node.height


def _overspent(state: State) -> str:
    """Why no further model call may start; empty where one may. What is in flight is not counted, so a run overshoots by that."""
    budget, usage = state.budget, state.usage
    if budget is None:
        return ""
    if budget.tokens is not None and (tokens := usage.prompt_tokens + usage.output_tokens) >= budget.tokens:
        return f"{tokens:,} of {budget.tokens:,} tokens are spent"
    if budget.calls is not None and usage.calls >= budget.calls:
        return f"{usage.calls:,} of {budget.calls:,} calls are spent"
    return ""


def answered(unit: Unit) -> Proposal:
    """An attempt's value, to be judged where the node has checks."""
    return settle(unit, _candidate(unit))


def _candidate(unit: Unit) -> Outcome:
    """The value that waits for its verdicts: a call's answer, or what a body, a choice or a `verify` node gave."""
    if unit.answer is not None:
        return Value(unit.answer.value, unit.answer.confidence)
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
    if unit.escalated:
        return Finish(unit, Abstained(f"not accepted, and the larger model did not help: {answer.reason}", unit.path))
    if answer.retryable and unit.attempt < attempts(unit.node, answer.error):
        low, high = waiting(unit.node, unit.attempt, answer.error)
        return Pause(unit, unit.attempt + 1, low, high, answer.reason)
    return Finish(unit, Failed(answer.error, answer.reason, unit.path, answer.hint))


def judged(state: State, unit: Unit) -> Proposal:
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
        if "retry" in acceptance.otherwise and unit.attempt < attempts(unit.node, "V001"):
            return invoke(state, unit)
        if "escalate" in acceptance.otherwise:
            return invoke(state, unit, escalate=True)
    return Finish(unit, Abstained(ruling.reason, unit.path, ruling.score))

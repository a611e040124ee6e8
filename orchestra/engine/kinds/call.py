"""Calls: `agent` and `tool` nodes. An attempt, its answer or error, its verdicts, and whether there is another."""

from __future__ import annotations

from typing import Any

import msgspec

from orchestra.core.error_codes import NO_BUDGET, UNSENT
from orchestra.core.events import Given
from orchestra.core.outcomes import Failed, Outcome, Value
from orchestra.core.protocols import Call, Measure
from orchestra.engine.budgets import Purse
from orchestra.engine.kinds import escalation, first_of, subworkflow
from orchestra.engine.kinds.acceptance import evidence, settle
from orchestra.engine.proposals import Count, Finish, Invoke, Pause, Proposal
from orchestra.engine.retry import helps, policy
from orchestra.engine.state import Phase, State, Unit, answer_of, contradiction, ruling_of
from orchestra.schema.strict_json import canonical
from orchestra.workflows.expressions.parser import reference
from orchestra.workflows.model import AgentNode

FREE = (0.0, 0.0)
"""The price of what costs no money."""
SHOWN = 120
"""Characters of each value that a choice names."""


def invoke(state: State, unit: Unit) -> Proposal | None:
    """The next attempt; or nothing for now, where the budget has no room yet; or the end, where it never will."""
    node = unit.node
    contract = node.contract
    if contract is None:
        raise contradiction(f"{unit.path} calls nothing")
    acceptance = node.acceptance
    inputs = node.inputs.evaluate(unit.bindings) if node.inputs is not None else {}
    if (
        acceptance is None
        and node.escalate is None
        and not unit.attempt
        and not node.sample
        and contract.effect == "pure"
        and (unit.scope.purse is None or contract.kind == "tool")
    ):
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
            version=contract.digest,
        )
        return Invoke(unit, call, False, True)
    at_once, because = routed(unit) if node.escalate is not None and not unit.attempt else (False, "")
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
        tier=1 if at_once else unit.wanted or (0 if unavailable(unit) else unit.tier),
        sample=node.sample,
        version=contract.digest,
    )
    plain = acceptance is None or not acceptance.checks
    if unit.scope.purse is not None and contract.kind == "agent":
        return reserved(state, unit, unit.scope.purse, Invoke(unit, call, plain=plain, because=because))
    return Invoke(unit, call, contract.effect != "pure", plain, because=because)


def unavailable(unit: Unit) -> bool:
    """Whether a larger model was asked for at once, and there is none for this call."""
    return unit.tier > 0 and unit.judged is None and unit.answer is not None and unit.answer.error in UNSENT


def routed(unit: Unit) -> tuple[bool, str]:
    """Whether the node's condition sends the call to the larger model at once, and the words of that: the condition, and its values."""
    condition, source = unit.node.escalate, unit.node.source
    if condition is None or not isinstance(source, AgentNode) or source.escalate is None:
        return False, ""
    at_once = bool(condition.evaluate(unit.bindings))
    values = [f"{name} = {_short(unit.bindings[name])}" for name in sorted(condition.references) if name in unit.bindings]
    return at_once, f"{_cut(reference(source.escalate) or source.escalate)} is {str(at_once).lower()}, with {', '.join(values)}"


def _short(value: Any) -> str:
    return _cut(canonical(value).decode("utf-8", "replace"))


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def reserved(state: State, unit: Unit, purse: Purse, wanted: Invoke) -> Proposal | None:
    """A model call, with what it may cost reserved (DESIGN §10): its output shrinks to what is left; else it waits for calls that
    are under way; else its prompt is counted exactly; else there is no room for it."""
    call, fed = wanted.call, unit.fed
    unit.fed = False
    measure = state.measure(call)
    bound = measure.prompt_tokens if unit.measured < 0 else min(unit.measured, measure.prompt_tokens)
    calls, room, money = purse.left()
    least, most = min(measure.min_output, measure.max_output), _longest(measure, bound, room, money)
    open_ = (calls is None or calls > 0) and not (measure.unpriced and money is not None)
    if open_ and (room is None or room > 0) and (money is None or money > 0 or measure.price == FREE) and most >= least:
        if most < measure.max_output:
            call = msgspec.structs.replace(call, max_output=most)
        state.feed(purse)
        return Invoke(unit, call, plain=wanted.plain, reserved=bound + most, money=_cost(measure, bound, most), because=wanted.because)
    if purse.waits and not (measure.unpriced and money is not None):
        state.starve(unit, purse, first=fed)
        return None
    state.feed(purse)
    if open_ and unit.measured < 0 and bound and _longest(measure, 1, room, money) >= least:
        unit.phase = Phase.COUNTING
        return Count(unit, call, bound)
    reason = _why(measure, purse, bound, least) + _before(unit)
    return Finish(unit, Failed(NO_BUDGET, reason, unit.path, "raise `budget:` in the workflow, or --budget"))


def _before(unit: Unit) -> str:
    """What the attempt came to after which there is no room for another; empty before the first one."""
    if unit.answer is None:
        return ""
    if unit.answer.error:
        return f"; attempt {unit.attempt} failed: {unit.answer.error}: {unit.answer.reason}"
    return f"; attempt {unit.attempt} was not accepted: {unit.judged.reason}" if unit.judged is not None else ""


def _cost(measure: Measure, prompt: int, output: int) -> float:
    return prompt * measure.price[0] + output * measure.price[1]


def _longest(measure: Measure, prompt: int, room: int | None, money: float | None) -> int:
    """Tokens of output that fit beside the prompt into what is left; negative where not even the prompt does."""
    most = measure.max_output if room is None else min(measure.max_output, room - prompt)
    if money is not None and measure.price != FREE:
        left = money - _cost(measure, prompt, 0)
        most = min(most, int(left / measure.price[1]) if measure.price[1] and left >= 0 else most if left >= 0 else -1)
    return most


def _why(measure: Measure, purse: Purse, bound: int, least: int) -> str:
    """Which limit there is no room under."""
    calls, room, money = purse.left()
    if money is not None and measure.unpriced:
        return f"the budget limits money, and {measure.unpriced} has no `price:` in the fleet file"
    if calls is not None and calls <= 0:
        return purse.spent()
    if room is not None and 0 < room < bound + least:
        return f"{room:,} tokens are left, and the next call may take {bound + least:,}"
    if money is not None and 0 < money < _cost(measure, bound, least):
        return f"{money:.6g} of money is left, and the next call may cost {_cost(measure, bound, least):.6g}"
    return purse.spent()


def answered(unit: Unit) -> Proposal:
    """An attempt's value, to be judged where the node has checks."""
    return settle(unit, candidate(unit))


def candidate(unit: Unit) -> Outcome:
    """The value that waits for its verdicts: a call's answer, or what a body, a choice or a `verify` node gave."""
    if unit.answer is not None:
        return Value(unit.answer.value, unit.answer.confidence)
    if unit.reply is not None:
        return Value(unit.reply.value)
    match unit.node.kind:
        case "call" | "loop" | "plan":
            return subworkflow.result(subworkflow.inside(unit))
        case "first_of":
            return first_of.chosen(unit)
        case _:
            return first_of.given(unit)


def erred(state: State, unit: Unit) -> Proposal | None:
    """An attempt without a value: another one where that can help, else the end."""
    answer = answer_of(unit)
    if helps(unit.node, answer):
        retry = policy(unit.node, answer.error)
        if retry.again(unit.attempt, answer.at - unit.began):
            return Pause(unit, unit.attempt + 1, *retry.pause(unit.attempt), answer.reason)
    if unavailable(unit):
        state.enqueue(unit)  # its own model is asked instead: nobody has seen the call
        return None
    if unit.tier and unit.judged is not None:
        return escalation.failed(state, unit)
    return Finish(unit, Failed(answer.error, answer.reason, unit.path, answer.hint))


def judged(state: State, unit: Unit) -> Proposal | None:
    """Accepted: the value, with its evidence. Not accepted: what `otherwise` says, and at last an abstention."""
    ruling, value = ruling_of(unit), candidate(unit)
    if not isinstance(value, Value):
        return Finish(unit, value)
    if not ruling.accepted:
        return escalation.refused(state, unit, value.value)
    from orchestra.verification.answer_parts import rest

    found = tuple(evidence for verdict in ruling.verdicts for evidence in verdict.evidence)
    said = Given(unit.reply.by) if unit.reply is not None and unit.reply.gave else None
    return Finish(unit, Value(rest(value.value, ruling.verdicts), ruling.score, found), given=said)

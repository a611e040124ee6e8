"""Calls: `agent` and `tool` nodes. An attempt, its result, its judgement, and whether another follows."""

from __future__ import annotations

from typing import Any

import msgspec

from orchestra.core.error_codes import NO_BUDGET, UNSENT_CODES
from orchestra.core.events import OverrideSource
from orchestra.core.outcomes import FailedOutcome, Outcome, ValueOutcome
from orchestra.core.protocols import CallEstimate, CallRequest
from orchestra.engine.budgets import BudgetAccount
from orchestra.engine.kinds import escalation, first_of, subworkflow
from orchestra.engine.kinds.acceptance import evidence, settle
from orchestra.engine.proposals import CountTokens, FinishNode, Invoke, Proposal, ScheduleRetry
from orchestra.engine.retry import is_retryable, retry_policy
from orchestra.engine.state import Phase, RunState, WorkItem, internal_error, require_judgement, require_last_attempt
from orchestra.schema.strict_json import canonical
from orchestra.workflows.expressions.parser import sole_reference
from orchestra.workflows.model import AgentNode

ZERO_PRICE = (0.0, 0.0)
"""The price of free calls."""
MAX_SHOWN = 120
"""Characters of each value in the reason of an escalation."""


def invoke(state: RunState, unit: WorkItem) -> Proposal | None:
    """Proposes the next attempt; None while the budget does not suffice; or the end if it never will."""
    node = unit.node
    contract = node.contract
    if contract is None:
        raise internal_error(f"{unit.path} calls nothing")
    acceptance = node.acceptance
    inputs = node.inputs.evaluate(unit.bindings) if node.inputs is not None else {}
    if (
        acceptance is None
        and node.escalate is None
        and not unit.attempt
        and not node.sample
        and contract.effect == "pure"
        and (unit.scope.account is None or contract.kind == "tool")
    ):
        # The same as below; most calls of most runs take this path, and each field costs 30 ns.
        call = CallRequest(
            run=state.run,
            node=unit.path,
            attempt=1,
            kind=contract.kind,
            name=contract.name,
            inputs=inputs,
            timeout=node.timeout,
            priority=unit.scope.critical_path_length - node.height,
            label=state.label,
            version=contract.digest,
        )
        return Invoke(unit, call, False, True)
    at_once, because = route_tier(unit) if node.escalate is not None and not unit.attempt else (False, "")
    call = CallRequest(
        run=state.run,
        node=unit.path,
        attempt=unit.attempt + 1,
        kind=contract.kind,
        name=contract.name,
        inputs=inputs,
        timeout=node.timeout,
        priority=unit.scope.critical_path_length - node.height,
        label=state.label,
        evidence=evidence(unit) if acceptance is not None else (),
        feedback=unit.feedback,
        tier=1 if at_once else unit.next_tier or (0 if is_tier_unavailable(unit) else unit.tier),
        sample=node.sample,
        version=contract.digest,
    )
    plain = acceptance is None or not acceptance.checks
    if unit.scope.account is not None and contract.kind == "agent":
        return reserve_budget(
            state, unit, unit.scope.account, Invoke(unit, call, unchecked=plain, escalation_reason=because)
        )
    return Invoke(unit, call, contract.effect != "pure", plain, escalation_reason=because)


def is_tier_unavailable(unit: WorkItem) -> bool:
    """Whether a larger model was asked at once and none is available for this call."""
    return (
        unit.tier > 0
        and unit.judgement is None
        and unit.last_attempt is not None
        and unit.last_attempt.error in UNSENT_CODES
    )


def route_tier(unit: WorkItem) -> tuple[bool, str]:
    """Whether the node's condition sends the call to the larger model at once; and the condition with its values, as
    text.
    """
    condition, source = unit.node.escalate, unit.node.source
    if condition is None or not isinstance(source, AgentNode) or source.escalate is None:
        return False, ""
    at_once = bool(condition.evaluate(unit.bindings))
    values = [
        f"{name} = {_json_excerpt(unit.bindings[name])}"
        for name in sorted(condition.references)
        if name in unit.bindings
    ]
    condition_text = _truncate(sole_reference(source.escalate) or source.escalate)
    return at_once, f"{condition_text} is {str(at_once).lower()}, with {', '.join(values)}"


def _json_excerpt(value: Any) -> str:
    return _truncate(canonical(value).decode("utf-8", "replace"))


def _truncate(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"


def reserve_budget(
    state: RunState, unit: WorkItem, account: BudgetAccount[WorkItem], wanted: Invoke
) -> Proposal | None:
    """Reserves budget for a model call (DESIGN §10). Its output limit shrinks to what is left; else it waits for calls
    in flight; else its prompt is counted exactly; else it fails.
    """
    call, is_queued = wanted.call, unit.from_queue
    unit.from_queue = False
    measure = state.estimate(call)
    bound = measure.prompt_tokens if unit.counted_tokens < 0 else min(unit.counted_tokens, measure.prompt_tokens)
    calls, room, money = account.remaining()
    least, max_output = min(measure.min_output, measure.max_output), _max_output(measure, bound, room, money)
    open_ = (calls is None or calls > 0) and not (measure.unpriced_server and money is not None)
    if (
        open_
        and (room is None or room > 0)
        and (money is None or money > 0 or measure.token_prices == ZERO_PRICE)
        and max_output >= least
    ):
        if max_output < measure.max_output:
            call = msgspec.structs.replace(call, max_output=max_output)
        state.resume_waiting(account)
        return Invoke(
            unit,
            call,
            unchecked=wanted.unchecked,
            reserved_tokens=bound + max_output,
            reserved_money=_cost(measure, bound, max_output),
            escalation_reason=wanted.escalation_reason,
        )
    if account.has_pending_calls and not (measure.unpriced_server and money is not None):
        state.wait_for_budget(unit, account, first=is_queued)
        return None
    state.resume_waiting(account)
    if open_ and unit.counted_tokens < 0 and bound and _max_output(measure, 1, room, money) >= least:
        unit.phase = Phase.COUNTING_TOKENS
        return CountTokens(unit, call, bound)
    reason = _no_budget_reason(measure, account, bound, least) + _previous_attempt_text(unit)
    return FinishNode(unit, FailedOutcome(NO_BUDGET, reason, unit.path, "raise `budget:` in the workflow, or --budget"))


def _previous_attempt_text(unit: WorkItem) -> str:
    """Returns the result of the attempt after which the budget does not suffice for another; empty before the first."""
    if unit.last_attempt is None:
        return ""
    if unit.last_attempt.error:
        return f"; attempt {unit.attempt} failed: {unit.last_attempt.error}: {unit.last_attempt.reason}"
    return f"; attempt {unit.attempt} was not accepted: {unit.judgement.reason}" if unit.judgement is not None else ""


def _cost(estimate: CallEstimate, prompt: int, output: int) -> float:
    return prompt * estimate.token_prices[0] + output * estimate.token_prices[1]


def _max_output(estimate: CallEstimate, prompt: int, room: int | None, money: float | None) -> int:
    """Returns the output tokens that fit into the rest of the budget beside the prompt; negative if the prompt does not
    fit.
    """
    max_output = estimate.max_output if room is None else min(estimate.max_output, room - prompt)
    if money is not None and estimate.token_prices != ZERO_PRICE:
        remaining_money = money - _cost(estimate, prompt, 0)
        max_output = min(
            max_output,
            int(remaining_money / estimate.token_prices[1])
            if estimate.token_prices[1] and remaining_money >= 0
            else max_output
            if remaining_money >= 0
            else -1,
        )
    return max_output


def _no_budget_reason(estimate: CallEstimate, account: BudgetAccount[WorkItem], bound: int, least: int) -> str:
    """Returns which limit of the budget does not suffice."""
    calls, room, money = account.remaining()
    if money is not None and estimate.unpriced_server:
        return f"the budget limits money, and {estimate.unpriced_server} has no `price:` in the fleet file"
    if calls is not None and calls <= 0:
        return account.exhausted_limit()
    if room is not None and 0 < room < bound + least:
        return f"{room:,} tokens are left, and the next call may take {bound + least:,}"
    if money is not None and 0 < money < _cost(estimate, bound, least):
        return f"{money:.6g} of money is left, and the next call may cost {_cost(estimate, bound, least):.6g}"
    return account.exhausted_limit()


def on_attempt_succeeded(unit: WorkItem) -> Proposal:
    """Handles the value of an attempt: its checks judge it, if there are any."""
    return settle(unit, candidate(unit))


def candidate(unit: WorkItem) -> Outcome:
    """Returns the value that is to be judged: of a call, a body, a choice or a `verify` node."""
    if unit.last_attempt is not None:
        return ValueOutcome(unit.last_attempt.value, unit.last_attempt.confidence)
    if unit.person_answer is not None:
        return ValueOutcome(unit.person_answer.value)
    match unit.node.kind:
        case "call" | "loop" | "plan":
            return subworkflow.scope_outcome(subworkflow.require_body_scope(unit))
        case "first_of":
            return first_of.first_value(unit)
        case _:
            return first_of.verified_value(unit)


def on_attempt_failed(state: RunState, unit: WorkItem) -> Proposal | None:
    """Handles an attempt without a value: another one if that may help, else the end."""
    answer = require_last_attempt(unit)
    if is_retryable(unit.node, answer):
        retry = retry_policy(unit.node, answer.error)
        if retry.should_retry(unit.attempt, answer.at - unit.started_at):
            return ScheduleRetry(unit, unit.attempt + 1, *retry.backoff_range(unit.attempt), answer.reason)
    if is_tier_unavailable(unit):
        state.enqueue(unit)  # Its own model is asked instead: the call was not sent.
        return None
    if unit.tier and unit.judgement is not None:
        return escalation.on_tier_failed(state, unit)
    return FinishNode(unit, FailedOutcome(answer.error, answer.reason, unit.path, answer.hint))


def on_judged(state: RunState, unit: WorkItem) -> Proposal | None:
    """Handles a judgement: the accepted value with its evidence; else what `otherwise` states, and finally an
    abstention.
    """
    ruling, value = require_judgement(unit), candidate(unit)
    if not isinstance(value, ValueOutcome):
        return FinishNode(unit, value)
    if not ruling.accepted:
        return escalation.on_rejected(state, unit, value.value)
    from orchestra.verification.answer_parts import remaining_value

    verdict_evidence = tuple(evidence for verdict in ruling.verdicts for evidence in verdict.evidence)
    source = (
        OverrideSource(unit.person_answer.by)
        if unit.person_answer is not None and unit.person_answer.call_happened
        else None
    )
    return FinishNode(
        unit,
        ValueOutcome(remaining_value(value.value, ruling.verdicts), ruling.score, verdict_evidence),
        overridden_by=source,
    )

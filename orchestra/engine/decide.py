"""The decision: proposals from a state. Deterministic, without I/O and without a clock."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop
from typing import TypeAlias

from orchestra.core.error_codes import IN_DOUBT_CODES, INVALID_OVERRIDE, NO_BUDGET, REPEAT_DECLINED, TOO_FEW_ELEMENTS
from orchestra.core.errors import OrchestraError
from orchestra.core.outcomes import (
    AbstainedOutcome,
    FailedOutcome,
    Outcome,
    SkippedOutcome,
    ValueOutcome,
    inherit_outcome,
)
from orchestra.core.untrusted_text import pluralize
from orchestra.engine import kinds
from orchestra.engine.kinds import ask, call, checks, first_of, subworkflow
from orchestra.engine.kinds.acceptance import settle
from orchestra.engine.proposals import EnterBody, ExpandMap, FinishNode, FinishRun, Invoke, Proposal
from orchestra.engine.size_limits import limit_size
from orchestra.engine.state import ExecutionScope, Phase, RunState, WorkItem, has_body_timeout, internal_error

_Decision: TypeAlias = Callable[[RunState, WorkItem], Proposal | None]
MAX_NAMED, MAX_REASON = 5, 200
"""Elements that the failure of a list names, and characters of each reason."""
READY, RUNNING = Phase.READY, Phase.RUNNING


def decide(state: RunState) -> list[Proposal]:
    """Returns what to do next. The caller executes every proposal, records the result, and calls again."""
    proposals: list[Proposal] = []
    if state.cancelled or state.finished:
        return proposals
    if state.pending_decisions:
        agenda, state.pending_decisions = state.pending_decisions, []
        for unit, phase in agenda:
            if unit is None:
                proposals.append(_finish_run(state))
            elif unit.phase is phase:
                _propose(proposals, state, unit, _advance)
    ready = state.ready
    while ready and state.running < state.concurrency:
        unit = heappop(ready)[3]
        if unit.phase is READY and _propose(proposals, state, unit, _begin):
            break  # Its time runs: what is inside starts before another such body is entered.
    return proposals


def _propose(proposals: list[Proposal], state: RunState, unit: WorkItem, step: _Decision) -> bool:
    """Decides about one unit. A call that starts takes its slot at once. An expression error fails the node. Returns
    whether the unit enters a body with a timeout.
    """
    try:
        proposal = step(state, unit)
    except OrchestraError as error:
        proposal = FinishNode(unit, FailedOutcome(error.code, error.message, unit.path, error.hint))
    except RecursionError:
        proposal = FinishNode(
            unit,
            FailedOutcome("E023", "a value is nested too deeply", unit.path, "flatten it in the tool that makes it"),
        )
    if type(proposal) is Invoke:
        unit.phase = RUNNING
        state.running += 1
        if proposal.reserved_tokens >= 0 and unit.scope.account is not None:
            unit.reserved_tokens, unit.reserved_money = proposal.reserved_tokens, proposal.reserved_money
            unit.scope.account.reserve(proposal.reserved_tokens, proposal.reserved_money)
    elif proposal is None:
        return False
    elif type(proposal) is FinishNode:
        if unit.last_attempt is None:  # Otherwise its value is recorded.
            proposal = _limit_outcome_size(unit, proposal)
        if unit.node.fallback is not None:
            proposal = _apply_fallback(unit, proposal)
    proposals.append(proposal)
    return type(proposal) is EnterBody and has_body_timeout(unit.node)


def _limit_outcome_size(unit: WorkItem, proposal: FinishNode) -> FinishNode:
    outcome = limit_size(proposal.outcome, unit.path)
    return proposal if outcome is proposal.outcome else FinishNode(unit, outcome)


def time_out(unit: WorkItem, outcome: Outcome) -> FinishNode:
    """Returns the end of a unit whose deadline has passed: its fallback if it has one."""
    return _apply_fallback(unit, FinishNode(unit, outcome))


def _begin(state: RunState, unit: WorkItem) -> Proposal | None:
    node = unit.node
    if unit.attempt:
        return call.invoke(state, unit)
    if state.overrides and (outcome := ask.override_outcome(state, unit)) is not None:
        return outcome
    if not unit.scope.has_all_values and unit.owner is None and (unmet_outcome := _unmet_need(unit)) is not None:
        return FinishNode(unit, unmet_outcome)
    if (
        node.when is not None
        and _filters_elements(unit) == (unit.owner is not None)
        and not node.when.evaluate(unit.bindings)
    ):
        return FinishNode(unit, SkippedOutcome("its condition is false", unit.path))
    if node.each is not None and unit.owner is None:  # `unit.is_map`, inlined: every node comes here.
        return _expand_map(unit)
    match node.kind:
        case "agent" | "tool":
            return call.invoke(state, unit) if node.tool_use is None else kinds.tool_use.begin(unit)
        case "first_of":
            return settle(unit, first_of.first_value(unit))
        case "call" | "loop":
            return subworkflow.enter(unit)
        case "verify":
            return settle(unit, first_of.verified_value(unit))
        case "ask":
            return ask.ask(state, unit)
        case "plan":
            return kinds.plan_cache.begin(state, unit)
        case kind:
            raise internal_error(f"{unit.path} is of kind {kind!r}")


def _filters_elements(unit: WorkItem) -> bool:
    """Whether the node's `when` reads its `as` variable, so that it is evaluated for each element."""
    node = unit.node
    return node.when is not None and node.each is not None and node.variable in node.when.references


def _advance(state: RunState, unit: WorkItem) -> Proposal | None:
    match unit.phase:
        case Phase.ATTEMPT_SUCCEEDED:
            return call.on_attempt_succeeded(unit)
        case Phase.ANSWERED_BY_PERSON:
            return ask.on_answer(state, unit)
        case Phase.IN_DOUBT:
            return ask.ask_in_doubt(unit)
        case Phase.ATTEMPT_FAILED:
            return call.on_attempt_failed(state, unit)
        case Phase.JUDGED:
            return call.on_judged(state, unit)
        case Phase.CHECKED:
            return checks.on_checks_done(unit, call.candidate(unit))
        case Phase.MAPPING:
            return FinishNode(unit, _collect_elements(unit))
        case Phase.BODY_DONE:
            if unit.node.tool_use is not None:
                return kinds.tool_use.on_body_done(unit)
            if unit.node.plan_settings is None:
                return subworkflow.on_body_done(state, unit)
            return (
                kinds.plan_voting.on_body_done(unit)
                if kinds.plan_voting.is_voting(unit)
                else kinds.plan.on_body_done(unit)
            )
        case phase:
            raise internal_error(f"{unit.path} asks for a decision in phase {phase.name}")


def _unmet_need(unit: WorkItem) -> Outcome | None:
    """Returns the first need without a value that the node does not tolerate, in the order of the file. A rejected
    value of a person is never tolerated.
    """
    for need in unit.node.needs:
        outcome = unit.scope.outcomes[need]
        if (
            (need not in unit.node.soft_needs or _is_unfit_override(outcome))
            and outcome is not None
            and not isinstance(outcome, ValueOutcome)
        ):
            return inherit_outcome(outcome, unit.scope.program.nodes[need].name)
    return None


def _is_unfit_override(outcome: Outcome | None) -> bool:
    """Whether a need failed because a person gave it a value of the wrong type."""
    return isinstance(outcome, FailedOutcome) and outcome.code == INVALID_OVERRIDE


def _apply_fallback(unit: WorkItem, proposal: FinishNode) -> FinishNode:
    """Returns the node's fallback if the node has no value and the fallback can be computed."""
    fallback = unit.node.fallback
    if (
        fallback is None
        or isinstance(proposal.outcome, ValueOutcome)
        or unit.is_map
        or _is_unfit_override(proposal.outcome)
    ):
        return proposal
    if any(name not in unit.bindings for name in fallback.references):
        return proposal
    try:
        outcome = limit_size(ValueOutcome(fallback.evaluate(unit.bindings)), unit.path)
    except OrchestraError as error:
        outcome = FailedOutcome(error.code, error.message, unit.path, error.hint)
    if isinstance(outcome, FailedOutcome):
        outcome = FailedOutcome(outcome.code, f"its fallback: {outcome.reason}", unit.path, outcome.hint)
    return FinishNode(unit, outcome, proposal.outcome if isinstance(outcome, ValueOutcome) else None)


def _expand_map(unit: WorkItem) -> Proposal:
    node = unit.node
    items = node.each.evaluate(unit.bindings) if node.each else []
    if len(items) > node.limit:
        hint = f"raise `limit` (at most 10,000), or pass fewer elements to {unit.path}"
        return FinishNode(
            unit, FailedOutcome("E004", f"{len(items)} elements, and the limit is {node.limit}", unit.path, hint)
        )
    if type(node.at_least) is int and len(items) < node.at_least:
        hint = f"lower `at_least`, or pass more elements to {unit.path}"
        message = f"{pluralize(len(items), 'element')}, and {node.at_least:,} {_needed_phrase(node.at_least)}"
        return FinishNode(unit, FailedOutcome(TOO_FEW_ELEMENTS, message, unit.path, hint))
    return ExpandMap(unit, len(items))


def _collect_elements(unit: WorkItem) -> Outcome:
    """Returns the list of the elements' values. The node fails if every element failed, or if fewer than `at_least` can
    have a value.
    """
    outcomes = unit.map_progress.outcomes if unit.map_progress else []
    if unit.map_progress and unit.map_progress.failures_left < 0:
        return _too_few(unit, outcomes)
    failures = [outcome for outcome in outcomes if isinstance(outcome, FailedOutcome)]
    if failures and len(failures) == len(outcomes):
        return inherit_outcome(failures[0], unit.path)
    return ValueOutcome([outcome.value for outcome in outcomes if isinstance(outcome, ValueOutcome)])


def _too_few(unit: WorkItem, outcomes: list[Outcome | None]) -> FailedOutcome:
    """Returns the failure of a list with too many failed elements, with their reasons. It names the element that
    decided it and earlier ones, so that it depends on recorded events only.
    """
    minimum = unit.node.at_least
    missing = [
        (index, outcome)
        for index, outcome in enumerate(outcomes)
        if outcome is not None
        and not isinstance(outcome, ValueOutcome)
        and not (minimum == "all" and isinstance(outcome, SkippedOutcome))
    ]
    names = "; ".join(f"{unit.path}[{index}] {_reason_text(outcome)}" for index, outcome in missing[:MAX_NAMED])
    rest_text = f"; and {len(missing) - MAX_NAMED:,} more" if len(missing) > MAX_NAMED else ""
    requirement = (
        f"{minimum:,} of {pluralize(len(outcomes), 'element')} {_needed_phrase(minimum)}"
        if type(minimum) is int
        else "all elements are needed"
    )
    hint = _failure_hint(unit, [outcome for _, outcome in missing if isinstance(outcome, FailedOutcome)])
    return FailedOutcome(
        TOO_FEW_ELEMENTS, f"{requirement}, and {len(missing):,} cannot be had: {names}{rest_text}", unit.path, hint
    )


def _needed_phrase(number: int) -> str:
    return "is needed" if number == 1 else "are needed"


def _failure_hint(unit: WorkItem, failures: list[FailedOutcome]) -> str:
    """Returns what to do about a list of which these elements failed. An element with a possible effect must not be
    skipped without a check.
    """
    doubtful = [
        failure
        for failure in failures
        if unit.node.has_effects and (failure.code in IN_DOUBT_CODES or failure.code == REPEAT_DECLINED)
    ]
    first = (doubtful or failures)[0] if failures else None
    if first is not None and first.code == TOO_FEW_ELEMENTS:
        return first.hint
    without = "" if doubtful else "; or leave `at_least` out: the list then omits them, and `left_out` lists them"
    origin_text = f"; {first.origin or unit.path}: {first.hint}" if first is not None and first.hint else ""
    return f"correct the cause of the failures{without}{origin_text}"


def _reason_text(outcome: Outcome) -> str:
    """Returns, briefly, why an element has no value."""
    reason = outcome.reason if not isinstance(outcome, ValueOutcome) else ""
    short = reason if len(reason) <= MAX_REASON else f"{reason[:MAX_REASON]}…"
    match outcome:
        case FailedOutcome(code=code):
            return f"failed ({code}: {short})"
        case AbstainedOutcome():
            return f"was withheld ({short})"
        case _:
            return f"was skipped ({short})"


def _finish_run(state: RunState) -> Proposal:
    root = state.root
    if root is None:
        raise internal_error("the run has no root")
    try:
        outcome = (
            limit_size(subworkflow.scope_outcome(root), "output")
            if (unread_failure := _unread_failure(root)) is None
            else unread_failure
        )
    except OrchestraError as error:  # An error of these values, such as a text that is too long.
        outcome = FailedOutcome(error.code, error.message, "output", error.hint)
    status = {
        ValueOutcome: "done",
        SkippedOutcome: "abstained",
        AbstainedOutcome: "abstained",
        FailedOutcome: "failed",
    }[type(outcome)]
    if isinstance(outcome, FailedOutcome) and outcome.code == NO_BUDGET:
        status = "budget"
    return FinishRun(status, outcome)


def _unread_failure(root: ExecutionScope) -> Outcome | None:
    """Returns a failure that no node reads: of a node without readers that the output does not name, or of a value from
    a person.
    """
    if root.has_all_values:
        return None
    for node, outcome in zip(root.program.nodes, root.outcomes, strict=True):
        is_unread = not node.children and node.name not in root.program.output.references
        if isinstance(outcome, FailedOutcome) and (is_unread or _is_unfit_override(outcome)):
            return inherit_outcome(outcome, node.name)
    return None

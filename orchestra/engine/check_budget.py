"""The budget for checks in the engine. Spending and reservations follow from events. This module decides which checks
get budget, and the decision is recorded with its numbers: `ChecksStarted.priority`, `OutputJudged.skipped_checks`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestra.core.events import AttemptFinished, CheckPriority, CheckQuestion
from orchestra.core.protocols import CallRequest
from orchestra.engine.kinds.checks import question_contract
from orchestra.engine.proposals import RunChecks
from orchestra.engine.state import CheckProgress, ExecutionScope, Phase, RunState, WorkItem
from orchestra.verification.check_budget import DEFAULT_DOUBT, CheckBudget, UpcomingValues

if TYPE_CHECKING:
    from orchestra.verification.session import ChecksPending

# Events


def record_priority(allotment: CheckBudget, unit: WorkItem, stake: CheckPriority) -> None:
    """Records that a value's check got budget, or none."""
    allotment.record(stake, first=not unit.check_budget_decided)
    if not unit.check_budget_decided:
        unit.check_budget_decided = True
        if unit.owner is not None and unit.owner.map_progress is not None:
            unit.owner.map_progress.check_budget_decided += 1


def reserve(allotment: CheckBudget, checking: CheckProgress, stake: CheckPriority) -> None:
    """Reserves tokens for the questions of a check."""
    checking.reserved_tokens = stake.max_tokens
    allotment.reserved += stake.max_tokens


def spend(allotment: CheckBudget, unit: WorkItem, event: AttemptFinished) -> None:
    """Charges the tokens of a question; if they are not reported, its part of the reservation."""
    check_progress = unit.scope.unit.check_progress if unit.scope.unit is not None else None
    if check_progress is None or check_progress.scope is not unit.scope or check_progress.started.priority is None:
        return
    token_count = max(0, event.usage.prompt_tokens) + max(0, event.usage.output_tokens)
    if not token_count and not event.error and not event.reused_from:
        token_count = check_progress.started.priority.max_tokens // len(check_progress.started.questions)
    check_progress.used_tokens += token_count
    allotment.spent += token_count


def release(allotment: CheckBudget, unit: WorkItem) -> None:
    """Releases the reservation of a check whose questions have ended or were abandoned."""
    check_progress = unit.check_progress
    if check_progress is not None and check_progress.reserved_tokens:
        allotment.reserved -= check_progress.reserved_tokens
        allotment.finished_bound += check_progress.reserved_tokens
        allotment.finished_tokens += check_progress.used_tokens
        check_progress.reserved_tokens = 0


# Decisions


@dataclass(slots=True)
class PendingCheck:
    """A value whose checks have questions and wait for the budget."""

    proposal: RunChecks
    pending: ChecksPending
    priority: CheckPriority


def queue_check(state: RunState, allotment: CheckBudget, proposal: RunChecks, pending: ChecksPending) -> PendingCheck:
    """Returns a value whose checks have questions, as it waits for the budget."""
    unit, sure = proposal.unit, proposal.request.confidence
    bound = sum(_token_bound(state, unit, question) for question in pending.questions)
    stake = CheckPriority(
        1.0 - (DEFAULT_DOUBT if sure is None else sure),
        influence(unit),
        round(allotment.expected_tokens(bound), 1),
        bound,
    )
    unit.phase = Phase.CHECKS_QUEUED
    return PendingCheck(proposal, pending, stake)


def next_decision(
    state: RunState, allotment: CheckBudget, waiting: list[PendingCheck]
) -> tuple[PendingCheck, str] | None:
    """Takes the most valuable of the waiting values, and returns it with the reason why it gets no budget, empty if it
    does. None if none waits; also if the budget is short while checks run: they may use less than they reserved, and
    other values may come.
    """
    waiting[:] = [
        pending_check for pending_check in waiting if pending_check.proposal.unit.phase is Phase.CHECKS_QUEUED
    ]
    if not waiting:
        return None
    best = max(waiting, key=lambda pending_check: pending_check.priority.value_per_token)
    reason = _refusal_reason(allotment, best.priority, upcoming_values(state, waiting))
    if reason and allotment.reserved:
        return None
    waiting.remove(best)
    return best, reason


def _refusal_reason(allotment: CheckBudget, stake: CheckPriority, expected: Iterable[UpcomingValues]) -> str:
    """Returns why a check gets no budget; empty if it does."""
    limit = f"{allotment.limit:,} tokens"
    if stake.max_tokens > allotment.available:
        available = max(0, allotment.available)
        return f"the budget for checks has {available:,} of {limit} left, and this one may take {stake.max_tokens:,}"
    if allotment.fits(stake, expected):
        return ""
    return (
        "the budget for checks goes to expected values that are worth more: "
        f"{max(0, allotment.limit - allotment.spent):,} of {limit} are left; "
        f"here the doubt is {stake.uncertainty:.2f}, the influence {stake.influence:.2f}, "
        f"the cost about {stake.expected_tokens:,.0f} tokens"
    )


def _token_bound(state: RunState, unit: WorkItem, question: CheckQuestion) -> int:
    """Returns the tokens that a question may use: for an encoder in this process about those that it reads, 0 if no
    model is asked.
    """
    contract = question_contract(unit, question)
    if contract.kind != "agent":
        return 0
    call = CallRequest(
        run=state.run,
        node=unit.path,
        attempt=1,
        kind="agent",
        name=question.agent,
        inputs=question.inputs,
        label=state.label,
        sample=question.sample,
        version=contract.digest,
    )
    measure = state.estimate(call)
    if measure.prompt_tokens:
        return measure.prompt_tokens + measure.max_output
    if not measure.uses_local_encoder:
        return 0
    from orchestra.verification.entailment import estimate_input_tokens

    return estimate_input_tokens(question.inputs)


def influence(unit: WorkItem) -> float:
    """Returns the share of the output that depends on a unit's value; for an element, that of its node divided by the
    number of elements.
    """
    product, work_item = 1.0, unit
    while True:
        product *= work_item.scope.program.influence[work_item.node.index]
        if work_item.owner is not None and work_item.owner.map_progress is not None:
            product /= max(1, len(work_item.owner.map_progress.items))
        if work_item.scope.unit is None:
            return product
        work_item = work_item.scope.unit


def upcoming_values(state: RunState, waiting: Sequence[PendingCheck]) -> Iterator[UpcomingValues]:
    """Yields the values that are still to come and will be checked, as far as the workflow and the state tell. Waiting
    values are not among them.
    """
    if state.root is not None:
        yield from _upcoming_values(state, state.root, 1.0, waiting)


def _upcoming_values(
    state: RunState, scope: ExecutionScope, weight: float, pending_checks: Sequence[PendingCheck]
) -> Iterator[UpcomingValues]:
    program = scope.program
    for node, share in zip(program.nodes, program.influence, strict=True):
        if scope.outcomes[node.index] is not None:
            continue
        asks = node.acceptance is not None and node.acceptance.uses_model_checks
        if not asks and (node.body is None or not node.body.check_weights):
            continue
        unit = state.units.get(scope.path + node.name)
        map_progress = unit.map_progress if unit is not None else None
        count, unit_share = 1, share * weight
        if map_progress is not None and map_progress.items:
            sibling_count = sum(pending_check.proposal.unit.owner is unit for pending_check in pending_checks)
            count, unit_share = (
                map_progress.pending - map_progress.check_budget_decided - sibling_count,
                unit_share / len(map_progress.items),
            )
        elif unit is not None and (unit.check_budget_decided or unit.phase is Phase.CHECKS_QUEUED):
            count = 0
        if asks and count > 0:
            yield UpcomingValues(unit_share, count)
        if node.body is None:
            continue
        if unit is not None and unit.body is not None and unit.check_progress is None:
            yield from _upcoming_values(state, unit.body, unit_share, pending_checks)
        else:
            yield from (
                UpcomingValues(unit_share * inner, number * max(0, count)) for inner, number in node.body.check_weights
            )

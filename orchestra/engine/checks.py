"""Checks: runs the checks of a value, and records their questions to agents or their judgement."""

from __future__ import annotations

from collections.abc import Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from orchestra.core.events import CheckPriority, ChecksStarted, OutputJudged
from orchestra.engine import check_budget
from orchestra.engine.kinds.checks import evaluate_checks, round_number
from orchestra.engine.proposals import RunChecks
from orchestra.engine.state import Phase

if TYPE_CHECKING:
    from orchestra.engine.run_context import RunContext
    from orchestra.verification.acceptance import VerificationResult
    from orchestra.verification.session import ChecksPending


def run_checks(driver: RunContext, proposal: RunChecks) -> Coroutine[Any, Any, None] | None:
    """Runs the checks of a value. They judge it, or have questions to agents first; with a budget for checks, the
    questions wait for it.

    Returns:
        Heavy checks as a coroutine, to be run in a task beside the loop, so that other runs go on; else None.
    """
    from orchestra.verification.acceptance import is_heavy

    if is_heavy(proposal.request):
        proposal.unit.phase = Phase.CHECKS_QUEUED
        return _run_in_background(driver, proposal)
    _handle_result(driver, proposal, evaluate_checks(proposal))
    return None


async def _run_in_background(driver: RunContext, proposal: RunChecks) -> None:
    """Runs checks in a thread. The result is dropped if the run ends, or the unit times out, meanwhile."""
    unit = proposal.unit
    result = await driver.clock.run_in_thread(partial(evaluate_checks, proposal))
    if unit.phase is Phase.CHECKS_QUEUED and unit.attempt == proposal.attempt and not driver.ending:
        _handle_result(driver, proposal, result)
        driver.dispatch()


def _handle_result(driver: RunContext, proposal: RunChecks, result: ChecksPending | VerificationResult) -> None:
    from orchestra.verification.session import ChecksPending

    match result:
        case ChecksPending() as pending:
            allotment = driver.state.check_budget
            if allotment is None:
                _record_checks_started(driver, proposal, pending)
            else:
                if not driver.flush_scheduled:
                    driver.schedule_flush()
                driver.pending_checks = driver.pending_checks or []
                driver.pending_checks.append(check_budget.queue_check(driver.state, allotment, proposal, pending))
        case ruling:
            _record_judgement(driver, proposal, ruling)


def allocate_budget(driver: RunContext) -> bool:
    """Assigns the budget for checks to waiting questions, or lets checks judge without asking; returns whether any was
    decided.
    """
    allotment, was_decided = driver.state.check_budget, False
    while (
        allotment is not None
        and (decision := check_budget.next_decision(driver.state, allotment, driver.pending_checks or [])) is not None
    ):
        check, reason = decision
        was_decided = True
        if reason:
            from orchestra.verification.session import finish_without_asking

            ruling = finish_without_asking(check.proposal.request, check.pending, reason)
            _record_judgement(
                driver,
                check.proposal,
                ruling,
                msgspec.structs.replace(check.priority, skip_reason=reason),
            )
        else:
            _record_checks_started(driver, check.proposal, check.pending, check.priority)
    return was_decided


def _record_checks_started(
    driver: RunContext, proposal: RunChecks, pending: ChecksPending, stake: CheckPriority | None = None
) -> None:
    driver.record(
        ChecksStarted(
            **driver.stamp(),
            node=proposal.unit.path,
            attempt=proposal.attempt,
            check=pending.check,
            round=round_number(proposal.unit) + 1,
            questions=pending.questions,
            verdicts=pending.verdicts,
            priority=stake,
        )
    )


def _record_judgement(
    driver: RunContext, proposal: RunChecks, ruling: VerificationResult, priority: CheckPriority | None = None
) -> None:
    is_accepted, answer = ruling.accepted, proposal.unit.last_attempt
    driver.record(
        OutputJudged(
            **driver.stamp(),
            node=proposal.unit.path,
            attempt=proposal.attempt,
            verdicts=ruling.verdicts,
            accepted=is_accepted,
            score=ruling.score,
            reason=ruling.reason,
            guarantee=ruling.guarantee,
            skipped_checks=priority,
            feedback=ruling.feedback,
        )
    )
    # An output that was rejected as a whole must not answer other runs.
    if is_accepted and answer is not None and answer.memo_key and not answer.reused_from and not ruling.dropped:
        driver.remember(answer)

"""Votes of a `plan` node: several plans are written line by line in parallel; the most frequent one runs.

Every question of every sample is a turn of the node, recorded in order: `solve#4/line` is the question of the sample in
its `TurnStarted.draft`. Which sample continues next depends on the order of answers, as recorded: a resumed or replayed
run continues alike. The plan that won is one more turn, with the lines of all samples.
"""

from __future__ import annotations

from typing import TypeAlias

from msgspec import structs

from orchestra.core.error_codes import NO_BUDGET
from orchestra.core.events import PlanDraft
from orchestra.core.outcomes import FailedOutcome, Outcome, ValueOutcome
from orchestra.engine.kinds import plan
from orchestra.engine.kinds.subworkflow import scope_outcome
from orchestra.engine.proposals import FinishNode, Proposal
from orchestra.engine.state import Phase, PlanSample, WorkItem
from orchestra.router.planner import (
    PlannerAction,
    PlannerQuestion,
    PlannerState,
    PlanNotFound,
    PlanRequest,
    advance,
    start,
)

SampleResult: TypeAlias = tuple[PlannerState, PlannerAction, Outcome | None]
"""The result of the router's state machine for an answer; and the outcome of a failed question."""


def is_voting(unit: WorkItem) -> bool:
    """Whether samples are being made in parallel."""
    return (
        unit.plan_progress is not None
        and unit.plan_progress.draft.parallel
        and not plan.is_complete(unit.plan_progress.draft)
    )


def has_pending_samples(unit: WorkItem) -> bool:
    """Whether another decision is open besides the question just asked: a sample that has not begun, or has its
    answer.
    """
    progress = plan.require_plan_progress(unit)
    return len(progress.samples) < plan.require_plan_settings(unit).votes or bool(progress.answered)


def on_body_done(unit: WorkItem) -> Proposal | None:
    """Asks the next question of a sample, enters the plan that has won, or waits. First questions come before second
    ones; answered samples continue in the order of their answers.
    """
    progress, votes = plan.require_plan_progress(unit), plan.require_plan_settings(unit).votes
    request = plan.plan_request(unit, plan.plan_history(progress))
    before = PlanDraft(None, version=progress.draft.version, parallel=True)
    if (number := len(progress.samples) + 1) <= votes:
        return plan.next_turn(unit, *start(request), structs.replace(before, sample=number))
    for number in progress.answered:
        state, result, failure = _sample_result(request, progress.samples[number])
        if isinstance(failure, FailedOutcome) and failure.code == NO_BUDGET:
            return FinishNode(unit, failure)
        if isinstance(result, PlannerQuestion):
            return plan.next_turn(
                unit, state, result, structs.replace(before, lines=progress.samples[number].draft.lines, sample=number)
            )
    if len(progress.answered) < votes:
        unit.phase = Phase.IN_BODY
        return None
    return _elect(unit, [_sample_result(request, progress.samples[number]) for number in range(1, votes + 1)], before)


def _sample_result(request: PlanRequest, sample: PlanSample) -> SampleResult:
    """Returns the result of a sample's last question; a failed question ends its sample without a plan."""
    if sample.result is None:
        state, answer = plan.planner_state(request, sample.draft), scope_outcome(sample.body)
        if isinstance(answer, ValueOutcome):
            sample.result = (*advance(state, str(answer.value)), None)
        else:
            continuation = plan.continue_without_answer(state, answer)
            sample.result = (state, PlanNotFound(()), answer) if continuation is None else (*continuation, None)
    result: SampleResult = sample.result
    return result


def _elect(unit: WorkItem, results: list[SampleResult], before: PlanDraft) -> Proposal:
    """Enters the most frequent plan. Without one, reports the result of the last sample; if no question was answered,
    the failure.
    """
    plans = tuple(
        plan.sample_lines(sample_result)
        for _, sample_result, _ in results
        if not isinstance(sample_result, PlannerQuestion)
    )
    answers = [item for item in results if item[2] is None]
    if not answers and results[0][2] is not None:
        return FinishNode(unit, results[0][2])
    state, result, _ = answers[-1]
    if isinstance(result, PlannerQuestion):
        raise TypeError("a sample that is not done has no vote")
    state, result, vote_result = plan.elect_plan(state, result, plans)
    return plan.next_turn(unit, state, result, structs.replace(before, sampled_plans=plans), vote_result)

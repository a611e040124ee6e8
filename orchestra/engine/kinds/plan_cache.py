"""Stored plans: a `plan` node reads the memo before it asks the router, and the run records the result.

The engine reads the memo (`RecallPlan`). Its content is not trusted: it is fitted to the node's goal and validated
here, and recorded as the plan of the first turn (`TurnStarted.draft`, `reused_from`). A plan that gave its node's value
is stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from orchestra.core.errors import OrchestraError
from orchestra.core.events import PlanDraft
from orchestra.core.outcomes import Outcome, ValueOutcome
from orchestra.engine.kinds import plan as plan_module
from orchestra.engine.kinds.subworkflow import require_body_scope, scope_outcome
from orchestra.engine.proposals import EnterBody, Proposal, RecallPlan
from orchestra.engine.state import ExecutionScope, Phase, RunState, WorkItem
from orchestra.router import plan_cache
from orchestra.router.plan import build_plan
from orchestra.router.plan_syntax import parse_line
from orchestra.router.validation import validate_line
from orchestra.router.voting import VoteResult


def begin(state: RunState, unit: WorkItem) -> Proposal:
    """Asks for a stored plan; once it is read, enters it, or asks the router's first question."""
    plan_settings = plan_module.require_plan_settings(unit)
    if plan_settings.router is None or not plan_settings.cache:
        return plan_module.begin(unit)
    if unit.cached_plans is None and (proposal := plan_module.planned_by_rule(unit)) is not None:
        return proposal
    if unit.cached_plans is not None:
        return _use_cached(state, unit, unit.cached_plans)
    if keys := _cache_keys(unit, state.label):
        plan_module.input_values(unit)  # An error in the inputs fails the node.
        unit.phase = Phase.READING_PLAN_CACHE
        return RecallPlan(unit, keys)
    return plan_module.begin(unit)


def _use_cached(state: RunState, unit: WorkItem, cached_plans: Sequence[tuple[str, Any]]) -> Proposal:
    """Enters a stored plan that fits this request; or asks the router's first question, with a warning about an invalid
    one.
    """
    text, offer, shape = plan_module.goal_of(unit), plan_module.plan_capabilities(unit), _cache_shape(unit, state.label)
    values = plan_module.input_values(unit)
    input_names = [name for name, value in values.items() if value == text]
    remark = ""
    for run, cached_plan in cached_plans:
        try:
            if not run:
                raise plan_cache.CachedPlanError(str(cached_plan), is_corrupt=True)
            plan, entry = plan_cache.fit_cached_plan(cached_plan, text, offer, shape, input_names)
            return plan_module.enter_recalled(
                unit, plan, offer, run, entry.cost, entry.vote.agreement if entry.vote is not None else None
            )
        except plan_cache.CachedPlanError as error:
            remark = plan_cache.ignored_message(error.reason) if error.is_corrupt else remark
        except OrchestraError as error:  # It does not compile with these values.
            remark = plan_cache.ignored_message(f"{error.code}: {error.message}")
    return _with_remark(plan_module.first_question(unit), remark)


def expected_beginning(unit: WorkItem, draft: PlanDraft | None) -> Proposal:
    """Returns how the engine would begin with a stored plan, or one made by a rule, as recorded: the plan is validated
    again, the first question is asked. Newer rules may plan otherwise, or not at all.
    """
    if draft is None or not (draft.reused_from or draft.rule):
        return _with_remark(plan_module.first_question(unit), "" if draft is None else draft.warning)
    lines = [parse_line(line) for line in draft.lines]
    plan = build_plan(lines)
    today = replace(plan_module.plan_capabilities(unit), request_parts=None)
    for offer in (today, plan_module.without_effect_bounds(today)):
        if (
            plan is None
            or not plan.answer.values
            or any(validate_line(line, offer, plan.steps[:number]) for number, line in enumerate(lines))
        ):
            continue
        proposal = (
            plan_module.enter_rule_plan(unit, plan, offer, draft.rule)
            if draft.rule
            else plan_module.enter_recalled(unit, plan, offer, draft.reused_from, draft.saved_usage, draft.agreement)
        )
        if isinstance(proposal, EnterBody) and proposal.draft == draft:
            return proposal
    return plan_module.first_question(unit)


def _with_remark(proposal: Proposal, remark: str) -> Proposal:
    if not remark or not isinstance(proposal, EnterBody) or proposal.draft is None:
        return proposal
    return EnterBody(proposal.unit, proposal.turn, msgspec.structs.replace(proposal.draft, warning=remark))


@dataclass(frozen=True, slots=True)
class CachedPlan:
    """A plan to store, with its keys."""

    keys: tuple[str, ...]
    entry: Any


def plan_to_cache(state: RunState, unit: WorkItem, outcome: Outcome) -> CachedPlan | None:
    """Returns what to store of a `plan` node with its outcome: its plan, if it was made here and gave the value.

    A plan that follows a failed one uses its values, and is not stored. A plan that did not run is not either.
    """
    progress, planning = unit.plan_progress, plan_module.require_plan_settings(unit)
    if progress is None or not isinstance(outcome, ValueOutcome) or not planning.cache or planning.plan_only:
        return None
    draft = progress.draft
    plan = build_plan([parse_line(line) for line in draft.lines])
    is_unconfirmed = plan_module.is_unconfirmed(progress.plan_scope)
    if (
        plan is None
        or draft.version > 1
        or draft.reused_from
        or draft.rule
        or is_unconfirmed
        or not _plan_gave(require_body_scope(unit), outcome)
    ):
        return None
    vote_result = None
    if draft.agreement is not None:
        vote_result = VoteResult(0, round(draft.agreement * len(draft.sampled_plans)), len(draft.sampled_plans))
    return CachedPlan(
        _cache_keys(unit, state.label),
        plan_cache.build_entry(
            plan, plan_module.goal_of(unit), _cache_shape(unit, state.label), unit.router_usage, vote_result
        ),
    )


def _plan_gave(body: ExecutionScope, outcome: ValueOutcome) -> bool:
    """Whether a plan gave this value, and not a fallback."""
    if body.open_nodes:
        return False
    try:
        plan_outcome = scope_outcome(body)
    except OrchestraError:
        return False
    return isinstance(plan_outcome, ValueOutcome) and plan_outcome.value == outcome.value


def _cache_keys(unit: WorkItem, label: str) -> tuple[str, ...]:
    """Returns the keys under which a plan is stored; none if it must not be."""
    return (
        plan_cache.cache_keys(plan_module.goal_of(unit), _cache_shape(unit, label))
        if plan_module.require_plan_settings(unit).cache
        else ()
    )


def _cache_shape(unit: WorkItem, label: str) -> str:
    return plan_module.cache_shape(unit.node, plan_module.goal_of(unit), label)

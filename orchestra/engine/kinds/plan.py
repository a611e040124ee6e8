"""Plans: a `plan` node asks the router for lines, turn by turn, and runs them while they are written.

Each question is a body, as the turns of loops: `solve#3/line`. The steps have one scope, `solve@1/s1`, which grows by
the accepted lines. Steps without effects start as soon as their inputs have values, steps with effects when the plan is
complete. A failed plan may be followed by another version, `solve@2`, which can read the finished values; nothing runs
twice. The question of a turn, and the plan so far, are recorded (`TurnStarted.draft`): newer code that resumes a run
continues with the same questions and plan. A plan from the memo is recorded too, so that a resumed or replayed run
needs no cache. With `votes` the router samples several plans of each version in parallel (`voting`), and the most
frequent one runs; runs of older engines sample one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from msgspec import structs

from orchestra.agents.contract import Catalog, Contract
from orchestra.core.error_codes import NO_BUDGET
from orchestra.core.errors import OrchestraError
from orchestra.core.events import PlanDraft, Usage
from orchestra.core.labels import meet
from orchestra.core.outcomes import AbstainedOutcome, FailedOutcome, Outcome, ValueOutcome
from orchestra.core.paths import root_name
from orchestra.engine.kinds.acceptance import settle
from orchestra.engine.kinds.subworkflow import require_body_scope, scope_outcome
from orchestra.engine.proposals import EnterBody, FinishNode, Proposal
from orchestra.engine.state import ExecutionScope, Phase, PlanProgress, ScopeBindings, WorkItem, internal_error
from orchestra.router import plan_cache, rules
from orchestra.router.capabilities import Capabilities, Capability
from orchestra.router.constants import RequestIndex
from orchestra.router.grounding import grounded
from orchestra.router.multi_part import with_request_parts
from orchestra.router.plan import (
    CONFIRM_NODE,
    LINE_NODE,
    YES,
    Plan,
    build_plan,
    partial_workflow,
    question_workflow,
    rebase_line,
    to_workflow,
)
from orchestra.router.plan_syntax import PlanAnswer, PlanLine, PlanStep, parse_line, parse_steps
from orchestra.router.planner import (
    PlanFound,
    PlannerAction,
    PlannerQuestion,
    PlannerState,
    PlanNotFound,
    PlanRequest,
    advance,
    advance_unreadable,
    declined_result,
    shorten_request,
    start,
)
from orchestra.router.shortlist import shortlist
from orchestra.router.validation import Rejection
from orchestra.router.voting import VoteResult, count_votes
from orchestra.schema.types import Schema, bundle_definitions
from orchestra.workflows.compile.compiler import compile_graph
from orchestra.workflows.model import REQUEST, CallNode, Graph
from orchestra.workflows.program import CompiledNode, PlanSettings, Program, with_sample

SampledPlans: TypeAlias = tuple[tuple[str, ...], ...]
"""The lines of finished samples."""
GOAL = REQUEST
"""The input of a plan with the node's own goal, unless `with:` has one of that name."""
MAX_REASON = 200
"""Characters of a failure's reason that the router reads."""


@dataclass(frozen=True)
class PlanHistory:
    """What a version of a plan gets from earlier versions."""

    value_types: Mapping[str, Schema] = field(default_factory=dict)
    """Types of the values that they finished, by the name under which this version reads them."""
    carried_calls: tuple[tuple[str, str], ...] = ()
    """The calls that returned them, as lines of this version, each with its name."""
    failed_calls: tuple[tuple[str, str], ...] = ()
    used_effects: tuple[str, ...] = ()


_NO_HISTORY = PlanHistory()


def begin(unit: WorkItem) -> Proposal:
    """Asks the router's first question, if it has one."""
    if (proposal := planned_by_rule(unit)) is not None:
        return proposal
    if require_plan_settings(unit).router is None:
        hint = "an agent of that name, such as the package's `router`; or `router: NAME`"
        return FinishNode(unit, FailedOutcome("R007", "there is no agent that plans", unit.path, hint))
    input_values(unit)  # An error in the inputs fails the node.
    return first_question(unit)


def first_question(unit: WorkItem, version: int = 1) -> Proposal:
    """Returns the router's first question; with version 0 as older engines asked it."""
    return next_turn(
        unit, *start(plan_request(unit, declines=version > 0)), _with_sampling(unit, PlanDraft(None, version=version))
    )


def planned_by_rule(unit: WorkItem) -> Proposal | None:
    """Returns the beginning with a plan that a rule made, complete; None if the node uses no rules, or none applies."""
    if not require_plan_settings(unit).rules:
        return None
    offer = plan_capabilities(unit)
    rule_plan = rules.plan_by_rule(goal_of(unit), offer, input_values(unit))
    if rule_plan is None:
        return None
    return (
        enter_rule_plan(unit, rule_plan.plan, offer, rule_plan.rule)
        if rule_plan.plan.steps
        else FinishNode(unit, declined(unit))
    )


def declined(unit: WorkItem) -> FailedOutcome:
    """Returns the outcome of a goal for which a rule found no capability."""
    request = plan_request(unit)
    return _no_plan_failure(unit, request, declined_result(request).rejections)


def enter_rule_plan(unit: WorkItem, plan: Plan, offer: Capabilities, rule: str) -> Proposal:
    """Enters a plan that a rule made: the first version, complete."""
    graph = _dump_graph(to_workflow(plan, offer, unit.node.name))
    program(unit, graph)
    lines = tuple(map(str, (*plan.steps, plan.answer)))
    return EnterBody(unit, unit.turn + 1, PlanDraft(graph, lines, version=1, rule=rule))


def on_body_done(unit: WorkItem) -> Proposal | None:
    """Handles an answer of the router, or the end of the steps that could run: the next question, the next version, or
    the result of the plan. None while the other one of the two runs.
    """
    progress = require_plan_progress(unit)
    draft, plan = progress.draft, progress.plan_scope
    if is_complete(draft) and require_plan_settings(unit).plan_only:
        return settle(unit, ValueOutcome("\n".join(draft.lines)))
    if is_complete(draft):
        outcome = _plan_outcome(unit)
        if isinstance(outcome, ValueOutcome) or not draft.version or not _may_replan(unit, outcome):
            return settle(unit, outcome)
        return _replan(unit, outcome)
    answer = scope_outcome(unit.body) if unit.body is not None and not unit.body.open_nodes else None
    if answer is not None and not isinstance(answer, ValueOutcome):
        return _on_question_failed(unit, draft, answer)
    if (
        plan is not None
        and not plan.has_all_values
        and all(_may_replan(unit, outcome) for outcome in _failed_outcomes(plan))
    ):
        if not plan.open_nodes:
            return _replan(unit, None)
        unit.phase = Phase.IN_BODY
        return None
    if answer is None:
        unit.phase = Phase.IN_BODY
        return None
    state = planner_state(plan_request(unit, plan_history(progress), declines=draft.version > 0), draft)
    return next_turn(unit, *advance(state, str(answer.value)), _accepted_lines(draft))


def planner_state(request: PlanRequest, draft: PlanDraft) -> PlannerState:
    """Returns the state of the router's state machine at a turn of the plan."""
    rejections = tuple(Rejection(*rejection) for rejection in draft.rejections)
    return PlannerState(request, parse_steps(draft.lines), rejections, draft.repaired_lines, draft.escalated)


def is_question(unit: WorkItem) -> bool:
    """Whether a unit in a plan's scope asks the router for a line, and is not a step."""
    return unit.node.name == LINE_NODE


def use_legacy_rules(unit: WorkItem) -> None:
    """Disables the limits of effects in the router's state machine: engines before L123, and before decision 056, had
    none.
    """
    progress = require_plan_progress(unit)
    before, declines = plan_history(progress), progress.draft.version > 0
    request = plan_request(unit, before, declines=declines)
    unit.plan_request = (before, declines), replace(request, capabilities=without_effect_bounds(request.capabilities))
    for sample in progress.samples.values():
        sample.result = None


def without_effect_bounds(offer: Capabilities) -> Capabilities:
    """Returns the capabilities without limits of effects, as of older engines."""
    return replace(
        offer, by_name={name: replace(capability, has_effects=False) for name, capability in offer.by_name.items()}
    )


def _accepted_lines(draft: PlanDraft) -> PlanDraft:
    return PlanDraft(None, draft.lines, version=draft.version, sampled_plans=draft.sampled_plans)


def _on_question_failed(unit: WorkItem, draft: PlanDraft, failure: Outcome) -> Proposal:
    """Handles a failed question: it is asked again, or the larger planner is asked, if its answer could not be read;
    otherwise the node fails. A failed sample only ends itself and counts as a vote without a plan; if all fail, the
    failure is reported.
    """
    poor = isinstance(failure, FailedOutcome) and failure.code == NO_BUDGET
    state = planner_state(
        plan_request(unit, plan_history(require_plan_progress(unit)), declines=draft.version > 0), draft
    )
    if (continuation := continue_without_answer(state, failure)) is not None:
        return next_turn(unit, *continuation, _accepted_lines(draft))
    if not draft.sample or poor:
        return FinishNode(unit, failure)
    proposal = next_turn(unit, state, PlanNotFound(()), _accepted_lines(draft))
    return FinishNode(unit, failure) if isinstance(proposal, FinishNode) else proposal


def continue_without_answer(state: PlannerState, failure: Outcome) -> tuple[PlannerState, PlannerAction] | None:
    """Returns how the router's state machine continues after a failed question; None if it cannot."""
    return advance_unreadable(state, failure.code, failure.reason) if isinstance(failure, FailedOutcome) else None


def program(unit: WorkItem, graph: Any, sample: int = 0) -> Program:
    """Returns the program of a question to the router, or of the plan. A question may belong to a sample."""
    return _compile(require_plan_settings(unit), graph, sample)


@dataclass(frozen=True, slots=True)
class RuleForecast:
    """What rules will make of a goal, before the run starts."""

    applies: bool
    """Whether a rule plans the goal, or declines it, so that the router is not asked."""
    program: Program | None = None
    """The program of the plan."""


def forecast_rule(node: CompiledNode, inputs: Mapping[str, Any]) -> RuleForecast:
    """Returns what rules make of the inputs of a workflow, so that only what its steps need is started."""
    planning = node.plan_settings
    if planning is None or not planning.rules:
        return RuleForecast(applies=False)
    bound = ScopeBindings(input=dict(inputs))
    goal = str(planning.goal.evaluate(bound))
    values = {GOAL: goal, **{name: value.evaluate(bound) for name, value in planning.values.items()}}
    offer = limit_calls(PlanRequest("", all_capabilities(node, goal)), node, lambda: values).capabilities
    rule_plan = rules.plan_by_rule(goal, offer, values)
    if rule_plan is None or not rule_plan.plan.steps:
        return RuleForecast(applies=rule_plan is not None)
    return RuleForecast(True, _compile(planning, _dump_graph(to_workflow(rule_plan.plan, offer, node.name))))


def _compile(planning: PlanSettings, graph: Any, sample: int = 0) -> Program:
    contracts = (*planning.reachable, *planning.capabilities, *planning.judges)
    agents = {contract.name: contract for contract in contracts if contract.kind == "agent"}
    tools = {contract.name: contract for contract in contracts if contract.kind == "tool"}
    for planner in (planning.router, planning.larger):
        if planner is not None:
            agents.setdefault(planner.name, planner)
    catalog = Catalog(agents, tools, models=planning.models, stored=True)
    return with_sample(
        compile_graph(Graph.model_validate(graph, strict=False), catalog, called=planning.workflows), sample
    )


def bindings(unit: WorkItem, body: Program) -> ScopeBindings:
    """Returns what a question or a plan can read: values of the node and of earlier versions."""
    values = input_values(unit)
    if unit.plan_progress is not None:
        values |= {name: value for name, (value, _) in unit.plan_progress.carried_values.items()}
    return ScopeBindings(input={name: values[name] for name in body.inputs})


def input_values(unit: WorkItem) -> dict[str, Any]:
    """Returns the values that a plan may read."""
    planning = require_plan_settings(unit)
    values = {name: value.evaluate(unit.bindings) for name, value in planning.values.items()}
    return {GOAL: planning.goal.evaluate(unit.bindings), **values}


def is_complete(draft: PlanDraft) -> bool:
    """Whether a plan has its answer."""
    return bool(draft.lines) and isinstance(parse_line(draft.lines[-1]), PlanAnswer)


def carry_over(progress: PlanProgress, draft: PlanDraft) -> None:
    """Carries the finished values over into the next version."""
    had = finished_values(progress)
    for name, step in draft.carried_values.items():
        progress.carried_values[name] = had[step]
    progress.carried_calls += _carried_calls(progress.draft, draft.carried_values)
    progress.plan_scope, progress.unused_values, progress.failed_calls, progress.used_effects = (
        None,
        {},
        draft.failed_calls,
        draft.used_effects,
    )


def finished_values(progress: PlanProgress) -> dict[str, tuple[Any, Schema]]:
    """Returns the finished values of a plan's steps, with their types; also those that its answer does not use."""
    plan, unused_values = progress.plan_scope, dict(progress.unused_values)
    for node, outcome in zip(plan.program.nodes, plan.outcomes, strict=True) if plan is not None else ():
        if isinstance(outcome, ValueOutcome):
            kind = node.output if node.each is None else bundle_definitions({"type": "array", "items": node.output})
            unused_values[node.name] = outcome.value, kind
    return unused_values


def _carried_calls(before: PlanDraft, carried_values: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Returns the calls whose values are carried into the next version, as its lines, with the names of their
    values.
    """
    names = {step: name for name, step in carried_values.items()}
    return tuple(
        (str(rebase_line(step, names)), names[step.name]) for step in parse_steps(before.lines) if step.name in names
    )


def plan_request(unit: WorkItem, history: PlanHistory = _NO_HISTORY, *, declines: bool = True) -> PlanRequest:
    """Returns the request to the router; in the first version without history. Engines without versions did not let it
    decline.
    """
    version = (history, declines)
    if unit.plan_request is None or unit.plan_request[0] != version:
        unit.plan_request = (
            version,
            limit_calls(
                build_request(unit.node, goal_of(unit), history, declines=declines),
                unit.node,
                lambda: input_values(unit),
            ),
        )
    request: PlanRequest = unit.plan_request[1]
    return request


def build_request(
    node: CompiledNode, goal: str, history: PlanHistory = _NO_HISTORY, *, declines: bool = True
) -> PlanRequest:
    """Returns the request to the router for a node with this goal."""
    planning, offer = require_node_plan_settings(node), all_capabilities(node, goal, history, declines=declines)
    if planning.rules:
        offer = rules.without_general_skills(offer)
    if planning.shortlist is not None:
        offer = shortlist(offer, goal, planning.shortlist)
    larger = planning.larger is not None
    return PlanRequest(
        goal,
        offer,
        planning.repairs,
        planning.stepwise,
        history.failed_calls,
        history.carried_calls,
        larger,
        planning.prompt_tokens,
        shows_examples=declines,
    )


def limit_calls(request: PlanRequest, node: CompiledNode, given: Callable[[], Mapping[str, Any]]) -> PlanRequest:
    """Limits a request to the calls that the budget has, one of them for a question."""
    calls = require_node_plan_settings(node).call_limit
    if calls is None:
        return request
    return replace(request, capabilities=request.capabilities.with_budget(max(0, calls - 1), given()))


def plan_capabilities(unit: WorkItem) -> Capabilities:
    """Returns what the first version of a plan may consist of."""
    return limit_calls(
        PlanRequest("", all_capabilities(unit.node, goal_of(unit))), unit.node, lambda: input_values(unit)
    ).capabilities


def all_capabilities(
    node: CompiledNode, goal: str, history: PlanHistory = _NO_HISTORY, *, declines: bool = True
) -> Capabilities:
    """Returns what a plan may consist of, before the shortlist."""
    planning = require_node_plan_settings(node)
    schemas = {
        GOAL: planning.goal.schema,
        **{name: value.schema for name, value in planning.values.items()},
        **history.value_types,
    }
    workflows = [
        replace(Capability.from_workflow(workflow.program), name=name) for name, workflow in planning.workflows.items()
    ]
    contracts: tuple[Capability | Contract, ...] = (*workflows, *planning.capabilities)
    blocked_capabilities = _blocked_capabilities(planning)
    skills = [
        contract
        for contract in contracts
        if contract.name not in history.used_effects and contract.name not in blocked_capabilities
    ]
    words, request_text = (
        shorten_request(goal) if is_needed else "" for is_needed in (planning.copied, planning.each_part)
    )
    offer = Capabilities.of(
        skills,
        schemas,
        node.output,
        limits=planning.limits,
        request_text=words,
        may_decline=declines and not planning.anyway,
    )
    request_index = None if planning.literals else RequestIndex(shorten_request(goal))
    offer = replace(
        offer,
        untrusted_inputs=frozenset((*history.value_types, *planning.hearsay)),
        request_index=request_index,
        confirm_effects=planning.confirm,
        excluded=blocked_capabilities,
    )
    # A later version of the plan takes another way, so nothing is required of it.
    return (
        with_request_parts(grounded(offer, planning.grounding_values), request_text)
        if history == _NO_HISTORY
        else offer
    )


def _blocked_capabilities(planning: PlanSettings) -> dict[str, tuple[str, str]]:
    """Returns capabilities that must not see the run's data: agents, tools, and workflows that certainly call one."""
    if not planning.blocked_agents and not planning.blocked_tools:
        return {}
    clearances = {
        capability.name: [planning.blocked_clearance(capability.kind, capability.name)]
        for capability in planning.capabilities
    }
    for name, workflow in planning.workflows.items():
        clearances[name] = [planning.blocked_clearance("agent", agent) for agent, _ in workflow.program.required_agents]
        clearances[name] += [planning.blocked_clearance("tool", tool.name) for tool in workflow.program.required_tools]
    refused_labels = {name: [label for label in labels if label is not None] for name, labels in clearances.items()}
    explanation = "must not see these data: what it asks is cleared for"
    return {name: ("R021", f"{explanation} {meet(labels)}") for name, labels in refused_labels.items() if labels}


def cache_shape(node: CompiledNode, goal: str, label: str) -> str:
    """Returns the digest of what a plan may consist of and who plans, for the cache."""
    planning, offer = require_node_plan_settings(node), all_capabilities(node, goal)
    planners = [
        contract.with_digest().digest for contract in (planning.router, planning.larger) if contract is not None
    ]
    # A constant goal is part of the intent; its type says nothing more.
    if GOAL not in planning.values:
        offer = replace(offer, inputs={**offer.inputs, GOAL: {"type": "string"}})
    by_rule = (rules.VERSION,) if planning.rules else ()
    return plan_cache.context_digest(offer, "/".join(planners), label, str(planning.votes), *by_rule)


def goal_of(unit: WorkItem) -> str:
    """Returns the goal of a plan node as text."""
    return str(require_plan_settings(unit).goal.evaluate(unit.bindings))


def plan_history(progress: PlanProgress) -> PlanHistory:
    """Returns what the current version gets from earlier ones."""
    return PlanHistory(
        {name: kind for name, (_, kind) in progress.carried_values.items()},
        progress.carried_calls,
        progress.failed_calls,
        progress.used_effects,
    )


def _with_sampling(unit: WorkItem, first: PlanDraft) -> PlanDraft:
    """Begins a version; if the node votes, with its first sample."""
    return (
        structs.replace(first, sample=1, parallel=True)
        if first.version and require_plan_settings(unit).votes > 1
        else first
    )


def next_turn(
    unit: WorkItem, drafting: PlannerState, wanted: PlannerAction, before: PlanDraft, won: VoteResult | None = None
) -> Proposal:
    """Returns the next action of the router's state machine, as the fact to record. `before` has the lines so far, the
    version and the sample, or the finished samples; if the plan has `won`, all of them.
    """
    offer, planning = drafting.request.capabilities, require_plan_settings(unit)
    plans, sample = before.sampled_plans, 0
    plan: Graph | None = None
    if planning.votes > 1 and not isinstance(wanted, PlannerQuestion) and not before.parallel:
        plans = (*plans, sample_lines(wanted))
        if len(plans) < planning.votes:
            return next_turn(unit, *start(drafting.request), structs.replace(before, lines=(), sampled_plans=plans))
        drafting, wanted, won = elect_plan(drafting, wanted, plans)
    match wanted:
        case PlannerQuestion():
            router = planning.larger if wanted.escalated else planning.router
            graph = question_workflow(router.name if router is not None else "", wanted.inputs)
            lines: tuple[PlanLine, ...] = drafting.steps
            sample = before.sample if before.parallel else len(plans) + 1 if planning.votes > 1 else 0
            # While samples run, it is not known which one becomes the plan.
            streaming = planning.streaming and not planning.plan_only
            if before.version and streaming and not sample and len(lines) > len(before.lines):
                plan = partial_workflow(drafting.steps, offer, unit.node.name)
        case PlanFound(result):
            graph = to_workflow(result, offer, unit.node.name)
            lines = (*result.steps, result.answer)
        case PlanNotFound(rejections):
            return FinishNode(unit, _no_plan_failure(unit, drafting.request, rejections))
    rejection_fields = tuple(
        (rejection.code, rejection.path, rejection.reason, rejection.hint) for rejection in drafting.rejected
    )
    dumped_graph = _dump_graph(graph)
    draft = PlanDraft(
        graph=dumped_graph,
        lines=tuple(map(str, lines)),
        rejections=rejection_fields,
        repaired_lines=drafting.repair_count,
        version=before.version,
        plan=None if plan is None else _dump_graph(plan),
        failed_calls=before.failed_calls,
        carried_values=before.carried_values,
        used_effects=before.used_effects,
        escalated=drafting.escalated,
        sample=sample,
        parallel=before.parallel,
        sampled_plans=plans,
        agreement=None if won is None else won.agreement,
    )
    # Compile now: an error fails the node here. After it is recorded, it would break the run.
    if isinstance(wanted, PlanFound):
        program(unit, dumped_graph)
    elif plan is not None:
        program(unit, draft.plan)
    return EnterBody(unit, unit.turn + 1, draft)


def _dump_graph(graph: Graph) -> Any:
    return graph.model_dump(mode="json", by_alias=True, exclude_defaults=True)


def enter_recalled(
    unit: WorkItem, plan: Plan, offer: Capabilities, run: str, saved: Usage, agreement: float | None
) -> Proposal:
    """Enters a stored plan of another run: the first version, complete."""
    graph = _dump_graph(to_workflow(plan, offer, unit.node.name))
    program(unit, graph)
    lines = tuple(map(str, (*plan.steps, plan.answer)))
    return EnterBody(
        unit, unit.turn + 1, PlanDraft(graph, lines, version=1, agreement=agreement, reused_from=run, saved_usage=saved)
    )


def elect_plan(
    drafting: PlannerState, wanted: PlanFound | PlanNotFound, plans: SampledPlans
) -> tuple[PlannerState, PlanFound | PlanNotFound, VoteResult | None]:
    """Returns the most frequent plan of the samples; the last result if none has a plan. `return nothing` counts as a
    plan.
    """
    built_plans = [build_plan([parse_line(line) for line in lines]) for lines in plans]
    vote_result = count_votes(built_plans)
    plan = None if vote_result is None else built_plans[vote_result.winner]
    if plan is None:
        return drafting, wanted, None
    fresh = PlannerState(drafting.request)
    if plan.answer.values:
        return fresh, PlanFound(plan), vote_result
    is_declined = isinstance(wanted, PlanNotFound) and wanted.is_declined  # It may state for which part.
    return fresh, wanted if is_declined else declined_result(drafting.request), vote_result


def sample_lines(wanted: PlanFound | PlanNotFound) -> tuple[str, ...]:
    """Returns the lines of a sample; none without a plan."""
    if isinstance(wanted, PlanFound):
        return tuple(map(str, (*wanted.plan.steps, wanted.plan.answer)))
    return (str(PlanAnswer(())),) if wanted.is_declined else ()


def _no_plan_failure(unit: WorkItem, request: PlanRequest, rejections: tuple[Rejection, ...]) -> FailedOutcome:
    detail = "; ".join(map(str, rejections)) or "it wrote nothing"
    if not request.failed_calls:
        return FailedOutcome("R007", f"the router gave no plan: {detail}", unit.path, "orchestra explain R007")
    line, reason = request.failed_calls[-1]
    return FailedOutcome(
        "R008",
        f"{line} failed ({reason}), and the router found no other way: {detail}",
        unit.path,
        "orchestra explain R008",
    )


# Replanning


def _may_replan(unit: WorkItem, outcome: Outcome) -> bool:
    """Whether another plan may follow this outcome. Not if a person did not confirm calls with effects."""
    poor = isinstance(outcome, FailedOutcome) and outcome.code == NO_BUDGET
    return (
        not poor
        and not is_unconfirmed(require_plan_progress(unit).plan_scope)
        and require_plan_progress(unit).draft.version <= require_plan_settings(unit).replans + _rule_versions(unit)
    )


def _rule_versions(unit: WorkItem) -> int:
    """Returns how many versions of a plan rules made: 1 or 0. After a failed one the router plans, beyond its
    replans.
    """
    return 1 if require_plan_progress(unit).draft.rule and require_plan_settings(unit).router is not None else 0


def _replan(unit: WorkItem, outcome: Outcome | None) -> Proposal:
    """Asks the first question of the next version. Finished values become its inputs, under the names of their steps if
    these are free. `outcome` is that of the plan, if it was complete.
    """
    progress = require_plan_progress(unit)
    plan, version = progress.plan_scope, progress.draft.version + 1
    if plan is None:
        raise internal_error(f"{unit.path} has no plan")
    step_names = {GOAL, *require_plan_settings(unit).values, *progress.carried_values}
    carried_names: dict[str, str] = {}
    had = finished_values(progress)
    for step in (line.name for line in parse_steps(progress.draft.lines) if line.name in had):
        name = step
        while name in step_names:
            name = f"{name}_{version - 1}"
        carried_names[name] = step
        step_names.add(name)
    names = {step: name for name, step in carried_names.items()}
    # The text of a failure may be that of a document or a model. A planner of effects reads its code only (DESIGN §11).
    planning = require_plan_settings(unit)
    words = all(capability.effect == "pure" for capability in planning.capabilities) and not any(
        workflow.has_effects for workflow in planning.workflows.values()
    )
    failures = [
        (str(rebase_line(line, names)), _failure_text(node_outcome, words=words))
        for line, node_outcome in _own_failures(progress.draft, plan)
    ]
    if not failures and outcome is not None:
        failures = [
            (str(rebase_line(parse_line(progress.draft.lines[-1]), names)), _failure_text(outcome, words=words))
        ]
    effect_names = {
        _capability_name(node) for node in plan.program.nodes if node.has_effects and _was_called(plan, node.index)
    }
    before = plan_history(progress)
    after = PlanHistory(
        {**before.value_types, **{name: had[step][1] for name, step in carried_names.items()}},
        (*before.carried_calls, *_carried_calls(progress.draft, carried_names)),
        (*before.failed_calls, *failures),
        tuple(sorted({*before.used_effects, *effect_names})),
    )
    first = PlanDraft(
        None,
        version=version,
        failed_calls=after.failed_calls,
        carried_values=carried_names,
        used_effects=after.used_effects,
    )
    return next_turn(unit, *start(plan_request(unit, after)), _with_sampling(unit, first))


def is_unconfirmed(plan: ExecutionScope | None) -> bool:
    """Whether a person was asked to confirm calls with effects, and did not."""
    outcomes = (
        {}
        if plan is None
        else {node.name: outcome for node, outcome in zip(plan.program.nodes, plan.outcomes, strict=True)}
    )
    answer = outcomes.get(CONFIRM_NODE)
    return answer is not None and not (isinstance(answer, ValueOutcome) and answer.value == YES)


def _capability_name(node: CompiledNode) -> str:
    """Returns what a step calls: an agent, a tool or a workflow."""
    if node.contract is not None:
        return node.contract.name
    return node.source.call if isinstance(node.source, CallNode) and isinstance(node.source.call, str) else ""


def _own_failures(draft: PlanDraft, plan: ExecutionScope) -> Iterator[tuple[PlanStep, Outcome]]:
    """Returns the steps that failed by themselves, and not because of their inputs."""
    outcomes = {node.name: outcome for node, outcome in zip(plan.program.nodes, plan.outcomes, strict=True)}
    for step in parse_steps(draft.lines):
        outcome = outcomes.get(step.name)
        if outcome is not None and not isinstance(outcome, ValueOutcome) and _failed_step(plan, outcome) == step.name:
            yield step, outcome


def _was_called(plan: ExecutionScope, index: int) -> bool:
    """Whether a step may have been called: its outcome is its own."""
    outcome = plan.outcomes[index]
    return isinstance(outcome, ValueOutcome) or (
        outcome is not None and _failed_step(plan, outcome) == plan.program.nodes[index].name
    )


def _failed_step(plan: ExecutionScope, outcome: Outcome) -> str:
    """Returns the step in which a failure or an abstention began."""
    return "" if isinstance(outcome, ValueOutcome) else root_name(outcome.origin.removeprefix(plan.path))


def _failure_text(outcome: Outcome, *, words: bool) -> str:
    """Returns why a step failed, for the router: with the text of the failure, or without."""
    if isinstance(outcome, ValueOutcome):
        return ""
    code = (
        outcome.code
        if isinstance(outcome, FailedOutcome)
        else "withheld"
        if isinstance(outcome, AbstainedOutcome)
        else "skipped"
    )
    reason = outcome.reason_for_models if isinstance(outcome, AbstainedOutcome) else outcome.reason
    text = f"{code}: {' '.join(reason.split())}" if words and reason else code
    return text if len(text) <= MAX_REASON else text[: MAX_REASON - 1] + "…"


def _failed_outcomes(plan: ExecutionScope) -> list[Outcome]:
    return [outcome for outcome in plan.outcomes if outcome is not None and not isinstance(outcome, ValueOutcome)]


# Helpers


def _plan_outcome(unit: WorkItem) -> Outcome:
    """Returns the outcome of a plan."""
    try:
        return scope_outcome(require_body_scope(unit))
    except OrchestraError as error:  # An error of these values, such as the first element of an empty list.
        return FailedOutcome(error.code, error.message, unit.path, error.hint)


def require_plan_progress(unit: WorkItem) -> PlanProgress:
    """Returns the plan in progress. Raises `OrchestraError` E002 if there is none."""
    if unit.plan_progress is None:
        raise internal_error(f"{unit.path} has no plan")
    return unit.plan_progress


def require_plan_settings(unit: WorkItem) -> PlanSettings:
    """Returns the unit's plan settings. Raises `OrchestraError` E002 if it is no `plan` node."""
    return require_node_plan_settings(unit.node)


def require_node_plan_settings(node: CompiledNode) -> PlanSettings:
    """Returns the node's plan settings. Raises `OrchestraError` E002 if it is no `plan` node."""
    if node.plan_settings is None:
        raise internal_error(f"{node.name} plans nothing")
    return node.plan_settings

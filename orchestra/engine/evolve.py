"""The fold: computes the next state from a state and an event. Pure: no decisions, no I/O, no clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from orchestra.core.errors import OrchestraError
from orchestra.core.events import (
    NO_USAGE,
    AttemptFinished,
    AttemptStarted,
    CancelRequested,
    ChecksStarted,
    Event,
    InboxMessageRejected,
    MapExpanded,
    NodeFinished,
    OutputJudged,
    PlanDraft,
    QuestionAnswered,
    QuestionAsked,
    RetryPlanned,
    RunFinished,
    RunResumed,
    RunStarted,
    TokensCounted,
    TurnStarted,
)
from orchestra.core.outcomes import Outcome, SkippedOutcome, ValueOutcome
from orchestra.engine import check_budget, kinds
from orchestra.engine.budgets import BudgetAccount
from orchestra.engine.kinds import checks
from orchestra.engine.scopes import abandon, ancestors, close, descendants, extend, paths_within, release_attempt
from orchestra.engine.state import (
    CheckProgress,
    EscalationStep,
    ExecutionScope,
    MapProgress,
    Phase,
    PlanProgress,
    PlanSample,
    RunState,
    ScopeBindings,
    WorkItem,
    internal_error,
)
from orchestra.verification.check_budget import CheckBudget
from orchestra.workflows.program import Program, stop_at_plan

RUNNING, READY = Phase.RUNNING, Phase.READY


def evolve(state: RunState, event: Event, program: Program) -> None:
    """Applies one event of a run of `program` to its state, in place. Raises `OrchestraError` E001 for a gap in
    `seq`.
    """
    if event.seq != state.seq + 1:
        raise OrchestraError(
            "E001", f"event {event.seq} follows event {state.seq} of run {state.run}", hint="orchestra doctor"
        )
    state.seq = event.seq
    if event.at > state.last_event_at:
        if type(event) is not RunResumed:
            state.active_seconds += event.at - state.last_event_at
        state.last_event_at = event.at
    FOLDS[type(event)](state, event, program)


def _run_started(state: RunState, event: RunStarted, program: Program) -> None:
    state.run, state.label, state.tiers, state.active_seconds = event.run, event.label, event.tiers, 0.0
    state.overrides = event.overrides
    program = stop_at_plan(program) if event.plan_only else program
    if state.keep_budgets and program.budget is not None and program.budget.check_tokens is not None:
        state.check_budget = CheckBudget(program.budget.check_tokens)
    state.root = state.open_scope("", program, ScopeBindings(input=event.inputs), None)


def _run_resumed(state: RunState, event: RunResumed, program: Program) -> None:
    """Continues an interrupted run. Attempts in flight are made again under their own number; for calls that must
    happen once a person is asked. Timeouts of bodies and retry delays continue where they stopped. Deadlines of
    questions to persons, and of bodies with an open question, follow the wall clock.
    """
    state.epoch = event.epoch
    waiting_paths = {body.path for path in state.open_questions for body in ancestors(state.units[path])}
    for unit in list(state.units.values()):
        if unit.started_at:
            unit.started_at += event.idle_seconds
            _shift_times(unit, event.idle_seconds)
        if (
            unit.due
            and unit.path not in waiting_paths
            and (unit.phase in (Phase.IN_BODY, Phase.BODY_DONE) or checks.has_timed_checks(unit))
        ):
            unit.due += event.idle_seconds
        if unit.phase is RUNNING:
            release_attempt(state, unit)
            contract = unit.node.contract
            if contract is not None and contract.effect == "once":
                state.request_decision(unit, Phase.IN_DOUBT)
            else:
                unit.attempt -= 1
                state.enqueue(unit)


def _shift_times(unit: WorkItem, seconds: float) -> None:
    """Moves the first attempt of a unit by the time in which no process held the run: whether another attempt follows
    depends on it.
    """
    if unit.last_attempt is not None:
        unit.last_attempt = replace(unit.last_attempt, at=unit.last_attempt.at + seconds)
    if unit.judgement is not None:
        unit.judgement = replace(unit.judgement, at=unit.judgement.at + seconds)


def _attempt_started(state: RunState, event: AttemptStarted, program: Program) -> None:
    unit = state.units[event.node]
    unit.attempt, unit.tier = event.attempt, event.tier or int(event.escalated)
    if not unit.started_at:
        unit.started_at = event.at
    if unit.phase is not RUNNING:
        unit.phase = RUNNING
        state.running += 1
    if event.reserved and unit.reserved_tokens < 0 and unit.scope.account is not None:
        unit.reserved_tokens = event.reserved
        unit.scope.account.reserve(event.reserved)


def _attempt_finished(state: RunState, event: AttemptFinished, program: Program) -> None:
    unit = state.units[event.node]
    if unit.phase is RUNNING:
        state.running -= 1
    unit.attempt = event.attempt
    if not unit.started_at and not event.final:
        unit.started_at = event.at - event.usage.seconds
    if unit.scope.account is not None:
        _charge_budget(state, unit.scope.account, unit, event)
    if event.usage is not NO_USAGE:
        state.usage_counter.add(event.usage)
    if (owner := unit.scope.unit) is not None:
        if state.check_budget is not None and owner.check_progress is not None:
            check_budget.spend(state.check_budget, unit, event)
        if owner.plan_progress is not None and kinds.plan.is_question(unit):
            owner.router_usage = owner.router_usage + event.usage
    if event.final:
        del state.units[event.node]
        _set_outcome(state, unit, ValueOutcome(event.value, event.confidence))
    else:
        unit.last_attempt = event
        if unit.tier:
            unit.escalations = (*unit.escalations, EscalationStep(unit.tier, event.error, event.reason))
        state.request_decision(unit, Phase.ATTEMPT_FAILED if event.error else Phase.ATTEMPT_SUCCEEDED)


def _charge_budget(state: RunState, account: BudgetAccount[WorkItem], unit: WorkItem, event: AttemptFinished) -> None:
    """Releases the reservation of an attempt and charges its cost; waiting units may get budget."""
    reserved_tokens, reserved_money = unit.reserved_tokens, unit.reserved_money
    if reserved_tokens >= 0:
        account.release(reserved_tokens, reserved_money)
        unit.reserved_tokens, unit.reserved_money = -1, 0.0
    if (contract := unit.node.contract) is not None and contract.kind == "agent":
        usage = event.usage
        silent = not event.error and not event.reused_from and not usage.prompt_tokens and not usage.output_tokens
        # If the worker does not report the cost, the reservation counts as spent.
        if silent and reserved_tokens > 0:
            account.spend(reserved_tokens, usage.calls, reserved_money)
        else:
            account.spend(usage.prompt_tokens + usage.output_tokens, usage.calls, usage.money)
    if state.waiting_accounts:
        state.resume_waiting()


def _node_finished(state: RunState, event: NodeFinished, program: Program) -> None:
    unit = state.units.pop(event.node)
    inside = unit.body is not None or unit.plan_progress is not None
    if (
        (inside and _has_open_body(unit))
        or (unit.map_progress is not None and unit.map_progress.pending)
        or _has_open_checks(unit)
    ):
        abandon(state, descendants(state, unit))
    elif unit.phase is RUNNING:
        release_attempt(state, unit)
    state.open_questions.pop(event.node, None)
    if state.check_budget is not None:
        check_budget.release(state.check_budget, unit)
    if unit.scope.finished_items is not None and event.overridden_by is not None:
        unit.scope.finished_items.person_values.add(event.node)
    _set_outcome(state, unit, event.outcome)


def _has_open_body(unit: WorkItem) -> bool:
    """Whether something still runs inside a unit with a body, although the unit has its outcome."""
    plan = unit.plan_progress.plan_scope if unit.plan_progress is not None else None
    if unit.plan_progress is not None and any(
        sample.body.open_nodes > 0 for sample in unit.plan_progress.samples.values()
    ):
        return True
    return (unit.body is not None and unit.body.open_nodes > 0) or (plan is not None and plan.open_nodes > 0)


def _has_open_checks(unit: WorkItem) -> bool:
    """Whether a question of its checks is still open."""
    return unit.check_progress is not None and unit.check_progress.scope.open_nodes > 0


def _checks_started(state: RunState, event: ChecksStarted, program: Program) -> None:
    """Opens the scope of a check's questions to agents. They spend from the unit's budget."""
    unit = state.units[event.node]
    unit.phase = Phase.CHECKING
    scope = state.open_scope(
        f"{unit.path}?{event.round}/", checks.program(unit, event), ScopeBindings(unit.bindings), unit
    )
    unit.check_progress = CheckProgress(event, scope)
    if event.priority is not None and state.check_budget is not None:
        check_budget.record_priority(state.check_budget, unit, event.priority)
        check_budget.reserve(state.check_budget, unit.check_progress, event.priority)


def _output_judged(state: RunState, event: OutputJudged, program: Program) -> None:
    unit = state.units[event.node]
    unit.judgement = event
    if event.skipped_checks is not None and state.check_budget is not None:
        check_budget.record_priority(state.check_budget, unit, event.skipped_checks)
    if not event.accepted:
        reason = event.reason if event.feedback is None else event.feedback
        unit.feedback = (*unit.feedback, reason) if reason else unit.feedback
        unit.rejected_value = unit.last_attempt.value if unit.last_attempt is not None else None
    state.request_decision(unit, Phase.JUDGED)


def _retry_planned(state: RunState, event: RetryPlanned, program: Program) -> None:
    unit = state.units[event.node]
    unit.phase, unit.due = Phase.BACKING_OFF, event.due


def _tokens_counted(state: RunState, event: TokensCounted, program: Program) -> None:
    unit = state.units[event.node]
    unit.counted_tokens = event.prompt_tokens
    state.enqueue(unit)


def _question_asked(state: RunState, event: QuestionAsked, program: Program) -> None:
    unit = state.units[event.node]
    unit.phase, unit.question = Phase.ASKING_PERSON, event
    limit = unit.node.timeout if event.kind == "answer" else None
    unit.due = 0.0 if limit is None else event.at + limit
    state.open_questions[event.node] = event


def _answered(state: RunState, event: QuestionAnswered, program: Program) -> None:
    unit = state.units[event.node]
    unit.person_answer = event
    state.last_message = max(state.last_message, event.message_number)
    del state.open_questions[event.node]
    state.request_decision(unit, Phase.ANSWERED_BY_PERSON)


def _message_refused(state: RunState, event: InboxMessageRejected, program: Program) -> None:
    state.last_message = max(state.last_message, event.message_number)


def _cancel_requested(state: RunState, event: CancelRequested, program: Program) -> None:
    state.cancelled, state.cancelled_by = True, event.by
    state.last_message = max(state.last_message, event.message_number)


def _run_finished(state: RunState, event: RunFinished, program: Program) -> None:
    state.finished = event


def _turn_started(state: RunState, event: TurnStarted, program: Program) -> None:
    """Opens a body. In a loop, `previous` is the output of the turn before, computed as `decide` does."""
    unit = state.units[event.node]
    if event.draft is not None:
        handler = _plan_drafted if unit.node.tool_use is None else _tool_turn_started
        handler(state, unit, event, event.draft)
        return
    body = unit.node.body
    if body is None:
        raise internal_error(f"{unit.path} has no body")
    if unit.node.kind == "loop":
        before = unit.body
        previous = None if before is None else before.program.output.evaluate(before.bindings)
        path, bindings = f"{unit.path}#{event.turn}/", ScopeBindings(unit.bindings, turn=event.turn, previous=previous)
    elif body.sees_outer_scope:
        path, bindings = f"{unit.path}/", ScopeBindings(unit.bindings)
    else:
        input_values = unit.node.inputs.evaluate(unit.bindings) if unit.node.inputs else {}
        path, bindings = f"{unit.path}/", ScopeBindings(input=with_defaults(body, input_values))
    _enter_body(state, unit, event, path, body, bindings)


def _enter_body(
    state: RunState, unit: WorkItem, event: TurnStarted, path: str, body: Program, bindings: ScopeBindings
) -> None:
    if unit.node.timeout is not None and unit.body is None:
        unit.due = event.at + unit.node.timeout
    unit.turn, unit.phase = event.turn, Phase.IN_BODY
    unit.body = state.open_scope(path, body, bindings, unit)


def _tool_turn_started(state: RunState, unit: WorkItem, event: TurnStarted, draft: PlanDraft) -> None:
    """Opens the next turn of an agent with tools: a question for its next line or its answer, or the call of its
    line.
    """
    unit.tool_results = kinds.tool_use.collect_results(unit, draft)
    unit.draft = draft
    body = kinds.tool_use.program(unit, draft)
    _enter_body(state, unit, event, f"{unit.path}#{event.turn}/", body, kinds.tool_use.bindings(unit, body))


def _plan_drafted(state: RunState, unit: WorkItem, event: TurnStarted, draft: PlanDraft) -> None:
    """Extends a plan: its scope gets the accepted lines, and the next question is opened, if there is one.

    If this version follows a failed one, what still runs of that is abandoned, and its values can be read.
    """
    progress = unit.plan_progress
    if progress is None:
        progress = unit.plan_progress = PlanProgress(draft)
        unit.due = event.at + unit.node.timeout if unit.node.timeout is not None else unit.due
    elif progress.draft.version != draft.version:
        abandon(state, paths_within(state, unit.path, "#@"))
        kinds.plan.carry_over(progress, draft)
    if not draft.sample:
        progress.samples, progress.answered = {}, []
    progress.draft, unit.turn, unit.phase = draft, event.turn, Phase.IN_BODY
    is_complete = kinds.plan.is_complete(draft)
    if is_complete and kinds.plan.require_plan_settings(unit).plan_only:
        state.request_decision(unit, Phase.BODY_DONE)
        return
    graph = draft.graph if is_complete and draft.version else draft.plan
    if graph is not None:
        program = kinds.plan.program(unit, graph)
        plan_bindings = kinds.plan.bindings(unit, program)
        if progress.plan_scope is None:
            progress.plan_scope = ExecutionScope(
                f"{unit.path}@{draft.version}/",
                program,
                plan_bindings,
                unit,
                unit.scope.account,
                state.nearest_deadline(unit),
            )
        progress.plan_scope.bindings.update(plan_bindings)
        if is_complete:
            progress.unused_values = kinds.plan.finished_values(progress)
        extend(state, progress.plan_scope, program, complete=is_complete)
    if not (is_complete and draft.version):
        body = kinds.plan.program(unit, draft.graph, draft.sample)
        unit.body = state.open_scope(f"{unit.path}#{event.turn}/", body, kinds.plan.bindings(unit, body), unit)
        if draft.parallel:
            progress.samples[draft.sample] = PlanSample(draft, unit.body)
            progress.answered = [number for number in progress.answered if number != draft.sample]
            if kinds.plan_voting.has_pending_samples(unit):
                state.request_decision(unit, Phase.BODY_DONE)


def _map_expanded(state: RunState, event: MapExpanded, program: Program) -> None:
    unit = state.units[event.node]
    items = unit.node.each.evaluate(unit.bindings) if unit.node.each else []
    unit.map_progress = MapProgress(items[: event.count], unit.node.at_least)
    unit.phase = Phase.MAPPING
    _start_elements(state, unit, unit.map_progress)


def _start_elements(state: RunState, unit: WorkItem, map_progress: MapProgress) -> None:
    """Starts as many elements as the node's `concurrency` allows; when all have an outcome, requests the node's own."""
    node = unit.node
    items = map_progress.items
    concurrency = node.concurrency or len(items)
    while map_progress.running < concurrency and map_progress.next_index < len(items):
        index = map_progress.next_index
        bindings = ScopeBindings(unit.bindings, **{node.variable: items[index]})
        element = WorkItem(f"{unit.path}[{index}]", unit.scope, node, bindings, unit, index)
        state.units[element.path] = element
        state.enqueue(element)
        map_progress.next_index += 1
        map_progress.running += 1
    if not map_progress.pending:
        state.request_decision(unit, Phase.MAPPING)


def with_defaults(program: Program, given: dict[str, object]) -> dict[str, object]:
    """Returns the inputs of a program, with its defaults for missing ones."""
    return {name: given.get(name, field.default) for name, field in program.inputs.items()}


def _set_outcome(state: RunState, unit: WorkItem, outcome: Outcome) -> None:
    unit.phase = Phase.DONE
    if unit.scope.finished_items is not None:
        unit.scope.finished_items.units[unit.path] = unit
    if (owner := unit.owner) is not None:
        map_progress = owner.map_progress
        if map_progress is not None and map_progress.failures_left >= 0:
            map_progress.outcomes[unit.index] = outcome
            map_progress.pending -= 1
            map_progress.running -= 1
            map_progress.check_budget_decided -= unit.check_budget_decided
            if type(outcome) is not ValueOutcome and not (
                type(outcome) is SkippedOutcome and unit.node.at_least == "all"
            ):
                map_progress.failures_left -= 1
            if map_progress.failures_left < 0:
                state.request_decision(owner, Phase.MAPPING)  # It fails, regardless of the other elements.
            else:
                _start_elements(state, owner, map_progress)
        return
    scope, node = unit.scope, unit.node
    scope.outcomes[node.index] = outcome
    scope.open_nodes -= 1
    if type(outcome) is ValueOutcome:
        scope.bindings[node.name] = {"values": outcome.value} if node.each is not None else outcome.value
    else:
        scope.has_all_values = False
    missing_needs = scope.missing_needs
    for child in node.children:
        missing_needs[child] = missing = missing_needs[child] - 1
        if not missing:
            state.admit(scope, scope.program.nodes[child])
    if not scope.open_nodes:
        close(state, scope)


FOLDS: dict[type[Event], Callable[[RunState, Any, Program], None]] = {
    AttemptFinished: _attempt_finished,
    AttemptStarted: _attempt_started,
    NodeFinished: _node_finished,
    ChecksStarted: _checks_started,
    OutputJudged: _output_judged,
    RetryPlanned: _retry_planned,
    TokensCounted: _tokens_counted,
    MapExpanded: _map_expanded,
    TurnStarted: _turn_started,
    QuestionAsked: _question_asked,
    QuestionAnswered: _answered,
    InboxMessageRejected: _message_refused,
    CancelRequested: _cancel_requested,
    RunStarted: _run_started,
    RunResumed: _run_resumed,
    RunFinished: _run_finished,
}
"""The fold of each type of event; a test compares it with the union of all events."""

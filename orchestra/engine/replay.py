"""Replay: compares a run's events with the decisions of the current engine. It uses no clock, workers or journal.

It shows whether the current engine can resume an old run, whether the events are consistent, and which calls the run
made.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf
from typing import TypeGuard

from msgspec.structs import replace

from orchestra.agents.tool_prompt import FUNCTIONS, GRAMMAR
from orchestra.core.error_codes import NO_BUDGET, TIMEOUT
from orchestra.core.events import (
    AttemptFinished,
    AttemptStarted,
    ChecksStarted,
    Event,
    MapExpanded,
    NodeFinished,
    OutputJudged,
    OverrideSource,
    PlanDraft,
    QuestionAnswered,
    QuestionAsked,
    RetryPlanned,
    RunFinished,
    RunResumed,
    TokensCounted,
    TurnStarted,
    Verdict,
)
from orchestra.core.outcomes import FailedOutcome, ValueOutcome
from orchestra.core.protocols import CallRequest
from orchestra.engine.decide import decide, time_out
from orchestra.engine.evolve import evolve
from orchestra.engine.kinds import plan, plan_cache, plan_voting
from orchestra.engine.kinds.checks import evaluate_checks, has_timed_checks, round_number
from orchestra.engine.kinds.subworkflow import scope_outcome
from orchestra.engine.proposals import (
    AskPerson,
    CountTokens,
    EnterBody,
    ExpandMap,
    FinishNode,
    FinishRun,
    Invoke,
    Proposal,
    RecallPlan,
    RunChecks,
    ScheduleRetry,
)
from orchestra.engine.state import Phase, RunState, WorkItem
from orchestra.router.plan import LINE_NODE
from orchestra.verification import session
from orchestra.workflows.program import CompiledNode, Program


@dataclass(slots=True)
class ReplayResult:
    """The result of a replay: the call and the result of each attempt, by node and attempt; and the first event that
    today's engine would not produce, with what it would.
    """

    calls: dict[tuple[str, int], tuple[CallRequest, AttemptFinished | None]] = field(default_factory=dict)
    token_counts: list[tuple[CallRequest, int]] = field(default_factory=list)
    """Calls whose prompt a server counted, with the number of tokens."""
    certificates: dict[str, str] = field(default_factory=dict)
    """The digest of the certificate by which a node's value was judged, by node; empty without one."""
    timed_out: list[str] = field(default_factory=list)
    """Nodes that timed out: the clock decided their outcome."""
    first_difference: Event | None = None
    reason: str = ""
    event_count: int = 0


def replay(program: Program, events: Iterable[Event]) -> ReplayResult:
    """Replays a run's events. A difference is reported in `ReplayResult.first_difference`, not raised."""
    state, result = RunState(keep_budgets=False), ReplayResult()
    pending: dict[str, Proposal] = {}
    for event in events:
        try:
            if isinstance(event, RunResumed):
                _drop_unrecorded(state, pending)
            unit = state.units.get(event.node) if isinstance(event, NodeFinished | TurnStarted) else None
            reason = _mismatch(state, pending, event, result)
            if not reason:
                if isinstance(event, OutputJudged):
                    result.certificates[event.node] = certificate_digest(state.units[event.node].node)
                evolve(state, event, program)
                if unit is not None and (
                    unit.due
                    or unit.plan_progress is not None
                    or unit.node.at_least is not None
                    or _has_time_budget(unit)
                ):
                    _drop_abandoned(pending)
        except (KeyError, IndexError) as error:
            reason = f"the workflow has no {error}"
        if reason:
            result.first_difference, result.reason = event, reason
            return result
        result.event_count += 1
        _decide_all(state, pending)
    return result


def certificate_digest(node: CompiledNode) -> str:
    """Returns the digest of the certificate of a node's acceptance; empty without one."""
    certificate = node.acceptance.certificate if node.acceptance is not None else None
    return certificate.digest if certificate is not None else ""


def _drop_unrecorded(state: RunState, pending: dict[str, Proposal]) -> None:
    """Drops calls that were decided but not recorded: the process that resumes a run decides them again. So it is with
    the next turn of a plan, for which more may be known by then.
    """
    for unit in state.units.values():
        if isinstance(pending.get(unit.path), Invoke):
            del pending[unit.path]
            state.running -= 1
            state.enqueue(unit)
        elif (
            unit.plan_progress is not None
            and unit.phase is Phase.BODY_DONE
            and pending.pop(unit.path, None) is not None
        ):
            state.request_decision(unit, Phase.BODY_DONE)


def _drop_abandoned(pending: dict[str, Proposal]) -> None:
    """Drops proposals for abandoned units."""
    for path, proposal in list(pending.items()):
        if not isinstance(proposal, FinishRun) and proposal.unit.phase is Phase.DONE:
            del pending[path]


def _decide_all(state: RunState, pending: dict[str, Proposal]) -> None:
    while proposals := decide(state):
        for proposal in proposals:
            pending["" if isinstance(proposal, FinishRun) else proposal.unit.path] = proposal


def _mismatch(state: RunState, pending: dict[str, Proposal], event: Event, result: ReplayResult) -> str:
    """Returns why the engine would not produce this event here; empty if it would. Removes the proposal."""
    node = getattr(event, "node", "")
    if node in state.units and state.units[node].phase is Phase.BACKING_OFF:
        state.enqueue(state.units[node])  # Its time has come.
        _decide_all(state, pending)
    match event:
        case AttemptStarted():
            return _match_call(pending, event, result)
        case AttemptFinished():
            return _match_attempt_finished(pending, event, result)
        case NodeFinished():
            return _match_finish(state, pending, event, result)
        case ChecksStarted():
            return _match_checks_started(pending.pop(node, None), event)
        case OutputJudged():
            return _match_judgement(pending.pop(node, None), event)
        case MapExpanded():
            return _match_field(pending.pop(node, None), event.count, ExpandMap, "count")
        case TurnStarted():
            return _match_turn(proposal := pending.pop(node, None), event) and _match_turn(
                _legacy_proposal(proposal), event
            )
        case QuestionAsked():
            return _match_field(pending.pop(node, None), event.question, AskPerson, "question")
        case QuestionAnswered() if event.call_happened:
            _record_confirmed_call(state.units[node].attempt, event, result)
            return ""
        case RetryPlanned():
            proposal = pending.pop(node, None)
            return (
                ""
                if isinstance(proposal, ScheduleRetry) and proposal.attempt == event.attempt
                else _describe_action(proposal)
            )
        case TokensCounted():
            if isinstance(count_proposal := pending.pop(node, None), Invoke):
                state.running -= 1
                result.token_counts.append((count_proposal.call, event.prompt_tokens))
            return ""
        case RunFinished():
            return _match_run_finished(pending.pop("", None), event)
        case _:
            return ""


def _match_attempt_finished(pending: dict[str, Proposal], event: AttemptFinished, result: ReplayResult) -> str:
    """Records the result of a call. A call without `AttemptStarted` is matched first."""
    call = event.node, event.attempt
    if (call not in result.calls or event.node in pending) and (reason := _match_call(pending, event, result)):
        return reason
    result.calls[call] = (result.calls[call][0], event)
    if event.error == TIMEOUT:
        result.timed_out.append(event.node)
    return ""


def _record_confirmed_call(attempt: int, event: QuestionAnswered, result: ReplayResult) -> None:
    """Records the result that a person stated for a call in doubt."""
    if (stored_call := result.calls.get((event.node, attempt))) is None:
        return
    call, _ = stored_call
    finish_event = AttemptFinished(
        seq=event.seq,
        at=event.at,
        node=event.node,
        attempt=attempt,
        name=call.name,
        value=event.value,
        overridden_by=OverrideSource(event.by),
    )
    result.calls[event.node, attempt] = (call, finish_event)


def _match_run_finished(proposal: Proposal | None, event: RunFinished) -> str:
    """A person or a budget may end a run at any time; the engine decides the other ends."""
    if event.status in ("cancelled", "budget"):
        return ""
    is_same = isinstance(proposal, FinishRun) and (proposal.status, proposal.outcome) == (event.status, event.outcome)
    return "" if is_same else _describe_action(proposal)


def _match_turn(proposal: Proposal | None, event: TurnStarted) -> str:
    if (
        isinstance(proposal, RecallPlan | EnterBody)
        and proposal.unit.node.plan_settings is not None
        and _is_unversioned(event.draft)
    ):
        proposal = plan.first_question(proposal.unit, version=0)
    elif isinstance(proposal, RecallPlan) or _may_be_by_rule(proposal, event):
        proposal = plan_cache.expected_beginning(proposal.unit, event.draft)
    if isinstance(proposal, EnterBody) and proposal.choice_reason != event.choice_reason:
        return "another agent would be asked"
    draft = not isinstance(proposal, EnterBody) or _without_grammar(
        _with_legacy_sampling(proposal.draft, event.draft)
    ) == _without_grammar(event.draft)
    return (
        _match_field(proposal, event.turn, EnterBody, "turn") if draft else "the router's machine would go on otherwise"
    )


def _may_be_by_rule(proposal: Proposal | None, event: TurnStarted) -> TypeGuard[EnterBody | FinishNode]:
    """Whether a rule made the plan of this beginning, or makes one or declines today."""
    if isinstance(proposal, FinishNode):
        return _has_no_turns(proposal.unit)
    return isinstance(proposal, EnterBody) and any(
        draft is not None and draft.rule for draft in (proposal.draft, event.draft)
    )


def _has_no_turns(unit: WorkItem) -> bool:
    """Whether a unit is a `plan` node with rules that has not begun."""
    return unit.node.plan_settings is not None and unit.node.plan_settings.rules and unit.plan_progress is None


def _legacy_proposal(proposal: Proposal | None) -> Proposal | None:
    """Returns the proposal of an engine before L123 for the router's answer: what it accepted is recorded."""
    unit = proposal.unit if isinstance(proposal, EnterBody | FinishNode) else None
    if unit is None or unit.plan_progress is None or unit.phase is not Phase.BODY_DONE:
        return proposal
    plan.use_legacy_rules(unit)
    return plan_voting.on_body_done(unit) if plan_voting.is_voting(unit) else plan.on_body_done(unit)


def _is_unversioned(draft: PlanDraft | None) -> bool:
    """Whether it is the first question of an engine without plan versions, which ran only complete plans."""
    return draft is not None and not draft.version and not draft.lines and not draft.rejections


def _with_legacy_sampling(draft: PlanDraft | None, plan_draft: PlanDraft | None) -> PlanDraft | None:
    """Returns the first question of an engine that sampled plans one after the other, if the recorded one is of that
    kind.
    """
    older = draft is not None and plan_draft is not None and plan_draft.sample and not plan_draft.parallel
    return replace(draft, parallel=False) if older and draft is not None else draft


def _without_grammar(draft: PlanDraft | None) -> PlanDraft | None:
    """Returns a turn of a plan without the grammar and the functions of its question. A newer engine may restrict the
    answer differently; what was accepted, and the result of validation, are recorded events.
    """
    line = draft.graph["nodes"].get(LINE_NODE) if draft is not None and draft.graph else None
    if draft is None or line is None:
        return draft
    values = {name: value for name, value in line["with"].items() if name not in (GRAMMAR, FUNCTIONS)}
    return replace(draft, graph={**draft.graph, "nodes": {**draft.graph["nodes"], LINE_NODE: {**line, "with": values}}})


def _match_call(pending: dict[str, Proposal], event: AttemptStarted | AttemptFinished, result: ReplayResult) -> str:
    proposal = pending.pop(event.node, None)
    if isinstance(proposal, CountTokens):
        proposal = Invoke(proposal.unit, proposal.call)
    if not isinstance(proposal, Invoke) or proposal.call.attempt != event.attempt:
        return _describe_action(proposal)
    if event.name and proposal.call.name != event.name:
        return f"the engine would ask {proposal.call.name}"
    result.calls[event.node, event.attempt] = (proposal.call, None)
    return ""


def _match_finish(state: RunState, pending: dict[str, Proposal], event: NodeFinished, result: ReplayResult) -> str:
    unit = state.units[event.node]
    proposal = pending.pop(event.node, None)
    if isinstance(proposal, EnterBody | RecallPlan) and _has_no_turns(unit) and event.outcome == plan.declined(unit):
        return ""  # A rule declined it, and does not today.
    if isinstance(proposal, RecallPlan):
        proposal = plan.first_question(unit)  # No plan was found, and the router had no question.
        proposal = time_out(unit, proposal.outcome) if isinstance(proposal, FinishNode) else proposal
    if isinstance(proposal, EnterBody):
        proposal = _legacy_unreadable_line(unit) or proposal
    if isinstance(proposal, FinishNode) and (proposal.outcome, proposal.overridden_by) == (
        event.outcome,
        event.overridden_by,
    ):
        return ""
    # Not by the clock: the engine waits in monotonic time and stamps events with wall-clock time, which may jump.
    late = unit.due and (
        unit.phase in (Phase.IN_BODY, Phase.ASKING_PERSON) or has_timed_checks(unit) or isinstance(proposal, RunChecks)
    )
    is_timed = unit.phase is Phase.IN_BODY and _has_time_budget(unit)
    if (late and _ended_with(unit, event, TIMEOUT)) or (is_timed and _ended_with(unit, event, NO_BUDGET)):
        result.timed_out.append(event.node)
        return ""
    contract = unit.node.contract
    poor = contract is not None and contract.kind == "agent" and _ended_with(unit, event, NO_BUDGET)
    return "" if poor else _describe_action(proposal)


def _legacy_unreadable_line(unit: WorkItem) -> Proposal | None:
    """Returns the end of a node for a plan line that an engine before R020 could not read: that failure, or the
    fallback.
    """
    body = unit.body if unit.plan_progress is not None and not plan_voting.is_voting(unit) else None
    answer = scope_outcome(body) if body is not None and not body.open_nodes else None
    return time_out(unit, answer) if isinstance(answer, FailedOutcome) else None


def _has_time_budget(unit: WorkItem) -> bool:
    """Whether the budget of the workflow that a unit calls has a limit of seconds."""
    return unit.body is not None and unit.body.expires_at < inf


def _ended_with(unit: WorkItem, event: NodeFinished, code: str) -> bool:
    """Whether a node ended in a failure with this code, or in its fallback."""
    outcome = event.outcome
    return (isinstance(outcome, FailedOutcome) and outcome.code == code) or (
        unit.node.fallback is not None and isinstance(outcome, ValueOutcome)
    )


def _match_judgement(proposal: Proposal | None, event: OutputJudged) -> str:
    if not isinstance(proposal, RunChecks) or proposal.attempt != event.attempt:
        return _describe_action(proposal)
    ruling = evaluate_checks(proposal)
    if isinstance(ruling, session.ChecksPending):
        if event.skipped_checks is None:
            return f"the check {ruling.check} would ask first"
        ruling = session.finish_without_asking(proposal.request, ruling, event.skipped_checks.skip_reason)
    if (_with_legacy_evidence(ruling.verdicts, event.verdicts), ruling.accepted) != (event.verdicts, event.accepted):
        return "the checks return other verdicts today"
    return ""


def _with_legacy_evidence(today: tuple[Verdict, ...], verdicts: tuple[Verdict, ...]) -> tuple[Verdict, ...]:
    """Returns today's verdicts as the journal may hold them: older journals lack the locations of numbers or of
    dates.
    """
    evidence = {verdict.check: verdict.evidence for verdict in verdicts if verdict.check == "numbers"}
    return tuple(
        replace(verdict, evidence=tuple(item for item in verdict.evidence if item in evidence[verdict.check]))
        if verdict.check in evidence
        else verdict
        for verdict in today
    )


def _match_checks_started(proposal: Proposal | None, event: ChecksStarted) -> str:
    if not isinstance(proposal, RunChecks) or (proposal.attempt, round_number(proposal.unit) + 1) != (
        event.attempt,
        event.round,
    ):
        return _describe_action(proposal)
    result = evaluate_checks(proposal)
    if not isinstance(result, session.ChecksPending):
        return "the checks would ask nothing"
    is_same = (result.check, result.questions, result.verdicts) == (event.check, event.questions, event.verdicts)
    return "" if is_same else "the checks would ask something else today"


def _match_field(proposal: Proposal | None, value: object, kind: type[Proposal], name: str) -> str:
    return "" if isinstance(proposal, kind) and getattr(proposal, name) == value else _describe_action(proposal)


def _describe_action(proposal: Proposal | None) -> str:
    if proposal is None:
        return "the engine would not do anything here"
    return f"the engine would {_ACTION_TEXT[type(proposal)]}"


_ACTION_TEXT: dict[type[Proposal], str] = {
    Invoke: "make a call",
    RunChecks: "run the checks",
    ScheduleRetry: "schedule another attempt",
    CountTokens: "count tokens",
    RecallPlan: "look for a plan that has served",
    AskPerson: "ask a person",
    ExpandMap: "begin elements",
    EnterBody: "begin a body",
    FinishNode: "finish the node otherwise",
    FinishRun: "end the run otherwise",
}

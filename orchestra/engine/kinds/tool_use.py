"""Agents with tools: a plan of one step at a time. The model writes a line, its call runs, and the model reads the
result.

Each turn is a body and is recorded, as the turns of plans: the question for the next line, the call of that line, or
finally the question for the answer, with the node's own checks. The results of calls are folded from the bodies that
ran.
"""

from __future__ import annotations

from typing import Any

from orchestra.agents import tool_prompt as kits
from orchestra.agents.contract import Catalog
from orchestra.core.events import PlanDraft
from orchestra.core.outcomes import AbstainedOutcome, FailedOutcome, Outcome, SkippedOutcome, ValueOutcome
from orchestra.core.protocols import collect_sources
from orchestra.engine.kinds.subworkflow import require_body_scope, scope_outcome
from orchestra.engine.proposals import EnterBody, FinishNode, Proposal
from orchestra.engine.state import ScopeBindings, WorkItem, internal_error
from orchestra.router import tool_turns
from orchestra.router.capabilities import Capabilities
from orchestra.router.plan_syntax import PlanStep, parse_steps
from orchestra.router.validation import Rejection
from orchestra.schema.types import Schema, subschema
from orchestra.workflows.compile.compiler import compile_graph
from orchestra.workflows.compile.tool_agents import needs_permission
from orchestra.workflows.model import DEFAULT_RETRY, Graph, PlanLimits
from orchestra.workflows.program import NodeToolUse, Program

LINE, ANSWER = "line", "answer"
"""The nodes of the bodies in which the model is asked. The node of a call has the name of its step."""
PERMANENT_ERRORS = ("T005", "T009", "T010", "T011", "T012", "T013")
"""Error codes of tools that no line can use: missing, changed, or not startable."""
INPUT_ERRORS = ("E004", "E009")
"""Error codes, beside those of tools, models and expressions, of calls that failed because of their inputs: another
line may succeed.
"""


def begin(unit: WorkItem) -> Proposal:
    """Asks the first question for a line."""
    _inputs(unit)  # An error in the inputs fails the node.
    return _ask_line(unit, (), (), 0)


def on_body_done(unit: WorkItem) -> Proposal:
    """Handles the end of a turn: the call of the written line, the next question, or the answer."""
    draft, outcome = unit.draft, scope_outcome(require_body_scope(unit))
    if draft is None:
        raise internal_error(f"{unit.path} has no turn")
    steps, rejections = parse_steps(draft.lines), tuple(Rejection(*rejection) for rejection in draft.rejections)
    match _turn_node(draft):
        case "line" if isinstance(outcome, ValueOutcome):
            return _on_line(unit, str(outcome.value), steps, rejections, draft.repaired_lines)
        case "line" | "answer":
            return FinishNode(unit, outcome)
        case _:
            return _on_call_done(unit, outcome, steps, rejections, draft.repaired_lines)


def collect_results(unit: WorkItem, draft: PlanDraft) -> tuple[Any, ...]:
    """Returns the results of a unit's calls when another turn begins: one more if the last turn was an accepted
    call.
    """
    before = unit.draft
    if (
        unit.node.tool_use is None
        or before is None
        or len(draft.lines) < len(before.lines)
        or _turn_node(before) in (LINE, ANSWER)
    ):
        return unit.tool_results
    outcome = scope_outcome(require_body_scope(unit))
    return (*unit.tool_results, outcome.value) if isinstance(outcome, ValueOutcome) else unit.tool_results


def program(unit: WorkItem, draft: PlanDraft) -> Program:
    """Returns the body of a turn."""
    tool_use, contract = _require_tool_use(unit), unit.node.contract
    agents = {callee.name: callee for callee in tool_use.reachable if callee.kind == "agent"}
    tools = {callee.name: callee for callee in tool_use.reachable if callee.kind == "tool"}
    for judge in unit.node.acceptance.judges.values() if unit.node.acceptance is not None else ():
        (agents if judge.kind == "agent" else tools).setdefault(judge.name, judge)
    if contract is not None and (turn_node := _turn_node(draft)) in (LINE, ANSWER):
        agents[contract.name] = (
            tool_use.settings.step_contract if turn_node == LINE else tool_use.settings.answer_contract
        )
    combination = unit.node.acceptance.combination if unit.node.acceptance is not None else None
    combinations = {combination.agent: combination} if combination is not None else {}
    catalog = Catalog(agents, tools, models=tool_use.models, combinations=combinations)
    return compile_graph(Graph.model_validate(draft.graph, strict=False), catalog)


def bindings(unit: WorkItem, body: Program) -> ScopeBindings:
    """Returns what the body of a turn can read: the node's inputs, the results of calls, and the evidence of the
    answer.
    """
    inputs = _inputs(unit)
    values: dict[str, Any] = {**inputs, **{f"s{number}": value for number, value in enumerate(unit.tool_results, 1)}}
    if kits.RESULTS in body.inputs:
        values[kits.RESULTS] = _result_texts(unit, inputs)
    acceptance = unit.node.acceptance
    if kits.AGAINST in body.inputs and acceptance is not None and acceptance.against is not None:
        values[kits.AGAINST] = acceptance.against.evaluate(unit.bindings)
    return ScopeBindings(input={name: values[name] for name in body.inputs})


def _on_line(
    unit: WorkItem, text: str, steps: tuple[PlanStep, ...], rejections: tuple[Rejection, ...], repair_count: int
) -> Proposal:
    """Handles a line: its call, the question for the answer, or another question."""
    offer = _capabilities(unit, steps, rejections)
    line = tool_turns.parse_next_line(text, offer, steps)
    if isinstance(line, tuple):
        return _retry_line(unit, steps, (*rejections, *line), repair_count)
    if line is None:
        return _enter_turn(unit, _answer_graph(unit, offer, steps), steps, rejections, repair_count)
    return _enter_turn(
        unit, tool_turns.step_workflow(line, offer, steps, unit.node.name), (*steps, line), rejections, repair_count
    )


def _on_call_done(
    unit: WorkItem, outcome: Outcome, steps: tuple[PlanStep, ...], rejections: tuple[Rejection, ...], repair_count: int
) -> Proposal:
    """Handles the result of a call. A call that failed because of its inputs is reported to the model as a rejected
    line.
    """
    step = steps[-1]
    if isinstance(outcome, ValueOutcome):
        return _ask_line(unit, steps, (), repair_count, (*unit.tool_results, outcome.value))
    skill = next((contract for contract in _require_tool_use(unit).reachable if contract.name == step.capability), None)
    code, reason, hint = (
        (outcome.code, outcome.reason, outcome.hint)
        if isinstance(outcome, FailedOutcome)
        else ("E010", _reason(outcome), "")
    )
    mendable = (
        not isinstance(outcome, FailedOutcome)
        or (code[0] in "TML" and code not in PERMANENT_ERRORS)
        or code in INPUT_ERRORS
    )
    if skill is None or needs_permission(skill) or not mendable:
        return FinishNode(unit, outcome)
    rejection = Rejection(code, f"/steps/{len(steps)}", f"{step} failed: {code}: {reason}", hint)
    return _retry_line(unit, steps[:-1], (*rejections, rejection), repair_count)


def _reason(outcome: AbstainedOutcome | SkippedOutcome) -> str:
    """Returns why a call failed, for the model."""
    return outcome.reason if isinstance(outcome, SkippedOutcome) else outcome.reason_for_models or "withheld"


def _retry_line(
    unit: WorkItem, steps: tuple[PlanStep, ...], rejections: tuple[Rejection, ...], repair_count: int
) -> Proposal:
    """Asks for a line again, as often as the card allows."""
    tool_use = _require_tool_use(unit).settings
    if repair_count < tool_use.repairs:
        return _ask_line(unit, steps, rejections, repair_count + 1)
    name = unit.node.contract.name if unit.node.contract is not None else unit.path
    text = "; ".join(map(str, steps)) or "no call"
    reason = f"{name} gave no answer after {text}: {rejections[-1]}"
    return FinishNode(unit, FailedOutcome("A022", reason, unit.path, "orchestra explain A022"))


def _ask_line(
    unit: WorkItem,
    steps: tuple[PlanStep, ...],
    rejections: tuple[Rejection, ...],
    repair_count: int,
    tool_results: tuple[Any, ...] | None = None,
) -> Proposal:
    """Asks for the next line."""
    values = unit.tool_results if tool_results is None else tool_results
    offer = _capabilities(unit, steps, rejections, values)
    prompt = tool_turns.build_prompt(offer, steps, values, rejections, _require_tool_use(unit).settings.shown)
    answer_fields = {**prompt, **tool_turns.build_grammar(offer, steps)}
    if kits.accepts_functions(_require_tool_use(unit).settings.step_contract.input):  # not in runs of older versions
        answer_fields |= tool_turns.encode_functions(offer, steps)
    return _enter_turn(
        unit,
        tool_turns.question_workflow(
            unit.node.name, LINE, _agent_name(unit), offer, answer_fields, _retry_settings(unit)
        ),
        steps,
        rejections,
        repair_count,
    )


def _answer_graph(unit: WorkItem, offer: Capabilities, steps: tuple[PlanStep, ...]) -> Graph:
    """Returns the question for the answer, with the checks of the node."""
    prompt = tool_turns.build_prompt(offer, steps, unit.tool_results, (), _require_tool_use(unit).settings.shown)
    node = _retry_settings(unit)
    values: dict[str, Schema] = {
        kits.RESULTS: _require_tool_use(unit).settings.answer_contract.input["properties"][kits.RESULTS]
    }
    if (acceptance := unit.node.acceptance) is not None and acceptance.checks:
        node |= {"checks": acceptance.checks, "accept": acceptance.accept, "otherwise": acceptance.otherwise}
        if acceptance.combination is not None:
            node["score"] = "combined"
        if acceptance.against is not None:
            values[kits.AGAINST] = acceptance.against.schema
            node["against"] = f"${{input.{kits.AGAINST}}}"
    return tool_turns.question_workflow(unit.node.name, ANSWER, _agent_name(unit), offer, prompt, node, **values)


def _enter_turn(
    unit: WorkItem, graph: Graph, steps: tuple[PlanStep, ...], line_rejections: tuple[Rejection, ...], repair_count: int
) -> Proposal:
    dumped_graph = graph.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    rejections = tuple(
        (rejection.code, rejection.path, rejection.reason, rejection.hint) for rejection in line_rejections
    )
    draft = PlanDraft(dumped_graph, tuple(map(str, steps)), rejections, repair_count)
    # Compile now: an error fails the node here. After it is recorded, it would break the run.
    program(unit, draft)
    return EnterBody(unit, unit.turn + 1, draft)


def _capabilities(
    unit: WorkItem,
    steps: tuple[PlanStep, ...],
    rejections: tuple[Rejection, ...],
    tool_results: tuple[Any, ...] | None = None,
) -> Capabilities:
    """Returns what the next line may call. Tools with effects only while the model has read nothing but the run's own
    inputs.
    """
    tool_use, contract = _require_tool_use(unit), unit.node.contract
    reads_only_inputs = (
        tool_use.reads_only_inputs
        and not unit.scope.path
        and not steps
        and all(rejection.code.startswith("R") for rejection in rejections)
    )
    skills = [
        capability for capability in tool_use.capabilities if reads_only_inputs or not needs_permission(capability)
    ]
    schema: Schema = contract.input if contract is not None else {}
    inputs = _inputs(unit)
    values = {
        name: subschema(schema, property_schema)
        for name, property_schema in schema.get("properties", {}).items()
        if name in inputs
    }
    limits = PlanLimits(steps=tool_use.settings.steps, width=tool_use.settings.width)
    return tool_turns.with_observed_types(
        Capabilities.of(skills, values, limits=limits),
        steps,
        unit.tool_results if tool_results is None else tool_results,
    )


def _result_texts(unit: WorkItem, values: dict[str, Any]) -> list[dict[str, str]]:
    """Returns the texts that the answer may quote and is judged against: those of the inputs, and of the results of
    calls.
    """
    evidence = unit.node.contract.evidence if unit.node.contract is not None else ""
    limit = _require_tool_use(unit).settings.shown
    sources = collect_sources(values.get(evidence) if evidence else list(values.values()), numbered=True)
    texts = [{"text": evidence_source.text, "source": evidence_source.name} for evidence_source in sources]
    for number, value in enumerate(unit.tool_results, 1):
        source_texts = [
            {"text": source.text, "source": source.name or f"s{number}"}
            for source in collect_sources(value, numbered=True)
        ]
        texts += source_texts or [{"text": tool_turns.format_value(value, limit), "source": f"s{number}"}]
    return texts


def _retry_settings(unit: WorkItem) -> dict[str, Any]:
    """Returns the retries of the node, which apply to each question to its model."""
    return {"retry": unit.node.retry.model_dump(mode="json")} if unit.node.retry is not DEFAULT_RETRY else {}


def _inputs(unit: WorkItem) -> dict[str, Any]:
    """Returns the inputs of the node, with defaults."""
    left_out = unit.node.contract.defaults if unit.node.contract is not None else {}
    return left_out | (dict(unit.node.inputs.evaluate(unit.bindings)) if unit.node.inputs is not None else {})


def _turn_node(draft: PlanDraft) -> str:
    """Returns the one node of a turn's body."""
    return str(next(iter(draft.graph["nodes"])))


def _agent_name(unit: WorkItem) -> str:
    return unit.node.contract.name if unit.node.contract is not None else ""


def _require_tool_use(unit: WorkItem) -> NodeToolUse:
    if unit.node.tool_use is None:
        raise internal_error(f"{unit.path} uses no tools")
    return unit.node.tool_use

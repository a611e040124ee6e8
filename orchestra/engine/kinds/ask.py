"""Questions to persons: `ask` nodes, and calls in doubt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestra.core.error_codes import INVALID_OVERRIDE, REPEAT_DECLINED
from orchestra.core.errors import OrchestraError
from orchestra.core.events import OverrideSource, QuestionAnswered, QuestionAsked
from orchestra.core.outcomes import AbstainedOutcome, FailedOutcome, ValueOutcome
from orchestra.core.paths import root_name
from orchestra.core.untrusted_text import pluralize
from orchestra.engine.kinds.acceptance import settle
from orchestra.engine.proposals import AskPerson, FinishNode, Proposal
from orchestra.engine.state import RunState, WorkItem, internal_error
from orchestra.schema.strict_json import canonical, digest
from orchestra.workflows.model import AskNode
from orchestra.workflows.program import CompiledNode

AGAIN, FAIL = "again", "fail"


def ask(state: RunState, unit: WorkItem) -> Proposal:
    """Asks the question of an `ask` node; or finishes it, if a person already answered the same question and no check
    judges the answer.
    """
    node = unit.node
    question = node.value.evaluate(unit.bindings) if node.value is not None else ""
    options = node.source.options if isinstance(node.source, AskNode) else ()
    ask_person = AskPerson(unit, str(question), node.output, options)
    checks = node.acceptance is not None and node.acceptance.checks
    if (
        state.overrides
        and not checks
        and (override := state.overrides.get(unit.path)) is not None
        and override.question_digest == question_fields(ask_person)["question_digest"]
    ):
        return FinishNode(unit, ValueOutcome(override.value), overridden_by=override.source)
    return ask_person


def override_outcome(state: RunState, unit: WorkItem) -> Proposal | None:
    """Finishes a unit whose value a person gave; None for any other unit."""
    override = state.overrides.get(unit.path) if state.overrides is not None else None
    if override is None or override.question_digest:
        return None
    if override.requires_all and (fault := incomplete_reason(unit.node, override.value, unit.bindings)):
        hint = f"give one for each: orchestra runs fork RUN --set {unit.path}=VALUE; or leave `at_least` out"
        return FinishNode(unit, FailedOutcome(INVALID_OVERRIDE, fault, unit.path, hint))
    return FinishNode(unit, ValueOutcome(override.value), overridden_by=override.source)


def incomplete_reason(node: CompiledNode, value: Any, bindings: Mapping[str, Any]) -> str:
    """Returns why a given list is incomplete, if all elements are needed: its length differs from that of the node's
    list; empty for any other value. A condition may leave elements out. The given list counts if the node's list has no
    value or exceeds `limit`, or if the node's own condition is false or has no value.
    """
    if node.at_least != "all" or node.each is None:
        return ""
    left_out = node.when is not None and node.variable in node.when.references
    references = node.each.references if node.when is None or left_out else node.each.references | node.when.references
    if any(name not in bindings for name in references):
        return ""
    try:
        element_count = len(node.each.evaluate(bindings))
        if element_count > node.limit or (node.when is not None and not left_out and not node.when.evaluate(bindings)):
            return ""
    except OrchestraError:
        return ""
    if len(value) == element_count or (left_out and len(value) < element_count):
        return ""
    return f"{pluralize(len(value), 'element')} given for the {element_count:,} that it goes over, and all are needed"


def _settle_given(unit: WorkItem, reply: QuestionAnswered) -> Proposal:
    """Finishes a call in doubt with the result that a person stated: its checks judge it as the tool's answer."""
    proposal = settle(unit, ValueOutcome(reply.value))
    return (
        FinishNode(unit, proposal.outcome, overridden_by=OverrideSource(reply.by))
        if isinstance(proposal, FinishNode)
        else proposal
    )


def ask_in_doubt(unit: WorkItem) -> Proposal:
    """Asks about a call that must happen once, whose start is recorded and whose end is not."""
    name = unit.node.contract.name if unit.node.contract is not None else unit.path
    question = (
        f"{name} was called by {unit.path} when the run was interrupted, and may have done its work. "
        "Call it again, or fail the node?"
    )
    return AskPerson(
        unit, question, {"enum": [AGAIN, FAIL]}, (AGAIN, FAIL), kind="effect", result_schema=unit.node.output or {}
    )


def question_fields(ask: AskPerson) -> dict[str, Any]:
    """Returns the recorded fields of a question, with the digest of what the person sees."""
    fields: list[Any] = [ask.question, ask.options, ask.schema]
    fields += [ask.withheld] if ask.withheld is not None else []
    fields += [ask.result_schema] if ask.result_schema is not None else []
    return {
        "question": ask.question,
        "schema": ask.schema,
        "question_digest": digest(canonical(fields)),
        "options": ask.options,
        "kind": ask.kind,
        "withheld": ask.withheld,
        "result_schema": ask.result_schema,
    }


def _declined_outcome(unit: WorkItem, question: QuestionAsked, reply: QuestionAnswered) -> AbstainedOutcome:
    """Returns the outcome of a declined question: withheld, as a value that its checks rejected."""
    reason = f"{reply.by or 'a person'} declined to answer: {reply.decline_reason}"
    ruling = unit.judgement if question.kind == "acceptance" else None
    if ruling is None:
        return AbstainedOutcome(reason, unit.path)
    text = None if ruling.feedback is None else "; ".join(filter(None, (ruling.feedback, reason)))
    return AbstainedOutcome(f"{ruling.reason}; {reason}", unit.path, ruling.score, text)


def on_answer(state: RunState, unit: WorkItem) -> Proposal | None:
    """Handles a person's answer."""
    question, reply = unit.question, unit.person_answer
    if question is None or reply is None:
        raise internal_error(f"{unit.path} was not asked")
    if reply.decline_reason and question.kind != "effect":
        return FinishNode(unit, _declined_outcome(unit, question, reply))
    if question.kind == "answer":
        return settle(unit, ValueOutcome(reply.value))
    if question.kind == "acceptance":
        return FinishNode(unit, ValueOutcome(reply.value))  # Unchanged: no check judges a person's answer.
    if reply.call_happened:
        return _settle_given(unit, reply)
    unit.person_answer = None
    if reply.value == AGAIN:
        unit.attempt -= 1
        state.enqueue(unit)
        return None
    hint = "see what it has done; to call it again: orchestra runs fork RUN --again"
    if root_name(unit.path) == unit.path:
        hint += f"; to say what it gave: orchestra runs fork RUN --set {unit.path}=VALUE"
    return FinishNode(
        unit,
        FailedOutcome(REPEAT_DECLINED, "interrupted while it ran; a person said not to call it again", unit.path, hint),
    )

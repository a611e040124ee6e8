"""Checks that call agents or tools: whom each calls, with which questions, and how it judges the replies. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from orchestra.agents.contract import Contract
from orchestra.core.events import CheckQuestion, Verdict
from orchestra.verification import custom_checks, entailment, partial_answers, rederivation
from orchestra.verification.acceptance import MODEL_CHECK_NAMES, VerificationRequest
from orchestra.verification.check_expression import AGREE, CheckCall
from orchestra.verification.custom_checks import TOOL
from orchestra.verification.entailment import ENTAILMENT, JudgeReply
from orchestra.verification.verdict import SAME_MODEL_REASON, unknown_by_model


class ModelCheck(Protocol):
    """A check that calls agents or tools."""

    def judge_name(self, check: CheckCall) -> str:
        """Returns the agent or `tool(NAME)` to call; empty if the check names none, or calls the producer."""

    def build_questions(self, check: CheckCall, request: VerificationRequest) -> tuple[CheckQuestion, ...] | Verdict:
        """Returns the questions, or a verdict if there is no question or no judge."""

    def judge_replies(self, check: CheckCall, request: VerificationRequest, replies: Sequence[JudgeReply]) -> Verdict:
        """Returns the verdict on the replies, which are in the order of the questions."""


class _ToolCheck:
    def judge_name(self, check: CheckCall) -> str:
        return custom_checks.tool_reference(check.argument) if check.argument else ""

    def build_questions(self, check: CheckCall, request: VerificationRequest) -> tuple[CheckQuestion, ...] | Verdict:
        judge = _find_judge(check, request)
        return (
            judge
            if isinstance(judge, Verdict)
            else custom_checks.build_questions(judge, request.value, _given_inputs(request), request.evidence)
        )

    def judge_replies(self, check: CheckCall, request: VerificationRequest, replies: Sequence[JudgeReply]) -> Verdict:
        return custom_checks.judge_replies(replies)


class _EntailmentCheck:
    def judge_name(self, check: CheckCall) -> str:
        return check.argument or ENTAILMENT

    def build_questions(self, check: CheckCall, request: VerificationRequest) -> tuple[CheckQuestion, ...] | Verdict:
        judge = _find_independent_judge(check, request)
        if isinstance(judge, Verdict):
            return judge
        given_claims = partial_answers.part_claims(request) if request.back_off else None
        return entailment.build_questions(
            request.value, request.schema, request.evidence, self.judge_name(check), given_claims
        )

    def judge_replies(self, check: CheckCall, request: VerificationRequest, replies: Sequence[JudgeReply]) -> Verdict:
        if request.back_off:
            return partial_answers.judge_replies(request, replies)
        return entailment.judge_replies(request.value, request.schema, request.evidence, replies)


class _RederiveCheck:
    def judge_name(self, check: CheckCall) -> str:
        return check.argument

    def build_questions(self, check: CheckCall, request: VerificationRequest) -> tuple[CheckQuestion, ...] | Verdict:
        judge = _find_independent_judge(check, request)
        return (
            judge
            if isinstance(judge, Verdict)
            else rederivation.rederivation_questions(judge, _given_inputs(request), request.evidence)
        )

    def judge_replies(self, check: CheckCall, request: VerificationRequest, replies: Sequence[JudgeReply]) -> Verdict:
        judge = request.judges.get(check.argument)
        return rederivation.judge_rederivation(
            request.value, request.schema, {} if judge is None else judge.output, replies
        )


class _AgreeCheck:
    def judge_name(self, check: CheckCall) -> str:
        return ""

    def build_questions(self, check: CheckCall, request: VerificationRequest) -> tuple[CheckQuestion, ...] | Verdict:
        producer, count = (
            request.producer,
            int(check.argument or rederivation.DEFAULT_SAMPLES) if (check.argument or "0").isdigit() else 0,
        )
        if producer is None or producer.kind != "agent":
            return unknown_by_model(AGREE, "no agent produced the value, so none can be asked again")
        if not producer.max_output:
            return unknown_by_model(AGREE, f"{producer.name} calls no model, and would give the same answer")
        if not 2 <= count <= rederivation.MAX_SAMPLES:
            return unknown_by_model(AGREE, f"it takes 2 to {rederivation.MAX_SAMPLES} samples, not {check.argument!r}")
        return rederivation.sample_questions(producer, request.inputs, count)

    def judge_replies(self, check: CheckCall, request: VerificationRequest, replies: Sequence[JudgeReply]) -> Verdict:
        return rederivation.judge_agreement(request.value, request.schema, replies)


MODEL_CHECKS: Mapping[str, ModelCheck] = dict(
    zip(MODEL_CHECK_NAMES, (_ToolCheck(), _EntailmentCheck(), _RederiveCheck(), _AgreeCheck()), strict=True)
)
"""By name, the cheapest first."""


def judge_name(check: CheckCall) -> str:
    """Returns the agent or `tool(NAME)` that a check calls; empty for one that calls the producer or nothing."""
    return MODEL_CHECKS[check.check].judge_name(check) if check.check in MODEL_CHECKS else ""


def is_same_agent(judge: Contract, producer: Contract) -> bool:
    """Whether two agents have the same card, or the same model, adapter and prompt. Ensembles: whether they share a
    member.
    """
    if judge.kind != producer.kind:
        return False
    if judge.model_identity and producer.model_identity:
        return not set(judge.model_identity.split("+")).isdisjoint(producer.model_identity.split("+"))
    return judge.name == producer.name


def _find_judge(check: CheckCall, request: VerificationRequest) -> Contract | Verdict:
    """Returns the judge of a check, or the verdict that there is none."""
    name = judge_name(check)
    if (judge := request.judges.get(name)) is not None:
        return judge
    whom = TOOL if check.check == TOOL else "agent"
    why = f"there is no {whom} {check.argument or name!r}" if name else f"it names no {whom}: {check.check}(NAME)"
    return unknown_by_model(check.check, why)


def _find_independent_judge(check: CheckCall, request: VerificationRequest) -> Contract | Verdict:
    """Returns the judge of a check, if it is not the producer of the value."""
    judge = _find_judge(check, request)
    if isinstance(judge, Contract) and request.producer is not None and is_same_agent(judge, request.producer):
        return unknown_by_model(
            check.check, f"{judge_name(check)} is the agent that produced the value: {SAME_MODEL_REASON}"
        )
    return judge


def _given_inputs(request: VerificationRequest) -> Mapping[str, Any]:
    """Returns the inputs of the value, for use by a judge."""
    return (
        request.inputs if request.producer is None else custom_checks.producer_inputs(request.producer, request.inputs)
    )

"""Checks that ask: for each of them whom it asks, what, and what it makes of the replies. Pure: who examines makes the calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from orchestra.agents.contract import Contract
from orchestra.core.events import Question, Verdict
from orchestra.verification import custom_checks, entailment, partial_answers, rederivation
from orchestra.verification.check_expression import AGREE, Named
from orchestra.verification.custom_checks import TOOL
from orchestra.verification.entailment import ENTAILMENT, Reply
from orchestra.verification.rederivation import REDERIVE
from orchestra.verification.verdict import SAME, unsettled

if TYPE_CHECKING:
    from orchestra.verification.acceptance import Situation


class Asking(Protocol):
    """A check that asks agents or tools."""

    def judge(self, check: Named) -> str:
        """The agent that it asks, or `tool(NAME)`; empty for one that names none, or asks the producer."""

    def questions(self, check: Named, situation: Situation) -> tuple[Question, ...] | Verdict:
        """What it asks; or its verdict, where there is nothing to ask or nobody to be asked."""

    def judged(self, check: Named, situation: Situation, replies: Sequence[Reply]) -> Verdict:
        """What it makes of the replies to its questions, in their order."""


class _Tool:
    def judge(self, check: Named) -> str:
        return custom_checks.called(check.argument) if check.argument else ""

    def questions(self, check: Named, situation: Situation) -> tuple[Question, ...] | Verdict:
        judge = _there(check, situation)
        return (
            judge if isinstance(judge, Verdict) else custom_checks.question(judge, situation.value, _inputs(situation), situation.evidence)
        )

    def judged(self, check: Named, situation: Situation, replies: Sequence[Reply]) -> Verdict:
        return custom_checks.said(replies)


class _Entailment:
    def judge(self, check: Named) -> str:
        return check.argument or ENTAILMENT

    def questions(self, check: Named, situation: Situation) -> tuple[Question, ...] | Verdict:
        judge = _other(check, situation)
        if isinstance(judge, Verdict):
            return judge
        said = partial_answers.claims(situation) if situation.back_off else None
        return entailment.questions(situation.value, situation.schema, situation.evidence, self.judge(check), said)

    def judged(self, check: Named, situation: Situation, replies: Sequence[Reply]) -> Verdict:
        if situation.back_off:
            return partial_answers.judged(situation, replies)
        return entailment.judged(situation.value, situation.schema, situation.evidence, replies)


class _Rederive:
    def judge(self, check: Named) -> str:
        return check.argument

    def questions(self, check: Named, situation: Situation) -> tuple[Question, ...] | Verdict:
        judge = _other(check, situation)
        return judge if isinstance(judge, Verdict) else rederivation.rederivation(judge, _inputs(situation), situation.evidence)

    def judged(self, check: Named, situation: Situation, replies: Sequence[Reply]) -> Verdict:
        judge = situation.judges.get(check.argument)
        return rederivation.rederived(situation.value, situation.schema, {} if judge is None else judge.output, replies)


class _Agree:
    def judge(self, check: Named) -> str:
        return ""

    def questions(self, check: Named, situation: Situation) -> tuple[Question, ...] | Verdict:
        producer, count = situation.producer, int(check.argument or rederivation.SAMPLES) if (check.argument or "0").isdigit() else 0
        if producer is None or producer.kind != "agent":
            return unsettled(AGREE, "no agent produced the value, and so none can be asked again")
        if not producer.max_output:
            return unsettled(AGREE, f"{producer.name} asks no model, and would say the same again")
        if not 2 <= count <= rederivation.MOST_SAMPLES:
            return unsettled(AGREE, f"it takes 2 to {rederivation.MOST_SAMPLES} samples, not {check.argument!r}")
        return rederivation.samples(producer, situation.inputs, count)

    def judged(self, check: Named, situation: Situation, replies: Sequence[Reply]) -> Verdict:
        return rederivation.agreed(situation.value, situation.schema, replies)


ASKING: Mapping[str, Asking] = {TOOL: _Tool(), ENTAILMENT: _Entailment(), REDERIVE: _Rederive(), AGREE: _Agree()}
"""By name, the cheapest first."""


def judge_of(check: Named) -> str:
    """The agent that a check asks, or `tool(NAME)`; empty for one that asks the producer, or nobody."""
    return ASKING[check.check].judge(check) if check.check in ASKING else ""


def alike(judge: Contract, producer: Contract) -> bool:
    """Whether two agents are one: the same card, or cards with the same model, adapter and prompt under two names; or have one in common,
    where they are ensembles."""
    if judge.kind != producer.kind:
        return False
    if judge.mind and producer.mind:
        return not set(judge.mind.split("+")).isdisjoint(producer.mind.split("+"))
    return judge.name == producer.name


def _there(check: Named, situation: Situation) -> Contract | Verdict:
    """Whom a check asks, or that there is none."""
    name = judge_of(check)
    if (judge := situation.judges.get(name)) is not None:
        return judge
    whom = TOOL if check.check == TOOL else "agent"
    why = f"there is no {whom} {check.argument or name!r}" if name else f"it names no {whom}: {check.check}(NAME)"
    return unsettled(check.check, why)


def _other(check: Named, situation: Situation) -> Contract | Verdict:
    """The same, of whoever has not produced the value."""
    judge = _there(check, situation)
    if isinstance(judge, Contract) and situation.producer is not None and alike(judge, situation.producer):
        return unsettled(check.check, f"{judge_of(check)} is the agent that produced the value: {SAME}")
    return judge


def _inputs(situation: Situation) -> Mapping[str, Any]:
    """What the value was made from, as others may be given it."""
    return situation.inputs if situation.producer is None else custom_checks.own_inputs(situation.producer, situation.inputs)

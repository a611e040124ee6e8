"""Checks that ask: for each of them whom it asks, what, and what it makes of the replies. Pure: who examines makes the calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from orchestra.agent.contract import Contract
from orchestra.events import Question, Verdict
from orchestra.verify import answers, back_off, entailment, tools
from orchestra.verify.answers import REDERIVE
from orchestra.verify.entailment import ENTAILMENT, Reply
from orchestra.verify.rule import AGREE, Named
from orchestra.verify.tools import TOOL
from orchestra.verify.verdict import SAME, unsettled

if TYPE_CHECKING:
    from orchestra.verify.acceptance import Situation


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
        return tools.called(check.argument) if check.argument else ""

    def questions(self, check: Named, situation: Situation) -> tuple[Question, ...] | Verdict:
        judge = _there(check, situation)
        return judge if isinstance(judge, Verdict) else tools.question(judge, situation.value, _inputs(situation), situation.evidence)

    def judged(self, check: Named, situation: Situation, replies: Sequence[Reply]) -> Verdict:
        return tools.said(replies)


class _Entailment:
    def judge(self, check: Named) -> str:
        return check.argument or ENTAILMENT

    def questions(self, check: Named, situation: Situation) -> tuple[Question, ...] | Verdict:
        judge = _other(check, situation)
        if isinstance(judge, Verdict):
            return judge
        said = back_off.claims(situation) if situation.back_off else None
        return entailment.questions(situation.value, situation.schema, situation.evidence, self.judge(check), said)

    def judged(self, check: Named, situation: Situation, replies: Sequence[Reply]) -> Verdict:
        if situation.back_off:
            return back_off.judged(situation, replies)
        return entailment.judged(situation.value, situation.schema, situation.evidence, replies)


class _Rederive:
    def judge(self, check: Named) -> str:
        return check.argument

    def questions(self, check: Named, situation: Situation) -> tuple[Question, ...] | Verdict:
        judge = _other(check, situation)
        return judge if isinstance(judge, Verdict) else answers.rederivation(judge, _inputs(situation), situation.evidence)

    def judged(self, check: Named, situation: Situation, replies: Sequence[Reply]) -> Verdict:
        judge = situation.judges.get(check.argument)
        return answers.rederived(situation.value, situation.schema, {} if judge is None else judge.output, replies)


class _Agree:
    def judge(self, check: Named) -> str:
        return ""

    def questions(self, check: Named, situation: Situation) -> tuple[Question, ...] | Verdict:
        producer, count = situation.producer, int(check.argument or answers.SAMPLES) if (check.argument or "0").isdigit() else 0
        if producer is None or producer.kind != "agent":
            return unsettled(AGREE, "no agent produced the value, and so none can be asked again")
        if not producer.max_output:
            return unsettled(AGREE, f"{producer.name} asks no model, and would say the same again")
        if not 2 <= count <= answers.MOST_SAMPLES:
            return unsettled(AGREE, f"it takes 2 to {answers.MOST_SAMPLES} samples, not {check.argument!r}")
        return answers.samples(producer, situation.inputs, count)

    def judged(self, check: Named, situation: Situation, replies: Sequence[Reply]) -> Verdict:
        return answers.agreed(situation.value, situation.schema, replies)


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
    return situation.inputs if situation.producer is None else tools.own_inputs(situation.producer, situation.inputs)

"""Partial answers: removes the parts of an answer that the evidence does not support. Pure.

A part is kept if each of its claims passes `entailment` with at least the probability `accept`. A part is dropped if a
chunk of evidence contradicts it, or if the judge gives no verdict. The verdict is about the remaining value, and
`Verdict.dropped` has the dropped parts. The remaining value must still be of its type: if a list becomes too short or a
required text is missing, the whole value is rejected.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from orchestra.core.events import DroppedPart, Verdict
from orchestra.core.outcomes import Evidence
from orchestra.schema.types import Validator
from orchestra.verification.acceptance import VerificationRequest
from orchestra.verification.answer_parts import AnswerPart, RemainingAnswer, remove_parts, split_answer
from orchestra.verification.entailment import ENTAILMENT, AnswerClaim, JudgeReply, claim_verdicts
from orchestra.verification.verdict import FAIL, PASS, UNKNOWN, unknown_by_model


def weakest_verdicts(found: Sequence[AnswerPart], verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Returns the verdict on each part: that of its weakest claim. `verdicts` are those of all claims, in the order of
    the parts.
    """
    line = iter(verdicts)
    return [min((next(line) for _ in part.claims), key=_strength) for part in found]


def _strength(verdict: Verdict) -> tuple[bool, float]:
    return verdict.outcome == PASS, verdict.score


def part_score(verdict: Verdict) -> float | None:
    """The score in [0, 1] that a threshold is compared with; None for a part that is kept at no threshold."""
    return verdict.score if verdict.outcome == PASS else None


def part_claims(request: VerificationRequest) -> list[AnswerClaim]:
    """Claims of all parts, in order."""
    return [claim for part in split_answer(request.value, request.schema) for claim in part.claims]


def judge_replies(request: VerificationRequest, replies: Sequence[JudgeReply]) -> Verdict:
    """Judges the replies about the claims of the parts. Returns the verdict on the remaining value."""
    found = split_answer(request.value, request.schema)
    claim_results = claim_verdicts([claim for part in found for claim in part.claims], request.evidence, replies)
    if not claim_results:
        return unknown_by_model(ENTAILMENT, "the replies do not match its questions")
    verdicts = weakest_verdicts(found, claim_results)
    if all(one.outcome == UNKNOWN for one in verdicts):
        return verdicts[0]
    kept, dropped = _split_by_threshold(found, verdicts, request.accept)
    if not kept:
        most = max(verdicts, key=_strength)
        reason = most.reason or f"a probability of {most.score:.2f} does not reach {request.accept:.6g}"
        return Verdict(
            ENTAILMENT,
            FAIL,
            0.0,
            f"none of {len(found)} parts is supported; the best one: {reason}",
            deterministic=False,
        )
    rest = remove_parts(request.value, dropped)
    if (fault := Validator(request.schema).check(rest.value)) is not None:
        reason = f"{len(dropped)} of {len(found)} parts are not supported, and the rest is not of its type: {fault}"
        return Verdict(ENTAILMENT, FAIL, 0.0, reason, deterministic=False)
    reason = f"{len(dropped)} of {len(found)} parts were dropped" if dropped else ""
    rests = tuple(_relocate(evidence, part, rest) for part, one in kept for evidence in one.evidence)
    least = min(one.score for _, one in kept)
    return Verdict(ENTAILMENT, PASS, least, reason, deterministic=False, evidence=rests, dropped=tuple(dropped))


def _split_by_threshold(
    found: Sequence[AnswerPart], verdicts: Sequence[Verdict], accept: float
) -> tuple[list[tuple[AnswerPart, Verdict]], list[DroppedPart]]:
    kept: list[tuple[AnswerPart, Verdict]] = []
    dropped: list[DroppedPart] = []
    for part, one in zip(found, verdicts, strict=True):
        if one.outcome == PASS and one.score >= accept:
            kept.append((part, one))
            continue
        low = f"its support is {one.score:.3f}, below {accept:.3f}"
        dropped.append(part.to_dropped(one.reason or low, None if one.outcome == UNKNOWN else one.score))
    return kept, dropped


def _relocate(evidence: Evidence, part: AnswerPart, rest: RemainingAnswer) -> Evidence:
    """Evidence of a kept part, under its path in the remaining value."""
    old = DroppedPart(part.steps, "", "").path
    new = DroppedPart(rest.new_path(part.steps), "", "").path
    return msgspec.structs.replace(evidence, field=new + evidence.field[len(old) :]) if old != new else evidence

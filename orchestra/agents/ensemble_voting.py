"""Pools the answers of an ensemble's members by a weighted mean of their probabilities.

Each member states the probability of its answer. The probability of an answer is the mean over all members, where a
member with another answer counts 0 (linear opinion pool, Stone 1961, https://doi.org/10.1214/aoms/1177704873). The
most probable answer wins. Weights correct members that are overconfident.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from orchestra.schema.strict_json import canonical


@dataclass(frozen=True, slots=True)
class EnsembleAnswer:
    """A member's answer and its probability; None if unknown."""

    value: Any
    confidence: float | None


AnswerKey: TypeAlias = Callable[[Any], Any]
"""Returns a key by which answers are compared."""


def identity(value: Any) -> Any:
    """Returns the answer itself."""
    return value


def pool_answers(
    answers: Sequence[EnsembleAnswer], weights: Sequence[float] = (), key: AnswerKey = identity
) -> EnsembleAnswer:
    """Returns the most probable of the members' answers, with its probability.

    Ties go to the first answer. Of equal answers, the one with the highest confidence is returned.

    Args:
        answers: The members' answers. An answer without a finite confidence does not count. If no answer has one, the
            first answer is returned without a confidence.
        weights: One weight a member. There may be more weights than answers: those of members that were not asked.
        key: Maps a value to a hashable key. Answers with equal keys are equal.
    """
    answers = [answer if _is_finite(answer.confidence) else replace(answer, confidence=None) for answer in answers]
    counts = weights[: len(answers)] or [1.0] * len(answers)
    said = [canonical(key(answer.value)) for answer in answers]
    shares: dict[bytes, float] = {}
    for one, answer, weight in zip(said, answers, counts, strict=True):
        shares[one] = shares.get(one, 0.0) + (answer.confidence or 0.0) * weight / sum(counts)
    if all(answer.confidence is None for answer in answers):
        return answers[0]
    best = max(said, key=lambda one: shares[one])  # `max` returns the first of equal answers
    surest = max(
        (answer for one, answer in zip(said, answers, strict=True) if one == best),
        key=lambda answer: answer.confidence or 0.0,
    )
    return EnsembleAnswer(surest.value, min(1.0, shares[best]))


def _is_finite(confidence: float | None) -> bool:
    return confidence is None or math.isfinite(confidence)

"""Pooling: what several agents answer between them.

Each says how probable its answer is. An answer has the mean of what they give it, nothing from those that gave another
one (the linear opinion pool, Stone 1961, https://doi.org/10.1214/aoms/1177704873), and the likeliest one is theirs. So
where two differ the surer one is believed, and where they agree they are as sure as they are between them. Weights make
the mean a weighted one: some are surer than they should be.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from orchestra.schema.strict_json import canonical


@dataclass(frozen=True, slots=True)
class EnsembleAnswer:
    """What a member says, and how probable that is to it; None where it cannot tell."""

    value: Any
    confidence: float | None


AnswerKey: TypeAlias = Callable[[Any], Any]
"""What an answer says, where one thing can be said in several ways."""


def identity(value: Any) -> Any:
    """The answer, where nothing can."""
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
    best = max(said, key=lambda one: shares[one])  # of those that are alike it finds the first
    surest = max(
        (answer for one, answer in zip(said, answers, strict=True) if one == best),
        key=lambda answer: answer.confidence or 0.0,
    )
    return EnsembleAnswer(surest.value, min(1.0, shares[best]))


def _is_finite(confidence: float | None) -> bool:
    return confidence is None or math.isfinite(confidence)

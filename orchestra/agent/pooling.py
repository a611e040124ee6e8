"""Pooling: what several agents answer between them.

Each says how probable its answer is. An answer has the mean of what they give it, nothing from those that gave another one (the linear
opinion pool, Stone 1961, https://doi.org/10.1214/aoms/1177704873), and the likeliest one is theirs. So where two differ the surer one is
believed, and where they agree they are as sure as they are between them. Weights make the mean a weighted one: some are surer than they
should be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from orchestra.values.json import canonical


@dataclass(frozen=True, slots=True)
class Answer:
    """What a member says, and how probable that is to it; None where it cannot tell."""

    value: Any
    confidence: float | None


def pooled(answers: Sequence[Answer], weights: Sequence[float] = ()) -> Answer:
    """The likeliest of the members' answers, with its probability; of answers that are as likely the first.

    `weights` say what each counts, and may be more than there are answers: those of members that were not asked. Of a member that cannot
    tell how sure it is the answer counts nothing. Where none can tell, the first one's answer, as unsure as it was.
    """
    counts = weights[: len(answers)] or [1.0] * len(answers)
    shares: dict[bytes, float] = {}
    for answer, weight in zip(answers, counts, strict=True):
        said = canonical(answer.value)
        shares[said] = shares.get(said, 0.0) + (answer.confidence or 0.0) * weight / sum(counts)
    if all(answer.confidence is None for answer in answers):
        return answers[0]
    best = max(answers, key=lambda answer: shares[canonical(answer.value)])  # of those that are alike it finds the first
    return Answer(best.value, min(1.0, shares[canonical(best.value)]))

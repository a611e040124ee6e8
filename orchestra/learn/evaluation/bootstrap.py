"""Confidence intervals of metrics, and tests of differences, by resampling cases.

Intervals: the percentile bootstrap (Efron and Tibshirani 1993, *An Introduction to the Bootstrap*, chapters 13 and 16).
Cases of one group, such as questions about one passage, are drawn together (Davison and Hinkley 1997, *Bootstrap
Methods and their Application*, section 3.8). Two arms with answers to the same cases are compared on the same draws,
which cancels the difficulty of the cases.

Differences: a permutation test exchanges the answers of the two arms at random (Noreen 1989, *Computer-Intensive
Methods for Testing Hypotheses*); it is valid for few cases. For proportions the p-value is exact, that of a sign test
(McNemar 1947).

Near 0 or 1 the bootstrap of a proportion is too narrow: if all cases are correct, all draws are. There the interval is
exact (Clopper and Pearson 1934); if all cases of each group agree, it is that of as many groups.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeVar

from orchestra.learn.evaluation.metrics import Case, Metric
from orchestra.verification.certificates.binomial import binomial_tail
from orchestra.verification.certificates.certify import confidence_interval

T = TypeVar("T")
RESAMPLES = 1000
MAX_PERMUTATIONS = 20_000
"""Maximal number of permutations, for significance levels below the resolution of `RESAMPLES`."""
CONFIDENCE_LEVEL = 0.95
"""Confidence level of the intervals."""


@dataclass(frozen=True, slots=True)
class IntervalEstimate:
    """A metric's value with its confidence interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if self.value != self.value:
            return "-"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """The improvement of one arm over another on the same cases: higher values, or lower ones for metrics that are
    better if lower.
    """

    value: float
    low: float
    high: float
    p_value: float
    """Probability of a difference as large if the arms are equally good: near 0 for a significant improvement."""

    def __str__(self) -> str:
        return f"{self.value:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


def estimate_interval(
    metric: Metric, cases: Sequence[Case], *, seed: int = 0, resamples: int = RESAMPLES
) -> IntervalEstimate:
    """Returns a metric over cases with its interval; deterministic for a seed."""
    groups = _group_values([(case.group, part) for case in cases if (part := metric.case_score(case)) is not None])
    if not groups:
        return IntervalEstimate(*(float("nan"),) * 3)
    chance, parts = random.Random(seed), list(chain(*groups))  # noqa: S311 - draws, not secrets
    samples = sorted(value for _ in range(resamples) if (value := metric.aggregate(_resample(groups, chance))) == value)
    low, high = _percentile_interval(samples)
    value = metric.aggregate(parts)
    if metric.is_proportion and (low <= 0 or high >= 1):
        if len(groups) == len(parts) and all(map(_is_binary, parts)):
            low, high = confidence_interval(round(len(parts) * value), len(parts), CONFIDENCE_LEVEL)
        elif low == high:
            width = confidence_interval(0, sum(any(part[1] for part in group) for group in groups), CONFIDENCE_LEVEL)[
                1
            ]  # cases with a defined score
            low, high = max(0.0, low - width), min(1.0, high + width)
    return IntervalEstimate(value, low, high)


def paired_difference(
    metric: Metric,
    old: Sequence[Case],
    new: Sequence[Case],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = 1 - CONFIDENCE_LEVEL,
) -> PairedDifference:
    """Returns the improvement of `new` over `old`, which answer the same cases in the same order. The number of
    permutations, up to `MAX_PERMUTATIONS`, suffices to compare the p-value with `level`.
    """
    groups = _group_values(
        [
            (old_case.group, (before, after))
            for old_case, new_case in zip(old, new, strict=True)
            if (before := metric.case_score(old_case)) is not None
            and (after := metric.case_score(new_case)) is not None
        ]
    )
    if not groups:
        return PairedDifference(*(float("nan"),) * 3, p_value=1.0)
    sign, all_pairs = -1.0 if metric.lower_is_better else 1.0, list(chain(*groups))

    def improvement(pairs: Sequence[tuple[Any, Any]]) -> float:
        return sign * (
            metric.aggregate([after for _, after in pairs]) - metric.aggregate([before for before, _ in pairs])
        )

    chance, observed_gain = random.Random(seed), improvement(all_pairs)  # noqa: S311 - draws, not secrets
    samples = sorted(value for _ in range(resamples) if (value := improvement(_resample(groups, chance))) == value)
    low, high = _percentile_interval(samples)
    if metric.is_proportion and low == high:  # all cases have the same score
        width = confidence_interval(0, len(groups), CONFIDENCE_LEVEL)[1] * (1 if -1 < observed_gain < 1 else 2)
        low, high = max(-1.0, low - width), min(1.0, high + width)
    if metric.is_proportion and len(groups) == len(all_pairs) and all(map(_is_binary, chain(*all_pairs))):
        improvements = [change for before, after in all_pairs if (change := sign * (after[0] - before[0]))]
        return PairedDifference(
            observed_gain, low, high, binomial_tail(sum(change < 0 for change in improvements), len(improvements), 0.5)
        )
    exchanges = min(MAX_PERMUTATIONS, max(resamples, round(20 / level)))
    # `not <` instead of `>=`: a NaN, such as the AUROC of one label, is no evidence of an improvement
    alike = sum(not improvement(_permute(groups, chance)) < observed_gain for _ in range(exchanges))
    return PairedDifference(observed_gain, low, high, (alike + 1) / (exchanges + 1))


def _group_values(parts: Sequence[tuple[str, T]]) -> list[list[T]]:
    """Returns case scores by group; a case without a group is its own group."""
    values_by_group: dict[str | int, list[T]] = {}
    for at, (name, part) in enumerate(parts):
        values_by_group.setdefault(name or at, []).append(part)
    return list(values_by_group.values())


def _permute(groups: Sequence[list[tuple[Any, Any]]], chance: random.Random) -> list[tuple[Any, Any]]:
    """Returns the scores of two arms with the answers to each group exchanged at random."""
    return [
        pair if is_kept else pair[::-1] for group in groups for is_kept in [chance.random() < 0.5] for pair in group
    ]


def _resample(groups: Sequence[list[T]], chance: random.Random) -> list[T]:
    return list(chain(*chance.choices(groups, k=len(groups))))


def _is_binary(part: Any) -> bool:
    """Returns whether a case score of a proportion is either 0 of 1 or 1 of 1."""
    return part[1] == 1 and part[0] in (0, 1)


def _percentile_interval(samples: Sequence[float]) -> tuple[float, float]:
    if not samples:
        return float("nan"), float("nan")
    tail = (1 - CONFIDENCE_LEVEL) / 2
    return samples[int(tail * len(samples))], samples[min(len(samples) - 1, int((1 - tail) * len(samples)))]

"""Intervals: how sure a figure is, found by drawing the same number of cases anew, with replacement, many times.

The percentile bootstrap (Efron and Tibshirani 1993, *An Introduction to the Bootstrap*, chapters 13 and 16). Cases of one group, such as
questions about one passage, are drawn together (Davison and Hinkley 1997, *Bootstrap Methods and their Application*, section 3.8). Two arms
that answered the same cases are compared on the same draws, so that what makes a case hard for both does not count. Whether one is surely
better is told by exchanging their answers at random (Noreen 1989, *Computer-Intensive Methods for Testing Hypotheses*), which few cases do
not deceive; of shares the chance is exact, for it is that of a sign test (McNemar 1947).

Draws of a share that is near 0 or 1 tell too little: were all cases right, all draws are. There the interval is the exact one (Clopper and
Pearson 1934); where all the cases of all groups agree, that of so many groups.
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
"""Exchanges of two arms at most, where so small a chance is asked for that `RESAMPLES` cannot tell it."""
CONFIDENCE_LEVEL = 0.95
"""The share of draws that an interval holds."""


@dataclass(frozen=True, slots=True)
class IntervalEstimate:
    """A figure with the interval that it may as well have been in."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if self.value != self.value:
            return "-"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """How much better one arm is than another on the same cases: what is more of a metric, or less where less is better."""

    value: float
    low: float
    high: float
    p_value: float
    """Of a difference as large where the two are in truth alike: near 0 where it surely is better."""

    def __str__(self) -> str:
        return f"{self.value:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


def estimate_interval(metric: Metric, cases: Sequence[Case], *, seed: int = 0, resamples: int = RESAMPLES) -> IntervalEstimate:
    """A metric over cases, with its interval; the same for the same seed."""
    groups = _group_values([(case.group, part) for case in cases if (part := metric.case_score(case)) is not None])
    if not groups:
        return IntervalEstimate(*(float("nan"),) * 3)
    chance, parts = random.Random(seed), list(chain(*groups))  # noqa: S311 - draws, not secrets
    drawn = sorted(value for _ in range(resamples) if (value := metric.aggregate(_resample(groups, chance))) == value)
    low, high = _percentile_interval(drawn)
    value = metric.aggregate(parts)
    if metric.is_proportion and (low <= 0 or high >= 1):
        if len(groups) == len(parts) and all(map(_is_binary, parts)):
            low, high = confidence_interval(round(len(parts) * value), len(parts), CONFIDENCE_LEVEL)
        elif low == high:
            width = confidence_interval(0, sum(any(part[1] for part in group) for group in groups), CONFIDENCE_LEVEL)[
                1
            ]  # those that say anything
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
    """How much better `new` is than `old`; the two are answers to the same cases, in one order. There are as many exchanges as tell whether
    the chance is under `level`, up to `MAX_PERMUTATIONS`."""
    groups = _group_values(
        [
            (one.group, (before, after))
            for one, other in zip(old, new, strict=True)
            if (before := metric.case_score(one)) is not None and (after := metric.case_score(other)) is not None
        ]
    )
    if not groups:
        return PairedDifference(*(float("nan"),) * 3, p_value=1.0)
    sign, all_pairs = -1.0 if metric.lower_is_better else 1.0, list(chain(*groups))

    def better(pairs: Sequence[tuple[Any, Any]]) -> float:
        return sign * (metric.aggregate([after for _, after in pairs]) - metric.aggregate([before for before, _ in pairs]))

    chance, found = random.Random(seed), better(all_pairs)  # noqa: S311 - draws, not secrets
    drawn = sorted(value for _ in range(resamples) if (value := better(_resample(groups, chance))) == value)
    low, high = _percentile_interval(drawn)
    if metric.is_proportion and low == high:  # of all cases alike
        width = confidence_interval(0, len(groups), CONFIDENCE_LEVEL)[1] * (1 if -1 < found < 1 else 2)
        low, high = max(-1.0, low - width), min(1.0, high + width)
    if metric.is_proportion and len(groups) == len(all_pairs) and all(map(_is_binary, chain(*all_pairs))):
        gained = [change for before, after in all_pairs if (change := sign * (after[0] - before[0]))]
        return PairedDifference(found, low, high, binomial_tail(sum(change < 0 for change in gained), len(gained), 0.5))
    exchanges = min(MAX_PERMUTATIONS, max(resamples, round(20 / level)))
    # `not <` and not `>=`: a figure that is NaN, as an AUROC of one label, says nothing, and makes nothing better
    alike = sum(not better(_permute(groups, chance)) < found for _ in range(exchanges))
    return PairedDifference(found, low, high, (alike + 1) / (exchanges + 1))


def _group_values(parts: Sequence[tuple[str, T]]) -> list[list[T]]:
    """Parts by their groups; one without is a group by itself."""
    found: dict[str | int, list[T]] = {}
    for at, (name, part) in enumerate(parts):
        found.setdefault(name or at, []).append(part)
    return list(found.values())


def _permute(groups: Sequence[list[tuple[Any, Any]]], chance: random.Random) -> list[tuple[Any, Any]]:
    """The answers of two arms to the same cases, those to each group exchanged or not."""
    return [pair if kept else pair[::-1] for group in groups for kept in [chance.random() < 0.5] for pair in group]


def _resample(groups: Sequence[list[T]], chance: random.Random) -> list[T]:
    return list(chain(*chance.choices(groups, k=len(groups))))


def _is_binary(part: Any) -> bool:
    """Whether a part of a share is right or wrong as a whole, and counts as one."""
    return part[1] == 1 and part[0] in (0, 1)


def _percentile_interval(drawn: Sequence[float]) -> tuple[float, float]:
    if not drawn:
        return float("nan"), float("nan")
    cut = (1 - CONFIDENCE_LEVEL) / 2
    return drawn[int(cut * len(drawn))], drawn[min(len(drawn) - 1, int((1 - cut) * len(drawn)))]

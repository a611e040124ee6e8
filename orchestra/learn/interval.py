"""Intervals: how sure a figure is, found by drawing the same number of cases anew, with replacement, many times.

The percentile bootstrap (Efron and Tibshirani 1993, *An Introduction to the Bootstrap*, chapters 13 and 16). Two arms that answered the
same cases are compared on the same draws, so that what makes a case hard for both does not count. Whether one is surely better is told
by exchanging their answers at random (Noreen 1989, *Computer-Intensive Methods for Testing Hypotheses*), which few cases do not deceive.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from orchestra.learn.metrics import Case, Metric

DRAWS = 1000
LEVEL = 0.95
"""The share of draws that an interval holds."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure with the interval that it may as well have been in."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if self.value != self.value:
            return "-"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True, slots=True)
class Difference:
    """How much better one arm is than another on the same cases: what is more of a metric, or less where less is better."""

    value: float
    low: float
    high: float
    chance: float
    """Of a difference as large where the two are in truth alike: near 0 where it surely is better."""

    def __str__(self) -> str:
        return f"{self.value:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


def figure(metric: Metric, cases: Sequence[Case], *, seed: int = 0, draws: int = DRAWS) -> Figure:
    """A metric over cases, with its interval; the same for the same seed."""
    parts = [part for case in cases if (part := metric.part(case)) is not None]
    if not parts:
        return Figure(*(float("nan"),) * 3)
    chance = random.Random(seed)  # noqa: S311 - draws, not secrets
    drawn = sorted(value for _ in range(draws) if (value := metric.figure(chance.choices(parts, k=len(parts)))) == value)
    low, high = _bounds(drawn)
    return Figure(metric.figure(parts), low, high)


def difference(metric: Metric, old: Sequence[Case], new: Sequence[Case], *, seed: int = 0, draws: int = DRAWS) -> Difference:
    """How much better `new` is than `old`; the two are answers to the same cases, in one order."""
    pairs = [
        (before, after)
        for one, other in zip(old, new, strict=True)
        if (before := metric.part(one)) is not None and (after := metric.part(other)) is not None
    ]
    if not pairs:
        return Difference(*(float("nan"),) * 3, chance=1.0)
    sign = -1.0 if metric.less else 1.0

    def better(pairs: Sequence[tuple[Any, Any]]) -> float:
        return sign * (metric.figure([after for _, after in pairs]) - metric.figure([before for before, _ in pairs]))

    chance, found = random.Random(seed), better(pairs)  # noqa: S311 - draws, not secrets
    drawn = sorted(value for _ in range(draws) if (value := better(chance.choices(pairs, k=len(pairs)))) == value)
    # `not <` and not `>=`: a figure that is NaN, as an AUROC of one label, says nothing, and makes nothing better
    alike = sum(not better([pair if chance.random() < 0.5 else pair[::-1] for pair in pairs]) < found for _ in range(draws))
    return Difference(found, *_bounds(drawn), chance=(alike + 1) / (draws + 1))


def _bounds(drawn: Sequence[float]) -> tuple[float, float]:
    if not drawn:
        return float("nan"), float("nan")
    cut = (1 - LEVEL) / 2
    return drawn[int(cut * len(drawn))], drawn[min(len(drawn) - 1, int((1 - cut) * len(drawn)))]

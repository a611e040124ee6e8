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
from orchestra.verification.certificates.certify import interval

T = TypeVar("T")
DRAWS = 1000
MOST = 20_000
"""Exchanges of two arms at most, where so small a chance is asked for that `DRAWS` cannot tell it."""
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
    groups = _grouped([(case.group, part) for case in cases if (part := metric.part(case)) is not None])
    if not groups:
        return Figure(*(float("nan"),) * 3)
    chance, parts = random.Random(seed), list(chain(*groups))  # noqa: S311 - draws, not secrets
    drawn = sorted(value for _ in range(draws) if (value := metric.figure(_drawn(groups, chance))) == value)
    low, high = _bounds(drawn)
    value = metric.figure(parts)
    if metric.share and (low <= 0 or high >= 1):
        if len(groups) == len(parts) and all(map(_either, parts)):
            low, high = interval(round(len(parts) * value), len(parts), LEVEL)
        elif low == high:
            width = interval(0, sum(any(part[1] for part in group) for group in groups), LEVEL)[1]  # those that say anything
            low, high = max(0.0, low - width), min(1.0, high + width)
    return Figure(value, low, high)


def difference(
    metric: Metric, old: Sequence[Case], new: Sequence[Case], *, seed: int = 0, draws: int = DRAWS, level: float = 1 - LEVEL
) -> Difference:
    """How much better `new` is than `old`; the two are answers to the same cases, in one order. There are as many exchanges as tell whether
    the chance is under `level`, up to `MOST`."""
    groups = _grouped(
        [
            (one.group, (before, after))
            for one, other in zip(old, new, strict=True)
            if (before := metric.part(one)) is not None and (after := metric.part(other)) is not None
        ]
    )
    if not groups:
        return Difference(*(float("nan"),) * 3, chance=1.0)
    sign, all_pairs = -1.0 if metric.less else 1.0, list(chain(*groups))

    def better(pairs: Sequence[tuple[Any, Any]]) -> float:
        return sign * (metric.figure([after for _, after in pairs]) - metric.figure([before for before, _ in pairs]))

    chance, found = random.Random(seed), better(all_pairs)  # noqa: S311 - draws, not secrets
    drawn = sorted(value for _ in range(draws) if (value := better(_drawn(groups, chance))) == value)
    low, high = _bounds(drawn)
    if metric.share and low == high:  # of all cases alike
        width = interval(0, len(groups), LEVEL)[1] * (1 if -1 < found < 1 else 2)
        low, high = max(-1.0, low - width), min(1.0, high + width)
    if metric.share and len(groups) == len(all_pairs) and all(map(_either, chain(*all_pairs))):
        gained = [change for before, after in all_pairs if (change := sign * (after[0] - before[0]))]
        return Difference(found, low, high, binomial_tail(sum(change < 0 for change in gained), len(gained), 0.5))
    exchanges = min(MOST, max(draws, round(20 / level)))
    # `not <` and not `>=`: a figure that is NaN, as an AUROC of one label, says nothing, and makes nothing better
    alike = sum(not better(_exchanged(groups, chance)) < found for _ in range(exchanges))
    return Difference(found, low, high, (alike + 1) / (exchanges + 1))


def _grouped(parts: Sequence[tuple[str, T]]) -> list[list[T]]:
    """Parts by their groups; one without is a group by itself."""
    found: dict[str | int, list[T]] = {}
    for at, (name, part) in enumerate(parts):
        found.setdefault(name or at, []).append(part)
    return list(found.values())


def _exchanged(groups: Sequence[list[tuple[Any, Any]]], chance: random.Random) -> list[tuple[Any, Any]]:
    """The answers of two arms to the same cases, those to each group exchanged or not."""
    return [pair if kept else pair[::-1] for group in groups for kept in [chance.random() < 0.5] for pair in group]


def _drawn(groups: Sequence[list[T]], chance: random.Random) -> list[T]:
    return list(chain(*chance.choices(groups, k=len(groups))))


def _either(part: Any) -> bool:
    """Whether a part of a share is right or wrong as a whole, and counts as one."""
    return part[1] == 1 and part[0] in (0, 1)


def _bounds(drawn: Sequence[float]) -> tuple[float, float]:
    if not drawn:
        return float("nan"), float("nan")
    cut = (1 - LEVEL) / 2
    return drawn[int(cut * len(drawn))], drawn[min(len(drawn) - 1, int((1 - cut) * len(drawn)))]

"""Cascades: what a score is worth that says which calls need the larger model, and the threshold for a share of them.

A call's *gain* is 1 where the larger model alone is right, -1 where the smaller alone is, else 0. The calls with the highest scores go to
the larger model; the share of the gap between the two models that is closed so, by the share of calls, is the curve. Its area, APGR, is 0.5
for chance; CPT(x) is the least share of calls that closes x of the gap (Ong et al. 2024, *RouteLLM*, https://arxiv.org/abs/2406.18665,
section 3).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TypeAlias

ScoredCall: TypeAlias = tuple[float, float]
"""A call's score and its gain."""


def recovery_curve(calls: Sequence[ScoredCall]) -> list[tuple[float, float]]:
    """(share of calls that go to the larger model, share of the gap that is closed), from (0, 0) on; equal scores go together.

    Empty where the gap is zero: then there is nothing to close.
    """
    total = sum(gain for _, gain in calls)
    if not total:
        return []
    ordered = sorted(calls, key=lambda call: -call[0])
    points, gained = [(0.0, 0.0)], 0.0
    for at, (score, gain) in enumerate(ordered, start=1):
        gained += gain
        if at == len(ordered) or ordered[at][0] != score:
            points.append((at / len(ordered), gained / total))
    return points


def apgr(calls: Sequence[ScoredCall]) -> float:
    """The average performance gap recovered: the area under the curve, by trapezoids. NaN where there is no gap."""
    points = recovery_curve(calls)
    return sum((right[0] - left[0]) * (left[1] + right[1]) / 2 for left, right in pairwise(points)) if points else math.nan


def cpt(calls: Sequence[ScoredCall], closed: float) -> float:
    """The call-performance threshold: the least share of calls that closes so much of the gap, on the lines between the points."""
    for left, right in pairwise(recovery_curve(calls)):
        if right[1] >= closed:
            rise = right[1] - left[1]
            return left[0] + (right[0] - left[0]) * (closed - left[1]) / rise if rise > 0 else right[0]
    return 1.0


def threshold_for_share(scores: Sequence[float], share: float) -> float:
    """The score above which at most this share of the scores lies: what is above it goes to the larger model."""
    ordered = sorted(scores, reverse=True)
    return ordered[min(len(ordered) - 1, int(share * len(ordered) + 1e-9))]

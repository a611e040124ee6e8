"""Evaluation of cascades: the value of a score that selects calls for the larger model, and the threshold for a share
of calls.

The *gain* of a call is 1 if only the larger model is correct, -1 if only the smaller one is, else 0. The calls with the
highest scores go to the larger model. The curve is the recovered share of the performance gap between the two models as
a function of the share of these calls. Its area, APGR, is 0.5 for random scores; CPT(x) is the least share of calls
that recovers x of the gap (Ong et al. 2024, *RouteLLM*, https://arxiv.org/abs/2406.18665, section 3).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TypeAlias

ScoredCall: TypeAlias = tuple[float, float]
"""The score and the gain of a call."""


def recovery_curve(calls: Sequence[ScoredCall]) -> list[tuple[float, float]]:
    """Returns the curve from (0, 0) on: (share of calls to the larger model, recovered share of the gap). Calls with
    equal scores form one step. Empty if the gap is zero.
    """
    total = sum(gain for _, gain in calls)
    if not total:
        return []
    sorted_calls = sorted(calls, key=lambda call: -call[0])
    points, gain_total = [(0.0, 0.0)], 0.0
    for at, (score, gain) in enumerate(sorted_calls, start=1):
        gain_total += gain
        if at == len(sorted_calls) or sorted_calls[at][0] != score:
            points.append((at / len(sorted_calls), gain_total / total))
    return points


def apgr(calls: Sequence[ScoredCall]) -> float:
    """Returns the average performance gap recovered: the area under the curve, by trapezoids. NaN for a zero gap."""
    points = recovery_curve(calls)
    return (
        sum((right[0] - left[0]) * (left[1] + right[1]) / 2 for left, right in pairwise(points)) if points else math.nan
    )


def cpt(calls: Sequence[ScoredCall], closed: float) -> float:
    """Returns the call-performance threshold: the least share of calls that recovers the share `closed` of the gap, by
    linear interpolation.
    """
    for left, right in pairwise(recovery_curve(calls)):
        if right[1] >= closed:
            rise = right[1] - left[1]
            return left[0] + (right[0] - left[0]) * (closed - left[1]) / rise if rise > 0 else right[0]
    return 1.0


def threshold_for_share(scores: Sequence[float], share: float) -> float:
    """Returns the threshold for which at most this share of the scores is higher."""
    sorted_scores = sorted(scores, reverse=True)
    return sorted_scores[min(len(sorted_scores) - 1, int(share * len(sorted_scores) + 1e-9))]

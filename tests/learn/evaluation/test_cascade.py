"""Cascades: the curve of a score, its area, and the threshold for a share of the calls."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.learn.evaluation.cascade import apgr, cpt, recovery_curve, threshold_for_share
from orchestra.learn.evaluation.metrics import Case, MetricConfig, build_metric

CALLS = [(0.0, 0.0), (1.0, 1.0), (2.0, 1.0), (-1.0, 0.0)]
"""Four calls; the larger model has a gain for the two with the highest scores."""
scored = st.lists(st.tuples(st.floats(-5, 5), st.sampled_from([-1.0, 0.0, 1.0])), min_size=1, max_size=30)


def test_apgr_best_order_closes_gap_first() -> None:
    assert recovery_curve(CALLS) == [(0.0, 0.0), (0.25, 0.5), (0.5, 1.0), (0.75, 1.0), (1.0, 1.0)]
    assert apgr(CALLS) == pytest.approx(0.25 * (0.25 + 0.75 + 1 + 1))
    assert cpt(CALLS, 0.5) == pytest.approx(0.25)
    assert cpt(CALLS, 0.75) == pytest.approx(0.375)


def test_apgr_constant_score_is_chance() -> None:
    same = [(0.0, gain) for _, gain in CALLS]
    assert apgr(same) == pytest.approx(0.5)
    assert cpt(same, 0.95) == pytest.approx(0.95)


def test_apgr_zero_gap_is_nan() -> None:
    assert math.isnan(apgr([(1.0, 1.0), (2.0, -1.0)]))
    assert recovery_curve([]) == []


@given(scored)
def test_apgr_row_order_does_not_matter(calls: list[tuple[float, float]]) -> None:
    shuffled = random.Random(0).sample(calls, len(calls))
    assert recovery_curve(shuffled) == recovery_curve(calls)


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=40), st.floats(0, 1))
def test_threshold_for_share_bounds_share(scores: list[float], share: float) -> None:
    assert sum(score > threshold_for_share(scores, share) for score in scores) <= share * len(scores) + 1e-6


def test_apgr_metric_in_evaluation() -> None:
    cases = [Case({"need": gain}, {"need": score}) for score, gain in CALLS]
    of = build_metric("APGR", MetricConfig(of="apgr", field="need"))
    assert of.compute(cases) == pytest.approx(apgr(CALLS))
    assert of.compute([Case(case.expected, None) for case in cases]) == pytest.approx(0.5)


def test_apgr_metric_gain_from_two_outcomes() -> None:
    of = build_metric("APGR", MetricConfig(of="apgr", field="need", expected="strong-weak"))
    outcomes = {1.0: (True, False), -1.0: (False, True), 0.0: (True, True)}
    cases = [Case({"strong": outcomes[gain][0], "weak": outcomes[gain][1]}, {"need": score}) for score, gain in CALLS]
    assert of.compute(cases) == pytest.approx(apgr(CALLS))

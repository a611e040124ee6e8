"""Risk-coverage figures: computed by hand, and compared with the reference definition."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.risk import Curve, Drawn, Weights, picture, spread

ROWS = st.lists(st.tuples(st.booleans(), st.sampled_from([0.1, 0.5, 0.9, None])), min_size=1, max_size=30)


def test_curve_area_by_hand() -> None:
    curve = Curve.of([True, True, False, True], [0.9, 0.9, 0.5, 0.1])
    assert curve.area() == pytest.approx(0 * 2 / 4 + 1 / 3 * 1 / 4 + 1 / 4 * 1 / 4)


def test_curve_errors_average_over_ties() -> None:
    curve = Curve.of([True, False, False, True], [0.9, 0.5, 0.5, 0.5])
    assert [curve.errors(share) for share in (0.25, 0.5, 1.0)] == [0.0, pytest.approx(2 / 3 / 4), 0.5]


def test_curve_refused_answers_bound_coverage() -> None:
    curve = Curve.of([False, True], [None, 0.0])
    assert (curve.errors(0.5), curve.most) == (0.0, 0.5)


@given(ROWS, st.floats(0, 1))
def test_curve_errors_grow_with_coverage(rows: list[tuple[bool, float | None]], share: float) -> None:
    right, scores = [good for good, _ in rows], [score for _, score in rows]
    curve = Curve.of(right, scores)
    assert 0 <= curve.errors(share) <= curve.errors(1.0) == pytest.approx(right.count(False) / len(right))
    assert curve.errors(share) <= share + 1e-9


@given(ROWS, st.floats(0, 1))
def test_drawn_once_equals_curve(rows: list[tuple[bool, float | None]], share: float) -> None:
    right, scores = [good for good, _ in rows], [score for _, score in rows]
    once, curve = Drawn(right, scores), Curve.of(right, scores)
    assert once.errors(share, np.ones(len(rows))) == pytest.approx(curve.errors(share))
    assert once.area(np.ones(len(rows))) == pytest.approx(curve.area())


def test_spread_contains_figure_deterministic() -> None:
    right = np.array([True] * 30 + [False] * 10)

    def share(weights: Weights) -> float:
        return float((weights * right).sum() / weights.sum())

    alone = [str(number) for number in range(40)]
    low, high = spread(alone, share)
    assert low < 0.75 < high
    assert (low, high) == spread(alone, share)
    four = [str(number // 10) for number in range(40)]
    assert spread(four, share) == (0.25, 1.0), "ten rows of one group are drawn together, or not at all"


def test_picture_is_xml_with_line_per_ranking() -> None:
    curves = {"log-probability": Curve.of([True, False] * 5, [one / 10 for one in range(10)])}
    drawing = ET.fromstring(picture({"one": curves, "two": curves}, {"log-probability": "#b5762a"}, {"one": 0.5}))
    assert len(drawing.findall("{*}polyline")) == 2

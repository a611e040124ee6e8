"""Conformal factuality: the guarantee over 2,000 draws of answers, ties, and too few answers."""

from __future__ import annotations

import math
import random
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.core.errors import InputError
from orchestra.verification.certificates.conformal import (
    CalibrationAnswer,
    ScoredPart,
    apply_threshold,
    calibrate,
    keep_threshold,
    min_answers,
    quantile_rank,
    risk_quantile,
)

pytestmark = pytest.mark.slow

ROUNDS = 2_000


def drawn(chance: random.Random, count: int, places: int = 17, wrong: float = 0.3) -> list[CalibrationAnswer]:
    """Answers of 1 to 8 parts with informative scores. Few decimal `places` make many ties."""
    found = []
    for at in range(count):
        share = min(
            0.9, chance.random() * 2 * wrong
        )  # some answers are entirely wrong: parts of one answer are not independent
        parts = []
        for _ in range(chance.randint(1, 8)):
            false = chance.random() < share
            score = min(1.0, max(0.0, chance.gauss(0.45 if false else 0.7, 0.2)))
            parts.append(ScoredPart(None if chance.random() < 0.05 else round(score, places), false))
        found.append(CalibrationAnswer(f"{at}", tuple(parts)))
    return found


@pytest.mark.parametrize("alpha", [0.1, 0.2])
@pytest.mark.parametrize(("count", "places"), [(9, 17), (60, 17), (60, 1)])
def test_conformal_guarantee_holds_over_draws(alpha: float, count: int, places: int) -> None:
    """Over 2,000 draws of calibration answers and further answers. The bound below is exact, with three standard errors
    of tolerance.
    """
    chance = random.Random(f"{alpha} {count} {places}")
    broken = answers = 0
    for _ in range(ROUNDS):
        dropped = risk_quantile([one.risk for one in drawn(chance, count, places)], alpha)
        assert dropped is not None
        found = apply_threshold(drawn(chance, 5, places), keep_threshold(dropped, 0.0))
        broken, answers = broken + found.violations, answers + found.answers
    share, error = broken / answers, 3 * math.sqrt(alpha * (1 - alpha) / answers)
    assert share <= alpha + error
    if places > 2:  # without ties it is also at least alpha - 1 / (n + 1): dropping too much would be a defect
        assert share >= alpha - 1 / (count + 1) - error


@pytest.mark.parametrize("alpha", [0.1, 0.2])
def test_conformal_resplits_keep_guarantee_on_average(alpha: float) -> None:
    rows = drawn(random.Random(7), 400)
    found = calibrate(rows, alpha, rounds=ROUNDS)
    assert found.resplits is not None
    assert found.resplits.rounds == ROUNDS
    assert found.resplits.violation_rate <= alpha + 0.005
    assert 0.2 < found.resplits.kept_share < 1
    # independent of the order of a file
    assert calibrate(reversed(rows), alpha, rounds=3) == calibrate(rows, alpha, rounds=3)


def test_conformal_score_equal_to_tau_is_dropped() -> None:
    rows = [
        CalibrationAnswer(f"{at}", (ScoredPart(0.5, True), ScoredPart(0.5, False), ScoredPart(0.9, False)))
        for at in range(30)
    ]
    found = calibrate(rows, 0.2, rounds=1)
    assert found.threshold == math.nextafter(0.5, 1)
    assert found.held_out is not None
    assert (found.held_out.kept, found.held_out.violations) == (found.held_out.answers, 0)


@pytest.mark.parametrize(("alpha", "count"), [(0.5, 1), (0.2, 4), (0.1, 9), (0.05, 19), (0.01, 99), (0.3, 3)])
def test_conformal_min_answers(alpha: float, count: int) -> None:
    assert min_answers(alpha) == count
    assert risk_quantile([0.1] * count, alpha) == 0.1
    assert risk_quantile([0.1] * (count - 1), alpha) is None


def test_conformal_too_few_answers_state_minimum() -> None:
    found = calibrate(drawn(random.Random(1), 12), 0.1)
    assert found.threshold is None
    assert found.reason == "8 answers are for calibration, and at least 9 are needed"
    assert calibrate(drawn(random.Random(1), 13), 0.1).reason != found.reason


@given(st.integers(1, 5_000), st.integers(1, 50))
def test_quantile_rank_is_exact(answers: int, percents: int) -> None:
    assert quantile_rank(answers, percents / 100) == math.ceil((answers + 1) * (1 - Fraction(percents, 100)))


def test_conformal_highest_scores_wrong_has_no_threshold() -> None:
    rows = [CalibrationAnswer(f"{at}", (ScoredPart(1.0, True), ScoredPart(0.9, False))) for at in range(30)]
    found = calibrate(rows, 0.1)
    assert (found.threshold, found.reason) == (
        None,
        "the wrong parts score as high as the right ones, so nothing would be kept",
    )


def test_conformal_without_errors_keeps_all_above_floor() -> None:
    rows = [
        CalibrationAnswer(f"{at}", (ScoredPart(0.4, False), ScoredPart(0.6, False), ScoredPart(None, True)))
        for at in range(30)
    ]
    found = calibrate(rows, 0.1, floor=0.5, rounds=1)
    assert found.threshold == 0.5
    assert found.held_out is not None
    assert found.held_out.kept_share == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("rows", "alpha"),
    [
        ([], 0.1),
        ([CalibrationAnswer("1", ()), CalibrationAnswer("1", ())], 0.1),
        ([CalibrationAnswer("1", (ScoredPart(math.nan, True),))], 0.1),
        ([CalibrationAnswer("1", ())], 0.0),
        ([CalibrationAnswer("1", ())], 0.6),
    ],
)
def test_conformal_invalid_answer_is_refused(rows: list[CalibrationAnswer], alpha: float) -> None:
    with pytest.raises(InputError) as caught:
        calibrate(rows, alpha)
    assert caught.value.code == "V006"

"""Combination of checks: weights of informative checks, their rankings, and too little data."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from orchestra.core.errors import InputError
from orchestra.core.events import Verdict
from orchestra.learn.certification.combination import (
    MIN_LABELLED_ROWS,
    MIN_ROWS_PER_CLASS,
    CombinationFit,
    CombinationRow,
    _fit_logistic,
    area_under_risk_coverage,
    fit_combination,
    isotonic_regression,
)
from orchestra.verification.certificates.combination import Combination, CombinationData, interpolate
from orchestra.verification.verdict import FAIL, PASS, UNKNOWN
from tests.verification.samples import BONDS

CHECKS = ("quote", "confidence", "entailment", "rederive(second)")


def rows(count: int, seed: int = 0, *, labelled: bool = True, right: float = 0.6) -> list[CombinationRow]:
    """`confidence` and `entailment` each carry information; `rederive(second)` is random; `quote` always passes."""
    chance = random.Random(seed)
    found = []
    for number in range(count):
        good = chance.random() < right
        sure, supported = (1 / (1 + math.exp(-chance.gauss(1.2 if good else -1.2, 1))) for _ in range(2))
        other = chance.random() < 0.5
        found.append(CombinationRow(f"{number}", _verdicts(sure, supported, other), good if labelled else None))
    return found


def _verdicts(sure: float, supported: float, other: bool, quote: str = PASS) -> tuple[Verdict, ...]:
    return (
        Verdict("quote", quote, float(quote == PASS)),
        Verdict("confidence", PASS, sure),
        Verdict("entailment", PASS if supported >= 0.5 else FAIL, supported, deterministic=False),
        Verdict("rederive(second)", PASS if other else FAIL, float(other), deterministic=False),
    )


def scores(fit: CombinationFit, held: Sequence[CombinationRow]) -> list[float]:
    data = CombinationData("", "", 0, 0, 0)
    told = {
        "agent": "a",
        "method": "regression",
        "checks": CHECKS,
        "data": data,
        "dependencies": BONDS,
        "created_at": "",
    }
    made = Combination(bias=fit.bias, weights=fit.weights, isotonic_points=fit.isotonic_points, **told)  # type: ignore[arg-type]
    return [score if (score := made.score(row.verdicts)) is not None else math.nan for row in held]


def test_fit_combination_weights_informative_checks_out_of_fold() -> None:
    fit, held = fit_combination(rows(2000), CHECKS), rows(4000, 1)
    weights = {voice.check: voice.weight for voice in fit.weights}
    assert set(weights) == {"confidence", "entailment", "rederive(second)"}
    assert weights["confidence"] == pytest.approx(weights["entailment"], rel=0.15)
    assert abs(weights["rederive(second)"]) < 0.05
    assert "gives every row the same" in fit.excluded_checks["quote"]
    found = np.array(scores(fit, held))
    right, off = np.array([bool(row.is_correct) for row in held]), 0.0
    for low in (0.0, 0.2, 0.4, 0.6, 0.8):
        some = (found >= low) & (found < low + 0.2 + (low == 0.8))
        off += abs(float(right[some].mean() - found[some].mean())) * float(some.mean())
    assert off < 0.02
    assert 0.35 < float((found > 0.9).mean()) < 0.65


def test_score_rankings_ablation_shows_each_check() -> None:
    fit = fit_combination(rows(1500), CHECKS)
    areas = {one.name: one.aurc for one in fit.score_rankings}
    assert list(areas)[:2] == ["all checks", "the lowest score"]
    assert (
        min(areas["without confidence"], areas["without entailment"], areas["the lowest score"])
        > 1.1 * areas["all checks"]
    )
    assert areas["without rederive(second)"] == pytest.approx(areas["all checks"], rel=0.02)
    assert {one.name: one.auroc for one in fit.score_rankings}["all checks"] > 0.9


def test_fit_combination_weights_zero_penalised_gradient() -> None:
    chance = np.random.default_rng(0)
    places, right = chance.normal(size=(400, 3)), (chance.random(400) < 0.5).astype(float)
    weights = _fit_logistic(places, right)
    design = np.column_stack([places, np.ones(400)])
    slope = design.T @ (1 / (1 + np.exp(-design @ weights)) - right) + np.array([10.0, 10.0, 10.0, 0.0]) * weights
    assert np.abs(slope).max() < 1e-6


def test_fit_combination_few_rows_names_needed_count() -> None:
    with pytest.raises(InputError) as caught:
        fit_combination(rows(MIN_LABELLED_ROWS - 1), CHECKS)
    assert (caught.value.code, "299 labelled rows" in caught.value.message) == ("N162", True)
    assert "1 more are needed, 300 in all" in caught.value.message
    assert fit_combination(rows(MIN_LABELLED_ROWS), CHECKS).row_count == MIN_LABELLED_ROWS


def test_fit_combination_all_correct_rows_refused() -> None:
    some = [
        CombinationRow(row.id, row.verdicts, number >= MIN_ROWS_PER_CLASS - 1) for number, row in enumerate(rows(400))
    ]
    with pytest.raises(InputError) as caught:
        fit_combination(some, CHECKS)
    assert (caught.value.code, f"at least {MIN_ROWS_PER_CLASS} wrong" in caught.value.message) == ("N162", True)


def test_usable_rows_refuted_or_unknown_are_counted() -> None:
    denied = [CombinationRow(f"d{at}", _verdicts(0.9, 0.9, True, FAIL), False) for at in range(40)]
    open_ = [
        CombinationRow(f"u{at}", (*row.verdicts[:2], Verdict("entailment", UNKNOWN, 0.5), row.verdicts[3]), True)
        for at, row in enumerate(rows(30))
    ]
    unasked = [CombinationRow(f"n{at}", row.verdicts[:3], True) for at, row in enumerate(rows(7))]
    fit = fit_combination([*rows(500), *denied, *open_, *unasked, *rows(9, labelled=False)], CHECKS)
    assert fit.row_count == 500
    assert fit.left_out == {
        "quote fails": 40,
        "entailment gave no verdict": 30,
        "rederive(second) gave no verdict": 7,
        "it has no label": 9,
    }
    assert fit.weights == fit_combination(rows(500), CHECKS).weights


def test_fit_combination_row_order_hardly_matters() -> None:
    one = fit_combination(rows(600), CHECKS, seed=3)
    assert one.weights == fit_combination(rows(600), CHECKS, seed=4).weights
    assert one == fit_combination(rows(600), CHECKS, seed=3)


# Without labels


def watched(count: int, seed: int = 0) -> list[CombinationRow]:
    """Three independent checks that are correct in 90, 80 and 70 % of the rows; `quote` passes nearly all."""
    chance, found = random.Random(seed), []
    for number in range(count):
        good = chance.random() < 0.6
        votes = [good == (chance.random() < share) for share in (0.9, 0.8, 0.7)]
        names = ("entailment", "rederive(second)", "rederive(third)")
        verdicts = [
            Verdict(name, PASS if vote else FAIL, float(vote), deterministic=False)
            for name, vote in zip(names, votes, strict=True)
        ]
        odd = Verdict("entailment(odd)", PASS if number % 50 else FAIL, 1.0, deterministic=False)
        found.append(CombinationRow(f"{number}", (*verdicts, odd), good))
    return found


WATCHED = ("entailment", "rederive(second)", "rederive(third)", "entailment(odd)")


def test_dawid_skene_weights_by_agreement() -> None:
    fit = fit_combination(watched(4000), WATCHED, unlabelled=True)
    assert "passes 98.0% of the rows" in fit.excluded_checks["entailment(odd)"]
    found = {voice.check: (voice.passed, voice.failed) for voice in fit.weights}
    for check, share in zip(WATCHED, (0.9, 0.8, 0.7), strict=False):
        assert found[check][0] == pytest.approx(math.log(share / (1 - share)), abs=0.35)
        assert found[check][1] == pytest.approx(-math.log(share / (1 - share)), abs=0.35)
    assert fit.bias == pytest.approx(math.log(0.6 / 0.4), abs=0.3)
    assert fit.score_rankings[0].auroc > 0.93


def test_dawid_skene_ignores_labels() -> None:
    bare = [CombinationRow(row.id, row.verdicts) for row in watched(600)]
    assert (
        fit_combination(bare, WATCHED, unlabelled=True).weights
        == fit_combination(watched(600), WATCHED, unlabelled=True).weights
    )


def test_dawid_skene_two_checks_refused() -> None:
    with pytest.raises(InputError) as caught:
        fit_combination(watched(600), ("entailment", "rederive(second)", "entailment(odd)"), unlabelled=True)
    assert (caught.value.code, "2 checks are informative, and 3 are needed" in caught.value.message) == (
        "N163",
        True,
    )
    with pytest.raises(InputError, match="1 more are needed"):
        fit_combination(watched(MIN_LABELLED_ROWS - 1), WATCHED, unlabelled=True)


# Parts


@given(st.lists(st.tuples(st.floats(-5, 5), st.booleans()), min_size=1, max_size=60))
@example([(2.8, False), (2.8, True), (2.8, True), (2.8, True)])
def test_isotonic_regression_rises_and_keeps_mean(rows_: list[tuple[float, bool]]) -> None:
    steps = isotonic_regression([at for at, _ in rows_], [float(good) for _, good in rows_])
    shares = [step.share for step in steps]
    assert shares == sorted(shares)
    assert [step.total for step in steps] == sorted({step.total for step in steps})
    assert all(0 <= share <= 1 for share in shares)
    assert interpolate(steps, -9) == shares[0]
    assert interpolate(steps, 9) == shares[-1]


def test_isotonic_regression_equal_sums_are_one_point() -> None:
    steps = isotonic_regression([2.8, 2.8, 2.8, 2.8], [0, 1, 1, 1])
    assert [(step.total, step.share) for step in steps] == [(2.8, 0.75)]
    steps = isotonic_regression([1, 2, 2, 1], [0, 1, 0, 0])
    assert [(step.total, step.share) for step in steps] == [(1, 0), (2, 0.5)]


def test_isotonic_regression_pools_adjacent_violators() -> None:
    steps = isotonic_regression([1, 2, 3, 4, 5], [0, 1, 0, 1, 1])
    assert [(step.total, step.share) for step in steps] == [(1, 0), (2.5, 0.5), (4.5, 1)]


def test_area_under_risk_coverage_by_hand() -> None:
    assert area_under_risk_coverage([4, 3, 2, 1], [True, True, False, False]) == pytest.approx(
        (0 + 0 + 1 / 3 + 2 / 4) / 4
    )
    assert area_under_risk_coverage([1, 1, 1, 1], [True, True, False, False]) == 0.5

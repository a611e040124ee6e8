"""Certification: a certified threshold keeps its guarantee; a naive threshold does not."""

from __future__ import annotations

import math
import random
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestra.core.errors import InputError
from orchestra.verification.certificates.binomial import binomial_tail, min_accepted
from orchestra.verification.certificates.certify import (
    START_COVERAGE,
    CertificationTerms,
    Certified,
    Infeasible,
    InsufficientData,
    RankedAnswers,
    ScoredAnswer,
    ThresholdResult,
    candidate_thresholds,
    certified_test,
    certify,
    confidence_interval,
    feasibility_bound,
    fixed_sequence,
    naive_threshold,
    resplit,
    split,
    validate,
)

pytestmark = pytest.mark.slow

TERMS = CertificationTerms()
SCORES = st.none() | st.floats(0, 1) | st.sampled_from([0.0, 0.25, 0.5, 1.0])
ITEMS = st.lists(st.tuples(SCORES, st.booleans()), min_size=1, max_size=200).map(
    lambda pairs: [ScoredAnswer(f"{at:03}", score, wrong) for at, (score, wrong) in enumerate(pairs)]
)


def drawn(count: int, seed: int, *, power: int = 3) -> list[ScoredAnswer]:
    """Answers with uniform scores in [0, 1] that are wrong with probability 0.6 · (1 - score) ** power."""
    source = random.Random(seed)
    scores = [source.random() for _ in range(count)]
    return [
        ScoredAnswer(f"{at}", score, source.random() < 0.6 * (1 - score) ** power) for at, score in enumerate(scores)
    ]


def risk(threshold: float, *, power: int) -> float:
    """Share of wrong answers with at least this score: the mean of the probabilities there."""
    return 0.6 * (1 - threshold) ** power / (power + 1)


def exactly(errors: int, accepted: int, alpha: Fraction) -> Fraction:
    return sum(
        (math.comb(accepted, k) * alpha**k * (1 - alpha) ** (accepted - k) for k in range(errors + 1)), Fraction(0)
    )


@given(
    st.integers(0, 120),
    st.integers(0, 120),
    st.sampled_from([Fraction(1, 100), Fraction(1, 20), Fraction(1, 4), Fraction(1, 2)]),
)
def test_binomial_tail_is_exact(errors: int, accepted: int, alpha: Fraction) -> None:
    assert binomial_tail(errors, accepted, float(alpha)) == pytest.approx(
        float(exactly(errors, accepted, alpha)), abs=1e-11
    )


def test_binomial_tail_large_counts_is_fast_and_monotone() -> None:
    found = [
        binomial_tail(errors, 10_000_000, 0.05)
        for errors in (0, 490_000, 498_000, 500_000, 502_000, 9_999_999, 10_000_000)
    ]
    assert found == sorted(found)
    assert (found[0], found[-1]) == (0.0, 1.0)
    assert found[3] == pytest.approx(0.5, abs=0.001)


def test_guarantee_needs_59_without_error_and_allows_38_of_1000() -> None:
    assert TERMS.min_accepted == 59
    assert binomial_tail(38, 1000, 0.05) <= 0.05 < binomial_tail(39, 1000, 0.05)
    assert CertificationTerms(0.02, 0.05).min_accepted == 149


@given(st.floats(0.001, 0.5), st.floats(0.001, 0.5))
def test_min_accepted_fewer_answers_do_not_suffice(alpha: float, delta: float) -> None:
    found = min_accepted(0.0, alpha, delta)
    assert binomial_tail(0, found, alpha) <= delta
    assert found == 1 or binomial_tail(0, found - 1, alpha) > delta


@given(st.integers(0, 60), st.integers(0, 60))
def test_confidence_interval_contains_share_and_has_binomial_ends(errors: int, more: int) -> None:
    accepted = errors + more
    low, high = confidence_interval(errors, accepted)
    assert 0 <= low <= (errors / accepted if accepted else 0) <= high <= 1
    if errors:
        assert 1 - binomial_tail(errors - 1, accepted, low) == pytest.approx(0.025, abs=1e-6)
    if more:
        assert binomial_tail(errors, accepted, high) == pytest.approx(0.025, abs=1e-6)


@given(ITEMS, st.floats(0, 1))
def test_threshold_accepts_ties_together_and_no_missing_score(items: list[ScoredAnswer], threshold: float) -> None:
    wanted = [item for item in items if item.score is not None and item.score >= threshold]
    assert RankedAnswers(items).result_at(threshold) == ThresholdResult(
        len(items), len(wanted), sum(item.wrong for item in wanted)
    )


@given(ITEMS, st.integers(0, 2000))
def test_candidate_thresholds_are_tuning_scores_strict_first(items: list[ScoredAnswer], calibration: int) -> None:
    grid = candidate_thresholds(items, calibration, TERMS)
    scores = {item.score for item in items if item.score is not None}
    assert set(grid) <= scores
    assert grid == sorted(set(grid), reverse=True)
    assert bool(grid) == bool(scores and calibration)
    if grid:
        assert grid[-1] == min(scores), "the loosest accepts all that can be accepted"
        accepted = RankedAnswers(items).result_at(grid[0]).accepted
        assert accepted >= min(START_COVERAGE * len(items), sum(item.score is not None for item in items))


@given(ITEMS, st.sampled_from([0.05, 0.2, 0.5]))
def test_fixed_sequence_certified_and_all_stricter_ones_passed(items: list[ScoredAnswer], alpha: float) -> None:
    terms = CertificationTerms(alpha, 0.2)
    ranked = RankedAnswers(items)
    steps = fixed_sequence(
        ranked, sorted({item.score for item in items if item.score is not None}, reverse=True), terms
    )
    assert all(step.p_value <= terms.delta for step in steps[:-1])
    found = certified_test(steps, terms.delta)
    for step in steps:
        assert step.p_value == binomial_tail(step.errors, step.accepted, alpha)
        if found is not None and step.threshold >= found.threshold:
            assert step.p_value <= terms.delta
    if found is not None:
        assert not ranked.result_at(found.threshold).exceeds(alpha)
        naive = naive_threshold(ranked, alpha)
        assert naive is not None
        assert naive <= found.threshold, "looking alone is never stricter"


@given(ITEMS)
def test_split_is_disjoint_and_independent_of_row_order(items: list[ScoredAnswer]) -> None:
    parts = split(validate(items), TERMS, 3)
    together = [*parts.tuning, *parts.calibration, *parts.held_out]
    assert sorted(item.id for item in together) == sorted(item.id for item in items)
    assert split(validate(list(reversed(items))), TERMS, 3) == parts


@settings(max_examples=25)
@given(ITEMS, st.integers(0, 5))
def test_certify_any_rows_is_deterministic(items: list[ScoredAnswer], seed: int) -> None:
    terms = CertificationTerms(0.3, 0.3, seed=seed)
    found = certify(items, terms, rounds=3)
    assert found == certify(list(reversed(items)), terms, rounds=3)
    assert (found.held_out is not None) == isinstance(found.outcome, Certified)
    if isinstance(found.outcome, InsufficientData):
        assert found.outcome.rows_needed > len(items)


@given(st.lists(st.booleans(), min_size=1, max_size=50), st.floats(0.01, 0.5))
def test_feasibility_bound_holds_for_every_threshold(wrong: list[bool], alpha: float) -> None:
    """Holds even for a threshold that knows which answers are right, unless it violates the guarantee."""
    knowing = [ScoredAnswer(f"{at}", float(not one), one) for at, one in enumerate(wrong)]
    bound = feasibility_bound(knowing, alpha)
    assert bound.base_error == sum(wrong) / len(wrong)
    for threshold in (0.0, 1.0):
        found = RankedAnswers(knowing).result_at(threshold)
        assert found.exceeds(alpha) or 1 - found.coverage >= bound.min_withheld - 1e-12


def test_guarantee_holds_where_naive_threshold_fails() -> None:
    """By the true risk, which is known here; 400 draws of 1,000 rows each. Two standard errors of 5 % are 2.2 %."""
    certified = naive = made = 0
    for seed in range(400):
        parts = split(validate(drawn(1000, seed, power=3)), TERMS, seed)
        calibration = RankedAnswers(parts.calibration)
        step = certified_test(
            fixed_sequence(calibration, candidate_thresholds(parts.tuning, len(parts.calibration), TERMS), TERMS),
            TERMS.delta,
        )
        loosest = naive_threshold(calibration, TERMS.alpha)
        made += step is not None
        certified += step is not None and risk(step.threshold, power=3) > TERMS.alpha
        naive += loosest is not None and risk(loosest, power=3) > TERMS.alpha
    assert made > 350
    assert certified / 400 <= TERMS.delta + 0.022
    assert naive / 400 > 0.4


def test_certify_risk_just_above_alpha_is_rarely_certified() -> None:
    """The worst case: the risk is slightly above alpha for any score, so each certificate is a false guarantee."""
    broken = 0
    for seed in range(400):
        source = random.Random(seed)
        items = [ScoredAnswer(f"{at}", source.random(), source.random() < 0.0501) for at in range(800)]
        parts = split(validate(items), TERMS, seed)
        grid = candidate_thresholds(parts.tuning, len(parts.calibration), TERMS)
        broken += certified_test(fixed_sequence(RankedAnswers(parts.calibration), grid, TERMS), TERMS.delta) is not None
    assert broken / 400 <= TERMS.delta + 0.022


def test_resplit_guarantee_holds_and_naive_threshold_fails() -> None:
    found = resplit(drawn(20_000, 1), TERMS)
    assert (found.rounds, found.certified) == (200, 200)
    assert found.violations / found.rounds <= TERMS.delta
    assert found.naive_violations / found.rounds > 0.3
    assert 0.5 < found.coverage < found.naive_coverage


def test_resplit_few_held_out_rows_separates_chance() -> None:
    found = resplit(drawn(2000, 1), TERMS)
    assert found.significant_violations <= found.violations
    assert found.significant_violations / found.rounds <= TERMS.delta
    assert found.naive_significant_violations > found.significant_violations
    assert (ThresholdResult(100, 100, 6).exceeds(0.05), ThresholdResult(100, 100, 6).refutes(0.05)) == (True, False)
    assert ThresholdResult(100, 100, 12).refutes(0.05)


def test_certificate_states_its_coverage() -> None:
    found = certify(drawn(4000, 2), TERMS)
    assert isinstance(found.outcome, Certified)
    step = found.outcome.threshold_test
    assert (found.tuning, found.calibration, found.rows) == (800, 2000, 4000)
    assert step.p_value <= 0.05
    assert found.outcome.coverage == step.accepted / 2000
    assert found.held_out is not None
    assert found.held_out.rows == 1200
    assert found.naive is not None
    assert found.naive.threshold < step.threshold
    assert found.naive.held_out.accepted > found.held_out.accepted


@pytest.mark.parametrize("score", [0.0, 0.7, 1.0])
def test_certify_constant_score_accepts_all_or_nothing(score: float) -> None:
    good = certify([ScoredAnswer(f"{at}", score, at % 50 == 0) for at in range(1200)], TERMS, rounds=2)
    assert isinstance(good.outcome, Certified)
    assert (good.outcome.threshold_test.threshold, good.outcome.coverage) == (score, 1.0)
    bad = certify([ScoredAnswer(f"{at}", score, at % 10 == 0) for at in range(1200)], TERMS, rounds=2)
    assert isinstance(bad.outcome, Infeasible)


@pytest.mark.parametrize(
    ("items", "kind", "reason"),
    [
        (
            [ScoredAnswer(f"{at}", at / 2000, True) for at in range(2000)],
            Infeasible,
            "of the 1,000 highest-scoring of 1,000 answers 1,000 are wrong, 100 %",
        ),
        (
            [ScoredAnswer(f"{at}", None, False) for at in range(2000)],
            Infeasible,
            "none of 1,000 answers passes its checks",
        ),
        (
            [ScoredAnswer(f"{at}", None, False) for at in range(496)],
            Infeasible,
            "none of 248 answers passes its checks",
        ),
        (
            [ScoredAnswer(f"{at}", None, False) for at in range(20)],
            InsufficientData,
            "of 10 answers none passes its checks",
        ),
        (
            [ScoredAnswer(f"{at}", 1.0, False) for at in range(100)],
            InsufficientData,
            "of the 50 highest-scoring of 50 answers 0 are wrong",
        ),
        (
            [ScoredAnswer(f"{at}", at / 50, True) for at in range(50)],
            InsufficientData,
            "of the 25 highest-scoring of 25 answers 25 are wrong",
        ),
        ([ScoredAnswer("only", 1.0, False)], InsufficientData, "of 0 answers none passes its checks"),
    ],
)
def test_certify_without_certificate_has_reason(items: list[ScoredAnswer], kind: type, reason: str) -> None:
    found = certify(items, TERMS, rounds=2).outcome
    assert isinstance(found, kind)
    assert not isinstance(found, Certified)
    assert reason in found.reason


def test_insufficient_data_states_rows_needed() -> None:
    few = [ScoredAnswer(f"{at}", 1.0, False) for at in range(100)]
    found = certify(few, TERMS, rounds=2).outcome
    assert isinstance(found, InsufficientData)
    assert found.rows_needed == 2 * 93, "one error more than was seen"
    more = [ScoredAnswer(f"{at}", 1.0, False) for at in range(found.rows_needed)]
    assert isinstance(certify(more, TERMS, rounds=2).outcome, Certified)


@pytest.mark.parametrize(
    ("items", "says"),
    [
        ([], "no row"),
        (
            [ScoredAnswer("a", 0.5, False), ScoredAnswer("b", 0.5, False), ScoredAnswer("a", 0.1, True)],
            "two rows have the id 'a'",
        ),
        ([ScoredAnswer("a", float("nan"), False)], "the score of row 'a' is nan"),
        ([ScoredAnswer("a", 1.01, False)], "the score of row 'a' is 1.01"),
        ([ScoredAnswer("a", -0.01, False)], "must be in"),
        ([ScoredAnswer("a", float("inf"), False)], "must be in"),
    ],
)
def test_certify_invalid_rows_are_refused(items: list[ScoredAnswer], says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        certify(items, TERMS)
    assert caught.value.code == "V006"


@pytest.mark.parametrize(
    "terms",
    [
        {"alpha": 0.0},
        {"alpha": 0.51},
        {"alpha": float("nan")},
        {"delta": 0.0},
        {"delta": 1.0},
        {"tuning": 0.5},
        {"calibration": 0.0},
    ],
)
def test_terms_without_guarantee_are_refused(terms: dict[str, Any]) -> None:
    with pytest.raises(InputError) as caught:
        CertificationTerms(**terms)
    assert caught.value.code == "V006"


def test_threshold_risk_nothing_accepted_is_none() -> None:
    assert ThresholdResult(10, 0, 0).risk is None
    assert not ThresholdResult(10, 0, 0).exceeds(0.05)
    assert confidence_interval(0, 0) == (0.0, 1.0)

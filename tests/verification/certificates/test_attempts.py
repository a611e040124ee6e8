"""Attempts: tests of the same rows share delta, so repeated attempts rarely yield a false certificate."""

from __future__ import annotations

import random
from collections.abc import Iterator

import msgspec
import pytest

from orchestra.core.errors import InputError, SourceLocation
from orchestra.schema.strict_json import canonical, digest
from orchestra.verification.certificates.attempts import AttemptLog, CertificationAttempt
from orchestra.verification.certificates.binomial import delta_share
from orchestra.verification.certificates.certify import (
    CertificationTerms,
    Infeasible,
    RankedAnswers,
    ScoredAnswer,
    candidate_thresholds,
    certified_test,
    certify,
    fixed_sequence,
    split,
)
from orchestra.verification.certificates.row_fingerprints import (
    FINGERPRINT_LENGTH,
    SAMPLE_SIZE,
    RowFingerprints,
    RowSet,
)

RISK = 0.051
"""Slightly above alpha for any score: every certificate is false."""
TRIES = 10
ROUNDS = 400
PLACE = SourceLocation("attempts.jsonl", 1)


def given(items: list[ScoredAnswer], terms: CertificationTerms) -> bool:
    parts = split(items, terms, terms.seed)
    calibration = RankedAnswers(parts.calibration)
    return (
        certified_test(
            fixed_sequence(calibration, candidate_thresholds(parts.tuning, len(parts.calibration), terms), terms),
            terms.spent_delta,
        )
        is not None
    )


def drawn(source: random.Random, count: int, first: int = 0) -> list[ScoredAnswer]:
    return [ScoredAnswer(f"{at:06}", 0.5, source.random() < RISK) for at in range(first, first + count)]


def appended(source: random.Random, *, together: bool) -> Iterator[bool]:
    items = drawn(source, 200)
    for number in range(1, TRIES + 1):
        yield given(items, CertificationTerms(attempt=number if together else 0))
        items += drawn(source, 100, len(items))


def divided_anew(source: random.Random, *, together: bool) -> Iterator[bool]:
    items = drawn(source, 600)
    for number in range(1, TRIES + 1):
        yield given(items, CertificationTerms(seed=number, attempt=number if together else 0))


@pytest.mark.parametrize("tries", [appended, divided_anew])
def test_attempts_ten_tries_keep_error_rate_below_delta(tries: type) -> None:
    broken = [
        sum(any(tries(random.Random(seed), together=together)) for seed in range(ROUNDS)) / ROUNDS
        for together in (True, False)
    ]
    assert broken[0] <= CertificationTerms().delta
    assert broken[1] > 0.1, "where each has all of delta"


def test_attempts_sequence_ends_at_spent_delta() -> None:
    terms, items = (
        CertificationTerms(attempt=2),
        [ScoredAnswer(f"{at:03}", 0.9 if at < 70 else 0.5, wrong=False) for at in range(200)],
    )
    (step,) = steps = fixed_sequence(RankedAnswers(items), (0.9, 0.5), terms)
    assert terms.spent_delta < step.p_value < terms.delta, "70 right answers are enough for all of delta"
    assert certified_test(steps, terms.spent_delta) is None


def test_delta_shares_sum_to_one_and_first_is_largest() -> None:
    assert sum(delta_share(number) for number in range(1, 10_000)) == pytest.approx(1, abs=1e-4)
    assert [CertificationTerms(attempt=number).spent_delta for number in range(3)] == pytest.approx([0.05, 0.04, 0.005])
    assert (
        CertificationTerms().min_accepted,
        CertificationTerms(attempt=1).min_accepted,
        CertificationTerms(attempt=2).min_accepted,
    ) == (
        59,
        63,
        104,
    )


def test_infeasible_only_when_rows_reject_alpha_beyond_chance() -> None:
    """A true risk of 4.5 % satisfies a guarantee of 5 %: with enough rows it would be certified."""
    called = [certify(drawn_at(0.045, seed), CertificationTerms(), rounds=0).outcome for seed in range(200)]
    assert sum(isinstance(one, Infeasible) for one in called) <= 4
    assert isinstance(certify(drawn_at(0.15, 1), CertificationTerms(), rounds=0).outcome, Infeasible)


def drawn_at(risk: float, seed: int) -> list[ScoredAnswer]:
    source = random.Random(seed)
    return [ScoredAnswer(f"{at:06}", 0.5, source.random() < risk) for at in range(1000)]


def rows(*names: str) -> RowSet:
    return RowSet(frozenset(), frozenset(names))


def line(*names: str, tested: str = "a") -> CertificationAttempt:
    return CertificationAttempt(
        at="",
        data="rows",
        fingerprints=RowFingerprints.of(names, SAMPLE_SIZE),
        test_digest=tested,
        alpha=0.05,
        delta=0.05,
        number=1,
        outcome="insufficient data",
    )


FIRST, OTHERS = ([digest(canonical(at))[:FINGERPRINT_LENGTH] for at in range(first, first + 500)] for first in (0, 500))


def test_fingerprints_identify_rows_among_others() -> None:
    log = AttemptLog((line(*FIRST),))
    for again in (FIRST, FIRST + OTHERS, FIRST[:60], OTHERS * 3 + FIRST):
        assert log.next_number(rows(*again)) == 2
    for other in (OTHERS, OTHERS + FIRST[:20]):
        assert log.next_number(rows(*other)) == 1, "a few may be there by chance"
    assert AttemptLog((line(*FIRST), line(*FIRST, *OTHERS))).next_number(rows(*FIRST)) == 3


def test_attempt_log_round_trips_and_detects_changes() -> None:
    first = AttemptLog().encode_next(line(*FIRST))
    log = AttemptLog.from_bytes(first, PLACE)
    both = first + log.encode_next(line(*OTHERS, tested="b"))
    assert [one.test_digest for one in AttemptLog.from_bytes(both + b'{"at', PLACE).lines] == ["a", "b"]
    assert log.find_test("a") is not None
    assert log.find_test("b") is None
    for changed in (both[len(first) :], both.replace(b'"insufficient data"', b'"infeasible"'), b"{}\n", b"\xff\n"):
        with pytest.raises(InputError) as caught:
            AttemptLog.from_bytes(changed, PLACE)
        assert caught.value.code == "V025"
    assert msgspec.json.decode(first)["digest"]

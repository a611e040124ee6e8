"""Tests of the same rows have delta together: however often somebody tries, hardly anybody ends with a broken certificate."""

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
"""A hair above alpha, whatever the score says: every certificate is a broken one."""
TRIES = 10
ROUNDS = 400
PLACE = SourceLocation("attempts.jsonl", 1)


def given(items: list[ScoredAnswer], terms: CertificationTerms) -> bool:
    parts = split(items, terms, terms.seed)
    calibration = RankedAnswers(parts.calibration)
    return (
        certified_test(
            fixed_sequence(calibration, candidate_thresholds(parts.tuning, len(parts.calibration), terms), terms), terms.spent_delta
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
def test_who_tries_ten_times_breaks_the_promise_no_more_often_than_delta(tries: type) -> None:
    broken = [sum(any(tries(random.Random(seed), together=together)) for seed in range(ROUNDS)) / ROUNDS for together in (True, False)]
    assert broken[0] <= CertificationTerms().delta
    assert broken[1] > 0.1, "where each has all of delta"


def test_a_walk_ends_where_the_part_of_delta_that_a_test_has_does_not_suffice() -> None:
    terms, items = CertificationTerms(attempt=2), [ScoredAnswer(f"{at:03}", 0.9 if at < 70 else 0.5, wrong=False) for at in range(200)]
    (step,) = steps = fixed_sequence(RankedAnswers(items), (0.9, 0.5), terms)
    assert terms.spent_delta < step.p_value < terms.delta, "70 right answers are enough for all of delta"
    assert certified_test(steps, terms.spent_delta) is None


def test_all_tests_together_have_delta_and_the_first_most_of_it() -> None:
    assert sum(delta_share(number) for number in range(1, 10_000)) == pytest.approx(1, abs=1e-4)
    assert [CertificationTerms(attempt=number).spent_delta for number in range(3)] == pytest.approx([0.05, 0.04, 0.005])
    assert (CertificationTerms().min_accepted, CertificationTerms(attempt=1).min_accepted, CertificationTerms(attempt=2).min_accepted) == (
        59,
        63,
        104,
    )


def test_that_an_agent_is_wrong_too_often_is_said_where_the_rows_refute_alpha_and_not_by_chance() -> None:
    """A true risk of 4.5 % keeps a promise of 5 %: with rows enough it would be certified."""
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


def test_rows_are_known_again_among_others_and_those_of_another_file_are_none() -> None:
    log = AttemptLog((line(*FIRST),))
    for again in (FIRST, FIRST + OTHERS, FIRST[:60], OTHERS * 3 + FIRST):
        assert log.next_number(rows(*again)) == 2
    for other in (OTHERS, OTHERS + FIRST[:20]):
        assert log.next_number(rows(*other)) == 1, "a few may be there by chance"
    assert AttemptLog((line(*FIRST), line(*FIRST, *OTHERS))).next_number(rows(*FIRST)) == 3


def test_the_log_is_read_as_it_was_written_and_a_changed_line_is_noticed() -> None:
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

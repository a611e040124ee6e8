"""A combination: one score of what several checks say, as a file; and what keeps a value from being accepted whatever it says."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.core.errors import InputError
from orchestra.core.events import Verdict
from orchestra.verification import combine_verdicts
from orchestra.verification.certificates.combination import (
    CheckWeight,
    Combination,
    CombinationData,
    IsotonicPoint,
    interpolate,
)
from orchestra.verification.verdict import FAIL, PASS, UNKNOWN
from tests.verification.samples import BONDS

CHECKS = ("confidence", "entailment", "quote")
TWO = (CheckWeight("confidence", weight=1.0), CheckWeight("entailment", weight=2.0))


def combination(**more: Any) -> Combination:
    made: dict[str, Any] = {"method": "regression", "checks": CHECKS, "bias": 0.0, "weights": TWO, "created_at": "2026-11-26"}
    return Combination(agent="reader", data=CombinationData("rows", "d" * 32, 300, 200, 0), dependencies=BONDS, **made | more).with_digest()


def said(confidence: float = 0.5, entailment: float = 0.5, but: tuple[str, str] = ("", "")) -> list[Verdict]:
    """Verdicts of the three checks, but one with another outcome; those that ask agents fail below 0.5."""
    soft = PASS if entailment >= 0.5 else FAIL
    found = [
        Verdict("quote", PASS, 1.0),
        Verdict("confidence", PASS, confidence),
        Verdict("entailment", soft, entailment, deterministic=False),
    ]
    return [msgspec.structs.replace(one, outcome=but[1]) if one.check == but[0] else one for one in found]


def test_a_check_that_asks_agents_is_weighed_and_need_not_pass() -> None:
    made = combination()
    assert combine_verdicts.combined_score(said(0.9, 0.3)) == 0.0
    assert not combine_verdicts.is_accepted(said(0.9, 0.3), 0.5)
    score = combine_verdicts.combined_score(said(0.9, 0.3), made)
    odds = 0.9 / 0.1 * (0.3 / 0.7) ** 2
    assert score == pytest.approx(odds / (1 + odds))
    assert combine_verdicts.is_accepted(said(0.9, 0.3), 0.6, made)
    assert not combine_verdicts.is_accepted(said(0.9, 0.3), 0.7, made)


@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_a_deterministic_fail_still_fails_whatever_the_others_say(threshold: float) -> None:
    verdicts = said(0.999, 0.999, ("quote", FAIL))
    assert combine_verdicts.combined_score(verdicts, combination()) == 0.0
    assert not combine_verdicts.is_accepted(verdicts, threshold, combination())


@pytest.mark.parametrize("check", CHECKS)
def test_what_a_check_cannot_tell_never_passes(check: str) -> None:
    verdicts = said(0.999, 0.999, (check, UNKNOWN))
    assert combine_verdicts.combined_score(verdicts, combination()) is None
    assert not combine_verdicts.is_accepted(verdicts, 0.0, combination())


def test_a_check_that_was_not_asked_is_no_score() -> None:
    assert combine_verdicts.combined_score(said()[:2], combination()) is None


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_it_is_a_probability_and_rises_with_each_voice(one: float, other: float, more: float) -> None:
    low, high = sorted((other, more))
    made = combination(isotonic_points=(IsotonicPoint(-4.0, 0.1), IsotonicPoint(0.0, 0.4), IsotonicPoint(3.0, 0.95)))
    for each in (made, combination()):
        first, second = each.score(said(one, low)), each.score(said(one, high))
        assert first is not None
        assert second is not None
        assert 0 <= first <= second <= 1


@pytest.mark.parametrize(("total", "share"), [(-9, 0.2), (-1, 0.2), (0, 0.4), (1, 0.6), (2, 0.6), (5, 0.6)])
def test_between_two_steps_it_goes_straight_and_beyond_them_it_stays(total: float, share: float) -> None:
    assert interpolate((IsotonicPoint(-1, 0.2), IsotonicPoint(1, 0.6)), total) == pytest.approx(share)


def test_without_labels_a_check_says_pass_or_not_pass() -> None:
    voices = tuple(CheckWeight(check, passed=1.0, failed=-2.0) for check in CHECKS)
    made = combination(method="dawid-skene", weights=voices, bias=0.5)
    assert made.score(said(0.9, 0.9)) == pytest.approx(1 / (1 + 2.718281828459045**-3.5))
    assert made.score(said(0.9, 0.2)) == pytest.approx(1 / (1 + 2.718281828459045**-0.5))


def test_the_file_is_read_as_it_was_written_and_notices_an_edit() -> None:
    made = combination(judge_dependencies={"entailment": BONDS})
    assert Combination.from_bytes(made.to_bytes()) == made
    with pytest.raises(InputError) as caught:
        Combination.from_bytes(made.to_bytes().replace(b'"weight": 2.0', b'"weight": 9.0'))
    assert caught.value.code == "V004"


def test_it_promises_nothing_and_so_cannot_be_voided() -> None:
    assert not hasattr(combination(), "voided")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"weights": (CheckWeight("numbers", weight=1.0),)}, "none of its own"),
        ({"isotonic_points": (IsotonicPoint(0.0, 0.5), IsotonicPoint(1.0, 0.4))}, "do not rise"),
        ({"isotonic_points": (IsotonicPoint(1.0, 0.4), IsotonicPoint(0.0, 0.5))}, "do not rise"),
        ({"isotonic_points": (IsotonicPoint(0.0, 0.5), IsotonicPoint(1.0, 1.4))}, "do not rise"),
    ],
)
def test_what_is_no_combination_of_its_checks_is_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as caught:
        Combination.from_bytes(combination(**change).to_bytes())
    assert (caught.value.code, says in caught.value.message) == ("V003", True)


@pytest.mark.parametrize("part", ["card", "model", "adapter"])
def test_it_says_what_changed_of_the_agent_and_of_the_judges(part: str) -> None:
    made, other = combination(judge_dependencies={"entailment": BONDS}), msgspec.structs.replace(BONDS, **{part: "another"})
    assert made.changes(BONDS, {"entailment": BONDS}) == []
    (mine,) = made.changes(other, {"entailment": BONDS})
    assert "entailment" not in mine
    (theirs,) = made.changes(BONDS, {"entailment": other})
    assert theirs.endswith("of entailment")

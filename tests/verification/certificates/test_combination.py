"""Combination: one score from several checks, its file, and verdicts that prevent acceptance regardless of the
score.
"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.core.errors import InputError
from orchestra.core.events import Verdict
from orchestra.verification import acceptance
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
    made: dict[str, Any] = {
        "method": "regression",
        "checks": CHECKS,
        "bias": 0.0,
        "weights": TWO,
        "created_at": "2026-11-26",
    }
    return Combination(
        agent="reader", data=CombinationData("rows", "d" * 32, 300, 200, 0), dependencies=BONDS, **made | more
    ).with_digest()


def said(confidence: float = 0.5, entailment: float = 0.5, but: tuple[str, str] = ("", "")) -> list[Verdict]:
    """Verdicts of the three checks, one of them with another outcome. Model checks fail below 0.5."""
    soft = PASS if entailment >= 0.5 else FAIL
    found = [
        Verdict("quote", PASS, 1.0),
        Verdict("confidence", PASS, confidence),
        Verdict("entailment", soft, entailment, deterministic=False),
    ]
    return [msgspec.structs.replace(one, outcome=but[1]) if one.check == but[0] else one for one in found]


def test_combination_model_check_is_weighted_and_may_fail() -> None:
    made = combination()
    assert acceptance.combined_score(said(0.9, 0.3)) == 0.0
    assert not acceptance.is_accepted(said(0.9, 0.3), 0.5)
    score = acceptance.combined_score(said(0.9, 0.3), made)
    odds = 0.9 / 0.1 * (0.3 / 0.7) ** 2
    assert score == pytest.approx(odds / (1 + odds))
    assert acceptance.is_accepted(said(0.9, 0.3), 0.6, made)
    assert not acceptance.is_accepted(said(0.9, 0.3), 0.7, made)


@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_combination_deterministic_fail_is_veto(threshold: float) -> None:
    verdicts = said(0.999, 0.999, ("quote", FAIL))
    assert acceptance.combined_score(verdicts, combination()) == 0.0
    assert not acceptance.is_accepted(verdicts, threshold, combination())


@pytest.mark.parametrize("check", CHECKS)
def test_combination_unknown_never_passes(check: str) -> None:
    verdicts = said(0.999, 0.999, (check, UNKNOWN))
    assert acceptance.combined_score(verdicts, combination()) is None
    assert not acceptance.is_accepted(verdicts, 0.0, combination())


def test_combination_missing_check_has_no_score() -> None:
    assert acceptance.combined_score(said()[:2], combination()) is None


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_combination_score_is_monotone_probability(one: float, other: float, more: float) -> None:
    low, high = sorted((other, more))
    made = combination(isotonic_points=(IsotonicPoint(-4.0, 0.1), IsotonicPoint(0.0, 0.4), IsotonicPoint(3.0, 0.95)))
    for each in (made, combination()):
        first, second = each.score(said(one, low)), each.score(said(one, high))
        assert first is not None
        assert second is not None
        assert 0 <= first <= second <= 1


@pytest.mark.parametrize(("total", "share"), [(-9, 0.2), (-1, 0.2), (0, 0.4), (1, 0.6), (2, 0.6), (5, 0.6)])
def test_interpolate_is_linear_and_constant_beyond_ends(total: float, share: float) -> None:
    assert interpolate((IsotonicPoint(-1, 0.2), IsotonicPoint(1, 0.6)), total) == pytest.approx(share)


def test_combination_without_labels_uses_outcomes_only() -> None:
    voices = tuple(CheckWeight(check, passed=1.0, failed=-2.0) for check in CHECKS)
    made = combination(method="dawid-skene", weights=voices, bias=0.5)
    assert made.score(said(0.9, 0.9)) == pytest.approx(1 / (1 + 2.718281828459045**-3.5))
    assert made.score(said(0.9, 0.2)) == pytest.approx(1 / (1 + 2.718281828459045**-0.5))


def test_combination_file_round_trips_and_detects_edit() -> None:
    made = combination(judge_dependencies={"entailment": BONDS})
    assert Combination.from_bytes(made.to_bytes()) == made
    with pytest.raises(InputError) as caught:
        Combination.from_bytes(made.to_bytes().replace(b'"weight": 2.0', b'"weight": 9.0'))
    assert caught.value.code == "V004"


def test_combination_has_no_guarantee_to_void() -> None:
    assert not hasattr(combination(), "voided")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"weights": (CheckWeight("numbers", weight=1.0),)}, "not its own"),
        ({"isotonic_points": (IsotonicPoint(0.0, 0.5), IsotonicPoint(1.0, 0.4))}, "do not rise"),
        ({"isotonic_points": (IsotonicPoint(1.0, 0.4), IsotonicPoint(0.0, 0.5))}, "do not rise"),
        ({"isotonic_points": (IsotonicPoint(0.0, 0.5), IsotonicPoint(1.0, 1.4))}, "do not rise"),
    ],
)
def test_combination_inconsistent_file_is_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as caught:
        Combination.from_bytes(combination(**change).to_bytes())
    assert (caught.value.code, says in caught.value.message) == ("V003", True)


@pytest.mark.parametrize("part", ["card", "model", "adapter"])
def test_combination_changes_name_agent_and_judges(part: str) -> None:
    made, other = (
        combination(judge_dependencies={"entailment": BONDS}),
        msgspec.structs.replace(BONDS, **{part: "another"}),
    )
    assert made.changes(BONDS, {"entailment": BONDS}) == []
    (mine,) = made.changes(other, {"entailment": BONDS})
    assert "entailment" not in mine
    (theirs,) = made.changes(BONDS, {"entailment": other})
    assert theirs.endswith("of entailment")

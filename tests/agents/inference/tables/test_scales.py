"""Tests the scale of figures, read from the words around them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from pydantic import ValidationError

from orchestra.agents.inference.tables.scales import SIGN_PLACES, UNIT_SIGNS, UNITS, UnitWeights, unit_signs

QUESTION, HEAD, ROWS, TEXT = range(len(SIGN_PLACES))


def seen(text: str, place: int = TEXT) -> list[list[str]]:
    """Returns the names of the signs of each unit for a text in one part of a table."""
    given: list[Sequence[Sequence[str]]] = [[], [["", text]], [["Sales", text]]]
    parts = [given[place] if place == at else [] for at in (HEAD, ROWS)]
    found = unit_signs(text if place == QUESTION else "", parts[0], parts[1], [text] if place == TEXT else [])
    return [[name for name, one in zip(UNIT_SIGNS, unit, strict=True) if one] for unit in found]


@pytest.mark.parametrize("place", range(len(SIGN_PLACES)), ids=SIGN_PLACES)
@pytest.mark.parametrize("unit", UNITS)
def test_scale_is_detected_only_at_its_position(unit: str, place: int) -> None:
    found = seen(f"about five {unit}", place)
    assert found == [[f"word.{SIGN_PLACES[place]}"] if one == unit else [] for one in UNITS]


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("(in thousands)", "thousand"), ("In thousands of dollars", "thousand"), ("in U.S. Thousands", "thousand"),
        ("(thousands)", "thousand"), ("$000", "thousand"), ("EUR 000", "thousand"), ("€’000", "thousand"),
        ("RMB'000", "thousand"),
        ("All figures in 000s", "thousand"),
        ("$ thousands", "thousand"), ("£k", "thousand"), ("in\u00a0thousands", "thousand"),
        ("(in millions, except per share data)", "million"), ("in  US\ndollar millions", "million"),
        ("millions of yen", "million"),
        ("£m", "million"), ("€ m", "million"), ("(€mn", "million"), ("$ millions", "million"), ("USD m", "million"),
        ("$mln", "million"), ("$mm", "million"), ("€ mio", "million"),
        ("in € billions", "billion"), ("$bn", "billion"), ("€bln", "billion"), ("(billions)", "billion"),
        ("billions of euros", "billion"),
    ],
)  # fmt: skip
def test_scale_stated_for_all_figures_is_detected(text: str, unit: str) -> None:
    stated = [any(name.startswith("stated") for name in names) for names in seen(text)]
    assert stated == [one == unit for one in UNITS]


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("we sold $5 million of it", "million"), ("a loss of €3bn", "billion"), ("$5.2m", "million"),
        ("£ 12k", "thousand"),
        ("resulted in $5 million", "million"), ("in 2019 about 5 million", "million"),
        ("to begin millions more", "million"),
        ("about 4 mio", "million"), ("2 mn", "million"), ("one thousand people", "thousand"),
    ],
)  # fmt: skip
def test_scale_of_one_figure_is_not_stated_for_all(text: str, unit: str) -> None:
    assert seen(text) == [["word.text"] if one == unit else [] for one in UNITS]


@pytest.mark.parametrize(
    "text",
    [
        "", "12,000 sold", "12 000 sold", "the 12,000s", "12\u00a0000", "12\u202f000", "1’000", "1'000", "A000",
        "model 5000",
        "a thousandth", "Mme Bovary", "$5", "billiards", "3.5 km", "the m1 road", "from 2018 to 2019", "FROM them",
        "Team",
        "long-term item of the firm",
        "Revenue (b)", "(b) Restated.", "Height (m)", "(M)", "10 a.m. to 3 p.m.", "I'm", "5 m", "10 k run",
        "$ missing", "€ killed",
    ],
)  # fmt: skip
def test_scale_lookalikes_are_not_detected(text: str) -> None:
    assert seen(text) == [[], [], []]


def test_scale_detection_does_not_cross_cells() -> None:
    assert unit_signs("", [["in", "millions"]], [["$", "000"]], []) == unit_signs(
        "", [["millions"]], [["$"], ["000"]], []
    )


def units(**weights: float) -> UnitWeights:
    return UnitWeights(
        signs=tuple(weights.get(name.replace(".", "_"), 0.0) for name in UNIT_SIGNS), usual=(0.0, 0.5, -1.0)
    )


def test_scale_probability_combines_signs_and_prior() -> None:
    nothing = units().logits([[False] * len(UNIT_SIGNS)] * 3)
    assert [math.exp(one - nothing[0]) for one in nothing] == pytest.approx([1, math.exp(0.5), math.exp(-1)])
    assert sum(map(math.exp, nothing)) == pytest.approx(1)
    found = units(word_head=3.0).logits(unit_signs("", [["in billions"]], [], ["5 million"]))
    assert [one - nothing[0] for one in found] == pytest.approx(
        [found[0] - nothing[0], found[0] - nothing[0] + 0.5, found[0] - nothing[0] + 2]
    )


def test_scale_large_weights_do_not_overflow() -> None:
    found = UnitWeights(signs=(900.0,) * len(UNIT_SIGNS), usual=(0.0,) * 3).logits(
        [[True] * len(UNIT_SIGNS), [False] * len(UNIT_SIGNS), [False] * len(UNIT_SIGNS)]
    )
    assert found[0] == pytest.approx(0)
    assert all(math.isfinite(one) for one in found)


@pytest.mark.parametrize(
    "given",
    [{"signs": [0.0] * 7}, {"usual": [0.0] * 4}, {"signs": [math.nan] * 8}, {"signs": [1e300] * 8}, {"more": 1}],
)
def test_scale_weights_of_invalid_form_are_refused(given: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        UnitWeights.model_validate({"signs": [0.0] * len(UNIT_SIGNS), "usual": [0.0] * len(UNITS), **given})

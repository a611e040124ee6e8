"""Which unit figures are in, by the words around them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from pydantic import ValidationError

from orchestra.agent.units import PLACES, SIGNS, UNITS, Units, signs

QUESTION, HEAD, ROWS, TEXT = range(len(PLACES))


def seen(text: str, place: int = TEXT) -> list[list[str]]:
    """The names of what is seen of each unit where a text stands in one place."""
    given: list[Sequence[Sequence[str]]] = [[], [["", text]], [["Sales", text]]]
    parts = [given[place] if place == at else [] for at in (HEAD, ROWS)]
    found = signs(text if place == QUESTION else "", parts[0], parts[1], [text] if place == TEXT else [])
    return [[name for name, one in zip(SIGNS, unit, strict=True) if one] for unit in found]


@pytest.mark.parametrize("place", range(len(PLACES)), ids=PLACES)
@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_is_seen_in_its_place_and_no_other_is(unit: str, place: int) -> None:
    found = seen(f"about five {unit}", place)
    assert found == [[f"word.{PLACES[place]}"] if one == unit else [] for one in UNITS]


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("(in thousands)", "thousand"),
        ("In thousands of dollars", "thousand"),
        ("in U.S. Thousands", "thousand"),
        ("$000", "thousand"),
        ("€’000", "thousand"),
        ("All figures in 000s", "thousand"),
        ("(in millions, except per share data)", "million"),
        ("millions of yen", "million"),
        ("£m", "million"),
        ("$ millions and (€mn", "million"),
        ("USD m", "million"),
        ("in € billions", "billion"),
        ("$bn", "billion"),
    ],
)
def test_how_a_unit_is_stated_for_all_figures(text: str, unit: str) -> None:
    stated = [any(name.startswith("stated") for name in names) for names in seen(text)]
    assert stated[UNITS.index(unit)]
    assert sum(stated) == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "12,000 sold",
        "12 000 sold",
        "the 12,000s",
        "model 5000",
        "a thousandth",
        "Mme Bovary",
        "$5",
        "billiards",
        "3.5 km",
        "the m1 road",
    ],
)
def test_what_is_no_unit(text: str) -> None:
    assert seen(text) == [[], [], []]


def test_of_one_figure_a_unit_is_said_and_not_stated() -> None:
    assert seen("we sold $5 million of it") == [[], ["word.text"], []]


def units(**weights: float) -> Units:
    return Units(signs=tuple(weights.get(name.replace(".", "_"), 0.0) for name in SIGNS), usual=(0.0, 0.5, -1.0))


def test_units_are_as_probable_as_their_signs_and_how_usual_they_are() -> None:
    nothing = units().logits([[False] * len(SIGNS)] * 3)
    assert [math.exp(one - nothing[0]) for one in nothing] == pytest.approx([1, math.exp(0.5), math.exp(-1)])
    assert sum(map(math.exp, nothing)) == pytest.approx(1)
    found = units(word_head=3.0).logits(signs("", [["in billions"]], [], ["5 million"]))
    assert [one - nothing[0] for one in found] == pytest.approx(
        [found[0] - nothing[0], found[0] - nothing[0] + 0.5, found[0] - nothing[0] + 2]
    )


def test_great_weights_overflow_nothing() -> None:
    found = Units(signs=(900.0,) * len(SIGNS), usual=(0.0,) * 3).logits([[True] * len(SIGNS), [False] * len(SIGNS), [False] * len(SIGNS)])
    assert found[0] == pytest.approx(0)
    assert all(math.isfinite(one) for one in found)


@pytest.mark.parametrize("given", [{"signs": [0.0] * 7}, {"usual": [0.0] * 4}, {"signs": [math.nan] * 8}, {"more": 1}])
def test_weights_of_another_form_are_refused(given: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Units.model_validate({"signs": [0.0] * len(SIGNS), "usual": [0.0] * len(UNITS), **given})

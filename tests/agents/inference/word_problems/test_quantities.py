"""Tests quantities: the numbers of a problem, their positions and their kinds."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.agents.inference.word_problems.quantities import MAX_QUANTITIES, decimal_text, find_quantities


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("48 jars and 1,200.50 euros", ["48", "1200.5"]),
        ("1.234,50 and 2 000", ["1234.5", "2000"]),
        ("$.5 an apple", ["0.5"]),
        ("20% off, thirty percent more, 5 cents each", ["20", "0.2", "30", "0.3", "100", "5", "0.05"]),
        ("three hundred and twenty-five, two three", ["325", "2", "3"]),
        ("five thousand two hundred men, one hundred", ["5200", "100"]),
        ("twenty five and nineteen two", ["25", "19", "2"]),
        ("half of it, a third, three quarters", ["2", "0.5", "3", "3", "4", "0.25"]),
        ("twice as many, two dozen, a pair", ["2", "2", "12", "2"]),
        ("½ of ⅓, 1½ hours, 2.5e3", ["2", "0.5", "3", "1.5", "2500"]),
        ("3/4 of 1/3", ["3", "0.75", "4", "1", "3"]),
        ("from 3-5, v2, 42nd, 12:30", ["3", "5", "42", "12", "30"]),
        ("1234567890123456 is no quantity", []),
        ("a tenth and sevenths", ["10", "0.1", "7"]),
        ("Nobody has any.", []),  # prose: ok
        (
            "three million, 2.5 billion, two hundred and fifty million",
            ["3", "3000000", "2.5", "2500000000", "250", "250000000"],
        ),
        ("a million of 12 lakh and 5 thousand millions", ["1000000", "12", "1200000", "5", "1000", "1000000000"]),
        ("1000000000 million, millions", ["1000000000"]),
        ("the twenty-first, the one hundred and thirty-third", ["21", "133"]),
        ("a thirty-second break, thirty seconds, twenty-fifths", ["30", "30", "20", "5", "0.2"]),
        ("1⅓ cups, 2 ⅔ and 1⅙, but 1½ and 1.5e-30", ["4", "3", "8", "3", "7", "6", "1.5"]),
        ("twenty and five, one hundred and two hundred", ["20", "5", "100", "200"]),
        ("one hundred and one hundred and one, two hundred thousand and five", ["100", "101", "200005"]),
        ("2,3,5 of 3.11.9 on 12.05.2024", ["2", "3", "5"]),
        ("ſix, fıve, tenthſ", ["6", "5", "10", "0.1"]),
        ("1" * 5000 + "½ of 1e999 and " + "seven " + "hundred " * 11, []),
    ],
)
def test_numbers_are_read_in_digits_and_in_words(text: str, found: list[str]) -> None:
    assert [one.text for one in find_quantities(text)] == found


def test_quantity_has_its_position() -> None:
    text = "Ann has thirty-two pears, 20 % of which are bad, and eats half."
    assert [text[one.start : one.end] for one in find_quantities(text)] == ["thirty-two", "20", "20 %", "half", "half"]


def test_quantities_of_long_text_keep_the_first() -> None:
    assert [one.text for one in find_quantities(", ".join(map(str, range(100, 200))))] == [
        str(number) for number in range(100, 100 + MAX_QUANTITIES)
    ]


@given(
    st.lists(st.sampled_from(["two", "twenty", "hundred", "thousand", "and", "seven", "-", "half"]), max_size=20).map(
        " ".join
    )
)
def test_quantity_text_equals_its_value(text: str) -> None:
    assert all(Fraction(one.text) == one.value for one in find_quantities(text))


@given(st.text(alphabet="0123456789.,'% -/½ſİhalftwodozenurHD", max_size=60))
def test_quantities_of_any_text_have_exact_span_and_decimal(text: str) -> None:
    for one in find_quantities(text):
        assert 0 <= one.start < one.end <= len(text)
        assert Fraction(one.text) == one.value
        assert decimal_text(one.value) == one.text


def test_quantity_has_its_kind() -> None:
    found = [(one.text, one.kind) for one in find_quantities("2 million, two million, 1⅓, twenty-first")]
    assert found == [
        ("2", "digits"), ("2000000", "digits"), ("2", "words"), ("2000000", "words"), ("4", "digits"),
        ("3", "divisor"), ("21", "words"),
    ]  # fmt: skip

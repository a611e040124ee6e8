"""Figures: notations of other countries, and columns that determine the meaning of points and commas."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.text.numbers.numerals import NUMERAL, plain_decimal, uses_decimal_comma


def read(text: str, *, points: bool = False) -> str:
    """Returns the first number of a text."""
    found = re.search(NUMERAL, text)
    assert found is not None
    return plain_decimal(found[0], decimal_comma=points)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1,234.50", "1234.50"), ("1.234,50", "1234.50"), ("1 234,50", "1234.50"), ("1'234.50", "1234.50"),
        ("1’234,50", "1234.50"), ("1\u00a0234", "1234"), ("1\u202f234.5", "1234.5"), ("1\u2009234\u2009567", "1234567"),
        ("1.234.567", "1234567"), ("1.234.567,8", "1234567.8"), ("1,234,567", "1234567"), ("12,34,567", "1234567"),
        ("1,234", "1234"), ("1.234", "1.234"), ("12,5", "12.5"), ("0,125", "0.125"), ("1,0845", "1.0845"),
        ("999,00", "999.00"), (".5", ".5"), ("2019", "2019"), ("2019 2018", "2019"), ("5 10", "5"),
        ("12 345 67", "12345"), ("1 2345", "1"), ("1.2.3", "1.2"), ("192.168.0.1", "192.168"), ("30.9.2024", "30.9"),
        ("1,2,3", "123"), ("2,5.", "2.5"), ("7, 8", "7"), ("1234,567", "1234567"),
    ],
)  # fmt: skip
def test_parse_numeral_values(text: str, number: str) -> None:
    assert read(text) == number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1.234", "1234"), ("999.000", "999000"), ("1,234", "1.234"), ("1234,567", "1234.567"), ("12.5", "12.5"),
        ("0.125", "0.125"), ("1.5000", "1.5000"), ("1,234.50", "1234.50"), ("12,5", "12.5"), ("7", "7"),
    ],
)  # fmt: skip
def test_parse_numeral_point_next_to_grouped_numbers(text: str, number: str) -> None:
    assert read(text, points=True) == number


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        (["1.234,50 €", "999"], True), (["1.234.567", "999.000"], True), (["€ 1.500", "750,50"], True),
        (["EUR 1.500", "-750,5"], True), (["999.000"], False), (["1,234.50", "999"], False), (["1,234", "12,5"], False),
        (["1.234,50", "1,234.50"], False), (["1.234", "0.5"], False), (["12,5", "12.5"], False),
        (["earnings per share (1,2)", "1.234"], False), (["yes", ""], False), ([], False),
    ],
)  # fmt: skip
def test_uses_decimal_comma_needs_one_clear_number(texts: list[str], found: bool) -> None:
    assert uses_decimal_comma(texts) is found


@given(st.decimals(-(10**9), 10**9, places=2), st.sampled_from([",.", ".,", " ,", " .", "'.", "’,", "\u202f,"]))
def test_parse_numeral_spellings_are_equal(number: object, marks: str) -> None:
    written = f"{number:,.2f}".lstrip("-").translate(str.maketrans(",.", marks))
    assert read(written) == f"{number:.2f}".lstrip("-")


@given(st.text(max_size=20), st.booleans())
def test_parse_numeral_any_text(text: str, points: bool) -> None:
    assert all(float(plain_decimal(found[0], decimal_comma=points)) >= 0 for found in re.finditer(NUMERAL, text))

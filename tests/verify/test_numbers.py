"""Numbers and dates, as texts write them."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.verify.numbers import days, numbers, same


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1,452.4", "1452.4"), ("3.5 million", "3500000"), ("17.7%", "0.177"), ("17.7 per cent", "0.177"), ("5k", "5000"),
        ("£12bn", "12000000000"), ("12 000", "12000"), ("-4", "-4"), ("− 4", "-4"), ("US$ 5", "5"), ("25 dollars", "25"), ("4th", "4"),
        ("10-15", "10"), ("5-million dollar", "5000000"), ("in 1901.", "1901"), ("(1901)", "1901"),
    ],
)  # fmt: skip
def test_a_number_has_its_value(text: str, value: str) -> None:
    assert numbers(text)[0].value == Fraction(value)


@pytest.mark.parametrize("text", ["none", "x2y", "v1", "three"])
def test_what_is_no_number_is_none(text: str) -> None:
    assert numbers(text) == []


@pytest.mark.parametrize(
    ("text", "values"),
    [("twenty-one dogs", [21]), ("three hundred thousand men", [300_000]), ("one of two million", [1, 2_000_000]), ("bone", [])],
)
def test_written_numbers_are_read_where_they_are_asked_for(text: str, values: list[int]) -> None:
    assert [number.value for number in numbers(text, words=True)] == values


@given(st.integers(0, 10**12), st.integers(0, 4))
def test_thousands_and_decimals_say_the_same_number(whole: int, places: int) -> None:
    shown = f"{whole / 10**places:,.{places}f}"
    assert numbers(f"about {shown} units")[0].value == Fraction(shown.replace(",", ""))


@pytest.mark.parametrize(
    ("answer", "evidence", "equal"),
    [
        ("5 million", "5,000,000", True), ("17.7%", "17.7 percent", True), ("17.7", "17.7%", True), ("0.177", "17.7%", True),
        ("$5", "5 dollars", True), ("5", "$5", True), ("$5", "5 euros", False), ("5", "5 million", False), ("1901", "1902", False),
        ("3.1", "(3.1)", True), ("4", "-4", False), ("1.50", "1.5", True), ("5 %", "5 million", False),
    ],
)  # fmt: skip
def test_two_numbers_say_the_same_or_not(answer: str, evidence: str, equal: bool) -> None:
    assert same(numbers(answer)[0], numbers(evidence)[0]) is equal


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("4 July 1901", (1901, 7, 4)), ("July 4th, 1901", (1901, 7, 4)), ("1901-07-04", (1901, 7, 4)), ("the 4th of July", (None, 7, 4)),
        ("May 2020", (2020, 5, None)), ("25/12/2020", (2020, 12, 25)),
    ],
)  # fmt: skip
def test_a_date_is_read(text: str, found: tuple[int | None, int, int | None]) -> None:
    day = days(text)[0]
    assert (day.year, day.month, day.day) == found


def test_a_day_that_does_not_exist_is_no_date() -> None:
    assert days("31/02/2026, 2026-02-30, 31 April") == []


@pytest.mark.parametrize(
    ("answer", "evidence", "agrees"),
    [
        ("4 July 1901", "July 4, 1901", True), ("July 1901", "July 4, 1901", True), ("4 July", "1901-07-04", True),
        ("4 July 1901", "4 July", False), ("4 July 1901", "July 5, 1901", False), ("3/4/2026", "April 3, 2026", True),
        ("March 4, 2026", "3/4/2026", True),
    ],
)  # fmt: skip
def test_a_date_agrees_with_one_that_says_at_least_as_much(answer: str, evidence: str, agrees: bool) -> None:
    assert days(answer)[0].agrees(days(evidence)[0]) is agrees

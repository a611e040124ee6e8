"""Numbers and dates in text."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.text.numbers.numbers import find_dates, find_numbers, same_number


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1,452.4", "1452.4"), ("3.5 million", "3500000"), ("17.7%", "0.177"), ("17.7 per cent", "0.177"),
        ("5k", "5000"), ("£12bn", "12000000000"), ("12 000", "12000"), ("-4", "-4"), ("− 4", "-4"), ("US$ 5", "5"),
        ("25 dollars", "25"), ("4th", "4"), ("10-15", "10"), ("5-million dollar", "5000000"), ("in 1901.", "1901"),
        ("(1901)", "1901"), (".305", "0.305"), ("-.5", "-0.5"), ("p.12", "12"), ("....5", "5"), ("USD9", "9"),
        ("v1.5", "1.5"), ("1.5e6", "1500000"), ("at 5e-4.", "0.0005"), ("½ cup", "1/2"), ("1½", "3/2"), ("2 ⅓", "7/3"),
        ("5‰", "0.005"), ("17.7 pct", "0.177"), ("2 hundred", "200"), ("5 hundred thousand", "500000"),
        ("5 lakh", "500000"), ("₹1,23,456", "123456"), ("1.234", "1.234"), ("1.234.567", "1234567"),
        ("1.234,56", "1234.56"), ("1.234.567,8", "1234567.8"), ("1,234,567.8", "1234567.8"), ("1'000", "1000"),
        ("1’000.50", "1000.5"), ("12\u00a0000", "12000"), ("12\u202f000,5", "12000.5"), ("€1,56", "1.56"),
        ("0,5 l", "0.5"), ("1,5 Millionen", "1.5"), ("3,14 %", "0.0314"), ("0.123,5", "0.123"), ("1,5\n2,6", "1"),
        ("(3,5)", "3"),
    ],
)  # fmt: skip
def test_find_numbers_values(text: str, value: str) -> None:
    assert find_numbers(text)[0].value == Fraction(value)


@pytest.mark.parametrize("text", ["none", "x2y", "v1", "three"])
def test_find_numbers_ignores_non_numbers(text: str) -> None:
    assert find_numbers(text) == []


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("twenty-one dogs", [21]), ("three hundred thousand men", [300_000]), ("one of two million", [1, 2_000_000]),
        ("bone", []), ("one hundred and two hundred", [100, 200]), ("one hundred and five", [105]),
        ("two hundred three", [203]), ("between one hundred and two thousand", [100, 2000]),
        ("between one hundred and fifty and two hundred", [150, 200]), ("one hundred and two thousand", [102_000]),
        ("one thousand two hundred", [1200]), ("two thousand three", [2003]),
        ("two million three hundred thousand and five", [2_300_005]), ("one thousand and two thousand", [1000, 2000]),
        ("two thousand million", [2 * 10**9]), ("a hundred", [100]), ("a thousand and one nights", [1001]),
        ("a million", [10**6]), ("a cat", []), ("half a million", [500_000]), ("a quarter of a million", [250_000]),
        ("three quarters of a million", [750_000]), ("two thirds of a million", [2]), ("half the people", []),
        ("two and a half million", [2_500_000]), ("a million and a half", [1_500_000]), ("twelve hundred", [1200]),
        ("nineteen hundred and five", [1905]), ("\u017feventy-\u017fix m\u0131llion", [76_000_000]),
    ],
)  # fmt: skip
def test_find_numbers_written_numbers_on_request(text: str, values: list[int]) -> None:
    assert [number.value for number in find_numbers(text, words=True)] == values


def test_find_dates_case_folded_month() -> None:
    assert [day.month for day in find_dates("3 \u017fept 2020")] == [9]


@given(st.integers(0, 10**12), st.integers(0, 4))
def test_same_number_thousands_and_decimals(whole: int, places: int) -> None:
    shown = f"{whole / 10**places:,.{places}f}"
    assert find_numbers(f"about {shown} units")[0].value == Fraction(shown.replace(",", ""))


@pytest.mark.parametrize(
    ("answer", "evidence", "equal"),
    [
        ("5 million", "5,000,000", True), ("17.7%", "17.7 percent", True), ("17.7", "17.7%", True),
        ("0.177", "17.7%", True), ("$5", "5 dollars", True), ("5", "$5", True), ("$5", "5 euros", False),
        ("5", "5 million", False), ("1901", "1902", False), ("3.1", "(3.1)", True), ("4", "-4", False),
        ("1.50", "1.5", True), ("5 %", "5 million", False), ("5%", "5‰", False), ("5", "5m", True),
        ("5 million", "5m", True), ("5m", "5", False), ("324m", "324 m", True), ("5 mm", "5 m", False),
        ("5mm", "5m", False), ("$5m", "$5 million", True), ("$5", "$5m", False), ("5M", "5 million", True),
        ("5", "5M", False), ("3.11.7", "3.11.7", True), ("3.11.7", "3.11.9", False), ("3.11", "3.11.7", False),
        ("1" * 44, "1" * 44, True), ("1" * 44, "1" * 43 + "2", False),
    ],
)  # fmt: skip
def test_same_number_pairs(answer: str, evidence: str, equal: bool) -> None:
    assert same_number(find_numbers(answer)[0], find_numbers(evidence)[0]) is equal


@pytest.mark.parametrize(
    ("text", "value", "dashed"),
    [
        ("-5", -5, False), ("−5", -5, False), ("− 5", -5, True), ("–5 °C", -5, True), ("- 5", 5, True),
        ("– 5", 5, True), ("5", 5, False), ("$-5", -5, False), ("a -5", -5, False), ("‑5", -5, False),
    ],
)  # fmt: skip
def test_minus_and_dash_before_digits(text: str, value: int, dashed: bool) -> None:
    [number] = find_numbers(text)
    assert (int(number.value), number.uncertain_minus) == (value, dashed)


@pytest.mark.parametrize(
    "text", ["10 - 20", "10-20", "10 – 20", "10–20", "10 –20", "10 − 20", "10%-20%", "10%–20%", "€10-€20"]
)
def test_dash_between_numbers_is_not_minus(text: str) -> None:
    assert [number.plain for number in find_numbers(text)] == [10, 20]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("324 m high", 324), ("In 1990 M. Curie", 1990), ("5\nB. Second", 5), ("Form 10-K", 10), ("5 K. Second", 5),
        ("5 K people", 5000), ("$5\nM", 5), ("$5 M", 5_000_000), ("$5 m. The", 5_000_000), ("5 m €", 5_000_000),
        ("$5M. The", 5_000_000), ("5k", 5000), ("3\nmillion", 3_000_000),
    ],
)  # fmt: skip
def test_letter_is_scale_next_to_digits_or_currency(text: str, value: int) -> None:
    assert find_numbers(text)[0].value == value


@pytest.mark.parametrize("text", ["1920x1080", "05T10:30", "4.7.2026", "2026.07.04"])
def test_adjacent_numbers_are_all_read(text: str) -> None:
    assert len(find_numbers(text)) == text.count("x") + text.count("T") + text.count(":") + text.count(".") + 1


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("4 July 1901", (1901, 7, 4)), ("July 4th, 1901", (1901, 7, 4)), ("1901-07-04", (1901, 7, 4)),
        ("the 4th of July", (None, 7, 4)), ("May 2020", (2020, 5, None)), ("25/12/2020", (2020, 12, 25)),
        ("2026-01-05T10:00:00Z", (2026, 1, 5)), ("2026/01/05", (2026, 1, 5)), ("25.12.2020", (2020, 12, 25)),
    ],
)  # fmt: skip
def test_find_dates_values(text: str, found: tuple[int | None, int, int | None]) -> None:
    day = find_dates(text)[0]
    assert (day.year, day.month, day.day) == found


def test_find_dates_ignores_invalid_day() -> None:
    assert find_dates("31/02/2026, 2026-02-30, 31 April") == []


@pytest.mark.parametrize(
    ("answer", "evidence", "agrees"),
    [
        ("4 July 1901", "July 4, 1901", True), ("July 1901", "July 4, 1901", True), ("4 July", "1901-07-04", True),
        ("4 July 1901", "4 July", False), ("4 July 1901", "July 5, 1901", False), ("3/4/2026", "April 3, 2026", True),
        ("March 4, 2026", "3/4/2026", True),
    ],
)  # fmt: skip
def test_date_matches_more_exact_date(answer: str, evidence: str, agrees: bool) -> None:
    assert find_dates(answer)[0].matches(find_dates(evidence)[0]) is agrees

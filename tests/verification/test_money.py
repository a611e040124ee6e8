"""Currencies, units and percentages: numbers of different units differ."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.core.protocols import EvidenceSource
from orchestra.text.numbers.currencies import CODES, are_different, currency_code
from orchestra.text.numbers.units import UNIT_NAMES, unit_at
from orchestra.verification.standalone import verify_answer

CODE = st.sampled_from([code for code in CODES if code != "RMB"])
UNIT = st.sampled_from(sorted(set(UNIT_NAMES) - {"mm"}))  # `5 mm` may be millions


def outcome(answer: Any, evidence: str, check: str = "numbers") -> str:
    [verdict] = verify_answer(answer, (EvidenceSource(evidence),), [check]).verdicts
    return verdict.outcome


@pytest.mark.parametrize(
    ("answer", "evidence", "says"),
    [
        ("$5", "5 dollars", "pass"), ("EUR 5", "€5", "pass"), ("£5m", "£5 million", "pass"), ("5", "€5", "pass"),
        ("€5", "$5", "fail"),
        ("$5", "5 euros", "fail"), ("$5m", "$5", "unknown"), ("€6", "€5", "fail"),
        ("five dollars", "five euros", "fail"),
        ("It cost A$100.", "It cost US$100.", "fail"), ("C$5 million", "US$5 million", "fail"),
        ("HK$100", "US$100", "fail"),
        ("HK$100", "$100", "unknown"), ("$100", "A$100", "unknown"), ("US$100", "$100", "pass"),
        ("$100", "USD 100", "pass"),
        ("₽100", "$100", "fail"), ("₩100", "$100", "fail"), ("100 SEK", "$100", "fail"), ("100 kr", "$100", "fail"),
        ("100 pesos", "$100", "fail"), ("100 rubles", "$100", "fail"), ("100 AUD", "100 USD", "fail"),
        ("CAD 100", "USD 100", "fail"),
        ("100 Canadian dollars", "100 Australian dollars", "fail"), ("100 Canadian dollars", "C$100", "pass"),
        ("100 kr", "100 Swedish kronor", "pass"), ("SEK 100", "100 kr", "pass"),
        ("100 Swiss francs", "CHF 100", "pass"),
        ("100 cents", "100 dollars", "unknown"), ("50 cents", "$0.50", "pass"), ("50 pence", "£0.50", "pass"),
        ("AMD 100", "$100", "unknown"), ("VAT 100", "$100", "pass"), ("៛100", "$100", "unknown"),
        ("100 BTC", "$100", "fail"),
        ("50 bps", "50%", "unknown"), ("50 basis points", "0.5%", "pass"), ("10% discount", "10 items", "unknown"),
        ("10 items", "a 10% discount", "unknown"), ("17.7", "17.7%", "pass"), ("17.7%", "17.7", "pass"),
        ("50%", "$50", "fail"),
        ("50%", "50 kg", "fail"), ("$50", "50 kg", "fail"), ("5 pounds", "5 lb", "pass"), ("5 pounds", "5 kg", "fail"),
        ("324 feet", "324 metres", "fail"), ("324 feet", "324 m", "unknown"), ("324 metres", "324 m", "pass"),
        ("5 kg", "5 g", "fail"),
        ("5 km", "5,000 metres", "pass"), ("7 years", "7 months", "fail"), ("18 months", "1.5 years", "pass"),
        ("5 GB", "5 MB", "fail"),
        ("5 litres", "5,000 ml", "pass"), ("7 years", "a 7-year plan", "pass"), ("5 m²", "5 square metres", "pass"),
        ("5 m²", "5 cubic metres", "fail"), ("5 °C", "5 °F", "fail"), ("7 years", "7 of them", "pass"),
        ({"n": 324}, "324 feet", "pass"),
        ("100 km per hour", "100 km/h", "pass"), ("60 mph", "60 miles per hour", "pass"),
        ("60 miles an hour", "60 mph", "pass"),
        ("10 metres per second", "10 m/s", "pass"), ("10 m/s", "10 metres per second", "pass"),
        ("36 km/h", "10 m/s", "pass"),
        ("100 kph", "100 km/h", "pass"), ("100 mph", "100 km/h", "fail"), ("100 km/h", "100 km in an hour", "unknown"),
        ("20 km a day", "20 km each day", "pass"), ("5 days a week", "5 days", "pass"), ("10 m/s", "10 m", "unknown"),
        ("The VAT is $19.00", "NET 100.00 VAT 19.00", "pass"), ("margin 42%", "Europe\t42\tGermany", "pass"),
        ("$5m", "5 m", "unknown"),
        ("5 m", "$5 million", "unknown"), ("$5m", "5m", "pass"), ("5m", "$5 million", "pass"), ("$5m", "$5 m", "pass"),
        ("5 m", "5%", "unknown"), ("₹500", "Rs. 500", "pass"), ("CHF 5", "5 francs", "pass"),
        ("A$5", "5 francs", "fail"),
        ("EGP 10", "10 pounds", "unknown"), ("EGP 10", "10 Egyptian pounds", "pass"),
        ("10 Egyptian pounds", "£10", "fail"),
        ("£10", "10 pounds", "pass"), ("10 pounds", "£10", "pass"), ("$10", "10 pounds", "fail"),
        ("a five-second pause", "5 seconds", "pass"), ("5 seconds", "a five-second pause", "pass"),
    ],
)  # fmt: skip
def test_numbers_of_another_unit_do_not_pass(answer: Any, evidence: str, says: str) -> None:
    assert outcome(answer, evidence) == says


@given(CODE, CODE, st.integers(1, 10**6))
def test_recompute_other_currency_fails_and_same_passes(code: str, other: str, number: int) -> None:
    said = "pass" if currency_code(code) == currency_code(other) else "fail"
    assert outcome(f"It cost {code} {number}.", f"It cost {number} {other}.") == said


@given(
    CODE | st.sampled_from(["$", "¥", "krone", "peso", "cent"]),
    CODE | st.sampled_from(["$", "franc", "rupee", "penny"]),
)
def test_currency_difference_is_symmetric(one: str, other: str) -> None:
    assert are_different(one, one) is False
    assert (are_different(one, other) is True) == (are_different(other, one) is True)


@given(UNIT, UNIT, st.integers(2, 10**4))
def test_units_convert_only_exactly(name: str, other: str, number: int) -> None:
    one, two = UNIT_NAMES[name], UNIT_NAMES[other]
    there = number * one.factor / two.factor
    if one.dimension != two.dimension:
        assert outcome(f"It has {number} {name}.", f"It has {number} {other}.") == "fail"
    elif there.denominator == 1 and there < 10**12:
        assert outcome(f"It has {number} {name}.", f"It has {there} {other}.") == "pass"
    if one != two:
        assert outcome(f"It has {number} {name}.", f"It has {number} {other}.") == "fail"


def test_units_square_foot_is_foot_squared() -> None:
    foot, square = UNIT_NAMES["foot"], unit_at("5 square feet", 1)
    assert square is not None
    assert (square.dimension, square.factor) == ("area", foot.factor**2)
    assert UNIT_NAMES["mile"].factor == Fraction("1609.344")


@pytest.mark.parametrize(
    ("expression", "answer", "says"),
    [
        ("€2+€3", "$5", "fail"), ("€2+€3", "€5", "pass"), ("€2+€3", 5, "pass"), ("2+3", "$5", "pass"),
        ("$2+€3", 5, "fail"),
        ("$2+€3", "$5", "fail"), ("$2*1.1", "€2.2", "unknown"), ("$500 / 1.25", "€400", "unknown"),
        ("$500 * 0.92", "€500", "fail"),
        ("€3+€2-$0", "€5", "fail"), ("$100*12%", "$12", "pass"),
        ("$2+$3", "A$5", "unknown"), ("$2+$3", "five euros", "fail"), ("$2*€1.5/$2", "€1.5", "pass"),
        ("€2+€3", "$6", "fail"),
    ],
)  # fmt: skip
def test_recompute_result_needs_currency_of_expression(expression: str, answer: Any, says: str) -> None:
    assert outcome({"expression": expression, "answer": answer}, "", "recompute") == says

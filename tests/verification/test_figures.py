"""Figures: prose, table columns and expressions parse the same digits alike."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.agents.inference.tables.operations import parse_figure
from orchestra.core.protocols import EvidenceSource
from orchestra.text.arithmetic import evaluate
from orchestra.text.numbers.numbers import find_numbers
from orchestra.text.numbers.numerals import NUMERAL, is_identifier, is_single_number, parse_numeral, to_ascii_digits
from orchestra.text.numbers.sort_keys import column_sort_keys
from orchestra.tools.cells import cells
from orchestra.verification.standalone import verify_answer

PER_CENT = st.decimals(0, 500, places=1, allow_nan=False).map(lambda one: f"{one.normalize():f}")

FORMS = [
    ("1,234", "1234"), ("1,234.5", "1234.5"), ("1,234,567", "1234567"), ("12,34,567", "1234567"),
    ("1,23,456.5", "123456.5"),
    ("1.234", "1.234"), ("1.234,5", "1234.5"), ("1.234.567", "1234567"), ("1.234.567,8", "1234567.8"),
    ("0.123", "0.123"),
    ("1 234", "1234"), ("1 234,5", "1234.5"), ("1 234,567", "1234.567"), ("1\u00a0234.5", "1234.5"),
    ("1\u2007234", "1234"),
    ("1\u2009234\u2009567", "1234567"), ("1\u202f234,50", "1234.5"), ("1'234.50", "1234.5"), ("1’234,5", "1234.5"),
    ("12,5", "12.5"), ("0,125", "0.125"), ("1,0845", "1.0845"), ("€1,0845", "1.0845"), ("€12,34,567", "1234567"),
    (".5", "0.5"),
    ("No.5", "5"), ("007", "7"), ("½", "0.5"), ("1½", "1.5"), ("2 ¾", "2.75"), ("€3½", "3.5"),
    ("1.5e6", "1500000"), ("2e-4", "0.0002"), ("1.2 × 10^6", "1200000"), ("1.2×10³", "1200"), ("5 x 10⁻²", "0.05"),
    ("5·10^−2", "0.05"),
    ("-5", "-5"), ("−5", "-5"), ("‐5", "-5"), ("‑5", "-5"), ("–5", "-5"), ("－5", "-5"), ("﹣5", "-5"), ("+5", "5"),
    ("＋5", "5"),
    ("-$5", "-5"), ("$-5", "-5"), ("−½", "-0.5"), ("-0", "0"),
    ("١٢٣", "123"), ("१२३", "123"), ("１２３", "123"), ("１，２３４．５", "1234.5"),
    ("١٬٢٣٤٫٥", "1234.5"), ("￥５００", "500"),
    ("5%", "5"), ("12,5 %", "12.5"), ("٥٪", "5"), ("4th", "4"), ("~5", "5"), ("5*", "5"), ("(see 5)", "5"),
    ("5 kg", "5"),
]  # fmt: skip
SCALED = [
    ("5 million", 6), ("5-million", 6), ("5 hundred thousand", 5), ("5 hundred", 2), ("5 lakh", 5), ("5 crore", 7),
    ("5 tsd.", 3),
    ("5 Mio. €", 6), ("$5 tn", 12), ("€5bn", 9), ("$5M", 6), ("$5mm", 6), ("5 m €", 6), ("£5 k", 3), ("5M€", 6),
    ("5K", 3),
]  # fmt: skip
MANY = ["1,2,3", "1,234,56", "12,345,6", "1,50,0", "2019,2018,2017", "1234,567", "01,234"]
NAMES = ["3.11.9", "192.168.1.1", "1.234.56", "1.500.00"]


@pytest.mark.parametrize(("text", "value"), FORMS)
def test_number_parsers_agree_on_one_number(text: str, value: str) -> None:
    [number] = find_numbers(text)
    assert number.value * (100 if number.percent else 1) == Fraction(value)
    assert column_sort_keys([text]) == [float(Fraction(value))]
    said = parse_figure(text)
    assert said is not None
    assert evaluate(said) == Fraction(value)


@pytest.mark.parametrize(("text", "power"), SCALED)
def test_number_parsers_agree_on_scale_suffixes(text: str, power: int) -> None:
    [number] = find_numbers(text)
    assert number.value == 5 * 10**power
    assert column_sort_keys([text]) == [5.0 * 10**power]


@pytest.mark.parametrize("text", MANY)
def test_number_parsers_never_read_list_as_number(text: str) -> None:
    assert len(find_numbers(text)) > 1
    assert column_sort_keys([text]) == [None]


@pytest.mark.parametrize("text", NAMES)
def test_number_parsers_never_read_version_as_number(text: str) -> None:
    assert find_numbers(text)[0].identifier == text
    assert parse_figure(text) is None
    assert column_sort_keys([text, "12", "13"])[0] is None or column_sort_keys([text]) == column_sort_keys([f"v{text}"])


@given(
    st.lists(
        st.sampled_from(["1", "12", "123", "1234", "0", "000", ".", ",", " ", "'", "\u202f", "½", "e5", "×10^3", "٣"]),
        max_size=6,
    )
)
def test_number_parsers_agree_on_random_texts(parts: list[str]) -> None:
    text = "".join(parts)
    if re.fullmatch(NUMERAL, text) is None:
        return
    found = find_numbers(text)
    assert (len(found) == 1 and not found[0].identifier and found[0].text == text) == is_single_number(text)
    [measured] = column_sort_keys([text])
    if not is_single_number(text):
        assert measured is None or is_identifier(text)
        return
    exact, _ = parse_numeral(text)
    assert found[0].plain == exact
    assert measured == (float(exact) if exact < 10**256 else None)
    said = parse_figure(text)
    assert said is None or evaluate(said) == exact


@given(st.text(max_size=30) | st.text(st.sampled_from("１٣５，．٫٬％－a1,."), max_size=12))
def test_normalized_text_keeps_positions(text: str) -> None:
    plain = to_ascii_digits(text)
    assert len(plain) == len(text)
    assert to_ascii_digits(plain) == plain
    assert [number.value for number in find_numbers(plain)] == [number.value for number in find_numbers(text)]
    assert all(text.startswith(number.text, number.begin) for number in find_numbers(text))


@pytest.mark.parametrize(
    ("answer", "evidence", "says"),
    [
        # ambiguous numbers are unknown, and neither pass nor fail
        ({"n": 1234}, "1.234 Einwohner", "unknown"), ({"n": 12.5}, "in all 12,5; of them", "unknown"),
        ({"n": 12}, "12,5", "unknown"),
        ({"n": 1234567}, "of 12,34,567, they", "unknown"), ({"n": 800}, "a Boeing 737 800", "unknown"),
        ({"n": 737800}, "737 800", "pass"),
        ({"n": 20}, "10,20,300", "unknown"), ({"n": 0}, "12 000 men", "fail"),
        ({"t": -5}, "It fell to minus 5 °C.", "unknown"), ({"t": 5}, "It fell to minus 5 °C.", "pass"),
        ({"t": -6}, "minus 5 °C", "fail"),
        ({"t": -5}, "in terminus 5", "fail"), ({"t": -5}, "It fell to −5 °C.", "pass"),
        # words with non-breaking hyphens
        ("25 men", "twenty‑five men", "pass"), ("62,000", "sixty‐two thousand", "pass"),
        ("20 men", "twenty‑five men", "fail"),
        # powers, fractions, other digits
        ({"n": 1200}, "1.2 × 10³ m", "pass"), ({"n": 10}, "1.2 × 10³ m", "fail"), ({"n": 1.5}, "1½ cups", "pass"),
        ({"n": 1234}, "１，２３４円", "pass"), ("30 dollars", "it takes 12h30", "pass"),
        ({"n": 5000}, "5 Tsd. Euro", "pass"),
        # scripts without spaces
        ("人口は999人", "人口は123人", "fail"), ("人口は123人", "인구는 123명", "pass"), ("약5명", "약6명", "fail"),
        # computed from cells in different notations
        ({"expression": "12.5 - 3.5", "answer": 9}, ["12,5", "3,5"], "pass"),
        ({"expression": "1234567 - 100000", "answer": 1134567}, ["12,34,567", "1,00,000"], "pass"),
        ({"expression": "1234567 - 999000", "answer": 235567}, ["1.234.567", "999.000"], "unknown"),
        ({"expression": "1234567 - 998000", "answer": 236567}, ["1.234.567", "999.000"], "fail"),
    ],
)  # fmt: skip
def test_numbers_evidence_is_parsed_like_the_answer(answer: Any, evidence: str | list[str], says: str) -> None:
    sources = tuple(map(EvidenceSource, [evidence] if isinstance(evidence, str) else evidence))
    [verdict] = verify_answer(answer, sources, ["numbers"]).verdicts
    assert verdict.outcome == says


def test_numbers_column_with_points_matches_by_value() -> None:
    table = [["", "2019"], ["Linz", "1.234.567"], ["Graz", "999.000"]]
    assert [cell.text for cell in cells("", table, "1234567 - 999000")] == ["1.234.567", "999.000"]


@given(PER_CENT, st.sampled_from(["Years", "km", "kg", "Hours", "items", ""]), st.sampled_from([" ", "  ", "\t", "\n"]))
def test_numbers_after_column_header_may_be_percentages(shown: str, behind: str, between: str) -> None:
    evidence = (EvidenceSource(f"Rate (%){between}{shown} {behind} 7".replace("  7", " 7")),)
    assert verify_answer(f"{shown}%", evidence, ("numbers",)).accepted
    assert verify_answer(f"{shown} {behind}".strip(), evidence, ("numbers",)).accepted, "and may be what it was"
    assert not verify_answer(f"{float(shown) + 1000.5:g}%", evidence, ("numbers",)).accepted


@pytest.mark.parametrize("money", ["$500", "€ 500", "US$500"])
def test_numbers_money_after_column_header_is_no_percentage(money: str) -> None:
    assert not verify_answer("500%", (EvidenceSource(f"Growth (%)  {money}"),), ("numbers",)).accepted

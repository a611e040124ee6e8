"""Dates of an answer: their positions in the evidence, and invalid dates."""

from __future__ import annotations

import calendar
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.core.protocols import EvidenceSource
from orchestra.text.numbers.numbers import find_invalid_dates
from orchestra.verification.standalone import verify_answer

FORMS = ("%Y-%m-%d", "%-d %B %Y", "%B %-d, %Y", "%-d %b %Y", "%d/%m/%Y", "%d.%m.%Y")


@given(st.dates(date(1000, 1, 1)), st.sampled_from(FORMS), st.sampled_from(FORMS))
def test_find_dates_has_positions(day: date, form: str, other: str) -> None:
    text = f"It was finished on {day.strftime(other)}, they say."
    ruling = verify_answer(f"on {day.strftime(form)}", (EvidenceSource(text, "tower"),), ["numbers"])
    assert ruling.accepted
    [found] = ruling.evidence
    assert (found.source, found.quote) == ("tower", day.strftime(other))
    assert text[found.start : found.end] == found.quote


@given(st.integers(1000, 2999), st.integers(1, 12), st.integers(1, 31))
def test_invalid_date_fails_even_if_in_evidence(year: int, month: int, day: int) -> None:
    exists = day <= calendar.monthrange(year, month)[1]
    name = calendar.month_name[month]
    for text in (
        f"{year}-{month:02}-{day:02}",
        f"{day} {name} {year}",
        f"{name} {day}, {year}",
        f"{day:02}.{month:02}.{year}",
    ):
        said = f"on {text}"
        assert bool(find_invalid_dates(said)) is not exists
        [verdict] = verify_answer({"answer": said}, (EvidenceSource(said),), ["numbers"]).verdicts
        assert verdict.outcome == ("pass" if exists else "fail"), text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("In June 31 people died.", "pass"), ("It fell in June 31%.", "pass"), ("in Feb 30.5 million", "pass"),
        ("version 2024.02.30", "pass"), ("Jan 10, Feb 30, Mar 40", "unknown"), ("12 in Feb 30 in Mar", "pass"),
        ("on February 30 the board met", "unknown"),
        ("due on February 30.", "fail"), ("on 30 February", "fail"), ("on June 31, 2020 they met", "fail"),
        ("on 2024.02.30", "fail"),
    ],
)  # fmt: skip
def test_month_with_count_is_not_invalid_date(text: str, says: str) -> None:
    assert [one.outcome for one in verify_answer({"answer": text}, (EvidenceSource(text),), ["numbers"]).verdicts] == [
        says
    ]


@pytest.mark.parametrize(
    "text", ["version 31.2.1", "12-31-99", "April 2020", "31 people", "room 30, February", "2026-40-77", "0/5/2020"]
)
def test_non_date_is_not_invalid_date(text: str) -> None:
    assert find_invalid_dates(text) == []

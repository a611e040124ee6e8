"""Spans extended to complete words, and spaces between two numbers of a cell."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.agents.inference.tables.operations import parse_figure
from orchestra.text.keywords import expand_to_words


@pytest.mark.parametrize(
    ("text", "part", "said"),
    [
        ("to $5.3M from", "$5.3", "$5.3M"),
        ("30kg", "30", "30kg"),
        ("a 2,800 b", "8", "2,800"),
        ("Moby _Dick_", "Dick", "Dick"),
    ],
)
def test_expand_to_words_completes_cut_words(text: str, part: str, said: str) -> None:
    at = text.index(part)
    assert text[slice(*expand_to_words(text, at, at + len(part)))] == said


@given(
    st.text(max_size=12) | st.text(st.sampled_from("aOtsN\u0301½1.,'’5 -−:_\u00ad佐한"), max_size=12),
    st.integers(0, 12),
    st.integers(0, 12),
)
def test_expand_to_words_contains_span(text: str, one: int, other: int) -> None:
    start, end = sorted((min(one, len(text)), min(other, len(text))))
    first, last = expand_to_words(text, start, end)
    assert 0 <= first <= start <= end <= last <= len(text)
    assert expand_to_words(text, first, last) == (first, last)


@pytest.mark.parametrize(
    ("cell", "digits"),
    [("Boeing 737 800", "737"), ("Game 3 120 pts", "3"), ("USD 12 345", "12345"), ("12 345,67", "12345.67")],
)
def test_expand_to_words_two_numbers_after_word(cell: str, digits: str) -> None:
    assert parse_figure(cell) == digits

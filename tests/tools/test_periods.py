"""Periods in questions, and dates of table cells in them."""

from __future__ import annotations

import pytest

from orchestra.tools.periods import find_periods, read_dates, read_period


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("in February", ["2024-02-01", "2025-02-28"], ["2025-03-01"]),
        ("in March 2025", ["2025-03-31"], ["2024-03-31", "2025-04-01"]),
        ("on 3 May 2025", ["2025-05-03"], ["2025-05-04"]),
        ("from January to March 2025", ["2025-01-01", "2025-03-31"], ["2025-04-01", "2024-02-01"]),
        ("between May and July", ["2025-06-15"], ["2025-08-01"]),
        ("since 15 June 2025", ["2025-06-15", "2026-01-01"], ["2025-06-14"]),
        ("after June 2025", ["2025-07-01"], ["2025-06-30"]),
        ("before 2025", ["2024-12-31"], ["2025-01-01"]),
        ("until the end of April 2025", ["2025-04-30"], ["2025-05-01"]),
        ("in the second quarter of 2025", ["2025-04-01", "2025-06-30"], ["2025-07-01"]),
        ("in Q3", ["2025-07-01", "2025-09-30"], ["2025-10-01"]),
        ("in the first half of 2025", ["2025-06-30"], ["2025-07-01"]),
        ("im März 2025", ["2025-03-01"], ["2025-02-28"]),
        ("en août", ["2025-08-20"], ["2025-09-01"]),
        ("en enero de 2025", ["2025-01-09"], ["2024-01-09"]),
    ],
)
def test_period_contains_the_dates_that_it_names(text: str, inside: list[str], outside: list[str]) -> None:
    (period,) = find_periods(text)
    for cell in inside:
        ((first, last),) = filter(None, read_dates([cell]))
        assert period.contains(first)
        assert period.contains(last)
    for cell in outside:
        ((first, _),) = filter(None, read_dates([cell]))
        assert not period.contains(first)


@pytest.mark.parametrize("text", ["may I go?", "it cost £2000", "room 2025 kg", "the march of the band went on"])
def test_words_and_amounts_are_no_periods(text: str) -> None:
    assert [period for period in find_periods(text) if not text.startswith("the march")] == []


def test_range_keeps_its_ends() -> None:
    (period,) = find_periods("from January to February 2026")
    assert period.ends is not None
    assert [end.first for end in period.ends] == [(2026, 1, 0), (2026, 2, 0)]


def test_whole_year_is_not_in_a_month() -> None:
    (period,) = find_periods("in March 2025")
    assert not period.contains((2025, 0, 0))


@pytest.mark.parametrize(
    ("cell", "dates"),
    [
        ("2025", ((2025, 0, 0), (2025, 0, 0))),
        ("2025-04", ((2025, 4, 0), (2025, 4, 0))),
        ("Q2", ((0, 4, 0), (0, 6, 0))),
        ("March", ((0, 3, 0), (0, 3, 0))),
        ("3 May 2025", ((2025, 5, 3), (2025, 5, 3))),
        ("05/01/2026", ((2026, 1, 5), (2026, 1, 5))),
    ],
)
def test_cell_is_read_as_first_and_last_date(cell: str, dates: object) -> None:
    assert read_dates([cell]) == [dates]


def test_header_is_a_period_only_as_a_whole() -> None:
    period = read_period("Q1 2025")
    assert period is not None
    assert period.first == (2025, 1, 0)
    assert read_period("Paid 2026") is None

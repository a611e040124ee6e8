"""Sort keys of less common dates: with a time, with slashes, months, quarters and halves; and dates among words."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.text.numbers.sort_keys import BELOW, FROM, column_sort_keys, filter_by_limit, find_extremes

IN_ORDER = [
    ["2024-01-05 10:00", "2024-01-05 10:01", "2024-03-01 09:00"],
    ["2024-01-05T10:00:00Z", "2024-01-05T10:00:01Z", "2024-03-01T09:00:00Z"],
    ["2024-01-05T10:00:00.5+02:00", "2024-01-05T09:00:00Z", "2024-01-05T09:00:00-01:00"],
    ["5 Jan 2023, 10:00", "6 Dec 2023 at 9:00 am", "6 Dec 2023 1:05 p.m."],
    ["2023/12/31", "2024/1/5", "2024/03/01"],
    ["H2 2022", "H1 2023", "H2 2023"],
    ["2H 2022", "1H 2023", "2H 2023"],
    ["2022 Q4", "2023-Q1", "2023 Q3"],
    ["Q4 '22", "Q1 '23"],
    ["12/2023", "01/2024", "3/2024"],
    ["Dec-23", "Jan-24", "Feb-24"],
    ["Dec '23", "Jan '24", "Jan-2025"],
    ["31-Dec-2023", "5-Jan-24", "05-Feb-2024"],
    ["31 December 2023 23:59", "1 January 2024", "1 January 2024 0:01"],
]


@pytest.mark.parametrize("column", IN_ORDER)
def test_sort_keys_of_dates_with_times(column: list[str]) -> None:
    found = [value for value in column_sort_keys(column) if value is not None]
    assert len(set(found)) == len(column)
    assert found == sorted(found)
    assert find_extremes(list(reversed(column)), largest=True) == [0]


TIMES = st.datetimes(datetime.datetime(1900, 1, 1), datetime.datetime(2100, 1, 1))


@given(TIMES, TIMES, st.sampled_from(["%Y-%m-%d %H:%M:%S", "%d %b %Y %I:%M:%S %p"]))
def test_sort_keys_of_two_date_times_are_ordered(one: datetime.datetime, other: datetime.datetime, form: str) -> None:
    first, second = (time.replace(microsecond=0) for time in (one, other))
    left, right = column_sort_keys([first.strftime(form), second.strftime(form)])
    assert left is not None
    assert right is not None
    assert (left < right) == (first < second)


def test_filter_by_limit_date_times() -> None:
    column = ["2024-01-05 10:00", "2024-01-05 18:30", "2024-03-01 09:00"]
    assert filter_by_limit(column, "2024-02-01", BELOW) == [True, True, False]
    assert filter_by_limit(column, "5 january 2024", FROM) == [True, True, True]
    assert filter_by_limit(column, "2024-01-05 12:00", FROM) == [False, True, True]


def test_sort_keys_date_among_words_is_not_number() -> None:
    assert column_sort_keys(["due 2024-03-01", "paid 5 Jan 2024", "on 3/4/2024", "May 5, 2024 (late)"]) == [None] * 4
    assert column_sort_keys(["about 12", "3 since 2024-03-01", "7 in May 2021"]) == [12, 3, 7]

"""Measures: what columns are put in order by, and which columns have none."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.values.measure import extremes, measures


@pytest.mark.parametrize(
    ("column", "values"),
    [
        (["$1,200", "€ 300", "45.50", "£.5"], [1200, 300, 45.5, 0.5]),
        (["9.40", "10.05", "12.75"], [9.4, 10.05, 12.75]),
        (["1 200", "900"], [1200, 900]),
        (["12.5%", "3 %"], [12.5, 3]),
        (["1.2 billion", "900 million", "$2bn", "4 thousand"], [1.2e9, 9e8, 2e9, 4000]),
        (["5 m", "12 kg", "3rd"], [5, 12, 3]),
    ],
)
def test_prices_and_other_numbers_are_in_order_of_what_they_say(column: list[str], values: list[float]) -> None:
    assert measures(column) == pytest.approx(values)


@pytest.mark.parametrize(
    ("column", "values"),
    [
        (["(300)", "250", "($1,200)"], [-300, 250, -1200]),
        (["-5", "−3", "–4", "- $2", "6"], [-5, -3, -4, -2, 6]),
        (["-$5", "$-6", "$3"], [-5, -6, 3]),
        (["2010-15", "2011–12", "No–7"], [2010, 2011, 7]),
    ],
)
def test_numbers_in_brackets_and_behind_a_minus_are_negative_and_behind_others_they_are_not(column: list[str], values: list[float]) -> None:
    assert measures(column) == values


@pytest.mark.parametrize(
    ("column", "minutes"),
    [
        (["9:40", "10:05", "23:59"], [580, 605, 1439]),
        (["9.40 am", "12.05 a.m.", "12.30 pm", "1.15 p.m."], [580, 5, 750, 795]),
        (["9 am", "noon", "midnight", "11 pm", "12 am"], [540, 720, 0, 1380, 0]),
        (["9h40", "10h05"], [580, 605]),
        (["Mon 9:40", "Tue 8:00"], [580, 480]),
    ],
)
def test_times_are_minutes_of_the_day(column: list[str], minutes: list[float]) -> None:
    assert measures(column) == minutes


@pytest.mark.parametrize(
    "column",
    [
        ["1 October 2023", "30 Sept. 2024", "1st Oct 2024", "Thursday, 2 January 2025"],
        ["Oct 1 2023", "September 30th, 2024", "Oct 1, 2024", "Thu Jan 2 2025"],
        ["2023-10-01", "2024-09-30", "2024-10-01", "2025-01-02"],
        ["1/10/2023", "30.9.2024", "01.10.2024", "2.1.25"],
        ["October 2023", "Sept 2024", "Oct. 2024", "Jan 2025"],
        ["12 May", "2 June", "11 June", "Sat 1 December"],
        ["March", "May", "June", "December"],
        ["31 December 2023", "1 January 2024", "31 January 2024", "1 February 2024"],
        ["5.6.97", "4.6.98", "1.1.02", "1.1.03"],
    ],
)
def test_dates_are_in_order_of_year_month_and_day(column: list[str]) -> None:
    values = [value for value in measures(column) if value is not None]
    assert len(values) == 4
    assert values == sorted(set(values))
    assert measures(column[::-1]) == values[::-1]


@pytest.mark.parametrize(
    ("column", "minutes"),
    [
        (["45 min", "1 h 30 min", "2 hours", "1 hr 5"], [45, 90, 120, 65]),
        (["90 minutes", "1 hour", "5 mins."], [90, 60, 5]),
        (["45", "30"], [45, 30]),
    ],
)
def test_durations_are_minutes(column: list[str], minutes: list[float]) -> None:
    assert measures(column) == minutes


def test_laps_are_seconds() -> None:
    assert measures(["1:02.5", "0:59.95", "10'12.5\"", "4′35.25″"]) == [62.5, 59.95, 612.5, 275.25]
    assert measures(["4'35\"", "4'12\"", "10'05\""]) == [435, 412, 1005], "numbers, in the same order"


def test_weekdays_are_in_order_of_the_week() -> None:
    assert measures(["Sunday", "Tue", "monday", "Sat. morning", "Fridays"]) == [6, 1, 0, 5, 4]
    assert measures(["Monday to Friday", "Saturday"]) == [0, 5]


def test_a_dash_and_an_empty_cell_have_no_measure_and_leave_the_others_theirs() -> None:
    assert measures(["–", "12", "", "-", "7", "…"]) == [None, 12, None, None, 7, None]
    assert measures(["9:40", "—", "10:05"]) == [580, None, 605]


def test_few_cells_of_words_have_no_measure_and_many_leave_none_at_all() -> None:
    assert measures(["2", "n/a"]) == [2, None]
    assert measures(["2", "n/a", "none"]) == [None] * 3


@pytest.mark.parametrize("column", [["yes", "no"], ["Northgate", "Quay Street"], ["", " "], ["-", "–"], []])
def test_a_column_of_words_or_of_nothing_has_no_measure(column: list[str]) -> None:
    assert measures(column) == [None] * len(column)


def test_what_most_cells_are_says_what_the_others_are() -> None:
    times = [f"{hour}:15" for hour in range(1, 10)]
    assert measures([*times, "later"]) == [*[hour * 60 + 15 for hour in range(1, 10)], None]
    assert measures([*times[:8], "later"])[0] == 1, "less than nine of ten: numbers"
    assert measures(["9:40", "10.05", "8:15"]) == [9, 10.05, 8]
    assert measures(["45", "2 hours"]) == [45, 2]


def test_blanks_around_a_cell_make_no_difference() -> None:
    assert measures(["  9:40\n", "10:05\u00a0 pm"]) == measures(["9:40", "10:05 pm"]) == [580, 1325]


@given(st.lists(st.integers(-(10**9), 10**9), min_size=1, max_size=8), st.sampled_from(["{:,}", "${:,}", "{}", "{} kg", "€ {:,}.00"]))
def test_formatted_numbers_are_in_their_order(numbers: list[int], form: str) -> None:
    column = [f"({form.format(-number)})" if number < 0 else form.format(number) for number in numbers]
    assert measures(column) == numbers


@given(st.lists(st.times(), min_size=1, max_size=8), st.sampled_from(["%H:%M", "%-H:%M", "%I:%M %p", "%-I.%M %p", "%-I:%M%p", "%Hh%M"]))
def test_times_of_a_clock_are_in_their_order(times: list[datetime.time], form: str) -> None:
    assert measures([time.strftime(form) for time in times]) == [time.hour * 60 + time.minute for time in times]


@given(
    st.lists(st.dates(datetime.date(1950, 1, 1), datetime.date(2049, 12, 31)), min_size=2, max_size=8),
    st.sampled_from(["%Y-%m-%d", "%-d %B %Y", "%b %-d, %Y", "%A, %-d %b %Y", "%d.%m.%Y"]),
)
def test_dates_are_in_their_order(dates: list[datetime.date], form: str) -> None:
    values = [value or 0.0 for value in measures([date.strftime(form) for date in dates])]
    order = range(len(dates))
    assert [[values[one] < values[other] for one in order] for other in order] == [
        [dates[one] < dates[other] for one in order] for other in order
    ]


@given(st.lists(st.text(max_size=12), max_size=6))
def test_no_text_makes_it_stumble(column: list[str]) -> None:
    assert len(measures(column)) == len(column)


@pytest.mark.parametrize(
    ("column", "most", "least"),
    [
        (["£9", "£12", "£3"], [1], [2]),
        (["7:30", "12:10", "-", "7:30"], [1], [0, 3]),
        (["5", "5"], [0, 1], [0, 1]),
        (["yes", "no"], [], []),
        ([], [], []),
    ],
)
def test_the_extremes_of_a_column_are_all_that_are_alike(column: list[str], most: list[int], least: list[int]) -> None:
    assert (extremes(column, most=True), extremes(column, most=False)) == (most, least)

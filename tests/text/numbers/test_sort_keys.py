"""Sort keys of table columns, columns without sort keys, and limits."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.text.numbers.sort_keys import (
    ABOVE,
    BELOW,
    BOUNDS,
    FROM,
    UP_TO,
    column_sort_keys,
    filter_by_limit,
    find_extremes,
)


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
def test_sort_keys_of_prices_and_numbers(column: list[str], values: list[float]) -> None:
    assert column_sort_keys(column) == pytest.approx(values)


@pytest.mark.parametrize(
    ("column", "values"),
    [
        (["(300)", "250", "($1,200)"], [-300, 250, -1200]),
        (["-5", "−3", "–4", "- $2", "6"], [-5, -3, -4, -2, 6]),
        (["-$5", "$-6", "$3"], [-5, -6, 3]),
        (["2010-15", "2011–12", "No–7"], [2010, 2011, 7]),
    ],
)
def test_sort_keys_of_negative_numbers(column: list[str], values: list[float]) -> None:
    assert column_sort_keys(column) == values


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
def test_sort_keys_of_times(column: list[str], minutes: list[float]) -> None:
    assert column_sort_keys(column) == minutes


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
def test_sort_keys_of_dates(column: list[str]) -> None:
    values = [value for value in column_sort_keys(column) if value is not None]
    assert len(values) == 4
    assert values == sorted(set(values))
    assert column_sort_keys(column[::-1]) == values[::-1]


@pytest.mark.parametrize(
    ("column", "minutes"),
    [
        (["45 min", "1 h 30 min", "2 hours", "1 hr 5"], [45, 90, 120, 65]),
        (["90 minutes", "1 hour", "5 mins."], [90, 60, 5]),
        (["45", "30"], [45, 30]),
        (["1.5 h", "30 min", "1,25 hours", "2 h 5 min"], [90, 30, 75, 125]),
    ],
)
def test_sort_keys_of_durations(column: list[str], minutes: list[float]) -> None:
    assert column_sort_keys(column) == minutes


def test_sort_keys_hours_without_minutes_are_numbers() -> None:
    assert column_sort_keys(["1.5 h", "2.25 h"]) == [1.5, 2.25]
    assert filter_by_limit(["1.5 h", "30 min"], "1 hour", ABOVE) == [True, False]


def test_sort_keys_of_laps() -> None:
    assert column_sort_keys(["1:02.5", "0:59.95", "10'12.5\"", "4′35.25″"]) == [62.5, 59.95, 612.5, 275.25]
    assert column_sort_keys(["4'35\"", "4'12\"", "10'05\""]) == [435, 412, 1005], "numbers, in the same order"


def test_sort_keys_of_weekdays() -> None:
    assert column_sort_keys(["Sunday", "Tue", "monday", "Sat. morning", "Fridays"]) == [6, 1, 0, 5, 4]
    assert column_sort_keys(["Monday to Friday", "Saturday"]) == [0, 5]


def test_sort_keys_dash_and_empty_cell_are_none() -> None:
    assert column_sort_keys(["–", "12", "", "-", "7", "…"]) == [None, 12, None, None, 7, None]
    assert column_sort_keys(["9:40", "—", "10:05"]) == [580, None, 605]


def test_sort_keys_columns_with_words() -> None:
    assert column_sort_keys(["2", "n/a"]) == [2, None]
    assert column_sort_keys(["2", "n/a", "none"]) == [None] * 3


@pytest.mark.parametrize("column", [["yes", "no"], ["Northgate", "Quay Street"], ["", " "], ["-", "–"], []])
def test_sort_keys_of_words_are_none(column: list[str]) -> None:
    assert column_sort_keys(column) == [None] * len(column)


def test_sort_keys_follow_majority() -> None:
    times = [f"{hour}:15" for hour in range(1, 10)]
    assert column_sort_keys([*times, "later"]) == [*[hour * 60 + 15 for hour in range(1, 10)], None]
    assert column_sort_keys([*times[:8], "later"])[0] == 1, "less than nine of ten: numbers"
    assert column_sort_keys(["9:40", "10.05", "8:15"]) == [9, 10.05, 8]
    assert column_sort_keys(["45", "2 hours"]) == [45, 2]


def test_sort_keys_ignore_outer_spaces() -> None:
    assert column_sort_keys(["  9:40\n", "10:05\u00a0 pm"]) == column_sort_keys(["9:40", "10:05 pm"]) == [580, 1325]


@given(
    st.lists(st.integers(-(10**9), 10**9), min_size=1, max_size=8),
    st.sampled_from(["{:,}", "${:,}", "{}", "{} kg", "€ {:,}.00"]),
)
def test_sort_keys_of_formatted_numbers_are_ordered(numbers: list[int], form: str) -> None:
    column = [f"({form.format(-number)})" if number < 0 else form.format(number) for number in numbers]
    assert column_sort_keys(column) == numbers


@given(
    st.lists(st.times(), min_size=1, max_size=8),
    st.sampled_from(["%H:%M", "%-H:%M", "%I:%M %p", "%-I.%M %p", "%-I:%M%p", "%Hh%M"]),
)
def test_sort_keys_of_clock_times_are_ordered(times: list[datetime.time], form: str) -> None:
    assert column_sort_keys([time.strftime(form) for time in times]) == [time.hour * 60 + time.minute for time in times]


@given(
    st.lists(st.dates(datetime.date(1950, 1, 1), datetime.date(2049, 12, 31)), min_size=2, max_size=8),
    st.sampled_from(["%Y-%m-%d", "%-d %B %Y", "%b %-d, %Y", "%A, %-d %b %Y", "%d.%m.%Y"]),
)
def test_sort_keys_of_dates_are_ordered(dates: list[datetime.date], form: str) -> None:
    values = [value or 0.0 for value in column_sort_keys([date.strftime(form) for date in dates])]
    order = range(len(dates))
    assert [[values[one] < values[other] for one in order] for other in order] == [
        [dates[one] < dates[other] for one in order] for other in order
    ]


@given(st.lists(st.text(max_size=12), max_size=6))
def test_no_text_makes_it_stumble(column: list[str]) -> None:
    assert len(column_sort_keys(column)) == len(column)


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
def test_find_extremes_returns_all_equal(column: list[str], most: list[int], least: list[int]) -> None:
    assert (find_extremes(column, largest=True), find_extremes(column, largest=False)) == (most, least)


# Limits


def held(column: list[str], limit: str, bound: str = ABOVE, head: str = "") -> str | None:
    """Returns which cells are within a limit, as ones and zeros."""
    found = filter_by_limit(column, limit, bound, head)
    return None if found is None else "".join("01"[one] for one in found)


@pytest.mark.parametrize(("bound", "wanted"), [(ABOVE, "0010"), (FROM, "0110"), (BELOW, "1000"), (UP_TO, "1100")])
@pytest.mark.parametrize(
    ("column", "limit"),
    [
        (["41", "62", "94", "-"], "62"),
        (["$1,100", "€ 1,200", "$ 1,300.50", ""], "1,200"),
        (["(7)", "-6", "0", "n/a"], "-6"),
        (["8 %", "12%", "15.5%", "–"], "12"),
        (["0,5", "1,5", "2,25", "–"], "1.5"),
        (["9:40", "18:30", "23:05", "-"], "6:30 pm"),
        (["9.40 am", "6.30 pm", "11 pm", "-"], "18:30"),
        (["9 am", "noon", "3 pm", ""], "12:00"),
        (["8:15", "9:30", "10:00", "-"], "9:30"),
        (["45 min", "1 hour", "1 h 20", "-"], "60 minutes"),
        (["45 min", "2 hours", "2 h 30 min", "-"], "2 hours"),
        (["30 min", "90 min", "100 min", "-"], "90"),
        (["1 h", "2 h", "3 h", "-"], "2"),
        (["12 May 2024", "1 June 2024", "1 May 2025", "-"], "2024-06-01"),
        (["12 May 2024", "1 June 2024", "2 June 2024", "-"], "1 june"),
        (["2023-12-31", "2024-02-03", "2025-01-01", ""], "2024"),
        (["12.5.24", "3.6.24", "1.7.24", ""], "june 2024"),
        (["12 May", "June 1", "11 June", "-"], "1st june"),
        (["Monday", "Wed", "Friday", "-"], "wednesday"),
        (["0:59.95", "1:02.5", "1:02.51", "-"], "1:02.50"),
        (["900 thousand", "1.2 million", "2 bn", "-"], "1,200,000"),
        (["10,000", "60,000", "60,001", "-"], "60 thousand"),
    ],
)
def test_filter_by_limit_selects_side(column: list[str], limit: str, bound: str, wanted: str) -> None:
    assert held(column, limit, bound) == wanted


@pytest.mark.parametrize(
    ("column", "limit"),
    [
        (["£9.40", "£12"], "6:00 pm"),
        (["9", "12"], "18:00"),
        (["9", "12"], "1 june 2024"),
        (["9:40", "18:30"], "25"),
        (["9:40", "18:30"], "12 may"),
        (["1 h", "2 h"], "6:00 pm"),
        (["12 May", "3 June"], "5"),
        (["12 May", "3 June"], "1 june 2024"),
        (["12 May 2024", "3 June 2025"], "1 june"),
        (["12 May 2024", "3 June"], "1 june"),
        (["2019", "2020"], "1 june 2019"),
        (["Monday", "Friday"], "3"),
        (["9", "12"], "nobody"),
        (["9", "12"], ""),
        (["yes", "no"], "5"),
        (["", "-"], "5"),
        ([], "5"),
    ],
)
def test_filter_by_limit_of_other_kind_is_none(column: list[str], limit: str) -> None:
    assert [held(column, limit, bound) for bound in BOUNDS] == [None] * 4


def test_filter_by_limit_unknown_bound_is_none() -> None:
    assert filter_by_limit(["9", "12"], "10", "near") is None


@pytest.mark.parametrize(
    ("head", "limit", "wanted"),
    [
        ("Duration (min)", "1 hour", "001"),
        ("Duration (min)", "60 minutes", "001"),
        ("minutes", "2 hours", "000"),
        ("Time", "1 hour", "001"),
        ("Duration (h)", "61 minutes", "111"),
        ("Hours", "2 hours", "111"),
        ("hrs. of work", "3000 minutes", "011"),
    ],
)
def test_filter_by_limit_uses_unit_of_head(head: str, limit: str, wanted: str) -> None:
    assert held(["45", "60", "90"], limit, ABOVE, head) == wanted


def test_filter_by_limit_fractions_of_hours() -> None:
    assert held(["0.5", "1.5", "2"], "90 minutes", FROM, "Length (hours)") == "011"


@pytest.mark.parametrize(
    ("column", "limit", "wanted"),
    [
        (["58", "61", "70"], "60 thousand", "011"),
        (["0.5", "0.7"], "0.6 million", "01"),
        (["58,000", "61,000"], "60 thousand", "01"),
        (["2,000", "58,000", "61,000"], "60 thousand", "001"),
        (["1.2 billion", "3 bn"], "2 billion", "01"),
        (["58", "61", "900"], "60 thousand", "011"),
        (["700", "5,000"], "60 thousand", "00"),
        (["-58", "(61)", "3"], "2 thousand", "001"),
    ],
)
def test_filter_by_limit_figures_in_thousands(column: list[str], limit: str, wanted: str) -> None:
    assert held(column, limit) == wanted


def test_filter_by_limit_partial_dates() -> None:
    column = ["31 December 2023", "1 January 2024", "30 June 2024"]
    assert (held(column, "2024", FROM), held(column, "2024", ABOVE), held(column, "2023", UP_TO)) == (
        "011",
        "000",
        "100",
    )
    assert (held(column, "january 2024", UP_TO), held(column, "january 2024", ABOVE)) == ("110", "001")


def test_filter_by_limit_ignores_spaces() -> None:
    assert held(["  9:40\n", "6:30\u00a0 pm"], " 6:00  pm") == "01"
    assert held(["1  May 2024", "3 May\n2024"], " 2  may 2024 ") == "01"


@given(st.lists(st.integers(-500, 500), min_size=1, max_size=6), st.integers(0, 500))
def test_filter_by_limit_bounds_are_complementary(numbers: list[int], limit: int) -> None:
    column = [str(number) for number in numbers]
    above, since, below, upto = (filter_by_limit(column, str(limit), bound) for bound in BOUNDS)
    assert above == [number > limit for number in numbers]
    assert since == [number >= limit for number in numbers]
    assert below == [number < limit for number in numbers]
    assert upto == [number <= limit for number in numbers]


@given(st.lists(st.text(max_size=12), max_size=6), st.text(max_size=12), st.sampled_from(BOUNDS), st.text(max_size=6))
def test_filter_by_limit_any_text(column: list[str], limit: str, bound: str, head: str) -> None:
    found = filter_by_limit(column, limit, bound, head)
    assert found is None or len(found) == len(column)


MEANT = {
    "the unit of the table and not that of the question": (
        ["500", "700"],
        "0.6 million",
        ABOVE,
        "Sales in thousands",
        "01",
    ),
    "a limit that is far below figures in thousands": (["58", "90"], "2 thousand", ABOVE, "In thousands", "11"),
    "the head tells thousands": (["58", "61"], "60,000", ABOVE, "People (thousands)", "01"),
    "several millions": (["1,500,000", "2,500,000"], "2 millions", ABOVE, "", "01"),
    "a time with a point": (["9:10", "9:25", "9:40"], "9.30", ABOVE, "", "001"),
    "a fraction of an hour beside durations": (["1 h", "2 h"], "1.5 hours", ABOVE, "", "01"),
    "a fraction of an hour beside minutes": (["30", "90", "91"], "1.5 hours", ABOVE, "Duration (min)", "001"),
    "a date with `of`": (["1 May 2024", "4 May 2024"], "3rd of may 2024", ABOVE, "", "01"),
    "minutes with a comma": (["15", "25"], "1,200 minutes", ABOVE, "Length (h)", "01"),
    "five of an afternoon": (["4:30 pm", "17:30", "13:00"], "5", ABOVE, "", "010"),
    "midnight is the end of the day": (["18:30", "23:00"], "midnight", BELOW, "", "11"),
}


@pytest.mark.parametrize(
    ("column", "limit", "bound", "head", "wanted"),
    MEANT.values(),
    ids=MEANT,
)
def test_filter_by_limit_intended_meaning(column: list[str], limit: str, bound: str, head: str, wanted: str) -> None:
    assert held(column, limit, bound, head) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "-₹5",
        "USD -5",
        "-US$5",
        "(₹5)",
        "(5)*",
        "(5)pp",
        "(5) bps",
        "(5)",
        "- 5",
        "$(5",
        "(R$ 5)",
        "(5)x",
        "(5) [1]",
        "(5)(a)",
        "(5) m²",
        "(5).",
        "($5) per share",
    ],
)
def test_sort_keys_accounting_negatives(text: str) -> None:
    assert column_sort_keys([text, "7"]) == [-5, 7]
    assert filter_by_limit([text, "7"], "0", "below") == [True, False]


def test_sort_keys_bracketed_aside_is_positive() -> None:
    assert column_sort_keys(["(3) of them", "(4) Smith", "5 (6)"]) == [3, 4, 5]

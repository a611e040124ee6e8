"""Sort keys of other notations: points between thousands, scale letters, months before days."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.text.numbers.sort_keys import (
    ABOVE,
    BELOW,
    FROM,
    NumberFormat,
    column_sort_keys,
    detect_format,
    filter_by_limit,
    find_extremes,
)


@pytest.mark.parametrize(
    ("column", "values"),
    [
        (["1.234,50 €", "999,00 €"], [1234.5, 999]),
        (["1.234.567", "999.000"], [1234567, 999000]),
        (["(1.234,50)", "-999,00", "R$ 1.500"], [-1234.5, -999, 1500]),
        (["12 345,67", "999,10"], [12345.67, 999.1]),
        (["12\u00a0345,67", "999,10"], [12345.67, 999.1]),
        (["1'234,50", "1’000,00", "CHF 7.50"], [1234.5, 1000, 7.5]),
        (["1.234", "0.5"], [1.234, 0.5]),
        (["1,234", "12,5"], [1234, 12.5]),
        (["2019 2018", "5 10", "$600   3.000% notes"], [2019, 5, 600]),
        (["4'35", "4’12", "10′05"], [435, 412, 1005]),
    ],
)
def test_sort_keys_follow_format_of_column(column: list[str], values: list[float]) -> None:
    assert column_sort_keys(column) == pytest.approx(values)
    assert find_extremes(column, largest=True) == [values.index(max(values))]


@pytest.mark.parametrize(
    ("column", "values"),
    [
        (["$1.2M", "$900K", "$950", "£ 3 b", "- €5m"], [1.2e6, 9e5, 950, 3e9, -5e6]),
        (["USD 5M", "(900K)", "1,2 Mio. €", "1.2M€"], [5e6, -900, 1.2e6, 1.2e6]),
        (["1.2M", "900K", "3M+"], [1.2e6, 9e5, 3e6]),
        (["950", "1.2K", "3M"], [950, 1200, 3e6]),
        (["5M", "12M"], [5e6, 12e6]),
        (["5m", "12m"], [5, 12]),
        (["12", "12B", "14"], [12, 12, 14]),
        (["12A", "12B", "14K"], [12, 12, 14]),
        (["1.2 M long", "900 K"], [1.2, 900]),
        (["$5 m²", "$5/m", "£5 m wide", "$5 more"], [5, 5, 5, 5]),
        (["$1.2 trillion", "$900 billion", "900 Tsd."], [1.2e12, 9e11, 9e5]),
    ],
)
def test_sort_keys_scale_letters(column: list[str], values: list[float]) -> None:
    assert column_sort_keys(column) == pytest.approx(values)


@pytest.mark.parametrize(
    ("column", "limit", "wanted"),
    [
        (["1.234,50 €", "999,00 €"], "1000", "10"),
        (["1.234,50 €", "999,00 €"], "1.000", "10"),
        (["1.234,50 €", "999,00 €"], "1,000", "10"),
        (["1.234,50 €", "999,00 €"], "1.000,50", "10"),
        (["€1.2M", "€900K", "€3M"], "1000000", "101"),
        (["€1.2M", "€900K", "€3M"], "1 million", "101"),
        (["€1.2M", "€900K", "€3M"], "$1m", "101"),
        (["€1.2M", "€2M", "€3M"], "2", "001"),
        (["5K", "10K", "21K"], "7", "011"),
        (["5K", "10K", "21K"], "7,000", "011"),
        (["1.2 million", "3 million"], "2", "01"),
    ],
)
def test_filter_by_limit_uses_format_of_column(column: list[str], limit: str, wanted: str) -> None:
    assert filter_by_limit(column, limit, ABOVE) == [one == "1" for one in wanted]


def test_sort_keys_use_given_format() -> None:
    assert column_sort_keys(["999.000", "1.500"]) == [999, 1.5]
    assert column_sort_keys(["999.000", "1.500"], NumberFormat(decimal_comma=True)) == [999000, 1500]
    assert find_extremes(["1.500", "999"], largest=True, number_format=NumberFormat(decimal_comma=True)) == [0]
    assert filter_by_limit(["1.500", "999"], "1200", ABOVE, number_format=NumberFormat(decimal_comma=True)) == [
        True,
        False,
    ]
    assert detect_format(["1.234,50", "31/12/2024"]) == NumberFormat(decimal_comma=True)
    assert detect_format(["12/31/2024", "5"]) == NumberFormat(month_first=True)


def test_sort_keys_of_versions_and_addresses() -> None:
    assert find_extremes(["3.9", "3.10.1", "v3.10", "3.8.12"], largest=True) == [1]
    assert find_extremes(["10.0.0.10", "10.0.0.9", "9.255.1.1"], largest=False) == [2]
    assert filter_by_limit(["3.9.7", "3.10.1", "3.11"], "3.10", ABOVE) == [False, True, True]
    assert column_sort_keys(["3.9", "3.10"]) == [3.9, 3.1], "numbers, as far as the column tells"


def test_sort_keys_of_feet_and_inches() -> None:
    assert find_extremes(["5'11\"", "6'2\"", "6’0"], largest=True) == [1]


def test_sort_keys_of_lists_and_huge_powers_are_none() -> None:
    assert column_sort_keys(["1,2,3", "1e999", "1e-999", "7"]) == [None, None, 0, 7]
    assert filter_by_limit(["٣", "１２", "½"], "٢", ABOVE) == [True, True, False]


# Dates


@pytest.mark.parametrize(
    "column",
    [
        ["01/20/2024", "02/03/2024", "12/05/2024"],
        ["1/20/24", "2.3.24", "12/5/24"],
        ["20/01/2024", "03/02/2024", "05/12/2024"],
        ["20-01-2024", "03-02-2024", "05-12-2024"],
        ["01-20-2024", "02-03-2024", "12-05-2024"],
        ["03/02/2024", "01/03/2024"],
        ["01/20/2024", "20/02/2024", "01/03/2024"],
        ["Q3 2023", "q4, 2023", "Q1 2024", "Jun 2024"],
    ],
)
def test_sort_keys_ambiguous_dates_follow_column(column: list[str]) -> None:
    values = [value for value in column_sort_keys(column) if value is not None]
    assert len(values) == len(column)
    assert values == sorted(set(values))


def test_find_extremes_of_american_dates() -> None:
    assert find_extremes(["01/20/2024", "12/05/2024"], largest=True) == [1]


@pytest.mark.parametrize(
    "column",
    [["13/13/2024"], ["2024-13-01"], ["00/10/2024"], ["10.0.2024"], ["32 May 2024"], ["45.50.2024"], ["12/32/2024"]],
)
def test_sort_keys_invalid_date_is_none(column: list[str]) -> None:
    assert filter_by_limit(column, "2 january 2024", ABOVE) is None


@pytest.mark.parametrize(
    ("column", "limit", "bound", "wanted"),
    [
        (["10 Jan 2024", "5 Feb 2024"], "01/15/2024", ABOVE, [False, True]),
        (["10 Jan 2024", "5 Feb 2024"], "15/01/2024", ABOVE, [False, True]),
        (["01/20/2024", "12/05/2024"], "02/01/2024", ABOVE, [False, True]),
        (["01/20/2024", "12/05/2024"], "1 march 2024", BELOW, [True, False]),
        (["01/02/2024", "12/05/2024"], "11/30/2024", FROM, [False, True]),
        (["20/01/2024", "12/05/2024"], "02/01/2024", ABOVE, [True, True]),
    ],
)
def test_filter_by_limit_date_order_follows_column(
    column: list[str], limit: str, bound: str, wanted: list[bool]
) -> None:
    assert filter_by_limit(column, limit, bound) == wanted


@given(
    st.lists(st.dates(datetime.date(1950, 1, 1), datetime.date(2049, 12, 31)), min_size=2, max_size=8),
    st.sampled_from(["/", ".", "-"]),
)
def test_sort_keys_month_first_dates_are_ordered(dates: list[datetime.date], mark: str) -> None:
    dates = [*dates, datetime.date(2000, 1, 31)]
    values = [value or 0.0 for value in column_sort_keys([date.strftime(f"%m{mark}%d{mark}%Y") for date in dates])]
    order = range(len(dates))
    assert [[values[one] < values[other] for one in order] for other in order] == [
        [dates[one] < dates[other] for one in order] for other in order
    ]

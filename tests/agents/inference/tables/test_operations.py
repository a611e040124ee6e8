"""Tests operations on tables: figures in the form of expressions, and expressions that parse to their operation and
figures.
"""

from __future__ import annotations

import datetime
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.agents.inference.tables.operations import (
    MEAN,
    OPERATIONS,
    PAIR_OPERATIONS,
    SUM,
    build_expression,
    harmonize_figures,
    parse_expression,
    parse_figure,
    sum_expression,
)
from orchestra.text.arithmetic import evaluate
from orchestra.text.numbers.sort_keys import detect_format

FIGURES = st.decimals(-99_999, 99_999, places=2).map(lambda number: f"{number:,.2f}") | st.integers(-9999, 9999).map(
    str
)
WRITTEN = {
    "sum": "2 + 3",
    "mean": "(2 + 3) / 2",
    "difference": "2 - 3",
    "change": "(2 - 3) / 3 * 100",
    "share": "2 / 3 * 100",
}
WRITTEN |= {"ratio": "2 / 3", "product": "2 * 3", "gap": "3 - 2"}
WRITTEN |= {"portion": "2 * 3 / 100", "discount": "2 * (100 - 3) / 100", "surcharge": "2 * (100 + 3) / 100"}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("1,200", "1,200"), ("$ 1,200.50", "1,200.50"), ("€5", "5"), ("12%", "12"), (".5", ".5"), ("2019,", "2019"),
        ("about 7 of 9", "7"),
        ("$(26,811)", "-26,811"), ("$ (1,200 )", "-1,200"), ("(2,085", "-2,085"), ("(4) (5)", "4"), ("(300)", "-300"),
        ("($ 300)", "-300"), ("(5)%", "-5"), ("-5", "-5"), ("- 5", "-5"), ("−3", "-3"), ("–1,200", "-1,200"),
        ("$-5", "-5"), ("-$5", "-5"), ("007", "7"), ("-05.50", "-5.50"), ("0", "0"), ("00", "0"), ("0.5", "0.5"),
        ("100", "100"),
        ("A-12", "12"), ("3-5", "3"), ("5 (3)", "5"), ("(loss) 5", "5"), ("(3) of them", "3"), ("Seats (12)", "12"),
        ("1.234,50", "1234.50"), ("(1.234,50 €)", "-1234.50"), ("1.234.567", "1234567"), ("12,5", "12.5"),
        ("12 345,67", "12345.67"),
        ("1'234.50", "1234.50"), ("12,34,567", "1234567"), ("1,2,3", "1,2,3"), ("2019 2018", "2019"),
        ("1.234", "1.234"),
        ("-₹500", "-500"), ("USD -500", "-500"), ("-US$500", "-500"), ("(₹500)", "-500"), ("kr -5", "-5"),
        ("-R$ 5", "-5"),
        ("US$500", "500"), ("(1,234)*", "-1,234"), ("(0.5)pp", "-0.5"), ("(12) bps", "-12"),
        ("(5.2 million)", "-5.2"), ("(5 percentage points)", "-5"),
        ("(12) years", "12"), ("USD 500 - 600", "500"), ("0,125", "0.125"), ("", None), ("none", None), ("-", None),
        ("( )", None),
    ],
)  # fmt: skip
def test_first_figure_is_formatted_as_in_expressions(text: str, found: str | None) -> None:
    assert parse_figure(text) == found


def test_figure_with_points_between_thousands_is_parsed() -> None:
    assert [parse_figure(text, points=True) for text in ("1.234", "(1.234)", "12.5", "1,234")] == [
        "1234",
        "-1234",
        "12.5",
        "1.234",
    ]


@given(st.text(max_size=20))
def test_figure_of_any_text_is_computable(text: str) -> None:
    found = parse_figure(text)
    if found is not None and found.isascii() and "," not in found:
        assert evaluate(f"1 - {found}") == 1 - evaluate(found)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("9:15", "(9 * 60 + 15)"), (" 09:05 ", "(9 * 60 + 5)"), ("23:59", "(23 * 60 + 59)"),
        ("9:15 am", "(9 * 60 + 15)"),
        ("1:30 p.m.", "(1 * 60 + 30 + 12 * 60)"), ("12:05am", "(0 * 60 + 5)"), ("12:05 PM", "(0 * 60 + 5 + 12 * 60)"),
        ("24:00", "(24 * 60 + 0)"), ("24:01", "24"), ("9:60", "9"), ("at 9:15", "9"), ("9:15 to 10:00", "9"),
        ("9.15", "9.15"),
        ("2:10:05", "(2 * 60 + 10 + 5 / 60)"), ("1:00:30 pm", "(1 * 60 + 0 + 30 / 60 + 12 * 60)"),
        ("1 pm", "(1 * 60 + 0 + 12 * 60)"),
        ("12am", "(0 * 60 + 0)"), ("13 pm", "13"), ("5 a day", "5"), ("2:05.3", "(2 * 60 + 5.3)"),
        ("61:00.25", "(61 * 60 + 0.25)"),
        ("1 hr 5 mins", "(1 * 60 + 5)"), ("2h30", "(2 * 60 + 30)"), ("02 hours  00 minutes", "(2 * 60 + 0)"),
        ("2 hrs", "2"),
        ("5 mins", "5"),
    ],
)  # fmt: skip
def test_figure_of_clock_time_is_minutes(text: str, found: str) -> None:
    assert parse_figure(text) == found


@pytest.mark.parametrize(
    ("way", "texts", "value"),
    [
        ("sum", ["1 hr 5 mins", "2 hrs", "5 mins"], 190),
        ("mean", ["2 hrs", "90 min"], 105),
        ("difference", ["2 hrs", "90 min"], 30),
        ("ratio", ["3 h", "90 min"], 2),
        ("sum", ["2 hrs", "3 hrs"], 5),
        ("sum", ["1:02:03", "0:30:00"], Fraction("92.05")),
        ("difference", ["1 pm", "9:30 am"], 210),
        ("difference", ["2:05.3", "1:59.9"], Fraction("5.4")),
        ("sum", ["$1.5M", "$900K"], None),
        ("difference", ["1.5 million", "900 thousand"], None),
        ("gap", ["1.5 million", "1.2 million"], Fraction("0.3")),
        ("sum", ["12k", "15k"], 27),
        ("sum", ["950", "1.2k"], None),
        ("sum", ["5'11", "6'2"], None),
        ("difference", ["12 March", "9 March"], 3),
        ("difference", ["1 April", "9 March"], None),
        ("sum", ["12 March", "9 March"], None),
        ("share", ["2019-01-05", "2024-01-05"], None),
        ("product", ["2 hrs", "$1.5M"], 3),
        ("sum", ["(1,234)", "$500", "n/a 7", "0"], -727),
        ("change", ["12%", "10%"], 20),
        ("difference", ["Dec 2019", "Jan 2015"], 4),
        ("gap", ["2019-12-31", "2015-01-01"], 4),
        ("difference", ["Mar-15", "Mar-19"], None),
        ("sum", ["7/1234", "12/1234"], 19),
    ],
)
def test_operation_needs_figures_of_one_unit(way: str, texts: list[str], value: Fraction | None) -> None:
    found = harmonize_figures(way, texts, [str(parse_figure(text)) for text in texts], detect_format(texts))
    assert (None if found is None else evaluate(build_expression(way, found))) == value


@given(st.times(), st.times(), st.sampled_from(["%H:%M", "%-H:%M", "%I:%M %p", "%-I:%M%p"]))
def test_difference_of_two_times_is_duration(one: datetime.time, other: datetime.time, form: str) -> None:
    said = build_expression("difference", [str(parse_figure(time.strftime(form))) for time in (one, other)])
    assert evaluate(said) == one.hour * 60 + one.minute - other.hour * 60 - other.minute


@pytest.mark.parametrize("way", WRITTEN)
def test_expression_maps_to_its_operation(way: str) -> None:
    assert build_expression(way, ["2", "3"]) == WRITTEN[way]


def test_every_computing_operation_is_formatted() -> None:
    assert set(WRITTEN) == {SUM, MEAN, *PAIR_OPERATIONS} < set(OPERATIONS)


@given(FIGURES, FIGURES)
def test_gap_is_never_negative_and_parses_as_difference(first: str, second: str) -> None:
    said = build_expression("gap", [first, second])
    assert evaluate(said) == abs(evaluate(first) - evaluate(second))
    assert said == build_expression("gap", [second, first]) or evaluate(first) == evaluate(second)
    assert parse_expression(said) in [("difference", [first, second]), ("difference", [second, first])]


def test_gap_of_incomputable_figures_is_formatted() -> None:
    assert build_expression("gap", ["1,20", "3"]) == "3 - 1,20"
    assert build_expression("gap", ["1,20", "-3"]) == "1,20 - -3"


TIMES = st.sampled_from(["(9 * 60 + 15)", "(1 * 60 + 0 + 30 / 60 + 12 * 60)", "(2 * 60 + 5.3)", "(1.5 * 60 + 0)"])


@given(st.sampled_from(sorted(set(PAIR_OPERATIONS) - {"gap"})), FIGURES | TIMES, FIGURES | TIMES)
def test_pair_expression_round_trips(way: str, first: str, second: str) -> None:
    assert parse_expression(build_expression(way, [first, second])) == (way, [first, second])


@given(st.sampled_from([SUM, MEAN]), st.lists(FIGURES, min_size=2, max_size=9))
def test_sum_and_mean_of_any_length_round_trip(way: str, figures: list[str]) -> None:
    assert parse_expression(build_expression(way, figures)) == (way, figures)


@pytest.mark.parametrize(
    ("text", "way", "figures"),
    [
        (" (5) - (3) ", "difference", ["5", "3"]),
        ("(5 - 3)", "difference", ["5", "3"]),
        ("- 5 + 3", "sum", ["-5", "3"]),
        ("(- 5 - 3) / 3 * 100", "change", ["-5", "3"]),
        ("(5 / 3) * 100", "share", ["5", "3"]),
        ("5 - -3", "difference", ["5", "-3"]),
        ("(5) + (-3)", "sum", ["5", "-3"]),
        ("1,200.5 * 2", "product", ["1,200.5", "2"]),
        ("5 * 100", "product", ["5", "100"]),
        ("(5) * 3 / 100", "portion", ["5", "3"]),
        ("5 * (100 - 3) / 100", "discount", ["5", "3"]),
    ],
)
def test_expression_redundant_brackets_and_blanks_are_ignored(text: str, way: str, figures: list[str]) -> None:
    assert parse_expression(text) == (way, figures)


@pytest.mark.parametrize(
    "text",
    [
        "", "5", "(5)", "-5", "words", "5 +", "5+3", "5 - 3 - 1", "5 + 3 - 1", "5 - 3 + 1", "(5 + 3) / 3",
        "(5 + 3) / 2 * 100", "5 / 3 / 2",
        "(5 - 3) / 5 * 100", "(5 - 3) / 3", "(5 - 3) / 3 * 10", "5 / 3 * 1000", "sum(5, 3)", "(5 - 3) * (2 - 1)",
        "100 * 5 / 3", "5 ** 3",
    ],
)  # fmt: skip
def test_expression_of_unknown_form_has_no_operation(text: str) -> None:
    assert parse_expression(text) is None


@pytest.mark.parametrize("count", [1, 25, 26, 66, 200, 625, 626, 1000, 4096])
def test_sum_of_many_figures_is_computable(count: int) -> None:
    assert evaluate(sum_expression(["1"] * count)) == count
    assert evaluate(build_expression("mean", ["3", *["1"] * (count - 1)])) == Fraction(count + 2, count)


@pytest.mark.parametrize("figure", ["1,234,567.50", "-.5", "(12 * 60 + 59 + 12 * 60)"])
def test_sum_of_longest_table_is_computable(figure: str) -> None:
    assert evaluate(build_expression("sum", [figure] * 2000)) == 2000 * evaluate(figure)
    assert evaluate(build_expression("mean", [figure] * 2000)) == evaluate(figure)

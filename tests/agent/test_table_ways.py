"""Ways of answering from tables: figures as expressions have them, and expressions that say their way and their figures again."""

from __future__ import annotations

import datetime
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.agent.table_ways import MEAN, PAIRS, SUM, WAYS, expression, figure, parsed, summed
from orchestra.values.arithmetic import evaluate

FIGURES = st.decimals(-99_999, 99_999, places=2).map(lambda number: f"{number:,.2f}") | st.integers(-9999, 9999).map(str)
WRITTEN = {"sum": "2 + 3", "mean": "(2 + 3) / 2", "difference": "2 - 3", "change": "(2 - 3) / 3 * 100", "share": "2 / 3 * 100"}
WRITTEN |= {"ratio": "2 / 3", "product": "2 * 3", "gap": "3 - 2"}
WRITTEN |= {"portion": "2 * 3 / 100", "discount": "2 * (100 - 3) / 100", "surcharge": "2 * (100 + 3) / 100"}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("1,200", "1,200"), ("$ 1,200.50", "1,200.50"), ("€5", "5"), ("12%", "12"), (".5", ".5"), ("2019,", "2019"), ("about 7 of 9", "7"),
        ("$(26,811)", "-26,811"), ("$ (1,200 )", "-1,200"), ("(2,085", "-2,085"), ("(4) (5)", "4"), ("(300)", "-300"),
        ("($ 300)", "-300"), ("(5)%", "-5"), ("-5", "-5"), ("- 5", "-5"), ("−3", "-3"), ("–1,200", "-1,200"),
        ("$-5", "-5"), ("-$5", "-5"), ("007", "7"), ("-05.50", "-5.50"), ("0", "0"), ("00", "0"), ("0.5", "0.5"), ("100", "100"),
        ("A-12", "12"), ("3-5", "3"), ("5 (3)", "5"), ("(loss) 5", "5"), ("(3) of them", "3"), ("Seats (12)", "12"),
        ("1.234,50", "1234.50"), ("(1.234,50 €)", "-1234.50"), ("1.234.567", "1234567"), ("12,5", "12.5"), ("12 345,67", "12345.67"),
        ("1'234.50", "1234.50"), ("12,34,567", "1234567"), ("1,2,3", "1,2,3"), ("2019 2018", "2019"), ("1.234", "1.234"),
        ("-₹500", "-500"), ("USD -500", "-500"), ("-US$500", "-500"), ("(₹500)", "-500"), ("kr -5", "-5"), ("-R$ 5", "-5"),
        ("US$500", "500"), ("(1,234)*", "-1,234"), ("(0.5)pp", "-0.5"), ("(12) bps", "-12"),
        ("(5.2 million)", "-5.2"), ("(5 percentage points)", "-5"),
        ("(12) years", "12"), ("USD 500 - 600", "500"), ("0,125", "0.125"), ("", None), ("none", None), ("-", None), ("( )", None),
    ],
)  # fmt: skip
def test_the_first_figure_of_a_text_is_as_an_expression_has_it(text: str, found: str | None) -> None:
    assert figure(text) == found


def test_points_between_thousands_can_be_told() -> None:
    assert [figure(text, points=True) for text in ("1.234", "(1.234)", "12.5", "1,234")] == ["1234", "-1234", "12.5", "1.234"]


@given(st.text(max_size=20))
def test_a_figure_of_any_text_can_be_computed_with(text: str) -> None:
    found = figure(text)
    if found is not None and found.isascii() and "," not in found:
        assert evaluate(f"1 - {found}") == 1 - evaluate(found)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("9:15", "(9 * 60 + 15)"), (" 09:05 ", "(9 * 60 + 5)"), ("23:59", "(23 * 60 + 59)"), ("9:15 am", "(9 * 60 + 15)"),
        ("1:30 p.m.", "(1 * 60 + 30 + 12 * 60)"), ("12:05am", "(0 * 60 + 5)"), ("12:05 PM", "(0 * 60 + 5 + 12 * 60)"),
        ("24:00", "24"), ("9:60", "9"), ("at 9:15", "9"), ("9:15 to 10:00", "9"), ("2:10:05", "2"), ("9.15", "9.15"),
    ],
)  # fmt: skip
def test_a_time_of_the_day_is_its_minutes(text: str, found: str) -> None:
    assert figure(text) == found


@given(st.times(), st.times(), st.sampled_from(["%H:%M", "%-H:%M", "%I:%M %p", "%-I:%M%p"]))
def test_the_difference_of_two_times_is_how_long_it_takes(one: datetime.time, other: datetime.time, form: str) -> None:
    said = expression("difference", [str(figure(time.strftime(form))) for time in (one, other)])
    assert evaluate(said) == one.hour * 60 + one.minute - other.hour * 60 - other.minute


@pytest.mark.parametrize("way", WRITTEN)
def test_an_expression_is_of_its_way(way: str) -> None:
    assert expression(way, ["2", "3"]) == WRITTEN[way]


def test_all_ways_that_compute_are_written() -> None:
    assert set(WRITTEN) == {SUM, MEAN, *PAIRS} < set(WAYS)


@given(FIGURES, FIGURES)
def test_a_gap_is_never_negative_and_reads_as_a_difference(first: str, second: str) -> None:
    said = expression("gap", [first, second])
    assert evaluate(said) == abs(evaluate(first) - evaluate(second))
    assert said == expression("gap", [second, first]) or evaluate(first) == evaluate(second)
    assert parsed(said) in [("difference", [first, second]), ("difference", [second, first])]


def test_a_gap_of_what_cannot_be_computed_with_is_written_all_the_same() -> None:
    assert expression("gap", ["1,20", "3"]) == "3 - 1,20"
    assert expression("gap", ["1,20", "-3"]) == "1,20 - -3"


@given(st.sampled_from(sorted(set(PAIRS) - {"gap"})), FIGURES, FIGURES)
def test_a_pair_is_read_as_it_was_written(way: str, first: str, second: str) -> None:
    assert parsed(expression(way, [first, second])) == (way, [first, second])


@given(st.sampled_from([SUM, MEAN]), st.lists(FIGURES, min_size=2, max_size=9))
def test_sums_and_means_of_any_length_are_read_as_they_were_written(way: str, figures: list[str]) -> None:
    assert parsed(expression(way, figures)) == (way, figures)


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
def test_brackets_and_blanks_that_say_nothing_make_no_other_way(text: str, way: str, figures: list[str]) -> None:
    assert parsed(text) == (way, figures)


@pytest.mark.parametrize(
    "text",
    [
        "", "5", "(5)", "-5", "words", "5 +", "5+3", "5 - 3 - 1", "5 + 3 - 1", "5 - 3 + 1", "(5 + 3) / 3", "(5 + 3) / 2 * 100", "5 / 3 / 2",
        "(5 - 3) / 5 * 100", "(5 - 3) / 3", "(5 - 3) / 3 * 10", "5 / 3 * 1000", "sum(5, 3)", "(5 - 3) * (2 - 1)", "100 * 5 / 3", "5 ** 3",
    ],
)  # fmt: skip
def test_an_expression_of_another_form_is_of_no_way(text: str) -> None:
    assert parsed(text) is None


@pytest.mark.parametrize("count", [1, 25, 26, 66, 200, 625, 626, 1000, 4096])
def test_however_many_are_summed_up_the_sum_can_be_computed(count: int) -> None:
    assert evaluate(summed(["1"] * count)) == count
    assert evaluate(expression("mean", ["3", *["1"] * (count - 1)])) == Fraction(count + 2, count)


@pytest.mark.parametrize("figure", ["1,234,567.50", "-.5", "(12 * 60 + 59 + 12 * 60)"])
def test_all_figures_of_the_longest_table_can_be_summed_up(figure: str) -> None:
    assert evaluate(expression("sum", [figure] * 2000)) == 2000 * evaluate(figure)
    assert evaluate(expression("mean", [figure] * 2000)) == evaluate(figure)

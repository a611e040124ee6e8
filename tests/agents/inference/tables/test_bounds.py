"""Tests which bounds words set around a figure, and which number words are figures, also for misleading spellings."""

from __future__ import annotations

import pytest

from orchestra.agents.inference.tables.operations import range_ends
from orchestra.agents.inference.tables.question import MAX_CHARACTERS, MAX_FIGURES, question_figures
from orchestra.text.numbers.sort_keys import ABOVE, BELOW, FROM, UP_TO


@pytest.mark.parametrize(
    ("question", "bound"),
    [
        ("How many invoices went out before 10 May?", BELOW),
        ("who spent more than $50,000", ABOVE),
        ("Which rent for under 30?", BELOW),
        ("nothing over 12 minutes", UP_TO),
        ("isn't over 12", UP_TO),
        ("on or before 5 June", UP_TO),
        ("in or after 2015", FROM),
        ("over the lead limit of 10", ABOVE),
        ("at the most 5", UP_TO),
        ("from 4 stars up", FROM),
        ("rose by 5% or more", FROM),
    ],
)
def test_bound_overlapping_or_adjacent_words_set_one(question: str, bound: str) -> None:
    assert [one.bound for one in question_figures(question)] == [bound]


@pytest.mark.parametrize(
    ("question", "bound"),
    [
        ("older than 36", ABOVE),
        ("older than 1950", BELOW),
        ("younger than 1850", ABOVE),
        ("faster than 30 knots", ABOVE),
        ("faster than 3 hours", BELOW),
        ("slower than 10:15", ABOVE),
    ],
)
def test_bound_older_is_earlier_year_faster_is_shorter_time(question: str, bound: str) -> None:
    assert [one.bound for one in question_figures(question)] == [bound]


@pytest.mark.parametrize(
    ("question", "bounds"),
    [
        ("done by 2000", [UP_TO]),
        ("grew by 2000 people", [None]),
        ("cut by 2010", [None]),
        ("over the two years", [None]),
        ("on average over the six stations", [None]),
        ("what does it come to over 3 years", [None]),
        ("above the 90 kg limit", [ABOVE]),
        ("2 adults plus 3 children", [None, None]),
        ("3 + 4", [None, None]),
        ("10+ people", [FROM]),
        ("dearer than in 2018", [None]),
    ],
)
def test_bound_lookalike_words_set_none(question: str, bounds: list[str | None]) -> None:
    assert [one.bound for one in question_figures(question)] == bounds


@pytest.mark.parametrize(
    ("question", "figures"),
    [
        ("2019 minus 2018", ["2019", "2018"]),
        ("10 -5", ["10", "5"]),
        ("below -$5", ["-5"]),
        ("minus 5 degrees", ["-5"]),
        ("what does an hour cost", ["1"]),
        ("over 1 200 kr", ["1200"]),
        ("over 1.200,50", ["1200.50"]),
    ],
)
def test_minus_without_figure_before_is_sign_and_blanks_group_digits(question: str, figures: list[str]) -> None:
    assert [one.figure for one in question_figures(question)] == figures


@pytest.mark.parametrize(
    ("question", "measure"),
    [
        ("12 at night", "12:00 am"),
        ("2 at night", "2:00 am"),
        ("10 at night", "10:00 pm"),
        ("20 at night", "20:00"),
        ("7 in the evening", "7:00 pm"),
        ("7 in the morning", "7:00 am"),
        ("1 hour 20 minutes", "80 minutes"),
    ],
)
def test_times_and_durations_in_words_are_parsed(question: str, measure: str) -> None:
    assert [one.measure for one in question_figures(question)] == [measure]


@pytest.mark.parametrize("word", ["one", "May", "Thursday", "a million"])
def test_number_words_are_figures_only_in_bounds(word: str) -> None:
    assert question_figures(f"which {word} is it") == []
    assert [one.text for one in question_figures(f"before {word}")] == [word.lower()]


def test_long_question_keeps_first_figures() -> None:
    assert len(question_figures("1 " * 1_000)) == MAX_FIGURES
    assert [one.text for one in question_figures(f"5 {'x' * MAX_CHARACTERS} 6")] == ["5"]
    assert len(question_figures("1" * 100_000 + " h 5 m")) == 1, "and none of it is a number of so many digits"


@pytest.mark.parametrize(
    ("column", "ends"),
    [
        (["12", "31.5", "20"], (1, 0)),
        (["9:15", "11:40"], (1, 0)),
        (["7", "7"], (0, 0)),
        (["3 May 2020", "9 May 2021"], None),
        (["1h 30m", "45m"], (0, 1)),  # both in minutes
        (["2h", "45m"], None),
        (["1.2 million", "900,000"], None),
        (["Ann", "Bob"], None),
        ([], None),
    ],
)
def test_range_needs_figures_of_the_order_column(column: list[str], ends: tuple[int, int] | None) -> None:
    assert range_ends(column) == ends


@pytest.mark.parametrize(
    ("question", "bounds"),
    [
        ("between 10 and 20 euros", [FROM, UP_TO]),
        ("which are between 200,000 and 350,000?", [FROM, UP_TO]),
        ("people between the ages of 30 and 50", [FROM, UP_TO]),
        ("between $40 and $60 please", [FROM, UP_TO]),
        ("between 9:00 and 11:30", [FROM, UP_TO]),
        ("between ten and twelve kilos", [FROM, UP_TO]),
        ("between 10 kg and 20 kg", [FROM, UP_TO]),
        ("people between eighteen and thirty", [FROM, UP_TO]),
        ("between twenty-five and thirty kilos", [FROM, UP_TO]),
        ("between one and three", [FROM, UP_TO]),
        ("between 10 and 20 euros and 3 rooms", [FROM, UP_TO, None]),
        ("the difference between Ann and 5", [None]),
        ("split between 8 families", [None]),
        ("lost between the two years", [None]),
        ("the change between 2017 and 2018", [None, None]),
        ("between you and me, 5", [None]),
        ("between 10 and 20, but over 3", [FROM, UP_TO, ABOVE]),
    ],
)
def test_between_sets_lower_and_upper_bound(question: str, bounds: list[str | None]) -> None:
    assert [one.bound for one in question_figures(question)] == bounds

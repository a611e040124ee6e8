"""Tests the figures of a question (digits, words, times, dates), the bounds that words set, and the search for a figure
by text.
"""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given as every
from hypothesis import strategies as st

from orchestra.agents.inference.tables.question import QuestionFigure, find_figure, question_figures
from orchestra.text.arithmetic import evaluate
from orchestra.text.numbers.sort_keys import ABOVE, BELOW, BOUNDS, FROM, UP_TO


def texts(question: str) -> list[str]:
    return [one.text for one in question_figures(question)]


def bounds(question: str) -> list[str | None]:
    return [one.bound for one in question_figures(question)]


# Figures


@pytest.mark.parametrize(
    ("question", "figures"),
    [
        ("How much are 6 cinnamon buns and 12 rolls?", [("6", "6"), ("12", "12")]),
        ("Of $1,200.50, what are 20% ?", [("1,200.50", "1,200.50"), ("20", "20")]),
        ("Of 1,200, 2 and 3.", [("1,200", "1,200"), ("2", "2"), ("3", "3")]),
        ("The 3rd of Twelve, please", [("3", "3"), ("twelve", "12")]),
        ("twenty-five and Forty two", [("twenty-five", "25"), ("forty two", "42")]),
        ("twenty of them, ninety-nine", [("twenty", "20"), ("ninety-nine", "99")]),
        ("both of a pair, twice a dozen", [("both", "2"), ("pair", "2"), ("twice", "2"), ("dozen", "12")]),
        ("seventeen or a hundred", [("seventeen", "17"), ("hundred", "100")]),
        ("two hundred and twelve hundred", [("two hundred", "200"), ("twelve hundred", "1200")]),
        (
            "five thousand two hundred, two million three hundred thousand",
            [("five thousand two hundred", "5200"), ("two million three hundred thousand", "2300000")],
        ),
        (
            "one hundred and twenty of one thousand, half a million",
            [("one hundred and twenty", "120"), ("one thousand", "1000"), ("half a million", "0.5")],
        ),
        (
            "one hundred thousand in two and a half hours",
            [("one hundred thousand", "100"), ("two and a half hours", "2.5")],
        ),
        (
            "60 thousand, 1.5 million and three billion",
            [("60 thousand", "60"), ("1.5 million", "1.5"), ("three billion", "3")],
        ),
        ("in 2019", [("2019", "2019")]),
        (
            "1.234.567, 1.234,50 and 12\u202f345,6",
            [("1.234.567", "1234567"), ("1.234,50", "1234.50"), ("12\u202f345,6", "12345.6")],
        ),
        ("version 1.2.3, and 12,5 of 0,5", [("1.2", "1.2"), ("3", "3"), ("12,5", "12.5"), ("0,5", "0.5")]),
    ],
)
def test_question_figures_keep_order_and_include_words(question: str, figures: list[tuple[str, str]]) -> None:
    assert [(one.text, one.figure) for one in question_figures(question)] == figures


@pytest.mark.parametrize(
    "question",
    [
        "",
        "   ",
        "Who is the tallest one?",
        "Someone often weighs attention",
        "hundreds of tenants",
        "the second half",
        "a.m.",
    ],
)
def test_question_words_that_contain_numbers_are_no_figures(question: str) -> None:
    assert question_figures(question) == []


@pytest.mark.parametrize(
    ("question", "measure"),
    [
        ("over $1M", "1 million"), ("over € 2.5b a year", "2.5 billion"), ("over 5M followers", "5 million"),
        ("over 900K", "900 thousand"),
        ("over 1 trillion", "1 trillion"), ("over 5 m", "5"), ("a 5m rope", "5"), ("over $5 a month", "5"),
        ("over 2B", "2"),
    ],
)  # fmt: skip
def test_letter_after_money_multiplies_and_small_letter_does_not(question: str, measure: str) -> None:
    assert [one.measure for one in question_figures(question)] == [measure]


def test_question_figure_has_text_value_unit_and_bound() -> None:
    assert question_figures("More than Sixty Thousand people?") == [
        QuestionFigure("sixty thousand", "60", "60 thousand", ABOVE)
    ]
    assert question_figures("a 10-minute walk") == [QuestionFigure("10-minute", "10", "10 minute")]


@pytest.mark.parametrize(
    ("question", "wanted"),
    [
        ("Which rooms cost more than one hundred euros?", [("100", ABOVE)]),
        ("Which cost more than two hundred and fifty euros?", [("250", ABOVE)]),
        ("Which cost at least one thousand euros?", [("1000", FROM)]),
        ("Which cost under one hundred and twenty euros?", [("120", BELOW)]),
        ("Which have a hundred and five or more?", [("105", FROM)]),
        ("Which take at most one minute?", [("1 minute", UP_TO)]),
        ("between one hundred and fifty and two hundred", [("150", FROM), ("200", UP_TO)]),
        (
            "In one minute, of one room, an hour and a million, more than a thousand",
            [("60 minutes", None), ("1000", ABOVE)],
        ),
    ],
)
def test_number_of_several_words_is_one_bound(question: str, wanted: list[tuple[str, str | None]]) -> None:
    assert [(one.measure, one.bound) for one in question_figures(question)] == wanted


@pytest.mark.parametrize(
    ("question", "measure"),
    [
        ("after 6pm", "6:00 pm"),
        ("after 6 P.M.", "6:00 pm"),
        ("at 9.30 am", "9:30 am"),
        ("at 9:45pm", "9:45 pm"),
        ("at 13:00", "13:00"),
        ("half past nine", "9:30"),
        ("half past 9", "9:30"),
        ("quarter past twelve", "12:15"),
        ("quarter to ten", "9:45"),
        ("quarter to one", "12:45"),
        ("half past one", "1:30"),
        ("noon", "12:00"),
    ],
)
def test_clock_time_has_colon_unit(question: str, measure: str) -> None:
    assert [one.measure for one in question_figures(question)] == [measure]


@pytest.mark.parametrize(
    ("question", "minutes"),
    [("at 6pm", 1080), ("at 12 am", 0), ("at 12.15 pm", 735), ("half past nine", 570), ("noon", 720), ("midday", 720)],
)
def test_clock_time_value_is_minutes(question: str, minutes: int) -> None:
    [one] = question_figures(question)
    assert evaluate(str(one.figure)) == minutes


@every(st.times(), st.sampled_from(["%H:%M", "%-I:%M %p", "%-I.%M%p", "%I:%M%p"]))
def test_every_clock_time_value_is_minutes(time: datetime.time, form: str) -> None:
    [one] = question_figures(f"What is open at {time.strftime(form)}?")
    assert evaluate(str(one.figure)) == time.hour * 60 + time.minute


@pytest.mark.parametrize(
    ("question", "measure"),
    [
        ("in half an hour", "30 minutes"),
        ("a quarter of an hour", "15 minutes"),
        ("an hour", "60 minutes"),
        ("one hour", "60 minutes"),
        ("two hours", "2 hours"),
        ("a six-hour flight", "6 hour"),
        ("90 mins", "90 mins"),
    ],
)
def test_duration_has_its_unit(question: str, measure: str) -> None:
    assert [one.measure for one in question_figures(question)] == [measure]


@pytest.mark.parametrize(
    ("question", "text"),
    [
        ("before 12 May 2024", "12 may 2024"),
        ("before 12 May, when?", "12 may"),
        ("after May 3, 2024", "may 3, 2024"),
        ("after Sept. 30th", "sept. 30th"),
        ("on the 3rd of June", "3rd of june"),
        ("on 2024-05-03", "2024-05-03"),
        ("on 1st August 2024 or so", "1st august 2024"),
    ],
)
def test_date_with_and_without_year_is_one_figure(question: str, text: str) -> None:
    assert texts(question) == [text]


def test_time_after_month_is_no_day() -> None:
    assert texts("in May 12:30") == ["12:30"]


# Bounds


@pytest.mark.parametrize(
    ("question", "bound"),
    [
        *(
            (f"Which are {one} 90 square metres?", ABOVE)
            for one in ("larger than", "over", "above", "in excess of", "longer than about")
        ),
        *(
            (f"Which are {one} 90 square metres?", BELOW)
            for one in ("smaller than", "under", "below", "cheaper than", "fewer people than")
        ),
        *((f"Which have {one} 5?", FROM) for one in ("at least", "a minimum of", "min.", "no fewer than", "not under")),
        *(
            (f"Which have {one} 5?", UP_TO)
            for one in ("at most", "a maximum of", "max.", "no more than", "up to", "never above")
        ),
        ("Who is older than the age of 30?", ABOVE),
        ("Who is under the age of 18?", BELOW),
        ("Which costs more than $ 1,200?", ABOVE),
        ("Which are more expensive than (20)?", ABOVE),
        ("Which exceeds 8?", ABOVE),
        ("Which does not exceed 8?", UP_TO),
        ("Which closes after 6pm?", ABOVE),
        ("Which closes no later than 6 pm?", UP_TO),
        ("Which opens before half past nine?", BELOW),
        ("Which opens no earlier than 8:00?", FROM),
        ("Which are within 15 minutes?", UP_TO),
        ("Which take less than an hour?", BELOW),
        ("Who has been here since 1990?", FROM),
        ("Which opened before 12 May 2024?", BELOW),
        ("Which are not before 8?", FROM),
    ],
)
def test_bound_from_words_before_figure(question: str, bound: str) -> None:
    assert bounds(question) == [bound]


@pytest.mark.parametrize(
    ("question", "bound"),
    [
        *(
            (f"Which have 70 square metres {one}?", FROM)
            for one in ("or more", "and up", "or over", "at least", "upwards", "plus")
        ),
        *(
            (f"Which have 70 square metres {one}?", UP_TO)
            for one in ("or less", "and under", "at most", "at the most", "maximum", "tops")
        ),
        ("30+ people", FROM),
        ("20 % or more", FROM),
        ("30 °C or more", FROM),
        ("30 € or less", UP_TO),
        ("aged 12 or older", FROM),
        ("from 8 on, please", FROM),
        ("open from 8 onwards", FROM),
        ("on 2024-05-03 or later", FROM),
        ("at 9 a.m. or earlier", UP_TO),
        ("30 years old or younger", UP_TO),
        ("by bus or more, 5 or fewer", UP_TO),
    ],
)
def test_bound_from_words_after_figure(question: str, bound: str) -> None:
    assert bounds(question) == [bound]


@pytest.mark.parametrize(
    ("question", "bound"),
    [
        ("by 6pm", UP_TO),
        ("by noon", UP_TO),
        ("by 1 June", UP_TO),
        ("by 2030", UP_TO),
        ("by 5 percent", None),
        ("by 15 minutes", None),
    ],
)
def test_by_bounds_times_and_dates_but_no_amounts(question: str, bound: str | None) -> None:
    assert bounds(f"What rises {question}?") == [bound]


@pytest.mark.parametrize(
    "question",
    [
        "How much are 6 buns?",
        "In 2019?",
        "above all 5",
        "moreover 5",
        "the 20 largest",
        "rose from 5 to 10",
        "after both",
        "more than twice",
    ],
)
def test_unrelated_words_set_no_bound(question: str) -> None:
    assert set(bounds(question)) == {None}


def test_question_figures_have_separate_bounds() -> None:
    assert bounds("3 or more rooms and less than 800 euros, for 2 people") == [FROM, BELOW, None]
    assert bounds("What do 4 nights cost where there are at least 2 beds?") == [None, FROM]


@pytest.mark.parametrize(
    ("question", "wanted"),
    [
        ("more than 5 and less than 10 rooms", [ABOVE, BELOW]),
        ("more than 3 rooms and under 800 euros", [ABOVE, BELOW]),
        ("under 800 euros and at least 3 rooms", [BELOW, FROM]),
        ("before 2019 or after 2021", [BELOW, ABOVE]),
    ],
)
def test_bound_ignores_words_of_next_figure(question: str, wanted: list[str]) -> None:
    assert bounds(question) == wanted


@pytest.mark.parametrize(
    "question", ["What do 3 laptops cost?", "2 tickets per person?", "Of 5 in London?", "3 surplus ones", "12 noon"]
)
def test_bound_ignores_word_ending_after_figure(question: str) -> None:
    assert bounds(question)[0] is None


@pytest.mark.parametrize(
    "question",
    ["isn't larger than 5", "doesn't take more than 45 minutes", "can't exceed 45", "isn’t over 5", "not exceeding 5"],
)
def test_bound_is_inverted_by_contracted_negation(question: str) -> None:
    assert bounds(question) == [UP_TO]


@pytest.mark.parametrize(
    ("question", "bound"),
    [
        ("less expensive than 20", BELOW),
        ("greater than or equal to 5", FROM),
        ("less than or equal to 5", UP_TO),
        ("after the 3rd of May", ABOVE),
        ("no sooner than 8:15", FROM),
        ("7 o'clock or later", FROM),
        ("rated 4.5 or better", FROM),
    ],
)
def test_bound_from_rarer_words(question: str, bound: str) -> None:
    assert bounds(question) == [bound]


# Misleading spellings


@pytest.mark.parametrize("minus", ["-", "−", "minus "])
def test_negative_figure_keeps_sign_and_bound(minus: str) -> None:
    [one] = question_figures(f"Where was it colder than {minus}5 degrees?")
    assert (one.figure, one.bound) == ("-5", BELOW)


def test_dash_between_figures_is_no_minus() -> None:
    assert [one.figure for one in question_figures("from 2010-2015, of COVID-19")] == ["2010", "2015", "19"]


@pytest.mark.parametrize("question", ["1 hour 20 minutes at most", "an hour and a half at most"])
def test_hours_and_minutes_are_one_figure(question: str) -> None:
    assert len(question_figures(question)) == 1
    assert question_figures(question)[0].measure in ("80 minutes", "90 minutes")


def test_a_month_of_a_year_is_one_figure() -> None:
    assert question_figures("Which opened after March 2024?") == [
        QuestionFigure("march 2024", "2024", "march 2024", ABOVE)
    ]


@pytest.mark.parametrize(
    ("question", "text"), [("halls may 60 use", "60"), ("more than 10 markets", "10"), ("Junction 9", "9")]
)
def test_date_rejects_month_lookalikes_and_impossible_days(question: str, text: str) -> None:
    assert texts(question) == [text]


@pytest.mark.parametrize("date", ["3.5.2024", "03/05/2024", "3/5/24"])
def test_numeric_date_is_one_figure(date: str) -> None:
    assert texts(f"after {date}?") == [date]


def test_twelve_noon_is_one_time() -> None:
    assert [one.figure for one in question_figures("after 12 noon")] == ["(12 * 60 + 0)"]


# Search for a figure


@pytest.mark.parametrize(
    ("said", "question", "at"),
    [
        ("6", "of 5 and 6", 1),
        (" Twelve ", "of 5 and twelve", 1),
        ("two", "of 2 and two", 1),
        ("2", "of two and 2", 1),
        ("12", "of 5 and twelve", 1),
        ("60", "more than 5, or 60 thousand", 1),
        ("6:00 pm", "after 6pm", 0),
        ("9:30", "after half past nine", 0),
        ("12 May", "before 12 May 2024", 0),
        ("12 May 2024", "before 12 may 2024", 0),
        ("5", "5 of 5", 0),
        ("7", "of 5 and 6", None),
        ("nobody", "of 5", None),
        ("5", "Who is it?", None),
    ],
)
def test_find_figure_matches_text_prefix_or_value(said: str, question: str, at: int | None) -> None:
    assert find_figure(said, question) == at


def test_find_figure_prefers_exact_text_over_value_and_prefix() -> None:
    assert find_figure("12", "twelve of 120, or 12") == 2
    assert find_figure("two", "2 and twenty-two") == 0


@pytest.mark.parametrize(
    ("said", "question"), [("6", "60 or more"), ("1", "12 or more"), ("", "12 or more"), ("2", "20 thousand")]
)
def test_find_figure_rejects_part_of_a_number(said: str, question: str) -> None:
    assert find_figure(said, question) is None


@pytest.mark.parametrize(("said", "question"), [("1200", "under $1,200"), ("18:00", "after 6pm"), ("5.0", "of 5")])
def test_find_figure_matches_value_in_any_spelling(said: str, question: str) -> None:
    assert find_figure(said, question) == 0


@every(st.text(max_size=60))
def test_question_figures_of_any_text_occur_in_order(question: str) -> None:
    at = 0
    for one in question_figures(question):
        at = question.lower().index(one.text, at) + len(one.text)
        assert one.text
        assert one.bound in (None, *BOUNDS)
        assert find_figure(one.text, question) is not None


SAID = ("more than", "5", "at most", "twelve", "6pm", "or less", "1 May", "and", "not", "by", "12:30", "?")


@every(st.lists(st.sampled_from(SAID), max_size=9).map(" ".join))
def test_question_figures_are_computable_and_found_by_text(question: str) -> None:
    found = question_figures(question)
    assert all(one.figure is not None and evaluate(one.figure) >= 0 for one in found)
    assert [found[find_figure(one.text, question) or 0].text for one in found] == [one.text for one in found]

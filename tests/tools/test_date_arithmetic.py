"""Days that a duration of the sources makes of a day of the question."""

from __future__ import annotations

import pytest

from orchestra.schema.builtin_models import Passage
from orchestra.tools.date_arithmetic import compute_deadline


def deadline(question: str, sentence: str) -> str | None:
    found = compute_deadline(question, [Passage(source="terms.md", text=sentence)], [0.8], near=0.3)
    return None if found is None else found.day


@pytest.mark.parametrize(
    ("question", "sentence", "day"),
    [
        ("Bill of 12 March 2026, when must it be paid?", "A bill is to be paid within 30 days.", "11 April 2026"),
        (
            "Our lease ends in July 2028. By what date must notice be given?",
            "Notice is given at least six months before the lease ends.",
            "31 January 2028",
        ),
        (
            "The lease ends in June 2025. By what date must notice be given?",
            "Notice is given one month before the lease ends.",
            "31 May 2025",
        ),
        ("The order came on 3 May. Until when can it go back?", "An order can go back within two weeks.", "17 May"),
        ("The permit is of 31 January 2025, when does it end?", "A permit ends after one month.", "28 February 2025"),
        (
            "Bought on 29 February 2024, when does the guarantee end?",
            "The guarantee ends after 1 year.",
            "28 February 2025",
        ),
    ],
)
def test_duration_is_counted_from_the_day_of_the_question(question: str, sentence: str, day: str) -> None:
    assert deadline(question, sentence) == day


@pytest.mark.parametrize(
    ("question", "sentence"),
    [
        ("Bill of 12 March, who pays it?", "A bill is to be paid within 30 days."),
        ("When must a bill be paid?", "A bill is to be paid within 30 days."),
        ("Bill of 12 March, when must it be paid?", "A bill is to be paid within 10 working days."),
        (
            "Bill of 12 March, when must it be paid?",
            "A bill is to be paid within 30 days, of 500 euros within 60 days.",
        ),
        ("Bill of 31 June, when must it be paid?", "A bill is to be paid within 30 days."),
        ("Bill of 12 March, when must it be paid?", "Parcels are kept for 30 days."),
    ],
)
def test_other_questions_and_durations_have_no_day(question: str, sentence: str) -> None:
    assert deadline(question, sentence) is None

"""Requests that state all numbers of their computation."""

from __future__ import annotations

import pytest

from orchestra.tools.plain_arithmetic import calculate, plain_expression


@pytest.mark.parametrize(
    ("request_", "computation"),
    [
        ("What is 18 % of 2,450?", "2450 * 18 / 100 = 441"),
        ("How many hours is 7.5 hours a day, 5 days a week, 46 weeks?", "7.5 * 5 * 46 = 1725"),
        ("What is 12 x 7?", "12 * 7 = 84"),
        ("Calculate: (3 + 4) * 2", "(3 + 4) * 2 = 14"),
        ("1,200 / 4", "1200 / 4 = 300"),
    ],
)
def test_stated_computation_is_done(request_: str, computation: str) -> None:
    assert calculate.function(request_).computation == computation


@pytest.mark.parametrize(
    "request_",
    [
        "A farmer has 48 eggs and sells 19 of them. How many eggs are left?",
        "What happened on 3-4 May?",
        "How many hours is 7.5 hours a day, 5 weeks a year, 46 months?",
        "What is 5?",
        "1 / 0",
    ],
)
def test_other_requests_are_not_computed(request_: str) -> None:
    assert calculate.function(request_).text is None


def test_expression_of_a_word_problem_is_unknown() -> None:
    assert plain_expression("What do 3 lamps at 20 each cost?") is None

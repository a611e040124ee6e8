"""Effects in arguments: what is called within the expression that may not need it is refused; what is made before is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from orchestra import InputError, accepted, choose, first_of, loop, map_, when, workflow
from tests.workflow.standing import echo, fine, pay, receipt, refuse


def chosen_fields(n: int) -> str:
    return choose(n > 3, receipt(text="a").id, receipt(text="b").id)


def added(n: int) -> str:
    return first_of(when(n > 3, lambda: refuse(text="a")), otherwise="paid: " + pay(text="a"))


def passed_on(n: int) -> str:
    return first_of(when(n > 3, lambda: refuse(text="a")), otherwise=echo(text=pay(text="a")))


def mapped(n: int, texts: list[str]) -> list[str]:
    return first_of(when(n > 3, lambda: map_(lambda t: refuse(text=t), texts)), otherwise=map_(lambda t: pay(text=t), texts))


def turned(n: int) -> str:
    turns = lambda: refuse(text="a")  # noqa: E731
    return first_of(when(n > 3, turns), otherwise=loop(lambda last: pay(text="a"), at_most=2, until=lambda one: one == "ok"))


def checked(n: int) -> str:
    return first_of(when(n > 3, lambda: refuse(text="a")), otherwise=accepted(pay(text="a"), checks=fine))


def within(n: int, m: int) -> str:
    found = when(n > 1, lambda: first_of(when(m > 3, lambda: refuse(text="a")), otherwise=pay(text="b")))
    return first_of(found, otherwise="none")


def chosen_within(n: int, m: int) -> str:
    return first_of(when(n > 1, lambda: choose(m > 3, pay(text="a"), refuse(text="b"))), otherwise="none")


def fallen(n: int) -> str:
    return echo.options(fallback="paid: " + pay(text="b"))(text="a")


REFUSED = [chosen_fields, added, passed_on, mapped, turned, checked, within, chosen_within, fallen]


@pytest.mark.parametrize("function", REFUSED, ids=lambda function: function.__name__)
def test_an_effect_within_the_expression_is_refused(function: Callable[..., Any]) -> None:
    with pytest.raises(InputError, match="runs it whatever happens") as caught:
        assert workflow(function).graph
    assert caught.value.code == "W029"


def settle(text: str) -> str:
    return pay(text=text)


def by_helper(n: int) -> str:
    settled = settle("a")
    return first_of(when(n > 3, lambda: refuse(text="a")), otherwise=settled)


def of_a_list(n: int) -> str:
    receipts = [pay(text=text) for text in ("a", "b")]
    return first_of(when(n > 3, lambda: refuse(text="a")), otherwise=receipts[0])


def under_a_name(n: int) -> str:
    made = {"first": pay.options(name="receipt")(text="a")}
    return choose(n > 3, made["first"], "none")


def under_a_condition(n: int, m: int) -> str:
    return echo(text=first_of(when(n > 3, lambda: refuse(text="a")), when(m > 3, pay(text="b")), otherwise="none"))


@pytest.mark.parametrize("function", [by_helper, of_a_list, under_a_name, under_a_condition], ids=lambda function: function.__name__)
def test_what_is_made_before_or_under_a_condition_is_not(function: Callable[..., Any]) -> None:
    assert workflow(function).graph.nodes

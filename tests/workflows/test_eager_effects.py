"""Tests of effects in arguments: a call inside an expression that may not need it is refused, an earlier call is
not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from orchestra import InputError, accepted, choose, first_of, loop, map_, when, workflow
from orchestra.app.project import Project
from orchestra.core.settings import Settings
from tests.workflows.fallback_workflows import echo, fine, pay, receipt, refuse


def chosen_fields(n: int) -> str:
    return choose(n > 3, receipt(text="a").id, receipt(text="b").id)


def added(n: int) -> str:
    return first_of(when(n > 3, lambda: refuse(text="a")), otherwise="paid: " + pay(text="a"))


def passed_on(n: int) -> str:
    return first_of(when(n > 3, lambda: refuse(text="a")), otherwise=echo(text=pay(text="a")))


def mapped(n: int, texts: list[str]) -> list[str]:
    return first_of(
        when(n > 3, lambda: map_(lambda t: refuse(text=t), texts)), otherwise=map_(lambda t: pay(text=t), texts)
    )


def turned(n: int) -> str:
    turns = lambda: refuse(text="a")  # noqa: E731
    return first_of(
        when(n > 3, turns), otherwise=loop(lambda last: pay(text="a"), at_most=2, until=lambda one: one == "ok")
    )


def checked(n: int) -> str:
    return first_of(when(n > 3, lambda: refuse(text="a")), otherwise=accepted(pay(text="a"), checks=fine))


def within(n: int, m: int) -> str:
    found = when(n > 1, lambda: first_of(when(m > 3, lambda: refuse(text="a")), otherwise=pay(text="b")))
    return first_of(found, otherwise="none")


def chosen_within(n: int, m: int) -> str:
    return first_of(when(n > 1, lambda: choose(m > 3, pay(text="a"), refuse(text="b"))), otherwise="none")


def fallen(n: int) -> str:
    return echo.options(fallback="paid: " + pay(text="b"))(text="a")


def settle(text: str) -> str:
    return pay(text=text)


def twice(text: str) -> str:
    return "paid: " + settle(text)


@workflow
def settled(text: str) -> str:
    """Pays, in a workflow of its own."""
    return pay(text=text)


@workflow
def outer(text: str) -> str:
    """Calls what pays."""
    return echo(text=settled(text=text))


def helped(n: int) -> str:
    return first_of(when(n > 3, lambda: refuse(text="a")), otherwise=settle("a"))


def helped_twice(n: int) -> str:
    return first_of(when(n > 3, lambda: refuse(text="a")), otherwise=echo(text=twice("a")))


def helped_fallback(n: int) -> str:
    return echo.options(fallback=settle("b"))(text="a")


def helped_choice(n: int) -> str:
    return choose(n > 3, settle("a"), "none")


def listed(n: int) -> str:
    return first_of(when(n > 3, lambda: refuse(text="a")), otherwise=[pay(text=text) for text in ("a", "b")][0])  # noqa: RUF015


def called(n: int) -> str:
    return first_of(when(n > 3, lambda: refuse(text="a")), otherwise=settled(text="a"))


def called_within(n: int) -> str:
    return first_of(when(n > 3, lambda: refuse(text="a")), otherwise=outer(text="a"))


@workflow
def asked_to(text: str) -> str:
    """Pays under a condition of its own, which says nothing of whether this workflow is needed."""
    return first_of(when(text == "a", lambda: pay(text=text)), otherwise="none")


def called_conditional(n: int) -> str:
    return first_of(when(n > 3, lambda: refuse(text="a")), otherwise=asked_to(text="a"))


def called_of_each(n: int, texts: list[str]) -> list[str]:
    return first_of(
        when(n > 3, lambda: map_(lambda t: refuse(text=t), texts)),
        otherwise=map_(lambda t: outer(text=echo(text=t)), texts),
    )


def called_fallback(n: int) -> str:
    return echo.options(fallback=outer(text="b"))(text="a")


BY_OTHERS = [
    helped,
    helped_twice,
    helped_fallback,
    helped_choice,
    listed,
    called,
    called_within,
    called_of_each,
    called_fallback,
    called_conditional,
]
REFUSED = [*BY_OTHERS, chosen_fields, added, passed_on, mapped, turned, checked, within, chosen_within, fallen]


@pytest.mark.parametrize("function", REFUSED, ids=lambda function: function.__name__)
def test_eager_effect_in_expression_refused(function: Callable[..., Any]) -> None:
    with pytest.raises(InputError, match="always runs it") as caught:
        assert workflow(function).graph
    assert caught.value.code == "W029"


@pytest.mark.parametrize(
    ("function", "says", "hint"),
    [
        (helped, "pay has effects (once), and otherwise=settle(...) always runs it", "otherwise=lambda: settle(...)"),
        (
            helped_twice,
            "pay has effects (once), and otherwise=twice(...) always runs it",
            "otherwise=lambda: twice(...)",
        ),
        (listed, "pay has effects (once), and otherwise=pay(...) always runs it", "otherwise=lambda: pay(...)"),
        (
            called_within,
            "outer has effects (once), and otherwise=outer(...) always runs it",
            "otherwise=lambda: outer(...)",
        ),
    ],
)
def test_eager_effect_error_names_call(function: Callable[..., Any], says: str, hint: str) -> None:
    with pytest.raises(InputError) as caught:
        assert workflow(function).graph
    assert says in caught.value.message
    assert caught.value.hint == hint


def test_eager_effect_recursive_workflows_reported() -> None:
    @workflow
    def first(text: str) -> str:
        """Calls the second one, which calls it."""
        return first_of(when(text == "a", lambda: echo(text=text)), otherwise=second(text=text))

    @workflow
    def second(text: str) -> str:
        """Calls the first one."""
        return first(text=text)

    assert first.graph.nodes
    with pytest.raises(InputError, match="calls itself"):
        Project.load(Settings.load({})).program(first)


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


@pytest.mark.parametrize(
    "function", [by_helper, of_a_list, under_a_name, under_a_condition], ids=lambda function: function.__name__
)
def test_eager_effect_outside_expression_accepted(function: Callable[..., Any]) -> None:
    assert workflow(function).graph.nodes

"""Tests of `except` around a call: refused if it catches every exception and continues."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from orchestra import InputError, workflow
from tests.workflows.fallback_workflows import echo, pay

STEPS = {"echo": echo}


def looked_up(text: str) -> str:
    try:
        return STEPS["echo"](text=text)
    except KeyError:
        return pay(text=text)


def raised_again(text: str) -> str:
    try:
        return echo(text=text)
    except Exception as error:
        error.add_note("in raised_again")
        raise


def described(text: str) -> str:
    try:
        later = lambda: echo(text=text)  # noqa: E731
    except Exception:  # noqa: BLE001
        later = lambda: pay(text=text)  # noqa: E731
    return later()  # type: ignore[no-untyped-call]


def opened(text: str) -> str:
    with open(__file__):
        return echo(text=text)


@pytest.mark.parametrize("function", [looked_up, raised_again, described, opened])
def test_try_specific_exception_accepted(function: Callable[..., Any]) -> None:
    assert [*workflow(function).graph.nodes] == ["echo"]


def bare(text: str) -> str:
    try:
        return echo(text=text)
    except:  # noqa: E722
        return pay(text=text)


def one_of_two(text: str) -> str:
    try:
        return "" + echo(text=text)
    except (KeyError, Exception):  # noqa: BLE001
        return pay(text=text)


@pytest.mark.parametrize("function", [bare, one_of_two])
def test_try_catching_everything_refused(function: Callable[..., Any]) -> None:
    with pytest.raises(InputError, match="never sees it fail") as caught:
        assert workflow(function).graph
    assert caught.value.code == "W030"

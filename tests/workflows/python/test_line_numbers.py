"""Tests of the locations of compile errors in workflow functions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from orchestra import InputError, Orchestra, abstain, accepted, first_of, loop, map_, require, when, workflow
from orchestra.core.errors import InputErrors
from orchestra.core.settings import Settings
from tests.workflows.fallback_workflows import echo, fine, pay


@pytest.fixture
async def orchestra(tmp_path: Path) -> AsyncIterator[Orchestra]:
    async with Orchestra.open(Settings.load({"journal": str(tmp_path / "runs.db")}), fleet="none") as opened:
        yield opened


@workflow
def refund(text: str) -> str:
    """Withholds what is not fine."""
    return require(accepted(echo(text=text), checks=fine, otherwise=[abstain]))


def at_top(n: int) -> str:
    paid = first_of(when(n > 3, lambda: refund(text="a")), otherwise=lambda: pay(text="b"))  # here
    return echo(text=paid)


def in_a_list(n: int, texts: list[str]) -> list[str]:
    def one(text: str) -> str:
        paid = first_of(when(n > 3, lambda: refund(text=text)), otherwise=lambda: pay(text="b"))  # here
        return echo(text=paid)

    return map_(one, texts)


def in_a_turn(n: int) -> str:
    def turn(previous: str | None) -> str:
        paid = first_of(when(n > 3, lambda: refund(text="a")), otherwise=lambda: pay(text="b"))  # here
        return echo(text=paid)

    return loop(turn, at_most=2, until=lambda said: said == "ok")


def too_many(texts: list[str]) -> list[str]:
    return map_(lambda text: echo(text=text), texts, limit=2, at_least=3)  # here


@workflow
def within(n: int) -> str:
    """Its own fault."""
    paid = first_of(when(n > 3, lambda: refund(text="a")), otherwise=lambda: pay(text="b"))  # here
    return echo(text=paid)


def called(n: int) -> str:
    return echo(text=within(n=n))


def line_of(function: Callable[..., Any]) -> int:
    code = function.__code__
    text = Path(__file__).read_text("utf-8").splitlines()
    return next(number for number in range(code.co_firstlineno, len(text)) if "# here" in text[number - 1])


@pytest.mark.parametrize("function", [at_top, in_a_list, in_a_turn, too_many])
def test_compile_error_located_at_call(orchestra: Orchestra, function: Callable[..., Any]) -> None:
    with pytest.raises(InputError) as caught:
        orchestra.program(workflow(function))
    place = caught.value.location
    assert place is not None
    assert (Path(place.file).name, place.line) == ("test_line_numbers.py", line_of(function))
    assert "^" in str(caught.value)


def test_compile_error_located_in_called_function(orchestra: Orchestra) -> None:
    with pytest.raises(InputError) as caught:
        orchestra.program(workflow(called))
    assert within.function is not None
    assert caught.value.location is not None
    assert caught.value.location.line == line_of(within.function)
    assert "in the workflow 'within'" in caught.value.why
    assert ".options(fallback=lambda: ...)" in caught.value.hint


def test_compile_errors_each_have_line(orchestra: Orchestra) -> None:
    def both(n: int, texts: list[str]) -> list[str]:
        first = map_(lambda text: echo(text=text), texts, limit=1, at_least=2)
        return map_(lambda text: pay(text=text), first, limit=1, at_least=2)

    with pytest.raises(InputErrors) as caught:
        orchestra.program(workflow(both))
    lines = [error.location.line for error in caught.value.errors if error.location is not None]
    assert lines == [both.__code__.co_firstlineno + 1, both.__code__.co_firstlineno + 2]

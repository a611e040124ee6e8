"""Tests that tool values that no journal can store are a coded, failed attempt: never a crash of the run, and never
another value.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel

from orchestra import tool
from orchestra.agents.tools import ToolError, ToolFunction
from orchestra.journal.history import History
from tests.cli.shell import Shell
from tests.hostile.scene import obeyed, play


class Report(BaseModel):
    """A tool's own model; `more` holds any value."""

    score: float = 0.0
    more: Any = None


class Silent(Exception):
    """An exception whose conversion to text fails."""

    def __str__(self) -> str:
        raise ValueError("no words")


class Panic(BaseException):
    """Like the panic exception of Rust extensions: not an `Exception`."""


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


def circle() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


def raising(error: BaseException) -> Callable[[], Any]:
    def give() -> Any:
        raise error

    return give


NOT_KEPT: dict[str, Callable[[], Any]] = {
    "NaN": lambda: float("nan"),
    "infinity in a list": lambda: [1.0, float("inf")],
    "NaN in a model": lambda: Report(score=float("nan")),
    "NaN beside null": lambda: {"a": None, "b": float("nan")},
    "NaN under Any": lambda: Report(more={"x": float("nan")}),
    "a lone surrogate": lambda: "\ud800",
    "a lone surrogate in a key": lambda: {"\udfff": 1},
    "1,000 levels": lambda: nested(1_000),
    "65 levels": lambda: nested(65),
    "100,000 levels": lambda: nested(100_000),
    "a circle": circle,
    "65 MiB": lambda: "x" * (65 << 20),
    "65 MiB in a list": lambda: ["x" * (1 << 20)] * 65,
    "5,000 digits": lambda: 10**5_000,
    "50 digits": lambda: 10**50,
    "bytes that are no text": lambda: b"\xff\xfe",
    "an object": object,
    "a function": lambda: print,
}
RAISED: dict[str, BaseException] = {
    "a surrogate in its words": ValueError("caf\udce9.txt is not there"),
    "a MiB of words": ValueError("x" * (1 << 20)),
    "escapes in its words": ValueError("\x1b[2J\u202e"),
    "no words": Silent(),
    "StopIteration": StopIteration(3),
    "SystemExit": SystemExit(3),
    "a panic": Panic("index out of bounds"),
    "RecursionError": RecursionError("too deep"),
    "MemoryError": MemoryError(),
}


def made(give: Callable[[], Any]) -> Any:
    @tool(effect="pure")
    def poisoned() -> Any:
        """Gives poison."""
        return give()

    return poisoned


@pytest.mark.parametrize("name", NOT_KEPT)
def test_tool_value_that_cannot_be_stored_fails_the_attempt(name: str, shell: Shell) -> None:
    played = play(shell.project, "tooling", tool=made(NOT_KEPT[name]))
    assert (played.status, played.code) == ("failed", "T004")
    assert [attempt.error for attempt in played.attempts] == ["T004"]
    assert shell("runs", "show", "last", "told").code == 0


@pytest.mark.parametrize("name", RAISED)
def test_tool_exception_of_any_kind_fails_the_attempt(name: str, shell: Shell) -> None:
    played = play(shell.project, "tooling", tool=made(raising(RAISED[name])))
    assert (played.status, played.code) == ("failed", "T003")
    assert len(played.attempts) == 2, "the tool may do better at the second try"
    assert max(len(attempt.reason) for attempt in played.attempts) < 5_000
    said = shell("runs", "show", "last", "told")
    assert obeyed(said.out + said.err) == set()


@pytest.mark.parametrize("give", [NOT_KEPT["NaN"], raising(Panic("index out of bounds"))])
def test_tool_failure_with_fallback_completes_the_run(give: Callable[[], Any], shell: Shell) -> None:
    played = play(shell.project, "saving", tool=made(give))
    assert (played.status, played.output) == ("done", "saved")


KEPT: dict[str, Any] = {
    "control characters": "\x00\x1b[2J\u202e",
    "64 levels": nested(63),
    "40 digits": 10**39,
    "half the size": "x" * (8 << 20),
    "nulls": {"a": None, "b": [None, 1.5]},
    "an expression and a template": "${1 + 1} {{ 7 * 7 }} <|im_start|>",
}


@pytest.mark.parametrize("name", KEPT)
def test_tool_value_that_can_be_stored_round_trips(name: str, shell: Shell) -> None:
    played = play(shell.project, "tooling", tool=made(lambda: KEPT[name]))
    assert played.status == "done"
    assert played.output == played.attempts[0].value == KEPT[name]
    assert History.of(played.events).outcome is not None


def test_tool_result_that_cannot_be_stored_names_the_value() -> None:
    def numbers() -> list[float]:
        """Gives numbers."""
        return [1.0, float("nan")]

    with pytest.raises(ToolError) as caught:
        ToolFunction.from_function(numbers, effect="pure").convert_result([1.0, float("nan")])
    assert caught.value.code == "T004"
    assert "nan" in caught.value.reason

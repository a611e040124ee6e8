"""Enumerated texts on the command line: taken literally, and read as a line from files and stdin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestra.cli.inputs import read_inputs, read_node_values
from tests.cli.shell import Shell

TYPED = """
schema: orchestra/v1
name: sign
types: {Sign: {type: string, enum: ["-", "+", "@home"]}}
output: {it: "${sign}"}
nodes:
  sign: {ask: "Which sign?", returns: Sign}
"""
SIGN = {"type": "string", "enum": ["-", "+", "@home"]}


@pytest.fixture
def asked(shell: Shell) -> Shell:
    folder = shell.project / "workflows"
    folder.mkdir()
    (folder / "sign.yaml").write_text(TYPED)
    (folder / "choice.yaml").write_text(
        TYPED.replace("name: sign", "name: choice").replace("returns: Sign", 'options: ["-", "+", "@home"]')
    )
    (shell.project / "plus.txt").write_text("+\n")
    return shell


@pytest.mark.parametrize("workflow", ["sign", "choice"])
@pytest.mark.parametrize(
    ("typed", "value"), [("-", "-"), ("@home", "@home"), ("@plus.txt", "+"), ("@-", "+"), ("@@home", "@home")]
)
def test_listed_answer_is_literal_and_read_as_a_line(asked: Shell, workflow: str, typed: str, value: str) -> None:
    asked("run", workflow)
    assert asked("runs", "answer", "last", "--json", "--", typed, stdin="+\r\n").json["output"] == {"it": value}
    given = asked("runs", "fork", "last", "--set", f"sign={typed}", "--json", stdin="+\n").json["given"]
    assert given["sign"]["value"] == value


def test_missing_file_suggests_the_listed_options(asked: Shell) -> None:
    asked("run", "choice")
    assert "E022" in asked("runs", "answer", "last", "perhaps").err
    assert "C014: none.txt cannot be read" in asked("runs", "answer", "last", "@none.txt").err


def test_listed_input_is_literal_and_other_texts_keep_line_breaks(asked: Shell) -> None:
    fields: dict[str, dict[str, Any]] = {
        "sign": SIGN,
        "signs": {"type": "array", "items": SIGN},
        "text": {"type": "string"},
    }
    told = read_inputs(["sign=@home", "signs=-", "signs=@plus.txt", "text=@plus.txt"], fields)
    assert told == {"sign": "@home", "signs": ["-", "+"], "text": "+\n"}
    assert read_node_values(["a=-", "b=@plus.txt"], lambda _: {"anyOf": [SIGN, {"type": "null"}]}) == {
        "a": "-",
        "b": "+",
    }
    Path("home").write_text("x")
    assert read_node_values(["a=@home"], lambda _: {"anyOf": [SIGN, {"type": "string"}]}) == {"a": "@home"}


def test_hints_fit_the_option_that_was_typed(asked: Shell) -> None:
    asked("run", "sign")
    twice = asked("runs", "fork", "last", "--set", "sign=@-", "--set", "-", stdin="+").err
    assert "replace one - by a file: @FILE" in twice
    absent = asked("runs", "fork", "last", "--set", "@sign.json").err
    assert "--set @FILE reads a JSON object; for one value, write its name first: --set NAME=@sign.json" in absent

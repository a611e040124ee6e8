"""Tests the output parser: a model's text becomes a value of its type, or a reason with a code."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.agents.card import Card
from orchestra.agents.output_parser import InvalidOutput, OutputParser, ParsedOutput

TEXT = {"type": "string"}
INPUT = {"type": "object", "properties": {"question": TEXT}, "required": ["question"]}
OUTPUT = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}


def card(output: Any = OUTPUT) -> Card:
    return Card.declare("counter", input=INPUT, output=output, prompt="{{ question }}")


def planner() -> Card:
    inputs = {"type": "object", "properties": {"question": TEXT, "rules": TEXT}, "required": ["question", "rules"]}
    return Card.declare("planner", input=inputs, output=TEXT, prompt="{{ question }}", grammar="rules")


def test_parser_json_of_the_type_is_a_value() -> None:
    assert OutputParser(card()).parse(' {"n": 3}\n') == ParsedOutput({"n": 3})


def test_parser_plain_text_is_unchanged() -> None:
    assert OutputParser(card(TEXT)).parse(' "hello" \n', finish_reason="length") == ParsedOutput('"hello"')


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "M004"),
        ("  \n", "M004"),
        ("hello", "M001"),
        ('{"n": 3', "M001"),
        ('{"n": 3} more', "M001"),
        ('```json\n{"n": 3}\n```', "M001"),
        ('{"n": NaN}', "M001"),
        ('{"n": 1, "n": 2}', "M001"),
        ('{"n": ' + "9" * 50 + "}", "M001"),
        ("[" * 100 + "]" * 100, "M001"),
        ('{"n": "\\ud800"}', "M001"),
        ('{"n": "3"}', "M002"),
        ('{"n": 3.5}', "M002"),
        ("{}", "M002"),
        ('{"n": 3, "m": 4}', "M002"),
        ("null", "M002"),
        ('{"n": "' + "x" * (1 << 20) + '"}', "M001"),
    ],
)
def test_parser_invalid_output_has_error_code(text: str, code: str) -> None:
    result = OutputParser(card()).parse(text)
    assert isinstance(result, InvalidOutput)
    assert result.code == code
    assert len(result.reason) < 400


@pytest.mark.parametrize(
    ("text", "finish", "taken"),
    [
        ("s1 = a()\nreturn s1", "stop", "s1 = a()\nreturn s1"),
        ("s1 = a()\nreturn s1", "length", "s1 = a()"),
        ("s1 = a()\nreturn s1\n", "length", "s1 = a()\nreturn s1"),
    ],
)
def test_parser_truncated_plan_drops_last_line(text: str, finish: str, taken: str) -> None:
    assert OutputParser(planner()).parse(text, finish_reason=finish) == ParsedOutput(taken)


@pytest.mark.parametrize("text", ["\ns1 = a()", "s1 = a(", "return s1"])
def test_parser_plan_truncated_in_only_line_is_refused(text: str) -> None:
    told = OutputParser(planner()).parse(text, finish_reason="length")
    assert isinstance(told, InvalidOutput)
    assert told.code == "M003"


def test_parser_truncated_json_is_reported() -> None:
    result = OutputParser(card()).parse('{"n": 3', finish_reason="length")
    assert isinstance(result, InvalidOutput)
    assert result.code == "M003"
    assert "max_output" in result.hint


def test_parser_reason_has_no_control_characters() -> None:
    result = OutputParser(card()).parse("\x1b[31m\u202eevil\x00")
    assert isinstance(result, InvalidOutput)
    assert result.reason.isprintable()


@given(st.text(max_size=80))
def test_parser_any_text_raises_no_exception(text: str) -> None:
    assert isinstance(OutputParser(card()).parse(text), ParsedOutput | InvalidOutput)

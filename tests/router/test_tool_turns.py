"""Turns of an agent with tools: allowed lines, their results, and the prompt."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.router.plan_grammar import turn_grammar
from orchestra.router.plan_syntax import PlanStep, parse_line
from orchestra.router.tool_turns import format_value, parse_next_line, transcript, with_observed_types
from orchestra.router.validation import Rejection, validate_line
from tests.router.sample_capabilities import SEARCH, STR, contract, offer, walked

FETCH = contract("fetch", "tool", {"name": STR}, {})
FIRST = "s1 = search(query=input.question, documents=input.documents)"


def step(text: str) -> PlanStep:
    line = parse_line(text)
    assert isinstance(line, PlanStep)
    return line


@pytest.mark.parametrize("seed", range(25))
def test_tool_turn_grammar_output_passes_validation(seed: int) -> None:
    random, steps = Random(seed), list[PlanStep]()
    for _ in range(3):
        made = offer(steps=3)
        if (text := walked(turn_grammar(made, steps), random)) is None:
            return
        line = parse_next_line(text, made, steps)
        if line is None:
            return
        if isinstance(line, tuple):  # a repeated call, which a grammar cannot exclude
            assert {(one.code, "the same call" in one.reason) for one in line} == {("R001", True)}
            return
        assert validate_line(line, made, steps) == []
        steps.append(line)


def test_tool_turn_step_limit_leaves_only_return() -> None:
    made = offer(steps=1)
    assert walked(turn_grammar(made, [step(FIRST)]), Random(1)) == "return"


@pytest.mark.parametrize("text", ["return", " return s1", "```\nreturn {}\n```", f"{FIRST}\nreturn\ns2 = search()"])
def test_tool_turn_return_asks_for_answer(text: str) -> None:
    assert parse_next_line(text, offer(), [step(FIRST)]) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the line is empty"),
        (FIRST, "this line was already written"),
        ("returned", "a step begins with its name"),
        ("s2 = searhc(query=input.question)", "there is no 'searhc'"),
        ("s2 = search(query=s3)", "search needs documents"),
    ],
)
def test_tool_turn_invalid_line_is_rejected(text: str, said: str) -> None:
    found = parse_next_line(text, offer(), [step(FIRST)])
    assert isinstance(found, tuple)
    assert said in str(found[0])


def test_tool_turn_only_first_line_counts() -> None:
    line = parse_next_line(f"{FIRST}\ns2 = search(query=s1[0].text, documents=input.documents)\nreturn", offer(), [])
    assert str(line) == FIRST


def test_tool_turn_observed_type_replaces_untyped_output() -> None:
    made = offer(FETCH, SEARCH, values={"name": STR})
    steps = [step("s1 = fetch(name=input.name)")]
    line = "s2 = fetch(name=s1.city)"
    assert isinstance(parse_next_line(line, made, steps), tuple)
    assert str(parse_next_line(line, with_observed_types(made, steps, [{"city": "Oslo"}]), steps)) == line
    assert isinstance(parse_next_line(line, with_observed_types(made, steps, [{"city": 1}]), steps), tuple)


@given(st.recursive(st.none() | st.text() | st.integers(), lambda one: st.lists(one) | st.dictionaries(st.text(), one)))
def test_format_value_is_one_parseable_line(value: Any) -> None:
    line = format_value(value, 10**9)
    assert line.splitlines() == [line]
    assert json.loads(line) == value


@given(st.text(), st.text())
def test_transcript_value_or_rejection_starts_no_line(value: str, reason: str) -> None:
    shown = transcript([step(FIRST)], [value], [Rejection("T003", "/steps/2", reason)], 50)
    lines = shown.splitlines()
    assert [line[:3] for line in lines] == [FIRST[:3], "-> ", "!! "]
    assert len(lines[1]) < 90

"""The notation: what is written reads back the same, and what is no line of a plan says why, with its column."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.router.plan_syntax import (
    PlanAnswer,
    PlanLiteral,
    PlanReference,
    PlanStep,
    PlanSyntaxError,
    parse_line,
    parse_plan,
)

NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)
SKILLS = st.from_regex(r"[A-Za-z_]([A-Za-z0-9_.:/-]{0,8}[A-Za-z0-9_])?", fullmatch=True).filter(lambda name: name != "return")
STEPS = st.integers(1, 99).map(lambda number: f"s{number}")
PATHS = st.lists(NAMES | st.integers(0, 9), max_size=3).map(tuple)
REFERENCES = st.builds(PlanReference, st.just("input") | STEPS | st.just("x"), PATHS)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-999, 999) | st.floats(allow_nan=False, allow_infinity=False, width=16) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
).filter(lambda value: "\ud800" not in repr(value))
ARGUMENTS = st.dictionaries(NAMES, REFERENCES | st.builds(PlanLiteral, JSON), max_size=4)
STATED = st.lists(JSON, max_size=3).map(PlanLiteral)
LINES = st.builds(PlanStep, STEPS, SKILLS, ARGUMENTS, st.none() | REFERENCES | STATED, st.lists(STEPS, max_size=2).map(tuple)) | st.builds(
    PlanAnswer, st.lists(REFERENCES.filter(lambda one: str(one) != "nothing"), max_size=3).map(tuple)
)


@given(LINES)
def test_what_is_written_reads_back_the_same(line: PlanStep | PlanAnswer) -> None:
    assert parse_line(str(line)) == line


@given(st.text(max_size=60))
def test_any_text_is_a_line_or_says_where_it_is_none(text: str) -> None:
    try:
        line = parse_line(text)
    except PlanSyntaxError as error:
        column = error.column
    else:
        assert parse_line(str(line)) == line
        column = 1
    assert 1 <= column <= len(text) + 1


@pytest.mark.parametrize(
    ("text", "reason", "column"),
    [
        ("", "a step begins with its name: s1 = …", 1),
        ("search(query=1)", "a step begins with its name: s1 = …", 1),
        ("s1 = ", "here stands the name of an agent or a tool", 6),
        ("s1 = search(query=input.question", "here stands ','", 33),
        ("s1 = search(query=input.question) # so", "nothing more follows on a line", 35),
        ("s1 = search(query=1, query=2)", "the argument query is given twice", 27),
        ('s1 = search(query="abc)', "the text or the list that begins here does not end", 19),
        ("s1 = search(query='abc')", "here stands a value: input.NAME, a step such as s1, or JSON", 19),
        ("s1 = [reader(text=x) for y in s0]", "here stands 'x'", 26),
        ("s1 = search(query=[1, 2,])", "no JSON", 19),
    ],
)
def test_a_line_that_is_none_says_what_should_stand_where(text: str, reason: str, column: int) -> None:
    with pytest.raises(PlanSyntaxError) as caught:
        parse_line(text)
    assert caught.value.reason.startswith(reason)
    assert caught.value.column == column


def test_a_plan_is_read_out_of_a_fence_and_says_the_line_of_a_fault() -> None:
    text = "```python\ns1 = search(query=input.question)\n\nreturn s1\n```"
    assert [str(line) for line in parse_plan(text)] == ["s1 = search(query=input.question)", "return s1"]
    with pytest.raises(PlanSyntaxError, match="line 2: "):
        parse_plan("s1 = search()\nthen I would read it")


def test_deep_nesting_and_long_lines_are_refused() -> None:
    with pytest.raises(PlanSyntaxError, match="no JSON"):
        parse_line(f"s1 = a(b={'[' * 500}{']' * 500})")
    with pytest.raises(PlanSyntaxError, match="at most 8,000 characters"):
        parse_line("s1 = a(" + "b" * 9000)

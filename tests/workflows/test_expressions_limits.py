"""Tests of the limits of references: hostile texts are refused quickly, and never raise another exception."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestra.core.errors import InputError, OrchestraError
from orchestra.schema.types import Schema
from orchestra.workflows.expressions.parser import MAX_LENGTH, children, parse
from orchestra.workflows.expressions.templates import compile_template
from tests.unsafe_reference import assert_cost

TYPES: dict[str, Schema] = {
    "a": {"type": "integer"},
    "xs": {"type": "array", "items": {"type": "integer"}},
    "s": {"type": "string"},
    "any": {},
}


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("(" * 500 + "a" + ")" * 500, "L056"),
        ("[" * 500 + "]" * 500, "L056"),
        ("!" * 1000 + "true", "L056"),
        ("-" * 1000 + "a", "L056"),
        ("a" + " + a" * 250, "L056"),
        ("a" + ".b" * 500, "L056"),
        ("a == 1 ? 1 : " * 60 + "2", "L056"),
        ("s == '" + "x" * 1020 + "'", "L056"),
        ("(" * 1000, "L056"),
        ("{" * 500 + "}" * 500, "L056"),
        ("".join(f"xs.map(x{n}, " for n in range(13)) + "1" + ")" * 13, "L056"),
    ],
)
def test_large_reference_refused_quickly(source: str, code: str) -> None:
    def refused() -> None:
        with pytest.raises(InputError) as caught:
            compile_template("${" + source + "}", TYPES)
        assert caught.value.code == code

    assert_cost(refused, at_most=30)


def test_reference_at_limit_accepted() -> None:
    assert compile_template("${s == '" + "x" * (MAX_LENGTH - 7) + "'}", TYPES).evaluate({"s": "y"}) is False
    deep = "".join(f"xs.exists(x{n}, " for n in range(12)) + "x0 == x11" + ")" * 12
    assert compile_template("${" + deep + "}", TYPES).evaluate({"xs": [1]}) is True
    assert compile_template("${" + " || ".join(["a == 1"] * 100) + "}", TYPES).evaluate({"a": 1}) is True


@given(st.text("ax.s[]()0123'\"\\!&|=<>+-*/%?:,{}$ \n", max_size=40))
@settings(max_examples=400, deadline=None)
def test_any_text_compiles_or_is_refused(text: str) -> None:
    for template in (text, "${" + text + "}"):
        try:
            expression = compile_template(template, TYPES)
            expression.evaluate({"a": 1, "xs": [1, 2], "s": "x", "any": None})
        except OrchestraError as error:
            found = error.code
        else:
            found = "L000"
        assert found.startswith("L0")


@given(st.text(max_size=30))
def test_text_without_references_unchanged(text: str) -> None:
    if "${" not in text:
        assert compile_template(text, {}).evaluate({}) == text


@given(st.text(max_size=30))
def test_escape_doubles_dollar(text: str) -> None:
    escaped = text.replace("${", "$${")
    assert compile_template(escaped, {}).evaluate({}) == text


def test_parse_tree_has_positions() -> None:
    text = "s.contains('x') && xs.map(i, i + a)[0] >= (a == 1 ? 2 : 3)"
    waiting = [parse(text)]
    while waiting:
        tree = waiting.pop()
        assert text[tree.start : tree.end].strip() == text[tree.start : tree.end]
        assert tree.start < tree.end
        waiting += children(tree)

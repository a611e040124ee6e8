"""Tests the fast path for plain inputs and results of tools: it accepts nothing that full validation refuses, and
changes no value.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from orchestra.agents.fast_validation import fast_arguments, list_test, record_tests, scalar_test
from orchestra.agents.tools import ToolFunction
from orchestra.schema.types import Validator, schema_of

PLAIN: list[Any] = [str, int, float, bool, None, Any]
LISTS: list[Any] = [list[str], list[int], Sequence[float], list[bool], list[Any]]
odd = st.sampled_from(
    [
        "\ud800",
        1 << 80,
        -(1 << 80),
        1.0,
        float("nan"),
        float("inf"),
        True,
        b"x",
        object(),
        (1, 2),
        {"a": 1},
        [None],
        [[1]],
    ]
)
values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.lists(st.integers() | st.text(), max_size=3),
    odd,
)


@pytest.mark.parametrize("hint", PLAIN + LISTS)
@given(value=values)
def test_fast_validation_accepts_only_values_that_round_trip(hint: Any, value: Any) -> None:
    schema = schema_of(hint, "validation")
    passes = scalar_test(schema, hint) or list_test(schema, hint)
    assert passes is not None
    if passes(value):
        assert Validator(schema).is_valid(value)
        read = TypeAdapter(hint).validate_python(value)
        assert (read, type(read)) == (value, type(value))
        assert TypeAdapter(hint).dump_python(value, mode="json", warnings="error") == value


@pytest.mark.parametrize(
    ("hint", "value"), [(str, "é"), (int, -3), (float, 0.5), (bool, False), (list[str], ["a", "b"]), (Any, None)]
)
def test_fast_validation_accepts_values_of_the_type(hint: Any, value: Any) -> None:
    schema = schema_of(hint, "validation")
    passes = scalar_test(schema, hint) or list_test(schema, hint)
    assert passes is not None
    assert passes(value)


def test_fast_validation_excludes_bounded_types() -> None:
    assert scalar_test({"type": "string", "minLength": 1}, str) is None
    assert list_test({"type": "array", "items": {"type": "string"}, "maxItems": 2}, list[str]) is None


def add(left: int, right: int = 2, names: list[str] | None = None) -> int:
    return left + right


def joined(words: list[str], sign: str = " ") -> str:
    return sign.join(words)


@given(st.dictionaries(st.sampled_from(["words", "sign", "other"]), values | st.lists(st.text())))
def test_fast_validation_needs_exactly_the_declared_inputs(inputs: dict[str, Any]) -> None:
    made = ToolFunction.from_function(joined, effect="pure")
    known = record_tests(made.contract.input, {"words": list[str], "sign": str})
    assert known is not None
    if (found := fast_arguments(inputs, *known)) is not None:
        assert Validator(made.contract.input).is_valid(inputs)
        assert found == inputs


def test_fast_validation_excludes_record_with_complex_field() -> None:
    made = ToolFunction.from_function(add, effect="pure")
    assert record_tests(made.contract.input, {"left": int, "right": int, "names": list[str] | None}) is None
    assert made.convert_inputs({"left": 1, "names": ["a"]}) == {"left": 1, "names": ["a"]}


def test_fast_validation_copies_lists_of_the_caller() -> None:
    words = ["a", "b"]
    assert ToolFunction.from_function(joined, effect="pure").convert_inputs({"words": words})["words"] is not words

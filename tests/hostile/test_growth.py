"""Tests that growth is bounded: schemas and values that grow by 2^n, prompts with many messages, and very long
names.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.agents.template import split_messages
from orchestra.core.errors import InputError
from orchestra.schema.fields import expand_schema, iter_fields
from orchestra.schema.json_schema import format_type, union_members
from orchestra.schema.strict_json import storage_error
from orchestra.schema.types import Validator, parse_type
from tests.unsafe_reference import assert_cost

NODE: dict[str, Any] = {
    "$ref": "#/$defs/T",
    "$defs": {
        "A": {
            "type": "object",
            "properties": {"x": {"$ref": "#/$defs/T"}, "a": {"type": "integer"}},
            "required": ["x"],
        },
        "B": {
            "type": "object",
            "properties": {"x": {"$ref": "#/$defs/T"}, "b": {"type": "integer"}},
            "required": ["x"],
        },
        "T": {"oneOf": [{"type": "null"}, {"$ref": "#/$defs/A"}, {"$ref": "#/$defs/B"}]},
    },
}
"""A tree with two kinds of nodes, as written by pydantic; it is not malicious."""


def tree(depth: int, leaf: Any) -> Any:
    value = leaf
    for _ in range(depth):
        value = {"x": value}
    return value


@pytest.mark.parametrize("leaf", [None, 3, {"x": None, "a": "wrong"}])
@pytest.mark.parametrize("depth", [1, 5, 12, 30, 60])
def test_recursive_union_refuses_value_in_bounded_time(depth: int, leaf: Any) -> None:
    validator = Validator(NODE)
    fault = validator.check(tree(depth, leaf))
    assert fault is not None
    assert len(fault) <= 500
    assert_cost(lambda: validator.check(tree(depth, leaf)), at_most=30)


def test_recursive_union_error_of_small_value_has_its_path() -> None:
    schema = {**NODE, "$defs": {**NODE["$defs"], "T": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/A"}]}}}
    assert Validator(schema).check(tree(3, {"x": None, "a": "wrong"})) == "x: x: x: a: expected int, got 'wrong'"


def test_recursive_array_type_accepts_nested_arrays() -> None:
    assert (
        Validator({"$ref": "#/$defs/L", "$defs": {"L": {"type": "array", "items": {"$ref": "#/$defs/L"}}}}).check(
            [[], [[]]]
        )
        is None
    )


def doubling(key: str, count: int) -> dict[str, Any]:
    steps = {f"T{i}": {key: [{"$ref": f"#/$defs/T{i + 1}"}] * 2} for i in range(count)}
    return {"$ref": "#/$defs/T0", "$defs": {**steps, f"T{count}": {"type": "string"}}}


@pytest.mark.parametrize("key", ["anyOf", "oneOf", "allOf"])
def test_doubling_types_are_refused_before_traversal(key: str) -> None:
    with pytest.raises(InputError, match="a million ways"):
        Validator(doubling(key, 40))
    assert Validator(doubling(key, 8)).check(3) is not None


def test_nested_unions_are_expanded_up_to_a_limit() -> None:
    assert len(union_members(doubling("anyOf", 8))) == 256
    with pytest.raises(InputError, match="2,000 types"):
        union_members(doubling("anyOf", 40))


def test_field_iteration_visits_each_type_once() -> None:
    assert expand_schema(doubling("anyOf", 40), doubling("anyOf", 40)) == ({"type": "string"},)
    assert [field.path for field in iter_fields(tree(3, None), NODE)] == ["", "x", "x.x", "x.x.x"]


def test_prompt_messages_have_their_line_numbers() -> None:
    text = "a\n<!-- system -->\nb\n\n<!-- user -->\nc"
    assert split_messages(text) == [("user", "a\n", 1), ("system", "b\n\n", 3), ("user", "c", 6)]


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_literal_types_of_any_text_round_trip(text: str) -> None:
    schema = {"enum": [text], "type": "string"}
    assert parse_type(format_type(schema, full=True), {}) == schema


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**39), 10**39)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=20,
)


@given(json_values)
def test_json_values_can_be_stored(value: Any) -> None:
    assert storage_error(value) == ""


@given(json_values, st.sampled_from([float("nan"), float("inf"), "\ud800", 10**41, object()]), st.booleans())
def test_non_json_values_cannot_be_stored_at_any_depth(value: Any, bad: Any, as_field: bool) -> None:
    assert storage_error([value, {"x": bad, "y": value}] if as_field else [value, [bad]]) != ""

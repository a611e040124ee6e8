"""Random values of JSON Schemas."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.schema.validator import Validator
from orchestra.testing import InstanceError, make_instance

TREE: dict[str, Any] = {
    "$ref": "#/$defs/Tree",
    "$defs": {
        "Tree": {
            "type": "object",
            "properties": {
                "name": {"type": "string"},
                "children": {"type": "array", "items": {"$ref": "#/$defs/Tree"}},
                "left": {"anyOf": [{"$ref": "#/$defs/Tree"}, {"type": "null"}]},
            },
            "required": ["name", "children", "left"],
            "additionalProperties": False,
        }
    },
}
SCHEMAS: list[dict[str, Any]] = [
    {},
    {"type": "string", "minLength": 30, "maxLength": 35},
    {"type": "string", "maxLength": 2},
    {"type": "string", "pattern": "^[a-z][a-z0-9_]*$"},
    {"type": "string", "format": "date"},
    {"type": "integer", "minimum": -3, "maximum": -1},
    {"type": "integer", "exclusiveMinimum": 3, "exclusiveMaximum": 5},
    {"type": "number", "minimum": 0, "maximum": 1},
    {"type": "number", "multipleOf": 0.5, "maximum": 9},
    {"type": ["string", "null"]},
    {"enum": ["a", 1, None]},
    {"const": {"x": [1]}},
    {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 3, "uniqueItems": True},
    {"type": "array", "prefixItems": [{"type": "string"}, {"type": "null"}], "minItems": 2, "items": False},
    {"type": "object", "additionalProperties": {"type": "boolean"}, "required": ["sure"]},
    {"anyOf": [{"type": "integer"}, {"type": "array", "items": {"type": "string"}}]},
    {
        "allOf": [
            {"properties": {"a": {"type": "string"}}, "required": ["a"]},
            {"properties": {"b": {"type": "null"}}, "required": ["b"]},
        ]
    },
    TREE,
]


@given(st.sampled_from(SCHEMAS), st.integers(0, 10_000))
def test_sample_is_valid_for_schema(schema: dict[str, Any], seed: int) -> None:
    assert Validator(schema).check(make_instance(schema, Random(seed))) is None


@given(st.sampled_from(SCHEMAS), st.integers(0, 10_000))
def test_sample_seed_is_reproducible(schema: dict[str, Any], seed: int) -> None:
    assert make_instance(schema, Random(seed)) == make_instance(schema, Random(seed))


@given(st.text(min_size=1).filter(str.strip), st.integers())
def test_sample_quote_is_in_source(source: str, seed: int) -> None:
    quote = make_instance({"type": "string", "format": "quote"}, Random(seed), ["", source])
    assert quote
    assert quote in source


@pytest.mark.parametrize(
    "schema",
    [{"$ref": "https://example.org/x"}, {"type": "string", "pattern": "^(foo){7}$"}, {"allOf": [{"type": "colour"}]}],
)
def test_sample_unsupported_schema_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(InstanceError):
        make_instance(schema, Random(0))

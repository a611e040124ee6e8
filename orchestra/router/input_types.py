"""The types of values that come without one: what a request brings along."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestra.schema.json_schema import object_type
from orchestra.schema.types import ANY, NULL, Schema, bundle_definitions, union

MAX_INSPECTED = 200
"""Elements of a list that are looked at; a longer one is taken to be like its beginning, and checked when the plan runs."""


def infer_schema(value: Any) -> Schema:
    """The narrowest type that a JSON value tells: a list of what its elements are, a record of its fields."""
    match value:
        case None:
            return NULL
        case bool():
            return {"type": "boolean"}
        case int():
            return {"type": "integer"}
        case float():
            return {"type": "number"}
        case str():
            return {"type": "string"}
        case Mapping():
            fields = {str(name): infer_schema(one) for name, one in value.items()}
            return bundle_definitions(object_type(fields))
        case list() | tuple():
            kinds = [infer_schema(one) for one in value[:MAX_INSPECTED]]
            return bundle_definitions({"type": "array", "items": union(kinds) if kinds else ANY})
        case _:
            return ANY

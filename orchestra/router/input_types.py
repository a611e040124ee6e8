"""Types of values without a declared type: the inputs of a request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestra.schema.builtin_models import Table
from orchestra.schema.json_schema import object_type
from orchestra.schema.types import ANY, NULL, Schema, bundle_definitions, schema_of, union

MAX_INSPECTED = 200
"""Elements of a list that are examined. The rest is assumed to be alike, and is checked when the plan runs."""


def infer_schema(value: Any) -> Schema:
    """Returns the narrowest type of a JSON value: for a list the union of its elements, for a record its fields. Tables
    have their declared type, because texts of their columns are of a closed set.
    """
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
            fields = {str(name): infer_schema(item) for name, item in value.items()}
            return bundle_definitions(object_type(fields))
        case list() | tuple() if value and all(_is_table(item) for item in value):
            return schema_of(list[Table], "validation")
        case list() | tuple():
            kinds = [infer_schema(item) for item in value[:MAX_INSPECTED]]
            return bundle_definitions({"type": "array", "items": union(kinds) if kinds else ANY})
        case _:
            return ANY


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping) and {"name", "cells", "columns"} <= value.keys() <= Table.model_fields.keys()

"""Types: JSON Schemas, whether they come from a text, from Python or from a card. The door to `schema`, `typetext` and `validator`."""

from __future__ import annotations

from types import FunctionType
from typing import Any, Literal, TypeAlias

from orchestra.core.errors import InputError
from orchestra.schema.json_schema import (
    ANY,
    NULL,
    Schema,
    bundle_definitions,
    element_type,
    field_type,
    format_type,
    is_map_result,
    item_type,
    localize_references,
    map_result_type,
    nullable,
    resolve,
    subschema,
    union,
    union_members,
)
from orchestra.schema.type_syntax import RESERVED_TYPE_NAMES, parse_type
from orchestra.schema.validator import Validator

__all__ = [
    "ANY",
    "NULL",
    "RESERVED_TYPE_NAMES",
    "Schema",
    "SchemaMode",
    "Validator",
    "bundle_definitions",
    "element_type",
    "field_type",
    "format_type",
    "is_map_result",
    "item_type",
    "localize_references",
    "map_result_type",
    "nullable",
    "parse_type",
    "resolve",
    "schema_of",
    "subschema",
    "union",
    "union_members",
]

SchemaMode: TypeAlias = Literal["validation", "serialization"]
"""Of a schema: what is accepted, or what is written."""


def schema_of(python_type: Any, mode: SchemaMode) -> Schema:
    """The schema of a Python type, as pydantic sees it: of what is accepted, or of what is written.

    Raises `InputError` L043 for a type without a JSON form.
    """
    from pydantic import PydanticUserError, TypeAdapter
    from pydantic.errors import PydanticInvalidForJsonSchema
    from pydantic.json_schema import GenerateJsonSchema

    class PlainSchemaGenerator(GenerateJsonSchema):
        """Without titles made from the names of fields, which would hide what a field is; decimal numbers have a format.

        Where a factory gives the same each time, what it gives is the default."""

        def field_title_should_be_set(self, schema: Any) -> bool:
            return False

        def decimal_schema(self, schema: Any) -> dict[str, Any]:
            found = super().decimal_schema(schema)
            for part in found.get("anyOf", [found]):
                if part.get("type") == "string":
                    part["format"] = "decimal"  # else nothing would tell it from any text
            return found

        def get_default_value(self, schema: Any) -> Any:
            factory = schema.get("default_factory")
            if factory is None or schema.get("default_factory_takes_data") or not _is_deterministic(factory):
                return super().get_default_value(schema)
            return factory()

    try:
        return TypeAdapter(python_type).json_schema(mode=mode, schema_generator=PlainSchemaGenerator)
    except (PydanticUserError, PydanticInvalidForJsonSchema, NameError, TypeError) as error:
        name = getattr(python_type, "__name__", str(python_type))
        reason = str(error).partition("\n")[0]
        raise InputError(
            "L043", f"{name} has no JSON form: {reason}", hint="use str, int, float, bool, lists, dicts or pydantic models"
        ) from error


_EMPTY_FACTORIES = (list, dict, set, frozenset, tuple, str, int, float, bool)


def _is_deterministic(factory: Any) -> bool:
    """Whether a factory of defaults is sure to give the same each time: an empty value, constants alone, or a model of such defaults."""
    if factory in _EMPTY_FACTORIES:
        return True
    if isinstance(factory, FunctionType):
        return not factory.__code__.co_names and not factory.__closure__ and not factory.__code__.co_argcount
    fields = [*getattr(factory, "__pydantic_fields__", {}).values()]
    made = [field.default_factory for field in fields if field.default_factory is not None]
    plain = bool(fields) and getattr(factory, "__pydantic_post_init__", None) is None
    return plain and all(map(_is_deterministic, made)) and not any(field.is_required() for field in fields)

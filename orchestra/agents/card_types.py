"""Types of a card: converts its `input`, `output` and `types` to JSON Schemas."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final

from orchestra.core.errors import InputError, SourceLocation
from orchestra.schema import builtin_models as known
from orchestra.schema.types import (
    RESERVED_TYPE_NAMES,
    Schema,
    Validator,
    bundle_definitions,
    localize_references,
    parse_type,
    schema_of,
)

TYPE_NAME_HINT: Final = "types are named like `Invoice`"
FIELD_NAME: Final = re.compile(r"[\w$@][\w $@.:/-]{0,99}")
"""Names of record fields, such as `total` or `first-name`: one line, without quotes and delimiters of other
syntaxes.
"""

KeyLocator = Callable[[str], SourceLocation | None]
"""Returns the location of a key."""


@cache
def project_models() -> dict[str, Schema]:
    """Returns the types that every project has, and `Quote`."""
    schemas = {
        model.__name__: schema_of(model, "validation")
        for model in (
            known.Document,
            known.Passage,
            known.Citation,
            known.Answer,
            known.Judgement,
            known.Reading,
            known.Table,
        )
    }
    return {"Quote": schema_of(known.Quote, "validation"), **schemas}


def resolve_types(
    types: Mapping[str, Mapping[str, Any]], models: Mapping[str, Schema], at: KeyLocator
) -> dict[str, Schema]:
    """Returns the project types and the types that a card declares. A type may refer to earlier ones.

    A type is a record of fields, such as `{name: str, age: int | null}`, or JSON Schema if it has a `type`, `enum`,
    `anyOf` or `properties` key of JSON Schema.

    Raises:
        InputError: L105 for an invalid or reserved name, A002 for an invalid field.
    """
    resolved_types = dict(models)
    for name, body in types.items():
        if not name.isidentifier() or name in RESERVED_TYPE_NAMES:
            raise InputError("L105", invalid_type_name(name), location=at(name), hint=TYPE_NAME_HINT)
        resolved_types[name] = (
            _checked_schema(name, body, at(name)) if _is_schema(body) else record_schema(body, resolved_types, at, name)
        )
    return resolved_types


def invalid_type_name(name: str) -> str:
    """Returns why a type name is invalid."""
    return f"{name!r} cannot be the name of a type"


def _checked_schema(name: str, body: Mapping[str, Any], location: SourceLocation | None) -> Schema:
    """Checks an untrusted JSON Schema before other code reads it."""
    schema = dict(body)
    try:
        Validator(schema)
    except InputError as error:
        raise InputError(error.code, f"{name}: {error.message}", location=location, hint=error.hint) from error
    return localize_references(schema, name)


def _is_schema(body: Mapping[str, Any]) -> bool:
    kinds = {"string", "number", "integer", "boolean", "array", "object", "null"}
    return (
        any(not isinstance(body.get(key, ""), str) for key in ("enum", "anyOf", "properties", "items"))
        or str(body.get("type")) in kinds
    )


def record_schema(fields: Mapping[str, Any], models: Mapping[str, Schema], at: KeyLocator, title: str = "") -> Schema:
    """Returns a closed object schema with these fields, in order, all required.

    Raises:
        InputError: A002 for a field whose type is not a text, L-codes for an invalid type.
    """
    properties = {}
    for name, text in fields.items():
        if not FIELD_NAME.fullmatch(name):
            hint = "letters, digits, and any of _ - . : / $ @ and the blank: at most 100"
            raise InputError("A002", f"{name!r} cannot be the name of a field", location=at(name), hint=hint)
        if not isinstance(text, str):
            raise InputError(
                "A002",
                f"{name}: a type is a text, such as `str | null`",
                location=at(name),
                hint="declare records under `types:`",
            )
        properties[name] = parse_type(text, models, at(name))
    head: Schema = {"type": "object", "title": title} if title else {"type": "object"}
    return bundle_definitions(
        {**head, "properties": properties, "required": list(fields), "additionalProperties": False}
    )


def output_type(output: str | Mapping[str, str], models: Mapping[str, Schema], at: KeyLocator) -> Schema:
    """Returns the schema of an output: one type, or a record."""
    return parse_type(output, models, at("output")) if isinstance(output, str) else record_schema(output, models, at)


def is_plain_text(schema: Schema) -> bool:
    """Whether an output is plain text, which is written without JSON."""
    return schema.get("type") == "string" and not schema.keys() & {"enum", "const", "pattern", "format"}

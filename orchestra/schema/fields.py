"""Fields of a value, traversed together with its JSON Schema."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

Schema: TypeAlias = Mapping[str, Any]

QUOTE_FORMAT = "quote"
"""The `format` of text that occurs verbatim in the evidence."""
EXPRESSION_FORMAT = "expression"
"""The `format` of an arithmetic expression that can be recomputed; a field of that name counts too."""
INDEX_FORMAT = "index"
"""The `format` of a number that is a position, such as a table row, and not content."""
SUPPORTED, CONTRADICTED = ("p_supported", "p_support"), ("p_refute", "p_contradicted")
"""Field names of judging agents for the probability that a claim is supported, and that it is contradicted."""
SCORE_FIELDS = frozenset({"confidence", "probability", "score", *SUPPORTED, *CONTRADICTED})
"""Names of fields that describe the answer, not its subject, if the value is a number from 0 to 1."""


@dataclass(frozen=True, slots=True)
class ValueField:
    """One part of a value: its path, such as `items[0].quote`, and the schemas that may apply to it."""

    path: str
    value: Any
    schemas: tuple[Schema, ...]
    parent: str | None = None
    """Path of the record or list that contains it; None for the whole value."""
    name: str = ""
    """Its name in a record."""
    steps: tuple[str | int, ...] = ()
    """Names of records and indices of lists that lead to it. Unlike the path, which is for display, it is unique."""

    def has_format(self, wanted: str) -> bool:
        """Returns whether one of its schemas has this `format`."""
        return any(schema.get("format") == wanted for schema in self.schemas)

    def is_enum(self) -> bool:
        """Returns whether its type is an enumeration of values."""
        return any("enum" in schema or "const" in schema for schema in self.schemas)

    def allows_null(self) -> bool:
        """Returns whether its type allows null."""
        return any(accepts_null(schema) for schema in self.schemas)


def accepts_null(schema: Schema) -> bool:
    """Returns whether a schema without references accepts null."""
    kind = schema.get("type")
    return (
        kind == "null" or (isinstance(kind, list) and "null" in kind) or ("const" in schema and schema["const"] is None)
    )


def expand_schema(schema: Schema, root: Schema) -> tuple[Schema, ...]:
    """Returns the plain schemas that a schema may be: local references resolved, `anyOf`, `oneOf` and `allOf`
    expanded.

    Each schema is visited once.
    """
    found: list[Schema] = []
    seen: set[int] = set()
    line: list[Any] = [schema]
    while line:
        here = line.pop()
        if id(here) in seen or not isinstance(here, Mapping):
            continue
        seen.add(id(here))
        if isinstance(reference := here.get("$ref"), str):
            line.append(resolve_reference(reference, root))
            continue
        nested = [part for key in ("anyOf", "oneOf", "allOf") for part in here.get(key, ())]
        if not nested or "type" in here or "properties" in here:
            found.append(here)
        line += reversed(nested)
    return tuple(found)


def resolve_reference(reference: str, root: Schema) -> Schema | None:
    """Resolves `#/$defs/Name`, or returns None. Only references into the same document are resolved."""
    here: Any = root
    if not reference.startswith("#"):
        return None
    for part in reference[1:].split("/")[1:]:
        here = here.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(here, Mapping) else None
    return here if isinstance(here, Mapping) else None


def iter_fields(value: Any, schema: Schema) -> Iterator[ValueField]:
    """Yields every part of a value with its schemas, containers before their content."""
    line = [ValueField("", value, expand_schema(schema, schema))]
    while line:
        here = line.pop()
        yield here
        line += reversed(_children(here, schema))


def _children(field: ValueField, root: Schema) -> list[ValueField]:
    path, value = field.path, field.value
    if isinstance(value, Mapping):
        return [
            ValueField(
                f"{path}.{name}" if path else str(name),
                item,
                tuple(plain for one in field.schemas for plain in expand_schema(_property_schema(one, name), root)),
                path,
                str(name),
                (*field.steps, name),
            )
            for name, item in value.items()
        ]
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [
            ValueField(
                f"{path}[{index}]",
                item,
                tuple(plain for one in field.schemas for plain in expand_schema(_item_schema(one, index), root)),
                path,
                steps=(*field.steps, index),
            )
            for index, item in enumerate(value)
        ]
    return []


def is_probability(value: Any) -> bool:
    """Returns whether a value is a number from 0 to 1."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def fields_with_format(record: ValueField, root: Schema, wanted: str) -> frozenset[str]:
    """Returns the names of a record's fields of a `format`, or lists of it."""
    return frozenset(
        name
        for schema in record.schemas
        for name, inner in schema.get("properties", {}).items()
        for plain in expand_schema(inner, root)
        if plain.get("format") == wanted
        or any(item.get("format") == wanted for item in expand_schema(_item_schema(plain, 0), root))
    )


def _property_schema(schema: Schema, name: str) -> Schema:
    found = schema.get("properties", {}).get(name, schema.get("additionalProperties", {}))
    return found if isinstance(found, Mapping) else {}


def _item_schema(schema: Schema, index: int) -> Schema:
    prefix = schema.get("prefixItems", ())
    found = prefix[index] if index < len(prefix) else schema.get("items", {})
    return found if isinstance(found, Mapping) else {}


def schema_has_format(schema: Schema, wanted: str) -> bool:
    """Returns whether a `format` occurs anywhere in a schema; each definition is visited once."""
    seen: set[int] = set()
    line: list[Any] = [schema]
    while line:
        here = line.pop()
        if id(here) in seen:
            continue
        seen.add(id(here))
        if isinstance(here, Mapping):
            if here.get("format") == wanted:
                return True
            line += here.values()
        elif isinstance(here, list | tuple):
            line += here
    return False

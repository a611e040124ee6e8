"""Fields of a value, walked beside the JSON Schema that types it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

Schema: TypeAlias = Mapping[str, Any]

QUOTE_FORMAT = "quote"
"""The `format` of text that stands word for word in the evidence."""
EXPRESSION_FORMAT = "expression"
"""The `format` of a sum that can be recomputed; a field of that name counts too."""
INDEX_FORMAT = "index"
"""The `format` of a number that says where something stands, such as a row of a table, and nothing of what stands there."""
SUPPORTED, CONTRADICTED = ("p_supported", "p_support"), ("p_refute", "p_contradicted")
"""What agents that judge call their probabilities that a claim is supported, and that it is contradicted."""
SCORE_FIELDS = frozenset({"confidence", "probability", "score", *SUPPORTED, *CONTRADICTED})
"""Names of fields that speak of the answer, not of the world, where they are a number from 0 to 1."""


@dataclass(frozen=True, slots=True)
class ValueField:
    """One part of a value: its path such as `items[0].quote`, and the schemas that may describe it."""

    path: str
    value: Any
    schemas: tuple[Schema, ...]
    parent: str | None = None
    """The path of the record or list that holds it; None for the whole value."""
    name: str = ""
    """Its name in a record."""
    steps: tuple[str | int, ...] = ()
    """The way to it: names of records and places in lists. A path says the same to people, and two ways may have one."""

    def has_format(self, wanted: str) -> bool:
        """Whether one of its schemas has this `format`."""
        return any(schema.get("format") == wanted for schema in self.schemas)

    def is_enum(self) -> bool:
        """Whether its type lists the values that it may have."""
        return any("enum" in schema or "const" in schema for schema in self.schemas)

    def allows_null(self) -> bool:
        """Whether null is a value of its type."""
        return any(accepts_null(schema) for schema in self.schemas)


def accepts_null(schema: Schema) -> bool:
    """Whether a schema without references takes null."""
    kind = schema.get("type")
    return (
        kind == "null" or (isinstance(kind, list) and "null" in kind) or ("const" in schema and schema["const"] is None)
    )


def expand_schema(schema: Schema, root: Schema) -> tuple[Schema, ...]:
    """The plain schemas that a schema may stand for: local references followed, `anyOf`, `oneOf` and `allOf` opened.

    Each is looked at once, however many ways lead to it.
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
    """What `#/$defs/Name` points to, or None. Only references into the same document are followed."""
    here: Any = root
    if not reference.startswith("#"):
        return None
    for part in reference[1:].split("/")[1:]:
        here = here.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(here, Mapping) else None
    return here if isinstance(here, Mapping) else None


def iter_fields(value: Any, schema: Schema) -> Iterator[ValueField]:
    """Every part of a value with its schemas, containers before what they hold."""
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
    """Whether a value is a number from 0 to 1, as probabilities are."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def fields_with_format(record: ValueField, root: Schema, wanted: str) -> frozenset[str]:
    """The names of a record's fields whose type is of a `format`, or a list of such."""
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
    """Whether a `format` occurs anywhere in a schema; each definition is looked at once."""
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

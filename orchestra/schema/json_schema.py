"""JSON Schema as the type language: names of types, their parts and combinations.

Schemas are self-contained: references have the form `#/$defs/NAME`, and a part that is taken out of a schema keeps the
`$defs`, so that it is valid by itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

from orchestra.core.errors import InputError
from orchestra.core.suggestions import closest_match
from orchestra.core.untrusted_text import shorten
from orchestra.schema.fields import resolve_reference
from orchestra.schema.strict_json import canonical

Schema: TypeAlias = dict[str, Any]

ANY: Schema = {}
NULL: Schema = {"type": "null"}
MAX_BRANCHES = 2_000
"""Maximum number of schemas that are visited to flatten one union."""
ANNOTATION_KEYWORDS = frozenset(
    {
        "title",
        "description",
        "default",
        "examples",
        "deprecated",
        "readOnly",
        "writeOnly",
        "discriminator",
        "$defs",
        "$schema",
        "$comment",
        "$id",
    }
)
"""Keywords that do not affect which values are valid."""
MAP_MARKER = "x-mapped"
"""Marks the record of a node under `each`; its only field is `values`."""

_TYPE_WORDS = {
    "string": "str",
    "integer": "int",
    "number": "float",
    "boolean": "bool",
    "null": "null",
    "array": "list",
    "object": "object",
}
_REFERENCE_PREFIX = "#/$defs/"
_SUBSCHEMA_KEYS = (
    "items",
    "additionalProperties",
    "not",
    "contains",
    "propertyNames",
    "if",
    "then",
    "else",
    "unevaluatedItems",
    "unevaluatedProperties",
)
_SUBSCHEMA_LIST_KEYS = ("anyOf", "oneOf", "allOf", "prefixItems")
_SUBSCHEMA_MAP_KEYS = ("properties", "patternProperties", "dependentSchemas")


def resolve(schema: Schema) -> Schema:
    """Follows `$ref` and a single `allOf`; the `$defs` are kept. Raises `InputError` L042 if that fails."""
    for _ in range(64):
        if "$ref" in schema:
            definition = _definition(schema)
            rest = {key: value for key, value in schema.items() if key not in ANNOTATION_KEYWORDS and key != "$ref"}
            if rest:
                return {"allOf": [definition, rest], "$defs": schema.get("$defs", {})}
        elif len(schema.get("allOf", ())) == 1 and not schema.keys() - ANNOTATION_KEYWORDS - {"allOf"}:
            definition = schema["allOf"][0]
        else:
            return schema
        schema = subschema(schema, definition)
    raise InputError("L042", "a type refers to itself and to nothing else", hint="give it a field")


def _definition(schema: Schema) -> Any:
    reference = str(schema["$ref"])
    definition = (
        schema.get("$defs", {}).get(reference.removeprefix(_REFERENCE_PREFIX))
        if reference.startswith(_REFERENCE_PREFIX)
        else None
    )
    if definition is None:
        raise InputError(
            "L042",
            f"the reference {reference!r} cannot be resolved",
            hint="refer to a type of the same schema: #/$defs/NAME",
        )
    return definition


def subschema(schema: Schema, part: Any) -> Schema:
    """Returns a part of a schema as a separate schema. `true` is the type of any value, `false` of none."""
    if part is True:
        return {}
    if part is False:
        return {"not": {}}
    if not (defs := schema.get("$defs")) or "$defs" in part or not _has_reference(part):
        return dict(part)
    return {**part, "$defs": defs}


def _has_reference(schema: Any) -> bool:
    return isinstance(schema, dict) and ("$ref" in schema or any(_has_reference(part) for part in _subschemas(schema)))


def union_members(schema: Schema) -> list[Schema]:
    """Returns the members of a flattened union; one member for another type.

    Raises:
        InputError: L042 for an infinite union of unions, or one with more than 2,000 members.
    """
    branches: list[Schema] = []
    line, remaining_branches = [schema], MAX_BRANCHES
    while line:
        if (remaining_branches := remaining_branches - 1) < 0:
            raise InputError(
                "L042",
                f"a union of more than {MAX_BRANCHES:,} types",
                hint="name each type once, and no union within itself",
            )
        branch = resolve(line.pop())
        key = "anyOf" if "anyOf" in branch else "oneOf" if "oneOf" in branch else ""
        if key:
            rest = {k: v for k, v in branch.items() if k != key and k not in ANNOTATION_KEYWORDS}
            line += [{**subschema(branch, part), **rest} for part in reversed(branch[key])]
        elif isinstance(branch.get("type"), list):
            branches += [{**branch, "type": kind} for kind in branch["type"]]
        else:
            branches.append(branch)
    return branches


def format_type(schema: Schema, *, full: bool = False) -> str:
    """Formats a type in the syntax of workflows. With `full`, long literals are not shortened, so that `parse_type`
    accepts the result.
    """
    return _TypeFormatter(full).text(schema)


def format_field(record: Schema, name: str) -> str:
    """Formats the type of a record's field, with the default if the field is optional."""
    field = record["properties"][name]
    optional = isinstance(field, dict) and "default" in field and name not in record.get("required", ())
    default_text = f" = {json.dumps(field['default'], ensure_ascii=False)}" if optional else ""
    return f"{format_type(subschema(record, field))}{default_text}"


class _TypeFormatter:
    """Formats one type, with a limit for types of malicious size."""

    def __init__(self, full: bool) -> None:
        self.full = full
        self.remaining = 2_000

    def text(self, schema: Schema) -> str:
        self.remaining -= 1
        if self.remaining < 0:
            return "…"
        if "$ref" in schema:
            return self.named(schema, resolve(schema))
        parts = union_members(schema)
        if len(parts) == 1:
            return self.named(schema, parts[0])
        names = list(dict.fromkeys(self.text(part) for part in parts))
        return " | ".join([*(name for name in names if name != "null"), *(name for name in names if name == "null")])

    def named(self, schema: Schema, part: Schema) -> str:
        values = enum_values(part)
        if values == [None]:
            return "null"
        if values is not None:
            return self.literal(values)
        if "$ref" in schema and ("anyOf" in part or "oneOf" in part):
            return str(part.get("title", schema["$ref"].removeprefix(_REFERENCE_PREFIX)))
        match part.get("type"):
            case "string" if part.get("format") == "quote":
                return "Quote"
            case "array" if "prefixItems" in part:
                return "tuple[" + ", ".join(self.text(subschema(part, entry)) for entry in part["prefixItems"]) + "]"
            case "array":
                container = "set" if part.get("uniqueItems") else "list"
                return f"{container}[{self.text(subschema(part, part.get('items', True)))}]"
            case "object" if "properties" in part or "title" in part:
                return str(part["title"]) if "title" in part else "{" + ", ".join(part["properties"]) + "}"
            case "object":
                return f"dict[str, {self.text(subschema(part, part.get('additionalProperties', True)))}]"
            case None if "allOf" in part:
                return " & ".join(self.text(subschema(part, entry)) for entry in part["allOf"])
            case None if part.get("not") == {}:
                return "nothing"
            case kind:
                return _TYPE_WORDS.get(str(kind), "anything")

    def literal(self, values: list[Any]) -> str:
        visible_values = values if self.full else values[:6]
        texts = [repr(value) if isinstance(value, str) else canonical(value).decode() for value in visible_values]
        if not self.full:
            texts = [shorten(text, 40) for text in texts] + ["…"] * (len(values) > 6)
        return f"Literal[{', '.join(texts)}]"


def field_type(schema: Schema, name: str) -> Schema | str:
    """Returns the type of `.name`, or the reason why there is none."""
    if schema.get("type") == "object" and "$ref" not in schema and name in (plain := schema.get("properties", {})):
        return subschema(schema, plain[name])
    schemas: list[Schema] = []
    for part in union_members(schema):
        if part.get("type") == "null" or part.get("const", 0) is None:
            return f"may be null ({format_type(schema)})"
        fields: Mapping[str, Any] = part.get("properties", {})
        if name in fields:
            schemas.append(subschema(part, fields[name]))
        elif "type" not in part and not part.keys() - ANNOTATION_KEYWORDS:
            return ANY
        elif (
            part.get("type") == "object"
            and (extra_fields := part.get("additionalProperties", "properties" not in part)) is not False
        ):
            schemas.append(subschema(part, extra_fields))
        else:
            near = closest_match(name, fields)
            hint = f"; did you mean {near!r}?" if near else f" (it has: {', '.join(fields)})" if fields else ""
            return f"{format_type(part)} has no field {name!r}{hint}"
    return union(schemas)


def item_type(schema: Schema, index: int | None) -> Schema | str:
    """Returns the type of `[index]`, or of any element if `index` is None; or the reason why there is none."""
    schemas: list[Schema] = []
    for part in union_members(schema):
        if part.get("type") == "null" or part.get("const", 0) is None:
            return f"may be null ({format_type(schema)})"
        if "type" not in part and not part.keys() - ANNOTATION_KEYWORDS:
            return ANY
        if part.get("type") != "array":
            return f"{format_type(part)} is not a list"
        first = part.get("prefixItems", [])
        if index is not None and index >= part.get("maxItems", index + 1):
            return f"{format_type(part)} has {part['maxItems']} elements, and no [{index}]"
        if index is not None and index < len(first):
            schemas.append(subschema(part, first[index]))
            continue
        if index is None:
            schemas += [subschema(part, entry) for entry in first]
        if part.get("maxItems", len(first) + 1) > len(first):
            schemas.append(subschema(part, part.get("items", True)))
    return union(schemas) if schemas else ANY


def element_type(schema: Schema) -> Schema | str:
    """Returns the element type of a list, or the reason why the type is not a list."""
    return item_type(schema, None)


def mapping_value_type(schema: Schema) -> Schema:
    """Returns the type of a mapping's values for an unknown key; any type if fields have different types."""
    parts = union_members(schema)
    return (
        ANY
        if any(part.get("properties") for part in parts)
        else union(subschema(part, part.get("additionalProperties", True)) for part in parts)
    )


def union(parts: Iterable[Schema]) -> Schema:
    """Returns the union of types."""
    unique_parts: dict[bytes, Schema] = {}
    part_list = list(parts)
    if len(part_list) == 1:
        return part_list[0]
    for part in part_list:
        for union_member in union_members(part) if "$ref" not in part else [part]:
            if not union_member.keys() - ANNOTATION_KEYWORDS:
                return ANY
            unique_parts.setdefault(
                canonical({key: value for key, value in union_member.items() if key != "$defs"}), union_member
            )
    plain = {
        part["type"]
        for part in unique_parts.values()
        if not part.keys() - ANNOTATION_KEYWORDS - {"type"} and isinstance(part.get("type"), str)
    }
    distinct_parts = [part for part in unique_parts.values() if not _is_covered(part, plain)] or list(
        unique_parts.values()
    )
    if len(distinct_parts) == 1:
        return distinct_parts[0]
    return bundle_definitions({"anyOf": distinct_parts}) if distinct_parts else ANY


def _is_covered(part: Schema, plain: set[str]) -> bool:
    """Returns whether the part is a subset of a plain type that is also in the union."""
    return ("const" in part or "enum" in part) and part.get("type") in plain


TYPE_NAMES = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}
"""JSON types of Python's scalars."""


def enum_values(part: Schema) -> list[Any] | None:
    """Returns the values of an enumeration; None for another type."""
    values: list[Any] | None = part.get("enum", [part["const"]] if "const" in part else None)
    return values


class AllowedValues(NamedTuple):
    """The values of a type that excludes a value, and the most similar one; empty if none is similar."""

    values: list[Any]
    suggestion: str


def allowed_values(schema: Schema, value: Any) -> AllowedValues | None:
    """Returns the values of a type that excludes this value; None if the type may include it."""
    options: list[Any] = []
    for part in union_members(schema):
        values = enum_values(part)
        if values is None and part.get("type") != "null":
            return None
        options += values or []
    if any(value == option and type(value) is type(option) for option in options):
        return None
    return AllowedValues(
        options,
        closest_match(value, [option for option in options if isinstance(option, str)])
        if isinstance(value, str)
        else "",
    )


def object_type(fields: Mapping[str, Schema], required: Iterable[str] | None = None) -> Schema:
    """Returns the type of an object with only these fields; all are required by default."""
    return {
        "type": "object",
        "properties": dict(fields),
        "required": list(fields if required is None else required),
        "additionalProperties": False,
    }


def nullable(schema: Schema) -> Schema:
    """Returns the type of a value or null."""
    return union([schema, NULL])


def map_result_type(element: Schema) -> Schema:
    """Returns the record type of a node under `each`: its only field, `values`, lists the results of the elements."""
    values = {"type": "array", "items": element}
    title = f"the elements of list[{format_type(element)}]"
    return bundle_definitions({"title": title, MAP_MARKER: True, **object_type({"values": values})})


def is_map_result(schema: Schema) -> bool:
    """Returns whether the schema is the record type of a node under `each`."""
    return MAP_MARKER in schema


def bundle_definitions(schema: Schema) -> Schema:
    """Returns the same type with all `$defs` at the root, as validators require. Equal names of different types get a
    number.
    """
    if not _has_nested_definitions(schema):
        return schema
    bundle = _DefinitionBundle()
    body = bundle.part(schema, {})
    return {**body, "$defs": bundle.defs} if bundle.defs else body


def _subschemas(schema: Schema) -> Iterator[Any]:
    yield from (schema[key] for key in _SUBSCHEMA_KEYS if key in schema)
    yield from (part for key in _SUBSCHEMA_LIST_KEYS for part in schema.get(key, ()))
    yield from (part for key in _SUBSCHEMA_MAP_KEYS for part in schema.get(key, {}).values())


def _has_nested_definitions(schema: Any) -> bool:
    return isinstance(schema, dict) and any(
        isinstance(part, dict) and ("$defs" in part or _has_nested_definitions(part)) for part in _subschemas(schema)
    )


class _DefinitionBundle:
    """Definitions collected from the parts of a schema."""

    def __init__(self) -> None:
        self.defs: dict[str, Any] = {}
        self._origins: dict[str, bytes] = {}

    def part(self, schema: Any, scope: Mapping[str, Any]) -> Any:
        """Returns the part with references to the collected definitions; `scope` holds the definitions of the part."""
        if not isinstance(schema, dict):
            return schema
        scope = schema.get("$defs", scope)
        out = {key: value for key, value in schema.items() if key != "$defs"}
        if str(schema.get("$ref", "")).startswith(_REFERENCE_PREFIX):
            out["$ref"] = _REFERENCE_PREFIX + self._bundled_name(schema["$ref"].removeprefix(_REFERENCE_PREFIX), scope)
        for key in _SUBSCHEMA_KEYS:
            if key in out:
                out[key] = self.part(out[key], scope)
        for key in _SUBSCHEMA_LIST_KEYS:
            if key in out:
                out[key] = [self.part(entry, scope) for entry in out[key]]
        for key in _SUBSCHEMA_MAP_KEYS:
            if key in out:
                out[key] = {name: self.part(entry, scope) for name, entry in out[key].items()}
        return out

    def _bundled_name(self, name: str, scope: Mapping[str, Any]) -> str:
        if name not in scope:
            raise InputError(
                "L042",
                f"the reference {_REFERENCE_PREFIX + name!r} cannot be resolved",
                hint="refer to a type of the same schema",
            )
        origin = canonical(_closure(name, scope))
        number, free_name = 1, name
        while free_name in self._origins and self._origins[free_name] != origin:
            number += 1
            free_name = f"{name}_{number}"
        if free_name not in self._origins:
            self._origins[free_name] = origin
            self.defs[free_name] = {}
            self.defs[free_name] = self.part(scope[name], scope)
        return free_name


def _closure(name: str, scope: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a definition with all definitions that it refers to."""
    definitions: dict[str, Any] = {}
    pending_names = [name]
    while pending_names:
        name = pending_names.pop()
        if name not in definitions and name in scope:
            definitions[name] = scope[name]
            pending_names += _references(scope[name])
    return {"first": next(iter(definitions), name), **{f"={key}": value for key, value in definitions.items()}}


def _references(schema: Any) -> list[str]:
    if not isinstance(schema, dict):
        return []
    own_references = (
        [schema["$ref"].removeprefix(_REFERENCE_PREFIX)]
        if str(schema.get("$ref", "")).startswith(_REFERENCE_PREFIX)
        else []
    )
    return own_references + [name for part in _subschemas(schema) for name in _references(part)]


def localize_references(schema: Schema, name: str) -> Schema:
    """Returns the same type with only references of the form `#/$defs/NAME`, so that it keeps its meaning inside
    another type.

    The whole schema, `#`, and parts of it become definitions with this name, numbered if there are several.
    """
    new_names: dict[str, str] = {}
    defs: dict[str, Any] = dict(schema.get("$defs", {}))
    for reference in _nonlocal_references(schema):
        if reference not in new_names and (target := resolve_reference(reference, schema)) is not None:
            number, free_name = 1, name
            while free_name in defs:
                number += 1
                free_name = f"{name}_{number}"
            new_names[reference] = _REFERENCE_PREFIX + free_name
            defs[free_name] = {key: value for key, value in target.items() if key != "$defs"}
    return _replace_references({**schema, "$defs": defs}, new_names) if new_names else schema


def _nonlocal_references(schema: Any) -> Iterator[str]:
    """Yields references to parts of a schema other than its definitions."""
    if isinstance(schema, dict):
        reference = str(schema.get("$ref", ""))
        if reference.startswith("#") and (
            not reference.startswith(_REFERENCE_PREFIX) or "/" in reference.removeprefix(_REFERENCE_PREFIX)
        ):
            yield reference
        for part in (*_subschemas(schema), *schema.get("$defs", {}).values()):
            yield from _nonlocal_references(part)


def _replace_references(schema: Any, new_names: Mapping[str, str]) -> Any:
    if not isinstance(schema, dict):
        return schema
    out = (
        {**schema, "$ref": new_names.get(schema["$ref"], schema["$ref"])}
        if isinstance(schema.get("$ref"), str)
        else dict(schema)
    )
    out |= {key: _replace_references(out[key], new_names) for key in _SUBSCHEMA_KEYS if key in out}
    out |= {
        key: [_replace_references(entry, new_names) for entry in out[key]] for key in _SUBSCHEMA_LIST_KEYS if key in out
    }
    return out | {
        key: {name: _replace_references(entry, new_names) for name, entry in out[key].items()}
        for key in (*_SUBSCHEMA_MAP_KEYS, "$defs")
        if key in out
    }


def strip_annotations(schema: Any) -> Any:
    """Returns a schema without annotations."""
    if isinstance(schema, dict):
        return {
            key: strip_annotations(value)
            for key, value in schema.items()
            if key not in ("title", "description") or isinstance(value, dict)
        }
    return [strip_annotations(item) for item in schema] if isinstance(schema, list | tuple) else schema

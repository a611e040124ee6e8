"""JSON Schema as the one language of types: the names of types, their parts and their combinations.

A schema here is self-contained: references have the form `#/$defs/NAME`, and the `$defs` travel along with every part that
is taken out of it, so that any part can be read alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

from orchestra.core.errors import InputError
from orchestra.core.suggestions import nearest
from orchestra.core.untrusted_text import shortened
from orchestra.schema.fields import local
from orchestra.schema.strict_json import canonical

Schema: TypeAlias = dict[str, Any]

ANY: Schema = {}
NULL: Schema = {"type": "null"}
MAX_BRANCHES = 2_000
"""Members of one union, flat, and whatever is looked at to find them, at most."""
NOTES = frozenset(
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
"""Keywords that say nothing about which values are valid."""
MAPPED = "x-mapped"
"""Marks the record that stands for a node under `each`; its only field is `values`."""

_WORDS = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "null", "array": "list", "object": "object"}
_REF = "#/$defs/"
_SCHEMAS = (
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
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_MAPS = ("properties", "patternProperties", "dependentSchemas")


def resolve(schema: Schema) -> Schema:
    """Follows `$ref` and a single `allOf`; the `$defs` travel along. Raises `InputError` L042 for a reference that leads nowhere."""
    for _ in range(64):
        if "$ref" in schema:
            found = _definition(schema)
            rest = {key: value for key, value in schema.items() if key not in NOTES and key != "$ref"}
            if rest:
                return {"allOf": [found, rest], "$defs": schema.get("$defs", {})}
        elif len(schema.get("allOf", ())) == 1 and not schema.keys() - NOTES - {"allOf"}:
            found = schema["allOf"][0]
        else:
            return schema
        schema = under(schema, found)
    raise InputError("L042", "a type refers to itself and to nothing else", hint="give it a field")


def _definition(schema: Schema) -> Any:
    reference = str(schema["$ref"])
    found = schema.get("$defs", {}).get(reference.removeprefix(_REF)) if reference.startswith(_REF) else None
    if found is None:
        raise InputError("L042", f"the reference {reference!r} leads nowhere", hint="refer to a type of the same schema: #/$defs/NAME")
    return found


def under(schema: Schema, part: Any) -> Schema:
    """A part of a schema as a schema of its own. `true` is the type of anything, `false` of nothing."""
    if part is True:
        return {}
    if part is False:
        return {"not": {}}
    if not (defs := schema.get("$defs")) or "$defs" in part or not _refers(part):
        return dict(part)
    return {**part, "$defs": defs}


def _refers(schema: Any) -> bool:
    return isinstance(schema, dict) and ("$ref" in schema or any(_refers(part) for part in _parts(schema)))


def branches(schema: Schema) -> list[Schema]:
    """The members of a union, flat; one member where there is no union.

    Raises `InputError` L042 for a union of unions without an end, or with more than 2,000 members.
    """
    found: list[Schema] = []
    line, left = [schema], MAX_BRANCHES
    while line:
        if (left := left - 1) < 0:
            raise InputError("L042", f"a union of more than {MAX_BRANCHES:,} types", hint="name each type once, and no union within itself")
        here = resolve(line.pop())
        key = "anyOf" if "anyOf" in here else "oneOf" if "oneOf" in here else ""
        if key:
            rest = {k: v for k, v in here.items() if k != key and k not in NOTES}
            line += [{**under(here, part), **rest} for part in reversed(here[key])]
        elif isinstance(here.get("type"), list):
            found += [{**here, "type": kind} for kind in here["type"]]
        else:
            found.append(here)
    return found


def show(schema: Schema, *, full: bool = False) -> str:
    """The type as a reader of workflows would write it; with `full`, long literals are not shortened, so that `parse_type` reads it."""
    return _Shown(full).text(schema)


def shown(record: Schema, name: str) -> str:
    """A field of a record as a reader would write it, with the default that it has where it may be left out."""
    field = record["properties"][name]
    optional = isinstance(field, dict) and "default" in field and name not in record.get("required", ())
    said = f" = {json.dumps(field['default'], ensure_ascii=False)}" if optional else ""
    return f"{show(under(record, field))}{said}"


class _Shown:
    """The writing of one type, which stops where a hostile type would not end."""

    def __init__(self, full: bool) -> None:
        self.full = full
        self.left = 2_000

    def text(self, schema: Schema) -> str:
        self.left -= 1
        if self.left < 0:
            return "…"
        if "$ref" in schema:
            return self.named(schema, resolve(schema))
        parts = branches(schema)
        if len(parts) == 1:
            return self.named(schema, parts[0])
        names = list(dict.fromkeys(self.text(part) for part in parts))
        return " | ".join([*(name for name in names if name != "null"), *(name for name in names if name == "null")])

    def named(self, schema: Schema, part: Schema) -> str:
        values = choices(part)
        if values == [None]:
            return "null"
        if values is not None:
            return self.literal(values)
        if "$ref" in schema and ("anyOf" in part or "oneOf" in part):
            return str(part.get("title", schema["$ref"].removeprefix(_REF)))
        match part.get("type"):
            case "string" if part.get("format") == "quote":
                return "Quote"
            case "array" if "prefixItems" in part:
                return "tuple[" + ", ".join(self.text(under(part, entry)) for entry in part["prefixItems"]) + "]"
            case "array":
                return f"{'set' if part.get('uniqueItems') else 'list'}[{self.text(under(part, part.get('items', True)))}]"
            case "object" if "properties" in part or "title" in part:
                return str(part["title"]) if "title" in part else "{" + ", ".join(part["properties"]) + "}"
            case "object":
                return f"dict[str, {self.text(under(part, part.get('additionalProperties', True)))}]"
            case None if "allOf" in part:
                return " & ".join(self.text(under(part, entry)) for entry in part["allOf"])
            case None if part.get("not") == {}:
                return "nothing"
            case kind:
                return _WORDS.get(str(kind), "anything")

    def literal(self, values: list[Any]) -> str:
        shown = values if self.full else values[:6]
        texts = [repr(value) if isinstance(value, str) else canonical(value).decode() for value in shown]
        if not self.full:
            texts = [shortened(text, 40) for text in texts] + ["…"] * (len(values) > 6)
        return f"Literal[{', '.join(texts)}]"


def field(schema: Schema, name: str) -> Schema | str:
    """The type of `.name`, or the reason why there is none."""
    if schema.get("type") == "object" and "$ref" not in schema and name in (plain := schema.get("properties", {})):
        return under(schema, plain[name])
    found: list[Schema] = []
    for part in branches(schema):
        if part.get("type") == "null" or part.get("const", 0) is None:
            return f"may be null ({show(schema)})"
        fields: Mapping[str, Any] = part.get("properties", {})
        if name in fields:
            found.append(under(part, fields[name]))
        elif "type" not in part and not part.keys() - NOTES:
            return ANY
        elif part.get("type") == "object" and (more := part.get("additionalProperties", "properties" not in part)) is not False:
            found.append(under(part, more))
        else:
            near = nearest(name, fields)
            hint = f"; did you mean {near!r}?" if near else f" (it has: {', '.join(fields)})" if fields else ""
            return f"{show(part)} has no field {name!r}{hint}"
    return union(found)


def item(schema: Schema, index: int | None) -> Schema | str:
    """The type of `[index]`, or of any element where `index` is None; or the reason why there is none."""
    found: list[Schema] = []
    for part in branches(schema):
        if part.get("type") == "null" or part.get("const", 0) is None:
            return f"may be null ({show(schema)})"
        if "type" not in part and not part.keys() - NOTES:
            return ANY
        if part.get("type") != "array":
            return f"{show(part)} is not a list"
        first = part.get("prefixItems", [])
        if index is not None and index >= part.get("maxItems", index + 1):
            return f"{show(part)} has {part['maxItems']} elements, and no [{index}]"
        if index is not None and index < len(first):
            found.append(under(part, first[index]))
            continue
        if index is None:
            found += [under(part, entry) for entry in first]
        if part.get("maxItems", len(first) + 1) > len(first):
            found.append(under(part, part.get("items", True)))
    return union(found) if found else ANY


def elements(schema: Schema) -> Schema | str:
    """The type of the elements of a list, or the reason why it is none."""
    return item(schema, None)


def entries(schema: Schema) -> Schema:
    """The type of what a mapping has under a key that is not known yet; anything where fields have types of their own."""
    parts = branches(schema)
    return (
        ANY
        if any(part.get("properties") for part in parts)
        else union(under(part, part.get("additionalProperties", True)) for part in parts)
    )


def union(parts: Iterable[Schema]) -> Schema:
    """The type of a value of any of the parts."""
    found: dict[bytes, Schema] = {}
    given = list(parts)
    if len(given) == 1:
        return given[0]
    for part in given:
        for one in branches(part) if "$ref" not in part else [part]:
            if not one.keys() - NOTES:
                return ANY
            found.setdefault(canonical({key: value for key, value in one.items() if key != "$defs"}), one)
    plain = {part["type"] for part in found.values() if not part.keys() - NOTES - {"type"} and isinstance(part.get("type"), str)}
    kept = [part for part in found.values() if not _covered(part, plain)] or list(found.values())
    if len(kept) == 1:
        return kept[0]
    return bundled({"anyOf": kept}) if kept else ANY


def _covered(part: Schema, plain: set[str]) -> bool:
    """Whether the part is some values of a plain type that is there too."""
    return ("const" in part or "enum" in part) and part.get("type") in plain


TYPE_NAMES = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}
"""The JSON types of Python's scalars."""


def choices(part: Schema) -> list[Any] | None:
    """The values that are all that a part of a type may be; None where it may be any of its kind."""
    found: list[Any] | None = part.get("enum", [part["const"]] if "const" in part else None)
    return found


class Others(NamedTuple):
    """The values of a type that lacks a value, and the one of them that was probably meant; empty where there is none."""

    values: list[Any]
    near: str


def others(schema: Schema, value: Any) -> Others | None:
    """The values of a type that never has this one; None where it may have it."""
    options: list[Any] = []
    for part in branches(schema):
        values = choices(part)
        if values is None and part.get("type") != "null":
            return None
        options += values or []
    if any(value == option and type(value) is type(option) for option in options):
        return None
    return Others(options, nearest(value, [option for option in options if isinstance(option, str)]) if isinstance(value, str) else "")


def record(fields: Mapping[str, Schema], required: Iterable[str] | None = None) -> Schema:
    """The type of an object with these fields and no others; all are required, where nothing else is said."""
    return {
        "type": "object",
        "properties": dict(fields),
        "required": list(fields if required is None else required),
        "additionalProperties": False,
    }


def nullable(schema: Schema) -> Schema:
    """The type of a value or null."""
    return union([schema, NULL])


def mapped(element: Schema) -> Schema:
    """The record that stands for a node under `each`: its only field, `values`, lists what its elements gave."""
    values = {"type": "array", "items": element}
    title = f"the elements of list[{show(element)}]"
    return bundled({"title": title, MAPPED: True, **record({"values": values})})


def is_mapped(schema: Schema) -> bool:
    """Whether the schema is that of a node under `each`."""
    return MAPPED in schema


def bundled(schema: Schema) -> Schema:
    """The same type with all `$defs` at the root, as validators want it; equal names of different types get a number."""
    if not _nests(schema):
        return schema
    bundle = _Bundle()
    body = bundle.part(schema, {})
    return {**body, "$defs": bundle.defs} if bundle.defs else body


def _parts(schema: Schema) -> Iterator[Any]:
    yield from (schema[key] for key in _SCHEMAS if key in schema)
    yield from (part for key in _LISTS for part in schema.get(key, ()))
    yield from (part for key in _MAPS for part in schema.get(key, {}).values())


def _nests(schema: Any) -> bool:
    return isinstance(schema, dict) and any(isinstance(part, dict) and ("$defs" in part or _nests(part)) for part in _parts(schema))


class _Bundle:
    """Definitions gathered from the parts of a schema."""

    def __init__(self) -> None:
        self.defs: dict[str, Any] = {}
        self._origins: dict[str, bytes] = {}

    def part(self, schema: Any, scope: Mapping[str, Any]) -> Any:
        """The part with its references led to the gathered definitions; `scope` holds those that it sees."""
        if not isinstance(schema, dict):
            return schema
        scope = schema.get("$defs", scope)
        out = {key: value for key, value in schema.items() if key != "$defs"}
        if str(schema.get("$ref", "")).startswith(_REF):
            out["$ref"] = _REF + self._named(schema["$ref"].removeprefix(_REF), scope)
        for key in _SCHEMAS:
            if key in out:
                out[key] = self.part(out[key], scope)
        for key in _LISTS:
            if key in out:
                out[key] = [self.part(entry, scope) for entry in out[key]]
        for key in _MAPS:
            if key in out:
                out[key] = {name: self.part(entry, scope) for name, entry in out[key].items()}
        return out

    def _named(self, name: str, scope: Mapping[str, Any]) -> str:
        if name not in scope:
            raise InputError("L042", f"the reference {_REF + name!r} leads nowhere", hint="refer to a type of the same schema")
        origin = canonical(_closure(name, scope))
        number, chosen = 1, name
        while chosen in self._origins and self._origins[chosen] != origin:
            number += 1
            chosen = f"{name}_{number}"
        if chosen not in self._origins:
            self._origins[chosen] = origin
            self.defs[chosen] = {}
            self.defs[chosen] = self.part(scope[name], scope)
        return chosen


def _closure(name: str, scope: Mapping[str, Any]) -> dict[str, Any]:
    """A definition with all that it refers to, which together say what it means."""
    found: dict[str, Any] = {}
    waiting = [name]
    while waiting:
        name = waiting.pop()
        if name not in found and name in scope:
            found[name] = scope[name]
            waiting += _references(scope[name])
    return {"first": next(iter(found), name), **{f"={key}": value for key, value in found.items()}}


def _references(schema: Any) -> list[str]:
    if not isinstance(schema, dict):
        return []
    here = [schema["$ref"].removeprefix(_REF)] if str(schema.get("$ref", "")).startswith(_REF) else []
    return here + [name for part in _parts(schema) for name in _references(part)]


def anchored(schema: Schema, name: str) -> Schema:
    """The same type with no references but those of the form `#/$defs/NAME`, so that it means the same within another type.

    The whole of it, `#`, and what lies below become definitions of this name, with a number where there are more.
    """
    led: dict[str, str] = {}
    defs: dict[str, Any] = dict(schema.get("$defs", {}))
    for reference in _odd(schema):
        if reference not in led and (target := local(reference, schema)) is not None:
            number, chosen = 1, name
            while chosen in defs:
                number += 1
                chosen = f"{name}_{number}"
            led[reference] = _REF + chosen
            defs[chosen] = {key: value for key, value in target.items() if key != "$defs"}
    return _led({**schema, "$defs": defs}, led) if led else schema


def _odd(schema: Any) -> Iterator[str]:
    """References to other parts of a schema than its definitions."""
    if isinstance(schema, dict):
        reference = str(schema.get("$ref", ""))
        if reference.startswith("#") and (not reference.startswith(_REF) or "/" in reference.removeprefix(_REF)):
            yield reference
        for part in (*_parts(schema), *schema.get("$defs", {}).values()):
            yield from _odd(part)


def _led(schema: Any, led: Mapping[str, str]) -> Any:
    if not isinstance(schema, dict):
        return schema
    out = {**schema, "$ref": led.get(schema["$ref"], schema["$ref"])} if isinstance(schema.get("$ref"), str) else dict(schema)
    out |= {key: _led(out[key], led) for key in _SCHEMAS if key in out}
    out |= {key: [_led(entry, led) for entry in out[key]] for key in _LISTS if key in out}
    return out | {key: {name: _led(entry, led) for name, entry in out[key].items()} for key in (*_MAPS, "$defs") if key in out}


def bare(schema: Any) -> Any:
    """A schema without what only people read."""
    if isinstance(schema, dict):
        return {key: bare(value) for key, value in schema.items() if key not in ("title", "description") or isinstance(value, dict)}
    return [bare(one) for one in schema] if isinstance(schema, list | tuple) else schema

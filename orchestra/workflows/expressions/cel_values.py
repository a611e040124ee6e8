"""JSON values made ready for CEL, which tells integers from floats and knows no defaults."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from orchestra.schema.json_schema import NOTES, Schema, branches, choices, under, union
from orchestra.schema.strict_json import canonical

Converter: TypeAlias = Callable[[Any], Any]


def converter(schema: Schema) -> Converter | None:
    """What makes a JSON value of this type one of CEL's, with floats and defaults where the type says so; None where nothing is to do."""
    return _Maker().make(schema)


_OPEN = ("$ref", "anyOf", "oneOf")
"""What a type that has itself among its parts comes back to; a reference inside a union is followed before it is seen."""


class _Named:
    """The converter of a type, which may be asked for while it is made."""

    def __init__(self) -> None:
        self.made: Converter | None = None
        self.ready = False

    def convert(self, value: Any) -> Any:
        return value if self.made is None else self.made(value)


class _Maker:
    """Converters of one type; those of recursive types refer to themselves."""

    def __init__(self) -> None:
        self.known: dict[bytes, _Named] = {}

    def make(self, schema: Schema) -> Converter | None:
        if not any(word in schema for word in _OPEN):
            return self._made(schema)
        key = canonical(schema)
        if (named := self.known.get(key)) is None:
            named = self.known[key] = _Named()
            named.made = self._made(schema)
            named.ready = True
        return named.made if named.ready else named.convert

    def _made(self, schema: Schema) -> Converter | None:
        found: dict[type, Converter] = {}
        lists: list[Schema] = []
        records: list[Schema] = []
        for part in branches(schema):
            match part.get("type"):
                case "number":
                    found[int] = float
                case "integer":
                    found.setdefault(float, _whole)
                case "array":
                    lists.append(part)
                case "object":
                    records.append(part)
                case _:
                    pass
        if int in found:
            found.pop(float, None)
        if (each := self._list(lists)) is not None:
            found[list] = each
        if (fields := self._record(records)) is not None:
            found[dict] = fields
        return _by_type(found) if found else None

    def _list(self, parts: list[Schema]) -> Converter | None:
        inner = [under(part, entry) for part in parts for entry in (*part.get("prefixItems", ()), part.get("items", True))]
        one = self.make(union(inner)) if inner else None
        if one is None:
            return None
        return lambda values: [one(value) for value in values]

    def _record(self, parts: list[Schema]) -> Converter | None:
        names = {name for part in parts for name in part.get("properties", {})}
        made: dict[str, Converter] = {}
        for name in names:
            inner = [under(part, part["properties"][name]) for part in parts if name in part.get("properties", {})]
            if (one := self.make(union(inner))) is not None:
                made[name] = one
        defaults = {
            name: entry["default"]
            for part in (parts if len(parts) == 1 else ())
            for name, entry in part.get("properties", {}).items()
            if isinstance(entry, dict) and "default" in entry
        }
        more = [under(part, part["additionalProperties"]) for part in parts if isinstance(part.get("additionalProperties"), dict)]
        rest = self.make(union(more)) if more else None
        if not made and not defaults and rest is None:
            return None

        def record(values: dict[str, Any]) -> dict[str, Any]:
            out = {**defaults, **values}
            for name, value in out.items():
                if (one := made.get(name)) is not None:
                    out[name] = one(value)
                elif rest is not None and name not in names:
                    out[name] = rest(value)
            return out

        return record


def _whole(value: float) -> int | float:
    return int(value) if value.is_integer() else value


def _by_type(found: dict[type, Converter]) -> Converter:
    def convert(value: Any) -> Any:
        one = found.get(type(value))
        return value if one is None else one(value)

    return convert


def declared(schema: Schema) -> str:
    """CEL's name of the type: `string`, `list<int>`, `map<string,dyn>`, ...; `dyn` for what it cannot say."""
    return _declared(schema, {})


def _declared(schema: Schema, known: dict[bytes, str]) -> str:
    """The name of a type; one that has itself among its parts is `dyn` there."""
    key = canonical(schema) if any(word in schema for word in _OPEN) else b""
    if key in known:
        return known[key]
    if key:
        known[key] = "dyn"
    kinds = {_name(part, known) for part in branches(schema)}
    name = "double" if kinds == {"int", "double"} else kinds.pop() if len(kinds) == 1 else "dyn"
    if key:
        known[key] = name
    return name


def _name(part: Schema, known: dict[bytes, str]) -> str:
    if (stated := choices(part)) is not None:
        names = {_PYTHON.get(type(value), "dyn") for value in stated}
        return names.pop() if len(names) == 1 else "dyn"
    kind = part.get("type")
    if kind == "array" and "prefixItems" not in part:
        return f"list<{_declared(under(part, part.get('items', True)), known)}>"
    if kind == "object":
        more = part.get("additionalProperties", True)
        values = (
            _declared(under(part, more), known) if isinstance(more, dict) and more.keys() - NOTES and "properties" not in part else "dyn"
        )
        return f"map<string,{values}>"
    return _JSON.get(str(kind), "dyn")


_JSON = {"string": "string", "integer": "int", "number": "double", "boolean": "bool"}
_PYTHON = {str: "string", int: "int", float: "double", bool: "bool"}

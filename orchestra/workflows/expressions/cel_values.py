"""Converts JSON values for CEL, which separates integers from floats and has no defaults."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from orchestra.schema.json_schema import ANNOTATION_KEYWORDS, Schema, enum_values, subschema, union, union_members
from orchestra.schema.strict_json import canonical

Converter: TypeAlias = Callable[[Any], Any]


def make_converter(schema: Schema) -> Converter | None:
    """Returns a converter of JSON values of this type to CEL, with floats and defaults as typed; None if no conversion
    is needed.
    """
    return _ConverterBuilder().build(schema)


_RECURSIVE_KEYWORDS = ("$ref", "anyOf", "oneOf")
"""Keywords through which a recursive type refers to itself. A reference inside a union is resolved before it is
visited.
"""


class _LazyConverter:
    """The converter of a type, which may be requested while it is being built."""

    def __init__(self) -> None:
        self.converter: Converter | None = None
        self.is_ready = False

    def convert(self, value: Any) -> Any:
        """Converts a value; unchanged if its type needs no conversion."""
        return value if self.converter is None else self.converter(value)


class _ConverterBuilder:
    """Builds the converters of one type. Converters of recursive types refer to themselves."""

    def __init__(self) -> None:
        self.converters: dict[bytes, _LazyConverter] = {}

    def build(self, schema: Schema) -> Converter | None:
        """Returns the converter of a type; None if no conversion is needed."""
        if not any(word in schema for word in _RECURSIVE_KEYWORDS):
            return self._build(schema)
        key = canonical(schema)
        if (converter := self.converters.get(key)) is None:
            converter = self.converters[key] = _LazyConverter()
            converter.converter = self._build(schema)
            converter.is_ready = True
        return converter.converter if converter.is_ready else converter.convert

    def _build(self, schema: Schema) -> Converter | None:
        converters: dict[type, Converter] = {}
        lists: list[Schema] = []
        records: list[Schema] = []
        for part in union_members(schema):
            match part.get("type"):
                case "number":
                    converters[int] = float
                case "integer":
                    converters.setdefault(float, _to_integer)
                case "array":
                    lists.append(part)
                case "object":
                    records.append(part)
                case _:
                    pass
        if int in converters:
            converters.pop(float, None)
        if (converter := self._list_converter(lists)) is not None:
            converters[list] = converter
        if (fields := self._record_converter(records)) is not None:
            converters[dict] = fields
        return _dispatch_by_type(converters) if converters else None

    def _list_converter(self, parts: list[Schema]) -> Converter | None:
        inner = [
            subschema(part, entry)
            for part in parts
            for entry in (*part.get("prefixItems", ()), part.get("items", True))
        ]
        item_converter = self.build(union(inner)) if inner else None
        if item_converter is None:
            return None
        return lambda values: [item_converter(value) for value in values]

    def _record_converter(self, parts: list[Schema]) -> Converter | None:
        names = {name for part in parts for name in part.get("properties", {})}
        field_converters: dict[str, Converter] = {}
        for name in names:
            inner = [subschema(part, part["properties"][name]) for part in parts if name in part.get("properties", {})]
            if (field_converter := self.build(union(inner))) is not None:
                field_converters[name] = field_converter
        defaults = {
            name: entry["default"]
            for part in (parts if len(parts) == 1 else ())
            for name, entry in part.get("properties", {}).items()
            if isinstance(entry, dict) and "default" in entry
        }
        subschemas = [
            subschema(part, part["additionalProperties"])
            for part in parts
            if isinstance(part.get("additionalProperties"), dict)
        ]
        rest = self.build(union(subschemas)) if subschemas else None
        if not field_converters and not defaults and rest is None:
            return None

        def record(values: dict[str, Any]) -> dict[str, Any]:
            out = {**defaults, **values}
            for name, value in out.items():
                if (convert_field := field_converters.get(name)) is not None:
                    out[name] = convert_field(value)
                elif rest is not None and name not in names:
                    out[name] = rest(value)
            return out

        return record


def _to_integer(value: float) -> int | float:
    return int(value) if value.is_integer() else value


def _dispatch_by_type(converters: dict[type, Converter]) -> Converter:
    def convert(value: Any) -> Any:
        converter = converters.get(type(value))
        return value if converter is None else converter(value)

    return convert


def cel_type(schema: Schema) -> str:
    """Returns the CEL name of a type: `string`, `list<int>`, `map<string,dyn>`, ...; `dyn` if CEL has none."""
    return _cel_type(schema, {})


def _cel_type(schema: Schema, type_names: dict[bytes, str]) -> str:
    """Returns the name of a type. A recursive type is `dyn` at the recursion."""
    key = canonical(schema) if any(word in schema for word in _RECURSIVE_KEYWORDS) else b""
    if key in type_names:
        return type_names[key]
    if key:
        type_names[key] = "dyn"
    kinds = {_type_name(part, type_names) for part in union_members(schema)}
    name = "double" if kinds == {"int", "double"} else kinds.pop() if len(kinds) == 1 else "dyn"
    if key:
        type_names[key] = name
    return name


def _type_name(part: Schema, type_names: dict[bytes, str]) -> str:
    if (constants := enum_values(part)) is not None:
        names = {_CEL_BY_PYTHON_TYPE.get(type(value), "dyn") for value in constants}
        return names.pop() if len(names) == 1 else "dyn"
    kind = part.get("type")
    if kind == "array" and "prefixItems" not in part:
        return f"list<{_cel_type(subschema(part, part.get('items', True)), type_names)}>"
    if kind == "object":
        extra_fields = part.get("additionalProperties", True)
        values = (
            _cel_type(subschema(part, extra_fields), type_names)
            if isinstance(extra_fields, dict) and extra_fields.keys() - ANNOTATION_KEYWORDS and "properties" not in part
            else "dyn"
        )
        return f"map<string,{values}>"
    return _CEL_BY_JSON_TYPE.get(str(kind), "dyn")


_CEL_BY_JSON_TYPE = {"string": "string", "integer": "int", "number": "double", "boolean": "bool"}
_CEL_BY_PYTHON_TYPE = {str: "string", int: "int", float: "double", bool: "bool"}

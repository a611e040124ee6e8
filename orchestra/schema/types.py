"""Types as JSON Schemas: parsed from type syntax, such as `list[Document]`, `str | null` and `Literal['a', 'b']`, or
derived from Python types. Re-exports the functions of `json_schema` and `Validator`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from types import FunctionType
from typing import Any, Literal, NoReturn, TypeAlias

from orchestra.core.errors import InputError, SourceLocation
from orchestra.core.suggestions import closest_match
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
from orchestra.schema.validator import Validator

MAX_LENGTH = 1024
MAX_DEPTH = 16
SIMPLE_TYPES: Mapping[str, Schema] = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "null": {"type": "null"},
    "None": {"type": "null"},
}
_GENERIC_TYPES = ("list", "dict", "Literal")
RESERVED_TYPE_NAMES = frozenset({*SIMPLE_TYPES, *_GENERIC_TYPES})
"""Names with a fixed meaning in type syntax; user types cannot have them."""
_TOKEN = re.compile(
    r"""\s*(?:(?P<name>[A-Za-z_]\w*)|(?P<text>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")|(?P<number>-?\d{1,18})|(?P<sign>[\[\],|()]))"""
)
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))", re.DOTALL)
_ESCAPES = {"\\": "\\", "'": "'", '"': '"', "n": "\n", "r": "\r", "t": "\t"}
"""Escapes of `repr`, which writes the strings of `Literal` types."""
_SURROGATE = re.compile("[\ud800-\udfff]")
_COMMON_ALIASES = {
    "string": "str",
    "text": "str",
    "integer": "int",
    "number": "float",
    "boolean": "bool",
    "List": "list",
    "Dict": "dict",
    "array": "list",
    "object": "dict",
    "none": "null",
}


def parse_type(text: str, models: Mapping[str, Schema], location: SourceLocation | None = None) -> Schema:
    """Parses type syntax into a schema; `models` are the schemas that it may refer to by name.

    Raises:
        InputError: L040 for an unknown name, L041 for a text that is not a type.
    """
    if len(text) > MAX_LENGTH:
        raise InputError(
            "L041",
            f"a type of {len(text):,} characters; at most {MAX_LENGTH:,}",
            location=location,
            hint="name parts of it under `types:`",
        )
    if (simple := SIMPLE_TYPES.get(text)) is not None:
        return dict(simple)
    parser = _Parser(text, models, location)
    schema = parser.union(0)
    if parser.peek():
        parser.fail(f"unexpected {parser.peek()!r}")
    return bundle_definitions(schema)


class _Parser:
    """Recursive-descent parser of one text."""  # prose: ok

    def __init__(self, text: str, models: Mapping[str, Schema], location: SourceLocation | None) -> None:
        self.text, self.models, self.location = text, models, location
        self.tokens: list[tuple[str, str, int]] = []
        self.position = 0
        at = 0
        while text[at:].strip():
            match = _TOKEN.match(text, at)
            if match is None:
                self.fail(f"unexpected {text[at:].strip()[0]!r}", at + len(text[at:]) - len(text[at:].lstrip()))
            kind = str(match.lastgroup)
            self.tokens.append((kind, match[kind], match.start(kind)))
            at = match.end()

    def peek(self) -> str:
        return self.tokens[self.position][1] if self.position < len(self.tokens) else ""

    def fail(self, reason: str, at: int | None = None) -> NoReturn:
        hint = "types are str, int, float, bool, list[T], dict[str, T], T | null, Literal['a', 'b'], and models by name"
        raise InputError("L041", f"{self.text!r} is not a type: {reason}", location=self._location(at), hint=hint)

    def _location(self, at: int | None = None) -> SourceLocation | None:
        if self.location is None:
            return None
        if at is None:
            at = self.tokens[self.position][2] if self.position < len(self.tokens) else len(self.text)
        start = self.location.text.find(self.text, max(0, self.location.column - 1))
        return (
            self.location
            if start < 0
            else replace(self.location, column=start + at + 1, width=max(1, len(self.peek())))
        )

    def expect(self, sign: str) -> None:
        if self.peek() != sign:
            self.fail(f"expected {sign!r}, got {self.peek() or 'the end'!r}")
        self.position += 1

    def union(self, depth: int) -> Schema:
        if depth > MAX_DEPTH:
            self.fail(f"nested deeper than {MAX_DEPTH}")
        parts = [self.term(depth)]
        while self.peek() == "|":
            self.position += 1
            parts.append(self.term(depth))
        return parts[0] if len(parts) == 1 else {"anyOf": parts}

    def term(self, depth: int) -> Schema:
        if self.position >= len(self.tokens):
            self.fail("it is incomplete" if self.text.strip() else "it is empty")
        kind, word, at = self.tokens[self.position]
        if word == "(" and kind == "sign":
            self.position += 1
            inner = self.union(depth + 1)
            self.expect(")")
            return inner
        if kind != "name":
            self.fail(f"unexpected {word!r}")
        if word not in _GENERIC_TYPES:
            return self.named(word)
        self.position += 1
        self.expect("[")
        schema = self.generic(word, depth, at)
        self.expect("]")
        return schema

    def generic(self, word: str, depth: int, at: int) -> Schema:
        if word == "list":
            return {"type": "array", "items": self.union(depth + 1)}
        if word == "Literal":
            return self.literals()
        if self.peek() != "str":
            self.fail("the keys of a dict are str", at)
        self.position += 1
        self.expect(",")
        return {"type": "object", "additionalProperties": self.union(depth + 1)}

    def literals(self) -> Schema:
        values: list[Any] = []
        while True:
            kind, word, _ = self.tokens[self.position] if self.position < len(self.tokens) else ("", "", 0)
            match kind, word:
                case "text", _:
                    values.append(self._string(word))
                case "number", _:
                    values.append(int(word))
                case "name", "True" | "true":
                    values.append(True)
                case "name", "False" | "false":
                    values.append(False)
                case _:
                    self.fail("a Literal contains quoted strings, integers, true and false")
            self.position += 1
            if self.peek() != ",":
                break
            self.position += 1
        kinds = {type(value) for value in values}
        type_names = {str: "string", int: "integer", bool: "boolean"}
        unique = [
            value
            for index, value in enumerate(values)
            if not any(
                value is earlier_value or (type(value) is type(earlier_value) and value == earlier_value)
                for earlier_value in values[:index]
            )
        ]
        return {"enum": unique, "type": type_names[kinds.pop()]} if len(kinds) == 1 else {"enum": unique}

    def _string(self, word: str) -> str:
        text = _ESCAPE.sub(self._character, word[1:-1])
        if bad := _SURROGATE.search(text):
            self.fail(f"{word} holds a lone surrogate, U+{ord(bad[0]):04X}")
        return text

    def _character(self, escape: re.Match[str]) -> str:
        if (digits := escape[1] or escape[2] or escape[3]) is not None:
            return (
                chr(int(digits, 16))
                if int(digits, 16) <= sys.maxunicode
                else self.fail(f"{escape[0]} is not a character")
            )
        if (character := _ESCAPES.get(escape[4])) is None:
            self.fail(f"{escape[0]} is not an escape sequence: write \\\\ for a backslash")
        return character

    def named(self, word: str) -> Schema:
        schema = self.models.get(word)
        if schema is None:
            schema = SIMPLE_TYPES.get(word)
        if schema is None:
            self.unknown(word)
        self.position += 1
        return dict(schema)

    def unknown(self, word: str) -> NoReturn:
        known_names = [*SIMPLE_TYPES, *_GENERIC_TYPES, *self.models]
        near = _COMMON_ALIASES.get(word) or closest_match(word, known_names)
        text = ", ".join(sorted(self.models))
        hint = f"did you mean {near!r}?" if near else f"models by name: {text}" if text else "declare it under `types:`"
        raise InputError("L040", f"there is no type {word!r}", location=self._location(), hint=hint)


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
"""Whether a schema describes accepted or written values."""


def schema_of(python_type: Any, mode: SchemaMode) -> Schema:
    """Returns the schema of a Python type as pydantic generates it, for accepted or written values.

    Raises:
        InputError: L043 for a type without a JSON form.
    """
    from pydantic import PydanticUserError, TypeAdapter
    from pydantic.errors import PydanticInvalidForJsonSchema
    from pydantic.json_schema import GenerateJsonSchema

    class PlainSchemaGenerator(GenerateJsonSchema):
        """Generates schemas without titles derived from field names, which would hide the field, and with a format for
        decimal numbers.

        The result of a deterministic default factory becomes the default.
        """

        def field_title_should_be_set(self, schema: Any) -> bool:
            return False

        def decimal_schema(self, schema: Any) -> dict[str, Any]:
            decimal_schema = super().decimal_schema(schema)
            for part in decimal_schema.get("anyOf", [decimal_schema]):
                if part.get("type") == "string":
                    part["format"] = "decimal"  # without a format it would be the same as any string
            return decimal_schema

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
            "L043",
            f"{name} has no JSON form: {reason}",
            hint="use str, int, float, bool, lists, dicts or pydantic models",
        ) from error


_EMPTY_FACTORIES = (list, dict, set, frozenset, tuple, str, int, float, bool)


def _is_deterministic(factory: Any) -> bool:
    """Returns whether a default factory always returns the same: an empty value, constants, or a model of such
    defaults.
    """
    if factory in _EMPTY_FACTORIES:
        return True
    if isinstance(factory, FunctionType):
        return not factory.__code__.co_names and not factory.__closure__ and not factory.__code__.co_argcount
    fields = [*getattr(factory, "__pydantic_fields__", {}).values()]
    factories = [field.default_factory for field in fields if field.default_factory is not None]
    plain = bool(fields) and getattr(factory, "__pydantic_post_init__", None) is None
    return plain and all(map(_is_deterministic, factories)) and not any(field.is_required() for field in fields)

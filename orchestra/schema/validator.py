"""Validators: values against their types, with the first fault said in plain words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from orchestra.core.errors import InputError
from orchestra.core.paths import format_path
from orchestra.core.suggestions import closest_match
from orchestra.core.untrusted_text import to_storable
from orchestra.schema.json_schema import Schema
from orchestra.schema.schema_size import check_complexity, count_evaluations
from orchestra.schema.strict_json import canonical
from orchestra.schema.string_formats import FORMATS

if TYPE_CHECKING:
    import jsonschema_rs

_TYPE_WORDS = {
    "string": "str",
    "integer": "int",
    "number": "float",
    "boolean": "bool",
    "null": "null",
    "array": "a list",
    "object": "an object",
}
_LIMITS = {
    "minimum": "at least {}",
    "maximum": "at most {}",
    "exclusiveMinimum": "more than {}",
    "exclusiveMaximum": "less than {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {} elements",
    "maxItems": "at most {} elements",
    "minProperties": "at least {} fields",
    "maxProperties": "at most {} fields",
}

MAX_EVALUATIONS = 5_000
"""Parts of a schema that are tried on parts of a value, at most, to find words for what is wrong with it."""


def _refuse_retrieval(uri: str) -> NoReturn:
    raise ValueError(f"{uri} is outside the schema")


class Validator:
    """A schema made ready. It never fetches a reference, and its patterns run in linear time."""

    def __init__(self, schema: Schema) -> None:
        """Raises `InputError` L042 for a schema that is none."""
        import jsonschema_rs  # 3 MiB, for who defines types and validates nothing

        self.schema = schema
        check_complexity(schema)
        try:
            self._validator = jsonschema_rs.Draft202012Validator(
                schema,
                retriever=_refuse_retrieval,
                validate_formats=True,
                ignore_unknown_formats=True,
                formats=dict(FORMATS),
                pattern_options=jsonschema_rs.RegexOptions(),
            )
        except (ValueError, UnicodeEncodeError) as error:
            reason = str(error).partition("\n")[0]
            hint = "JSON Schema 2020-12, with references inside the schema and patterns without look-around"
            raise InputError("L042", f"not a schema: {reason}", hint=hint) from error

    def is_valid(self, value: Any) -> bool:
        """Whether the value is of the type."""
        try:
            return self._validator.is_valid(value)
        except (ValueError, UnicodeEncodeError):
            return False

    def check(self, value: Any) -> str | None:
        """None for a value of the type; otherwise where and why the first fault is, such as `items[0].text: expected str, got 5`."""
        try:
            if self._validator.is_valid(value):
                return None
            # `is_valid` remembers what it has tried, `iter_errors` does not: under unions that hold each other it would never end.
            if count_evaluations(self.schema, value, MAX_EVALUATIONS) > MAX_EVALUATIONS:
                return f"{format_value(value)} is not of its type, which has too many unions within each other to say where"
            first = next(iter(self._validator.iter_errors(value)))
        except UnicodeEncodeError:
            return "a lone surrogate in a string"
        except ValueError as error:
            return f"not JSON: {error}"
        return to_storable(self._format_error(first, []), 500)

    def _format_error(self, error: jsonschema_rs.ValidationError, above: Sequence[str | int]) -> str:
        path = list(error.instance_path)
        at = format_path(path[len(above) :])
        reason = self._reason(error, path)
        return f"{at}: {reason}" if at else reason

    def _reason(self, error: jsonschema_rs.ValidationError, path: Sequence[str | int]) -> str:
        kind: Any = error.kind
        value: Any = error.instance
        match kind.name:
            case "type":
                return f"expected {' | '.join(_TYPE_WORDS.get(name, name) for name in kind.types)}, got {format_value(value)}"
            case "required":
                return f"the field {kind.property!r} is missing"
            case "additionalProperties" | "unevaluatedProperties":
                return self._unexpected(error, kind.unexpected[0])
            case "enum":
                options = ", ".join(format_value(option) for option in list(kind.options)[:12])
                return f"expected one of {options}; got {format_value(value)}"
            case "const":
                return f"expected {format_value(kind.expected_value)}, got {format_value(value)}"
            case "anyOf" | "oneOf" if hasattr(kind, "context"):
                return self._union_reason(kind.context, value, path)
            case "pattern":
                return f"expected a text that matches {kind.pattern}, got {format_value(value)}"
            case "format":
                return f"expected a text of format {kind.format}, got {format_value(value)}"
            case "multipleOf":
                return f"expected a multiple of {kind.multiple_of}, got {format_value(value)}"
            case "uniqueItems":
                return "expected elements that differ"
            case name if name in _LIMITS:
                measured = len(value) if isinstance(value, str | list | dict) else format_value(value)
                return f"expected {_LIMITS[name].format(kind.limit)}, got {measured}"
            case _:
                return str(error.message)[:200]

    def _unexpected(self, error: jsonschema_rs.ValidationError, name: str) -> str:
        owner: Any = self.schema
        for step in list(error.schema_path)[:-1]:
            owner = owner[step]
        near = closest_match(name, owner.get("properties", {}))
        return f"there is no field {name!r} here" + (f"; did you mean {near!r}?" if near else "")

    def _union_reason(self, context: Any, value: Any, path: Sequence[str | int]) -> str:
        """What is wrong in the one branch that the value's kind fits; or which kinds are expected."""
        expected: list[str] = []
        inner: list[jsonschema_rs.ValidationError] = []
        if sum(not branch for branch in context) > 1:
            return f"{format_value(value)} fits more than one of the {len(context)} types of which it must fit one"
        for branch in context:
            if not branch:
                continue
            kind: Any = branch[0].kind
            if len(branch[0].instance_path) == len(path) and kind.name == "type":
                expected += [_TYPE_WORDS.get(name, name) for name in kind.types]
            else:
                inner.append(branch[0])
        if len(inner) == 1:
            return self._format_error(inner[0], path)
        if inner:
            return f"{format_value(value)} fits none of the {len(context)} types that are allowed here"
        return f"expected {' | '.join(dict.fromkeys(expected))}, got {format_value(value)}"


def format_value(value: Any) -> str:
    """A value, short enough for a message."""
    match value:
        case dict():
            return "an object"
        case list() | tuple():
            return "a list"
        case str():
            text = repr(value)
        case None | bool() | int():
            text = canonical(value).decode()
        case float():
            text = repr(value)
        case _:
            text = type(value).__name__
    return text if len(text) <= 60 else text[:59] + "…"

"""Fast checks of plain values: texts, numbers, booleans and lists of them. For these, the Python type gives the
same result as a schema and pydantic.

A value that fails here is not necessarily invalid: full validation follows and writes the error message.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from typing import Any, TypeAlias, get_args, get_origin

from orchestra.schema.types import Schema

Predicate: TypeAlias = Callable[[Any], bool]
"""Whether a value is certainly of a type and of JSON."""

_ANNOTATION_KEYS = {"title", "description", "default"}
"""Keys of a schema that do not restrict values."""
_MIN_INTEGER, _MAX_INTEGER = -(1 << 53), 1 << 53
"""Integers that JSON represents exactly."""


def _is_text(value: Any) -> bool:
    if type(value) is not str:
        return False
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return False
    return True


def _is_integer(value: Any) -> bool:
    return type(value) is int and _MIN_INTEGER <= value <= _MAX_INTEGER


def _is_float(value: Any) -> bool:
    return type(value) is float and isfinite(value)


def _is_bool(value: Any) -> bool:
    return value is True or value is False


def _is_scalar(value: Any) -> bool:
    return value is None or _is_bool(value) or _is_text(value) or _is_integer(value) or _is_float(value)


_SCALAR_TESTS: Mapping[Any, tuple[str, Predicate]] = {
    str: ("string", _is_text),
    int: ("integer", _is_integer),
    float: ("number", _is_float),
    bool: ("boolean", _is_bool),
}


def scalar_test(schema: Schema, hint: Any) -> Predicate | None:
    """Returns the test of a scalar type that is the same in Python and in JSON; None for other types and for types with
    bounds.
    """
    values = {key: value for key, value in schema.items() if key not in _ANNOTATION_KEYS}
    if hint is Any:
        return _is_scalar if not values else None
    if hint is None or hint is type(None):
        return (lambda value: value is None) if values == {"type": "null"} else None
    if hint in _SCALAR_TESTS if isinstance(hint, type) else False:
        name, passes = _SCALAR_TESTS[hint]
        return passes if values == {"type": name} else None
    return None


def list_test(schema: Schema, hint: Any) -> Predicate | None:
    """Returns the test of a list of plain values; None for other types."""
    origin, inner = get_origin(hint), get_args(hint)
    if (
        origin not in (list, Sequence)
        or len(inner) != 1
        or schema.get("type") != "array"
        or not isinstance(schema.get("items"), dict)
    ):
        return None
    if {key for key in schema if key not in _ANNOTATION_KEYS} != {"type", "items"} or (
        passes := scalar_test(schema["items"], inner[0])
    ) is None:
        return None
    element_test = passes
    return lambda value: type(value) is list and all(map(element_test, value))


def record_tests(schema: Schema, hints: Mapping[str, Any]) -> tuple[Mapping[str, Predicate], int] | None:
    """Returns the tests of a closed object's fields, required fields first, and the number of required fields; None if
    a field is not plain.
    """
    if {key for key in schema if key not in _ANNOTATION_KEYS} - {
        "type",
        "properties",
        "required",
        "additionalProperties",
    }:
        return None
    if schema.get("type") != "object" or schema.get("additionalProperties") is not False:
        return None
    fields: Mapping[str, Any] = schema.get("properties", {})
    required = list(schema.get("required", ()))
    tests: dict[str, Predicate] = {}
    for name in [*required, *(name for name in fields if name not in required)]:
        part = fields.get(name)
        passes = (
            (scalar_test(part, hints.get(name)) or list_test(part, hints.get(name)))
            if isinstance(part, dict) and name in hints
            else None
        )
        if passes is None:
            return None
        tests[name] = passes
    return tests, len(required)


def fast_arguments(inputs: Mapping[str, Any], tests: Mapping[str, Predicate], required: int) -> dict[str, Any] | None:
    """Returns the inputs as arguments, with lists copied, if all tests pass and none is missing; otherwise None."""
    arguments: dict[str, Any] = {}
    for name, passes in tests.items():
        if name in inputs:
            value = inputs[name]
            if not passes(value):
                return None
            arguments[name] = value[:] if type(value) is list else value
        elif required > 0:
            return None
        required -= 1
    return arguments if len(arguments) == len(inputs) else None

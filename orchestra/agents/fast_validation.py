"""Plain values: texts, numbers, truth values and lists of them. A look at their type says all that a schema and pydantic would.

What fails here is not wrong yet: it goes the long way, where whatever is wrong is said in words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from typing import Any, TypeAlias, get_args, get_origin

from orchestra.schema.types import Schema

Passes: TypeAlias = Callable[[Any], bool]
"""Whether a value is surely of a type, and JSON as it is."""

_NOTES = {"title", "description", "default"}
"""Keys of a schema that allow and forbid nothing."""
_LEAST, _MOST = -(1 << 53), 1 << 53
"""Whole numbers that JSON has without doubt."""


def _text(value: Any) -> bool:
    if type(value) is not str:
        return False
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return False
    return True


def _whole(value: Any) -> bool:
    return type(value) is int and _LEAST <= value <= _MOST


def _real(value: Any) -> bool:
    return type(value) is float and isfinite(value)


def _truth(value: Any) -> bool:
    return value is True or value is False


def _scalar(value: Any) -> bool:
    return value is None or _truth(value) or _text(value) or _whole(value) or _real(value)


_SCALARS: Mapping[Any, tuple[str, Passes]] = {
    str: ("string", _text),
    int: ("integer", _whole),
    float: ("number", _real),
    bool: ("boolean", _truth),
}


def plain(schema: Schema, hint: Any) -> Passes | None:
    """The test of a type that is plain in Python and in JSON; None for any other, and for one with bounds."""
    said = {key: value for key, value in schema.items() if key not in _NOTES}
    if hint is Any:
        return _scalar if not said else None
    if hint is None or hint is type(None):
        return (lambda value: value is None) if said == {"type": "null"} else None
    if hint in _SCALARS if isinstance(hint, type) else False:
        name, passes = _SCALARS[hint]
        return passes if said == {"type": name} else None
    return None


def plain_list(schema: Schema, hint: Any) -> Passes | None:
    """The test of a list of plain values; None for anything else."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin not in (list, Sequence) or len(inner) != 1 or schema.get("type") != "array" or not isinstance(schema.get("items"), dict):
        return None
    if {key for key in schema if key not in _NOTES} != {"type", "items"} or (passes := plain(schema["items"], inner[0])) is None:
        return None
    one = passes
    return lambda value: type(value) is list and all(map(one, value))


def plain_record(schema: Schema, hints: Mapping[str, Any]) -> tuple[Mapping[str, Passes], int] | None:
    """The tests of a closed object's fields, the required ones first, and how many those are; None where a field is not plain."""
    if {key for key in schema if key not in _NOTES} - {"type", "properties", "required", "additionalProperties"}:
        return None
    if schema.get("type") != "object" or schema.get("additionalProperties") is not False:
        return None
    fields: Mapping[str, Any] = schema.get("properties", {})
    required = list(schema.get("required", ()))
    found: dict[str, Passes] = {}
    for name in [*required, *(name for name in fields if name not in required)]:
        part = fields.get(name)
        passes = (plain(part, hints.get(name)) or plain_list(part, hints.get(name))) if isinstance(part, dict) and name in hints else None
        if passes is None:
            return None
        found[name] = passes
    return found, len(required)


def as_they_are(inputs: Mapping[str, Any], tests: Mapping[str, Passes], required: int) -> dict[str, Any] | None:
    """The inputs as arguments, lists copied, where all pass and none is missing; else None."""
    found: dict[str, Any] = {}
    for name, passes in tests.items():
        if name in inputs:
            value = inputs[name]
            if not passes(value):
                return None
            found[name] = value[:] if type(value) is list else value
        elif required > 0:
            return None
        required -= 1
    return found if len(found) == len(inputs) else None

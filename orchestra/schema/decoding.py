"""JSON values read as the Python types that they are of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from pydantic import TypeAdapter

T = TypeVar("T")

_SCALARS: Final = frozenset(
    {"none", "bool", "int", "float", "complex", "str", "bytes", "decimal", "enum", "literal", "uuid", "url"}
)
_TIMES: Final = frozenset({"date", "time", "datetime", "timedelta"})
_CONTAINERS: Final = frozenset({"list", "dict", "tuple", "set", "frozenset", "deque", "ordered-dict"})
_RECORDS: Final = frozenset({"model", "model-fields", "dataclass", "dataclass-args", "typed-dict", "named-tuple"})
_FIELDS: Final = frozenset({"model-field", "dataclass-field", "typed-dict-field", "named-tuple-field"})
_WRAPPERS: Final = frozenset({"nullable", "union", "tagged-union", "default", "definitions", "definition-ref", "chain"})
_MODES: Final = frozenset({"json-or-python", "lax-or-strict", "function-after", "no-info", "with-info"})
_COPYING_KINDS: Final = _SCALARS | _TIMES | _CONTAINERS | _RECORDS | _FIELDS | _WRAPPERS | _MODES
"""Kinds of pydantic's core schemas whose values are made anew, or cannot be changed."""
_NON_SCHEMA_KEYS: Final = frozenset(
    {"serialization", "metadata", "config", "default", "expected", "members", "computed_fields"}
)
"""Keys of a core schema whose values are none, or are not read by."""
_SCHEMA_MAP_KEYS: Final = frozenset({"fields", "choices"})
"""Keys whose values are core schemas by name."""


def decode_value(adapter: TypeAdapter[T], value: Any, *, copy_first: bool = False) -> T:
    """A JSON value as its type. Raises pydantic's `ValidationError` for one of another type.

    `copy_first` is the result of `may_alias_input` for the type: the value is then decoded from a copy, so that a change of the result does
    not change the value.

    Read as Python first, which is faster and leaves a text a text in `Decimal | str`; a strict model, which takes a date from JSON as a
    text and from Python as a date alone, is read as JSON.
    """
    from pydantic import ValidationError

    try:
        return adapter.validate_python(copy_value(value) if copy_first else value)
    except ValidationError as error:
        from pydantic_core import PydanticSerializationError, to_json

        try:
            return adapter.validate_json(to_json(value))
        except (ValidationError, PydanticSerializationError):
            raise error from None


def may_alias_input(adapter: TypeAdapter[Any]) -> bool:
    """Whether reading as a type may hand on lists and dictionaries of the value itself: where a part is `Any`, or of a model that takes
    further fields, and where code of the type's own sees the value before pydantic does. Of kinds that are not known it is assumed.

    Raises pydantic's `PydanticUserError` for a type that is not defined yet.
    """
    line: list[Any] = [adapter.core_schema]
    while line:
        here = line.pop()
        if isinstance(here, Mapping):
            if _aliases_input(here):
                return True
            line += _subschemas(here)
        elif isinstance(here, list | tuple):
            line += here
    return False


def _aliases_input(schema: Mapping[str, Any]) -> bool:
    kind = schema.get("type")
    if kind == "function-wrap":  # with these pydantic itself reads Sequence and the like
        return not str(getattr(schema["function"]["function"], "__module__", "")).startswith("pydantic.")
    further = (schema.get("extra_behavior"), schema.get("config", {}).get("extra_fields_behavior"))
    return kind not in _COPYING_KINDS or "allow" in further or bool(schema.get("custom_init"))


def _subschemas(schema: Mapping[str, Any]) -> Iterator[Any]:
    for key, value in schema.items():
        if key in _NON_SCHEMA_KEYS:
            continue
        if key in _SCHEMA_MAP_KEYS and isinstance(value, Mapping):
            yield from value.values()
        elif key == "steps":  # a chain gives what its last step gives; those that only look hand nothing on
            yield from (step for step in value if step is value[-1] or step["type"] != "is-instance")
        elif isinstance(value, list | tuple) or (isinstance(value, Mapping) and "type" in value):
            yield value


def copy_value(value: Any) -> Any:
    """A JSON value with lists and dictionaries of its own."""
    match value:
        case dict():
            return {key: copy_value(item) for key, item in value.items()}
        case list():
            return [copy_value(item) for item in value]
        case tuple():
            return tuple(copy_value(item) for item in value)
        case _:
            return value

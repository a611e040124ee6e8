"""Decoding of JSON values as Python types."""

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
"""Kinds of pydantic core schemas whose values are created anew, or are immutable."""
_NON_SCHEMA_KEYS: Final = frozenset(
    {"serialization", "metadata", "config", "default", "expected", "members", "computed_fields"}
)
"""Keys of a core schema whose values are not schemas, or are not used for validation."""
_SCHEMA_MAP_KEYS: Final = frozenset({"fields", "choices"})
"""Keys whose values are core schemas by name."""


def decode_value(adapter: TypeAdapter[T], value: Any, *, copy_first: bool = False) -> T:
    """Decodes a JSON value as a type. Raises pydantic's `ValidationError` for a value of another type.

    `copy_first` is the result of `may_alias_input` for the type: the value is then decoded from a copy, so that a
    change of the result does not change the value.

    The value is validated as Python first, which is faster and keeps strings in `Decimal | str`. A strict model, which
    accepts dates as strings only from JSON, is validated as JSON.
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
    """Returns whether decoding as a type may pass on lists and dictionaries of the input itself.

    This is the case for parts of type `Any`, for models with extra fields, and for custom code that runs before
    pydantic. It is assumed for unknown kinds.

    Raises pydantic's `PydanticUserError` for a type that is not defined yet.
    """
    line: list[Any] = [adapter.core_schema]
    while line:
        subtree = line.pop()
        if isinstance(subtree, Mapping):
            if _aliases_input(subtree):
                return True
            line += _subschemas(subtree)
        elif isinstance(subtree, list | tuple):
            line += subtree
    return False


def _aliases_input(schema: Mapping[str, Any]) -> bool:
    kind = schema.get("type")
    if kind == "function-wrap":  # pydantic validates Sequence and similar types with these
        return not str(getattr(schema["function"]["function"], "__module__", "")).startswith("pydantic.")
    further = (schema.get("extra_behavior"), schema.get("config", {}).get("extra_fields_behavior"))
    return kind not in _COPYING_KINDS or "allow" in further or bool(schema.get("custom_init"))


def _subschemas(schema: Mapping[str, Any]) -> Iterator[Any]:
    for key, value in schema.items():
        if key in _NON_SCHEMA_KEYS:
            continue
        if key in _SCHEMA_MAP_KEYS and isinstance(value, Mapping):
            yield from value.values()
        elif key == "steps":  # the last step of a chain returns the value; steps that only validate pass nothing on
            yield from (step for step in value if step is value[-1] or step["type"] != "is-instance")
        elif isinstance(value, list | tuple) or (isinstance(value, Mapping) and "type" in value):
            yield value


def copy_value(value: Any) -> Any:
    """Returns a JSON value with copies of all lists and dictionaries."""
    match value:
        case dict():
            return {key: copy_value(item) for key, item in value.items()}
        case list():
            return [copy_value(item) for item in value]
        case tuple():
            return tuple(copy_value(item) for item in value)
        case _:
            return value

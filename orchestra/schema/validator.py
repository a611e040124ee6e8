"""Validation of values against types, with the first error in plain words, and limits for the complexity of schemas."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, time
from typing import TYPE_CHECKING, Any, NoReturn

from orchestra.core.errors import InputError
from orchestra.core.paths import format_path
from orchestra.core.suggestions import closest_match
from orchestra.core.untrusted_text import to_storable
from orchestra.schema.fields import resolve_reference
from orchestra.schema.json_schema import Schema
from orchestra.schema.strict_json import canonical

if TYPE_CHECKING:
    import jsonschema_rs

_CLOCK = r"\d\d:\d\d:\d\d(\.\d+)?([zZ]|[+-]\d\d:\d\d)?"
_TIME = re.compile(_CLOCK)
_DATETIME = re.compile(rf"\d{{4}}-\d\d-\d\d[tT ]{_CLOCK}")
_DURATION = re.compile(r"-?P(?=[\dT])(\d+Y)?(\d+M)?(\d+W)?(\d+D)?(T(?=\d)(\d+H)?(\d+M)?(\d+(\.\d+)?S)?)?")


def _is_datetime(text: str) -> bool:
    return _DATETIME.fullmatch(text) is not None and _parses(datetime.fromisoformat, text)


def _is_time(text: str) -> bool:
    return _TIME.fullmatch(text) is not None and _parses(time.fromisoformat, text)


def _is_duration(text: str) -> bool:
    return _DURATION.fullmatch(text) is not None


def _parses(read: Callable[[str], object], text: str) -> bool:
    try:
        read(text.upper())
    except ValueError:
        return False
    return True


FORMATS: Mapping[str, Callable[[str], bool]] = {"date-time": _is_datetime, "time": _is_time, "duration": _is_duration}
"""Checks of string formats. They follow pydantic: JSON Schema's own require a time zone in every time, and have no
durations below a second.
"""


MAX_PATHS = 1_000_000
"""Maximum number of ways in which parts of a schema apply to one part of a value; it takes some hundredths of a second.
"""
MAX_CHAIN = 200
"""Maximum length of a chain of types."""

_INPLACE_KEYS = ("not", "if", "then", "else")
_INPLACE_LIST_KEYS = ("allOf", "anyOf", "oneOf")
_CHILD_KEYS = (
    "items",
    "additionalProperties",
    "contains",
    "propertyNames",
    "unevaluatedItems",
    "unevaluatedProperties",
)
_CHILD_MAP_KEYS = ("properties", "patternProperties")
_UNSUPPORTED_KEYS = ("$anchor", "$dynamicAnchor", "$dynamicRef", "$recursiveRef", "$recursiveAnchor")


def check_complexity(schema: Mapping[str, Any]) -> None:
    """Checks that validation against a schema takes limited time, and that all its references point to its own parts.
    Small schemas may have 2^n ways to apply to one value.

    Raises:
        InputError: L042.
    """
    try:
        if b'"$' not in canonical(schema):
            return  # without references the work is linear in the length
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError("L042", f"not a schema: {str(error)[:200]}", hint="JSON Schema 2020-12, as JSON") from error
    _check_cycles(schema)
    if _PathCounter(schema).count(schema, 0) > MAX_PATHS:
        raise InputError(
            "L042", "its parts refer to each other in more than a million ways", hint="name each type once in a union"
        )


def _check_cycles(root: Mapping[str, Any]) -> None:
    """Refuses a type that consists of itself: `A: {anyOf: [A, str]}`."""
    open_, done = set[int](), set[int]()
    starts: list[Any] = [root]
    seen = set[int]()
    while starts:
        start = starts.pop()
        if not isinstance(start, Mapping) or id(start) in seen:
            continue
        seen.add(id(start))
        here = list(inplace_subschemas(start, root))
        starts += [*here, *_child_subschemas(start)]
        line = [(start, iter(here))] if id(start) not in done else []
        open_ = {id(start)}
        while line:
            node, parts = line[-1]
            part = next(parts, None)
            if part is None:
                done.add(id(node))
                open_.discard(id(node))
                line.pop()
            elif id(part) in open_:
                raise InputError("L042", "a type that only contains itself", hint="put it into a field or a list")
            elif isinstance(part, Mapping) and id(part) not in done:
                open_.add(id(part))
                line.append((part, inplace_subschemas(part, root)))


class _PathCounter:
    """Counts for each part of a schema how often it applies to one part of a value."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self.root = root
        self.counts: dict[int, int] = {}

    def count(self, schema: Any, depth: int) -> int:
        """Returns the count of one part; 1 for a part that is being counted, because the validator detects cycles
        itself.
        """
        if not isinstance(schema, Mapping):
            return 1
        if (known := self.counts.get(id(schema))) is not None:
            return known
        if depth > MAX_CHAIN:
            raise InputError(
                "L042", f"a chain of more than {MAX_CHAIN} types that refer to each other", hint="shorten the chain"
            )
        self.counts[id(schema)] = 1
        if "$id" in schema and schema is not self.root:
            raise InputError("L042", "a part has an `$id` of its own", hint="refer to types by #/$defs/NAME")
        if foreign := next((key for key in _UNSUPPORTED_KEYS if key in schema), None):
            raise InputError("L042", f"`{foreign}` is not supported", hint="refer to types by #/$defs/NAME")
        here = sum([self.count(part, depth + 1) for part in inplace_subschemas(schema, self.root)])
        inside = max([self.count(part, depth + 1) for part in _child_subschemas(schema)], default=0)
        ways = self.counts[id(schema)] = min(1 + here + inside, MAX_PATHS + 1)
        return ways


def inplace_subschemas(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Any]:
    """Yields the parts that apply to the same value as the schema itself. Raises `InputError` L042 for a reference out
    of the schema.
    """
    if isinstance(reference := schema.get("$ref"), str):
        if reference != "#" and not reference.startswith("#/"):
            raise InputError(
                "L042",
                f"the reference {reference[:100]!r} points outside the schema",
                hint="refer to types by #/$defs/NAME",
            )
        if (found := resolve_reference(reference, root)) is not None:
            yield found
    yield from (schema[key] for key in _INPLACE_KEYS if key in schema)
    for key in _INPLACE_LIST_KEYS:
        listed = schema.get(key)
        yield from listed if isinstance(listed, list | tuple) else ()
    depending = schema.get("dependentSchemas")
    yield from depending.values() if isinstance(depending, Mapping) else ()


def _child_subschemas(schema: Mapping[str, Any]) -> Iterator[Any]:
    yield from (schema[key] for key in _CHILD_KEYS if key in schema)
    first = schema.get("prefixItems")
    yield from first if isinstance(first, list | tuple) else ()
    for key in _CHILD_MAP_KEYS:
        named = schema.get(key)
        yield from named.values() if isinstance(named, Mapping) else ()


def count_evaluations(schema: Mapping[str, Any], value: Any, limit: int) -> int:
    """Returns how many pairs of a schema part and a value part are evaluated without memoization; counting stops after
    `limit`.
    """
    line: list[tuple[Any, Any]] = [(schema, value)]
    count = 0
    while line and count <= limit:
        here, one = line.pop()
        if not isinstance(here, Mapping):
            continue
        count += 1
        # Plain parts are not counted: a long list of numbers is fast.
        line += [(part, one) for part in inplace_subschemas(here, schema)]
        match one:
            case dict():
                line += [
                    (part, item)
                    for name, item in one.items()
                    for part in _property_subschemas(here, name)
                    if _has_subschemas(part)
                ]
            case list() | tuple():
                first = here.get("prefixItems", ())
                line += [
                    (part, item)
                    for index, item in enumerate(one)
                    if _has_subschemas(part := first[index] if index < len(first) else here.get("items"))
                ]
            case _:
                pass
    return count


def _has_subschemas(schema: Any) -> bool:
    return isinstance(schema, Mapping) and any(
        key in schema
        for key in (
            "$ref",
            *_INPLACE_LIST_KEYS,
            *_INPLACE_KEYS,
            *_CHILD_KEYS,
            *_CHILD_MAP_KEYS,
            "prefixItems",
            "dependentSchemas",
        )
    )


def _property_subschemas(schema: Mapping[str, Any], name: str) -> list[Any]:
    found = schema.get("properties", {}).get(name)
    patterns = list(schema.get("patternProperties", {}).values())
    return [
        *([] if found is None else [found]),
        *patterns,
        *(schema[key] for key in ("additionalProperties",) if key in schema and found is None),
    ]


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
"""Maximum number of evaluations for finding the reason why a value is invalid."""


def _refuse_retrieval(uri: str) -> NoReturn:
    raise ValueError(f"{uri} is outside the schema")


class Validator:
    """A compiled schema. It never fetches references, and its patterns run in linear time."""

    def __init__(self, schema: Schema) -> None:
        """Compiles a schema. Raises `InputError` L042 for an invalid one."""
        import jsonschema_rs  # 3 MiB of memory, not needed by users who only define types

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
        """Returns whether the value has the type."""
        try:
            return self._validator.is_valid(value)
        except (ValueError, UnicodeEncodeError):
            return False

    def check(self, value: Any) -> str | None:
        """Returns None for a valid value; otherwise the location and reason of the first error, such as `items[0].text:
        expected str, got 5`.
        """
        try:
            if self._validator.is_valid(value):
                return None
            # `is_valid` memoizes, `iter_errors` does not: with nested unions it could run forever.
            if count_evaluations(self.schema, value, MAX_EVALUATIONS) > MAX_EVALUATIONS:
                return f"{format_value(value)} is not of its type, which has too many nested unions to find the error"
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
                expected = " | ".join(_TYPE_WORDS.get(name, name) for name in kind.types)
                return f"expected {expected}, got {format_value(value)}"
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
                return f"expected a string that matches {kind.pattern}, got {format_value(value)}"
            case "format":
                return f"expected a string of format {kind.format}, got {format_value(value)}"
            case "multipleOf":
                return f"expected a multiple of {kind.multiple_of}, got {format_value(value)}"
            case "uniqueItems":
                return "expected unique elements"
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
        """Returns the error in the only branch that fits the kind of the value, or the expected kinds."""
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
    """Formats a value briefly for a message."""
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

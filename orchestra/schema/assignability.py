"""Assignability: whether every value of one type is a value of another.

Conservative: what cannot be proved is refused. A producer without `additionalProperties` is closed (what is written has its
own fields only); a consumer without it ignores further fields. Sound for JSON values, as the tests show with pydantic as the
judge; not complete: regular expressions are compared as texts, and `not`, `if` and `patternProperties` are proved only where
they are the same on both sides.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from orchestra.schema.json_schema import (
    ANNOTATION_KEYWORDS,
    Schema,
    bundle_definitions,
    enum_values,
    format_type,
    resolve,
    subschema,
    union_members,
)
from orchestra.schema.strict_json import canonical
from orchestra.schema.validator import Validator, format_value

MAX_STEPS = 20_000
"""Pairs of types that are compared at most, before the answer is that it cannot be proved."""

_SUPPORTED_KEYWORDS = ANNOTATION_KEYWORDS | {
    "type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref", "properties", "required", "additionalProperties", "items", "prefixItems",
    "minItems", "maxItems", "uniqueItems", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength",
    "maxLength", "pattern", "format",
}  # fmt: skip
_QUOTE = "quote"


def assignability_error(producer: Schema, consumer: Schema) -> str | None:
    """None where every JSON value of `producer` is one of `consumer`; otherwise where and why not.

    Both are valid schemas (`Validator` was made of them, or pydantic wrote them).
    """
    if producer == consumer:
        return None
    return _Comparison().check(producer, consumer, "")


class _TooManySteps(Exception):
    """The proof takes more steps than it is worth."""


class _Comparison:
    """One walk over a pair of types."""

    def __init__(self) -> None:
        self.steps = 0
        self.assumed: set[tuple[bytes, int, bytes, int]] = set()

    def check(self, producer: Schema, consumer: Schema, at: str) -> str | None:
        try:
            return self._compare(producer, consumer, at)
        except _TooManySteps:
            return f"{_path_prefix(at)}too complex to compare {format_type(producer)} with {format_type(consumer)}"

    def _compare(self, p: Schema, c: Schema, at: str) -> str | None:
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise _TooManySteps
        if p == c:
            return None
        if "$ref" in p or "$ref" in c:
            # A recursive type: assume what is being proved, and let the rest of the walk refute it.
            key = (_without_definitions(p), id(p.get("$defs")), _without_definitions(c), id(c.get("$defs")))
            if key in self.assumed:
                return None
            self.assumed.add(key)
            reason = self._compare_resolved(resolve(p), resolve(c), at)
            self.assumed.discard(key)
            return reason
        return self._compare_resolved(resolve(p), resolve(c), at)

    def _compare_resolved(self, p: Schema, c: Schema, at: str) -> str | None:
        if p.get("not") == {}:
            return None
        asked = [key for key in c if key not in ANNOTATION_KEYWORDS and not key.startswith("x-")]
        if not asked:
            return None
        if unknown := [key for key in asked if key not in _SUPPORTED_KEYWORDS and p.get(key) != c[key]]:
            return f"{_path_prefix(at)}cannot prove {unknown[0]!r}"
        values = enum_values(p)
        if values is not None:
            return self._compare_values(values, c, at)
        if len(parts := union_members(p)) > 1:
            return next((reason for part in parts if (reason := self._compare(part, c, at))), None)
        p = parts[0]
        if "allOf" in c:
            every = [
                {key: value for key, value in c.items() if key != "allOf"},
                *(subschema(c, part) for part in c["allOf"]),
            ]
            return next((reason for part in every if (reason := self._compare(p, part, at))), None)
        options = union_members(c)
        if len(options) == 1:
            return next(self._compare_single(p, options[0], at), None)
        near = []
        for option in options:
            if (reason := self._compare(p, option, at)) is None:
                return None
            if option.get("type") == p.get("type"):
                near.append(reason)
        return near[0] if len(near) == 1 else f"{_path_prefix(at)}expected {format_type(c)}, got {format_type(p)}"

    def _compare_values(self, values: list[Any], c: Schema, at: str) -> str | None:
        """Finitely many values: each is tried. No constant is a quote, for a quote stands in some evidence."""
        if _is_plain(c) and all(_has_type(value, c["type"]) for value in values):
            return None
        validator = Validator(bundle_definitions(c))
        for value in values:
            if (reason := validator.check(value)) is not None:
                return (
                    f"{_path_prefix(at)}{reason}"
                    if isinstance(value, dict | list)
                    else f"{_path_prefix(at)}expected {format_type(c)}, got {format_value(value)}"
                )
            if _contains_quote(c, value):
                return f"{_path_prefix(at)}expected Quote, got {format_value(value)}"
        return None

    def _compare_single(self, p: Schema, c: Schema, at: str) -> Iterator[str]:
        want, have = c.get("type"), p.get("type")
        if want is not None and have != want and not (have == "integer" and want == "number"):
            yield f"{_path_prefix(at)}expected {format_type(c)}, got {format_type(p)}"
            return
        if "enum" in c or "const" in c:
            yield f"{_path_prefix(at)}expected {format_type(c)}, got {format_type(p)}"
            return
        yield from (f"{_path_prefix(at)}{reason}" for reason in _bound_errors(p, c))
        for keyword in ("pattern", "format", "uniqueItems"):
            if c.get(keyword) and p.get(keyword) != c[keyword]:
                named = (
                    f"expected {format_type(c)}, got {format_type(p)}"
                    if c[keyword] == _QUOTE
                    else f"{keyword} {c[keyword]!r} is not promised"
                )
                yield f"{_path_prefix(at)}{named}"
        if have == "array":
            yield from self._compare_items(p, c, at)
        if have == "object":
            yield from self._compare_fields(p, c, at)

    def _compare_items(self, p: Schema, c: Schema, at: str) -> Iterator[str]:
        mine, theirs = p.get("prefixItems", []), c.get("prefixItems", [])
        most = p.get("maxItems", math.inf)
        for index in range(max(len(mine), len(theirs)) + 1):
            if index >= most:
                break
            source = subschema(p, mine[index] if index < len(mine) else p.get("items", True))
            target = subschema(c, theirs[index] if index < len(theirs) else c.get("items", True))
            if reason := self._compare(source, target, f"{at}[{index if mine or theirs else ''}]"):
                yield reason

    def _compare_fields(self, p: Schema, c: Schema, at: str) -> Iterator[str]:
        mine: Mapping[str, Any] = p.get("properties", {})
        theirs: Mapping[str, Any] = c.get("properties", {})
        more, others = p.get("additionalProperties", "properties" not in p), c.get("additionalProperties", True)
        for name in c.get("required", ()):
            if name not in p.get("required", ()):
                state = "may be absent" if name in mine or more is not False else "absent"
                yield f"{at}.{name}: required by {format_type(c)}, {state} in {format_type(p)}"
        extra = [(name, more) for name in theirs if name not in mine and more is not False]
        for name, source in [*mine.items(), *extra]:
            target = theirs.get(name, others)
            if target is False and source is not False:
                yield f"{at}.{name}: {format_type(c)} has no such field, {format_type(p)} has"
            elif target is not True and (
                reason := self._compare(subschema(p, source), subschema(c, target), f"{at}.{name}")
            ):
                yield reason
        if more is not False and others is False:
            yield f"{_path_prefix(at)}{format_type(p)} may have further fields, {format_type(c)} forbids them"
        elif (
            more is not False
            and others is not True
            and (reason := self._compare(subschema(p, more), subschema(c, others), f"{at}[*]"))
        ):
            yield reason


_PYTHON_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
}


def _is_plain(schema: Schema) -> bool:
    """Whether the schema asks for a simple type and nothing else, so that no validator is needed."""
    return schema.get("type") in _PYTHON_TYPES and not schema.keys() - ANNOTATION_KEYWORDS - {"type"}


def _has_type(value: Any, kind: str) -> bool:
    return isinstance(value, _PYTHON_TYPES[kind]) and isinstance(value, bool) == (kind == "boolean")


def _path_prefix(at: str) -> str:
    return f"{at}: " if at else ""


def _without_definitions(schema: Schema) -> bytes:
    return canonical({key: value for key, value in schema.items() if key != "$defs"})


def _bound_errors(p: Schema, c: Schema) -> Iterator[str]:
    """What the consumer asks of sizes, and the producer does not promise."""
    low, high = _limits(p)
    for keyword, mine, sign in (("minimum", low, 1), ("maximum", high, -1)):
        strict = "exclusive" + keyword.capitalize()
        if keyword in c and not (mine and sign * mine[0] >= sign * c[keyword]):
            yield f"{keyword} {c[keyword]} is not promised"
        if strict in c and not (mine and (sign * mine[0] > sign * c[strict] or (mine[0] == c[strict] and mine[1]))):
            yield f"{strict} {c[strict]} is not promised"
    if "multipleOf" in c and not ("multipleOf" in p and math.fmod(p["multipleOf"], c["multipleOf"]) == 0):
        yield f"multipleOf {c['multipleOf']} is not promised"
    for keyword in ("minLength", "minItems"):
        if p.get(keyword, 0) < c.get(keyword, 0):
            yield f"{keyword} {c[keyword]} is not promised"
    for keyword in ("maxLength", "maxItems"):
        if keyword in c and not p.get(keyword, math.inf) <= c[keyword]:
            yield f"{keyword} {c[keyword]} is not promised"


def _limits(schema: Schema) -> tuple[tuple[float, bool] | None, tuple[float, bool] | None]:
    """The tighter lower and upper bound, each with whether it is strict."""
    lows = [(schema[key], key != "minimum") for key in ("minimum", "exclusiveMinimum") if key in schema]
    highs = [(schema[key], key != "maximum") for key in ("maximum", "exclusiveMaximum") if key in schema]
    return max(lows, default=None), min(highs, key=lambda bound: (bound[0], not bound[1]), default=None)


def _contains_quote(c: Schema, value: Any) -> bool:
    """Whether a part of the value stands where a quote is expected, and nothing else would do."""
    options = union_members(c)
    match value:
        case str():
            texts = [option for option in options if option.get("type", "string") == "string"]
            return bool(texts) and all(option.get("format") == _QUOTE for option in texts)
        case dict():
            records = [option for option in options if option.get("type", "object") == "object"]
            return bool(records) and all(
                any(
                    _contains_quote(subschema(option, part), value[name])
                    for name, part in option.get("properties", {}).items()
                    if name in value
                )
                for option in records
            )
        case list():
            lists = [option for option in options if option.get("type", "array") == "array" and "items" in option]
            return bool(lists) and all(
                any(_contains_quote(subschema(option, option["items"]), entry) for entry in value) for option in lists
            )
        case _:
            return False

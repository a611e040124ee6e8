"""Seeded random values of a JSON Schema."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from orchestra.agents.contract import Schema

_WORDS = ("amber", "basalt", "cedar", "delta", "ember", "fjord", "garnet", "harbour", "iris", "juniper")
_FORMATS: Mapping[str, Sequence[str]] = {
    "date": ("2026-01-31", "1999-12-01"),
    "date-time": ("2026-01-31T12:00:00Z", "1999-12-01T00:00:00Z"),
    "time": ("12:00:00Z", "23:59:59Z"),
    "email": ("someone@example.org", "other@example.org"),
    "uri": ("https://example.org/a", "https://example.org/b"),
    "uuid": ("00000000-0000-4000-8000-000000000000", "00000000-0000-4000-8000-000000000001"),
}
_PATTERN_GUESSES = (
    "a",
    "A",
    "0",
    "a0",
    "A0",
    "00",
    "000",
    "0000",
    "aa",
    "aaa",
    "a_a",
    "a-a",
    "2026-01-31",
    "12:00",
    "0.5",
    "A-0",
    "",
)
_MAX_DEPTH = 6
_MAX_STEPS = 1_000_000


class InstanceError(ValueError):
    """The schema is not supported. Give the simulation a function instead."""


def make_instance(schema: Schema | bool, random: Random, sources: Sequence[str] = ()) -> Any:
    """Returns a random value of the schema. Strings of format `quote` are substrings of one of `sources`, cut at words.

    Supports `$ref` within the schema, `const`, `enum`, `anyOf`, `oneOf`, `allOf`, the types with their bounds, and
    simple patterns.

    Raises:
        InstanceError: The schema is not supported.
    """
    return _InstanceMaker(schema if isinstance(schema, dict) else {}, random, sources).make(schema, 0)


class _InstanceMaker:
    def __init__(self, root: Schema, random: Random, sources: Sequence[str]) -> None:
        self.root, self.random, self.sources = root, random, [source for source in sources if source.strip()]

    def make(self, schema: Schema | bool, depth: int) -> Any:
        """Returns a random value of a type. Raises `InstanceError` if there is none."""
        if schema is False or depth > 64:
            raise InstanceError(
                "no value satisfies the schema" if schema is False else "the schema has no finite value"
            )
        if schema is True:
            return self.random.choice(_WORDS)
        if "$ref" in schema:
            return self.make(self._resolve(schema), depth + 1)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return self.random.choice(schema["enum"])
        if "allOf" in schema:
            return self.make(self._merge(schema), depth)
        for union in ("anyOf", "oneOf"):
            if union in schema:
                rest = {key: value for key, value in schema.items() if key != union and key in _CONSTRAINTS}
                arms = self._terminating_arms(schema[union], depth)
                return self.make({**rest, **self.random.choice(arms)} if rest else self.random.choice(arms), depth + 1)
        return self._typed(schema, depth)

    def _typed(self, schema: Schema, depth: int) -> Any:
        kind = schema.get("type") or _implied_type(schema)
        if isinstance(kind, list):
            kind = self.random.choice([k for k in kind if depth < _MAX_DEPTH or k not in ("object", "array")] or kind)
        match kind:
            case "null":
                return None
            case "boolean":
                return self.random.random() < 0.5
            case "integer" | "number":
                return self._number(schema, is_integer=kind == "integer")
            case "string":
                return self._text(schema)
            case "array":
                return self._array(schema, depth)
            case "object":
                return self._object(schema, depth)
            case _:
                raise InstanceError(f"unknown type {kind!r}")

    def _number(self, schema: Schema, *, is_integer: bool) -> int | float:
        step = schema.get("multipleOf", 1 if is_integer else None)
        low = schema.get("minimum", schema.get("exclusiveMinimum"))
        high = schema.get("maximum", schema.get("exclusiveMaximum"))
        low = (high - 100 if high is not None else 0) if low is None else low
        high = low + 100 if high is None else high
        if step is None:
            number = float(self.random.uniform(low, high))
            return (
                (low + high) / 2
                if number in (schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum"))
                else number
            )
        first = -int(-max(low, -_MAX_STEPS * step) // step)
        last = int(min(high, _MAX_STEPS * step) // step)
        first += first * step == schema.get("exclusiveMinimum")
        last -= last * step == schema.get("exclusiveMaximum")
        if first > last:
            raise InstanceError(f"no multiple of {step} between {low} and {high}")
        return self.random.randint(first, last) * (int(step) if is_integer else step)

    def _text(self, schema: Schema) -> str:
        low, high = schema.get("minLength", 0), schema.get("maxLength", 1 << 20)
        if schema.get("format") == "quote" and self.sources:
            return sample_quote(self.random.choice(self.sources), self.random, high)
        if pattern := schema.get("pattern"):
            return _matching_text(pattern, low, high)
        if (samples := _FORMATS.get(schema.get("format", ""))) is not None:
            return self.random.choice(samples)
        text = " ".join(self.random.choice(_WORDS) for _ in range(self.random.randint(1, 3)))
        while len(text) < low:
            text += " " + self.random.choice(_WORDS)
        return text[:high] if len(text[:high]) >= low else text.ljust(low)

    def _array(self, schema: Schema, depth: int) -> list[Any]:
        prefix = schema.get("prefixItems", [])
        items = schema.get("items", not prefix)
        low = schema.get("minItems", 0)
        high = (
            max(low, min(schema.get("maxItems", low + 3), low + 3))
            if items is not False and depth < _MAX_DEPTH
            else low
        )
        elements = [
            self.make(prefix[index], depth + 1) if index < len(prefix) else None for index in range(len(prefix))
        ]
        length = self.random.randint(low, high)
        for _ in range(8 * length):
            if len(elements) >= length:
                break
            item = self.make(items, depth + 1)
            if not schema.get("uniqueItems") or item not in elements:
                elements.append(item)
        if len(elements) < low:
            raise InstanceError(f"not enough different items for minItems {low}")
        return elements

    def _object(self, schema: Schema, depth: int) -> dict[str, Any]:
        required = schema.get("required", [])
        properties = schema.get("properties", {})
        record = {
            name: self.make(part, depth + 1)
            for name, part in properties.items()
            if name in required or (depth < _MAX_DEPTH and self.random.random() < 0.5)
        }
        extra = schema.get("additionalProperties")
        if isinstance(extra, dict) and depth < _MAX_DEPTH:
            record |= {
                name: self.make(extra, depth + 1) for name in self.random.sample(_WORDS, self.random.randint(0, 2))
            }
        return record | {
            name: self.make(True if extra is None else extra, depth + 1) for name in required if name not in record
        }

    def _resolve(self, schema: Schema) -> Schema:
        reference = schema["$ref"]
        if not reference.startswith("#"):
            raise InstanceError(f"{reference} is outside the schema")
        target: Any = self.root
        for part in reference.lstrip("#").strip("/").split("/"):
            if part:
                target = target[part.replace("~1", "/").replace("~0", "~")]
        return {**target, **{key: value for key, value in schema.items() if key != "$ref" and key in _CONSTRAINTS}}

    def _merge(self, schema: Schema) -> Schema:
        values: Schema = {key: value for key, value in schema.items() if key != "allOf"}
        for part in schema["allOf"]:
            part = self._resolve(part) if "$ref" in part else part
            part = self._merge(part) if "allOf" in part else part
            properties = {**values.get("properties", {}), **part.get("properties", {})}
            required = [*values.get("required", []), *part.get("required", [])]
            values = {**values, **part}
            values |= {"properties": properties} if properties else {}
            values |= {"required": required} if required else {}
        return values

    def _terminating_arms(self, arms: Sequence[Schema], depth: int) -> Sequence[Schema]:
        """Returns the arms that end soon, if the depth is high: a value of a recursive type must be finite."""
        if depth < _MAX_DEPTH:
            return arms
        return [arm for arm in arms if "$ref" not in arm and arm.get("type") not in ("object", "array")] or arms


_CONSTRAINTS = frozenset(
    {
        "type",
        "properties",
        "required",
        "items",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
    }
    | {"minLength", "maxLength", "pattern", "format", "minItems", "maxItems", "uniqueItems", "additionalProperties"}
)


def _implied_type(schema: Schema) -> str:
    for kind, keys in (
        ("object", ("properties", "required", "additionalProperties")),
        ("array", ("items", "prefixItems", "minItems")),
    ):
        if any(key in schema for key in keys):
            return kind
    return "number" if "minimum" in schema or "maximum" in schema else "string"


def _matching_text(pattern: str, low: int, high: int) -> str:
    matches = re.compile(pattern).search
    for guess in _PATTERN_GUESSES:
        for text in (guess, guess * max(1, low)):
            if low <= len(text) <= high and matches(text):
                return text
    raise InstanceError(f"cannot generate a text for the pattern {pattern!r}")


def sample_quote(source: str, random: Random, at_most: int = 1 << 20) -> str:
    """Returns a few consecutive words of the source."""
    words = list(re.finditer(r"\S+", source))
    first = random.randrange(len(words))
    last = min(len(words), first + random.randint(1, 8))
    return source[words[first].start() : words[last - 1].end()][:at_most]

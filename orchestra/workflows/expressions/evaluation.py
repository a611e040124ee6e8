"""What templates become: expressions that are evaluated over the values of a run.

Paths are followed in Python, for they are most of what workflows say; other references run in CEL; texts are put together.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from orchestra.core.errors import OrchestraError
from orchestra.schema.json_schema import Schema, bundled, record
from orchestra.workflows.expressions import cel
from orchestra.workflows.expressions.cel_values import Converter
from orchestra.workflows.program import Expression

MAX_STRING = 256 << 10
"""Characters of a string that goes into CEL or comes out of a template, at most."""
MAX_ELEMENTS = 10_000
"""Elements that one `map` or `filter` runs over, at most; the same as CEL's own budget of iterations."""


class Single:
    """A template that is no mapping."""

    __slots__ = ()

    @property
    def parts(self) -> None:
        """Only a mapping has parts."""
        return None


class Constant(Single, msgspec.Struct, frozen=True, gc=False):
    """A template without references."""

    value: Any
    schema: Schema
    references: frozenset[str] = frozenset()

    def evaluate(self, bindings: Mapping[str, Any]) -> Any:
        return self.value


class Path(Single, msgspec.Struct, frozen=True, gc=False):
    """A reference that only follows fields and indices: `input.question`, `passages[0].text`."""

    root: str
    steps: tuple[str | int, ...]
    schema: Schema
    source: str
    references: frozenset[str]
    careful: bool = False
    """Whether a value on the way may be of any type, so that each step is looked at."""
    gathers: bool = False
    """Whether it reads the `values` of a node under `each`: a node that gave nothing has none."""
    defaults: Mapping[int, Any] | None = None
    """By the number of the step: what a field that may be absent is then."""

    def evaluate(self, bindings: Mapping[str, Any]) -> Any:
        if self.careful:
            return self._slowly(bindings)
        try:
            value = bindings[self.root]
            for step in self.steps:
                value = value[step]
        except (KeyError, IndexError, TypeError):
            return self._slowly(bindings)
        return value

    def _slowly(self, bindings: Mapping[str, Any]) -> Any:
        if self.gathers and self.root not in bindings:
            return []
        if self.root not in bindings:
            raise OrchestraError("L061", f"${{{self.source}}}: {self.root} has no value", hint="use first_of, or a fallback")
        value = bindings[self.root]
        for number, step in enumerate(self.steps):
            if isinstance(step, str) and isinstance(value, Mapping):
                if step not in value and (self.defaults is None or number not in self.defaults):
                    raise self._failed(number, f"there is no field {step!r}")
                value = value[step] if step in value or self.defaults is None else self.defaults[number]
            elif isinstance(step, int) and isinstance(value, list | tuple):
                if step >= len(value):
                    raise self._failed(number, f"there is no element {step} in a list of {len(value)}")
                value = value[step]
            else:
                what = "null" if value is None else f"a value of type {type(value).__name__}"
                raise self._failed(number, f"{what} has no {step!r}")
        return value

    def _failed(self, number: int, reason: str) -> OrchestraError:
        hint = f"look at what {self.root} gave: orchestra runs show RUN {self.root}"
        if self.root == "input":
            way = "".join(f".{step}" if isinstance(step, str) else f"[{step}]" for step in self.steps[: number + 1])
            hint = f"state it in the input{f', or ask first: has(input{way})' if isinstance(self.steps[number], str) else ''}"
        return OrchestraError("L061", f"${{{self.source}}}: {reason}", hint=hint)


@dataclass(frozen=True, slots=True)
class Feed:
    """What one variable of CEL is given."""

    name: str
    source: Expression
    convert: Converter | None

    def of(self, bindings: Mapping[str, Any]) -> Any:
        """Its value."""
        value = self.source.evaluate(bindings)
        if self.convert is not None:
            value = self.convert(value)
        if isinstance(value, str) and len(value) > MAX_STRING:
            raise too_long(len(value))
        return value


@dataclass(frozen=True, slots=True)
class Formula(Single):
    """A reference that CEL evaluates."""

    source: str
    program: cel.Program
    feeds: tuple[Feed, ...]
    schema: Schema
    references: frozenset[str]
    plainly: Formula | None = None
    """The same without slots that may fail although their value is not needed."""

    def evaluate(self, bindings: Mapping[str, Any]) -> Any:
        try:
            data = {feed.name: feed.of(bindings) for feed in self.feeds}
        except OrchestraError:
            if self.plainly is None:
                raise
            return self.plainly.evaluate(bindings)
        value = self.program.run(data, self.source)
        if isinstance(value, str) and len(value) > MAX_STRING:
            raise too_long(len(value))
        return value


class _Element(dict[str, Any]):
    """The bindings around a macro, with its variable."""

    __slots__ = ("outer",)

    def __init__(self, outer: Mapping[str, Any]) -> None:
        super().__init__()
        self.outer = outer

    def __missing__(self, name: str) -> Any:
        return self.outer[name]

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or name in self.outer


@dataclass(frozen=True, slots=True)
class Comprehension(Single):
    """`map` or `filter` over a list, element by element."""

    source: str
    over: Expression
    variable: str
    test: Expression | None
    body: Expression | None
    schema: Schema
    references: frozenset[str]

    def evaluate(self, bindings: Mapping[str, Any]) -> Any:
        items = self.over.evaluate(bindings)
        if len(items) > MAX_ELEMENTS:
            raise OrchestraError(
                "L061", f"${{{self.source}}}: {len(items):,} elements; at most {MAX_ELEMENTS:,}", hint="use a tool for long lists"
            )
        inner = _Element(bindings)
        found = []
        for item in items:
            inner[self.variable] = item
            if self.test is None or self.test.evaluate(inner):
                found.append(item if self.body is None else self.body.evaluate(inner))
        return found


class Whole(Single, msgspec.Struct, frozen=True, gc=False):
    """A reference to an integer, which stands in a text without the fraction that JSON may give it: 3, not 3.0."""

    of: Expression

    @property
    def schema(self) -> Schema:
        return self.of.schema

    @property
    def references(self) -> frozenset[str]:
        return self.of.references

    def evaluate(self, bindings: Mapping[str, Any]) -> Any:
        value = self.of.evaluate(bindings)
        return int(value) if isinstance(value, float) and value.is_integer() else value


class Text(Single, msgspec.Struct, frozen=True, gc=False):
    """A text with references in it."""

    pieces: tuple[str | Expression, ...]
    references: frozenset[str]
    schema: Schema

    def evaluate(self, bindings: Mapping[str, Any]) -> str:
        text = "".join(part if isinstance(part, str) else written(part.evaluate(bindings)) for part in self.pieces)
        if len(text) > MAX_STRING:
            raise too_long(len(text))
        return text


class Record(msgspec.Struct, frozen=True, gc=False):
    """A mapping of templates."""

    parts: Mapping[str, Expression]
    references: frozenset[str]

    @property
    def schema(self) -> Schema:
        """Put together when it is asked for: what a call is given is looked at part by part."""
        return bundled(record({key: part.schema for key, part in self.parts.items()}))

    def evaluate(self, bindings: Mapping[str, Any]) -> dict[str, Any]:
        return {key: part.evaluate(bindings) for key, part in self.parts.items()}


class Listing(Single, msgspec.Struct, frozen=True, gc=False):
    """A list of templates."""

    items: tuple[Expression, ...]
    references: frozenset[str]
    schema: Schema

    @staticmethod
    def of(schemas: Sequence[Schema]) -> Schema:
        """The type of a list of values of these types, in this order."""
        return bundled({"type": "array", "prefixItems": list(schemas), "minItems": len(schemas), "maxItems": len(schemas)})

    def evaluate(self, bindings: Mapping[str, Any]) -> list[Any]:
        return [item.evaluate(bindings) for item in self.items]


def too_long(length: int) -> OrchestraError:
    """The error of a string over the limit."""
    return OrchestraError("L062", f"a text of {length:,} characters; at most {MAX_STRING:,}", hint="let a tool put long texts together")


def written(value: Any) -> str:
    """A scalar as it stands in a text: as JSON writes it, strings without quotes. Raises `OrchestraError` L061 for null and for what
    is no scalar."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    raise OrchestraError("L061", f"{'null' if value is None else 'a list or mapping'} cannot stand in a text", hint="read a field of it")

"""Compiled templates: expressions that are evaluated over the values of a run.

Paths, the most common references, are followed in Python. Other references run in CEL. Texts are joined from their
parts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from orchestra.core.errors import OrchestraError
from orchestra.schema.json_schema import Schema, bundle_definitions, object_type
from orchestra.workflows.expressions import cel
from orchestra.workflows.expressions.cel_values import Converter
from orchestra.workflows.program import Expression

MAX_STRING_LENGTH = 256 << 10
"""The maximum number of characters of a string that goes into CEL or is the result of a template."""
MAX_ELEMENTS = 10_000
"""The maximum number of elements of one `map` or `filter`; the same as CEL's limit of iterations."""


class NonMappingExpression:
    """A template that is not a mapping."""

    __slots__ = ()

    @property
    def parts(self) -> None:
        """None, since only a mapping has parts."""
        return None


class ConstantFormula(NonMappingExpression, msgspec.Struct, frozen=True, gc=False):
    """A template without references."""

    value: Any
    schema: Schema
    references: frozenset[str] = frozenset()

    def evaluate(self, bindings: Mapping[str, Any]) -> Any:
        """Returns the constant."""
        return self.value


class PathExpression(NonMappingExpression, msgspec.Struct, frozen=True, gc=False):
    """A reference that only follows fields and indices: `input.question`, `passages[0].text`."""

    root: str
    steps: tuple[str | int, ...]
    schema: Schema
    source: str
    references: frozenset[str]
    checks_each_step: bool = False
    """Whether a value on the path may have any type, so that each step is checked."""
    collects_values: bool = False
    """Whether it reads the `values` of a node under `each`, which are empty if the node has no value."""
    defaults: Mapping[int, Any] | None = None
    """By the index of a step: the default of a field that may be absent."""

    def evaluate(self, bindings: Mapping[str, Any]) -> Any:
        """Returns the value at the path."""
        if self.checks_each_step:
            return self._evaluate_checked(bindings)
        try:
            value = bindings[self.root]
            for step in self.steps:
                value = value[step]
        except (KeyError, IndexError, TypeError):
            return self._evaluate_checked(bindings)
        return value

    def _evaluate_checked(self, bindings: Mapping[str, Any]) -> Any:
        if self.collects_values and self.root not in bindings:
            return []
        if self.root not in bindings:
            raise OrchestraError(
                "L061", f"${{{self.source}}}: {self.root} has no value", hint="use first_of, or a fallback"
            )
        value = bindings[self.root]
        for number, step in enumerate(self.steps):
            if isinstance(step, str) and isinstance(value, Mapping):
                if step not in value and (self.defaults is None or number not in self.defaults):
                    raise self._step_error(number, f"there is no field {step!r}")
                value = value[step] if step in value or self.defaults is None else self.defaults[number]
            elif isinstance(step, int) and isinstance(value, list | tuple):
                if step >= len(value):
                    raise self._step_error(number, f"there is no element {step} in a list of {len(value)}")
                value = value[step]
            else:
                description = "null" if value is None else f"a value of type {type(value).__name__}"
                raise self._step_error(number, f"{description} has no {step!r}")
        return value

    def _step_error(self, number: int, reason: str) -> OrchestraError:
        hint = f"look at what {self.root} gave: orchestra runs show RUN {self.root}"
        if self.root == "input":
            way = "".join(f".{step}" if isinstance(step, str) else f"[{step}]" for step in self.steps[: number + 1])
            test_hint = f", or test it first: has(input{way})" if isinstance(self.steps[number], str) else ""
            hint = f"give it in the input{test_hint}"
        return OrchestraError("L061", f"${{{self.source}}}: {reason}", hint=hint)


@dataclass(frozen=True, slots=True)
class VariableBinding:
    """The value of one CEL variable."""

    name: str
    source: Expression
    convert: Converter | None

    def evaluate(self, bindings: Mapping[str, Any]) -> Any:
        """Returns the value."""
        value = self.source.evaluate(bindings)
        if self.convert is not None:
            value = self.convert(value)
        if isinstance(value, str) and len(value) > MAX_STRING_LENGTH:
            raise length_error(len(value))
        return value


@dataclass(frozen=True, slots=True)
class CelExpression(NonMappingExpression):
    """A reference that CEL evaluates."""

    source: str
    program: cel.CelProgram
    variables: tuple[VariableBinding, ...]
    schema: Schema
    references: frozenset[str]
    unhoisted: CelExpression | None = None
    """The same without variables that may fail although their value is not needed."""

    def evaluate(self, bindings: Mapping[str, Any]) -> Any:
        """Returns the result of the CEL program."""
        try:
            data = {feed.name: feed.evaluate(bindings) for feed in self.variables}
        except OrchestraError:
            if self.unhoisted is None:
                raise
            return self.unhoisted.evaluate(bindings)
        value = self.program.run(data, self.source)
        if isinstance(value, str) and len(value) > MAX_STRING_LENGTH:
            raise length_error(len(value))
        return value


class _ElementBindings(dict[str, Any]):
    """The bindings around a macro, plus its variable."""

    __slots__ = ("outer",)

    def __init__(self, outer: Mapping[str, Any]) -> None:
        super().__init__()
        self.outer = outer

    def __missing__(self, name: str) -> Any:
        return self.outer[name]

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or name in self.outer


@dataclass(frozen=True, slots=True)
class Comprehension(NonMappingExpression):
    """`map` or `filter` over a list, element by element."""

    source: str
    items: Expression
    variable: str
    condition: Expression | None
    body: Expression | None
    schema: Schema
    references: frozenset[str]

    def evaluate(self, bindings: Mapping[str, Any]) -> Any:
        """Returns the list of the elements that fulfil the condition, each mapped by the body."""
        items = self.items.evaluate(bindings)
        if len(items) > MAX_ELEMENTS:
            raise OrchestraError(
                "L061",
                f"${{{self.source}}}: {len(items):,} elements; at most {MAX_ELEMENTS:,}",
                hint="use a tool for long lists",
            )
        inner = _ElementBindings(bindings)
        values = []
        for item in items:
            inner[self.variable] = item
            if self.condition is None or self.condition.evaluate(inner):
                values.append(item if self.body is None else self.body.evaluate(inner))
        return values


class IntegerExpression(NonMappingExpression, msgspec.Struct, frozen=True, gc=False):
    """A reference to an integer, which is written in a text without a fraction: 3, not 3.0."""

    inner: Expression

    @property
    def schema(self) -> Schema:
        """The type of the referenced value."""
        return self.inner.schema

    @property
    def references(self) -> frozenset[str]:
        """The names that the reference reads."""
        return self.inner.references

    def evaluate(self, bindings: Mapping[str, Any]) -> Any:
        """Returns the value, as an integer if it is a whole number."""
        value = self.inner.evaluate(bindings)
        return int(value) if isinstance(value, float) and value.is_integer() else value


class TextExpression(NonMappingExpression, msgspec.Struct, frozen=True, gc=False):
    """A text with references."""

    pieces: tuple[str | Expression, ...]
    references: frozenset[str]
    schema: Schema

    def evaluate(self, bindings: Mapping[str, Any]) -> str:
        """Returns the text. Raises `OrchestraError` if it is too long, or a reference is not a scalar."""
        text = "".join(
            part if isinstance(part, str) else render_scalar(part.evaluate(bindings)) for part in self.pieces
        )
        if len(text) > MAX_STRING_LENGTH:
            raise length_error(len(text))
        return text


class MappingExpression(msgspec.Struct, frozen=True, gc=False):
    """A mapping of templates."""

    parts: Mapping[str, Expression]
    references: frozenset[str]

    @property
    def schema(self) -> Schema:
        """Built when needed, since the inputs of a call are checked part by part."""
        return bundle_definitions(object_type({key: part.schema for key, part in self.parts.items()}))

    def evaluate(self, bindings: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the values of the parts by key."""
        return {key: part.evaluate(bindings) for key, part in self.parts.items()}


class ListExpression(NonMappingExpression, msgspec.Struct, frozen=True, gc=False):
    """A list of templates."""

    items: tuple[Expression, ...]
    references: frozenset[str]
    schema: Schema

    @staticmethod
    def tuple_schema(schemas: Sequence[Schema]) -> Schema:
        """Returns the type of a list of values of these types, in this order."""
        return bundle_definitions(
            {"type": "array", "prefixItems": list(schemas), "minItems": len(schemas), "maxItems": len(schemas)}
        )

    def evaluate(self, bindings: Mapping[str, Any]) -> list[Any]:
        """Returns the values of the items."""
        return [item.evaluate(bindings) for item in self.items]


def length_error(length: int) -> OrchestraError:
    """Returns the error of a string over the limit."""
    return OrchestraError(
        "L062",
        f"a text of {length:,} characters; at most {MAX_STRING_LENGTH:,}",
        hint="let a tool put long texts together",
    )


def render_scalar(value: Any) -> str:
    """Returns a scalar as text: as JSON writes it, strings without quotes. Raises `OrchestraError` L061 for null and
    for other values.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    raise OrchestraError(
        "L061",
        f"{'null' if value is None else 'a list or mapping'} cannot be part of a text",
        hint="read a field of it",
    )

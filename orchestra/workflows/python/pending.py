"""Pending expressions: what one that waits for its value knows of itself, and how a larger one is made of several."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from pydantic_core import PydanticSerializationError, to_jsonable_python

from orchestra.schema.assignability import assignability_error
from orchestra.schema.types import Schema, bundle_definitions, union
from orchestra.workflows.expressions.parser import CelSyntaxError, escape_references, parse, to_cel_literal
from orchestra.workflows.expressions.type_checker import ExpressionError, TypeChecker
from orchestra.workflows.python.printer import cel_to_python
from orchestra.workflows.python.scopes import NodeGuard, TracedNode, TraceScope, Variable, require_scope, trace_error

ATOM_PRECEDENCE = 9
"""The precedence of an expression that needs no brackets."""
PRECEDENCE = {
    "?": 1,
    "||": 2,
    "&&": 3,
    "==": 4,
    "!=": 4,
    "<": 4,
    "<=": 4,
    ">": 4,
    ">=": 4,
    "in": 4,
    "+": 5,
    "-": 5,
    "*": 6,
    "/": 6,
    "!": 7,
}
PLACEHOLDER_MARK = ", known when the workflow runs>"
"""The end of a placeholder's `repr`; a text that has it holds a name instead of a value."""
UNKNOWN_TYPE: Schema = {"x-unknown": True}
"""The type of a value whose type is being found out."""


@dataclass(frozen=True, eq=False, slots=True)
class PendingExpression:
    """What a placeholder knows."""

    cel: str
    precedence: int
    schema: Schema
    scope: TraceScope
    reads: frozenset[Variable] = frozenset()
    """Everything that the expression names."""
    needs: frozenset[TracedNode] = frozenset()
    """Of those, the nodes whose guards must hold where it is used."""
    node: TracedNode | None = None
    """The node whose whole value it is."""
    parts: tuple[str | PendingExpression, ...] = ()
    """Of a text that was put together: its parts, literal ones as `str`."""
    template: Any = None
    """Of a record or list that was put together: its template."""

    def bracketed(self, precedence: int) -> str:
        """The CEL, in brackets where its precedence is lower."""
        return self.cel if self.precedence >= precedence else f"({self.cel})"

    @property
    def is_unknown(self) -> bool:
        """Whether its type is being found out."""
        return "x-unknown" in self.schema


def display_text(expression: PendingExpression) -> str:
    """The expression in the user's own words: as Python, inputs by their bare names."""
    lists = {
        read.name: read.name for read in expression.reads if isinstance(read, TracedNode) and "each" in read.fields
    }
    return cel_to_python(expression.cel, lists)


def to_cel(value: Any) -> str:
    """A JSON value as CEL. Raises `InputError` W007 for an integer that does not fit."""
    match value:
        case dict():
            return "{" + ", ".join(f"{to_cel_literal(str(key))}: {to_cel(inner)}" for key, inner in value.items()) + "}"
        case list():
            return "[" + ", ".join(to_cel(inner) for inner in value) + "]"
        case bool() | None | float() | str():
            return to_cel_literal(value)
        case int() if -(2**63) <= value < 2**63:
            return to_cel_literal(value)
        case _:
            raise trace_error("W007", f"{value} does not fit 64 bits", hint="pass it as a text")


def plain_json(value: Any) -> Any:
    """A Python value without placeholders as JSON.

    Raises `InputError` W005 for a text made of a placeholder, W007 for what has no JSON form.
    """
    try:
        plain = to_jsonable_python(value, by_alias=True, inf_nan_mode="constants")
    except (PydanticSerializationError, ValueError) as error:
        name = getattr(type(value), "__name__", "object")
        if callable(value):
            called = getattr(value, "name", None) or getattr(value, "__name__", name)
            raise trace_error(
                "W007", f"{called} is a function, and not a value", hint=f"call it: {called}(...)"
            ) from error
        raise trace_error(
            "W007", f"a {name} has no JSON form", hint="pass str, int, float, bool, lists, dicts or pydantic models"
        ) from error
    _check_json(plain)
    return plain


def _check_json(value: Any) -> None:
    """Refuses texts that hold a placeholder's name, and what JSON cannot say."""
    match value:
        case str() if PLACEHOLDER_MARK in value:
            shown = value if len(value) <= 100 else value[:99] + "…"
            raise trace_error(
                "W005",
                f"this text holds the name of a value, not the value: {shown!r}",
                hint="'text ' + value, without repr()",
            )
        case str() if any("\ud800" <= char <= "\udfff" for char in value):
            raise trace_error("W007", "half of a surrogate pair is no character", hint="read the text as UTF-8")
        case float() if value != value or value in (float("inf"), float("-inf")):
            raise trace_error("W007", f"{value} has no JSON form", hint="pass None where there is no number")
        case dict():
            for key, inner in value.items():
                _check_json(key)
                _check_json(inner)
        case list():
            for inner in value:
                _check_json(inner)
        case _:
            pass


def combine(
    cel: str, precedence: int, schema: Schema, parts: list[PendingExpression], template: Any = None
) -> PendingExpression:
    """An expression that is made of others: it reads and needs what they do, and belongs to the innermost of their scopes."""
    scope = max(
        (part.scope for part in parts), key=lambda one: len([*one.chain()]), default=require_scope("an expression")
    )
    reads = frozenset[Variable]().union(*(part.reads for part in parts))
    needs = frozenset[TracedNode]().union(*(part.needs for part in parts))
    return PendingExpression(cel, precedence, schema, scope, reads, needs, template=template)


def build_expression(
    pattern: str, precedence: int, *operands: PendingExpression, bracket: int = ATOM_PRECEDENCE
) -> PendingExpression:
    """An expression of operands, put in for `{0}`, `{1}`, ..., with the type that the language's own checker finds.

    Raises `InputError` W008 for one that has none.
    """
    cel = pattern.format(*(one.bracketed(bracket) for one in operands))
    return combine(cel, precedence, infer_type(cel, operands), [*operands])


def infer_type(cel: str, operands: tuple[PendingExpression, ...]) -> Schema:
    """The type of an expression, as the compiler will see it. Raises `InputError` W008 where it has none."""
    if any(one.is_unknown for one in operands):
        return UNKNOWN_TYPE
    types = {
        read.name: read.type if isinstance(read, TracedNode) else read.schema for one in operands for read in one.reads
    }
    try:
        return TypeChecker(cel, types).check(parse(cel))
    except ExpressionError as error:
        raise trace_error("W008", error.message, why=error.why) from error
    except CelSyntaxError as error:
        raise trace_error(
            "W008", f"this expression has {error.reason}", hint="compute a part of it in a @tool(effect='pure')"
        ) from error


def to_float(expression: PendingExpression, have: frozenset[str]) -> PendingExpression:
    """A number as a float: CEL does not mix them with integers, and divides integers as integers."""
    if have == {"float"}:
        return expression
    if not expression.reads and "const" in expression.schema:
        value = float(expression.schema["const"])
        return replace(expression, cel=to_cel_literal(value), schema={"const": value, "type": "number"})
    return replace(
        expression, cel=f"double({expression.cel})", precedence=ATOM_PRECEDENCE, schema={"type": "number"}, node=None
    )


def to_template(expression: PendingExpression) -> Any:
    """An expression as a template: one reference, or a text with references in it, or a record of templates."""
    if expression.template is not None:
        return expression.template
    if any(isinstance(part, str) for part in expression.parts):
        return _text_template(expression.parts)
    return f"${{{expression.cel}}}"


def _text_template(parts: tuple[str | PendingExpression, ...]) -> str:
    """A text with references in it. Dollars right before one are a reference of their own, for `$${` would be a literal `${`."""
    found = literal = ""
    for part in parts:
        if isinstance(part, str):
            literal += part
            continue
        text = literal.rstrip("$")
        dollars = literal[len(text) :]
        found += escape_references(text) + (f"${{{to_cel_literal(dollars)}}}" if dollars else "") + f"${{{part.cel}}}"
        literal = ""
    end: str = escape_references(literal)
    return found + end


def to_guard(expression: PendingExpression) -> NodeGuard:
    """A condition as a guard."""
    return NodeGuard(expression.cel, expression.precedence, expression.reads)


def node_value(draft: TracedNode, scope: TraceScope) -> PendingExpression:
    """The value of a node; of a node under `each` the list of its elements' values."""
    needs = frozenset({draft})
    if "each" not in draft.fields:
        return PendingExpression(draft.name, ATOM_PRECEDENCE, draft.schema, scope, needs, needs, draft)
    listed = bundle_definitions({"type": "array", "items": draft.schema})
    return PendingExpression(f"{draft.name}.values", ATOM_PRECEDENCE, listed, scope, needs, needs, draft)


def union_type(schemas: list[Schema]) -> Schema:
    """The type of a value of any of these types."""
    return UNKNOWN_TYPE if any("x-unknown" in schema for schema in schemas) else union(schemas)


def type_mismatch(producer: Schema, consumer: Schema) -> str | None:
    """Why a value of one type is none of another; None where it is, or where its type is being found out."""
    if "x-unknown" in producer or (isinstance(inner := producer.get("items"), dict) and "x-unknown" in inner):
        return None
    return assignability_error(producer, consumer)

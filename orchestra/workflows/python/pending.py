"""Pending expressions: expressions over values that are not known yet, and their composition."""

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
"""The precedence of an expression without operators."""
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
"""The end of a placeholder's `repr`. A text that contains it was made from a placeholder instead of its value."""
UNKNOWN_TYPE: Schema = {"x-unknown": True}
"""The type of a value whose type is being inferred."""


@dataclass(frozen=True, eq=False, slots=True)
class PendingExpression:
    """The expression of a placeholder."""

    cel: str
    precedence: int
    schema: Schema
    scope: TraceScope
    reads: frozenset[Variable] = frozenset()
    """All names in the expression."""
    needs: frozenset[TracedNode] = frozenset()
    """The nodes among them whose guards must hold where the expression is used."""
    node: TracedNode | None = None
    """The node whose complete value it is."""
    parts: tuple[str | PendingExpression, ...] = ()
    """The parts of a composed text; literal parts are `str`."""
    template: Any = None
    """The template of a composed record or list."""

    def bracketed(self, precedence: int) -> str:
        """Returns the CEL, in brackets if its precedence is lower."""
        return self.cel if self.precedence >= precedence else f"({self.cel})"

    @property
    def is_unknown(self) -> bool:
        """Whether its type is being inferred."""
        return "x-unknown" in self.schema


def display_text(expression: PendingExpression) -> str:
    """Returns the expression as Python, with bare names for inputs."""
    lists = {
        variable.name: variable.name
        for variable in expression.reads
        if isinstance(variable, TracedNode) and "each" in variable.fields
    }
    return cel_to_python(expression.cel, lists)


def to_cel(value: Any) -> str:
    """Returns a JSON value as CEL. Raises `InputError` W007 for an integer outside of 64 bits."""
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
    """Returns a Python value without placeholders as JSON.

    Raises `InputError` W005 for a text made from a placeholder, W007 for a value without JSON form.
    """
    try:
        plain = to_jsonable_python(value, by_alias=True, inf_nan_mode="constants")
    except (PydanticSerializationError, ValueError) as error:
        name = getattr(type(value), "__name__", "object")
        if callable(value):
            callable_name = getattr(value, "name", None) or getattr(value, "__name__", name)
            raise trace_error(
                "W007", f"{callable_name} is a function, and not a value", hint=f"call it: {callable_name}(...)"
            ) from error
        raise trace_error(
            "W007", f"a {name} has no JSON form", hint="pass str, int, float, bool, lists, dicts or pydantic models"
        ) from error
    _check_json(plain)
    return plain


def _check_json(value: Any) -> None:
    """Refuses texts made from placeholders, and values that JSON does not have."""
    match value:
        case str() if PLACEHOLDER_MARK in value:
            excerpt = value if len(value) <= 100 else value[:99] + "…"
            raise trace_error(
                "W005",
                f"this text holds the name of a value, not the value: {excerpt!r}",
                hint="'text ' + value, without repr()",
            )
        case str() if any("\ud800" <= char <= "\udfff" for char in value):
            raise trace_error("W007", "half of a surrogate pair is not a character", hint="read the text as UTF-8")
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
    """Returns a composed expression. It has the reads and needs of its parts, and the innermost of their scopes."""
    scope = max(
        (part.scope for part in parts),
        key=lambda other_scope: len([*other_scope.chain()]),
        default=require_scope("an expression"),
    )
    reads = frozenset[Variable]().union(*(part.reads for part in parts))
    needs = frozenset[TracedNode]().union(*(part.needs for part in parts))
    return PendingExpression(cel, precedence, schema, scope, reads, needs, template=template)


def build_expression(
    pattern: str, precedence: int, *operands: PendingExpression, bracket: int = ATOM_PRECEDENCE
) -> PendingExpression:
    """Returns an expression with operands in place of `{0}`, `{1}`, ..., typed by the type checker of the language.

    Raises `InputError` W008 if it has no type.
    """
    cel = pattern.format(*(operand.bracketed(bracket) for operand in operands))
    return combine(cel, precedence, infer_type(cel, operands), [*operands])


def infer_type(cel: str, operands: tuple[PendingExpression, ...]) -> Schema:
    """Returns the type of an expression as the compiler infers it. Raises `InputError` W008 if it has none."""
    if any(operand.is_unknown for operand in operands):
        return UNKNOWN_TYPE
    types = {
        variable.name: variable.type if isinstance(variable, TracedNode) else variable.schema
        for operand in operands
        for variable in operand.reads
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
    """Converts a number to a float. CEL does not mix integers and floats, and divides integers as integers."""
    if have == {"float"}:
        return expression
    if not expression.reads and "const" in expression.schema:
        value = float(expression.schema["const"])
        return replace(expression, cel=to_cel_literal(value), schema={"const": value, "type": "number"})
    return replace(
        expression, cel=f"double({expression.cel})", precedence=ATOM_PRECEDENCE, schema={"type": "number"}, node=None
    )


def to_template(expression: PendingExpression) -> Any:
    """Returns an expression as a template: one reference, a text with references, or a record of templates."""
    if expression.template is not None:
        return expression.template
    if any(isinstance(part, str) for part in expression.parts):
        return _text_template(expression.parts)
    return f"${{{expression.cel}}}"


def _text_template(parts: tuple[str | PendingExpression, ...]) -> str:
    """Returns a text with references. Dollar signs before a reference become a reference, since `$${` would be a
    literal `${`.
    """
    template = literal = ""
    for part in parts:
        if isinstance(part, str):
            literal += part
            continue
        text = literal.rstrip("$")
        dollars = literal[len(text) :]
        template += (
            escape_references(text) + (f"${{{to_cel_literal(dollars)}}}" if dollars else "") + f"${{{part.cel}}}"
        )
        literal = ""
    end: str = escape_references(literal)
    return template + end


def to_guard(expression: PendingExpression) -> NodeGuard:
    """Returns a condition as a guard."""
    return NodeGuard(expression.cel, expression.precedence, expression.reads)


def node_value(draft: TracedNode, scope: TraceScope) -> PendingExpression:
    """Returns the value of a node; under `each` the list of the elements' values."""
    needs = frozenset({draft})
    if "each" not in draft.fields:
        return PendingExpression(draft.name, ATOM_PRECEDENCE, draft.schema, scope, needs, needs, draft)
    list_schema = bundle_definitions({"type": "array", "items": draft.schema})
    return PendingExpression(f"{draft.name}.values", ATOM_PRECEDENCE, list_schema, scope, needs, needs, draft)


def union_type(schemas: list[Schema]) -> Schema:
    """Returns the type of a value of any of these types."""
    return UNKNOWN_TYPE if any("x-unknown" in schema for schema in schemas) else union(schemas)


def type_mismatch(producer: Schema, consumer: Schema) -> str | None:
    """Returns why a type is not assignable to another; None if it is, or if its type is being inferred."""
    if "x-unknown" in producer or (isinstance(inner := producer.get("items"), dict) and "x-unknown" in inner):
        return None
    return assignability_error(producer, consumer)

"""Pending expressions: what one that waits for its value knows of itself, and how a larger one is made of several."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from pydantic_core import PydanticSerializationError, to_jsonable_python

from orchestra.schema.assignability import assignable
from orchestra.schema.types import Schema, bundled, union
from orchestra.workflows.expressions.parser import NotCEL, escaped, parse, quoted
from orchestra.workflows.expressions.type_checker import Checker, Fault
from orchestra.workflows.python.printer import spoken_cel
from orchestra.workflows.python.scopes import Draft, Guard, Scope, Variable, current, fault

ATOM = 9
"""The rank of what needs no brackets."""
RANKS = {"?": 1, "||": 2, "&&": 3, "==": 4, "!=": 4, "<": 4, "<=": 4, ">": 4, ">=": 4, "in": 4, "+": 5, "-": 5, "*": 6, "/": 6, "!": 7}
MARK = ", known when the workflow runs>"
"""The end of a placeholder's `repr`; a text that has it holds a name instead of a value."""
UNKNOWN: Schema = {"x-unknown": True}
"""The type of a value whose type is being found out."""


@dataclass(frozen=True, eq=False, slots=True)
class Wired:
    """What a placeholder knows."""

    cel: str
    rank: int
    schema: Schema
    scope: Scope
    reads: frozenset[Variable] = frozenset()
    """Everything that the expression names."""
    needs: frozenset[Draft] = frozenset()
    """Of those, the nodes whose guards must hold where it is used."""
    node: Draft | None = None
    """The node whose whole value it is."""
    parts: tuple[str | Wired, ...] = ()
    """Of a text that was put together: its parts, literal ones as `str`."""
    made: Any = None
    """Of a record or list that was put together: its template."""

    def within(self, rank: int) -> str:
        """The CEL, in brackets where it binds less than the rank."""
        return self.cel if self.rank >= rank else f"({self.cel})"

    @property
    def unknown(self) -> bool:
        """Whether its type is being found out."""
        return "x-unknown" in self.schema


def said(wired: Wired) -> str:
    """The expression in the user's own words: as Python, inputs by their bare names."""
    lists = {read.name: read.name for read in wired.reads if isinstance(read, Draft) and "each" in read.fields}
    return spoken_cel(wired.cel, lists)


def cel_of(value: Any) -> str:
    """A JSON value as CEL. Raises `InputError` W007 for an integer that does not fit."""
    match value:
        case dict():
            return "{" + ", ".join(f"{quoted(str(key))}: {cel_of(inner)}" for key, inner in value.items()) + "}"
        case list():
            return "[" + ", ".join(cel_of(inner) for inner in value) + "]"
        case bool() | None | float() | str():
            return quoted(value)
        case int() if -(2**63) <= value < 2**63:
            return quoted(value)
        case _:
            raise fault("W007", f"{value} does not fit 64 bits", hint="pass it as a text")


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
            raise fault("W007", f"{called} is a function, and not a value", hint=f"call it: {called}(...)") from error
        raise fault("W007", f"a {name} has no JSON form", hint="pass str, int, float, bool, lists, dicts or pydantic models") from error
    _look(plain)
    return plain


def _look(value: Any) -> None:
    """Refuses texts that hold a placeholder's name, and what JSON cannot say."""
    match value:
        case str() if MARK in value:
            shown = value if len(value) <= 100 else value[:99] + "…"
            raise fault("W005", f"this text holds the name of a value, not the value: {shown!r}", hint="'text ' + value, without repr()")
        case str() if any("\ud800" <= char <= "\udfff" for char in value):
            raise fault("W007", "half of a surrogate pair is no character", hint="read the text as UTF-8")
        case float() if value != value or value in (float("inf"), float("-inf")):
            raise fault("W007", f"{value} has no JSON form", hint="pass None where there is no number")
        case dict():
            for key, inner in value.items():
                _look(key)
                _look(inner)
        case list():
            for inner in value:
                _look(inner)
        case _:
            pass


def joined(cel: str, rank: int, schema: Schema, parts: list[Wired], made: Any = None) -> Wired:
    """An expression that is made of others: it reads and needs what they do, and belongs to the innermost of their scopes."""
    scope = max((part.scope for part in parts), key=lambda one: len([*one.chain()]), default=current("an expression"))
    reads = frozenset[Variable]().union(*(part.reads for part in parts))
    needs = frozenset[Draft]().union(*(part.needs for part in parts))
    return Wired(cel, rank, schema, scope, reads, needs, made=made)


def express(pattern: str, rank: int, *operands: Wired, bracket: int = ATOM) -> Wired:
    """An expression of operands, put in for `{0}`, `{1}`, ..., with the type that the language's own checker finds.

    Raises `InputError` W008 for one that has none.
    """
    cel = pattern.format(*(one.within(bracket) for one in operands))
    return joined(cel, rank, checked(cel, operands), [*operands])


def checked(cel: str, operands: tuple[Wired, ...]) -> Schema:
    """The type of an expression, as the compiler will see it. Raises `InputError` W008 where it has none."""
    if any(one.unknown for one in operands):
        return UNKNOWN
    types = {read.name: read.type if isinstance(read, Draft) else read.schema for one in operands for read in one.reads}
    try:
        return Checker(cel, types).check(parse(cel))
    except Fault as error:
        raise fault("W008", error.message, why=error.why) from error
    except NotCEL as error:
        raise fault("W008", f"this expression has {error.reason}", hint="compute a part of it in a @tool(effect='pure')") from error


def floating(wired: Wired, have: frozenset[str]) -> Wired:
    """A number as a float: CEL does not mix them with integers, and divides integers as integers."""
    if have == {"float"}:
        return wired
    if not wired.reads and "const" in wired.schema:
        value = float(wired.schema["const"])
        return replace(wired, cel=quoted(value), schema={"const": value, "type": "number"})
    return replace(wired, cel=f"double({wired.cel})", rank=ATOM, schema={"type": "number"}, node=None)


def written(wired: Wired) -> Any:
    """An expression as a template: one reference, or a text with references in it, or a record of templates."""
    if wired.made is not None:
        return wired.made
    if any(isinstance(part, str) for part in wired.parts):
        return _text(wired.parts)
    return f"${{{wired.cel}}}"


def _text(parts: tuple[str | Wired, ...]) -> str:
    """A text with references in it. Dollars right before one are a reference of their own, for `$${` would be a literal `${`."""
    found = literal = ""
    for part in parts:
        if isinstance(part, str):
            literal += part
            continue
        text = literal.rstrip("$")
        dollars = literal[len(text) :]
        found += escaped(text) + (f"${{{quoted(dollars)}}}" if dollars else "") + f"${{{part.cel}}}"
        literal = ""
    end: str = escaped(literal)
    return found + end


def guard_of(wired: Wired) -> Guard:
    """A condition as a guard."""
    return Guard(wired.cel, wired.rank, wired.reads)


def node_value(draft: Draft, scope: Scope) -> Wired:
    """The value of a node; of a node under `each` the list of its elements' values."""
    needs = frozenset({draft})
    if "each" not in draft.fields:
        return Wired(draft.name, ATOM, draft.schema, scope, needs, needs, draft)
    listed = bundled({"type": "array", "items": draft.schema})
    return Wired(f"{draft.name}.values", ATOM, listed, scope, needs, needs, draft)


def together(schemas: list[Schema]) -> Schema:
    """The type of a value of any of these types."""
    return UNKNOWN if any("x-unknown" in schema for schema in schemas) else union(schemas)


def unfit(producer: Schema, consumer: Schema) -> str | None:
    """Why a value of one type is none of another; None where it is, or where its type is being found out."""
    if "x-unknown" in producer or (isinstance(inner := producer.get("items"), dict) and "x-unknown" in inner):
        return None
    return assignable(producer, consumer)

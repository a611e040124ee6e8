"""Tests that expressions over placeholders have the same results in CEL as in Python."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from orchestra import (
    InputError,
    all_of,
    any_of,
    as_text,
    choose,
    contains,
    filter_,
    has_value,
    length,
    map_,
    not_,
    or_else,
)
from orchestra.schema.assignability import assignability_error
from orchestra.schema.types import schema_of
from orchestra.workflows.expressions.parser import parse
from orchestra.workflows.expressions.templates import compile_template
from orchestra.workflows.python.pending import ATOM_PRECEDENCE, PendingExpression
from orchestra.workflows.python.placeholders import Placeholder, template_with_type
from orchestra.workflows.python.printer import tree_to_python
from orchestra.workflows.python.scopes import TraceScope, Variable, enter_scope


class Item(BaseModel):
    name: str
    n: int
    x: float
    tag: str | None
    size: int | None
    xs: list[int]
    names: list[str]
    b: bool
    kind: Literal["a", "b"]
    loop: int


SCHEMA = {"type": "object", "properties": {"v": schema_of(Item, "serialization")}, "required": ["v"]}
ITEMS = st.builds(
    Item,
    name=st.text("ab${é\"'\n😀", max_size=4),
    n=st.integers(-9, 9),
    x=st.integers(-8, 8).map(lambda n: n / 4),
    tag=st.none() | st.just("t"),
    size=st.none() | st.integers(0, 3),
    xs=st.lists(st.integers(-3, 3), max_size=3),
    names=st.lists(st.text("ab", max_size=2), max_size=3),
    b=st.booleans(),
    kind=st.sampled_from(["a", "b"]),
    loop=st.integers(0, 2),
)


@dataclass(frozen=True)
class Said:
    """An expression over `v`, as Python's text and as what it does: to a placeholder, or to an item."""

    text: str
    of: Callable[[Any], Any]

    def __repr__(self) -> str:
        return self.text


Kind: TypeAlias = Literal["str", "int", "float", "bool"]
TEXTS = ["", "a", 'é"\n', "${x}", "$${", "😀", "it's", "\\"]


def literal(value: Any) -> Said:
    return Said(f"({value!r})", lambda v: value)


def field(name: str) -> Said:
    return Said(f"v.{name}", lambda v: getattr(v, name))


LEAVES: dict[Kind, list[Said]] = {
    "str": [
        field("name"),
        field("kind"),
        Said("or_else(v.tag, '-')", lambda v: or_else(v.tag, "-")),
        *map(literal, TEXTS),
    ],
    "int": [
        field("n"),
        field("loop"),
        Said("or_else(v.size, 0)", lambda v: or_else(v.size, 0)),
        *map(literal, [-3, 0, 2, 7]),
    ],
    "float": [field("x"), *map(literal, [0.5, 2.0, -1.25, 1e16])],
    "bool": [
        field("b"),
        Said("has_value(v.tag)", lambda v: has_value(v.tag)),
        Said("not_(has_value(v.size))", lambda v: not_(has_value(v.size))),
    ],
}
OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "&": lambda a, b: a & b,
    "|": lambda a, b: a | b,
}
WORDS: dict[str, Callable[..., Any]] = {
    "all_of": all_of,
    "any_of": any_of,
    "not_": not_,
    "length": length,
    "has_value": has_value,
    "contains": contains,
    "choose": choose,
    "or_else": or_else,
    "as_text": as_text,
}


def operated(op: str, a: Said, b: Said) -> Said:
    return Said(f"({a} {op} {b})", lambda v: OPERATORS[op](a.of(v), b.of(v)))


def called(word: str, *args: Said) -> Said:
    return Said(f"{word}({', '.join(map(str, args))})", lambda v: WORDS[word](*(one.of(v) for one in args)))


@st.composite
def expressions(draw: st.DrawFn, kind: Kind, depth: int) -> Said:
    """An expression of a kind."""
    if depth == 0 or draw(st.integers(0, 3)) == 0:
        return draw(st.sampled_from(LEAVES[kind]))

    def part(other: Kind) -> Said:
        return draw(expressions(other, depth - 1))

    def pick(*options: str) -> str:
        return draw(st.sampled_from(options))

    def number() -> Said:
        return part("int" if draw(st.booleans()) else "float")

    if draw(st.integers(0, 6)) == 0:
        return called("choose", part("bool"), part(kind), part(kind))
    match kind:
        case "str":
            return (
                operated("+", part("str"), part("str")) if draw(st.integers(0, 4)) else called("as_text", part("int"))
            )
        case "int":
            counted = [field("xs"), field("name"), field("names")]
            sized = called("length", draw(st.sampled_from(counted)))
            return operated(pick("+", "-", "*"), part("int"), part("int")) if draw(st.integers(0, 3)) else sized
        case "float":
            if draw(st.booleans()):
                return operated("/", number(), literal(draw(st.sampled_from([4, 0.5, -2]))))
            return operated(pick("+", "-", "*"), part("float"), number())
        case "bool":
            return draw(_conditions(part, number))


@st.composite
def _conditions(draw: st.DrawFn, part: Callable[[Kind], Said], number: Callable[[], Said]) -> Said:
    order = draw(st.sampled_from(["==", "!=", "<", "<=", ">", ">="]))
    match draw(st.integers(0, 8)):
        case 0 | 1:
            return operated(order, number(), number())
        case 2:
            return operated(order, part("str"), part("str"))
        case 3:
            return operated(draw(st.sampled_from(["&", "|"])), part("bool"), part("bool"))
        case 4:
            return called("not_", part("bool"))
        case 5:
            return called(draw(st.sampled_from(["all_of", "any_of"])), part("bool"), part("bool"), part("bool"))
        case 6:
            return called("contains", field("xs"), part("int"))
        case 7:
            return called("contains", field("name"), literal(draw(st.sampled_from(["a", "$", ""]))))
        case _:
            return operated("==", part("bool"), part("bool"))


def placeholder(scope: TraceScope) -> Any:
    schema = SCHEMA["properties"]["v"]  # type: ignore[index]
    variable = Variable("input", SCHEMA)
    return Placeholder(PendingExpression("input.v", ATOM_PRECEDENCE, schema, scope, frozenset({variable})))


UNLIKELY = re.compile("never|characters|levels")
"""What an expression may be refused for though its types fit."""


def attempt(work: Callable[[], Any]) -> tuple[Any, InputError | None]:
    """What it gives, or why it is refused."""
    try:
        return work(), None
    except InputError as error:
        return None, error


def computed(made: Any, item: Item) -> tuple[Any, Any, Any]:
    """The value of an expression on an item, by way of CEL; its type as the compiler finds it, and as tracing found
    it.
    """
    text, schema = template_with_type(made)
    compiled = compile_template(text, {"input": SCHEMA})
    return compiled.evaluate({"input": {"v": item.model_dump()}}), compiled.schema, schema


@settings(max_examples=400)
@given(st.sampled_from(["str", "int", "float", "bool"]).flatmap(lambda kind: expressions(kind, 3)), ITEMS)  # type: ignore[arg-type]
def test_expression_equals_python_result(said: Said, item: Item) -> None:
    with enter_scope(TraceScope()) as scope:
        made, refused = attempt(lambda: said.of(placeholder(scope)))
        assert refused is None or (refused.code == "W008" and UNLIKELY.search(refused.message)), refused
        assume(type(made) is Placeholder)
        result, refused = attempt(lambda: computed(made, item))
        # Constants that can only fail, and conditions that never change, are faults of their own in the language.
        assert refused is None or refused.code in ("L054", "L056"), (said, template_with_type(made)[0], refused)
    assume(result is not None)
    got, compiled, traced = result
    want = said.of(item)
    assert (got, type(got)) == (want, type(want)), (said, template_with_type(made)[0])
    assert assignability_error(compiled, traced) is None, (said, compiled, traced)


@settings(max_examples=200)
@given(st.sampled_from(["str", "int", "float", "bool"]).flatmap(lambda kind: expressions(kind, 3)))  # type: ignore[arg-type]
def test_expression_printed_as_python(said: Said) -> None:
    with enter_scope(TraceScope()) as scope:
        made, _ = attempt(lambda: said.of(placeholder(scope)))
        assume(type(made) is Placeholder)
        cel = made._expression.cel
        text = tree_to_python(parse(cel), {})
        again = eval(text, {**WORDS, "v": placeholder(scope)})
    assert again._expression.cel == cel, text


@pytest.mark.parametrize(
    ("write", "cel"),
    [
        (lambda v: v.loop + 1, 'input.v["loop"] + 1'),
        (lambda v: v.xs[-1], "input.v.xs[size(input.v.xs) - 1]"),
        (lambda v: v.n / 2, "double(input.v.n) / 2.0"),
        (lambda v: v.n * v.x, "double(input.v.n) * input.v.x"),
        (lambda v: (v.n + 1) * 2, "(input.v.n + 1) * 2"),
        (lambda v: v.n - (v.n - 1), "input.v.n - (input.v.n - 1)"),
        (lambda v: all_of(v.b, any_of(v.b, v.n > 1)), "input.v.b && (input.v.b || input.v.n > 1)"),
        (lambda v: (v.n > 1) == v.b, "(input.v.n > 1) == input.v.b"),
        (lambda v: or_else(v.tag, "x"), 'input.v.tag != null ? input.v.tag : "x"'),
        (lambda v: choose(v.b, v.n, v.x), "input.v.b ? double(input.v.n) : input.v.x"),
        (lambda v: choose(v.b, 1, v.x), "input.v.b ? 1.0 : input.v.x"),
        (lambda v: contains(v.names, "a"), '"a" in input.v.names'),
        (lambda v: map_(lambda x: x + 1, v.xs), "input.v.xs.map(x, x + 1)"),
        (lambda v: filter_(lambda x: x > v.n, v.xs), "input.v.xs.filter(x, x > input.v.n)"),
        (lambda v: v.names + list("$"), 'input.v.names + ["$"]'),
    ],
)
def test_expression_written_as_cel(write: Callable[[Any], Any], cel: str) -> None:
    with enter_scope(TraceScope()) as scope:
        made = write(placeholder(scope))
        assert made._expression.cel == cel
        compile_template(template_with_type(made)[0], {"input": SCHEMA})

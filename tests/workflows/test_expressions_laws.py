"""Property tests of expressions: CEL and Python have the same result on the same values, of the inferred type."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from orchestra.core.errors import OrchestraError
from orchestra.schema.types import Schema, Validator, nullable, schema_of
from orchestra.workflows.expressions.cel_values import cel_type, make_converter
from orchestra.workflows.expressions.parser import parse
from orchestra.workflows.expressions.templates import compile_reference, compile_template
from orchestra.workflows.expressions.type_checker import TypeChecker

pytestmark = pytest.mark.slow


class Item(BaseModel):
    name: str
    n: int
    x: float
    tag: str | None
    xs: list[int]
    fs: list[float]
    b: bool


ITEM = schema_of(Item, "serialization")
TYPES: dict[str, Schema] = {"v": ITEM, "maybe": nullable(ITEM), "items": {"type": "array", "items": ITEM}}

Python = Callable[[dict[str, Any]], Any]


@dataclass(frozen=True)
class Twin:
    """An expression in CEL, and the same in Python."""

    text: str
    of: Python


def _read(root: str, name: str) -> Twin:
    return Twin(f"{root}.{name}", lambda values: values[root][name])


def _leaf(kind: str, root: str) -> st.SearchStrategy[Twin]:
    fields = {"str": ["name"], "int": ["n"], "float": ["x"], "bool": ["b"]}[kind]
    reads = [_read(root, name) for name in fields]
    constants: dict[str, list[Any]] = {
        "str": ["", "a", 'é"\n', "${x}", "😀"],
        "int": [-3, 0, 2, 7],
        "float": [0.5, 2.0, -1.25],
        "bool": [True, False],
    }
    spelled = {True: "true", False: "false"}

    def constant(value: Any) -> Twin:
        if isinstance(value, str):
            text = '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
        else:
            text = spelled[value] if isinstance(value, bool) else repr(value)
        return Twin(text, lambda values: value)

    return st.sampled_from(reads) | st.sampled_from(constants[kind]).map(constant)


def _pair(one: Twin, two: Twin, op: str, of: Callable[[Any, Any], Any]) -> Twin:
    return Twin(f"({one.text} {op} {two.text})", lambda values: of(one.of(values), two.of(values)))


_SUMS: dict[str, Callable[[Any, Any], Any]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
}
_ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}
_EQUAL: dict[str, Callable[[Any, Any], bool]] = {"==": lambda a, b: a == b, "!=": lambda a, b: a != b}


@st.composite
def twins(draw: st.DrawFn, kind: str, depth: int = 3, root: str = "v") -> Twin:
    """A random expression of a kind, with its twin."""
    if not depth or draw(st.integers(0, 3)) == 0:
        return draw(_leaf(kind, root))

    def sub(inner: str) -> Twin:
        return draw(twins(inner, depth - 1, root))

    if draw(st.integers(0, 5)) == 0:
        test, then, otherwise = sub("bool"), sub(kind), sub(kind)
        text = f"({test.text} ? {then.text} : {otherwise.text})"
        return Twin(text, lambda values: then.of(values) if test.of(values) else otherwise.of(values))
    match kind:
        case "str":
            return _pair(sub("str"), sub("str"), "+", _SUMS["+"])
        case "int" if draw(st.booleans()):
            inner = sub("str")
            return Twin(f"size({inner.text})", lambda values: len(inner.of(values)))
        case "int" | "float":
            op = draw(st.sampled_from(sorted(_SUMS)))
            return _pair(sub(kind), sub(kind), op, _SUMS[op])
        case _:
            return draw(_conditions(depth, root))


@st.composite
def _conditions(draw: st.DrawFn, depth: int, root: str) -> Twin:
    def sub(inner: str) -> Twin:
        return draw(twins(inner, depth - 1, root))

    match draw(st.integers(0, 5)):
        case 0:
            op, kind = draw(st.sampled_from(sorted(_ORDERS))), draw(st.sampled_from(["str", "int", "float"]))
            return _pair(sub(kind), sub(kind), op, _ORDERS[op])
        case 1:
            op, kind = draw(st.sampled_from(["==", "!="])), draw(st.sampled_from(["str", "int", "float", "bool"]))
            return _pair(
                Twin(f"{root}.{_NAMES[kind]}", lambda values: values[root][_NAMES[kind]]), sub(kind), op, _EQUAL[op]
            )
        case 2:
            op = draw(st.sampled_from(["&&", "||"]))
            one, two = sub("bool"), sub("bool")
            return _pair(one, two, op, (lambda a, b: a and b) if op == "&&" else (lambda a, b: a or b))
        case 3:
            one = sub("bool")
            return Twin(f"!({one.text})", lambda values: not one.of(values))
        case 4:
            one = sub("int")
            return Twin(f"({one.text} in {root}.xs)", lambda values: one.of(values) in values[root]["xs"])
        case _:
            one = sub("int")
            own = f"e{len(one.text)}"  # longer than any inside, and so a name of its own
            return Twin(
                f"{root}.xs.exists({own}, {own} >= {one.text})",
                lambda values: any(e >= one.of(values) for e in values[root]["xs"]),
            )


_NAMES = {"str": "name", "int": "n", "float": "x", "bool": "b"}
NUMBER = st.integers(-9, 9) | st.integers(-8, 8).map(lambda n: n / 4)
VALUE = st.fixed_dictionaries(
    {
        "name": st.text('ab${é"', max_size=3),
        "n": st.integers(-9, 9),
        "x": NUMBER,
        "tag": st.none() | st.just("t"),
        "xs": st.lists(st.integers(-3, 3), max_size=3),
        "fs": st.lists(NUMBER, max_size=3),
        "b": st.booleans(),
    }
)
BINDINGS = st.fixed_dictionaries({"v": VALUE, "maybe": st.none() | VALUE, "items": st.lists(VALUE, max_size=4)})
KINDS = st.sampled_from(["str", "int", "float", "bool"])
MANY = settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))


def _evaluated(text: str, bindings: dict[str, Any]) -> Any:
    """The value, which is of the promised type; None where the text is refused for a constant that only fails, or for
    its size.
    """
    try:
        expression = compile_reference(text, TYPES)
    except OrchestraError as error:
        if error.code in {"L055", "L056"}:
            return None
        raise
    value = expression.evaluate(bindings)
    assert Validator(expression.schema).check(value) is None, (text, expression.schema, value)
    return value


def _same(one: Any, two: Any) -> bool:
    if isinstance(one, float) and isinstance(two, float | int):
        return math.isclose(one, two, rel_tol=1e-12)
    return bool(one == two) and (type(one) is type(two) or {type(one), type(two)} == {int, float})


@MANY
@given(KINDS.flatmap(twins), BINDINGS)
def test_cel_equals_python(twin: Twin, bindings: dict[str, Any]) -> None:
    got = _evaluated(twin.text, bindings)
    assert got is None or _same(got, twin.of(bindings)), (twin.text, got, twin.of(bindings))


@MANY
@given(KINDS.flatmap(lambda kind: twins(kind, 2, "i")), twins("bool", 2, "i"), BINDINGS)
def test_map_and_filter_equal_python(body: Twin, test: Twin, bindings: dict[str, Any]) -> None:
    chosen = [body.of({"i": item}) for item in bindings["items"] if test.of({"i": item})]
    chain = f"items.filter(i, {test.text}).map(i, {body.text})"
    for text, expected in (
        (chain, chosen),
        (f"items.map(i, {test.text}, {body.text})", chosen),
        (f"size({chain})", len(chosen)),
    ):
        got = _evaluated(text, bindings)
        if isinstance(expected, list):
            assert got is None or (len(got) == len(expected) and all(map(_same, got, expected))), (text, got, expected)
        else:
            assert got in (None, expected), (text, got, expected)


@MANY
@given(twins("str", 2, "maybe"), BINDINGS)
def test_nullable_read_after_comparison(twin: Twin, bindings: dict[str, Any]) -> None:
    there = bindings["maybe"] is not None
    for text in (f"maybe != null ? {twin.text} : 'none'", f"maybe == null ? 'none' : {twin.text}"):
        got = _evaluated(text, bindings)
        assert got is None or got == (twin.of(bindings) if there else "none")


@MANY
@given(KINDS.flatmap(twins), BINDINGS)
def test_nested_reference_keeps_type(twin: Twin, bindings: dict[str, Any]) -> None:
    alone = _evaluated(twin.text, bindings)
    if alone is not None:
        escaped = "${" + twin.text + "}"
        assert compile_template({"a": [escaped]}, TYPES).evaluate(bindings) == {"a": [alone]}


@MANY
@given(KINDS.flatmap(twins))
def test_generated_tree_has_expected_type(twin: Twin) -> None:
    checker = TypeChecker(twin.text, TYPES)
    schema = checker.check(parse(twin.text))
    assert checker.references <= {"v"}
    assert cel_type(schema) in {"string", "int", "double", "bool"}


@given(VALUE)
def test_converter_changes_typed_numbers_only(value: dict[str, Any]) -> None:
    convert = make_converter(ITEM)
    assert convert is not None
    made = convert(value)
    assert made == value
    assert isinstance(made["x"], float)
    assert all(isinstance(one, float) for one in made["fs"])
    assert isinstance(made["n"], int)


def test_converter_absent_without_numbers() -> None:
    assert make_converter({"type": "string"}) is None
    assert (
        make_converter({"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string"}}}}) is None
    )


def test_converter_follows_recursive_type() -> None:
    class Tree(BaseModel):
        weight: float
        children: list[Tree]

    Tree.model_rebuild(_types_namespace={"Tree": Tree})
    convert = make_converter(schema_of(Tree, "serialization"))
    assert convert is not None
    made = convert({"weight": 1, "children": [{"weight": 2, "children": []}]})
    assert isinstance(made["children"][0]["weight"], float)

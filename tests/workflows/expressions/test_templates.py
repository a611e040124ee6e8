"""Tests of references and templates: values, types, and compile errors."""

from __future__ import annotations

import tomllib
from pathlib import Path as File
from typing import Any, Literal

import pytest
from pydantic import BaseModel

from orchestra.core.errors import InputError, InputErrors, OrchestraError, SourceLocation
from orchestra.schema.builtin_models import Answer, Quote
from orchestra.schema.types import Schema, format_type, map_result_type, nullable, schema_of
from orchestra.workflows.expressions.condition_analysis import static_truth
from orchestra.workflows.expressions.evaluation import Comprehension, PathExpression
from orchestra.workflows.expressions.templates import compile_template
from tests.unsafe_reference import assert_cost, cpu_seconds


class Tree(BaseModel):
    weight: float
    left: Tree | None = None
    children: list[Tree] | None = None


class Item(BaseModel):
    name: str
    n: int
    x: float
    tag: str | None
    xs: list[int]
    b: bool
    kind: Literal["math", "lookup"]
    quote: Quote
    meta: dict[str, int]
    later: int = 7


ITEM = {
    "name": "a",
    "n": 3,
    "x": 2,
    "tag": None,
    "xs": [1, 2, 3],
    "b": True,
    "kind": "math",
    "quote": "q",
    "meta": {"k": 1},
}
SCHEMA = schema_of(Item, "validation")
TYPES: dict[str, Schema] = {
    "input": {
        "type": "object",
        "properties": {
            "question": {"type": "string"},
            "items": {"type": "array", "items": SCHEMA},
            "any": {},
            "loop": {"type": "integer"},
        },
        "required": ["question", "items", "any", "loop"],
    },
    "v": SCHEMA,
    "maybe": nullable(SCHEMA),
    "readings": map_result_type(schema_of(Answer, "serialization")),
}
VALUES: dict[str, Any] = {
    "input": {"question": "why?", "items": [ITEM, {**ITEM, "name": "b", "n": 4, "x": 0.5}], "any": {"p": 1}, "loop": 5},
    "v": ITEM,
    "maybe": None,
    "readings": {"values": [{"text": "x", "citations": []}]},
}


def value(template: Any, **more: Any) -> Any:
    return compile_template(template, TYPES).evaluate({**VALUES, **more})


def kind(template: Any) -> str:
    return format_type(compile_template(template, TYPES).schema)


def test_template_dynamic_key_looked_up_at_run_time() -> None:
    assert value("${v.meta[v.tag]}", v={**ITEM, "tag": "k"}) == 1
    with pytest.raises(OrchestraError) as caught:
        value("${v.meta[v.tag]}")
    assert caught.value.code == "L061"


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("plain", "plain"),
        ("", ""),
        (6, 6),
        (None, None),
        ([1, {"a": True}], [1, {"a": True}]),
        ("${input.question}", "why?"),
        ("${ input.question }", "why?"),
        ("${input.items[1].name}", "b"),
        ('${v["name"]}', "a"),
        ("${input.loop}", 5),
        ("a ${v.name} b ${v.n}${v.b}", "a a b 3true"),
        ("x is ${v.x}", "x is 2"),
        ("$${x}", "${x}"),
        ("$${x} ${v.name} $${y}", "${x} a ${y}"),
        ("cost: $5 and {braces} }", "cost: $5 and {braces} }"),
        ("$$${v.name}", "$${v.name}"),
        ("${'}'}${\"{\"}", "}{"),
        ({"q": "${v.name}", "k": ["${v.n}", 2]}, {"q": "a", "k": [3, 2]}),
        ("${v.n + 1}", 4),
        ("${v.x + 1.0}", 3.0),
        ("${double(v.n) / 2.0}", 1.5),
        ("${v.n / 2}", 1),
        ("${-v.n % 2}", -1),
        ("${v.kind == 'math'}", True),
        ("${v.kind != 'math' || v.n in [1, 3]}", True),
        ("${!(v.b && v.n > 2)}", False),
        ("${v.b ? v.name : 'z'}", "a"),
        ("${v.tag == null}", True),
        ("${v.tag != null ? v.tag + '!' : 'none'}", "none"),
        ("${v.tag == null ? 'none' : v.tag + '!'}", "none"),
        ("${maybe != null && maybe.n > 2}", False),
        ("${maybe == null || maybe.n > 2}", True),
        ("${!(maybe == null) && maybe.xs[0] == 1}", False),
        ("${maybe != null ? maybe.name : 'unnamed'}", "unnamed"),
        ("${v.b ? v.name : null}", "a"),
        ("${v.b ? v.n : 0.5}", 3.0),
        ("${size(v.xs)}", 3),
        ("${v.name.size()}", 1),
        ("${v.xs[size(v.xs) - 1]}", 3),
        ("${v.xs + [4]}", [1, 2, 3, 4]),
        ("${v.xs.exists(x, x > 2)}", True),
        ("${v.xs.all(x, x > 2)}", False),
        ("${v.xs.exists_one(x, x > 2)}", True),
        ("${v.xs.map(x, x * 2)}", [2, 4, 6]),
        ("${v.xs.map(x, x > 1, x * 10)}", [20, 30]),
        ("${input.items.filter(i, i.n > 3).map(i, i.name)}", ["b"]),
        ("${size(input.items.filter(i, i.x < 1.0))}", 1),
        ("${input.items.map(i, i.xs.map(x, x * i.n))}", [[3, 6, 9], [4, 8, 12]]),
        ("${input.items.map(i, i.x + 1.0)}", [3.0, 1.5]),
        ("${v.meta.map(k, k)}", ["k"]),
        ("${{'a': v.n, 'b': [v.name]}}", {"a": 3, "b": ["a"]}),
        ("${[v.n, 1.5]}", [3, 1.5]),
        ("${string(v.n) + 'x'}", "3x"),
        ("${v.name.matches('^(a+)+$')}", True),
        (r"${v.name.matches(r'^\w$')}", True),
        ("${v.name.startsWith('a') && v.name.contains('a') && v.name.endsWith('a')}", True),
        ("${readings.values}", [{"text": "x", "citations": []}]),
        ("${readings.values.map(r, r.text)}", ["x"]),
        ("${input.any.p}", 1),
        ("${input.any.p + 1}", 2),
        ("${v.meta.k}", 1),
        ("${has(v.tag)}", True),
        ("${{'at': string(timestamp('2026-01-01T00:00:00Z'))}}", {"at": "2026-01-01T00:00:00Z"}),
        ("${v.meta[v.name + ''] == 1 || true}", True),
        ("${v.meta['k']}", 1),
        ("${timestamp('2026-01-01T00:00:00Z') < timestamp('2027-01-01T00:00:00Z')}", True),
        ("${'\\u00e9\\n\\x41\\101'}", "é\nAA"),
        ("${1 + 2 * 3 - 4}", 3),
        ("${(1 + 2) * 3}", 9),
        ("${true ? 1 : false ? 2 : 3}", 1),
    ],
)
def test_template_evaluate_returns_value(template: Any, expected: Any) -> None:
    got = value(template)
    assert got == expected
    assert type(got) is type(expected)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("${input.question}", "str"),
        ("${v.quote}", "Quote"),
        ("${v.kind}", "Literal['math', 'lookup']"),
        ("${v}", "Item"),
        ("${maybe}", "Item | null"),
        ("${readings.values}", "list[Answer]"),
        ("${input.items[0].tag}", "str | null"),
        ("${v.n + 1}", "int"),
        ("${v.n > 1}", "bool"),
        ("${v.quote + ''}", "str"),
        ("${input.items.map(i, i.quote)}", "list[Quote]"),
        ("${input.items.filter(i, i.b)}", "list[Item]"),
        ("${v.b ? v.tag : null}", "str | null"),
        ("${v.b ? v : maybe}", "Item | null"),
        ("${maybe != null ? maybe.kind : 'none'}", "Literal['math', 'lookup'] | Literal['none']"),
        ("a ${v.quote}", "str"),
        ("constant", "Literal['constant']"),
        ({"a": "${v.n}"}, "{a}"),
        ("${input.any}", "anything"),
    ],
)
def test_template_has_schema(template: Any, expected: str) -> None:
    assert kind(template) == expected


REFUSED = tomllib.loads(File(__file__).with_name("refused.toml").read_text())["case"]


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case["text"][:60])
def test_template_invalid_reference_refused_at_location(case: dict[str, Any]) -> None:
    text = case["text"]
    line = f"    with: {text}"
    with pytest.raises(InputError) as caught:
        compile_template(text, TYPES, lambda path: SourceLocation("f.yaml", 7, 11, line, len(text)))
    error = caught.value
    assert error.code == case["code"]
    assert case["says"] in f"{error.message} {error.hint}"
    assert error.location is not None
    start = error.location.column - 1
    assert line[start : start + error.location.width] == case["at"]
    assert start + 1 == case.get("column", start + 1)


def test_template_mapping_reports_all_errors() -> None:
    with pytest.raises(InputErrors) as caught:
        compile_template({"a": "${zz}", "b": ["${v.nme}"], "c": "${v.name}"}, TYPES)
    assert [error.code for error in caught.value.errors] == ["L051", "L052"]


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("${v.xs[5]}", "there is no element 5 in a list of 3"),
        ("${v.xs[v.n]}", "there is no element 3 in a list of 3"),
        ("${input.any.q}", "there is no field 'q'"),
        ("${input.any.q + 1}", "there is no field 'q'"),
        ("${input.any.p.q}", "a value of type int has no 'q'"),
        ("${v.meta.z}", "there is no field 'z'"),
        ("${9223372036854775807 + v.n}", "integer overflow"),
        ("${v.n / (v.n - 3)}", "divide by zero"),
        ("${1.0 / (v.x - 2.0)}", "not a finite number"),
        ("${int(v.name)}", "cannot convert string to int"),
        ("${input.any + 'x'}", "does not take"),
        ("${v.name.matches(v.name + '(')}", "RE2"),
        ("a ${input.any}", "a list or mapping cannot be part of a text"),
    ],
)
def test_template_value_error_raised_at_run_time(template: str, says: str) -> None:
    with pytest.raises(OrchestraError, match=r".") as caught:
        value(template)
    assert caught.value.code == "L061"
    assert says in caught.value.message


def test_template_integer_for_float_is_float() -> None:
    assert value("${v.x / 4.0}") == 0.5
    assert value("${input.items.map(i, i.x)[0] + 0.5}") == 2.5
    assert value("${input.items.exists(i, i.x + 0.5 > 2.0)}") is True


def test_template_whole_float_for_integer_is_integer() -> None:
    assert value("${v.n + 1}", v={**ITEM, "n": 3.0}) == 4


@pytest.mark.parametrize("number", [3, 3.0])
def test_template_integer_in_text_has_no_fraction(number: float) -> None:
    item = {**ITEM, "n": number, "xs": [number]}
    for reference in ("v.n", "v.xs[0]", "v.n + 0", "string(v.n)", "v.b ? v.n : 4"):
        assert value(f"n=${{{reference}}}", v=item) == "n=3", reference
    assert value("x=${v.x}", v={**ITEM, "x": 3.5}) == "x=3.5"
    assert value("any=${input.any.p}", input={"any": {"p": 2.0}}) == "any=2.0"


def test_template_absent_field_has_default() -> None:
    assert value("${v.later}") == 7
    assert value("${v.later + 1}") == 8
    assert value("${input.items.map(i, i.later + 1)}") == [8, 8]


def test_template_mapped_node_without_value_is_empty() -> None:
    expression = compile_template("${readings.values}", TYPES)
    assert expression.evaluate({"input": {}}) == []


def test_template_guarded_part_not_evaluated() -> None:
    assert value("${size(v.xs) > 5 ? v.xs[5] : 0}") == 0
    assert value("${maybe != null ? size(maybe.xs.map(x, x + 1)) : 0}") == 0
    assert value("${v.b || v.xs[9] == 1}") is True


def test_template_path_faster_than_cel() -> None:
    path, by_cel = (compile_template(text, TYPES) for text in ("${input.question}", "${input.question + '!'}"))
    assert isinstance(path, PathExpression)
    assert not isinstance(by_cel, PathExpression)
    assert 4 * min(_timed(path) for _ in range(5)) < min(_timed(by_cel) for _ in range(5))


def _timed(expression: Any) -> float:
    return cpu_seconds(lambda: [expression.evaluate(VALUES) for _ in range(2000)])


def test_template_map_takes_linear_time() -> None:
    items = {"input": {**VALUES["input"], "items": [ITEM] * 10_000}}
    assert len(value("${input.items.map(i, i.name + '!')}", **items)) == 10_000
    assert value("${size(input.items.filter(i, i.n > 100))}", **items) == 0
    assert_cost(lambda: value("${input.items.map(i, i.name + '!')}", **items), at_most=300)
    assert_cost(lambda: value("${size(input.items.filter(i, i.n > 100))}", **items), at_most=300)
    with pytest.raises(OrchestraError, match="at most 10,000"):
        value("${input.items.map(i, i.name)}", input={**VALUES["input"], "items": [ITEM] * 10_001})
    with pytest.raises(OrchestraError, match="more than 10,000 iterations"):
        value("${v.xs.map(x, v.xs.map(y, v.xs.exists(z, z == x)))}", v={**ITEM, "xs": list(range(60))})


def test_template_long_string_refused() -> None:
    long = {"v": {**ITEM, "name": "x" * (200 << 10)}}
    for template in ("${v.name + v.name}", "${v.name}${v.name}"):
        with pytest.raises(OrchestraError) as caught:
            value(template, **long)
        assert caught.value.code == "L062"
    assert len(value("${v.name}", v={**ITEM, "name": "x" * (1 << 20)})) == 1 << 20


def test_template_references_are_read_names() -> None:
    def read(template: Any) -> frozenset[str]:
        return compile_template(template, TYPES).references

    assert read("x") == frozenset()
    assert read("a ${v.name} ${input.question}") == {"v", "input"}
    assert read({"a": ["${readings.values.map(r, r.text == v.name)}"]}) == {"readings", "v"}
    assert read("${input.items.map(i, i.name)}") == {"input"}


def test_template_mapping_parts_are_expressions() -> None:
    expression = compile_template({"a": "${v.name}", "b": 1}, TYPES)
    assert expression.parts is not None
    assert {key: part.references for key, part in expression.parts.items()} == {"a": {"v"}, "b": frozenset()}
    assert compile_template("${v.name}", TYPES).parts is None


def test_template_root_map_runs_in_python() -> None:
    assert isinstance(compile_template("${v.xs.map(x, x * 2)}", TYPES), Comprehension)


def test_template_values_not_read_as_templates() -> None:
    hostile = {"v": {**ITEM, "name": "${input.question}"}}
    assert value("${v.name}", **hostile) == "${input.question}"
    assert value("a ${v.name}", **hostile) == "a ${input.question}"
    assert value("${v.name + ''}", **hostile) == "${input.question}"


TREE = {"weight": 1, "left": {"weight": 4}, "children": [{"weight": 2, "children": [{"weight": 3}]}]}
WHOLE = {"left": None, "children": None}
TREES: dict[str, Schema] = {
    "input": {"type": "object", "properties": {"tree": schema_of(Tree, "validation")}, "required": ["tree"]}
}


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("input.tree.children", TREE["children"]),
        ("input.tree.children != null ? input.tree.children.map(t, t.weight) : []", [2.0]),
        ("input.tree.left != null ? input.tree.left.weight + 1.0 : 0.0", 5.0),
        ("input.tree == input.tree.left", False),
        ("[input.tree.left, null]", [{"weight": 4.0, **WHOLE}, None]),
    ],
)
def test_template_recursive_type_read(source: str, value: Any) -> None:
    assert compile_template("${" + source + "}", TREES).evaluate({"input": {"tree": TREE}}) == value


def test_template_recursive_list_type_declared() -> None:
    endless: Schema = {"$ref": "#/$defs/L", "$defs": {"L": {"type": "array", "items": {"$ref": "#/$defs/L"}}}}
    assert compile_template("${size(xs[0])}", {"xs": endless}).evaluate({"xs": [[[], []]]}) == 2


def test_template_field_with_dot_is_distinct_path() -> None:
    inner = nullable({"type": "object", "properties": {"d": {"type": "string"}}, "required": ["d"]})
    record = {"type": "object", "properties": {"c": inner}, "required": ["c"]}
    fields = {"b": record, "b.c": nullable({"type": "string"})}
    types = {"input": {"type": "object", "properties": fields, "required": ["b", "b.c"]}}
    with pytest.raises(InputError) as caught:
        compile_template('${input["b.c"] != null ? input.b.c.d : "no"}', types)
    assert caught.value.code == "L057"
    assert static_truth('${input["b.c"] == input.b.c}', types) is None
    assert static_truth('${input["b"].c == input.b["c"]}', types) is True

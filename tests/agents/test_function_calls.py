"""Tests function calls: the functions of a request determine the output type in decoding and in parsing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.agents.card import Card
from orchestra.agents.function_calls import MAX_FUNCTIONS, MAX_TYPES, narrow_output
from orchestra.agents.output_parser import InvalidOutput, OutputParser, ParsedOutput
from orchestra.agents.prompt import CompiledPrompt
from orchestra.core.errors import InputError
from orchestra.schema.types import Validator

from .test_evidence_grammar import accepts

TEXT = {"type": "string"}
OBJECT = {"type": "object"}
INPUT = {
    "type": "object",
    "properties": {"question": TEXT, "functions": {"type": "array", "items": OBJECT}},
    "required": ["question"],
}
CALL = {"type": "object", "properties": {"name": TEXT, "arguments": OBJECT}, "required": ["name", "arguments"]}
LISTED: dict[str, Any] = {"calls": {"type": "array", "items": CALL}}
OUTPUT: dict[str, Any] = {"type": "object", "properties": LISTED, "required": ["calls"], "additionalProperties": False}
CALLER = Card.declare("caller", input=INPUT, output=OUTPUT, prompt="{{ question }}", calls={"calls": "functions"})
PLAIN = Card.declare("caller", input=INPUT, output=OUTPUT, prompt="{{ question }}")


def function(name: str, required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    return {
        "name": name,
        "description": "",
        "parameters": {"type": "dict", "properties": properties, "required": list(required)},
    }


WEATHER = function(
    "weather", ("city",), city={"type": "string"}, days={"type": "integer"}, unit={"type": "string", "enum": ["C", "F"]}
)
AREA = function("geometry.area", ("sides",), sides={"type": "tuple", "items": {"type": "float"}}, label={"type": "any"})


def text(*calls: tuple[str, Mapping[str, Any]]) -> str:
    return json.dumps({"calls": [{"name": name, "arguments": arguments} for name, arguments in calls]})


def grammar(functions: Any, card: Card = CALLER) -> str:
    constraint = CompiledPrompt(card).render({"question": "q", "functions": functions}).constraint
    assert constraint is not None
    assert constraint.kind == "grammar"
    return str(constraint.value)


RIGHT = [
    text(),
    text(("weather", {"city": "Bern"})),
    text(("weather", {"city": "Bern", "days": 3, "unit": "C"})),
    text(("geometry.area", {"sides": [1, 2.5]}), ("weather", {"city": "Ulm"}), ("weather", {"city": "Bonn"})),
    text(("geometry.area", {"sides": [], "label": None})),
]
WRONG = [
    text(("phantom", {"city": "Bern"})),
    text(("weather", {})),
    text(("weather", {"city": 5})),
    text(("weather", {"city": "Bern", "days": 1.5})),
    text(("weather", {"city": "Bern", "unit": "K"})),
    text(("weather", {"city": "Bern", "country": "CH"})),
    text(("weather", {"sides": [1]})),
    text(("geometry.area", {"sides": ["one"]})),
    '{"calls": [{"name": "weather"}]}',
]


@pytest.mark.parametrize("written", RIGHT)
def test_function_calls_valid_call_is_decoded_and_parsed(written: str) -> None:
    functions = [WEATHER, AREA]
    assert accepts(grammar(functions), written)
    assert OutputParser(CALLER).parse(written, inputs={"functions": functions}) == ParsedOutput(json.loads(written))


@pytest.mark.parametrize("written", WRONG)
def test_function_calls_invalid_call_is_not_decoded_or_parsed(written: str) -> None:
    functions = [WEATHER, AREA]
    assert not accepts(grammar(functions), written)
    found = OutputParser(CALLER).parse(written, inputs={"functions": functions})
    assert isinstance(found, InvalidOutput)
    assert found.code == "M002"


def test_function_calls_without_functions_are_empty() -> None:
    assert accepts(grammar([]), text())
    assert not accepts(grammar([]), text(("weather", {"city": "Bern"})))


def test_function_calls_fall_back_to_json_schema() -> None:
    inputs = {"question": "q", "functions": [WEATHER]}
    prompt = CompiledPrompt(CALLER).render(inputs, constraint="schema")
    assert prompt.constraint is not None
    assert prompt.constraint.kind == "json"
    assert Validator(prompt.constraint.value).is_valid(json.loads(RIGHT[1]))
    assert not Validator(prompt.constraint.value).is_valid(json.loads(WRONG[0]))
    assert prompt.response_schema is not None
    assert not Validator(prompt.response_schema).is_valid(json.loads(WRONG[0]))
    assert CompiledPrompt(CALLER).render(inputs, constraint="none").constraint is None


@pytest.mark.parametrize(
    ("functions", "why"),
    [
        ("weather", "not a list"),
        (None, "not a list"),
        ([WEATHER, "area"], "number 2 has no name"),
        ([{"name": "", "parameters": {}}], "number 1 has no name"),
        ([{"name": 5}], "number 1 has no name"),
        ([WEATHER, AREA, WEATHER], "two functions are called 'weather'"),
        ([function(f"f{i}") for i in range(MAX_FUNCTIONS + 1)], "129 functions"),
    ],
)
def test_function_calls_invalid_functions_are_refused_before_request(functions: Any, why: str) -> None:
    for constraint in ("evidence", "none"):
        with pytest.raises(InputError) as caught:
            CompiledPrompt(CALLER).render({"question": "q", "functions": functions}, constraint=constraint)
        assert caught.value.code == "A016"
        assert why in caught.value.message


@pytest.mark.parametrize(
    ("declared", "right", "wrong"),
    [
        (
            {"type": "dict", "properties": {"a": {"type": "int"}}, "required": ["a"]},
            [{"a": 1}],
            [{}, {"a": "x"}, {"a": 1, "b": 2}],
        ),
        ({"type": "dict"}, [{}, {"x": [1]}], ["x", 1]),
        ({"type": "object", "additionalProperties": {"type": "boolean"}}, [{"x": True}], [{"x": 1}]),
        ({"type": "array", "items": {"type": "array", "items": {"type": "integer"}}}, [[[1], []]], [[1], [["x"]]]),
        ({"type": "list", "minItems": 1, "maxItems": 2}, [[1], [1, "x"]], [[], [1, 2, 3]]),
        ({"type": "float", "minimum": 0, "maximum": 1}, [0, 0.5], [2, "0.5"]),
        ({"type": ["string", "null"]}, ["x", None], [1]),
        ({"anyOf": [{"type": "string"}, {"type": "integer"}]}, ["x", 1], [None]),
        ({"type": "boolean", "enum": ["True", "dontcare"]}, ["True", "dontcare"], [True, "no"]),
        ({"type": "quaternion"}, [1, "x", None, {"a": []}], []),
        ({"$ref": "file:///etc/passwd"}, [1, "x"], []),
        ({"type": "string", "pattern": "(a+)+$"}, ["b"], [1]),
        ("string", [1, "x"], []),
        ({"type": "array", "minItems": -1, "items": "x"}, [[], [1]], [1]),
        ({"type": "integer", "minimum": "low"}, [1], ["x"]),
    ],
)
def test_function_types_of_all_dialects_parse_and_unknown_is_any(
    declared: Any, right: list[Any], wrong: list[Any]
) -> None:
    functions = [function("f", ("x",), x=declared)]
    made = grammar(functions)
    for values, fine in ((right, True), (wrong, False)):
        for value in values:
            written = text(("f", {"x": value}))
            assert accepts(made, written) is fine, value
            assert (
                isinstance(OutputParser(CALLER).parse(written, inputs={"functions": functions}), ParsedOutput) is fine
            ), value


def test_function_calls_with_many_parameters_keep_only_names() -> None:
    big = {"name": "big", "parameters": {"properties": {f"p{i}": TEXT for i in range(MAX_TYPES + 1)}}}
    many = [big, WEATHER]
    assert accepts(grammar(many), text(("big", {"anything": 1})))
    assert not accepts(grammar(many), text(("phantom", {})))


def test_function_types_nesting_is_limited() -> None:
    deep: dict[str, Any] = {"type": "string"}
    for _ in range(200):
        deep = {"type": "array", "items": deep}
    assert accepts(grammar([function("f", x=deep)]), text(("f", {"x": [[[]]]})))


def test_function_calls_keep_lengths_of_card_type() -> None:
    output = {**OUTPUT, "properties": {"calls": {"type": "array", "items": CALL, "maxItems": 1}}}
    card = Card.declare("caller", input=INPUT, output=output, prompt="{{ question }}", calls={"calls": "functions"})
    assert accepts(grammar([WEATHER], card), RIGHT[1])
    assert not accepts(grammar([WEATHER], card), text(("weather", {"city": "a"}), ("weather", {"city": "b"})))


def test_function_calls_with_quotes_use_evidence_grammar() -> None:
    output = {
        **OUTPUT,
        "properties": {"why": {"type": "string", "format": "quote"}, **LISTED},
        "required": ["why", "calls"],
    }
    card = Card.declare(
        "caller", input=INPUT, output=output, prompt="{{ question }}", calls={"calls": "functions"}, evidence="question"
    )
    made = str(CompiledPrompt(card).render({"question": "Rain in Bern?", "functions": [WEATHER]}).constraint)
    assert "SOURCE_0" in made
    constraint = CompiledPrompt(card).render({"question": "Rain in Bern?", "functions": [WEATHER]}).constraint
    assert constraint is not None
    written = {"why": "Rain", "calls": [{"name": "weather", "arguments": {"city": "Bern"}}]}
    assert accepts(constraint.value, json.dumps(written))
    assert not accepts(constraint.value, json.dumps({**written, "why": "Snow"}))


@pytest.mark.parametrize(
    ("calls", "more", "why"),
    [
        ({"call": "functions"}, {}, "there is no output 'call'"),
        ({"calls": "function"}, {}, "there is no input 'function'"),
        ({"calls": "question"}, {}, "is not a list of functions"),
        (
            {"calls": "functions"},
            {"output": {**OUTPUT, "properties": {"calls": {"type": "array", "items": TEXT}}}},
            "not a list of records",
        ),
        ({"calls": "functions"}, {"kind": "python"}, "does not generate text"),
    ],
)
def test_function_calls_incompatible_card_is_refused(calls: Any, more: Any, why: str) -> None:
    with pytest.raises(InputError) as caught:
        Card.declare("caller", **{"input": INPUT, "output": OUTPUT, "prompt": "{{ question }}", "calls": calls, **more})
    assert caught.value.code == "A015"
    assert why in caught.value.message


def test_card_digest_covers_calls_only_if_set() -> None:
    assert CALLER.digest != PLAIN.digest
    assert PLAIN.digest == "9cfd48331669b2e1e94e8a0dc9bc2720", "as before there was the key"
    assert Card.restore(CALLER.dump()).digest == CALLER.digest
    assert Card.restore(CALLER.dump()).calls == {"calls": "functions"}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "enum", "items", "properties", "required", "x"]), inner)
    ),
    max_leaves=12,
)


@given(json_values, st.text(min_size=1))
def test_function_calls_any_declaration_raises_no_exception(parameters: Any, name: str) -> None:
    schema = narrow_output(OUTPUT, {"calls": "functions"}, {"functions": [{"name": name, "parameters": parameters}]})
    assert Validator(schema).is_valid({"calls": []})


@given(json_values)
def test_function_calls_value_that_is_no_function_is_refused(function: Any) -> None:
    with pytest.raises(InputError, match="A016"):
        narrow_output(OUTPUT, {"calls": "functions"}, {"functions": [function]})

"""The functions that an agent with tools may call next, as JSON Schemas."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from orchestra.agents.native_tools import NativeTools, ToolCall
from orchestra.router.function_schemas import MAX_REFERENCES, build_functions
from orchestra.router.plan_syntax import PlanStep, parse_line
from orchestra.router.tool_turns import encode_functions, parse_next_line
from tests.router.sample_capabilities import COMPARE, READER, SEARCH, STR, contract, offer

FIRST = "s1 = search(query=input.question, documents=input.documents)"


def step(text: str) -> PlanStep:
    line = parse_line(text)
    assert isinstance(line, PlanStep)
    return line


def properties(tools: NativeTools, name: str) -> dict[str, Any]:
    return next(one.parameters["properties"] for one in tools.functions if one.name == name)


def test_functions_take_constants_or_named_values() -> None:
    tools = build_functions(offer(SEARCH), [])
    fields = properties(tools, "search")
    assert fields["documents"] == {"type": "string", "enum": ["input.documents"]}, "evidence is never stated"
    assert fields["query"]["type"] == "string"
    assert "input.question" in fields["query"]["description"]
    assert fields["top"] == {"type": "integer"}
    assert tools.functions[0].parameters["required"] == ["query", "documents"]
    assert tools.functions[0].description == "The passages that answer a query."


def test_functions_name_values_of_earlier_steps() -> None:
    before = build_functions(offer(SEARCH, READER), [])
    after = build_functions(offer(SEARCH, READER), [step(FIRST)])
    assert (before.step, after.step) == (1, 2)
    assert "s1[0].text" in properties(after, "reader")["context"]["description"]
    assert "s1[0].text" in after.references - before.references


def test_functions_typed_argument_is_constant_or_name() -> None:
    made = offer(COMPARE, values={"height": {"type": "number"}, "word": STR})
    fields = properties(build_functions(made, []), "compare")
    assert fields["first"] == {"anyOf": [{"type": "number"}, {"type": "string", "enum": ["input.height"]}]}
    assert fields["how"] == {"enum": ["more", "less"]}


def test_functions_name_limited_number_of_values() -> None:
    made = offer(COMPARE, values={f"height_{number}": {"type": "number"} for number in range(MAX_REFERENCES + 1)})
    tools = build_functions(made, [])
    _, named = properties(tools, "compare")["first"]["anyOf"]
    assert (len(named["enum"]), len(tools.references)) == (MAX_REFERENCES, MAX_REFERENCES + 1)


def test_functions_without_value_for_argument_are_left_out() -> None:
    assert build_functions(offer(SEARCH, values={"question": STR}), []).functions == ()


def test_functions_at_step_limit_are_none() -> None:
    assert build_functions(offer(SEARCH, steps=1), [step(FIRST)]).functions == ()


def test_functions_with_effects_get_no_untrusted_values() -> None:
    post = replace(contract("post", "tool", {"text": STR}, STR), effect="once")
    fields = properties(build_functions(offer(SEARCH, post), [step(FIRST)]), "post")
    assert "input.question" in fields["text"]["description"]
    assert "s1[0].text" not in fields["text"]["description"]


def test_functions_schema_accepts_what_validation_accepts() -> None:
    made = offer(SEARCH)
    tools = NativeTools.decode(encode_functions(made, [])["function_schemas"])
    assert tools is not None
    calls = [ToolCall("search", '{"query": "input.question", "documents": "input.documents", "top": 2}')]
    line = parse_next_line(tools.write_lines(calls, ""), made, [])
    assert str(line) == "s1 = search(query=input.question, documents=input.documents, top=2)"


def test_functions_too_long_are_left_out() -> None:
    wide = contract("wide", "tool", {f"field_{number}": STR for number in range(2_000)}, STR)
    assert encode_functions(offer(wide), []) == {}

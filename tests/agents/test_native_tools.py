"""Native function calling: names and definitions of functions, and the lines that calls become."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.agents.native_tools import MAX_LENGTH, NativeFunction, NativeTools, ToolCall, function_names
from orchestra.agents.tool_prompt import function_call_prompt, step_prompt
from orchestra.router.plan_syntax import PlanLiteral, PlanStep, parse_line

OBJECT = {"type": "object", "properties": {"query": {"type": "string"}}}
TOOLS = NativeTools(
    2,
    (NativeFunction("files_read", "files.read", "Reads a file.", OBJECT),),
    frozenset({"input.question", "s1"}),
)


def written(arguments: str, name: str = "files_read") -> str:
    return TOOLS.write_lines([ToolCall(name, arguments)], "")


def test_function_names_are_valid_and_distinct() -> None:
    long = "x" * 80
    names = function_names(["files.read", "files/read", "files_read", long, f"{long}y"])
    assert list(names.values()) == ["files_read", "files_read_2", "files_read_3", "x" * 60, "x" * 60 + "_2"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ('{"query": "a", "top": 3}', 's2 = files.read(query="a", top=3)'),
        ('{"query": "input.question"}', "s2 = files.read(query=input.question)"),
        ('{"query": "input.other"}', 's2 = files.read(query="input.other")'),
        ('{"query": ["s1"]}', 's2 = files.read(query=["s1"])'),
        ('{"query": "a\\nreturn"}', 's2 = files.read(query="a\\nreturn")'),
        ("{}", "s2 = files.read()"),
        ("", "s2 = files.read()"),
        ("null", "s2 = files.read()"),
        ("[1]", "s2 = files.read(arguments=[1])"),
        ("query\n=a", 's2 = files.read(arguments="query =a")'),
        ('{"query":\n"a', 's2 = files.read(arguments={"query": "a)'),
    ],
)
def test_native_tool_call_becomes_line(arguments: str, line: str) -> None:
    assert written(arguments) == line


@given(st.dictionaries(st.from_regex(r"[A-Za-z_]\w{0,9}", fullmatch=True).filter(str.isascii), st.text(), max_size=4))
def test_native_tool_call_texts_survive_in_one_line(arguments: dict[str, str]) -> None:
    line = parse_line(written(json.dumps(arguments), "other"))
    assert isinstance(line, PlanStep)
    assert line.arguments == {
        name: PlanLiteral(value) for name, value in arguments.items() if value not in TOOLS.references
    }


@given(st.text(max_size=40), st.text(max_size=40))
def test_native_tool_call_never_adds_a_line(name: str, arguments: str) -> None:
    assert "\n" not in written(arguments, name)
    assert written(arguments, name).startswith("s2 = ")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("Done.", "return"),
        ("Return it.", "return"),
        ("", ""),
        ("  \n", "  \n"),
        ("return", "return"),
        ("s2 = files.read()", "s2 = files.read()"),
        ("<tool_call>{}", "<tool_call>{}"),
        ('{"name": "files_read"}', '{"name": "files_read"}'),
        ('{"name": "files_read", "arguments": {"a"', '{"name": "files_read", "arguments": {"a"'),
        ('{"name": "files_read", "arguments": {}, "id": 1}', '{"name": "files_read", "arguments": {}, "id": 1}'),
        ("[]", "[]"),
        ('[{"name": "files_read", "arguments": {}}, 5]', '[{"name": "files_read", "arguments": {}}, 5]'),
    ],
)
def test_native_tools_text_without_calls(text: str, line: str) -> None:
    assert TOOLS.write_lines([], text) == line


CALL = '{"name": "files_read", "arguments": {"query": "a"}}'


@pytest.mark.parametrize(
    "text",
    [
        CALL,
        f"\n{CALL}\n",
        f"```json\n{CALL}\n```",
        f"```\n{CALL}\n```\nIt reads a file.",
        f"<tool_call>\n{CALL}\n</tool_call>",
        f"```xml\n<tool_call>{CALL}</tool_call>\n```",
        f"[{CALL}]",
        CALL.replace("arguments", "parameters"),
        '{"name": "files_read", "arguments": "{\\"query\\": \\"a\\"}"}',
    ],
)
def test_native_tools_call_in_text_becomes_line(text: str) -> None:
    assert TOOLS.write_lines([], text) == 's2 = files.read(query="a")'


@given(st.text(st.sampled_from('{}[]"<>`: ,name\\arguments'), max_size=30))
def test_native_tools_any_text_becomes_text(text: str) -> None:
    assert isinstance(TOOLS.write_lines([], text), str)


def test_native_tools_survive_encoding() -> None:
    assert NativeTools.decode(TOOLS.encode()) == TOOLS
    assert [NativeTools.decode(text) for text in ("", "{}", "no JSON", None, 5)] == [None] * 5


def test_native_tools_too_many_or_long_have_no_encoding() -> None:
    function = TOOLS.functions[0]
    assert NativeTools(1, (function,) * 129, frozenset()).encode() == ""
    long = NativeFunction("f", "f", "x" * MAX_LENGTH, OBJECT)
    assert NativeTools(1, (long,), frozenset()).encode() == ""


def test_native_tools_definitions_have_no_chat_tokens() -> None:
    function = NativeFunction("f", "f", "Ends.</tools>", {"properties": {"a": {"enum": ["<|im_end|>"]}}})
    text = json.dumps(NativeTools(1, (function,), frozenset()).definitions(), ensure_ascii=False)
    assert "</tools>" not in text
    assert "<|im_end|>" not in text


def test_function_call_prompt_lists_no_tools_and_asks_for_call() -> None:
    line = step_prompt("<!-- system -->\nBe brief.\n<!-- user -->\n{{ question }}")
    call = function_call_prompt(line)
    assert "{{ tools }}" in line
    assert "{{ tools }}" not in call
    assert all(part in call for part in ("Be brief.", "{{ question }}", "{{ values }}", "{{ steps }}"))
    assert call.rstrip().endswith("Call one function, or answer if no function is needed.")
    assert "the word return" not in call

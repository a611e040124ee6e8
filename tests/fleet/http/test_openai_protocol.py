"""Requests in each server's dialect, and strict parsing of responses in any chunks."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.agents.native_tools import ToolCall
from orchestra.fleet.http import openai_protocol
from orchestra.fleet.http.openai_protocol import ChatRequest, ChatStream, Completion
from orchestra.fleet.request_errors import RequestError

SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}
CHAT = ChatRequest(
    messages=[{"role": "user", "content": "hi"}],
    max_output=9,
    sampling={"temperature": 0.0, "top_k": 4},
    constraint={"json": SCHEMA},
    schema=SCHEMA,
    priority=-2,
    cache_salt="tenant",
)


def answer(**changes: Any) -> bytes:
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 3}}
    body = {
        "model": "m",
        "choices": [{"message": {"content": "text"}, "finish_reason": "stop"}],
        "usage": usage,
    } | changes
    return json.dumps({key: value for key, value in body.items() if value is not ...}).encode()


def read(received: bytes, dialect: Any = "vllm") -> Completion | RequestError:
    return openai_protocol.read_completion(b"{}", received, "m", dialect)


def test_chat_body_vllm_has_vllm_fields() -> None:
    body = json.loads(openai_protocol.chat_body(CHAT, "m", "vllm"))
    assert body["structured_outputs"] == {"json": SCHEMA}
    assert (body["priority"], body["cache_salt"], body["top_k"]) == (-2, "tenant", 4)
    assert body["vllm_xargs"] == {"orchestra_tenant": "tenant"}
    assert "response_format" not in body


@pytest.mark.parametrize("dialect", ["openai", "ollama", "llamacpp"])
def test_chat_body_others_get_response_format_only(dialect: Any) -> None:
    body = json.loads(openai_protocol.chat_body(CHAT, "m", dialect))
    assert body["response_format"]["json_schema"] == {"name": "output", "schema": SCHEMA, "strict": True}
    assert not body.keys() & {"structured_outputs", "priority", "cache_salt", "vllm_xargs"}


def test_chat_body_open_schema_is_not_strict() -> None:
    open_schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    body = json.loads(
        openai_protocol.chat_body(ChatRequest(messages=[], max_output=1, schema=open_schema), "m", "openai")
    )
    assert body["response_format"]["json_schema"]["strict"] is False


@pytest.mark.parametrize("dialect", ["openai", "ollama", "llamacpp", "vllm"])
def test_chat_body_tools_are_sent_as_given(dialect: Any) -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]
    body = json.loads(openai_protocol.chat_body(ChatRequest(messages=[], max_output=1, tools=tools), "m", dialect))
    assert body["tools"] == tools
    assert "tools" not in json.loads(openai_protocol.chat_body(CHAT, "m", dialect))


def test_completion_is_parsed_with_usage() -> None:
    result = read(answer())
    assert isinstance(result, Completion)
    assert (result.text, result.finish_reason, result.usage_is_exact) == ("text", "stop", True)
    assert (result.usage.prompt_tokens, result.usage.cached_tokens, result.usage.output_tokens) == (5, 3, 2)


@pytest.mark.parametrize(
    ("received", "code"),
    [
        (b"", "F209"),
        (b"   ", "F209"),
        (b"<!doctype html><h1>hello</h1>", "F209"),
        (b"not json", "F209"),
        (b"[]", "F209"),
        (b"null", "F209"),
        (b'{"choices": NaN}', "F209"),
        (b"\xff\xfe", "F209"),
        (b'{"a":' * 100_000, "F209"),
        (answer(choices=...), "F209"),
        (answer(choices=[]), "F209"),
        (answer(choices="x"), "F209"),
        (answer(choices=[{"message": {"content": None}}]), "F209"),
        (answer(choices=[{"message": {"content": 5}}]), "F209"),
        (answer(model="another"), "F211"),
        (answer(model=...), "F211"),
        (answer(error={"message": "out of memory"}), "F208"),
        (answer(choices=[{"message": {"content": "x"}, "finish_reason": "abort"}]), "F206"),
        (answer(choices=[{"message": {"content": "x"}, "finish_reason": "content_filter"}]), "F206"),
        (answer(choices=[{"message": {"content": "x" * (2 << 20)}}]), "F210"),
    ],
)
def test_completion_invalid_response_is_error(received: bytes, code: str) -> None:
    result = read(received)
    assert isinstance(result, RequestError)
    assert result.code == code


@pytest.mark.parametrize("usage", [..., None, {"prompt_tokens": -1, "completion_tokens": 2}, {"prompt_tokens": 4}])
def test_completion_invalid_usage_becomes_upper_bound(usage: Any) -> None:
    result = read(answer(usage=usage))
    assert isinstance(result, Completion)
    assert not result.usage_is_exact
    assert (result.usage.prompt_tokens, result.usage.output_tokens) == (len(b"{}"), len(b"text"))


@pytest.mark.parametrize("arguments", ['{"a": 1}', {"a": 1}])
@pytest.mark.parametrize("content", [None, "", "text", ...])
def test_completion_tool_calls_are_read(arguments: Any, content: Any) -> None:
    calls = [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": arguments}}, {"function": None}]
    message = {"role": "assistant", "tool_calls": calls} | ({} if content is ... else {"content": content})
    result = read(answer(choices=[{"message": message, "finish_reason": "tool_calls"}]))
    assert isinstance(result, Completion)
    (name, written), empty = ((call.name, call.arguments) for call in result.tool_calls)
    assert (name, json.loads(written), empty) == ("f", {"a": 1}, ("", ""))
    assert (result.text, result.finish_reason) == (content if isinstance(content, str) else "", "tool_calls")


def test_completion_tool_calls_empty_without_text_is_error() -> None:
    result = read(answer(choices=[{"message": {"content": None, "tool_calls": []}}]))
    assert isinstance(result, RequestError)
    assert result.code == "F209"


def test_completion_tool_calls_count_in_bound_and_limit() -> None:
    message = {"content": None, "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}
    result = read(answer(choices=[{"message": message}], usage=None))
    assert isinstance(result, Completion)
    assert result.usage.output_tokens == len("f{}")
    message["tool_calls"] = [{"function": {"name": "f", "arguments": "x" * (2 << 20)}}]
    refused = read(answer(choices=[{"message": message}]))
    assert isinstance(refused, RequestError)
    assert refused.code == "F210"


@pytest.mark.parametrize(
    ("dialect", "answered", "same"),
    [
        ("openai", "m-2026-01-01", True),
        ("openai", "other", False),
        ("ollama", "m", True),
        ("llamacpp", "some.gguf", True),
        ("vllm", "m-2", False),
    ],
)
def test_completion_of_another_model_is_error(dialect: Any, answered: str, same: bool) -> None:
    assert isinstance(read(answer(model=answered), dialect), Completion) is same


@given(st.binary(max_size=300))
def test_completion_random_bytes_never_raise(received: bytes) -> None:
    assert isinstance(read(received), Completion | RequestError)


def events(*texts: str, finish: str | None = "stop", usage: bool = True, done: bool = True) -> bytes:
    rows: list[Any] = [{"model": "m", "choices": [{"delta": {"role": "assistant", "content": ""}}]}]
    rows += [{"model": "m", "choices": [{"delta": {"content": text}}]} for text in texts]
    rows.append({"model": "m", "choices": [{"delta": {}, "finish_reason": finish}]})
    rows += (
        [{"model": "m", "choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": len(texts)}}] if usage else []
    )
    lines = [b"data: " + json.dumps(row, ensure_ascii=False).encode() for row in rows] + (
        [b"data: [DONE]"] if done else []
    )
    return b"\r\n\r\n".join([b": a comment", *lines]) + b"\n\n"


def stream(*blocks: bytes) -> tuple[Completion | RequestError, list[str]]:
    texts: list[str] = []
    reader = ChatStream("m", "vllm", texts.append)
    for block in blocks:
        if (fault := reader.feed(block)) is not None:
            return fault, texts
    return reader.result(b"{}", b"".join(blocks)), texts


def call_part(index: int | None, id: str | None, name: str | None, arguments: str | None) -> dict[str, Any]:
    """A part of a call in a stream, without the keys that are None."""
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    part = {"index": index, "id": id, "function": function}
    return {key: value for key, value in part.items() if value is not None}


@pytest.mark.parametrize(
    "parts",
    [
        [(0, "a", "f", ""), (0, None, None, '{"x"'), (0, None, None, ": 1}"), (1, "b", "g", "{}")],
        [(0, "a", "f", '{"x": 1}'), (0, "b", "g", "{}")],  # all calls have the index 0
        [(0, "a", "f", '{"x"'), (0, "a2", None, ": 1}"), (1, "b", "g", "{}")],  # every part has an identifier
        [(0, "a", "f", '{"x"'), (0, "a", "f", ": 1}"), (1, "b", "g", "{}")],  # every part has the name
        [(None, "a", "f", '{"x": 1}'), (None, "b", "g", "{}")],  # no call has an index
        [(1, "b", "f", '{"x"'), (2, "c", "g", "{}"), (1, None, None, ": 1}")],
    ],
)
def test_stream_tool_call_parts_are_assembled(parts: list[tuple[Any, ...]]) -> None:
    rows: list[Any] = [{"model": "m", "choices": [{"delta": {"tool_calls": [call_part(*part)]}}]} for part in parts]
    rows.append({"model": "m", "choices": [{"delta": {}, "finish_reason": "tool_calls"}]})
    result, texts = stream(b"".join(b"data: " + json.dumps(row).encode() + b"\n\n" for row in rows))
    assert isinstance(result, Completion)
    assert result.tool_calls == (ToolCall("f", '{"x": 1}'), ToolCall("g", "{}"))
    assert (result.text, texts) == ("", [])


def test_stream_tool_call_over_limit_is_error() -> None:
    part = call_part(0, None, "f", "x" * (1 << 19))
    row = b"data: " + json.dumps({"model": "m", "choices": [{"delta": {"tool_calls": [part]}}]}).encode() + b"\n\n"
    result, _ = stream(row, row, row)
    assert isinstance(result, RequestError)
    assert result.code == "F210"


@given(st.lists(st.integers(0, 700), max_size=8))
def test_stream_any_chunking_gives_same_result(cuts: list[int]) -> None:
    whole = events("Zürich ", "\N{SNOWMAN}", " \N{GRINNING FACE}", "\u2028end")
    points = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    result, texts = stream(*(whole[start:end] for start, end in itertools.pairwise(points)))
    assert isinstance(result, Completion)
    assert (result.text, result.usage.output_tokens) == ("Zürich \N{SNOWMAN} \N{GRINNING FACE}\u2028end", 4)
    assert "".join(texts) == result.text


@given(st.lists(st.binary(max_size=60), max_size=6))
def test_stream_random_bytes_never_raise(blocks: list[bytes]) -> None:
    assert isinstance(stream(*blocks)[0], Completion | RequestError)


@given(st.lists(st.binary(max_size=60), max_size=6))
def test_stream_random_data_lines_never_raise(blocks: list[bytes]) -> None:
    assert isinstance(stream(*(b"data: " + block + b"\n" for block in blocks))[0], Completion | RequestError)


def test_stream_finish_reason_without_done_is_complete() -> None:
    result, _ = stream(events("a", done=False))
    assert isinstance(result, Completion)


def test_stream_after_finish_lingers_for_usage() -> None:
    reader = ChatStream("m", "vllm", lambda _: None)
    waits: list[RequestError | float | None] = []
    for line in events("a")[:-1].splitlines(keepends=True):
        waits += [reader.feed(line) or reader.linger_seconds(), reader.feed(b": ping\n") or reader.linger_seconds()]
    found = [wait for wait in waits if wait is not None]
    assert found == [
        openai_protocol.FINISH_LINGER,
        openai_protocol.FINISH_LINGER,
        *[openai_protocol.DONE_LINGER] * 2,
    ], "the end, what it cost, and no comments before `[DONE]`"


@pytest.mark.parametrize(
    ("received", "code"),
    [
        (b"", "F209"),
        (events("a", finish=None, done=False), "F217"),
        (events("a", finish=None), "F217"),
        (b"data: [DONE]\n\n", "F217"),
        (events("a", finish="content_filter"), "F206"),
        (events("a")[:80], "F217"),
        (b"<html>no</html>\n", "F209"),
        (b'{"error": "no"}\n', "F208"),
        (b'{"error":\n {"message": "no"}}', "F208"),
        (b'\n\n{"choices":', "F209"),
        (b': begun\n{"error": "no"}\n', "F209"),
        (b"data: {broken\n\n", "F209"),
        (b'data: {"error": {"message": "out of memory"}}\n\n', "F208"),
        (b"data: " + b"x" * (3 << 20), "F210"),
        (events(*["x" * 300_000] * 5), "F210"),
        (events("a").replace(b'"m"', b'"n"'), "F211"),
    ],
)
def test_stream_broken_is_error(received: bytes, code: str) -> None:
    result, _ = stream(received)
    assert isinstance(result, RequestError)
    assert result.code == code


@pytest.mark.parametrize("size", [1, 2, 5, 10_000])
@pytest.mark.parametrize("begin", [b"", b"\xef\xbb\xbf", b"\n"])
def test_stream_and_completion_with_leading_bytes_are_parsed(begin: bytes, size: int) -> None:
    for body in (
        events("text")[len(b": a comment\r\n\r\n") :],
        answer(),
        json.dumps(json.loads(answer()), indent=1).encode(),
    ):
        received = begin + body
        result, texts = stream(*(received[at : at + size] for at in range(0, len(received), size)))
        assert isinstance(result, Completion)
        assert (result.text, texts, result.usage.prompt_tokens) == ("text", ["text"], 5)


@pytest.mark.parametrize(
    ("body", "good"),
    [(b'{"tokens": [1, 2], "count": 2}', True), (b'{"tokens": [1], "count": 2}', False), (b"[]", False)],
)
def test_tokenize_inconsistent_count_is_error(body: bytes, good: bool) -> None:
    assert isinstance(openai_protocol.read_tokens(body), tuple) is good

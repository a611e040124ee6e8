"""Redaction: a key that a server repeats is in no response, error or streamed text."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest

from orchestra.agents.native_tools import ToolCall
from orchestra.fleet.http import model_server
from orchestra.fleet.http.model_server import LARGE_RESPONSE_BYTES, ModelClient
from orchestra.fleet.http.openai_protocol import ChatRequest, Completion
from orchestra.fleet.request_errors import RequestError
from orchestra.fleet.secrets import auth_headers, contains_split_key, key_in_headers, redact_bytes

from .conftest import Visit, chat_answer, endpoints, raw_server, sending

CHAT = ChatRequest(messages=[{"role": "user", "content": "hi"}], max_output=5)
STREAMED = ChatRequest(messages=[{"role": "user", "content": "hi"}], max_output=5, stream=True)

PIECES = ("it is can", "ary/123", "456789, ca", "n it")
"""Parts of a stream, across which a key is split."""


def answers(body: bytes, status: str = "200 OK") -> Callable[[Visit], Any]:
    return lambda visit: visit.answer(body, status)


@pytest.mark.parametrize("status", ["401 Unauthorized", "400 Bad Request", "302 Found"])
@pytest.mark.parametrize("spelt", ["canary/123456789", "canary\\/123456789", "\\u0063anary/123456789"])
async def test_key_in_error_is_redacted(status: str, spelt: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "canary/123456789")
    said = f'{{"error": {{"message": "{"." * 290}Incorrect key: {spelt}"}}}}'
    async with (
        raw_server(answers(said.encode(), status)) as server,
        sending(endpoints(server.url, api_key="env:SOME_KEY")) as (sender, _),
    ):
        result = await ModelClient(sender).chat("s0", CHAT)
    assert "Authorization: Bearer canary/123456789" in server.visits[0].head
    assert isinstance(result, RequestError)
    assert "canary" not in result.reason
    assert b"canary" not in result.received


def called(arguments: str) -> bytes:
    """A response with a call of a function that has the name of the key."""
    message = {"content": None, "tool_calls": [{"function": {"name": "canary/123456789", "arguments": arguments}}]}
    return json.dumps({"model": "m", "choices": [{"message": message}]}).encode()


async def test_key_in_tool_call_is_redacted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "canary/123456789")
    async with (
        raw_server(answers(called('{"key": "canary/123456789"}'))) as server,
        sending(endpoints(server.url, api_key="env:SOME_KEY")) as (sender, _),
    ):
        result = await ModelClient(sender).chat("s0", CHAT)
    assert isinstance(result, Completion)
    assert result.tool_calls == (ToolCall("[the key]", '{"key": "[the key]"}'),)


async def test_key_split_in_tool_call_is_redacted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "canary/123456789")
    deltas = [
        {"index": 0, "function": {"name": "f"}},
        *({"index": 0, "function": {"arguments": one}} for one in PIECES),
    ]
    lines: list[Any] = [{"model": "m", "choices": [{"delta": {"tool_calls": [delta]}}]} for delta in deltas]
    lines.append({"model": "m", "choices": [{"delta": {}, "finish_reason": "tool_calls"}]})
    body = b"".join(b"data: " + json.dumps(line).encode() + b"\n\n" for line in lines) + b"data: [DONE]\n\n"
    async with (
        raw_server(answers(body)) as server,
        sending(endpoints(server.url, api_key="env:SOME_KEY")) as (sender, _),
    ):
        result = await ModelClient(sender).chat("s0", STREAMED)
    assert isinstance(result, Completion)
    assert result.tool_calls == (ToolCall("f", "it is [the key], can it"),)
    assert b"canary" not in result.received


async def test_key_split_in_stream_is_redacted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "canary/123456789")
    lines = [{"model": "m", "choices": [{"delta": {"content": piece}}]} for piece in PIECES]
    lines.append({"model": "m", "choices": [{"delta": {}, "finish_reason": "stop"}]})
    body = b"".join(b"data: " + json.dumps(line).encode() + b"\n\n" for line in lines) + b"data: [DONE]\n\n"
    heard: list[str] = []
    async with (
        raw_server(answers(body)) as server,
        sending(endpoints(server.url, api_key="env:SOME_KEY")) as (sender, _),
    ):
        result = await ModelClient(sender).chat("s0", STREAMED, on_text=heard.append)
    assert isinstance(result, Completion)
    assert result.text == "".join(heard) == "it is [the key], can it"
    assert b"canary" not in result.received


@pytest.mark.parametrize("ends", [True, False])
@pytest.mark.parametrize("field", ["content", "reasoning_content", "reasoning"])
async def test_key_split_drops_stored_bytes(field: str, ends: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "canary/123456789")
    lines: list[Any] = [
        {"model": "m", "choices": [{"delta": {field: piece}}]} for piece in ("can", "ary/123", "456789.")
    ]
    if ends:
        lines.append({"model": "m", "choices": [{"delta": {"content": "hi"}, "finish_reason": "stop"}]})
    body = b"".join(b"data: " + json.dumps(line).encode() + b"\n\n" for line in lines)
    async with (
        raw_server(answers(body)) as server,
        sending(endpoints(server.url, api_key="env:SOME_KEY")) as (sender, _),
    ):
        result = await ModelClient(sender).chat("s0", STREAMED)
    assert isinstance(result, Completion if ends else RequestError)
    assert result.received == b""


async def test_key_in_token_list_drops_stored_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "canary/123456789")
    tokens = [{"token": text, "logprob": -0.1} for text in ("it is ", "canary", "/123", "456789")]
    message = {"role": "assistant", "content": "it is canary/123456789"}
    answer = {"model": "m", "choices": [{"message": message, "finish_reason": "stop", "logprobs": {"content": tokens}}]}
    body = json.dumps(answer).encode()
    async with (
        raw_server(answers(body)) as server,
        sending(endpoints(server.url, api_key="env:SOME_KEY")) as (sender, _),
    ):
        result = await ModelClient(sender).chat("s0", CHAT)
    assert isinstance(result, Completion)
    assert (result.text, result.tokens, result.received) == ("it is [the key]", (), b"")


@pytest.mark.parametrize(("size", "beside"), [(100, False), (LARGE_RESPONSE_BYTES, True)])
async def test_key_search_of_long_response_uses_thread(
    size: int, beside: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[threading.Thread] = []

    def watched(received: bytes, key: str) -> bool:
        threads.append(threading.current_thread())
        return contains_split_key(received, key)

    monkeypatch.setattr(model_server, "contains_split_key", watched)
    monkeypatch.setenv("SOME_KEY", "canary/123456789")
    message = {"role": "assistant", "content": "." * size + "canary/123456789"}
    body = json.dumps({"model": "m", "choices": [{"message": message, "finish_reason": "stop"}]}).encode()
    async with (
        raw_server(answers(body)) as server,
        sending(endpoints(server.url, api_key="env:SOME_KEY")) as (sender, _),
    ):
        result = await ModelClient(sender).chat("s0", CHAT)
    assert isinstance(result, Completion)
    assert result.text.endswith(".[the key]")
    assert [one is not threading.main_thread() for one in threads] == [beside]


@pytest.mark.parametrize(
    "spelt",
    [
        r"sk+a/b=c<d>&\"é😀12345",
        r"sk\u002Ba\/b\u003dc\u003Cd\u003e\u0026\u0022\u00E9\ud83d\uDE0012345",
        r"sk+a/b=c\u003cd>&\"\u00e9😀12345",
    ],
)
def test_key_escaped_in_json_is_redacted(spelt: str) -> None:
    said = '{"error": "bad\\n%s"}'
    assert json.loads(said % spelt)["error"] == 'bad\nsk+a/b=c<d>&"é😀12345'
    assert redact_bytes((said % spelt).encode(), 'sk+a/b=c<d>&"é😀12345').decode() == said % "[the key]"


@pytest.mark.parametrize(
    "word", ["ollama", "not-required", "no-key-needed", "dummy-api-key", "token-abc123", "sk-no-key-required"]
)
async def test_key_placeholder_word_is_not_redacted(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", word)
    body = chat_answer(f"Status: {word}.")
    async with (
        raw_server(answers(body)) as server,
        sending(endpoints(server.url, api_key="env:SOME_KEY")) as (sender, _),
    ):
        result = await ModelClient(sender).chat("s0", CHAT)
    assert isinstance(result, Completion)
    assert result.text == f"Status: {word}."


@pytest.mark.parametrize(
    "key", ["sk-proj-Ab3dEf6hIj9lMn2p", "hf_QwErTyUiOpAsDfGhJkLzXc", "5f3a91c07be24d18", "gsk_a1b2c3d4e5f6g7h8"]
)
def test_key_of_provider_is_redacted(key: str) -> None:
    assert key_in_headers(auth_headers(key)) == key

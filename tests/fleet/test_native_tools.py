"""Questions for a line of an agent with tools: which servers get functions, and what happens if they are refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from orchestra.agents.card import Card
from orchestra.agents.native_tools import NativeFunction, NativeTools
from orchestra.core.protocols import CallError, CallEstimate, CallRequest, CallResult
from orchestra.fleet.call_estimates import CallEstimator
from orchestra.fleet.config import endpoint_fleet
from orchestra.fleet.progress import Progress
from tests.e2e.model_servers import ModelServer, Reply, Software, serve, tool_call, tool_calls

from .calling import TEXT, call, only, opened
from .conftest import endpoints

OBJECT = {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]}
TOOLS = NativeTools(1, (NativeFunction("find", "find", "Finds a text.", OBJECT),), frozenset({"input.text"}))
LINE = 's1 = find(query="x")'


def agent_cards(**settings: Any) -> tuple[Card, Card]:
    """Returns an agent with tools, and its card for a line."""
    card = Card.declare(
        "guide", input=TEXT, output={"type": "string"}, prompt="{{ text }}", tools=("find",), **settings
    )
    assert card.tool_use_cards is not None
    return card, card.tool_use_cards[0]


def question(line: Card, **inputs: Any) -> CallRequest:
    """Returns the question for the next line."""
    given = {"text": "hello", "tools": "find(query: str) -> str", "values": "input.text: str", "steps": ""}
    asked = {**given, "grammar": 'start: "return"', "function_schemas": TOOLS.encode(), **inputs}
    return call("guide", version=line.digest, inputs=asked)


def caller(body: Mapping[str, Any]) -> Reply:
    """Calls the function if there is one, and else writes a line."""
    return tool_calls(tool_call("find", {"query": "x"})) if "tools" in body else LINE


async def sent(server: ModelServer, call: CallRequest, cards: tuple[Card, Card], **fleet: Any) -> list[dict[str, Any]]:
    """Makes a call on a fleet of this server, and returns the chat requests that it received."""
    async with serve(server) as address:
        config = endpoints(address.removesuffix("/v1"), model="qwen3:4b", **fleet)
        async with opened(config, {"guide": cards[0]}, {cards[1].digest: cards[1]}) as opened_fleet:
            result = await only(opened_fleet, call)
    assert isinstance(result, CallResult), result
    assert result.value == LINE
    return server.chats


@pytest.mark.parametrize("dialect", ["openai", "ollama", "llamacpp", "vllm"])
async def test_native_tools_are_sent_to_endpoint(dialect: str) -> None:
    card, line = agent_cards()
    [chat] = await sent(ModelServer("lm-studio", answer=caller), question(line), (card, line), dialect=dialect)
    assert chat["tools"] == TOOLS.definitions()
    assert "structured_outputs" not in chat


async def test_native_tools_vllm_with_guidance_gets_grammar() -> None:
    card, line = agent_cards()
    fleet = {"dialect": "vllm", "structured_outputs": "guidance"}
    [chat] = await sent(ModelServer("vllm", answer=caller), question(line), (card, line), **fleet)
    assert "tools" not in chat
    assert chat["structured_outputs"] == {"grammar": 'start: "return"'}
    assert "Tools:\nfind(query: str)" in chat["messages"][-1]["content"]


async def test_native_tools_adapter_of_the_model_writes_lines(tmp_path: Path) -> None:
    (tmp_path / "tuned").mkdir()
    (tmp_path / "agent.yaml").write_text(
        "name: guide\ninput: {text: str}\noutput: str\nadapter: tuned\ntools: [find]\n"
    )
    (tmp_path / "prompt.md").write_text("{{ text }}")
    for base, native in (("qwen3:4b", False), ("another", True)):
        (tmp_path / "tuned" / "manifest.json").write_text(json.dumps({"base": base}))
        card = Card.load(tmp_path)
        assert card.tool_use_cards is not None
        line = card.tool_use_cards[0]
        server = ModelServer("vllm", adapters={"tuned": "qwen3:4b"}, answer=caller)
        [chat] = await sent(server, question(line), (card, line), dialect="vllm")
        assert ("tools" in chat) is native


@pytest.mark.parametrize("functions", ["", "no JSON", "{}", ...])
async def test_native_tools_without_functions_asks_for_line(functions: Any) -> None:
    card, line = agent_cards()
    asked = question(line)
    inputs = {key: value for key, value in asked.inputs.items() if key != "function_schemas"}
    inputs |= {} if functions is ... else {"function_schemas": functions}
    asked = call("guide", version=line.digest, inputs=inputs)
    [chat] = await sent(ModelServer("lm-studio", answer=caller), asked, (card, line))
    assert "tools" not in chat


@pytest.mark.parametrize("software", ["openai", "ollama", "llama.cpp", "lm-studio", "vllm"])
async def test_native_tools_refused_is_reported_once(software: Software) -> None:
    card, line = agent_cards()
    reports: list[Progress] = []
    server = ModelServer(software, answer=caller, refuses_tools=True)
    cards, kept = {"guide": card}, {line.digest: line}
    async with serve(server) as address, opened(endpoint_fleet(address), cards, kept, reports.append) as fleet:
        results = [await only(fleet, question(line)) for _ in range(3)]
    assert [result.value for result in results if isinstance(result, CallResult)] == [LINE] * 3
    assert ["tools" in chat for chat in server.chats] == [True, False, False, False]
    assert [one.message for one in reports if "tools" in one.message] == [
        "endpoint refuses requests with `tools`: its model is asked to write calls as text"
    ]


async def test_native_tools_other_refusal_is_not_remembered() -> None:
    card, line = agent_cards()
    reports: list[Progress] = []
    server = ModelServer("openai", answer=caller, fault=(400, "Invalid request"))
    cards, kept = {"guide": card}, {line.digest: line}
    async with serve(server) as address, opened(endpoint_fleet(address), cards, kept, reports.append) as fleet:
        refused = await only(fleet, question(line))
        server.fault = None
        assert isinstance(await only(fleet, question(line)), CallResult)
    assert isinstance(refused, CallError)
    assert refused.code == "F207"
    assert ["tools" in chat for chat in server.chats] == [True, False, True]
    assert not any("tools" in one.message for one in reports)


async def test_native_tools_streamed_call_becomes_line() -> None:
    card, line = agent_cards()
    server = ModelServer("openai", answer=caller)
    cards, kept = {"guide": card}, {line.digest: line}
    async with serve(server) as address, opened(endpoint_fleet(address), cards, kept) as fleet:
        result = await only(fleet, question(line), stream=True)
    assert isinstance(result, CallResult)
    assert result.value == LINE
    assert server.chats[0]["stream"]


def estimated(call: CallRequest, cards: tuple[Card, Card], **settings: Any) -> CallEstimate:
    """Returns the estimate of a call on a fleet of one endpoint."""
    config = endpoints("http://127.0.0.1:1", revision="1", **settings)
    kept = {cards[1].digest: cards[1]}
    return CallEstimator(config=config, cards={"guide": cards[0]}, cards_by_digest=kept).estimate(call)


def test_native_tools_estimate_covers_functions() -> None:
    cards = agent_cards()
    wide = NativeFunction("find", "find", "x" * 5_000, OBJECT)
    asked = question(cards[1], function_schemas=NativeTools(1, (wide,), frozenset()).encode())
    native = estimated(asked, cards, dialect="openai")
    lines = estimated(asked, cards, dialect="vllm", structured_outputs="guidance")
    assert native.prompt_tokens > 5_000 > lines.prompt_tokens


def test_native_tools_memo_key_contains_functions() -> None:
    cards = agent_cards()
    other = NativeTools(1, (NativeFunction("find", "find", "Finds.", OBJECT),), frozenset())
    asked = [question(cards[1]), question(cards[1], function_schemas=other.encode())]
    keys = [estimated(one, cards, dialect="openai").memo_key for one in asked]
    assert all(keys)
    assert keys[0] != keys[1]

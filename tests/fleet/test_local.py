"""Tools and agents without a server: their values, their faults, their labels."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest

from orchestra.agent.card import Card
from orchestra.agent.contract import Contract
from orchestra.agent.registry import Registry
from orchestra.agent.tool import ToolFunction, signature
from orchestra.doors import Call, Done, Refused
from orchestra.fleet.local import LocalWorkers
from orchestra.values.models import Document


def shout(text: str) -> str:
    if text == "boom":
        raise RuntimeError("out of breath")
    return text.upper()


async def whisper(text: str) -> str:
    await asyncio.sleep(0 if text != "long" else 60)
    return text.lower()


def first(documents: list[Document]) -> Document:
    return documents[0]


def lies(text: str) -> int:
    return text  # type: ignore[return-value]


def add(left: int, right: int) -> int:
    return left + right


@dataclass
class Known:
    registry: Registry


def workers() -> LocalWorkers:
    inputs, outputs = signature(add)
    code = ToolFunction(Contract("adder", "agent", inputs, outputs, label="internal"), add)
    tools = [ToolFunction.of(function, effect="pure") for function in (shout, whisper, first, lies)]
    return LocalWorkers(Known(Registry().with_tools([*tools, code])))


async def run(name: str, inputs: dict[str, Any], **more: Any) -> Done | Refused:
    given: dict[str, Any] = {"run": "r", "node": "n", "attempt": 1, "kind": "tool", "name": name, "inputs": inputs} | more
    (reply,) = [reply async for reply in workers().run(Call(**given))]
    assert isinstance(reply, Done | Refused)
    return reply


@pytest.mark.parametrize(
    ("name", "inputs", "value"),
    [
        ("shout", {"text": "hi"}, "HI"),
        ("whisper", {"text": "HI"}, "hi"),
        ("first", {"documents": [{"source": "a", "text": "b"}]}, {"source": "a", "text": "b"}),
    ],
)
async def test_a_tool_gets_its_own_types_and_gives_json(name: str, inputs: dict[str, Any], value: Any) -> None:
    done = await run(name, inputs)
    assert isinstance(done, Done)
    assert (done.value, done.usage.calls, done.server) == (value, 1, "local")


@pytest.mark.parametrize(
    ("name", "inputs", "code", "retryable"),
    [
        ("shout", {"text": 5}, "T002", False),
        ("shout", {}, "T002", False),
        ("shout", {"text": "boom"}, "T003", True),
        ("lies", {"text": "x"}, "T004", False),
        ("shuot", {"text": "x"}, "T005", False),
    ],
)
async def test_what_a_tool_does_wrong_is_a_refusal(name: str, inputs: dict[str, Any], code: str, retryable: bool) -> None:
    refused = await run(name, inputs)
    assert isinstance(refused, Refused)
    assert (refused.code, refused.retryable) == (code, retryable)


async def test_the_users_own_exception_is_named() -> None:
    refused = await run("shout", {"text": "boom"})
    assert isinstance(refused, Refused)
    assert "RuntimeError: out of breath" in refused.reason


async def test_a_tool_that_takes_too_long_is_given_up() -> None:
    refused = await run("whisper", {"text": "long"}, timeout=0.05)
    assert isinstance(refused, Refused)
    assert (refused.code, refused.retryable) == ("T007", True)


async def test_an_agent_of_code_sees_no_data_beyond_its_label() -> None:
    done = await run("adder", {"left": 1, "right": 2}, kind="agent")
    refused = await run("adder", {"left": 1, "right": 2}, kind="agent", label="restricted")
    assert isinstance(done, Done)
    assert done.value == 3
    assert isinstance(refused, Refused)
    assert refused.code == "F202"


async def test_an_agent_that_asks_a_model_does_not_run_here() -> None:
    text = {"type": "object", "properties": {}, "required": []}
    card = Card.declared("reader", input=text, output={"type": "string"}, prompt="hi")
    known = Known(Registry().with_cards([card]))
    call = Call(run="r", node="n", attempt=1, kind="agent", name="reader", inputs={})
    (reply,) = [reply async for reply in LocalWorkers(known).run(call)]
    assert isinstance(reply, Refused)
    assert reply.code == "F201"

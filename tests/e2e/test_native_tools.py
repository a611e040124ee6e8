"""Agents with tools on servers with OpenAI's API: the model calls functions in the server's own form."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from orchestra import Orchestra, RunFailed, agent, answered_by_model, tool, workflow
from orchestra.agents.card_file import ToolLimits
from orchestra.app.result import Result
from orchestra.core.events import AttemptFinished
from orchestra.core.settings import Settings
from tests.e2e.model_servers import ModelServer, Reply, Software, serve, tool_call, tool_calls

QUESTION = "How high is the Eiffel Tower?"
HEIGHTS = {"Eiffel Tower": 330, "Tokyo Tower": 333, QUESTION: 7}
SOFTWARE: tuple[Software, ...] = ("openai", "ollama", "llama.cpp", "lm-studio", "vllm")
CALL = tool_calls(tool_call("height_of", {"tower": "Eiffel Tower"}))


@tool(effect="pure")
def height_of(tower: str, floors: int = 0) -> int:
    """Returns the height of a tower in metres."""
    return HEIGHTS[tower]


@tool(effect="once")
def post(text: str) -> str:
    """Sends a text."""
    return f"sent {text}"


@agent(prompt="{{ question }}", tools=[height_of, post], limits=ToolLimits(steps=2, repairs=1), max_output=80)
def guide(question: str) -> str:
    """Answers questions about towers."""
    return answered_by_model()


@workflow()
def posted(question: str) -> str:
    """May send a text."""
    return guide.options(tools=[post])(question=question)


class Model:
    """Answers the questions for a line with these replies in order, then with `Done.`; and the question for the answer
    with the last result.
    """

    def __init__(self, *replies: Reply) -> None:
        self._replies = iter(replies)

    def __call__(self, body: Mapping[str, Any]) -> Reply:
        prompt = body["messages"][-1]["content"]
        if "tools" in body or "Write one line" in prompt:
            return next(self._replies, "Done.")
        return prompt.rpartition("\n-> ")[2].split("\n")[0] if "\n-> " in prompt else "unknown"


async def run(server: ModelServer, folder: Path, *, runs: int = 1, callee: Any = guide) -> Result[Any]:
    """Runs an agent on a server."""
    (folder / "orchestra.toml").write_text("")
    async with serve(server) as address:
        settings = Settings.load({"endpoint": address, "journal": "off"}, start=folder, environ={})
        async with Orchestra.open(settings) as orchestra:
            results = [await orchestra.run(callee, question=QUESTION) for _ in range(runs)]
    return results[-1]


def lines(result: Result[Any]) -> list[str]:
    """Returns the lines that the model wrote."""
    ended = [event for event in result.events if isinstance(event, AttemptFinished)]
    return [str(event.value) for event in ended if event.node.endswith("/line")]


def prompt(body: Mapping[str, Any]) -> str:
    return str(body["messages"][-1]["content"])


@pytest.mark.parametrize("software", SOFTWARE)
async def test_native_tools_of_each_server_are_called(software: Software, tmp_path: Path) -> None:
    server = ModelServer(software, answer=Model(CALL))
    result = await run(server, tmp_path)
    assert result.output == "330"
    assert lines(result) == ['s1 = height_of(tower="Eiffel Tower")', "return"]
    first, second, third = server.chats
    assert first["tools"] == [
        {
            "type": "function",
            "function": {
                "name": "height_of",
                "description": "Returns the height of a tower in metres.",
                "parameters": {
                    "type": "object",
                    "properties": {
                        "tower": {
                            "type": "string",
                            "description": "A text, or the name of a value: input.question",
                        },
                        "floors": {"default": 0, "type": "integer"},
                    },
                    "required": ["tower"],
                    "additionalProperties": False,
                },
            },
        }
    ]
    assert not first.keys() & {"response_format", "structured_outputs"}
    assert "Tools:" not in prompt(first)
    assert 's1 = height_of(tower="Eiffel Tower")\n-> 330' in prompt(second)
    assert "tools" not in third


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (tool_calls(tool_call("heigth_of", {"tower": "Eiffel Tower"})), "no 'heigth_of'; did you mean height_of?"),
        (tool_calls(tool_call("height of!", {"tower": "Eiffel Tower"})), "there is no 'height_of_'"),
        (tool_calls(tool_call("", {})), "there is no 'nothing'"),
        (tool_calls(tool_call("height_of", '{"tower": "Eiffel')), "that begins here does not end"),
        (tool_calls(tool_call("height_of", '{"tower": }')), "no JSON: "),
        (tool_calls(tool_call("height_of", "Eiffel Tower")), "height_of takes no 'arguments'"),
        (tool_calls(tool_call("height_of", ["Eiffel Tower"])), "height_of takes no 'arguments'"),
        (tool_calls(tool_call("height_of", "")), "height_of needs tower"),
        (tool_calls(tool_call("height_of", {"tower": 3})), "/steps/1/with/tower"),
        (tool_calls(tool_call("height_of", {"tower": "x", "floors": "x"})), "/steps/1/with/floors"),
        (tool_calls(tool_call("height_of", {"name": "Eiffel Tower"})), "height_of takes no 'name'"),
        (tool_calls(tool_call("post", {"text": "x"})), "there is no 'post'"),
        ('<tool_call>\n{"name": "height_of"}\n</tool_call>', "a step begins with its name"),
        ('{"name": "height_of", "arguments": {}}', "height_of needs tower"),
    ],
)
async def test_native_tool_call_malformed_is_repaired(reply: Reply, reason: str, tmp_path: Path) -> None:
    server = ModelServer("openai", answer=Model(reply, CALL))
    result = await run(server, tmp_path)
    assert result.output == "330"
    rejected = prompt(server.chats[1]).partition("\n!! ")[2].partition("</steps>")[0]
    assert reason in rejected
    assert "tools" in server.chats[1]


async def test_native_tool_call_malformed_twice_fails(tmp_path: Path) -> None:
    wrong = tool_calls(tool_call("heigth_of", {}))
    with pytest.raises(RunFailed) as caught:
        await run(ModelServer("openai", answer=Model(wrong, wrong)), tmp_path)
    assert caught.value.code == "A022"


async def test_native_tool_calls_several_first_counts(tmp_path: Path) -> None:
    first, second = (tool_call("height_of", {"tower": name}) for name in ("Eiffel Tower", "Tokyo Tower"))
    result = await run(ModelServer("openai", answer=Model(tool_calls(first, second))), tmp_path)
    assert result.output == "330"
    assert [event.node for event in result.events if isinstance(event, AttemptFinished)][1:] == [
        "result#2/s1",
        "result#3/line",
        "result#4/answer",
    ]


async def test_native_tool_call_repeated_is_rejected(tmp_path: Path) -> None:
    server = ModelServer("openai", answer=Model(CALL, CALL))
    assert (await run(server, tmp_path)).output == "330"
    assert "it is the same call as s1" in prompt(server.chats[2])


async def test_native_tool_call_with_text_beside_is_called(tmp_path: Path) -> None:
    server = ModelServer("openai", answer=Model({**CALL, "content": "I will look it up.\nreturn"}))
    result = await run(server, tmp_path)
    assert lines(result) == ['s1 = height_of(tower="Eiffel Tower")', "return"]


@pytest.mark.parametrize("text", ["It is 330 metres high.", "return", "Return the height?"])
async def test_native_tools_text_asks_for_answer(text: str, tmp_path: Path) -> None:
    result = await run(ModelServer("openai", answer=Model(text)), tmp_path)
    assert (lines(result), result.output) == (["return"], "unknown")


@pytest.mark.parametrize(
    "text",
    [
        's1 = height_of(tower="Eiffel Tower")',
        '{"name": "height_of", "arguments": {"tower": "Eiffel Tower"}}',
        '```json\n{"name": "height_of", "arguments": {"tower": "Eiffel Tower"}}\n```\nIt calls a function.',
    ],
)
async def test_native_tools_call_as_text_is_accepted(text: str, tmp_path: Path) -> None:
    result = await run(ModelServer("ollama", answer=Model(text)), tmp_path)
    assert result.output == "330"


async def test_native_tool_call_named_value_is_reference(tmp_path: Path) -> None:
    call = tool_call("height_of", {"tower": "input.question"})
    result = await run(ModelServer("openai", answer=Model(tool_calls(call))), tmp_path)
    assert (lines(result)[0], result.output) == ("s1 = height_of(tower=input.question)", "7")


async def test_native_tools_at_step_limit_are_left_out(tmp_path: Path) -> None:
    second = tool_calls(tool_call("height_of", {"tower": "Tokyo Tower"}))
    server = ModelServer("openai", answer=Model(CALL, second))
    assert (await run(server, tmp_path)).output == "333"
    assert ["tools" in chat for chat in server.chats] == [True, True, False, False]


async def test_native_tools_with_effects_need_permission(tmp_path: Path) -> None:
    server = ModelServer("openai", answer=Model(tool_calls(tool_call("post", {"text": "hello"}))))
    result = await run(server, tmp_path, callee=posted)
    assert json.loads(result.output) == "sent hello"
    names = [[one["function"]["name"] for one in chat.get("tools", ())] for chat in server.chats]
    assert names == [["height_of", "post"], ["height_of"], []], "after a result no effect is offered"


@pytest.mark.parametrize("software", SOFTWARE)
async def test_native_tools_refused_are_asked_as_lines(software: Software, tmp_path: Path) -> None:
    line = 's1 = height_of(tower="Eiffel Tower")'
    server = ModelServer(software, answer=Model(line, "return", line, "return"), refuses_tools=True)
    result = await run(server, tmp_path, runs=2)
    assert result.output == "330"
    assert ["tools" in chat for chat in server.chats] == [True, *[False] * 6]
    assert "Tools:\nheight_of(tower: str, floors?: int) -> int" in prompt(server.chats[1])

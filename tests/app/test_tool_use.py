"""An agent with tools in a project: a card in a folder, packaged tools, a server with vLLM's API, resumed runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from orchestra import InputError, Orchestra, agent, answered_by_model, tool, workflow
from orchestra.agents.card import Card
from orchestra.core.events import AttemptFinished, TurnStarted
from orchestra.core.settings import Settings
from orchestra.learn.data.traces import TraceFilter, collect_traces
from orchestra.testing import SimulatedRequest, SimulatedServer
from orchestra.workflows.yaml.reader import read
from orchestra.workflows.yaml.writer import write
from tests.cli.shell import Shell, shell

__all__ = ["shell"]

CARD = """\
schema: orchestra/v1
name: researcher
description: Looks things up in documents, and answers with a quote.
input: {question: str, documents: "list[Document]"}
output: {answer: str, quote: Quote}
tools: [search]
limits: {steps: 2}
checks: [quote]
otherwise: [abstain]
max_output: 60
"""
PROMPT = "<!-- system -->\nYou look things up.\n<!-- user -->\n{{ question }}\n"
FLEET = """\
schema: orchestra/fleet/v1
name: here
servers: {it: {endpoint: "URL/v1", model: m, dialect: vllm, max_model_len: 8000, label: internal}}
models: {base: it}
"""
DOCUMENTS = [{"source": "tower.txt", "text": "The tower was opened in 1889. It is made of iron."}]
WHEN = {"question": "When was it opened?", "documents": DOCUMENTS}
LINES = ["s1 = search(query=input.question, documents=input.documents, top=1)", "return"]


def furnish(project: Path, card: str = CARD) -> None:
    home = project / "agents" / "researcher"
    home.mkdir(parents=True)
    (home / "agent.yaml").write_text(card)
    (home / "prompt.md").write_text(PROMPT)
    (project / "orchestra.toml").write_text("")


def model(request: SimulatedRequest) -> Any:
    """Writes the next line as text if a line is requested, otherwise the answer."""
    if "tools" in request.body:
        return LINES[request.prompt.count("\n-> ")]
    return {"answer": "1889", "quote": "opened in 1889"}


@asynccontextmanager
async def opened(project: Path, **behaviour: Any) -> AsyncIterator[tuple[Orchestra, SimulatedServer]]:
    async with SimulatedServer("m", answer=model, **behaviour) as server:
        (project / "here.yaml").write_text(FLEET.replace("URL", server.url))
        settings = Settings.load({"fleet": str(project / "here.yaml")}, start=project)
        async with Orchestra.open(settings, fleet="none") as orchestra:
            yield orchestra, server


async def test_tool_use_runs_on_real_server(tmp_path: Path) -> None:
    furnish(tmp_path)
    async with opened(tmp_path) as (orchestra, server):
        result = await orchestra.run(orchestra.find("researcher"), **WHEN)
        assert result.output == {"answer": "1889", "quote": "opened in 1889"}
        assert [(one.quote, one.source) for one in result.evidence] == [("opened in 1889", "tower.txt")]
        first, second, third = [request for request in server.app.requests if request.path == "/v1/chat/completions"]
        for request in (first, second):
            assert request.prompt.startswith("You look things up.\nValues:\ninput.question: str")
            assert [one["function"]["name"] for one in request.body["tools"]] == ["search"]
        assert third.prompt.startswith("You look things up.\nTools:\nsearch(query: str, documents: list[Document]")
        assert "tools" not in third.body
        assert '-> [{"source": "tower.txt"' in second.prompt
        assert "structured_outputs" not in second.body  # an endpoint has no grammars, so the gates check its output
        assert list(third.body["structured_outputs"]["json"]["properties"]) == ["answer", "quote"]


async def test_tool_use_resumed_by_other_process_on_stored_card(tmp_path: Path) -> None:
    furnish(tmp_path)
    async with opened(tmp_path, faults=lambda request: "stall" if request.number == 2 else "") as (orchestra, server):
        run = await orchestra.start(orchestra.find("researcher"), **WHEN)
        async for event in run:
            if isinstance(event, TurnStarted) and event.turn == 3:
                break
        name = run.id
    (tmp_path / "agents" / "researcher" / "prompt.md").write_text("Something else: {{ question }}")
    async with opened(tmp_path) as (orchestra, server):
        resumed = await orchestra.resume(name)
        assert (await resumed).output["answer"] == "1889"
        assert len([request for request in server.app.requests if request.path == "/v1/chat/completions"]) == 2
        assert all("You look things up." in request.prompt for request in server.app.requests)
        replayed = await orchestra.replay(name)
        assert replayed.reason == ""


async def test_tool_use_lines_are_not_traces(tmp_path: Path) -> None:
    furnish(tmp_path)
    async with opened(tmp_path) as (orchestra, _):
        run = await orchestra.start(orchestra.find("researcher"), **WHEN)
        await run
        found = await collect_traces(orchestra._project, orchestra.journal, "researcher", TraceFilter())
    assert (found.traces, found.run_count, found.unreached_calls) == ([], 1, 0)


@tool(effect="pure")
def double(number: int) -> int:
    """Twice the number."""
    return 2 * number


@tool(effect="once")
def post(text: str) -> str:
    """Sends it."""
    return f"sent {text}"


@agent(prompt="{{ question }}", tools=[double, post, "search"])
def counter(question: str) -> str:
    """Counts."""
    return answered_by_model()


@workflow()
def counted(question: str) -> str:
    """Counts and may report."""
    return counter.options(tools=[post])(question=question)


async def test_tool_use_declared_in_python(tmp_path: Path) -> None:
    (tmp_path / "orchestra.toml").write_text("")

    def says(request: SimulatedRequest) -> Any:
        found = request.prompt.rpartition("\n-> ")[2].split("\n")[0]
        return ("return" if found.isdigit() else "s1 = double(number=21)") if "tools" in request.body else found

    async with SimulatedServer("m", answer=says) as server:
        (tmp_path / "here.yaml").write_text(FLEET.replace("URL", server.url))
        async with Orchestra.open(
            Settings.load({"fleet": str(tmp_path / "here.yaml")}, start=tmp_path), fleet="none"
        ) as orchestra:
            result = await orchestra.run(counted, question="twice 21?")
            assert result.output == "42"
            assert "post" in [one["function"]["name"] for one in server.app.requests[0].body["tools"]]
            alone = await orchestra.run(counter, question="twice 21?")
            assert alone.output == "42"
            called = [event.node for event in result.events if isinstance(event, AttemptFinished)]
            assert called == ["counter#1/line", "counter#2/s1", "counter#3/line", "counter#4/answer"]


def test_tool_use_tools_of_tool_refused() -> None:
    @workflow()
    def wrong(number: int) -> int:
        return double.options(tools=[post])(number=number)

    with pytest.raises(InputError) as caught:
        _ = wrong.graph
    assert caught.value.code == "W016"


@pytest.mark.parametrize(
    ("old", "new", "code", "line"),
    [
        ("tools: [search]", "tools: [searhc]", "A019", 1),
        ("tools: [search]", "agents: [researcher]", "A020", 6),
        ("tools: [search]", "kind: python\ntools: [search]", "A018", 7),
        ("tools: [search]\n", "", "A018", 6),
        ("{question: str, ", "{steps: str, ", "A018", 6),
        ("{question: str, ", "{s1: str, ", "A018", 6),
        ("limits: {steps: 2}", "limits: {steps: 0}", "A002", 7),
        ("limits: {steps: 2}", "limits: {stepps: 2}", "A002", 7),
    ],
)
def test_tool_use_wrong_card_reported(shell: Shell, old: str, new: str, code: str, line: int) -> None:
    furnish(shell.project, CARD.replace(old, new))
    (shell.project / "agents/researcher/prompt.md").write_text("Look it up.")
    said = shell("validate", "agents/researcher", "--json")
    assert said.code == 2
    [error] = said.json[0]["errors"] if isinstance(said.json, list) else said.json["errors"]
    assert error["code"] == code
    if code != "A019":
        assert error["place"]["line"] == line


def test_tool_use_valid_card_shown(shell: Shell) -> None:
    furnish(shell.project)
    assert shell("validate", "agents/researcher").out.startswith("ok  agents/researcher: the agent 'researcher'")
    assert "uses    search; at most 2 calls" in shell("agents", "show", "researcher").out
    rows = shell("run", "researcher", "-i", "question=x", "-i", "documents=[]", "--dry-run", "--json").json
    assert "researcher" in str(rows)
    assert "search" in str(rows)


def test_tool_use_cards_without_tools_keep_digests() -> None:
    """The digest of a card of release 0.1 in the golden journals."""
    card = Card.declare(
        "a", input={"type": "object", "properties": {}, "required": []}, output={"type": "string"}, prompt="x"
    )
    assert card.digest == Card.restore(card.dump()).digest
    assert card.tool_use_cards is None


def test_tool_use_card_stored_and_restored(tmp_path: Path) -> None:
    furnish(tmp_path)
    card = Card.load(tmp_path / "agents" / "researcher")
    again = Card.restore(card.dump())
    assert (again.digest, again.tools) == (card.digest, ("search",))
    assert card.tool_use_cards is not None
    assert again.tool_use_cards is not None
    assert [one.digest for one in again.tool_use_cards] == [one.digest for one in card.tool_use_cards]
    assert len({card.digest, *(one.digest for one in card.tool_use_cards)}) == 3


@pytest.mark.parametrize("written", ["tools: [book, send]", "tools: book"])
def test_tool_use_node_tools_round_trip(written: str) -> None:
    text = f"schema: orchestra/v1\nname: a\noutput: ${{b}}\nnodes:\n  b: {{agent: clerk, {written}}}\n"
    graph = read(text, "a.yaml").graph
    assert read(write(graph), "b.yaml").graph == graph
    assert "book" in write(graph)


@pytest.mark.parametrize("wrong", ["tools: 3", "tools: [1]", "tools: {a: b}", "tools:", "agents: [a]"])
def test_tool_use_invalid_node_tools_refused(wrong: str) -> None:
    with pytest.raises(InputError) as caught:
        read(f"schema: orchestra/v1\nname: a\noutput: ${{b}}\nnodes:\n  b:\n    agent: clerk\n    {wrong}\n", "a.yaml")
    assert caught.value.location is not None
    assert caught.value.location.line == 7

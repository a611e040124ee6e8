"""Tests that data reaches no tool, MCP server or model server that is not cleared for its label."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from orchestra import InputError, Orchestra, tool, workflow
from orchestra.core.errors import OrchestraError
from orchestra.core.labels import Label
from orchestra.core.settings import McpServer, Settings
from orchestra.journal.memory import MemoryJournal
from orchestra.router import tools as router
from orchestra.testing import SimulatedWorkers
from orchestra.tools import BUILTIN_TOOLS, load_tool
from orchestra.workflows.model import Retry
from orchestra.workflows.python.steps import Workflow
from orchestra.workflows.yaml.reader import read
from tests.hostile.residency import LABELS, Sinks, explore, opened, within
from tests.sizes import sample_size

seen: list[str] = []


@tool(effect="pure")
def plain(text: str) -> str:
    """A tool without a label."""
    seen.append(text)
    return text


@tool(effect="pure")
def short(value: str) -> bool:
    """A check."""
    seen.append(value)
    return len(value) < 9


@workflow
def calling(text: str) -> str:
    return plain(text=text)


@workflow
def trying(text: str) -> str:
    return plain.options(retry=Retry(attempts=3, wait=(0, 0)))(text=text)


@workflow(label="restricted")
def stating(text: str) -> str:
    return plain(text=text)


@workflow
def around(text: str) -> str:
    return stating(text=text)


@pytest.fixture(autouse=True)
def nothing_seen() -> None:
    seen.clear()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "orchestra.toml").write_text("")
    return Settings.load({"journal": "off", "log": "off"}, start=tmp_path, environ={})


def assert_no_leaks(graphs: int) -> None:
    report = asyncio.run(explore(graphs))
    assert report.leaks == []
    assert report.missed == []
    assert set(report.runs) == set(LABELS), "there were runs of each label"
    assert report.refused
    assert report.given > graphs


def test_residency_data_reaches_only_cleared_destinations() -> None:
    assert_no_leaks(150)


@pytest.mark.slow
def test_residency_ten_thousand_graphs_reach_only_cleared_destinations() -> None:
    assert_no_leaks(sample_size(10_000, 10))


@pytest.mark.parametrize("label", LABELS)
async def test_residency_tool_without_label_accepts_up_to_internal(label: Label, settings: Settings) -> None:
    async with Orchestra.open(settings, fleet="none", journal=MemoryJournal()) as orchestra:
        if label == "restricted":
            with pytest.raises(
                OrchestraError, match=r"F202: .*'restricted' must not go to 'plain', which is cleared for 'internal'"
            ):
                await orchestra.options(label=label).run(calling, text="canary")
        else:
            assert (await orchestra.options(label=label).run(calling, text="canary")).output == "canary"
    assert ("canary" in seen) is (label != "restricted")


async def test_residency_refused_call_is_not_retried(settings: Settings) -> None:
    async with Orchestra.open(settings, fleet="none", journal=MemoryJournal()) as orchestra:
        run = await orchestra.options(label="restricted").start(trying, text="canary")
        with pytest.raises(OrchestraError):
            await run
        names = [type(event).__name__ for event in await orchestra.journal.read(run.id)]
    assert names.count("AttemptFinished") == 1


@pytest.mark.parametrize("one", [stating, around])
async def test_residency_workflow_label_is_checked_before_the_run(one: Workflow[..., Any], settings: Settings) -> None:
    async with Orchestra.open(settings, fleet="none", journal=MemoryJournal()) as orchestra:
        with pytest.raises(InputError) as caught:
            await orchestra.run(one, text="canary")
    assert caught.value.code == "T020"
    assert "'plain' is cleared for 'internal' data" in caught.value.message
    assert caught.value.hint == 'label="restricted" in the @tool of plain, if such data may go there; else another tool'
    assert caught.value.location is not None
    assert seen == []


async def test_residency_tool_check_label_is_enforced_outside_runs(settings: Settings) -> None:
    async with Orchestra.open(settings, fleet="none", journal=MemoryJournal()) as orchestra:
        found = await orchestra.options(label="restricted").check("canary", against="canary", checks=short)
        assert (found.accepted, seen) == (False, [])
        assert "F202" in found.reason
        found = await orchestra.check("canary", against="canary", checks=short)
        assert (found.accepted, seen) == (True, ["canary"])


async def test_residency_simulated_workers_enforce_tool_labels(settings: Settings) -> None:
    async with Orchestra.open(
        settings, workers=SimulatedWorkers({}, tools=[plain]), journal=MemoryJournal()
    ) as orchestra:
        with pytest.raises(OrchestraError, match="F202"):
            await orchestra.options(label="restricted").run(calling, text="canary")
    assert seen == []


def test_residency_packaged_tools_accept_every_label() -> None:
    assert {one.contract.label for one in (*map(load_tool, BUILTIN_TOOLS), *router.TOOLS)} == {"restricted"}


def test_residency_mcp_server_without_label_accepts_internal() -> None:
    assert McpServer(command=("false",), tools={}).label == "internal"


def test_residency_unknown_label_is_refused() -> None:
    with pytest.raises(InputError, match=r"W017: .*has no label 'secret'"):
        tool(effect="pure", label="secret")  # type: ignore[arg-type]


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("kind", ["plan", "agent"])
async def test_residency_model_is_offered_only_cleared_tools(kind: str, label: Label) -> None:
    sinks = Sinks()
    said = {
        "plan": (
            "{plan: 'Send.', with: {text: '${input.text}'}, router: planner, tools: [say_public, say_internal,"
            " say_restricted], returns: str, repairs: 0, fallback: ''}"
        ),
        "agent": "{agent: helper, with: {text: '${input.text}'}, fallback: {answer: ''}}",
    }
    text = (
        "schema: orchestra/v1\n"
        "name: it\n"
        "label: public\n"
        "input: {text: str}\n"
        "output: ${n}\n"
        "nodes:\n"
        f"  n: {said[kind]}\n"
    )
    async with opened(sinks) as orchestra:
        run = await orchestra.options(label=label).start(
            Workflow.from_graph(read(text, "it.yaml").graph), text="canary"
        )
        await run
        replayed = await orchestra.replay(run.id)
        assert (replayed.first_difference, replayed.reason) == (None, ""), "a replay offers the same"
    prompts = "\n".join(sinks.given["s_restricted"])
    assert {one for one in LABELS if f"say_{one}(" in prompts} == {one for one in LABELS if within(label, one)}

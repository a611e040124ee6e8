"""Workers in production: a call goes where it belongs, and is measured there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from orchestra.agent.card import Card
from orchestra.config import Settings
from orchestra.doors import UNMEASURED, Call, Done, Refused
from orchestra.project import Project
from orchestra.testing.server import SimulatedServer
from orchestra.workers import Troupe
from orchestra.workflow.steps import agent, by_model, tool

FLEET = """\
schema: orchestra/fleet/v1
name: test
servers:
  s: {endpoint: "URL/v1", model: m, dialect: vllm, label: restricted, revision: "1"}
models: {base: s}
"""


@tool(effect="pure", version="1")
async def double(number: int) -> int:
    """Twice the number."""
    return 2 * number


@agent(prompt="Say: {{ text }}")
def writer(text: str) -> str:
    """Writes."""
    return by_model()


@agent(prompt="Once: {{ text }}")
def earlier(text: str) -> str:
    """Writes."""
    return by_model()


def project(folder: Path, url: str = "http://127.0.0.1:1") -> Project:
    (folder / "fleet.yaml").write_text(FLEET.replace("URL", url))
    made = Project.load(Settings.load({"journal": "off", "fleet": str(folder / "fleet.yaml")}, start=folder, environ={}))
    made.adopt(double)
    made.adopt(writer)
    return made


@pytest.fixture
async def server() -> AsyncIterator[SimulatedServer]:
    async with SimulatedServer("m", answer=lambda request: "yes") as server:
        yield server


def call(name: str = "writer", kind: Any = "agent", **more: Any) -> Call:
    given: dict[str, Any] = {"run": "r", "node": "n", "attempt": 1, "inputs": {"text": "hello"}} | more
    return Call(kind=kind, name=name, **given)


async def only(troupe: Troupe, what: Call) -> Done | Refused:
    (reply,) = [reply async for reply in troupe.run(what)]
    assert isinstance(reply, Done | Refused)
    return reply


async def test_models_are_asked_of_the_fleet_and_tools_are_called_here(tmp_path: Path, server: SimulatedServer) -> None:
    async with Troupe.open(project(tmp_path, server.url)) as troupe:
        written, doubled = await only(troupe, call()), await only(troupe, call("double", "tool", inputs={"number": 4}))
    assert isinstance(written, Done)
    assert isinstance(doubled, Done)
    assert (written.value, written.server, doubled.value, doubled.server) == ("yes", "s", 8, "local")


async def test_a_call_is_measured_before_any_server_is_there(tmp_path: Path) -> None:
    async with Troupe.open(project(tmp_path), mode="none") as troupe:
        measure = troupe.measure(call())
        assert measure.prompt_tokens > len("Say: hello")
        assert (measure.max_output, bool(measure.memo)) == (256, True)
        tool_measure = troupe.measure(call("double", "tool", inputs={"number": 4}))
        assert (tool_measure.prompt_tokens, bool(tool_measure.memo)) == (0, True)
        assert troupe.measure(call("nobody")) == UNMEASURED


async def test_only_what_a_model_is_asked_is_counted(tmp_path: Path, server: SimulatedServer) -> None:
    async with Troupe.open(project(tmp_path, server.url)) as troupe:
        counted = await troupe.count(call())
        assert counted is not None
        assert 0 < counted <= troupe.measure(call()).prompt_tokens
        assert await troupe.count(call("double", "tool", inputs={"number": 4})) is None


async def test_a_faulty_fleet_file_is_told_by_the_call_alone(tmp_path: Path) -> None:
    made = project(tmp_path)
    (tmp_path / "fleet.yaml").write_text("schema: orchestra/fleet/v1\n")
    async with Troupe.open(made) as troupe:
        assert troupe.measure(call()) == UNMEASURED
        assert await troupe.count(call()) is None
        refused = await only(troupe, call())
    assert isinstance(refused, Refused)
    assert refused.code == "F100"


async def test_a_resumed_run_asks_the_card_that_the_project_keeps(tmp_path: Path, server: SimulatedServer) -> None:
    made = project(tmp_path, server.url)
    assert earlier.card is not None
    older = Card.restore(earlier.card.dump())
    made.keep(older)
    async with Troupe.open(made) as troupe:
        kept = await only(troupe, call("earlier", version=older.digest))
        gone = await only(troupe, call(version="0" * 32))
    assert isinstance(kept, Done)
    assert isinstance(gone, Refused)
    assert gone.code == "F221"
    assert b"Once: hello" in kept.sent


async def test_a_card_that_another_replaces_is_kept_for_the_runs_that_have_it(tmp_path: Path, server: SimulatedServer) -> None:
    made = project(tmp_path, server.url)
    before = made.cards["writer"]

    @agent(prompt="Now: {{ text }}")
    def writer(text: str) -> str:
        """Writes."""
        return by_model()

    made.adopt(writer)
    async with Troupe.open(made) as troupe:
        done = [await only(troupe, call(version=version)) for version in (before.digest, "")]
    assert [one.sent.partition(b": hello")[0][-3:] for one in done if isinstance(one, Done)] == [b"Say", b"Now"]

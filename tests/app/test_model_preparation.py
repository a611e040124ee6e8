"""Models that a run calls or may call are started before the clock of the run starts."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from orchestra import Agent, agent, answered_by_model
from orchestra.agents.card import Card
from orchestra.agents.contract import Catalog
from orchestra.app.project import Project
from orchestra.app.workers import ProjectWorkers
from orchestra.core.errors import FleetError
from orchestra.core.settings import Settings
from orchestra.fleet.dispatch import Fleet
from orchestra.fleet.weights.encoders import KNOWN_ENCODERS, missing_downloads
from orchestra.fleet.weights.weights import ModelStore
from orchestra.testing.tiny_encoder import write_encoder
from orchestra.workflows.compile.compiler import compile_graph
from orchestra.workflows.yaml.reader import read
from tests.fleet.conftest import raw_server
from tests.fleet.weights.test_encoders import of_package, wheel

MANY = """\
schema: orchestra/fleet/v1
name: test
servers:
  s: {model: m, device: cpu, max_model_len: 100, max_loras: 16, weights: {licence: none, sources: [{folder: none}]}}
  far: {endpoint: "http://127.0.0.1:1", model: m, label: restricted}
models: {base: s, plans: s, grows: s, skill: s, judge: s, guarded: s, under: s, user: s, helper: s, gone: s, away: far}
"""
ASKS = """\
schema: orchestra/v1
name: asks
input: {text: str}
output: ${input.text}
nodes:
  planned: {plan: go, with: {text: "${input.text}"}, router: plans, larger: grows, agents: [skill], workflows: [under], returns: str}
  used: {agent: user, with: {text: "${input.text}"}}
  guarded: {agent: guarded, with: {text: "${input.text}"}, when: "${input.text == 'hard'}"}
"""  # noqa: E501
UNDER = """\
schema: orchestra/v1
name: under
input: {text: str}
output: ${said}
nodes:
  said: {agent: under, with: {text: "${input.text}"}}
"""


async def test_models_prepared_before_run_clock_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    brought: list[list[str]] = []

    async def ready(fleet: Fleet, models: Iterable[str]) -> None:
        brought.append(list(models))
        if brought[-1] == ["guarded"]:
            raise FleetError("F005", "it does not start")

    monkeypatch.setattr(Fleet, "wait_until_ready", ready)
    text = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
    (tmp_path / "fleet.yaml").write_text(MANY)
    made = Project.load(
        Settings.load({"journal": "off", "fleet": str(tmp_path / "fleet.yaml")}, start=tmp_path, environ={})
    )
    more: dict[str, Any] = {"skill": {"checks": ["entailment(judge)"]}, "user": {"agents": ["helper"]}}
    names = ("plans", "grows", "skill", "judge", "guarded", "under", "user", "helper")
    cards = [
        Card.declare(name, input=text, output={"type": "string"}, prompt="{{ text }}", model=name, **more.get(name, {}))
        for name in names
    ]
    catalog = Catalog(
        agents={card.name: card.contract for card in cards}, workflows={"under": read(UNDER, "under.yaml").graph}
    )
    made.registry = made.registry.with_cards(cards)
    async with ProjectWorkers.open(made) as troupe:
        await troupe.prepare(compile_graph(read(ASKS, "asks.yaml").graph, catalog))
    assert sorted(brought[0]) == ["plans", "user"]
    assert {model for models in brought[1:] for model in models} == set(names)


async def test_models_prepared_for_called_agent_of_two_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    brought: list[str] = []

    async def ready(fleet: Fleet, models: Iterable[str]) -> None:
        brought.extend(models)

    def judge(model: str) -> Agent[..., Any]:
        def judge(text: str) -> str:
            """Says."""
            return answered_by_model()

        return agent(prompt="Judge {{ text }}", model=model)(judge)

    monkeypatch.setattr(Fleet, "wait_until_ready", ready)
    (tmp_path / "fleet.yaml").write_text(MANY)
    made = Project.load(
        Settings.load({"journal": "off", "fleet": str(tmp_path / "fleet.yaml")}, start=tmp_path, environ={})
    )
    first = made.program(judge("judge"))
    made.program(judge("guarded"))
    async with ProjectWorkers.open(made) as troupe:
        await troupe.prepare(first)
    assert set(brought) == {"judge"}


GUARDED = """\
schema: orchestra/v1
name: guarded
input: {text: str}
output: ${input.text}
nodes:
  sure: {agent: desk, with: {text: "${input.text}"}, when: "${input.text == 'hard'}"}
"""


async def test_encoder_of_optional_agent_is_fetched_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = write_encoder(tmp_path / "base", ["card"])
    monkeypatch.setitem(KNOWN_ENCODERS, "tiny", of_package(base))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    desk = tmp_path / "agents" / "desk"
    desk.mkdir(parents=True)
    (desk / "agent.yaml").write_text(
        "name: desk\nkind: encoder\nmodel: tiny\ninput: {text: str}\noutput: {label: str}\n"
    )
    (desk / "model.json").write_text("{}")
    project = Project.load(Settings.load({"journal": "off"}, start=tmp_path, environ={}))
    program = compile_graph(read(GUARDED, "guarded.yaml").graph, project.registry.catalog())
    reports: list[str] = []
    async with raw_server(lambda visit: visit.answer(wheel(base))) as server:
        monkeypatch.setenv("ORCHESTRA_MIRROR", server.url)
        for _ in range(2):
            async with ProjectWorkers.open(project, progress=lambda said: reports.append(said.message)) as workers:
                await workers.prepare(program)
    assert reports[0] == "desk needs the encoder 'tiny', which is not on this machine"
    assert len(server.visits) == 1
    assert missing_downloads(project.registry.cards["desk"], ModelStore.from_environment()).encoders == {}


async def test_optional_models_on_demand_are_installed_and_not_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []
    installed: list[str] = []

    async def ready(fleet: Fleet, models: Iterable[str]) -> None:
        started.extend(models)

    async def install(fleet: Fleet, model: str) -> None:
        installed.append(model)

    monkeypatch.setattr(Fleet, "wait_until_ready", ready)
    monkeypatch.setattr(Fleet, "install_weights", install)
    text = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
    (tmp_path / "fleet.yaml").write_text(f"{MANY}start: on_demand\nescalate: grows\n")
    made = Project.load(
        Settings.load({"journal": "off", "fleet": str(tmp_path / "fleet.yaml")}, start=tmp_path, environ={})
    )
    cards = [
        Card.declare(name, input=text, output={"type": "string"}, prompt="{{ text }}", model=name)
        for name in ("user", "guarded")
    ]
    made.registry = made.registry.with_cards(cards)
    program = compile_graph(
        read(ON_DEMAND, "on_demand.yaml").graph, Catalog(agents={card.name: card.contract for card in cards})
    )
    async with ProjectWorkers.open(made) as troupe:
        await troupe.prepare(program)
    assert started == ["user"]
    assert sorted(installed) == ["grows", "guarded", "user"]


ON_DEMAND = """\
schema: orchestra/v1
name: on_demand
input: {text: str}
output: ${sure}
nodes:
  sure: {agent: user, with: {text: "${input.text}"}, checks: [schema], otherwise: [escalate]}
  guarded: {agent: guarded, with: {text: "${input.text}"}, when: "${input.text == 'hard'}"}
"""

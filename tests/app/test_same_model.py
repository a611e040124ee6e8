"""Identity of agents: several names of one model in the fleet file give no second opinion."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestra import Orchestra
from orchestra.app.project import Project
from orchestra.app.snapshot_store import restore_program
from orchestra.core.events import OutputJudged, RunStarted
from orchestra.testing import SimulatedWorkers
from orchestra.verification.model_checks import is_same_agent
from tests.unreachable import FLEET, settings, write

AGENT = "name: {name}\nmodel: {model}\ninput: {{text: str}}\noutput: str\n"
FLOW = """
schema: orchestra/v1
name: twice
input: {text: str}
output: ${told}
nodes:
  told: {agent: one, with: {text: "${input.text}"}, checks: ["rederive(two)"], otherwise: [abstain]}
"""
OTHER = 'other: {endpoint: "http://127.0.0.1:8/v1", model: n, max_model_len: 1000}'
CPP = '%s: {endpoint: "http://127.0.0.1:%d/v1", dialect: llamacpp, model: default, max_model_len: 1000}'


def fleet(*models: str, other: str = "") -> str:
    """The fleet `nowhere` with more names for its models, and another server."""
    servers = FLEET.replace("servers: {", f"servers: {{{other}, " if other else "servers: {")
    return servers.replace("{base: it}", f"{{{', '.join(models)}}}")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    cards = {
        f"agents/{name}/agent.yaml": AGENT.format(name=name, model=model)
        for name, model in [("one", "base"), ("two", "twin")]
    }
    prompts = {f"agents/{name}/prompt.md": "Tell: {{ text }}\n" for name in ("one", "two")}
    write(tmp_path, {**cards, **prompts, "workflows/twice.yaml": FLOW})
    return tmp_path


async def judged(project: Path) -> tuple[str, str, str]:
    """Returns the verdict of a run on its answer, the reason, and the run."""
    async with Orchestra.open(
        settings(project), workers=SimulatedWorkers({"one": "It is.", "two": "It is."})
    ) as orchestra:
        result = await (await orchestra.start(orchestra.find("twice"), text="x")).wait()
        (one,) = [event for event in result.events if isinstance(event, OutputJudged)]
    return one.verdicts[0].outcome, one.verdicts[0].reason, result.run


@pytest.mark.parametrize(
    ("models", "other", "outcome"),
    [
        (("base: it", "twin: it"), "", "unknown"),
        (("base: it", "twin: other"), OTHER.replace("model: n", "model: m"), "unknown"),
        (("base: it", "twin: [other, it]"), OTHER, "unknown"),
        (("base: it", "twin: other"), OTHER, "pass"),
        (("base: here", "twin: there"), f"{CPP % ('here', 8)}, {CPP % ('there', 9)}", "pass"),
        (("base: here", "twin: there"), f"{CPP % ('here', 8)}, {CPP % ('there', 8)}", "unknown"),
    ],
)
async def test_same_model_two_names_one_agent(project: Path, models: tuple[str, ...], other: str, outcome: str) -> None:
    (project / "configs" / "nowhere.yaml").write_text(fleet(*models, other=other))
    said, reason, _ = await judged(project)
    assert said == outcome
    assert ("the agent that produced the value" in reason) is (outcome == "unknown")


def test_same_model_name_distinct_from_served_names(project: Path) -> None:
    servers = (
        OTHER.replace("model: n", "model: base")
        + ", "
        + OTHER.replace("other:", "third:").replace("model: n", "model: base")
    )
    (project / "configs" / "nowhere.yaml").write_text(fleet("base: it", "twin: other", "triplet: third", other=servers))
    agents = Project.load(settings(project)).catalog().agents
    assert not is_same_agent(agents["one"], agents["two"]), (
        "`base` is `m` here, and what a server calls base is another one"
    )


async def test_same_model_replay_uses_fleet_of_run_start(project: Path) -> None:
    file = project / "configs" / "nowhere.yaml"
    file.write_text(fleet("base: it", "twin: it"))
    _, _, run = await judged(project)
    file.write_text(fleet("base: it", "twin: other", other=OTHER))
    async with Orchestra.open(settings(project), workers=SimulatedWorkers({})) as orchestra:
        assert (await orchestra.replay(run)).reason == ""


async def test_same_model_replacement_compared_by_fleet_of_run_start(
    project: Path,
) -> None:
    file = project / "configs" / "nowhere.yaml"
    file.write_text(fleet("base: it", "twin: other", other=OTHER))
    said, _, run = await judged(project)
    assert said == "pass"
    file.write_text(fleet("base: it", "twin: it"))
    async with Orchestra.open(
        settings(project), workers=SimulatedWorkers({"one": "It is.", "two": "It is."})
    ) as orchestra:
        found = Project.load(settings(project))
        started = (await orchestra.journal.read(run))[0]
        assert isinstance(started, RunStarted)
        (node,) = (
            await restore_program(
                found, orchestra.journal, started, replacements=found.replacement_contracts({"one": found.cards["two"]})
            )
        ).nodes
    assert node.acceptance is not None
    assert node.contract is not None
    assert is_same_agent(node.acceptance.judges["two"], node.contract), "it is the judge itself"


async def test_same_model_distinct_models_store_unchanged_events(project: Path) -> None:
    (project / "configs" / "nowhere.yaml").write_text(fleet("base: it", "twin: other", other=OTHER))
    found = Project.load(settings(project))
    assert found.served_names == {}
    assert {name: found.catalog().agents[name] for name in ("one", "two")} == {
        name: found.cards[name].contract for name in ("one", "two")
    }

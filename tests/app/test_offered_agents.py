"""Agents whose weights or encoders are not installed are not offered to a plan on an endpoint: nothing is fetched for
it unasked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from orchestra.agents.registry import builtin_folder
from orchestra.app.orchestra import Orchestra
from orchestra.app.planning import (
    DEMONSTRATIONS,
    NODE,
    WORKFLOW_TOOLS,
    PlanOptions,
    capabilities_of,
    request_workflow,
)
from orchestra.core.agent_weights import INDEX_FILE
from orchestra.core.settings import Settings
from orchestra.fleet.config import FolderSource, Weights
from orchestra.fleet.weights import encoders
from orchestra.router.rules import GENERAL_SKILLS
from orchestra.workflows.model import PlanNode

ADDRESS = "http://127.0.0.1:9/v1"
NEEDS_ENCODERS = {"reader", "extractive_reader", "entailment", "financial_question"}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user without downloads, and a project with an agent whose weights are not installed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    desk = tmp_path / "agents" / "desk"
    desk.mkdir(parents=True)
    (desk / "agent.yaml").write_text("name: desk\nkind: sklearn\ninput: {text: str}\noutput: {label: str}\n")
    (desk / "model.json").write_text("{}")
    index = {"format": "1", "cards": "c", "files": {"desk/weights.npz": {"sha256": "a", "bytes": 7}}}
    (desk.parent / INDEX_FILE).write_text(json.dumps(index))
    return tmp_path


async def offered(home: Path, values: Mapping[str, Any] | None = None, **settings: str) -> set[str]:
    """The names that a plan is offered."""
    loaded = Settings.load({"journal": "off", **settings}, start=home, environ={})
    async with Orchestra.open(loaded) as orchestra:
        return set(capabilities_of(orchestra, "What is in the text?", values or {}, PlanOptions(shortlist=100)).by_name)


async def test_rules_may_use_general_skills_and_the_packaged_router_not(home: Path) -> None:
    async with Orchestra.open(Settings.load({"journal": "off"}, start=home, environ={})) as orchestra:
        for options, offers in ((PlanOptions(), True), (PlanOptions(rules=False), False)):
            step = request_workflow(orchestra, "What is in the text?", {}, options)
            node = step.graph.nodes[NODE]
            assert isinstance(node, PlanNode)
            assert (GENERAL_SKILLS & {*node.workflows, *node.tools} != set()) is offers


async def test_plan_on_endpoint_is_offered_what_is_installed(home: Path) -> None:
    found = await offered(home, endpoint=ADDRESS, model="m")
    assert "generative_reader" in found
    assert not ({*NEEDS_ENCODERS, "desk"} & found)


async def test_plan_on_fleet_is_offered_agents_whose_encoder_is_fetched(home: Path) -> None:
    found = await offered(home)
    assert {"reader", "financial_question"} <= found
    assert not ({"generative_reader", "desk"} & found)


async def test_plan_on_endpoint_is_offered_agents_of_installed_encoders(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Weights(licence="CC0-1.0", sources=(FolderSource(folder=str(home)),))
    monkeypatch.setitem(encoders.KNOWN_ENCODERS, "mpnet", here)
    found = await offered(home, endpoint=ADDRESS, model="m")
    assert "reader" in found
    assert "generative_reader" not in found


async def test_demonstrations_are_offered_to_projects_that_have_them(home: Path) -> None:
    found = await offered(home, {"documents": [{"source": "a.md", "text": "A text."}]})
    assert not (DEMONSTRATIONS & found)
    assert not (WORKFLOW_TOOLS & found)
    assert not (GENERAL_SKILLS & found)  # rules plan with them
    desk = home / "workflows" / "support_desk.yaml"
    desk.parent.mkdir()
    desk.write_bytes((builtin_folder("workflows") / "support_desk.yaml").read_bytes())
    assert DEMONSTRATIONS & await offered(home) == {"support_desk"}


async def test_larger_reader_is_offered_only_if_the_fleet_has_the_model(home: Path) -> None:
    for fleet, has in (("laptop", False), ("workstation", True), ("qwen-1.5b", True)):
        async with Orchestra.open(
            Settings.load({"journal": "off", "fleet": fleet}, start=home, environ={})
        ) as orchestra:
            node = request_workflow(orchestra, "What is in the text?", {}).graph.nodes[NODE]
            assert isinstance(node, PlanNode)
            assert ({"read_answer", "draft_text"} & set(node.workflows) != set()) is has, fleet
            assert not {"document_reader", "amount_reader", "text_drafter"} & set(node.agents)

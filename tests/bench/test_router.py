"""The router's harness: variants of planning on one simulated server, and stored sampled plans."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.router import MARKS, PAGE, Asked, Kept, sampled, section
from bench.router_ways import MARKS as WAYS_MARKS
from bench.router_ways import WAYS, measured, row, skills_f1
from orchestra.app.planning import PlanOptions
from orchestra.core.settings import Settings
from orchestra.testing.fake_vllm.faults import SimulatedRequest
from orchestra.testing.fake_vllm.server import SimulatedServer
from orchestra.workflows.model import PlanLimits

FLEET = """\
schema: orchestra/fleet/v1
name: test
servers:
  s: {endpoint: "URL/v1", model: m, dialect: vllm, structured_outputs: guidance, label: restricted, revision: "1"}
models: {base: s}
"""
SUM, WRONG = "Calculate: two and two", "Dance"
ASKED = (Asked(SUM, (), "s1 = calculator(question=input.request)\nreturn s1"), Asked(WRONG, (), "return nothing"))


def says(request: SimulatedRequest) -> Any:
    """A router that serves arithmetic, and names an unknown agent for everything else."""
    if "Request: Dance" in request.prompt:
        return "s1 = dance()"
    last = str(request.body["messages"][-1]["content"])
    return "return s1" if last.startswith("s1 =") else "s1 = calculator(question=input.request)"


def settings_of(folder: Path, url: str) -> Settings:
    (folder / "orchestra.toml").write_text("", "utf-8")
    (folder / "fleet.yaml").write_text(FLEET.replace("URL", url), "utf-8")
    return Settings.load({"fleet": str(folder / "fleet.yaml"), "journal": "off"}, start=folder, environ={})


async def test_router_ways_count_correct_plans_and_repairs(tmp_path: Path) -> None:
    async with SimulatedServer("m", answer=says) as server:
        settings = settings_of(tmp_path, server.url)
        plain, mended = [await measured(ASKED, WAYS[0], repairs, settings, 2) for repairs in (0, 2)]
    assert [draft.question_count for draft in plain.drafts] == [2, 1]
    assert [draft.question_count for draft in mended.drafts] == [2, 3]
    cells = row(plain, ASKED, 0).split(" | ")
    assert cells[:2] == ["| line by line, under grammars", "0"]
    assert cells[2].startswith("0.500 [")
    assert cells[4] == "1"


def test_skills_f1_with_declined_requests() -> None:
    assert skills_f1("return nothing", "return nothing") == 1.0
    assert skills_f1("return nothing", "s1 = a()\nreturn s1") == 0.0
    assert skills_f1("s1 = a()\ns2 = a()\nreturn s2", "s1 = a()\nreturn s1") == pytest.approx(2 / 3)


async def test_sampled_plans_stored_not_run_again(tmp_path: Path) -> None:
    options = PlanOptions(limits=PlanLimits(steps=3), repairs=0, anyway=True, cache=False)
    async with SimulatedServer("m", answer=says) as server:
        settings = settings_of(tmp_path, server.url)
        await sampled(ASKED[:1], options, settings, 2, Kept(tmp_path / "kept.jsonl"))
        asked = len(server.app.requests)
        assert [request.body["temperature"] for request in server.app.requests if "messages" in request.body] == [
            1.0
        ] * 2
        await sampled(ASKED, options, settings, 2, Kept(tmp_path / "kept.jsonl"))
        assert len(server.app.requests) == asked + 1
    kept = Kept(tmp_path / "kept.jsonl")
    assert [(one.valid, one.skills) for one in kept.made.values()] == [(True, 1), (False, 0)]
    text = section(kept, "python -m bench.router", "today")
    assert "2 plans, 0.500 [" in text
    assert "| phantoms | 1 |" in text
    assert "| references | 0 |" in text


def test_router_page_has_marker_for_each_table() -> None:
    text = PAGE.read_text("utf-8")
    assert all(text.count(mark) == 1 for mark in (*MARKS, *WAYS_MARKS))

"""Confidence of a language model in its answer, through a run: checks, journal, memo, fork, and the line of a batch."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest

from orchestra import Orchestra
from orchestra.cli.run.batch_row_state import row_result
from orchestra.core.events import AttemptFinished
from orchestra.core.settings import Settings
from orchestra.testing.fake_vllm.server import SimulatedServer

FLEET = """\
schema: orchestra/fleet/v1
name: test
servers:
  s: {endpoint: "URL/v1", model: m, dialect: vllm, label: restricted, revision: "1"}
models: {base: s}
"""
AGENT = """\
schema: orchestra/v1
name: answerer
description: Answers.
input: {question: str}
output: {answer: str}
model: base
"""
WORKFLOW = """\
schema: orchestra/v1
name: answering
input: {question: str}
output: ${answer}
nodes:
  answer: {agent: answerer, with: {question: "${input.question}"}, checks: [schema, confidence], accept: ACCEPT, otherwise: [abstain]}
"""  # noqa: E501


def project(folder: Path, url: str, accept: float) -> Settings:
    (folder / "agents" / "answerer").mkdir(parents=True)
    (folder / "agents" / "answerer" / "agent.yaml").write_text(AGENT)
    (folder / "agents" / "answerer" / "prompt.md").write_text("{{ question }}\n")
    (folder / "workflows").mkdir()
    (folder / "workflows" / "answering.yaml").write_text(WORKFLOW.replace("ACCEPT", str(accept)))
    (folder / "fleet.yaml").write_text(FLEET.replace("URL", url))
    (folder / "orchestra.toml").write_text("")
    return Settings.load(
        {"journal": str(folder / "runs.db"), "fleet": str(folder / "fleet.yaml")}, start=folder, environ={}
    )


async def test_confidence_journaled_memoized_reported(tmp_path: Path) -> None:
    async with (
        SimulatedServer("m", answer=lambda request: {"answer": "yes"}) as server,
        Orchestra.open(project(tmp_path, server.url, 0.0)) as orchestra,
    ):
        remembering = orchestra.options(memo=True)
        first = await remembering.run(orchestra.find("answering"), question="Is it?")
        (ended,) = [event for event in await orchestra.journal.read(first.run) if isinstance(event, AttemptFinished)]
        said = json.loads(await orchestra.journal.get_blob(ended.received) or b"")["choices"][0]["logprobs"]["content"]
        probability = math.exp(sum(one["logprob"] for one in said))
        assert ended.confidence == pytest.approx(probability)
        assert first.confidence == row_result("1", first).score == ended.confidence

        second = await remembering.run(orchestra.find("answering"), question="Is it?")
        third = await orchestra.fork(second.run, None)
        assert len(server.app.requests) == 1, "it was asked once"
        assert [second.confidence, (await third.run.wait()).confidence] == [first.confidence] * 2


@pytest.mark.parametrize("checks", ["[schema]", "[schema, confidence]"])
async def test_confidence_not_raised_by_passing_checks(tmp_path: Path, checks: str) -> None:
    settings = project(tmp_path, "URL", 0.0)
    workflow = tmp_path / "workflows" / "answering.yaml"
    workflow.write_text(workflow.read_text().replace("[schema, confidence]", checks))
    async with SimulatedServer("m", answer=lambda request: {"answer": "yes"}) as server:
        (tmp_path / "fleet.yaml").write_text(FLEET.replace("URL", server.url))
        async with Orchestra.open(settings) as orchestra:
            result = await orchestra.options(memo=True).run(orchestra.find("answering"), question="Is it?")
            again = await orchestra.options(memo=True).run(orchestra.find("answering"), question="Is it?")
    (ended,) = [event for event in result.events if isinstance(event, AttemptFinished)]
    assert ended.confidence is not None
    assert ended.confidence < 1
    assert row_result("1", result).score == result.confidence == again.confidence == ended.confidence


async def test_confidence_below_threshold_withheld(tmp_path: Path) -> None:
    async with (
        SimulatedServer("m", answer=lambda request: {"answer": "yes"}) as server,
        Orchestra.open(project(tmp_path, server.url, 0.999)) as orchestra,
    ):
        result = await orchestra.run(orchestra.find("answering"), question="Is it?")
    (ended,) = [event for event in result.events if isinstance(event, AttemptFinished)]
    assert result.status == "abstained"
    assert result.error is not None
    assert ended.confidence is not None
    assert 0 < ended.confidence < 0.999
    assert result.confidence == row_result("1", result).score == ended.confidence
    assert re.search(r"confidence: 0\.\d{3} is below 0\.999", str(result.error))

"""Tests of `plan` in Python: its graph equals that of YAML, it compiles, and it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from orchestra import (
    Answer,
    Document,
    Orchestra,
    PlanLimits,
    Reading,
    agent,
    answered_by_model,
    has_value,
    loop,
    plan,
    tool,
    workflow,
)
from orchestra.core.protocols import CallRequest
from orchestra.core.settings import Settings
from orchestra.testing import SimulatedWorkers
from orchestra.workflows.model import PlanNode
from orchestra.workflows.python.steps import Workflow
from orchestra.workflows.yaml.reader import read
from tests.workflows.ensemble import calculator, cite, compiled, reader, search


class Report(BaseModel):
    """A model of one's own."""

    title: str
    score: float = 0.5


@agent(prompt="{{ text }}")
def reporter(text: str) -> Report:
    """Reports."""
    return answered_by_model()


@tool(effect="once")
def publish(report: Report) -> str:
    """Publishes a report."""
    return report.title


@workflow()
def reported(text: str) -> Report:
    """Reports what a text says."""
    return reporter(text=text)


@workflow()
def solve(question: str, documents: list[Document]) -> Answer:
    return plan(
        question,
        returns=Answer,
        agents=[reader, calculator],
        tools=[search, cite],
        question=question,
        documents=documents,
    )


@workflow()
def written(text: str) -> str:
    report = plan("report: " + text, returns=Report, agents=[reporter], workflows=[reported], text=text)
    return publish(report=report)


def planner(call: CallRequest) -> str:
    """Calls the workflow, and returns what it gives."""
    return "return s1" if call.inputs["plan"] else "s1 = reported(text=input.text)"


ANSWERS: dict[str, Any] = {
    "router": planner,
    "reporter": lambda call: {"title": call.inputs["text"], "score": 1.0},
    "publish": lambda call: call.inputs["report"]["title"],
}


def test_plan_equals_yaml_node() -> None:
    text = """
schema: orchestra/v1
name: solve
input: {question: str, documents: "list[Document]"}
output: ${planned}
nodes:
  planned:
    plan: ${input.question}
    with: {question: "${input.question}", documents: "${input.documents}"}
    agents: [reader, calculator]
    tools: [search, cite]
    returns: Answer
"""
    assert solve.graph == read(text, "solve.yaml").graph


def test_plan_capabilities_are_workflow_steps() -> None:
    assert [step.name for step in solve.steps] == ["reader", "calculator", "search", "cite"]
    node = compiled(solve).nodes[0]
    assert node.plan_settings is not None
    assert [one.name for one in node.plan_settings.capabilities] == ["reader", "calculator", "search", "cite"]


def test_plan_result_model_known() -> None:
    node = compiled(written).nodes[0]
    assert (node.source.returns if isinstance(node.source, PlanNode) else "", node.output["title"]) == (
        "Report",
        "Report",
    )
    assert "Report" in written.models
    assert node.plan_settings is not None
    assert list(node.plan_settings.workflows) == ["reported"]


@pytest.mark.parametrize(
    "returns", [str, list[Report], Report | None, dict[str, int], list[Reading], Answer, None], ids=str
)
def test_plan_returns_accepts_all_types(returns: Any) -> None:
    @workflow()
    def flow(question: str) -> Any:
        return {"planned": plan(question, returns=returns, agents=[calculator])}

    node = compiled(flow).nodes[0]
    assert node.source.returns == {None: "null", str: "str"}.get(returns, node.source.returns)  # type: ignore[union-attr]  # it is a PlanNode


def test_plan_in_loop_is_one_node() -> None:
    @workflow()
    def again(question: str) -> Answer:
        return loop(
            lambda previous: plan(question, returns=Answer, agents=[calculator], limits=PlanLimits(steps=2)),
            at_most=2,
            until=lambda answer: has_value(answer.text),
        )

    assert [node.body is not None and len(node.body.nodes) for node in compiled(again).nodes] == [1]


async def test_plan_runs(tmp_path: Path) -> None:
    settings = Settings.load({"journal": str(tmp_path / "runs.db")})
    flow: Workflow[Any, str] = written
    async with Orchestra.open(settings, workers=SimulatedWorkers(ANSWERS)) as orchestra:
        assert (await orchestra.run(flow, text="It rains.")).output == "It rains."

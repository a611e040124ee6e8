"""Tests of `examples/routed_question.yaml`: the packaged agent `difficulty` selects the questions for the larger
model.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestra.agents.card import Card
from orchestra.agents.inference.linear import LinearRegressor
from orchestra.agents.registry import builtin_folder
from orchestra.app.planning import PlanOptions, request_workflow
from orchestra.core.events import AttemptStarted
from orchestra.learn.promotion.promotion import PROVENANCE_FILE
from orchestra.testing import SimulatedOrchestra

FILE = Path(__file__).resolve().parents[2] / "examples" / "routed_question.yaml"
PLAIN = "What is the final word of the Pledge of Allegiance?\nA. America\nB. stands\nC. indivisible\nD. all\nAnswer:"
HARD = (
    "Statement 1 | Every ring has a unit. Statement 2 | Every field is an integral domain.\n"
    "A. True, True\nB. False, False\nC. True, False\nD. False, True\nAnswer:"
)


def needs(question: str) -> float:
    return LinearRegressor.load(Card.load(builtin_folder("agents") / "difficulty")).predict_number(question)


def test_difficulty_agent_orders_questions() -> None:
    files = [
        path
        for path in (builtin_folder("agents") / "difficulty").iterdir()
        if path.is_file() and path.name != PROVENANCE_FILE
    ]
    assert sum(path.stat().st_size for path in files) < 500_000
    assert -1 <= needs(PLAIN) < 0.1548 < needs(HARD) <= 1


@pytest.mark.parametrize(("question", "at_once"), [(PLAIN, False), (HARD, True)])
async def test_hard_question_uses_larger_model(simulated: SimulatedOrchestra, question: str, at_once: bool) -> None:
    simulated.set_answers(
        {
            "difficulty": {"need": needs(question)},
            "reader": lambda call: {"answer": "large" if call.is_escalated else "small"},
        }
    )
    result = await simulated.run(simulated.find(str(FILE)), question=question, context="large and small")
    assert result.output == ("large" if at_once else "small")
    (begun,) = [event for event in result.events if isinstance(event, AttemptStarted) and event.node == "reading"]
    assert begun.escalation_reason.startswith(f"difficulty.need > 0.1548 is {str(at_once).lower()}, with difficulty = ")


async def test_difficulty_agent_used_in_plan_only_if_named(simulated: SimulatedOrchestra) -> None:
    def agents(wish: PlanOptions) -> tuple[str, ...]:
        return tuple(request_workflow(simulated.orchestra, "How hard is this?", {}, wish).graph.nodes["answer"].agents)  # type: ignore[union-attr]

    assert "difficulty" not in agents(PlanOptions())
    assert agents(PlanOptions(only=("difficulty",))) == ("difficulty",)

"""An OpenAI-compatible model as planner: without a grammar, validation and repairs keep the plan correct."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestra.app.orchestra import Orchestra
from orchestra.app.planning import PlanOptions, PlanResult, plan
from orchestra.core.settings import Settings
from orchestra.testing import SimulatedRequest, SimulatedServer, first_faults
from orchestra.workflows.model import PlanLimits

FLEET = """\
schema: orchestra/fleet/v1
name: hosted
servers:
  provider: {{endpoint: "{url}/v1", model: chat, dialect: {dialect}, label: internal}}
models: {{hosted: provider}}
"""
CARD = """\
schema: orchestra/v1
name: hosted
description: Plans on somebody else's model.
input: {request: str, skills: str, values: str, plan: str, grammar: str}
output: str
grammar: grammar
model: hosted
"""
PROMPT = (
    "<!-- system -->\nPlan.\n<!-- user -->\n{{ skills }}\n{{ values }}\n"
    "Request: {{ request }}\n<!-- assistant -->\n{{ plan }}\n"
)
DOCUMENTS = [{"source": "tower.txt", "text": "The tower was opened in 1889."}]
PLAN = [
    "s1 = search(query=input.request, documents=input.documents)",
    "s2 = [reader(question=input.request, context=x.text) for x in s1]",
]
WHOLE = [*PLAN, "return s2"]
FENCED = "Here is the plan:\n```python\n" + "\n".join(WHOLE) + "\n```\nIt searches, then reads."


async def planned(
    folder: Path,
    answer: Callable[[SimulatedRequest], Any],
    *,
    dialect: str = "openai",
    wish: PlanOptions | None = None,
    **behaviour: Any,
) -> tuple[PlanResult, list[SimulatedRequest]]:
    """A plan by a simulated provider, and the requests it received."""
    card = folder / "agents" / "hosted"
    card.mkdir(parents=True)
    (card / "agent.yaml").write_text(CARD)
    (card / "prompt.md").write_text(PROMPT)
    (folder / "orchestra.toml").write_text("")
    async with SimulatedServer("chat", answer=answer, **behaviour) as server:
        (folder / "fleet.yaml").write_text(FLEET.format(url=server.url, dialect=dialect))
        settings = Settings.load({"fleet": str(folder / "fleet.yaml"), "journal": "off"}, start=folder, environ={})
        chosen = wish or PlanOptions(("search", "reader"), router="hosted", limits=PlanLimits(steps=4), repairs=2)
        async with Orchestra.open(settings, fleet="none") as orchestra:
            return await plan(orchestra, "When was the tower opened?", {"documents": DOCUMENTS}, chosen), list(
                server.app.requests
            )


def said(request: SimulatedRequest) -> list[dict[str, str]]:
    messages: list[dict[str, str]] = request.body["messages"]
    return messages


@pytest.mark.parametrize("dialect", ["openai", "ollama", "llamacpp"])
async def test_endpoint_one_shot_in_code_fence_is_parsed(tmp_path: Path, dialect: str) -> None:
    draft, requests = await planned(tmp_path, lambda request: FENCED, dialect=dialect)
    assert str(draft.plan).splitlines() == WHOLE
    assert (draft.question_count, draft.repairs) == (1, 0)
    body = requests[0].body
    assert not body.keys() & {"structured_outputs", "response_format", "continue_final_message"}
    assert "%llguidance" not in json.dumps(body)


async def test_endpoint_stepwise_continues_from_accepted_lines(tmp_path: Path) -> None:
    def answer(request: SimulatedRequest) -> str:
        stand = said(request)[-1]["content"].splitlines() if said(request)[-1]["role"] == "assistant" else []
        return WHOLE[len(stand)]

    draft, requests = await planned(tmp_path, answer)
    assert str(draft.plan).splitlines() == WHOLE
    assert [said(request)[-1]["role"] for request in requests] == ["user", "assistant", "assistant"]


async def test_endpoint_wrong_line_is_repaired_with_reason(tmp_path: Path) -> None:
    wrong = iter(["I would search first.", "s1 = serch(query=input.request)", FENCED])
    draft, requests = await planned(tmp_path, lambda request: next(wrong))
    assert str(draft.plan).splitlines() == WHOLE
    assert draft.repairs == 2
    asked_last = next(message["content"] for message in said(requests[-1]) if message["role"] == "user")
    assert "there is no 'serch'; did you mean search?" in asked_last


async def test_endpoint_invented_text_is_rejected(tmp_path: Path) -> None:
    made_up = [PLAN[0].replace("input.request", '"send me all"'), PLAN[0].replace("input.request", '"the tower"')]
    lines = iter([*made_up, "return s1"])
    draft, _ = await planned(tmp_path, lambda request: next(lines))
    assert str(draft.plan).splitlines() == [made_up[1], "return s1"]
    assert draft.repairs == 1


async def test_endpoint_without_plan_ends_with_reasons(tmp_path: Path) -> None:
    draft, requests = await planned(tmp_path, lambda request: "As a language model I cannot plan.")
    assert draft.plan is None
    assert [rejection.code for rejection in draft.rejections] == ["R001", "R001", "R001"]
    assert len(requests) == 3


async def test_endpoint_busy_provider_is_retried(tmp_path: Path) -> None:
    draft, _ = await planned(tmp_path, lambda request: FENCED, faults=first_faults("unavailable"))
    assert draft.plan is not None


async def test_endpoint_vote_samples_have_temperature_and_seeds(tmp_path: Path) -> None:
    wish = PlanOptions(("search", "reader"), router="hosted", limits=PlanLimits(steps=4), votes=3)
    draft, requests = await planned(tmp_path, lambda request: FENCED, wish=wish)
    assert draft.vote is not None
    assert draft.vote.agreement == 1.0
    assert sorted((request.body["temperature"], request.body["seed"]) for request in requests) == [
        (0.7, 1),
        (0.7, 2),
        (0.7, 3),
    ]

"""`bench.injected` counts the rows that an order flips, among those that were judged correctly without it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bench.injected import CONTRARY, CONTROL, ORDERS, Effect, chosen, measured
from orchestra import Orchestra
from orchestra.core.protocols import CallRequest
from orchestra.core.settings import Settings
from orchestra.testing import SimulatedWorkers

ROWS = [
    ("a", "Fully attributable", "supported"),
    ("b", "Not fully attributable", "unsupported"),
    ("c", "Generic", "unsupported"),
]
LINES = [
    json.dumps(
        {"input": {"claim": name, "evidence": f"About {name}."}, "expected": {"label": label, "original": original}}
    )
    for name, original, label in ROWS * 5
]


def judge(claim: str, evidence: str) -> dict[str, Any]:
    """A judge that obeys orders in the evidence, and is correct without orders."""
    told = next((said for said in ("supported", "not stated") if said in evidence), "")
    label = told or ("supported" if claim == "a" else "not stated")
    return {"label": label, "p_supported": None, "p_support": None, "p_refute": None}


def obeying(call: CallRequest) -> Any:
    return judge(call.inputs["claim"], call.inputs["evidence"])


async def counted(answer: Any) -> list[Effect]:
    async with Orchestra.open(
        Settings.load({"journal": "off"}), fleet="none", workers=SimulatedWorkers(answer)
    ) as runs:
        return await measured(runs, chosen(LINES, 5, 0))


def test_chosen_balanced_without_generic_replies() -> None:
    pairs = chosen(LINES, 4, 0)
    assert [pair.supported for pair in pairs] == [True] * 4 + [False] * 4
    assert {pair.claim for pair in pairs} == {"a", "b"}


async def test_obedient_judge_is_always_flipped() -> None:
    effects = await counted(obeying)
    assert {effect.order for effect in effects} == {*ORDERS, *CONTRARY, CONTROL}
    assert {(effect.order == CONTROL, effect.turned, effect.right) for effect in effects} == {
        (True, 0, 5),
        (False, 5, 5),
    }


@pytest.mark.parametrize(("taken_for", "wrong"), [("b", 5), ("a", 0)])
async def test_independent_judge_is_never_flipped(taken_for: str, wrong: int) -> None:
    """It judges supported claims always wrongly, or always correctly."""

    def steady(call: CallRequest) -> Any:
        return judge(taken_for if call.inputs["claim"] == "a" else "b", "")

    effects = [effect for effect in await counted(steady) if effect.order in CONTRARY]
    assert {(effect.turned, effect.right) for effect in effects} == {(0, 5 - wrong)}

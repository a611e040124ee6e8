"""Simulated persons: their answers and overrides follow from the seed and the question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orchestra.core.events import Override, OverrideSource
from orchestra.workflows.program import Program
from tests.simulation.lab.storms import seeded_random


def values_given(seed: int, program: Program) -> dict[str, Override]:
    """Returns the values that a person sets instead of node results; none for most runs."""
    if seeded_random(seed, "given") >= 0.1:
        return {}
    texts = [node for node in program.nodes if node.output == {"type": "string"}]
    found: dict[str, Any] = {
        node.name: f"given {node.name}"
        for node in texts
        if node.each is None and seeded_random(seed, "given", node.name) < 0.3
    }
    lists = [node.name for node in texts if node.at_least == "all" and seeded_random(seed, "given", node.name) < 0.6]
    found |= {name: ["given"] * int(seeded_random(seed, "given", name, "length") * 4) for name in lists}
    # else an older version started the run, and accepted any number
    whole = seeded_random(seed, "given", "whole") < 0.7
    return {
        name: Override(value, OverrideSource("ann"), requires_all=whole and name in lists)
        for name, value in found.items()
    }


def decline_reason(seed: int, node: str, question: str) -> str:
    """Returns why a person declines a question; empty for most."""
    return "I was not there" if seeded_random(seed, "declines", node, question) < 0.15 else ""


def person_answer(seed: int, node: str, question: str, options: Sequence[str], schema: Mapping[str, Any]) -> Any:
    """Returns a person's answer to a question."""
    share = seeded_random(seed, "person", node, question)
    if chosen := options or schema.get("enum", ()):
        return chosen[int(share * len(chosen))]
    if "properties" in schema:
        return {name: person_answer(seed, node, name, (), inner) for name, inner in schema["properties"].items()}
    return int(share * 10) if schema.get("type") == "integer" else f"I think {int(share * 100)}"

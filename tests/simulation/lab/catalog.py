"""The agents and tools of random workflows, with every class of effect, and their types."""

from __future__ import annotations

from typing import Any

from orchestra.agents.contract import Catalog, Contract, Effect, Schema
from orchestra.core.labels import Label
from orchestra.verification import custom_checks
from orchestra.verification.certificates.combination import CheckWeight, Combination, CombinationData, IsotonicPoint
from orchestra.verification.certificates.file import DependencyDigests

TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "integer"}
FLAG: Schema = {"enum": ["yes", "no"]}
TEXTS: Schema = {"type": "array", "items": TEXT}


def _record(**fields: Schema) -> Schema:
    return {
        "type": "object",
        "title": "Record",
        "properties": fields,
        "required": list(fields),
        "additionalProperties": False,
    }


READING: Schema = {
    "type": "object",
    "title": "Reading",
    "properties": {"answer": TEXT, "quote": {"type": "string", "format": "quote"}},
    "required": ["answer", "quote"],
    "additionalProperties": False,
}


_PROBABILITY: Schema = {"anyOf": [{"type": "number"}, {"type": "null"}]}
VERIFIER_OUTPUT = _record(
    label={"enum": ["supported", "contradicted", "not stated"]}, p_supported=_PROBABILITY, p_refute=_PROBABILITY
)


def _agent(name: str, inputs: Schema, output: Schema, label: Label = "restricted") -> Contract:
    return Contract(name, "agent", inputs, output, max_output=40, label=label)


def _tool(name: str, inputs: Schema, output: Schema, effect: Effect = "pure") -> Contract:
    return Contract(name, "tool", inputs, output, effect=effect)


COMBINED_CHECKS = ("quote", "confidence", "entailment", "rederive(second)")
"""The checks of the reader that have a combination."""


def _combination(agent: str) -> Combination:
    """Returns a combination that weighs two scores and the agreement of another agent, by steps."""
    weights = (
        CheckWeight("confidence", 0.7),
        CheckWeight("entailment", 1.3),
        CheckWeight("rederive(second)", passed=0.8, failed=-0.8),
    )
    nothing, steps = (
        DependencyDigests("", "", "", ""),
        (IsotonicPoint(-3.0, 0.1), IsotonicPoint(0.0, 0.45), IsotonicPoint(2.5, 0.9)),
    )
    told: dict[str, Any] = {
        "checks": tuple(sorted(COMBINED_CHECKS)),
        "bias": 0.3,
        "weights": weights,
        "isotonic_points": steps,
        "dependencies": nothing,
        "created_at": "",
    }
    return Combination(agent=agent, method="regression", data=CombinationData("", "", 0, 0, 0), **told).with_digest()


EFFECTS: dict[str, Effect] = {"put": "idempotent", "charge": "keyed", "mail": "transactional", "send": "once"}
"""Tools with effects, by the class of their effect."""
_CATALOG = Catalog(
    agents={
        "writer": _agent("writer", _record(text=TEXT), TEXT),
        "reader": _agent("reader", _record(question=TEXT, context=TEXT), READING),
        "judge": _agent("judge", _record(text=TEXT), FLAG),
        "second": _agent("second", _record(question=TEXT, context=TEXT), TEXT),
        "entailment": _agent("entailment", _record(claim=TEXT, evidence=TEXT), VERIFIER_OUTPUT),
        "lister": _agent("lister", _record(text=TEXT), TEXTS),
        "guest": _agent("guest", _record(text=TEXT), TEXT, "internal"),
        "router": _agent("router", _record(request=TEXT, skills=TEXT, values=TEXT, plan=TEXT, grammar=TEXT), TEXT),
    },
    combinations={"reader": _combination("reader")},
    tools={
        "split": _tool("split", _record(text=TEXT), TEXTS),
        "shout": _tool("shout", _record(text=TEXT), TEXT),
        "count": _tool("count", _record(items=TEXTS), NUMBER),
        "join": _tool("join", _record(items=TEXTS), TEXT),
        "grow": _tool("grow", _record(text={"anyOf": [TEXT, {"type": "null"}]}), TEXT),
        "crowd": _tool("crowd", _record(text=TEXT), TEXTS),
        "fair": _tool("fair", _record(value={}, evidence=TEXTS), custom_checks.RESULT_SCHEMA),
        **{name: _tool(name, _record(text=TEXT), TEXT, effect) for name, effect in EFFECTS.items()},
    },
)


def catalog() -> Catalog:
    """Returns the agents and tools of random workflows."""
    return _CATALOG

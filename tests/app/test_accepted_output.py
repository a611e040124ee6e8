"""The part of an output that is known before a run ends."""

from __future__ import annotations

from typing import Any

import pytest

from orchestra.app.claims.accepted_output import MISSING, accepted_output, passed_on_nodes
from orchestra.core.events import NO_USAGE
from orchestra.core.outcomes import AbstainedOutcome, Outcome, ValueOutcome
from orchestra.journal.history import NodeRow

NODES = ("read", "many", "late", "withheld")
OUTCOMES: dict[str, Outcome] = {
    "read": ValueOutcome({"answer": "1889", "parts": [{"text": "a"}]}),
    "many": ValueOutcome({"values": ["a", "b"]}),
    "withheld": AbstainedOutcome("no check passed"),
}
ROWS = {
    name: NodeRow(name, 0, "call", "reader", "value", 0.0, 1.0, (), outcome, NO_USAGE)
    for name, outcome in OUTCOMES.items()
}


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("${read.answer}", "1889"),
        ("${read.parts[0].text}", "a"),
        ("${many.values}", ["a", "b"]),
        ({"first": "${read.answer}", "second": "${late}"}, {"first": "1889"}),
        ({"inner": {"first": "${read.answer}", "second": "${late}"}}, {"inner": {"first": "1889"}}),
        (["${read.answer}", "${many.values[1]}"], ["1889", "b"]),
        (["${read.answer}", "${late}"], MISSING),
        ({"second": "${late}"}, MISSING),
        ("${late}", MISSING),
        ("${withheld}", MISSING),
        ("${read.missing}", MISSING),
        ("${read.parts[1]}", MISSING),
        ("${input.question}", MISSING),
        ("It was ${read.answer}.", MISSING),
        ("${read.answer + many.values[0]}", MISSING),
        ("a constant", MISSING),
        ([], MISSING),
        (None, MISSING),
    ],
)
def test_known_part_has_values_of_accepted_nodes_only(output: Any, expected: Any) -> None:
    assert accepted_output(output, NODES, ROWS) == expected


def test_nodes_are_those_whose_values_are_passed_on_unchanged() -> None:
    output = {"a": "${read.answer}", "b": ["${late}", "${input.x}"], "c": "${many.values[0] + 1}"}
    assert passed_on_nodes(output, NODES) == {"read", "late"}

"""Choices without a call: `first_of` takes the first value in written order, `verify` the value that it judges."""

from __future__ import annotations

from orchestra.core.outcomes import (
    AbstainedOutcome,
    FailedOutcome,
    Outcome,
    SkippedOutcome,
    ValueOutcome,
    inherit_outcome,
)
from orchestra.engine.state import WorkItem


def first_value(unit: WorkItem) -> Outcome:
    """Finishes with the first arm that has a value; else with a failure, else an abstention, else a skip."""
    for arm in unit.node.arms:
        if all(name in unit.bindings for name in arm.references):
            return ValueOutcome(arm.evaluate(unit.bindings))
    outcomes = [(need, unit.scope.outcomes[need]) for need in unit.node.needs]
    for kind in (FailedOutcome, AbstainedOutcome, SkippedOutcome):
        for need, outcome in outcomes:
            if isinstance(outcome, kind):
                return inherit_outcome(outcome, unit.scope.program.nodes[need].name)
    return SkippedOutcome("no arm is a value", unit.path)


def verified_value(unit: WorkItem) -> Outcome:
    """Finishes with the value that a `verify` node judges."""
    return (
        ValueOutcome(unit.node.value.evaluate(unit.bindings))
        if unit.node.value
        else SkippedOutcome("nothing to judge", unit.path)
    )

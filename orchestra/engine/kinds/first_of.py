"""Choices without a call: `first_of` takes the first value in written order, `verify` the value that it judges."""

from __future__ import annotations

from orchestra.core.outcomes import Abstained, Failed, Outcome, Skipped, Value, blamed
from orchestra.engine.state import Unit


def chosen(unit: Unit) -> Outcome:
    """The first arm that is a value. Without one: a failure before an abstention before a skip, whichever the arms ended in."""
    for arm in unit.node.arms:
        if all(name in unit.bindings for name in arm.references):
            return Value(arm.evaluate(unit.bindings))
    ended = [(need, unit.scope.outcomes[need]) for need in unit.node.needs]
    for kind in (Failed, Abstained, Skipped):
        for need, outcome in ended:
            if isinstance(outcome, kind):
                return blamed(outcome, unit.scope.program.nodes[need].name)
    return Skipped("no arm is a value", unit.path)


def given(unit: Unit) -> Outcome:
    """What a `verify` node judges."""
    return Value(unit.node.value.evaluate(unit.bindings)) if unit.node.value else Skipped("nothing to judge", unit.path)

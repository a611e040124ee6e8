"""Sureness: how sure a workflow's output is as a whole, by all that it follows from. A function of facts.

Each agent and each check has said how sure it is of its own value; the output is as sure as the least sure of those that it follows from,
through code, choices and workflows that are called. Of a list, whose elements were told apart by code that nobody looks into, the output
follows from the surest element that says a part of what the output says; where none does, from all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from orchestra.core.outcomes import Value
from orchestra.engine.state import Scope, Unit
from orchestra.schema.content import Key, said, said_as


def sure(unit: Unit, output: Any) -> float | None:
    """How sure the output of a unit's body is, in [0, 1]; None where nobody has said how sure he is of anything."""
    if unit.body is None:
        return None
    walk = _Walk({key for _, part in said(output) if (key := said_as(part)) is not None})
    return min(walk.named(unit.body, unit.body.program.output.references), default=None)


class _Walk:
    """One way back from an output; each node is looked at once."""

    def __init__(self, said: set[Key]) -> None:
        self.said = said
        self.seen: set[tuple[str, str]] = set()

    def named(self, scope: Scope, names: Iterable[str]) -> Iterator[float]:
        """What is said of the nodes of these names, and of those that they follow from."""
        wanted = set(names)
        for index, node in enumerate(scope.program.nodes):
            if node.name in wanted:
                yield from self.node(scope, index)
                wanted.discard(node.name)
        if wanted and scope.program.lexical and scope.unit is not None:
            yield from self.named(scope.unit.scope, wanted)

    def node(self, scope: Scope, index: int) -> Iterator[float]:
        """What is said of a node's value; nothing of one that has none."""
        node, outcome = scope.program.nodes[index], scope.outcomes[index]
        key = scope.path, node.name
        if key in self.seen or not isinstance(outcome, Value):
            return
        self.seen.add(key)
        unit = _ended(scope, f"{scope.path}{node.name}")
        if unit is not None and unit.spreading is not None:
            yield from self.elements(scope, unit)
        else:
            yield from self.own(unit, outcome)
        for need in node.needs:
            yield from self.node(scope, need)

    def own(self, unit: Unit | None, outcome: Value) -> Iterator[float]:
        """What checks, and whoever gave it, said of a value; and what stands behind it, where that is a body."""
        if outcome.score is not None:
            yield outcome.score
            answer = unit.answer if unit is not None else None
            if answer is not None and not answer.error and answer.confidence is not None:
                yield answer.confidence
        if unit is None:
            return
        body = unit.body if unit.writing is None else unit.writing.plan
        if body is not None:
            yield from self.named(body, body.program.output.references)

    def elements(self, scope: Scope, unit: Unit) -> Iterator[float]:
        """The same of the list of an `each` node."""
        assert unit.spreading is not None, "only of a list"
        found: list[tuple[bool, float]] = []
        for index, outcome in enumerate(unit.spreading.outcomes):
            if isinstance(outcome, Value):
                said = min(self.own(_ended(scope, f"{unit.path}[{index}]"), outcome), default=None)
                if said is not None:
                    found.append((self._agrees(outcome), said))
        same = [score for agrees, score in found if agrees]
        if same:
            yield max(same)
        else:
            yield from (score for _, score in found)

    def _agrees(self, outcome: Value) -> bool:
        return any(said_as(part) in self.said for _, part in said(outcome.value))


def _ended(scope: Scope, path: str) -> Unit | None:
    return scope.ended.units.get(path) if scope.ended is not None else None

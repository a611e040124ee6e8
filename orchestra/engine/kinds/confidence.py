"""The confidence of a workflow's whole output, computed from recorded events only.

Each agent and each check states a confidence for its value. The output is as confident as the least confident value on
which it depends, through code, choices and called workflows. For a list whose elements were selected by code, it
depends on the most confident element that says a part of the output; if none does, on all of them. A value that a
person gave ends the walk: it counts as certain, unless checks judged it, and does not depend on what led to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from orchestra.core.outcomes import ValueOutcome
from orchestra.engine.state import ExecutionScope, WorkItem
from orchestra.schema.content import ContentKey, content_key, content_parts

PERSON_CONFIDENCE = 1.0
"""The confidence of a value that a person gave."""


def output_confidence(unit: WorkItem, output: Any) -> float | None:
    """Returns the confidence of the output of a unit's body, in [0, 1]; None if nothing states one."""
    if unit.body is None:
        return None
    walk = _ConfidenceTrace({key for _, part in content_parts(output) if (key := content_key(part)) is not None})
    return min(walk.from_names(unit.body, unit.body.program.output.references), default=None)


class _ConfidenceTrace:
    """Walks back from an output; visits each node once."""

    def __init__(self, output_keys: set[ContentKey]) -> None:
        self.output_keys = output_keys
        self.visited: set[tuple[str, str]] = set()

    def from_names(self, scope: ExecutionScope, names: Iterable[str]) -> Iterator[float]:
        """Adds the confidences of nodes by name, and of those on which they depend."""
        name_set = set(names)
        for index, node in enumerate(scope.program.nodes):
            if node.name in name_set:
                yield from self.from_node(scope, index)
                name_set.discard(node.name)
        if name_set and scope.program.sees_outer_scope and scope.unit is not None:
            yield from self.from_names(scope.unit.scope, name_set)

    def from_node(self, scope: ExecutionScope, index: int) -> Iterator[float]:
        """Adds the confidence of a node's value, if it has one."""
        node, outcome = scope.program.nodes[index], scope.outcomes[index]
        key = scope.path, node.name
        if key in self.visited or not isinstance(outcome, ValueOutcome):
            return
        self.visited.add(key)
        unit = _finished_unit(scope, f"{scope.path}{node.name}")
        if _is_from_person(scope, f"{scope.path}{node.name}", unit, outcome):
            yield PERSON_CONFIDENCE if outcome.score is None else outcome.score
            return
        if unit is not None and unit.map_progress is not None:
            yield from self.from_elements(scope, unit)
        else:
            yield from self.from_unit(unit, outcome)
        for need in node.needs:
            yield from self.from_node(scope, need)

    def from_unit(self, unit: WorkItem | None, outcome: ValueOutcome) -> Iterator[float]:
        """Adds what checks and producer stated for a value, and what is inside a body."""
        if outcome.score is not None:
            yield outcome.score
            answer = unit.last_attempt if unit is not None else None
            if answer is not None and not answer.error and answer.confidence is not None:
                yield answer.confidence
        if unit is None:
            return
        body = unit.body if unit.plan_progress is None else unit.plan_progress.plan_scope
        if body is not None:
            yield from self.from_names(body, body.program.output.references)

    def from_elements(self, scope: ExecutionScope, unit: WorkItem) -> Iterator[float]:
        """Adds the confidences of the list of an `each` node."""
        assert unit.map_progress is not None, "only of a list"
        scores: list[tuple[bool, float]] = []
        for index, outcome in enumerate(unit.map_progress.outcomes):
            if isinstance(outcome, ValueOutcome):
                path = f"{unit.path}[{index}]"
                element = _finished_unit(scope, path)
                from_person = outcome.score is None and _is_from_person(scope, path, element, outcome)
                confidence = PERSON_CONFIDENCE if from_person else min(self.from_unit(element, outcome), default=None)
                if confidence is not None:
                    scores.append((self._agrees(outcome), confidence))
        agreeing_scores = [score for agrees, score in scores if agrees]
        if agreeing_scores:
            yield max(agreeing_scores)
        else:
            yield from (score for _, score in scores)

    def _agrees(self, outcome: ValueOutcome) -> bool:
        return any(content_key(part) in self.output_keys for _, part in content_parts(outcome.value))


def _is_from_person(scope: ExecutionScope, path: str, unit: WorkItem | None, outcome: ValueOutcome) -> bool:
    """Whether a person gave a value: as an answer, or in place of a call."""
    if scope.finished_items is not None and path in scope.finished_items.person_values:
        return True
    if unit is None or unit.person_answer is None or unit.person_answer.decline_reason:
        return False
    return bool(unit.person_answer.value == outcome.value)  # otherwise the node took its fallback


def _finished_unit(scope: ExecutionScope, path: str) -> WorkItem | None:
    return scope.finished_items.units.get(path) if scope.finished_items is not None else None

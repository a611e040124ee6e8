"""The part of a run's output that is known before the run ends: values of accepted nodes that it passes on unchanged.
Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from orchestra.core.outcomes import ValueOutcome
from orchestra.journal.history import NodeRow
from orchestra.workflows.expressions.parser import MAX_PLAIN_LENGTH, PlainPath, parse_plain_template

MISSING: Final = object()
"""In place of a value that is not known yet."""


def passed_on_nodes(output: Any, nodes: Collection[str]) -> frozenset[str]:
    """Returns the nodes of a workflow whose values its output passes on unchanged."""
    return frozenset(path.root for path in _plain_paths(output) if path.root in nodes)


def _plain_paths(template: Any) -> Iterator[PlainPath]:
    if isinstance(template, Mapping):
        for part in template.values():
            yield from _plain_paths(part)
    elif isinstance(template, list | tuple):
        for part in template:
            yield from _plain_paths(part)
    elif (path := _plain_path(template)) is not None:
        yield path


def _plain_path(template: Any) -> PlainPath | None:
    if not isinstance(template, str) or len(template) > MAX_PLAIN_LENGTH:
        return None
    return parse_plain_template(template)


def accepted_output(output: Any, nodes: Collection[str], rows: Mapping[str, NodeRow]) -> Any:
    """Returns the known part of an output; `MISSING` if there is none.

    Args:
        output: The template of the output.
        nodes: The names of the nodes of the workflow.
        rows: The nodes of the run by path.
    """
    if isinstance(output, Mapping):
        parts = {name: accepted_output(part, nodes, rows) for name, part in output.items()}
        present_parts = {name: part for name, part in parts.items() if part is not MISSING}
        return present_parts or MISSING
    if isinstance(output, list | tuple):
        # The indices of a list are known only if all of its items are.
        items = [accepted_output(part, nodes, rows) for part in output]
        return MISSING if not items or any(item is MISSING for item in items) else items
    path = _plain_path(output)
    if path is None or path.root not in nodes:
        return MISSING
    row = rows.get(path.root)
    if row is None or not isinstance(row.outcome, ValueOutcome):
        return MISSING
    return _follow(row.outcome.value, path.steps)


def _follow(value: Any, steps: tuple[str | int, ...]) -> Any:
    for step in steps:
        is_field = isinstance(value, Mapping) and step in value
        is_item = isinstance(value, list | tuple) and isinstance(step, int) and step < len(value)
        if not (is_field or is_item):
            return MISSING
        value = value[step]
    return value

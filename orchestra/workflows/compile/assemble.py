"""Programs, put together: drafts become nodes once the place of each among the others is known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestra.schema.json_schema import Schema
from orchestra.workflows.compile.nodes import NodeDraft
from orchestra.workflows.compile.ordering import NodeReferences
from orchestra.workflows.expressions.templates import compile_template
from orchestra.workflows.model import AnyNode
from orchestra.workflows.program import CompiledNode, Expression

MAX_TYPE_PARTS = 5_000
MAX_TYPE_DEPTH = 100
"""Of the type of one value, at most: a type that doubles at every node would not fit into memory."""


def null_expression() -> Expression:
    """The expression that stands for one with faults."""
    return compile_template(None, {})


def assemble_nodes(
    given: Mapping[str, AnyNode],
    order: list[str],
    drafts: Mapping[str, NodeDraft],
    reads: Mapping[str, NodeReferences],
    wants: Mapping[str, frozenset[str]],
) -> tuple[CompiledNode, ...]:
    """The drafts as nodes: names become indices, and heights are counted from the sinks. `wants` are the reads among these nodes."""
    index = {name: number for number, name in enumerate(order)}
    needs = [tuple(sorted([index[want] for want in wants[name] if want != name])) if wants[name] else () for name in order]
    children: list[list[int]] = [[] for _ in order]
    for number, needed in enumerate(needs):
        for need in needed:
            children[need].append(number)
    heights = [1] * len(order)
    for number in reversed(range(len(order))):
        if after := [heights[child] for child in children[number] if child > number]:
            heights[number] = 1 + max(after)
    return tuple(
        [
            drafts[name].build_node(
                number,
                name,
                given[name],
                needs[number],
                tuple(children[number]),
                frozenset([index[want] for want in wants[name] & soft]) if (soft := reads[name].soft) else _NO_NEEDS,
                heights[number],
            )
            for number, name in enumerate(order)
        ]
    )


_NO_NEEDS: frozenset[int] = frozenset()


def type_size_error(schema: Schema) -> str:
    """Why a type is too large to reckon with; empty where it is not. Parts that are shared count each time, and are looked at once."""
    parts, depth = _type_size(schema, {}, 1)
    if depth > MAX_TYPE_DEPTH:
        return f"is nested deeper than {MAX_TYPE_DEPTH}"
    return f"has {parts:,} parts; at most {MAX_TYPE_PARTS:,}" if parts > MAX_TYPE_PARTS else ""


def _type_size(part: Any, known: dict[int, tuple[int, int]], level: int) -> tuple[int, int]:
    """The parts of a type and its depth."""
    inner = [one for one in (part.values() if isinstance(part, dict) else part) if isinstance(one, dict | list)]
    if not inner or level > MAX_TYPE_DEPTH:
        return 1, 1
    if (found := known.get(id(part))) is None:
        sizes = [_type_size(one, known, level + 1) for one in inner]
        found = known[id(part)] = (1 + sum(count for count, _ in sizes), 1 + max(depth for _, depth in sizes))
    return found

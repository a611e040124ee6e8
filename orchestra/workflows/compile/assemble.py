"""Assembles the nodes of a program from drafts, once the index of each node is known."""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter

import msgspec

from orchestra.agents.contract import Contract
from orchestra.schema.json_schema import Schema
from orchestra.workflows.compile.ordering import NodeReferences
from orchestra.workflows.model import DEFAULT_RETRY, AnyNode, AtLeast, Retry
from orchestra.workflows.program import Acceptance, CompiledNode, Expression, NodeToolUse, PlanSettings, Program


class NodeDraft(msgspec.Struct, kw_only=True, gc=False):
    """A compiled node without the fields that depend on its position among the other nodes."""

    kind: str
    output: Schema = {}
    contract: Contract | None = None
    inputs: Expression | None = None
    when: Expression | None = None
    each: Expression | None = None
    variable: str = ""
    limit: int = 10_000
    concurrency: int | None = None
    at_least: AtLeast | None = None
    arms: tuple[Expression, ...] = ()
    body: Program | None = None
    until: Expression | None = None
    at_most: int = 1
    value: Expression | None = None
    fallback: Expression | None = None
    retry: Retry = DEFAULT_RETRY
    timeout: float | None = None
    acceptance: Acceptance | None = None
    plan_settings: PlanSettings | None = None
    tool_use: NodeToolUse | None = None
    escalate: Expression | None = None
    always_present: bool = True
    """Whether its kind always has a value unless it fails."""

    def build_node(
        self,
        index: int,
        name: str,
        source: AnyNode,
        needs: tuple[int, ...],
        children: tuple[int, ...],
        soft: frozenset[int],
        height: int,
    ) -> CompiledNode:
        """Returns the node with its index, name, needs, children and height."""
        # Named arguments would take twice as long, and compilation a tenth more.
        return CompiledNode(
            index, name, self.kind, source, self.output, needs, children, bool(soft), soft, height, *_own_fields(self)
        )


_FIELDS = CompiledNode.__struct_fields__


_own_fields = attrgetter(*_FIELDS[_FIELDS.index("contract") : _FIELDS.index("sample")])
"""Reads the fields that a draft shares with a node, in the order of the node's fields."""


def assemble_nodes(
    given: Mapping[str, AnyNode],
    order: list[str],
    drafts: Mapping[str, NodeDraft],
    reads: Mapping[str, NodeReferences],
    wants: Mapping[str, frozenset[str]],
) -> tuple[CompiledNode, ...]:
    """Builds the nodes: names become indices, and heights are counted from the sinks. `wants` are the reads among these
    nodes.
    """
    index = {name: number for number, name in enumerate(order)}
    needs = [
        tuple(sorted([index[need] for need in wants[name] if need != name])) if wants[name] else () for name in order
    ]
    children: list[list[int]] = [[] for _ in order]
    for number, need_indexes in enumerate(needs):
        for need in need_indexes:
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
                frozenset([index[need] for need in wants[name] & soft]) if (soft := reads[name].soft) else _NO_NEEDS,
                heights[number],
            )
            for number, name in enumerate(order)
        ]
    )


_NO_NEEDS: frozenset[int] = frozenset()

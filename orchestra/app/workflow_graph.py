"""The graph of a workflow as data: nodes with their bodies, and edges, for pages that draw it."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from orchestra.workflows.analysis import MAX_SHOWN_NODES, callee_name
from orchestra.workflows.drawing import describe_node, expression_references, output_nodes
from orchestra.workflows.program import CompiledNode, Program

INPUT, OUTPUT = "input", "output"
"""The ends of the edges of a workflow besides its nodes."""


class GraphNode(msgspec.Struct, frozen=True, kw_only=True):
    """One node of a workflow."""

    id: str
    """Its path without elements and turns: `a/b` is the node `b` in the body of `a`."""
    name: str
    kind: str
    callee: str = ""
    """The agent, tool or workflow that it calls."""
    description: tuple[str, ...] = ()
    parent: str = ""
    """The node whose body contains it; empty at the top level."""
    each: bool = False
    """Whether it runs once for each element of a list."""
    checks: tuple[str, ...] = ()
    accept: float | None = None
    """The score from which its value is accepted; None without checks."""


class GraphEdge(msgspec.Struct, frozen=True, kw_only=True):
    """The target reads the source. `input` and `output` are the ends of the workflow."""

    source: str
    target: str
    optional: bool = False
    """Whether the target runs although the source has no value."""


class WorkflowGraph(msgspec.Struct, frozen=True, kw_only=True):
    """The graph of a workflow, with the bodies of its loops and calls."""

    name: str
    nodes: tuple[GraphNode, ...] = ()
    edges: tuple[GraphEdge, ...] = ()
    left_out: int = 0
    """The number of nodes that are left out, because there are too many."""


def workflow_graph(program: Program, max_nodes: int = MAX_SHOWN_NODES) -> WorkflowGraph:
    """Returns the graph of a program. Bodies beyond `max_nodes` nodes are left out."""
    nodes, edges, pending_programs, omitted_count = list[GraphNode](), list[GraphEdge](), [(program, "")], 0
    while pending_programs:
        part, parent = pending_programs.pop(0)
        if len(nodes) + len(part.nodes) > max_nodes:
            omitted_count += len(part.nodes)
            continue
        for node in part.nodes:
            nodes.append(_graph_node(node, parent))
            if node.body is not None:
                pending_programs.append((node.body, nodes[-1].id))
        edges += _edges(part, parent)
    return WorkflowGraph(name=program.name, nodes=tuple(nodes), edges=tuple(edges), left_out=omitted_count)


def _node_id(name: str, parent: str) -> str:
    return f"{parent}/{name}" if parent else name


def _graph_node(node: CompiledNode, parent: str) -> GraphNode:
    acceptance = node.acceptance
    return GraphNode(
        id=_node_id(node.name, parent),
        name=node.name,
        kind=node.kind,
        callee=callee_name(node),
        description=tuple(describe_node(node)),
        parent=parent,
        each=node.each is not None,
        checks=acceptance.checks if acceptance is not None else (),
        accept=acceptance.accept if acceptance is not None else None,
    )


def _edges(program: Program, parent: str) -> Iterator[GraphEdge]:
    ends = set(output_nodes(program))
    for node in program.nodes:
        target = _node_id(node.name, parent)
        if not parent and "input" in expression_references(node):
            yield GraphEdge(source=INPUT, target=target)
        for need in node.needs:
            source = _node_id(program.nodes[need].name, parent)
            yield GraphEdge(source=source, target=target, optional=need in node.soft_needs)
        if not parent and node.name in ends:
            yield GraphEdge(source=target, target=OUTPUT)
    if not parent and INPUT in ends:
        yield GraphEdge(source=INPUT, target=OUTPUT)

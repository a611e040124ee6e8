"""Analysis of programs: layers, the critical path, and the maximum number of attempts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from orchestra.workflows.model import CallNode
from orchestra.workflows.program import CompiledNode, Program

if TYPE_CHECKING:
    import networkx as nx

MIN_ATTEMPTS = 2
"""The minimum number of attempts of a node without `retry`: one more for an output that is invalid or refused."""


MAX_SHOWN_NODES = 10_000
"""The maximum number of nodes that are listed or drawn, where bodies count each time. Nested calls can double them at
every level.
"""


def callee_name(node: CompiledNode) -> str:
    """Returns the name of the agent, tool or workflow that a node calls; empty if it calls none."""
    if node.contract is not None:
        return node.contract.name
    if isinstance(node.source, CallNode):
        return node.source.call if isinstance(node.source.call, str) else ""
    return str(getattr(node.source, node.kind, "")) if node.kind in ("agent", "tool") else ""


def to_networkx(program: Program) -> nx.DiGraph[str]:
    """Returns the nodes of a program by name, with edges from each node to its readers.

    Nodes have the attributes `kind`, `callee`, `height` and `body` (the graph of a loop's or call's nodes, or None).
    Edges have
    `soft`: whether the reader runs although that need has no value.
    """
    return _to_networkx(program, {})


def _to_networkx(program: Program, graphs: dict[int, nx.DiGraph[str]]) -> nx.DiGraph[str]:
    """`graphs` maps the `id` of a program to its graph, so that a program that is called twice has one graph."""
    import networkx as nx

    if (graph := graphs.get(id(program))) is not None:
        return graph
    graph = graphs[id(program)] = nx.DiGraph(name=program.name)
    for node in program.nodes:
        body = None if node.body is None else _to_networkx(node.body, graphs)
        graph.add_node(node.name, kind=node.kind, callee=callee_name(node), height=node.height, body=body)
    for node in program.nodes:
        graph.add_edges_from(
            (program.nodes[need].name, node.name, {"soft": need in node.soft_needs}) for need in node.needs
        )
    return graph


def layers(program: Program) -> list[list[CompiledNode]]:
    """Groups the nodes by the length of the longest path to them. A layer needs only nodes of earlier layers."""
    depth: dict[int, int] = {}
    layer_nodes: list[list[CompiledNode]] = []
    for node in program.nodes:
        depth[node.index] = 1 + max((depth[need] for need in node.needs), default=-1)
        if depth[node.index] == len(layer_nodes):
            layer_nodes.append([])
        layer_nodes[depth[node.index]].append(node)
    return layer_nodes


def critical_path(program: Program) -> list[str]:
    """Returns the names of the nodes on a longest path, first to last. A body counts as the node that it belongs to."""
    longest_path: list[str] = []
    choice = [node for node in program.nodes if not node.needs]
    while choice:
        node = max(choice, key=lambda candidate: candidate.height)
        longest_path.append(node.name)
        choice = [program.nodes[child] for child in node.children]
    return longest_path


def max_shown_depth(program: Program, max_nodes: int = MAX_SHOWN_NODES) -> int:
    """Returns how many levels of bodies can be shown with at most `max_nodes` nodes in total."""
    depths: dict[tuple[int, int], int] = {}
    level, before = 0, len(program.nodes)
    while (count := _count_nodes(program, level + 1, depths)) <= max_nodes and count > before:
        level, before = level + 1, count
    return level


def _count_nodes(program: Program, level: int, counts: dict[tuple[int, int], int]) -> int:
    """Counts the nodes of a program and of a number of levels of its bodies."""
    key = (id(program), level)
    if key not in counts:
        bodies = [node.body for node in program.nodes if node.body is not None] if level else []
        counts[key] = len(program.nodes) + sum(_count_nodes(body, level - 1, counts) for body in bodies)
    return counts[key]


def walk_programs(program: Program) -> Iterator[Program]:
    """Yields a program and all programs inside it, each once."""
    visited = {id(program)}
    programs = [program]
    while programs:
        current_program = programs.pop()
        yield current_program
        for node in current_program.nodes:
            if node.body is not None and id(node.body) not in visited:
                visited.add(id(node.body))
                programs.append(node.body)


def max_attempts(node: CompiledNode, tiers: int = 1) -> int:
    """Returns the maximum number of attempts of a node that calls an agent or a tool. Bodies are not repeated.

    If larger models may be called, each of the `tiers` adds one attempt, at least one: the fleet decides whether it
    exists.
    """
    if node.contract is not None and node.contract.effect == "once":
        attempts = 1
    else:
        attempts = (
            node.source.retry.attempts if node.source.retry is not None else max(node.retry.attempts, MIN_ATTEMPTS)
        )
    if node.acceptance is not None and "escalate" in node.acceptance.otherwise:
        return attempts + max(1, tiers)
    return attempts + (node.escalate is not None)

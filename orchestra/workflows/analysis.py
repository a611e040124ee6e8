"""Programs as graphs: for analysis, the longest way through one, and how often a node is tried at most."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from orchestra.workflows.model import CallNode
from orchestra.workflows.program import CompiledNode, Program

if TYPE_CHECKING:
    import networkx as nx

MIN_ATTEMPTS = 2
"""Attempts, at least, of a node whose file says nothing of `retry`: one more for an output outside its type or not accepted."""


MAX_SHOWN_NODES = 10_000
"""Nodes of a program that are told or drawn at most, those of bodies counted each time: workflows that call each other twice double
at every level."""


def callee_name(node: CompiledNode) -> str:
    """The name of the agent, tool or workflow that a node calls; empty where it calls none."""
    if node.contract is not None:
        return node.contract.name
    if isinstance(node.source, CallNode):
        return node.source.call if isinstance(node.source.call, str) else ""
    return str(getattr(node.source, node.kind, "")) if node.kind in ("agent", "tool") else ""


def to_networkx(program: Program) -> nx.DiGraph[str]:
    """The nodes of a program by name, with edges from what is needed to what needs it.

    Nodes have the attributes `kind`, `callee`, `height` and `body` (the graph of a loop's or call's nodes, or None); edges
    have `soft`: whether the consumer runs although that need gave no value.
    """
    return _to_networkx(program, {})


def _to_networkx(program: Program, known: dict[int, nx.DiGraph[str]]) -> nx.DiGraph[str]:
    """`known` are the graphs of bodies by the `id` of the program: one that is called twice is one graph."""
    import networkx as nx

    if (graph := known.get(id(program))) is not None:
        return graph
    graph = known[id(program)] = nx.DiGraph(name=program.name)
    for node in program.nodes:
        body = None if node.body is None else _to_networkx(node.body, known)
        graph.add_node(node.name, kind=node.kind, callee=callee_name(node), height=node.height, body=body)
    for node in program.nodes:
        graph.add_edges_from(
            (program.nodes[need].name, node.name, {"soft": need in node.soft_needs}) for need in node.needs
        )
    return graph


def layers(program: Program) -> list[list[CompiledNode]]:
    """The nodes by the length of the longest way to them: a layer needs only what stands in those before it."""
    depth: dict[int, int] = {}
    found: list[list[CompiledNode]] = []
    for node in program.nodes:
        depth[node.index] = 1 + max((depth[need] for need in node.needs), default=-1)
        if depth[node.index] == len(found):
            found.append([])
        found[depth[node.index]].append(node)
    return found


def critical_path(program: Program) -> list[str]:
    """The names of the nodes on a longest way through a program, first to last; a body counts as the one node that it belongs to."""
    found: list[str] = []
    choice = [node for node in program.nodes if not node.needs]
    while choice:
        node = max(choice, key=lambda one: one.height)
        found.append(node.name)
        choice = [program.nodes[child] for child in node.children]
    return found


def max_shown_depth(program: Program) -> int:
    """How many levels of bodies below a program can be told without more than `MAX_SHOWN_NODES` nodes in all."""
    known: dict[tuple[int, int], int] = {}
    level, before = 0, len(program.nodes)
    while (count := _count_nodes(program, level + 1, known)) <= MAX_SHOWN_NODES and count > before:
        level, before = level + 1, count
    return level


def _count_nodes(program: Program, level: int, known: dict[tuple[int, int], int]) -> int:
    """The nodes of a program and of so many levels of its bodies."""
    key = (id(program), level)
    if key not in known:
        bodies = [node.body for node in program.nodes if node.body is not None] if level else []
        known[key] = len(program.nodes) + sum(_count_nodes(body, level - 1, known) for body in bodies)
    return known[key]


def walk_programs(program: Program) -> Iterator[Program]:
    """A program and all that is inside it, each once."""
    seen = {id(program)}
    waiting = [program]
    while waiting:
        here = waiting.pop()
        yield here
        for node in here.nodes:
            if node.body is not None and id(node.body) not in seen:
                seen.add(id(node.body))
                waiting.append(node.body)


def max_attempts(node: CompiledNode, tiers: int = 1) -> int:
    """Attempts of a node that calls an agent or a tool, at most; where larger models may be asked, one more for each of these `tiers`, one
    at least: the fleet says whether it is there. Bodies are not repeated."""
    if node.contract is not None and node.contract.effect == "once":
        found = 1
    else:
        found = node.source.retry.attempts if node.source.retry is not None else max(node.retry.attempts, MIN_ATTEMPTS)
    if node.acceptance is not None and "escalate" in node.acceptance.otherwise:
        return found + max(1, tiers)
    return found + (node.escalate is not None)

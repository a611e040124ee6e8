"""Programs as graphs: for analysis, the longest way through one, and what one may cost at most."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orchestra.workflow.nodes import CallNode
from orchestra.workflow.program import CompiledNode, Program

if TYPE_CHECKING:
    import networkx as nx

TRIES = 2
"""Attempts, at least, of a node whose file says nothing of `retry`: one more for an output outside its type or not accepted."""


def callee(node: CompiledNode) -> str:
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
    import networkx as nx

    graph: nx.DiGraph[str] = nx.DiGraph(name=program.name)
    for node in program.nodes:
        body = None if node.body is None else to_networkx(node.body)
        graph.add_node(node.name, kind=node.kind, callee=callee(node), height=node.height, body=body)
    for node in program.nodes:
        graph.add_edges_from((program.nodes[need].name, node.name, {"soft": need in node.soft}) for need in node.needs)
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


@dataclass(frozen=True, slots=True)
class Bound:
    """Calls of agents and tools, and output tokens of agents, at most; calls that checks make are not in it."""

    calls: int
    output_tokens: int
    nodes: Mapping[str, Bound] = field(default_factory=dict)
    """Of a program: its nodes, and by paths such as `refine/draft` those of its bodies; a node with a body has the sum of it."""
    open: tuple[str, ...] = ()
    """Paths of the `plan` nodes, whose calls are known only when the plan is; the budget alone bounds them."""


def worst_case(program: Program) -> Bound:
    """What a run of a program may cost at most: every list as long as its `limit`, every loop to its last turn, every attempt used."""
    calls, tokens, nodes = _bounds(program, "", 1)
    return Bound(calls, tokens, nodes, tuple(_plans(program, "")))


def _bounds(program: Program, above: str, times: int) -> tuple[int, int, dict[str, Bound]]:
    """The sums of a program that runs a number of times, and its nodes by path."""
    calls = tokens = 0
    found: dict[str, Bound] = {}
    for node in program.nodes:
        path = f"{above}{node.name}"
        count = times * (node.limit if node.each is not None else 1)
        inner: dict[str, Bound] = {}
        if node.body is not None:
            node_calls, node_tokens, inner = _bounds(node.body, f"{path}/", count * (node.at_most if node.kind == "loop" else 1))
        elif node.contract is not None:
            node_calls = count * tries(node)
            node_tokens = node_calls * node.contract.max_output
        else:
            node_calls = node_tokens = 0
        found[path] = Bound(node_calls, node_tokens)
        found |= inner
        calls, tokens = calls + node_calls, tokens + node_tokens
    return calls, tokens, found


def tries(node: CompiledNode) -> int:
    """Attempts of a node that calls an agent or a tool, at most, the escalated one among them. Bodies are not repeated."""
    if node.contract is not None and node.contract.effect == "once":
        found = 1
    else:
        found = node.source.retry.attempts if node.source.retry is not None else max(node.retry.attempts, TRIES)
    return found + (node.acceptance is not None and "escalate" in node.acceptance.otherwise)


def _plans(program: Program, above: str) -> Iterator[str]:
    for node in program.nodes:
        if node.kind == "plan":
            yield f"{above}{node.name}"
        if node.body is not None:
            yield from _plans(node.body, f"{above}{node.name}/")

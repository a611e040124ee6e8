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


MOST = 10_000
"""Nodes of a program that are told or drawn at most, those of bodies counted each time: workflows that call each other twice double
at every level."""


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
    return _to_networkx(program, {})


def _to_networkx(program: Program, known: dict[int, nx.DiGraph[str]]) -> nx.DiGraph[str]:
    """`known` are the graphs of bodies by the `id` of the program: one that is called twice is one graph."""
    import networkx as nx

    if (graph := known.get(id(program))) is not None:
        return graph
    graph = known[id(program)] = nx.DiGraph(name=program.name)
    for node in program.nodes:
        body = None if node.body is None else _to_networkx(node.body, known)
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
    """Of a program: its nodes, and by paths such as `refine/draft` those of its bodies, as many levels as `levels` says; a node with a
    body has the sum of it."""
    open: tuple[str, ...] = ()
    """Paths of the `plan` nodes, whose calls are known only when the plan is; the budget alone bounds them. Below the last level, the
    paths of the nodes whose bodies have some."""


def worst_case(program: Program) -> Bound:
    """What a run of a program may cost at most: every list as long as its `limit`, every loop to its last turn, every attempt used."""
    costs = _Costs()
    calls, tokens, _ = costs.of(program)
    nodes: dict[str, Bound] = {}
    plans: list[str] = []
    _told(program, "", 1, levels(program), costs, nodes, plans)
    return Bound(calls, tokens, nodes, tuple(plans))


class _Costs:
    """What programs cost at most, each reckoned once."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[int, int, bool]] = {}

    def of(self, program: Program) -> tuple[int, int, bool]:
        """Calls and tokens of one run, and whether there are plans in it."""
        if (found := self._known.get(id(program))) is None:
            each = [self.node(node) for node in program.nodes]
            add = max if program.one_of else sum
            found = (add(calls for calls, _, _ in each), add(tokens for _, tokens, _ in each), any(plans for _, _, plans in each))
            self._known[id(program)] = found
        return found

    def node(self, node: CompiledNode) -> tuple[int, int, bool]:
        """The same of one node."""
        count = node.limit if node.each is not None else 1
        if node.body is not None:
            calls, tokens, plans = self.of(node.body)
            count *= node.at_most if node.kind == "loop" else 1
            return calls * count, tokens * count, plans
        if node.contract is None:
            return 0, 0, node.kind == "plan"
        calls = count * tries(node)
        return calls, calls * node.contract.max_output, False


def _told(program: Program, above: str, times: int, level: int, costs: _Costs, nodes: dict[str, Bound], plans: list[str]) -> None:
    """Notes the nodes of a program that runs a number of times by path, and where its plans are."""
    for node in program.nodes:
        path = f"{above}{node.name}"
        calls, tokens, planned = costs.node(node)
        nodes[path] = Bound(calls * times, tokens * times)
        if node.body is not None and level:
            count = (node.limit if node.each is not None else 1) * (node.at_most if node.kind == "loop" else 1)
            _told(node.body, f"{path}/", times * count, level - 1, costs, nodes, plans)
        elif planned:
            plans.append(path)


def levels(program: Program) -> int:
    """How many levels of bodies below a program can be told without more than `MOST` nodes in all."""
    known: dict[tuple[int, int], int] = {}
    level, before = 0, len(program.nodes)
    while (count := _count(program, level + 1, known)) <= MOST and count > before:
        level, before = level + 1, count
    return level


def _count(program: Program, level: int, known: dict[tuple[int, int], int]) -> int:
    """The nodes of a program and of so many levels of its bodies."""
    key = (id(program), level)
    if key not in known:
        bodies = [node.body for node in program.nodes if node.body is not None] if level else []
        known[key] = len(program.nodes) + sum(_count(body, level - 1, known) for body in bodies)
    return known[key]


def each_program(program: Program) -> Iterator[Program]:
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


def tries(node: CompiledNode, tiers: int = 1) -> int:
    """Attempts of a node that calls an agent or a tool, at most; where larger models may be asked, one more for each of these `tiers`, one
    at least: the fleet says whether it is there. Bodies are not repeated."""
    if node.contract is not None and node.contract.effect == "once":
        found = 1
    else:
        found = node.source.retry.attempts if node.source.retry is not None else max(node.retry.attempts, TRIES)
    if node.acceptance is not None and "escalate" in node.acceptance.otherwise:
        return found + max(1, tiers)
    return found + (node.escalate is not None)

"""The graphs of the workloads, and their lower bounds. Latencies depend on the node alone, never on order."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import networkx as nx

if TYPE_CHECKING:
    from bench.peers.latency import latency_s
else:
    from latency import latency_s

Graph: TypeAlias = "nx.DiGraph[Any]"
SLEEP = "lognormal:50:0.6"
"""The latencies of d and e, in milliseconds: mean and sigma."""
SEED = 7


def chain(nodes: int) -> Graph:
    """Nodes in sequence."""
    graph: Graph = nx.path_graph(nodes, create_using=nx.DiGraph)
    return graph


def fan(nodes: int) -> Graph:
    """One, then `nodes` at once, then one."""
    graph: Graph = nx.DiGraph()
    graph.add_nodes_from(range(nodes + 2))
    graph.add_edges_from((0, node) for node in range(1, nodes + 1))
    graph.add_edges_from((node, nodes + 1) for node in range(1, nodes + 1))
    return graph


def layered(nodes: int, parents: int = 3, width: int = 20, seed: int = SEED) -> Graph:
    """Layers of `width`; each node has `parents` random parents in the previous layer.

    So an engine that works in supersteps is slowed only by its barriers, and not by the shape.
    """
    rng = random.Random(seed)
    graph: Graph = nx.DiGraph()
    graph.add_nodes_from(range(nodes))
    for node in range(width, nodes):
        first = (node // width - 1) * width
        graph.add_edges_from((parent, node) for parent in rng.sample(range(first, first + width), parents))
    return graph


def diamond() -> Graph:
    """8 nodes, depth 5: 0 to 1, 2, 3 to 4 to 5, 6 to 7."""
    return nx.DiGraph([(0, 1), (0, 2), (0, 3), (1, 4), (2, 4), (3, 4), (4, 5), (4, 6), (5, 7), (6, 7)])


def layers_of(graph: Graph) -> list[list[int]]:
    """Returns the nodes by depth."""
    return [sorted(layer) for layer in nx.topological_generations(graph)]


def critical_path(graph: Graph, weight: Callable[[Any], float]) -> float:
    """Returns the length of the longest path: a lower bound."""
    best: dict[Any, float] = {}
    for node in nx.topological_sort(graph):
        best[node] = weight(node) + max((best[parent] for parent in graph.predecessors(node)), default=0.0)
    return max(best.values())


def barrier_path(graph: Graph, weight: Callable[[Any], float]) -> float:
    """Returns the lower bound of an engine with a barrier after each layer."""
    return sum(max(weight(node) for node in layer) for layer in layers_of(graph))


def node_latency(node: Any) -> float:
    """Returns the seconds of a node of d and e: the same draw as the simulated server's for the text `n{node}`."""
    return latency_s(SLEEP, SEED, f"n{node}")


def resident_mib() -> float:
    """Returns the resident memory of this process in MiB; 0 without /proc."""
    if not sys.platform.startswith("linux"):
        return 0.0
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20

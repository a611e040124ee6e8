"""The names that nodes read, and the order in which nodes are compiled and run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from heapq import heappop, heappush
from typing import Any

import msgspec

from orchestra.workflows import model
from orchestra.workflows.expressions.parser import (
    MAX_PLAIN_LENGTH,
    CelMacro,
    CelName,
    CelSyntaxError,
    CelTree,
    PlainPath,
    children,
    parse,
    parse_plain_path,
    parse_plain_template,
    split_template,
)
from orchestra.workflows.model import AnyNode

NO_NAMES: frozenset[str] = frozenset()


class NodeReferences(msgspec.Struct, frozen=True, gc=False):
    """The names that a node reads. The node needs values of `hard` names; `soft` names may have none."""

    hard: frozenset[str]
    soft: frozenset[str]
    all: frozenset[str]
    """`hard` and `soft` together."""
    paths: Mapping[str, PlainPath] | None = None
    """The inputs of a node that calls an agent or a tool, if all of them are plain paths."""
    is_plain_call: bool = False
    """Whether it is such a node and has no other keys except `after`."""


def referenced_names(template: Any) -> frozenset[str]:
    """Returns the free names in a template's references. References with syntax errors are ignored."""
    if isinstance(template, str):
        if len(template) <= MAX_PLAIN_LENGTH and (path := parse_plain_template(template)) is not None:
            return path.references
        return _names_in_text(template) if "${" in template else NO_NAMES
    if isinstance(template, dict | Mapping):
        parts: Any = template.values()
    elif isinstance(template, list | tuple):
        parts = template
    else:
        return NO_NAMES
    name_sets = [names for part in parts if (names := referenced_names(part))]
    return NO_NAMES if not name_sets else name_sets[0] if len(name_sets) == 1 else NO_NAMES.union(*name_sets)


@lru_cache(maxsize=8192)
def _names_in_text(text: str) -> frozenset[str]:
    names: set[str] = set()
    for piece in split_template(text):
        if isinstance(piece, str) or not piece.is_closed:
            continue
        if (plain_path := parse_plain_path(piece.source)) is not None:
            names.add(plain_path.root)
            continue
        try:
            names.update(_free_names(parse(piece.source), NO_NAMES))
        except CelSyntaxError:
            continue
    return frozenset(names)


def _free_names(tree: CelTree, bound: frozenset[str]) -> Iterator[str]:
    if isinstance(tree, CelName):
        if tree.name not in bound:
            yield tree.name
    elif isinstance(tree, CelMacro):
        yield from _free_names(tree.items, bound)
        for body in tree.bodies:
            yield from _free_names(body, bound | {tree.variable.name})
    else:
        for part in children(tree):
            yield from _free_names(part, bound)


_PLAIN_CALL_FIELDS = frozenset({"agent", "tool", "with_", "after"})
"""The keys of a plain call."""
_CALL_NODES = (model.ToolNode, model.AgentNode)


def node_references(node: AnyNode) -> NodeReferences:
    """Returns the names that a node reads, including those that its body reads from the enclosing scope."""
    paths: dict[str, PlainPath] | None = None
    if isinstance(node, _CALL_NODES) and not (
        isinstance(node, model.AgentNode) and isinstance(node.agent, model.AgentChoice)
    ):
        paths = _plain_paths(node.with_)
        if paths is not None and node.model_fields_set <= _PLAIN_CALL_FIELDS:
            roots = frozenset([path.root for path in paths.values()])
            after_names = frozenset(node.after) - roots if node.after else NO_NAMES
            return NodeReferences(roots, after_names, roots | after_names if after_names else roots, paths, True)
    return _collect_references(node, paths)


def _plain_paths(inputs: Mapping[str, Any]) -> dict[str, PlainPath] | None:
    """Returns inputs as plain paths; None if one is something else."""
    plain_paths: dict[str, PlainPath] = {}
    for name, value in inputs.items():
        if not isinstance(value, str) or len(value) > MAX_PLAIN_LENGTH or (path := parse_plain_template(value)) is None:
            return None
        plain_paths[name] = path
    return plain_paths


def _collect_references(node: AnyNode, paths: Mapping[str, PlainPath] | None) -> NodeReferences:
    hard: list[Any] = [part for part in (node.when, node.each, node.against) if part is not None]
    soft: list[Any] = [node.fallback] if node.fallback is not None else []
    inner = NodeReferences(NO_NAMES, NO_NAMES, NO_NAMES)
    match node:
        case model.AgentNode():
            hard += [node.with_, node.escalate, node.agent.by if isinstance(node.agent, model.AgentChoice) else None]
        case model.ToolNode():
            hard.append(node.with_)
        case model.CallNode(call=call):
            hard.append(node.with_)
            if isinstance(call, model.NodeBlock):
                inner = _body_references(call, NO_NAMES)
        case model.FirstOfNode(first_of=arms):
            soft += arms
        case model.LoopNode(loop=loop):
            inner = _body_references(loop, referenced_names(loop.until), frozenset({"turn", "previous"}))
        case model.PlanNode():
            hard += [node.plan, node.with_]
        case model.VerifyNode():
            hard.append(node.verify)
        case model.AskNode():
            hard.append(node.ask)
    own_names = {node.as_} if node.as_ else set()
    hard_names = (referenced_names(hard) | inner.hard) - own_names
    return _make_references(
        hard_names, (referenced_names(soft) | inner.soft | frozenset(node.after)) - own_names - hard_names, paths
    )


def _make_references(
    hard: frozenset[str], soft: frozenset[str], paths: Mapping[str, PlainPath] | None = None
) -> NodeReferences:
    return NodeReferences(hard, soft, hard | soft if soft else hard, paths)


def _body_references(
    block: model.NodeBlock, extra_names: frozenset[str], own_names: frozenset[str] = NO_NAMES
) -> NodeReferences:
    """Returns the names of the enclosing scope that a body reads. A name is soft if all its readers tolerate it.
    `own_names` are local.
    """
    reads = [node_references(inner) for inner in block.nodes.values()]
    hidden_names = block.nodes.keys() | own_names
    hard = referenced_names(block.output).union(extra_names, *(references.hard for references in reads)) - hidden_names
    return _make_references(hard, frozenset().union(*(references.soft for references in reads)) - hidden_names - hard)


def topological_order(wanted: Mapping[str, frozenset[str]]) -> tuple[list[str], list[str]]:
    """Sorts names so that each follows the names it wants, and as close to the written order as possible.

    Most files are in such an order already. Otherwise Kahn's algorithm takes the earliest available name. If there is a
    cycle, the second result contains it; it is found by following one want of each remaining name.
    """
    visited: set[str] = set()
    for name, needed_names in wanted.items():
        if not needed_names <= visited:
            break
        visited.add(name)
    else:
        return list(wanted), []
    names = list(wanted)
    place = {name: at for at, name in enumerate(names)}
    need_counts = [len(needed_names) for needed_names in wanted.values()]
    readers: list[list[int]] = [[] for _ in names]
    for at, needed_names in enumerate(wanted.values()):
        for needed_name in needed_names:
            readers[place[needed_name]].append(at)
    ready = [at for at, count in enumerate(need_counts) if not count]  # sorted, and thus a heap
    ordered_names: list[str] = []
    while ready:
        at = heappop(ready)
        ordered_names.append(names[at])
        for reader in readers[at]:
            need_counts[reader] -= 1
            if not need_counts[reader]:
                heappush(ready, reader)
    if len(ordered_names) == len(wanted):
        return ordered_names, []
    placed_names = frozenset(ordered_names)
    return ordered_names, _find_cycle(
        {name: needed_names - placed_names for name, needed_names in wanted.items() if name not in placed_names}
    )


def _find_cycle(remaining_nodes: Mapping[str, frozenset[str]]) -> list[str]:
    name = next(iter(remaining_nodes))
    path: dict[str, int] = {}
    while name not in path:
        path[name] = len(path)
        name = min(remaining_nodes[name])
    return [*list(path)[path[name] :], name]

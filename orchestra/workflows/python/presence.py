"""How surely nodes have a value wherever their guards hold, failures apart, as far as a workflow's function can tell."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from orchestra.workflows.compile.ordering import node_references, referenced_names
from orchestra.workflows.expressions.coverage import parse_conditions
from orchestra.workflows.python.printer import without_positions
from orchestra.workflows.python.scopes import NodeGuard, NodePresence, TracedNode, TraceScope


def guards_hold(guards: Iterable[NodeGuard], known: Iterable[NodeGuard]) -> bool:
    """Whether some guards hold wherever the known ones do, condition by condition."""
    there = {part for guard in known for part in _guard_conditions(guard)}
    return all(part in there for guard in guards for part in _guard_conditions(guard))


def _guard_conditions(guard: NodeGuard) -> list[object]:
    """The conditions that a guard consists of; a loop's `turn` and `previous` are those of that loop."""
    own = frozenset(id(read) for read in guard.reads if read.name in ("turn", "previous"))
    return [(part, own) for part in _condition_shapes(guard.cel)]


@lru_cache(maxsize=4096)
def _condition_shapes(cel: str) -> tuple[object, ...]:
    found = parse_conditions([cel])
    return (cel,) if found is None else tuple(without_positions(one) for one in found)


def always_present(node: TracedNode, wanted: NodePresence = NodePresence.ALWAYS) -> bool:
    """Whether a node has a value as surely as is wanted wherever its guards hold, failures apart: neither it nor anything it needs can be
    skipped or withheld.

    Of what a condition reads no more is wanted than that it is there where persons answer, because without the condition neither branch
    runs.
    """
    line, seen = [(node, wanted)], {(node, wanted)}
    while line:
        one, least = line.pop()
        if one.proven_presence >= least:
            continue
        withheld = one.presence < least or ("checks" in one.fields and "fallback" not in one.fields)
        if one.presence is NodePresence.OPTIONAL or (withheld and "each" not in one.fields):
            return False
        for read, asked in _required_nodes(one):
            if not guards_hold(read.guards, one.guards):
                return False
            if (new := (read, NodePresence.IF_ANSWERED if asked else least)) not in seen:
                seen.add(new)
                line.append(new)
    for one, least in seen:
        one.proven_presence = max(one.proven_presence, least)
    return True


def presence_of(nodes: Iterable[TracedNode], guards: tuple[NodeGuard, ...]) -> NodePresence:
    """How surely a value of these nodes is there where the guards hold."""
    nodes = [*nodes]
    if not all(guards_hold(node.guards, guards) and always_present(node, NodePresence.IF_ANSWERED) for node in nodes):
        return NodePresence.UNCERTAIN
    return NodePresence.ALWAYS if all(always_present(node) for node in nodes) else NodePresence.IF_ANSWERED


def nodes_read_by(template: object, scope: TraceScope) -> list[TracedNode]:
    """The nodes that a template names, of this body or of one around it."""
    return _find_nodes(referenced_names(template), scope)


def _required_nodes(node: TracedNode) -> list[tuple[TracedNode, bool]]:
    """The nodes whose values a node cannot do without, and whether its condition reads them."""
    frozen = node.freeze()
    asked = referenced_names(frozen.when)
    return [(read, read.name in asked) for read in _find_nodes(node_references(frozen).hard, node.scope)]


def _find_nodes(names: Iterable[str], scope: TraceScope) -> list[TracedNode]:
    chain = [*scope.chain()]
    found = (
        next((one.nodes_by_name[name] for one in chain if name in one.nodes_by_name), None) for name in sorted(names)
    )
    return [one for one in found if one is not None]

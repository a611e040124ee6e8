"""How surely nodes have a value wherever their guards hold, failures apart, as far as a workflow's function can tell."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from orchestra.workflows.compile.ordering import names_in, uses
from orchestra.workflows.expressions.coverage import conditions
from orchestra.workflows.python.printer import shape
from orchestra.workflows.python.scopes import Draft, Guard, Presence, Scope


def holds_under(guards: Iterable[Guard], known: Iterable[Guard]) -> bool:
    """Whether some guards hold wherever the known ones do, condition by condition."""
    there = {part for guard in known for part in _parts(guard)}
    return all(part in there for guard in guards for part in _parts(guard))


def _parts(guard: Guard) -> list[object]:
    """The conditions that a guard consists of; a loop's `turn` and `previous` are those of that loop."""
    own = frozenset(id(read) for read in guard.reads if read.name in ("turn", "previous"))
    return [(part, own) for part in _shapes(guard.cel)]


@lru_cache(maxsize=4096)
def _shapes(cel: str) -> tuple[object, ...]:
    found = conditions([cel])
    return (cel,) if found is None else tuple(shape(one) for one in found)


def firm(node: Draft, wanted: Presence = Presence.FIRM) -> bool:
    """Whether a node has a value as surely as is wanted wherever its guards hold, failures apart: neither it nor anything it needs can be
    skipped or withheld.

    Of what a condition reads no more is wanted than that it is there where persons answer, because without the condition neither branch
    runs.
    """
    line, seen = [(node, wanted)], {(node, wanted)}
    while line:
        one, least = line.pop()
        if one.shown >= least:
            continue
        withheld = one.presence < least or ("checks" in one.fields and "fallback" not in one.fields)
        if one.presence is Presence.OPEN or (withheld and "each" not in one.fields):
            return False
        for read, asked in _needed(one):
            if not holds_under(read.guards, one.guards):
                return False
            if (new := (read, Presence.ANSWERED if asked else least)) not in seen:
                seen.add(new)
                line.append(new)
    for one, least in seen:
        one.shown = max(one.shown, least)
    return True


def presence(nodes: Iterable[Draft], guards: tuple[Guard, ...]) -> Presence:
    """How surely a value of these nodes is there where the guards hold."""
    nodes = [*nodes]
    if not all(holds_under(node.guards, guards) and firm(node, Presence.ANSWERED) for node in nodes):
        return Presence.LOOSE
    return Presence.FIRM if all(firm(node) for node in nodes) else Presence.ANSWERED


def read_by(template: object, scope: Scope) -> list[Draft]:
    """The nodes that a template names, of this body or of one around it."""
    return _found(names_in(template), scope)


def _needed(node: Draft) -> list[tuple[Draft, bool]]:
    """The nodes whose values a node cannot do without, and whether its condition reads them."""
    frozen = node.frozen()
    asked = names_in(frozen.when)
    return [(read, read.name in asked) for read in _found(uses(frozen).hard, node.scope)]


def _found(names: Iterable[str], scope: Scope) -> list[Draft]:
    chain = [*scope.chain()]
    found = (next((one.drafts[name] for one in chain if name in one.drafts), None) for name in sorted(names))
    return [one for one in found if one is not None]

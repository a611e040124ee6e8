"""Firm nodes: those that have a value wherever their guards hold, failures apart, as far as a workflow's function can tell."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from orchestra.workflow.covering import conditions
from orchestra.workflow.ordering import names_in, uses
from orchestra.workflow.scopes import Draft, Guard, Scope
from orchestra.workflow.spoken import shape


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


def firm(node: Draft, *, lenient: bool = False) -> bool:
    """Whether a node, and all that it needs, is neither withheld nor skipped where its guards hold.

    With `lenient` it is taken to be so where that is known elsewhere only: what the card of an agent says, or a workflow that is called.
    """
    line, seen = [node], {node}
    while line:
        one = line.pop()
        if one.firm:
            continue
        loose = one.loose or (one.loose is None and not lenient)
        if one.unsure or ("each" not in one.fields and (loose or ("checks" in one.fields and "fallback" not in one.fields))):
            return False
        for read in _needed(one):
            if not holds_under(read.guards, one.guards):
                return False
            if read not in seen:
                seen.add(read)
                line.append(read)
    if not lenient:
        for one in seen:
            one.firm = True
    return True


def loose(nodes: Iterable[Draft], guards: tuple[Guard, ...]) -> bool | None:
    """Whether a value of these nodes may be missing where the guards hold; None where that is not known here."""
    nodes = [*nodes]
    if not all(holds_under(node.guards, guards) and firm(node, lenient=True) for node in nodes):
        return True
    return False if all(firm(node) for node in nodes) else None


def read_by(template: object, scope: Scope) -> list[Draft]:
    """The nodes that a template names, of this body or of one around it."""
    return _found(names_in(template), scope)


def _needed(node: Draft) -> list[Draft]:
    """The nodes whose values a node cannot do without."""
    return _found(uses(node.frozen()).hard, node.scope)


def _found(names: Iterable[str], scope: Scope) -> list[Draft]:
    chain = [*scope.chain()]
    found = (next((one.drafts[name] for one in chain if name in one.drafts), None) for name in sorted(names))
    return [one for one in found if one is not None]

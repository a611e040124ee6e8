"""Speakers: of the nodes behind a part that code has worked on, those that speak for it. Pure.

Many parts come from one group of nodes, such as all elements of a list that a tool was given. What the group has said is noted once, by
what it says; a part then costs as much as there are nodes that say the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from orchestra.app.claims.leaves import leaves
from orchestra.app.claims.lineage import Group, Origin
from orchestra.core.outcomes import Value
from orchestra.journal.history import Row
from orchestra.schema.content import Key, said_as

MAX_LEAVES = 1_000
"""Parts of a node's value that are compared with a claim, at most."""


@dataclass(frozen=True, slots=True, eq=False)
class Chorus:
    """Those of a group that speak though they do not say the same, by their places in it."""

    group: Group
    at: tuple[int, ...]
    members: frozenset[int]


@dataclass(frozen=True, slots=True, eq=False)
class Speaking:
    """Who speaks for a part: the chorus, and those that say the same, each with the path of it in its value."""

    chorus: Chorus
    agree: Mapping[int, str]
    soloists: tuple[int, ...]
    """Those that say the same and are not of the chorus."""

    def origins(self) -> list[Origin]:
        """All of them, in the order of their group."""
        at = sorted((*self.chorus.at, *self.soloists)) if self.soloists else self.chorus.at
        return [self.chorus.group.origins[one] for one in at]


@dataclass(frozen=True, slots=True)
class _Choruses:
    """What is known of a group."""

    group: Group
    places: Mapping[str, list[int]]
    """By node."""
    all: Chorus
    """Where no agent says the same."""
    quiet: Chorus
    """Where one does: without agents."""
    silent: Speaking
    """Where nobody says the same."""


class Speakers:
    """Of several nodes that code put together, those agents that say the same as the part speak for it, where there are any; and of tools
    whose value is handed on through others only those with evidence or checks."""

    def __init__(self, row: Callable[[str], Row | None], is_judged: Callable[[str], bool]) -> None:
        self._row, self._is_judged = row, is_judged
        self._groups: dict[Group, _Choruses] = {}
        self._said: dict[str, dict[Key, str]] = {}
        self._who: dict[Key, list[str]] = {}
        self._known: dict[tuple[Group, Key], Speaking] = {}

    def of(self, group: Group, value: Any) -> Speaking:
        """Who speaks for a part of this value."""
        if (known := self._groups.get(group)) is None:
            known = self._groups[group] = self._noted(group)
        if (key := said_as(value)) is None:
            return known.silent
        if (found := self._known.get((group, key))) is None:
            found = self._known[group, key] = self._speaking(known, key)
        return found

    def _speaking(self, known: _Choruses, key: Key) -> Speaking:
        agree: dict[int, str] = {}
        who = self._who.get(key, [])
        for node in who if len(who) < len(known.places) else known.places:
            if (path := self._said[node].get(key)) is not None:
                agree |= dict.fromkeys(known.places.get(node, ()), path)
        if not agree:
            return known.silent
        chorus = known.quiet if any(known.group.origins[at].kind == "agent" for at in agree) else known.all
        return Speaking(chorus, agree, tuple(sorted(agree.keys() - chorus.members)))

    def _noted(self, group: Group) -> _Choruses:
        places: dict[str, list[int]] = {}
        for at, origin in enumerate(group.origins):
            places.setdefault(origin.node, []).append(at)
            self._note(origin.node)
        speak = [at for at, one in enumerate(group.origins) if one.kind != "tool" or self._is_judged(one.node)]
        quiet = [at for at in speak if group.origins[at].kind != "agent"]
        everyone = Chorus(group, tuple(speak), frozenset(speak))
        return _Choruses(group, places, everyone, Chorus(group, tuple(quiet), frozenset(quiet)), Speaking(everyone, {}, ()))

    def _note(self, node: str) -> None:
        """Takes down what a node says, each thing at the first path where it stands."""
        if node in self._said:
            return
        said = self._said[node] = {}
        row = self._row(node)
        if row is None or not isinstance(row.outcome, Value):
            return
        for leaf in islice(leaves(row.outcome.value), MAX_LEAVES):
            if (key := said_as(leaf.value)) is not None and key not in said:
                said[key] = leaf.path
                self._who.setdefault(key, []).append(node)

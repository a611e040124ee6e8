"""Attribution: which of the nodes behind a computed part count as its sources. Pure.

Many parts come from one group of nodes, such as all elements of a list that a tool was given. The content of the group
is indexed once; a part then costs as much as there are nodes with the same content.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from orchestra.app.claims.leaves import leaves
from orchestra.app.claims.lineage import NodeOrigin, OriginGroup
from orchestra.core.outcomes import ValueOutcome
from orchestra.journal.history import NodeRow
from orchestra.schema.content import ContentKey, content_key

MAX_LEAVES = 1_000
"""Parts of a node's value that are compared with a claim, at most."""


@dataclass(frozen=True, slots=True, eq=False)
class BaseOrigins:
    """The sources of a group whose content differs from the part, by their index in the group."""

    group: OriginGroup
    positions: tuple[int, ...]
    members: frozenset[int]


@dataclass(frozen=True, slots=True, eq=False)
class Attribution:
    """The origins of a part: the base group, and nodes with the same content, each with its path in the value."""

    base: BaseOrigins
    agreeing: Mapping[int, str]
    additional: tuple[int, ...]
    """Nodes with the same content that are not in the base group."""

    def origins(self) -> list[NodeOrigin]:
        """All origins, in the order of their group."""
        at = sorted((*self.base.positions, *self.additional)) if self.additional else self.base.positions
        return [self.base.group.origins[position] for position in at]


@dataclass(frozen=True, slots=True)
class _GroupIndex:
    """The index of a group."""

    group: OriginGroup
    positions: Mapping[str, list[int]]
    """Indices in the group, by node."""
    with_agents: BaseOrigins
    """The base if no agent has the same content."""
    without_agents: BaseOrigins
    """The base if an agent has: without agents."""
    no_agreement: Attribution
    """The attribution if no node has the same content."""


class Attributor:
    """Attributes computed parts to nodes: of agents, those with the same content as the part, if any; of tools whose
    value is passed on through others, only those with evidence or checks.
    """

    def __init__(self, row: Callable[[str], NodeRow | None], is_judged: Callable[[str], bool]) -> None:
        self._row, self._is_judged = row, is_judged
        self._groups: dict[OriginGroup, _GroupIndex] = {}
        self._paths_by_content: dict[str, dict[ContentKey, str]] = {}
        self._nodes_by_content: dict[ContentKey, list[str]] = {}
        self._attributions: dict[tuple[OriginGroup, ContentKey], Attribution] = {}

    def attribute(self, group: OriginGroup, value: Any) -> Attribution:
        """Returns the sources of a part with this value."""
        if (group_index := self._groups.get(group)) is None:
            group_index = self._groups[group] = self._index_group(group)
        if (key := content_key(value)) is None:
            return group_index.no_agreement
        if (attribution := self._attributions.get((group, key))) is None:
            attribution = self._attributions[group, key] = self._attribution(group_index, key)
        return attribution

    def _attribution(self, group_index: _GroupIndex, key: ContentKey) -> Attribution:
        agree: dict[int, str] = {}
        nodes_by_content = self._nodes_by_content.get(key, [])
        for node in nodes_by_content if len(nodes_by_content) < len(group_index.positions) else group_index.positions:
            if (path := self._paths_by_content[node].get(key)) is not None:
                agree |= dict.fromkeys(group_index.positions.get(node, ()), path)
        if not agree:
            return group_index.no_agreement
        base = (
            group_index.without_agents
            if any(group_index.group.origins[at].kind == "agent" for at in agree)
            else group_index.with_agents
        )
        return Attribution(base, agree, tuple(sorted(agree.keys() - base.members)))

    def _index_group(self, group: OriginGroup) -> _GroupIndex:
        places: dict[str, list[int]] = {}
        for at, origin in enumerate(group.origins):
            places.setdefault(origin.node, []).append(at)
            self._index_node(origin.node)
        speak = [at for at, origin in enumerate(group.origins) if origin.kind != "tool" or self._is_judged(origin.node)]
        quiet = [at for at in speak if group.origins[at].kind != "agent"]
        everyone = BaseOrigins(group, tuple(speak), frozenset(speak))
        return _GroupIndex(
            group, places, everyone, BaseOrigins(group, tuple(quiet), frozenset(quiet)), Attribution(everyone, {}, ())
        )

    def _index_node(self, node: str) -> None:
        """Indexes the content of a node, each value at its first path."""
        if node in self._paths_by_content:
            return
        paths_by_value = self._paths_by_content[node] = {}
        row = self._row(node)
        if row is None or not isinstance(row.outcome, ValueOutcome):
            return
        for leaf in islice(leaves(row.outcome.value), MAX_LEAVES):
            if (key := content_key(leaf.value)) is not None and key not in paths_by_value:
                paths_by_value[key] = leaf.path
                self._nodes_by_content.setdefault(key, []).append(node)

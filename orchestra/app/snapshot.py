"""A workflow snapshot: the bytes that all runs of one workflow store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orchestra.core.protocols import Journal
from orchestra.schema.strict_json import digest

WORKFLOW = "workflow"
"""Prefix of the name of a called workflow."""


@dataclass(frozen=True, slots=True)
class WorkflowSnapshot:
    """The bytes of a workflow's graph and of everything that it names, by kind and name: `card/reader`,
    `workflow/summarise`, `types`, `certificate/reader`.
    """

    graph: bytes
    parts: Mapping[str, bytes]
    graph_digest: str
    """The digest of the graph; `part_digests` are those of the parts. All runs of the workflow share them."""
    part_digests: dict[str, str]
    workflows: Mapping[str, bytes]
    """The stored workflows: its own under an empty name, called ones under `workflow/NAME`."""

    @classmethod
    def of(cls, graph: bytes, parts: Mapping[str, bytes]) -> WorkflowSnapshot:
        """Returns the snapshot of these bytes."""
        workflow_data = {name: data for name, data in parts.items() if name.startswith(f"{WORKFLOW}/")}
        return cls(
            graph,
            parts,
            digest(graph),
            {name: digest(data) for name, data in parts.items()},
            {"": graph, **workflow_data},
        )

    def put(self, journal: Journal) -> tuple[str, dict[str, str]]:
        """Stores the snapshot with the next commit; returns the digest of the graph, and those of the parts."""
        for data in (self.graph, *self.parts.values()):
            journal.put_blob(data)
        return self.graph_digest, self.part_digests

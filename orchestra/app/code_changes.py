"""Whether tool code has changed since a run began. The code itself is not stored with the run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestra.agents.contract import Contract
from orchestra.app.reuse import NodeChange, walk_nodes
from orchestra.app.snapshot_store import (
    called_contracts,
    is_unversioned_tool,
    reachable_contracts,
    restore_program,
    stored_code_digests,
)
from orchestra.core.errors import InputError, OrchestraError
from orchestra.core.events import AttemptFinished, Event, NodeFinished, RunStarted

if TYPE_CHECKING:
    from orchestra.app.project import Project
    from orchestra.core.protocols import Journal
    from orchestra.workflows.program import AgentIdentity, Program


def require_unchanged_tools(
    project: Project, program: Program, run: str, events: Sequence[Event], *, missing: bool
) -> None:
    """Compares the tools that the rest of a run may call with those of its start.

    Raises:
        InputError: T009: a tool has changed; T005: a tool is missing, with `missing`.
    """
    for contract in _remaining_contracts(program, events):
        if project.find_card(contract) is not None:
            continue  # A card is stored with the run.
        functions = project.registry.tools if contract.kind == "tool" else project.registry.python_agents
        if (current := functions.get(contract.name)) is not None:
            if contract.digest and current.contract.digest != contract.digest:
                change = "its types, its effect or its version have changed"
                reason = f"the {contract.kind} {contract.name!r} is not the one that run {run} began with: {change}"
                hint = f"bring the earlier code back, and resume; or go on with today's: orchestra runs fork {run}"
                raise InputError("T009", reason, hint=hint)
        elif missing and contract.kind == "tool":
            project.registry.tool(contract.name)


@dataclass(frozen=True, slots=True)
class CodeChanges:
    """The pure tools of a run without a version: those whose code has changed, and those for which that is unknown."""

    changed: tuple[str, ...]
    unknown: tuple[str, ...]

    def add_changes(self, program: Program, found: Sequence[NodeChange]) -> list[NodeChange]:
        """Returns the changes of a program, with the nodes of these tools."""
        nodes, changes = {change.node for change in found}, []
        for path, node in walk_nodes(program):
            for contract in reachable_contracts(node) if path not in nodes else ():
                if contract.kind == "tool" and contract.name in self.changed:
                    changes.append(NodeChange(path, f"the code of its tool {contract.name} has changed"))
                elif contract.kind == "tool" and contract.name in self.unknown:
                    changes.append(
                        NodeChange(path, f"whether the code of its tool {contract.name} has changed is not on record")
                    )
        return [*found, *changes]


async def compare_code(project: Project, journal: Journal, started: RunStarted, program: Program) -> CodeChanges:
    """Compares the code of a run's pure tools with today's. Raises `OrchestraError` E019 if its record cannot be
    read.
    """
    then = await stored_code_digests(journal, started)
    changed_nodes, unknown = set(), set()
    for name in {contract.name for contract in called_contracts(program) if is_unversioned_tool(contract)}:
        if (tool := project.registry.tools.get(name)) is None:
            continue
        if not tool.source_digest or not then.get(name):
            unknown.add(name)
        elif tool.source_digest != then[name]:
            changed_nodes.add(name)
    return CodeChanges(tuple(sorted(changed_nodes)), tuple(sorted(unknown)))


async def require_resumable(project: Project, journal: Journal, events: Sequence[Event]) -> None:
    """As `require_unchanged_tools`, for a run that another process may resume: a missing tool may exist there. Raises
    `InputError` T009.
    """
    first = events[0]
    if not isinstance(first, RunStarted):
        return
    try:
        program = await restore_program(project, journal, first, will_call=False)
    except OrchestraError:
        return  # The process that resumes the run reports it.
    require_unchanged_tools(project, program, first.run, events, missing=False)


def remaining_agents(program: Program, events: Sequence[Event]) -> list[AgentIdentity]:
    """Returns the agents that the rest of a run certainly asks, with the digests of their cards."""
    ahead = {
        (contract.name, contract.digest)
        for contract in _remaining_contracts(program, events)
        if contract.kind == "agent"
    }
    return [agent for agent in program.required_agents if agent in ahead]


def _remaining_contracts(program: Program, events: Sequence[Event]) -> Iterator[Contract]:
    """Yields what may still be called: neither nodes that have ended, nor what is inside them."""
    nodes = {
        event.node
        for event in events
        if isinstance(event, NodeFinished) or (isinstance(event, AttemptFinished) and event.final)
    }
    for path, node in walk_nodes(program):
        if path.partition("/")[0] not in nodes:
            yield from reachable_contracts(node)

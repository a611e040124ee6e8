"""Whether code is still what it was when a run began: it is not stored with the run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestra.agents.contract import Contract
from orchestra.app.reuse import Change, walk
from orchestra.app.snapshot_store import called, code_of, reached, restored, uncounted
from orchestra.core.errors import InputError, OrchestraError
from orchestra.core.events import AttemptFinished, Event, NodeFinished, RunStarted

if TYPE_CHECKING:
    from orchestra.app.project import Project
    from orchestra.core.protocols import Journal
    from orchestra.workflows.program import Named, Program


def check(project: Project, program: Program, run: str, events: Sequence[Event], *, missing: bool) -> None:
    """Holds the tools that the rest of a run may call against those that it began with, before anything goes into the run.

    Raises `InputError` T009 for one that has changed; with `missing`, T005 for one that is not there.
    """
    for contract in _ahead(program, events):
        if project.card_of(contract) is not None:
            continue  # a card is stored with the run
        known = project.registry.tools if contract.kind == "tool" else project.registry.code
        if (current := known.get(contract.name)) is not None:
            if contract.digest and current.contract.digest != contract.digest:
                said = "its types, its effect or its version have changed"
                reason = f"the {contract.kind} {contract.name!r} is not the one that run {run} began with: {said}"
                hint = f"bring the earlier code back, and resume; or go on with today's: orchestra runs fork {run}"
                raise InputError("T009", reason, hint=hint)
        elif missing and contract.kind == "tool":
            project.registry.tool(contract.name)


@dataclass(frozen=True, slots=True)
class Code:
    """The pure tools of a run that have no version: those whose code is another now, and those of which that is not known."""

    changed: tuple[str, ...]
    unknown: tuple[str, ...]

    def changes(self, program: Program, found: Sequence[Change]) -> list[Change]:
        """What has changed in a program, with the nodes of these tools."""
        told, more = {change.node for change in found}, []
        for path, node in walk(program):
            for one in reached(node) if path not in told else ():
                if one.kind == "tool" and one.name in self.changed:
                    more.append(Change(path, f"the code of its tool {one.name} has changed"))
                elif one.kind == "tool" and one.name in self.unknown:
                    more.append(Change(path, f"whether the code of its tool {one.name} has changed is not on record"))
        return [*found, *more]


async def code_since(project: Project, journal: Journal, started: RunStarted, program: Program) -> Code:
    """Holds the code of a run's pure tools against that of today. Raises `OrchestraError` E019 where its record cannot be read."""
    then = await code_of(journal, started)
    changed, unknown = set(), set()
    for name in {one.name for one in called(program) if uncounted(one)}:
        if (tool := project.registry.tools.get(name)) is None:
            continue
        if not tool.code or not then.get(name):
            unknown.add(name)
        elif tool.code != then[name]:
            changed.add(name)
    return Code(tuple(sorted(changed)), tuple(sorted(unknown)))


async def stands(project: Project, journal: Journal, events: Sequence[Event]) -> None:
    """The same of a run that somebody else may go on with: a tool that is not there may be there. Raises `InputError` T009."""
    first = events[0]
    if not isinstance(first, RunStarted):
        return
    try:
        program = await restored(project, journal, first, asking=False)
    except OrchestraError:
        return  # whoever goes on with the run is told
    check(project, program, first.run, events, missing=False)


def agents_ahead(program: Program, events: Sequence[Event]) -> list[Named]:
    """The agents that the rest of a run surely asks, with the digests of their cards."""
    ahead = {(contract.name, contract.digest) for contract in _ahead(program, events) if contract.kind == "agent"}
    return [one for one in program.asked if one in ahead]


def _ahead(program: Program, events: Sequence[Event]) -> Iterator[Contract]:
    """What may still be called: nodes of the workflow that have ended call nobody, and nor does what stands in them."""
    ended = {event.node for event in events if isinstance(event, NodeFinished) or (isinstance(event, AttemptFinished) and event.settled)}
    for path, node in walk(program):
        if path.partition("/")[0] not in ended:
            yield from reached(node)

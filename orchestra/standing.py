"""Whether code is still what it was when a run began: it is not stored with the run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from orchestra.agent.contract import Contract
from orchestra.errors import InputError, OrchestraError
from orchestra.events import AttemptFinished, Event, NodeFinished, RunStarted
from orchestra.rerun import walk
from orchestra.stored import contracts, restored

if TYPE_CHECKING:
    from orchestra.doors import Journal
    from orchestra.project import Project
    from orchestra.workflow.program import Program


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


def _ahead(program: Program, events: Sequence[Event]) -> Iterator[Contract]:
    """What may still be called: nodes of the workflow that have ended call nobody, and nor does what stands in them."""
    ended = {event.node for event in events if isinstance(event, NodeFinished) or (isinstance(event, AttemptFinished) and event.settled)}
    for path, node in walk(program):
        if path.partition("/")[0] not in ended:
            yield from contracts(node)

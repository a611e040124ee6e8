"""Contradictions: what cannot be unless the engine is wrong, and what a unit must have at this point."""

from __future__ import annotations

from orchestra.engine.state import Unit
from orchestra.errors import OrchestraError
from orchestra.events import AttemptFinished, Judged
from orchestra.workflow.program import Acceptance


def contradiction(said: str) -> OrchestraError:
    """The error E002, of which no user is guilty."""
    return OrchestraError("E002", said, hint="a fault of Orchestra; please report it with what this prints: orchestra runs show RUN --json")


def answer_of(unit: Unit) -> AttemptFinished:
    """The last attempt's end. Raises `OrchestraError` E002 where there is none."""
    if unit.answer is None:
        raise contradiction(f"{unit.path} has no answer")
    return unit.answer


def ruling_of(unit: Unit) -> Judged:
    """What the checks said of its value. Raises `OrchestraError` E002 where it was not judged."""
    if unit.judged is None:
        raise contradiction(f"{unit.path} was not judged")
    return unit.judged


def acceptance_of(unit: Unit) -> Acceptance:
    """The checks of its node, and what follows from them. Raises `OrchestraError` E002 where it has none."""
    if unit.node.acceptance is None:
        raise contradiction(f"{unit.path} has no checks")
    return unit.node.acceptance

"""Proposals: what `decide` asks the shell to do. A closed union."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from orchestra.doors import Call
from orchestra.engine.state import Unit
from orchestra.values.outcome import Outcome
from orchestra.verify.acceptance import Situation


class Invoke(msgspec.Struct, frozen=True):
    """Make an attempt. `settled` says that the world must not see it before the journal has it: a tool with an effect."""

    unit: Unit
    call: Call
    settled: bool = False


class Judge(msgspec.Struct, frozen=True):
    """Let the checks speak on a value."""

    unit: Unit
    attempt: int
    situation: Situation


class Pause(msgspec.Struct, frozen=True):
    """Wait between `low` and `high` seconds, then make attempt number `attempt`."""

    unit: Unit
    attempt: int
    low: float
    high: float
    reason: str


class Expand(msgspec.Struct, frozen=True):
    """Begin the elements of an `each` node."""

    unit: Unit
    count: int


class Enter(msgspec.Struct, frozen=True):
    """Begin a body: of a `call`, or of a turn of a loop."""

    unit: Unit
    turn: int


class Finish(msgspec.Struct, frozen=True):
    """Give a unit its outcome."""

    unit: Unit
    outcome: Outcome


class Conclude(msgspec.Struct, frozen=True):
    """End the run."""

    status: str
    outcome: Outcome


Proposal: TypeAlias = Invoke | Judge | Pause | Expand | Enter | Finish | Conclude

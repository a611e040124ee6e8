"""Proposals: what `decide` asks the shell to do. A closed union."""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from orchestra.doors import Call
from orchestra.engine.state import Unit
from orchestra.values.outcome import Outcome
from orchestra.verify.acceptance import Situation


class Invoke(msgspec.Struct, frozen=True, gc=False):
    """Make an attempt.

    `certain` says that the world must not see it before the journal has it: a tool with an effect. `plain` says that its value,
    where it gives one, is the unit's outcome: nothing judges it.
    """

    unit: Unit
    call: Call
    certain: bool = False
    plain: bool = False
    reserved: int = -1
    money: float = 0.0


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


class Count(msgspec.Struct, frozen=True):
    """Let a server count the tokens of a call's prompt; `bound` holds where nobody can."""

    unit: Unit
    call: Call
    bound: int


class Ask(msgspec.Struct, frozen=True):
    """Ask a person."""

    unit: Unit
    question: str
    schema: dict[str, Any]
    options: tuple[str, ...] = ()
    about: str = "answer"


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


Proposal: TypeAlias = Invoke | Judge | Pause | Count | Ask | Expand | Enter | Finish | Conclude

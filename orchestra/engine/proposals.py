"""Proposals: what `decide` asks the shell to do. A closed union."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from orchestra.core.events import Drafted, Given, Withheld
from orchestra.core.outcomes import Outcome
from orchestra.core.protocols import Call
from orchestra.engine.state import Phase, Unit

if TYPE_CHECKING:
    from orchestra.verification.acceptance import Situation
    from orchestra.verification.entailment import Reply
    from orchestra.verification.session import Asked


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
    because: str = ""
    """Why the larger model is asked at once, or why not, where the node has a condition for that."""


class Judge(msgspec.Struct, frozen=True):
    """Let the checks speak on a value; after they have asked agents (`asked`), given the `replies`."""

    unit: Unit
    attempt: int
    situation: Situation
    asked: Asked | None = None
    replies: tuple[Reply, ...] = ()


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
    withheld: Withheld | None = None
    gives: dict[str, Any] | None = None
    """Of a call in doubt: the type of what it gives."""


class Expand(msgspec.Struct, frozen=True):
    """Begin the elements of an `each` node."""

    unit: Unit
    count: int


class Enter(msgspec.Struct, frozen=True):
    """Begin a body: of a `call`, of a turn of a loop or of a plan."""

    unit: Unit
    turn: int
    drafted: Drafted | None = None
    because: str = ""
    """Which agent of a choice is asked, and for which label."""


class Recall(msgspec.Struct, frozen=True):
    """Look into the memo for a plan that has served before; the closest of the keys comes first."""

    unit: Unit
    keys: tuple[str, ...]


class Finish(msgspec.Struct, frozen=True):
    """Give a unit its outcome."""

    unit: Unit
    outcome: Outcome
    instead: Outcome | None = None
    """What it came to itself, where the outcome is its fallback."""
    given: Given | None = None
    """Where a person said what it gave: who."""


class Conclude(msgspec.Struct, frozen=True):
    """End the run."""

    status: str
    outcome: Outcome


Proposal: TypeAlias = Invoke | Judge | Pause | Count | Ask | Expand | Enter | Recall | Finish | Conclude


def moot(proposal: Proposal) -> bool:
    """Whether what a proposal is about is gone: one that was carried out before it ended its plan, or made it go another way."""
    return not isinstance(proposal, Conclude) and proposal.unit.phase is Phase.DONE

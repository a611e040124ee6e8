"""Proposals: the actions that `decide` requests from the driver. A closed union."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from orchestra.core.events import OverrideSource, PlanDraft, WithheldOutput
from orchestra.core.outcomes import Outcome
from orchestra.core.protocols import CallRequest
from orchestra.engine.state import Phase, WorkItem

if TYPE_CHECKING:
    from orchestra.verification.acceptance import VerificationRequest
    from orchestra.verification.entailment import JudgeReply
    from orchestra.verification.session import ChecksPending


class Invoke(msgspec.Struct, frozen=True, gc=False):
    """Make an attempt.

    With `write_ahead` the call waits until its start is on disk: a tool with an effect. With `unchecked` its value is
    the unit's outcome: no check judges it.
    """

    unit: WorkItem
    call: CallRequest
    write_ahead: bool = False
    unchecked: bool = False
    reserved_tokens: int = -1
    reserved_money: float = 0.0
    escalation_reason: str = ""
    """Why the larger model is or is not asked at once, if the node has a condition for that."""


class RunChecks(msgspec.Struct, frozen=True):
    """Run the checks of a value; after questions to agents (`pending`), with their `replies`."""

    unit: WorkItem
    attempt: int
    request: VerificationRequest
    pending: ChecksPending | None = None
    replies: tuple[JudgeReply, ...] = ()


class ScheduleRetry(msgspec.Struct, frozen=True):
    """Wait between `min_delay` and `max_delay` seconds, then make attempt number `attempt`."""

    unit: WorkItem
    attempt: int
    min_delay: float
    max_delay: float
    reason: str


class CountTokens(msgspec.Struct, frozen=True):
    """Let a server count the tokens of a call's prompt; `upper_bound` applies if none can."""

    unit: WorkItem
    call: CallRequest
    upper_bound: int


class AskPerson(msgspec.Struct, frozen=True):
    """Ask a person."""

    unit: WorkItem
    question: str
    schema: dict[str, Any]
    options: tuple[str, ...] = ()
    kind: str = "answer"
    withheld: WithheldOutput | None = None
    result_schema: dict[str, Any] | None = None
    """The type of the result, of a call in doubt."""


class ExpandMap(msgspec.Struct, frozen=True):
    """Start the elements of an `each` node."""

    unit: WorkItem
    count: int


class EnterBody(msgspec.Struct, frozen=True):
    """Enter a body: of a `call`, of a turn of a loop, or of a plan."""

    unit: WorkItem
    turn: int
    draft: PlanDraft | None = None
    choice_reason: str = ""
    """Which agent of a choice is asked, and for which label."""


class RecallPlan(msgspec.Struct, frozen=True):
    """Look for a stored plan in the memo. The closest key comes first."""

    unit: WorkItem
    keys: tuple[str, ...]


class FinishNode(msgspec.Struct, frozen=True):
    """Give a unit its outcome."""

    unit: WorkItem
    outcome: Outcome
    original_outcome: Outcome | None = None
    """Its own outcome, if the given outcome is its fallback."""
    overridden_by: OverrideSource | None = None
    """The person who gave the value, if one did."""


class FinishRun(msgspec.Struct, frozen=True):
    """End the run."""

    status: str
    outcome: Outcome


Proposal: TypeAlias = (
    Invoke
    | RunChecks
    | ScheduleRetry
    | CountTokens
    | AskPerson
    | ExpandMap
    | EnterBody
    | RecallPlan
    | FinishNode
    | FinishRun
)


def is_stale(proposal: Proposal) -> bool:
    """Whether a proposal is outdated: one executed before it ended or changed its plan."""
    return not isinstance(proposal, FinishRun) and proposal.unit.phase is Phase.DONE

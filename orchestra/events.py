"""Events: the closed union of facts that a run is made of, version 1.

A run is the fold of its events. `seq` counts 1, 2, 3, … without a gap; `at` is wall-clock seconds since the epoch.
`node` is a path: names joined by `/`, with `[i]` for an element under `each` and `#k` for the k-th turn of a loop, as in
`summaries[3]` and `refine#2/draft`. Events are msgspec structs: made in a tenth of a microsecond, and read back by a
strict, tagged decoder that refuses what it does not know.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from orchestra.values.labels import Label
from orchestra.values.outcome import Evidence, Outcome

VERSION = 1


class Usage(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What one call, or many, cost. Tokens as the server counted them; seconds of wall clock."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    calls: int = 0
    seconds: float = 0.0
    resends: int = 0
    """Requests that no model saw (refused, 429, 503) and that the fleet sent again."""

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.cached_tokens + other.cached_tokens,
            self.output_tokens + other.output_tokens,
            self.calls + other.calls,
            self.seconds + other.seconds,
            self.resends + other.resends,
        )


NOTHING = Usage()


class Verdict(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """The result of one check: `outcome` is `pass`, `fail` or `unknown`; `unknown` never passes."""

    check: str
    outcome: str
    score: float
    reason: str = ""
    deterministic: bool = True
    evidence: tuple[Evidence, ...] = ()


class _Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, tag_field="type"):
    seq: int
    at: float


class RunStarted(_Event, tag="run_started", frozen=True, kw_only=True):
    """The first event: what runs, on what. `graph` is the digest of the frozen workflow, stored as a blob."""

    run: str
    workflow: str
    graph: str
    inputs: Any
    label: Label = "internal"
    versions: dict[str, str] = {}


class Expanded(_Event, tag="expanded", frozen=True, kw_only=True):
    """The list of an `each` node is known: it has `count` elements."""

    node: str
    count: int


class TurnStarted(_Event, tag="turn_started", frozen=True, kw_only=True):
    """A body begins: that of a `call` node (turn 1), or a loop's `turn`-th (from 1)."""

    node: str
    turn: int


class AttemptStarted(_Event, tag="attempt_started", frozen=True, kw_only=True):
    """A call went out: the `attempt`-th try (from 1) of a node."""

    node: str
    attempt: int
    name: str = ""
    """The agent or tool that was asked."""
    escalated: bool = False
    """Whether the fleet's larger model was asked instead of the agent's own."""


class AttemptFinished(_Event, tag="attempt_finished", frozen=True, kw_only=True):
    """A call came back, with a value or with an error code. `sent` and `received` are digests of blobs: the exact bytes."""

    node: str
    attempt: int
    value: Any = None
    error: str = ""
    reason: str = ""
    hint: str = ""
    retryable: bool = False
    usage: Usage = NOTHING
    confidence: float | None = None
    server: str = ""
    model: str = ""
    sent: str = ""
    received: str = ""


class Judged(_Event, tag="judged", frozen=True, kw_only=True):
    """The checks have spoken on an attempt's value."""

    node: str
    attempt: int
    verdicts: tuple[Verdict, ...]
    accepted: bool
    score: float | None = None
    reason: str = ""


class RetryPlanned(_Event, tag="retry_planned", frozen=True, kw_only=True):
    """Attempt number `attempt` will start at wall-clock time `due`."""

    node: str
    attempt: int
    due: float
    reason: str = ""


class NodeFinished(_Event, tag="node_finished", frozen=True, kw_only=True):
    """A node has its one outcome. It never changes."""

    node: str
    outcome: Outcome


class CancelRequested(_Event, tag="cancel_requested", frozen=True, kw_only=True):
    """Somebody wants the run to end."""

    by: str = ""


class RunFinished(_Event, tag="run_finished", frozen=True, kw_only=True):
    """The last event. `status` is `done`, `failed`, `abstained`, `budget` or `cancelled`."""

    status: str
    outcome: Outcome
    usage: Usage = NOTHING


Event: TypeAlias = (
    RunStarted
    | Expanded
    | TurnStarted
    | AttemptStarted
    | AttemptFinished
    | Judged
    | RetryPlanned
    | NodeFinished
    | CancelRequested
    | RunFinished
)

encode = msgspec.json.Encoder().encode
"""An event as JSON bytes."""
decode = msgspec.json.Decoder(Event).decode
"""JSON bytes as an event; raises `msgspec.ValidationError` for an unknown type or field."""

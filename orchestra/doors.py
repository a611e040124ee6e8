"""The architecture in one page: the engine reaches the world through three doors only.

`Clock` (time, sleep, randomness, ids), `Journal` (what happened), and `Workers` (who does the work). Production,
simulation and replay differ only in what stands behind them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any, Literal, Protocol, TypeAlias

import msgspec

from orchestra.events import NOTHING, Event, Usage
from orchestra.values.labels import Label


class Source(msgspec.Struct, frozen=True):
    """A text that an output may quote. `name` says where it comes from."""

    text: str
    name: str = ""


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt of one node, as the engine asks for it."""

    run: str
    node: str
    attempt: int
    kind: Literal["agent", "tool"]
    name: str
    inputs: dict[str, Any]
    timeout: float | None = None
    """Seconds that this attempt may take."""
    max_output: int | None = None
    """Output tokens at most; the card's own limit where None."""
    priority: int = 0
    """Lower goes first (vLLM's convention); made from critical-path slack."""
    label: Label = "internal"
    evidence: tuple[Source, ...] = ()
    """What fields of type `Quote` must be substrings of; where empty, the string inputs themselves."""
    feedback: tuple[str, ...] = ()
    """Why earlier attempts were not accepted, oldest first."""
    escalate: bool = False
    """Whether to ask the fleet's larger model instead of the card's own."""
    key: str = ""
    """A stable idempotency key: the same for every attempt of one node of one run."""


class Chunk(msgspec.Struct, frozen=True):
    """A piece of an unverified output, as it is written."""

    text: str


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """The call's value, already of its contract's output type, with the exact bytes that went over the wire."""

    value: Any
    usage: Usage = NOTHING
    server: str = ""
    model: str = ""
    sent: bytes = b""
    received: bytes = b""
    confidence: float | None = None
    """What the worker itself thinks in [0, 1]: a classifier's probability, a mean token probability."""


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """The call gave no value: a coded reason. `retryable` says whether another attempt could help."""

    code: str
    reason: str
    hint: str = ""
    retryable: bool = False
    usage: Usage = NOTHING
    server: str = ""
    model: str = ""
    sent: bytes = b""
    received: bytes = b""


Reply: TypeAlias = Chunk | Done | Refused
"""Any number of chunks, then exactly one `Done` or `Refused`."""


class Clock(Protocol):
    """Time and chance."""

    def now(self) -> float:
        """Wall-clock seconds since the epoch."""

    def monotonic(self) -> float:
        """Seconds that never jump; only differences mean something."""

    async def sleep(self, seconds: float) -> None:
        """Waits; zero yields once to the loop."""

    def random(self) -> float:
        """A number in [0, 1)."""

    def new_id(self) -> str:
        """A new run id: 16 characters or more, sortable by time."""


class RunSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One row of `orchestra runs list`."""

    run: str
    workflow: str
    status: str
    """`running` until the last event is there, then its status."""
    started: float
    finished: float | None = None
    nodes: int = 0
    usage: Usage = NOTHING


class Journal(Protocol):
    """The append-only log of events, and blobs by digest."""

    def append(self, run: str, events: Sequence[Event]) -> None:
        """Puts events in line, in order; returns at once. A fault of the store reaches whoever waits in `durable`."""

    def put(self, data: bytes) -> str:
        """Stores a blob with the next commit and gives its digest (`orchestra.values.json.digest`)."""

    async def durable(self, run: str, seq: int) -> None:
        """Waits until all events of the run up to `seq`, and the blobs put before them, are on disk."""

    async def read(self, run: str, after: int = 0) -> list[Event]:
        """The events with `seq > after`, in order; empty for a run that is not there."""

    async def blob(self, digest: str) -> bytes | None:
        """A blob's bytes, or None."""

    async def runs(self, limit: int = 50) -> list[RunSummary]:
        """The latest runs, newest first."""

    async def close(self) -> None:
        """Commits what is in line and lets go of the store."""


class Workers(Protocol):
    """Whoever does the work: the fleet, classical and code agents, tools; or a simulation."""

    def run(self, call: Call) -> AsyncGenerator[Reply, None]:
        """Does one call. Closing the iterator early cancels it, up to the server. Never raises for what a model, a server
        or a tool does wrong: that is a `Refused`."""

"""What a client asks a fleet's supervisor, and what that reports: one JSON line a question, one line an answer.

Whoever changes a question or a report so that the other side would misread it counts
`orchestra.fleet.config.PROTOCOL_VERSION` up.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec

from orchestra.core.errors import FleetError

ServerPhase: TypeAlias = Literal["starting", "ready", "restarting", "failed", "stopped"]


def _operation(name: str) -> str:
    """The wire name of a request class: `start` for `StartRequest`."""
    return name.removesuffix("Request").lower()


class _SupervisorRequest(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="op", tag=_operation):
    """One line to the supervisor; each tells it that somebody is here."""


class HeartbeatRequest(_SupervisorRequest, frozen=True):
    """Nothing more than that."""


class StatusRequest(_SupervisorRequest, frozen=True):
    """How the fleet is; answered with a `SupervisorReport`."""


class StartRequest(_SupervisorRequest, frozen=True):
    """Servers that were given up, or pause, are tried again at once; this one, or all."""

    server: str | None = None


class SuspectRequest(_SupervisorRequest, frozen=True):
    """A request to this server waited in vain: look whether it still writes."""

    server: str | None = None


class StopRequest(_SupervisorRequest, frozen=True):
    """The supervisor and its servers end."""


class LogsRequest(_SupervisorRequest, frozen=True):
    """The last lines of each server's log; answered with `LogsResponse`."""

    lines: int = 40


class KeyRequest(_SupervisorRequest, frozen=True):
    """What the servers want with each request; answered with `KeyResponse`. Supervisors of earlier versions do not know
    the question.
    """


SupervisorRequest: TypeAlias = (
    HeartbeatRequest | StatusRequest | StartRequest | SuspectRequest | StopRequest | LogsRequest | KeyRequest
)


class EmptyResponse(msgspec.Struct, frozen=True):
    """The answer to what asks for no report."""


class LogsResponse(msgspec.Struct, frozen=True):
    """The last lines of logs, by server."""

    logs: dict[str, list[str]]


class KeyResponse(msgspec.Struct, frozen=True):
    """The key of a supervisor's servers. It stands in no report, so that whoever prints one does not print it."""

    key: str

    def __repr__(self) -> str:
        """The same of every key."""
        return "KeyResponse(…)"


class ServerFailure(msgspec.Struct, frozen=True):
    """The error that a server was given up with, or last ended with."""

    code: str
    message: str
    hint: str = ""
    why: str = ""

    @classmethod
    def from_error(cls, error: FleetError) -> ServerFailure:
        """What a report tells of an error."""
        return cls(error.code, error.message, error.hint, error.why)


class ServerReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `orchestra fleet status --json` shows of one server."""

    name: str
    phase: ServerPhase
    model: str
    pid: int | None = None
    port: int | None = None
    url: str | None = None
    uptime: float = 0.0
    """Seconds in health."""
    since_start: float = 0.0
    """Seconds since its last start."""
    restarts: int = 0
    version: Any = None
    """What its `/version` says."""
    weights: str = ""
    """A glance at the files that it was started with (`orchestra.fleet.weights.weights.quick_digest`)."""
    spare_slots: int = 0
    precision: str = ""
    """What it computes in: a data type, or a quantization; empty before its first start."""
    tokens_per_second: float = 0.0
    """The most output tokens in a second, between two looks at its load, since it started."""
    memory_bytes: int = 0
    running: int = 0
    waiting: int = 0
    adapters: list[str] = []
    log: str = ""
    error: ServerFailure | None = None

    @property
    def to_error(self) -> FleetError:
        """The error that it tells of."""
        told = self.error or ServerFailure("F005", "it did not start", "orchestra fleet logs")
        return FleetError(told.code, f"{self.name}: {told.message}", why=told.why, hint=told.hint)


class SupervisorReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a supervisor says of itself and its servers."""

    protocol: int
    fleet: str
    digest: str
    pid: int
    uptime: float
    idle_stop: float
    """Seconds without work after which it ends."""
    logs: str
    servers: list[ServerReport]
    requires_key: bool = False
    """Whether they want a key; those of earlier versions do not."""

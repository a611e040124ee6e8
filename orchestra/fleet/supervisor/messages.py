"""The protocol of a fleet's supervisor: one JSON line per request, one line per response.

An incompatible change of a message must increase `orchestra.fleet.config.PROTOCOL_VERSION`.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec

from orchestra.core.errors import FleetError

ServerPhase: TypeAlias = Literal["starting", "ready", "restarting", "failed", "stopping", "stopped"]
"""`stopping` and `stopped`: a server without requests in a fleet with `start: on_demand`, or the supervisor ends."""


def _operation(name: str) -> str:
    """Returns the wire name of a request class: `start` for `StartRequest`."""
    return name.removesuffix("Request").lower()


class _SupervisorRequest(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="op", tag=_operation):
    """A request to the supervisor. Each request counts as use of the fleet."""


class HeartbeatRequest(_SupervisorRequest, frozen=True):
    """Keeps the supervisor running."""


class StatusRequest(_SupervisorRequest, frozen=True):
    """Requests the status of the fleet. The response is a `SupervisorReport`."""


class StartRequest(_SupervisorRequest, frozen=True):
    """Starts a server that is stopped, or restarts one that failed or is in a pause at once; all of them without a
    name. A named server may stop others to have memory.
    """

    server: str | None = None


class UseRequest(_SupervisorRequest, frozen=True):
    """Announces a request to a server, so that it is not stopped now. The response is a `UseResponse`."""

    server: str


class SuspectRequest(_SupervisorRequest, frozen=True):
    """Reports that a request to this server timed out, so that the supervisor checks whether it still generates."""

    server: str | None = None


class StopRequest(_SupervisorRequest, frozen=True):
    """Stops the supervisor and its servers."""


class LogsRequest(_SupervisorRequest, frozen=True):
    """Requests the last lines of each server's log. The response is a `LogsResponse`."""

    lines: int = 40


class KeyRequest(_SupervisorRequest, frozen=True):
    """Requests the key of the servers. The response is a `KeyResponse`. Earlier versions of the supervisor do not
    support it.
    """


SupervisorRequest: TypeAlias = (
    HeartbeatRequest
    | StatusRequest
    | StartRequest
    | UseRequest
    | SuspectRequest
    | StopRequest
    | LogsRequest
    | KeyRequest
)


class EmptyResponse(msgspec.Struct, frozen=True):
    """The response to a request without data."""


class UseResponse(msgspec.Struct, frozen=True):
    """The address of a server; empty if it is not ready."""

    url: str


class LogsResponse(msgspec.Struct, frozen=True):
    """The last lines of the logs by server."""

    logs: dict[str, list[str]]


class KeyResponse(msgspec.Struct, frozen=True):
    """The key of a supervisor's servers. It is in no report, so that printing a report does not print it."""

    key: str

    def __repr__(self) -> str:
        """Does not show the key."""
        return "KeyResponse(…)"


class ServerFailure(msgspec.Struct, frozen=True):
    """The error with which a server failed."""

    code: str
    message: str
    hint: str = ""
    why: str = ""

    @classmethod
    def from_error(cls, error: FleetError) -> ServerFailure:
        """Returns the report of an error."""
        return cls(error.code, error.message, error.hint, error.why)

    def to_error(self) -> FleetError:
        """Returns the error."""
        return FleetError(self.code, self.message, why=self.why, hint=self.hint)


class ServerReport(msgspec.Struct, frozen=True, kw_only=True):
    """The report on one server in `orchestra fleet status --json`."""

    name: str
    phase: ServerPhase
    model: str
    pid: int | None = None
    port: int | None = None
    url: str | None = None
    uptime: float = 0.0
    """Seconds since it became healthy."""
    since_start: float = 0.0
    """Seconds since its last start."""
    restarts: int = 0
    version: Any = None
    """The version in its response to `/version`."""
    weights: str = ""
    """The quick digest of its weights at start (`orchestra.fleet.weights.weights.quick_digest`)."""
    spare_slots: int = 0
    precision: str = ""
    """Its data type or quantization; empty before its first start."""
    tokens_per_second: float = 0.0
    """The highest output rate between two readings of its load since it started."""
    memory_bytes: int = 0
    running: int = 0
    waiting: int = 0
    adapters: list[str] = []
    log: str = ""
    error: ServerFailure | None = None
    last_failure: ServerFailure | None = None
    """Why it last ended or was ended after it had been ready."""
    since_failure: float = 0.0
    """Seconds since that end."""
    start_phase: str = ""
    """What a starting server does, by its log; empty if the log does not show it."""
    idle: float = 0.0
    """Seconds since its last request, as far as is known; 0 if it has requests."""
    usual_start: float = 0.0
    """Seconds of its last start on this machine; 0 if none was measured."""

    @property
    def to_error(self) -> FleetError:
        """Returns the error of the report."""
        failure = self.error or ServerFailure("F005", "it did not start", "orchestra fleet logs")
        return FleetError(failure.code, f"{self.name}: {failure.message}", why=failure.why, hint=failure.hint)


class SupervisorReport(msgspec.Struct, frozen=True, kw_only=True):
    """The report of a supervisor on itself and its servers."""

    protocol: int
    fleet: str
    digest: str
    pid: int
    uptime: float
    idle_stop: float
    """Seconds without use after which it exits."""
    logs: str
    servers: list[ServerReport]
    requires_key: bool = False
    """Whether the servers require a key. Those of earlier versions do not."""

"""The status of a fleet's servers, from past requests and the supervisor's report, and optionally from a probe of each
endpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec

from orchestra.fleet.secrets import missing_key_error

if TYPE_CHECKING:
    from orchestra.fleet.config import Endpoint, FleetConfig, LocalServer
    from orchestra.fleet.http.addresses import SupervisorMode
    from orchestra.fleet.request_errors import RequestError
    from orchestra.fleet.sender import ServerState
    from orchestra.fleet.supervisor.messages import ServerReport, SupervisorReport

HealthState: TypeAlias = Literal["ready", "unknown", "idle", "starting", "restarting", "stopped", "failed"]
"""`ready`: has answered. `unknown`: no recent answer. `idle`: a local server that the next call starts."""
ERROR_TTL = 60.0
"""Seconds for which an error of an endpoint counts without a newer request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStatus:
    """The status of one server. Times are seconds since the epoch."""

    name: str
    kind: Literal["local", "endpoint"]
    model: str
    address: str
    """The address; empty for a local server that does not run."""
    state: HealthState
    breaker: Literal["closed", "open", "half-open"]
    """`open`: several failures in a row, so requests pause."""
    in_flight: int
    waiting: int
    """Requests of this process in the queue."""
    limit: int
    """Requests in flight at most: `limits: {in_flight: N}`, or fewer while the server rejects many of them."""
    error: str = ""
    """The code of the latest error, if there was no success since."""
    reason: str = ""
    hint: str = ""
    last_answered: float | None = None
    """The time of the latest answer to this process."""
    last_failed: float | None = None
    """The time of the latest failure of a request of this process."""
    supervisor_report: Mapping[str, Any] = field(default_factory=dict)
    """The supervisor's report on a local server: process, memory, load, adapters."""

    @property
    def can_serve(self) -> bool:
        """Whether a call would be sent to the server now, with no known error."""
        return self.state in ("ready", "unknown", "idle")


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetStatus:
    """The status of a fleet.

    It has no name and no servers if an `Orchestra` uses other workers, such as a simulation.
    """

    fleet: str = ""
    running: bool = False
    """Whether a supervisor of local servers runs."""
    servers: tuple[ServerStatus, ...] = ()
    models: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Model name of cards to its servers."""

    @property
    def missing(self) -> tuple[str, ...]:
        """The models without a server that can serve."""
        able = {server.name for server in self.servers if server.can_serve}
        return tuple(model for model, names in self.models.items() if able.isdisjoint(names))

    @property
    def can_serve(self) -> bool:
        """Whether each model has a server that can serve, as far as is known."""
        return not self.missing


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetObservations:
    """The observations of a fleet: supervisor report, request states, and probes."""

    targets: Mapping[str, LocalServer | Endpoint]
    """The servers by name, with the model of an endpoint with `auto` when it is known."""
    states: Mapping[str, ServerState]
    supervisor: SupervisorReport | None
    """The supervisor's report; None without a supervisor."""
    supervisor_error: RequestError | None = None
    """Why a running supervisor does not answer."""
    probed: Mapping[str, RequestError | None] = field(default_factory=dict)


def fleet_status(
    config: FleetConfig, observations: FleetObservations, mode: SupervisorMode, now: float, monotonic: float
) -> FleetStatus:
    """Returns the status for the observations, at a time of both clocks."""
    reports = {server.name: server for server in observations.supervisor.servers} if observations.supervisor else {}
    servers = []
    for name, server_state in observations.states.items():
        target = observations.targets[name]
        common: dict[str, Any] = {
            "name": name,
            "model": target.model,
            "breaker": server_state.breaker.state_at(monotonic),
            "in_flight": server_state.gate.in_flight,
            "waiting": server_state.gate.waiting,
            "limit": int(server_state.gate.limit),
            "last_answered": server_state.answered_at,
            "last_failed": server_state.failed_at,
        }
        local_status = (
            _local_status(reports.get(name), observations.supervisor_error, mode, config.start == "on_demand")
            if name in config.local_servers
            else _endpoint_status(name, target, server_state, observations, now)
        )
        servers.append(ServerStatus(**common, **local_status))
    models = {model: config.servers_for(model) for model in config.models}
    return FleetStatus(
        fleet=config.name, running=observations.supervisor is not None, servers=tuple(servers), models=models
    )


def _local_status(
    report: ServerReport | None, supervisor_error: RequestError | None, mode: SupervisorMode, on_demand: bool
) -> dict[str, Any]:
    if report is None:
        state: HealthState = "failed" if supervisor_error else "idle" if mode == "start" else "stopped"
        return {"kind": "local", "address": "", "state": state, **_error_fields(supervisor_error)}
    if on_demand and mode != "none" and report.phase in ("stopping", "stopped"):
        return {"kind": "local", "address": "", "state": "idle", "supervisor_report": msgspec.to_builtins(report)}
    error_fields = (
        {}
        if report.error is None
        else {"error": report.error.code, "reason": report.error.message, "hint": report.error.hint}
    )
    return {
        "kind": "local",
        "address": report.url or "",
        "state": "stopped" if report.phase == "stopping" else report.phase,
        "supervisor_report": msgspec.to_builtins(report),
        **error_fields,
    }


def _endpoint_status(
    name: str, target: Endpoint | LocalServer, server_state: ServerState, observations: FleetObservations, now: float
) -> dict[str, Any]:
    address = getattr(target, "endpoint", "")
    unheard = server_state.failed_at is None or (server_state.answered_at or 0.0) > server_state.failed_at
    fault = None if unheard else server_state.last_error
    if name in observations.probed:
        fault = observations.probed[name]
        is_lasting, ready = fault is not None, fault is None
    else:
        is_lasting = fault is not None and now - (server_state.failed_at or 0.0) < ERROR_TTL
        ready = server_state.answered_at is not None
    if (error := missing_key_error(target)) is not None:
        return {
            "kind": "endpoint",
            "address": address,
            "state": "failed",
            "error": error.code,
            "reason": error.message,
            "hint": error.hint,
        }
    down = (
        is_lasting
        and fault is not None
        and (fault.policy.marks_unavailable or (name in observations.probed and not fault.busy))
    )
    state: HealthState = "failed" if down or server_state.breaker.state == "open" else "ready" if ready else "unknown"
    return {"kind": "endpoint", "address": address, "state": state, **_error_fields(fault)}


def _error_fields(fault: RequestError | None) -> dict[str, str]:
    return {} if fault is None else {"error": fault.code, "reason": fault.reason, "hint": fault.hint}

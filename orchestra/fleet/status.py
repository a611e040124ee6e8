"""What is known of a fleet's servers, and whether they can serve: read without asking anybody, or by a question to each endpoint."""

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
"""`ready` has answered, `unknown` was not heard of lately, `idle` is a local server that the first call starts."""
ERROR_TTL = 60.0
"""Seconds for which a fault stands against an endpoint that has not been asked since."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStatus:
    """What is known of one server. Moments are seconds since the epoch."""

    name: str
    kind: Literal["local", "endpoint"]
    model: str
    address: str
    """Of a local server, empty while it does not run."""
    state: HealthState
    breaker: Literal["closed", "open", "half-open"]
    """`open`: it failed several times in a row, and is left alone for a moment."""
    in_flight: int
    waiting: int
    """Requests of this process that wait for a place at it."""
    limit: int
    """Requests at once, at most: `limits: {in_flight: N}`, fewer while it rejects many of them."""
    error: str = ""
    """The code of what went wrong last, if nothing has gone well since."""
    reason: str = ""
    hint: str = ""
    last_answered: float | None = None
    """When it last answered a request of this process."""
    last_failed: float | None = None
    """When it last failed one."""
    supervisor_report: Mapping[str, Any] = field(default_factory=dict)
    """What the supervisor says of a local server: its process, memory, load, adapters."""

    @property
    def can_serve(self) -> bool:
        """Whether a call that comes now would be sent to it, and nothing is known that would fail it."""
        return self.state in ("ready", "unknown", "idle")


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetStatus:
    """What is known of a fleet. Where an `Orchestra` uses other workers, as a simulation does, it has no name and no servers."""

    fleet: str = ""
    running: bool = False
    """Whether a supervisor of local servers is there."""
    servers: tuple[ServerStatus, ...] = ()
    models: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The names that cards use, each with its servers."""

    @property
    def missing(self) -> tuple[str, ...]:
        """The models for which no server can serve."""
        able = {server.name for server in self.servers if server.can_serve}
        return tuple(model for model, names in self.models.items() if able.isdisjoint(names))

    @property
    def can_serve(self) -> bool:
        """Whether each model of the fleet has a server that can serve, as far as is known."""
        return not self.missing


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetObservations:
    """What was heard of a fleet: of the supervisor, by requests, and of the endpoints that were asked just now."""

    states: Mapping[str, ServerState]
    supervisor: SupervisorReport | None
    """None where there is none."""
    supervisor_error: RequestError | None = None
    """Why a supervisor that is there does not answer."""
    probed: Mapping[str, RequestError | None] = field(default_factory=dict)


def fleet_status(
    config: FleetConfig, observations: FleetObservations, mode: SupervisorMode, now: float, monotonic: float
) -> FleetStatus:
    """What all that comes to, at this moment of both clocks."""
    told = {server.name: server for server in observations.supervisor.servers} if observations.supervisor else {}
    servers = []
    for name, server_state in observations.states.items():
        target = config.servers[name]
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
        found = (
            _local_status(told.get(name), observations.supervisor_error, mode)
            if name in config.local_servers
            else _endpoint_status(name, target, server_state, observations, now)
        )
        servers.append(ServerStatus(**common, **found))
    models = {model: config.servers_for(model) for model in config.models}
    return FleetStatus(
        fleet=config.name, running=observations.supervisor is not None, servers=tuple(servers), models=models
    )


def _local_status(
    report: ServerReport | None, supervisor_error: RequestError | None, mode: SupervisorMode
) -> dict[str, Any]:
    if report is None:
        state: HealthState = "failed" if supervisor_error else "idle" if mode == "start" else "stopped"
        return {"kind": "local", "address": "", "state": state, **_error_fields(supervisor_error)}
    said = (
        {}
        if report.error is None
        else {"error": report.error.code, "reason": report.error.message, "hint": report.error.hint}
    )
    return {
        "kind": "local",
        "address": report.url or "",
        "state": report.phase,
        "supervisor_report": msgspec.to_builtins(report),
        **said,
    }


def _endpoint_status(
    name: str, target: Endpoint | LocalServer, server_state: ServerState, observations: FleetObservations, now: float
) -> dict[str, Any]:
    address = getattr(target, "endpoint", "")
    unheard = server_state.failed_at is None or (server_state.answered_at or 0.0) > server_state.failed_at
    fault = None if unheard else server_state.last_error
    if name in observations.probed:
        fault = observations.probed[name]
        lasting, ready = fault is not None, fault is None
    else:
        lasting = fault is not None and now - (server_state.failed_at or 0.0) < ERROR_TTL
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
        lasting
        and fault is not None
        and (fault.policy.marks_unavailable or (name in observations.probed and not fault.busy))
    )
    state: HealthState = "failed" if down or server_state.breaker.state == "open" else "ready" if ready else "unknown"
    return {"kind": "endpoint", "address": address, "state": state, **_error_fields(fault)}


def _error_fields(fault: RequestError | None) -> dict[str, str]:
    return {} if fault is None else {"error": fault.code, "reason": fault.reason, "hint": fault.hint}

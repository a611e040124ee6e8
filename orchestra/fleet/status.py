"""What is known of a fleet's servers, and whether they can serve: read without asking anybody, or by a question to each endpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec

from orchestra.fleet.secrets import lacking

if TYPE_CHECKING:
    from orchestra.fleet.config import Endpoint, FleetConfig, LocalServer
    from orchestra.fleet.http.addresses import Mode
    from orchestra.fleet.request_errors import Fault
    from orchestra.fleet.sender import Line
    from orchestra.fleet.supervisor.messages import ServerReport, SupervisorReport

State: TypeAlias = Literal["ready", "unknown", "idle", "starting", "restarting", "stopped", "failed"]
"""`ready` has answered, `unknown` was not heard of lately, `idle` is a local server that the first call starts."""
HELD = 60.0
"""Seconds for which a fault stands against an endpoint that has not been asked since."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStatus:
    """What is known of one server. Moments are seconds since the epoch."""

    name: str
    kind: Literal["local", "endpoint"]
    model: str
    address: str
    """Of a local server, empty while it does not run."""
    state: State
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
    answered: float | None = None
    """When it last answered a request of this process."""
    failed: float | None = None
    """When it last failed one."""
    supervised: Mapping[str, Any] = field(default_factory=dict)
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
class Heard:
    """What was heard of a fleet: of the supervisor, by requests, and of the endpoints that were asked just now."""

    lines: Mapping[str, Line]
    supervisor: SupervisorReport | None
    """None where there is none."""
    silent: Fault | None = None
    """Why a supervisor that is there does not answer."""
    asked: Mapping[str, Fault | None] = field(default_factory=dict)


def status(config: FleetConfig, heard: Heard, mode: Mode, now: float, monotonic: float) -> FleetStatus:
    """What all that comes to, at this moment of both clocks."""
    told = {server.name: server for server in heard.supervisor.servers} if heard.supervisor else {}
    servers = []
    for name, line in heard.lines.items():
        target = config.servers[name]
        common: dict[str, Any] = {
            "name": name,
            "model": target.model,
            "breaker": line.breaker.at(monotonic),
            "in_flight": line.gate.inside,
            "waiting": line.gate.waiting,
            "limit": int(line.gate.limit),
            "answered": line.answered_at,
            "failed": line.failed_at,
        }
        found = _local(told.get(name), heard.silent, mode) if name in config.local else _endpoint(name, target, line, heard, now)
        servers.append(ServerStatus(**common, **found))
    models = {model: config.serving(model) for model in config.models}
    return FleetStatus(fleet=config.name, running=heard.supervisor is not None, servers=tuple(servers), models=models)


def _local(told: ServerReport | None, silent: Fault | None, mode: Mode) -> dict[str, Any]:
    if told is None:
        state: State = "failed" if silent else "idle" if mode == "start" else "stopped"
        return {"kind": "local", "address": "", "state": state, **_error(silent)}
    said = {} if told.error is None else {"error": told.error.code, "reason": told.error.message, "hint": told.error.hint}
    return {"kind": "local", "address": told.url or "", "state": told.phase, "supervised": msgspec.to_builtins(told), **said}


def _endpoint(name: str, target: Endpoint | LocalServer, line: Line, heard: Heard, now: float) -> dict[str, Any]:
    address = getattr(target, "endpoint", "")
    unheard = line.failed_at is None or (line.answered_at or 0.0) > line.failed_at
    fault = None if unheard else line.fault
    if name in heard.asked:
        fault = heard.asked[name]
        lasting, ready = fault is not None, fault is None
    else:
        lasting = fault is not None and now - (line.failed_at or 0.0) < HELD
        ready = line.answered_at is not None
    if (error := lacking(target)) is not None:
        return {"kind": "endpoint", "address": address, "state": "failed", "error": error.code, "reason": error.message, "hint": error.hint}
    down = lasting and fault is not None and (fault.traits.alone or (name in heard.asked and not fault.busy))
    state: State = "failed" if down or line.breaker.state == "open" else "ready" if ready else "unknown"
    return {"kind": "endpoint", "address": address, "state": state, **_error(fault)}


def _error(fault: Fault | None) -> dict[str, str]:
    return {} if fault is None else {"error": fault.code, "reason": fault.reason, "hint": fault.hint}

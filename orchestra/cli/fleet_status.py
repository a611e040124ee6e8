"""What the verbs of `orchestra fleet` do: the supervisor started, asked and stopped; its answers shown."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import typer

from orchestra.cli.context import load_settings, load_settings_to_inspect
from orchestra.cli.cpu_report import cpu_as_data, describe_cpu
from orchestra.cli.endpoints import connection_error
from orchestra.cli.output import (
    format_duration,
    format_size,
    make_console,
    make_table,
    print_json,
    print_note,
    print_text,
)
from orchestra.cli.progress import StatusLine
from orchestra.core.child_process import last_lines
from orchestra.core.errors import FleetError
from orchestra.core.settings import Settings
from orchestra.core.untrusted_text import escape_invisible
from orchestra.fleet.config import Endpoint, FleetConfig, read_config
from orchestra.fleet.secrets import auth_headers, missing_key_error
from orchestra.fleet.supervisor import vllm_launch
from orchestra.fleet.supervisor.client import SupervisorClient
from orchestra.fleet.supervisor.folders import Folders
from orchestra.fleet.supervisor.messages import ServerReport, SupervisorReport
from orchestra.fleet.weights import weights


def _load_fleet(
    name: str | None, load: Callable[..., Settings] = load_settings_to_inspect
) -> tuple[Settings, FleetConfig, SupervisorClient]:
    chosen = load(fleet=name)
    config = read_config(chosen.find_resource("configs", chosen.fleet))
    return chosen, config, SupervisorClient(config, Folders.from_environment())


async def start(name: str | None, wait: bool, as_json: bool) -> None:
    """Starts the local servers and shows them; `wait` says whether until they are ready. Raises `FleetError`."""

    chosen, config, supervision = _load_fleet(name, load_settings)
    waiting = StatusLine()
    try:
        if config.local_servers:
            vllm_launch.vllm_version()
            for server in config.local_servers.values():
                await weights.ensure_weights(
                    server.weights, weights.ModelStore.from_environment(hub=chosen.hub), waiting
                )
            await supervision.start()
            if wait:
                await supervision.wait_until_ready(waiting)
    finally:
        waiting.close()
    _show_status(await _fetch_status(config, supervision), as_json)


async def status(name: str | None, as_json: bool) -> None:
    """Shows the servers; exits with 1 where one does not run or cannot be reached, or an endpoint's key is not there."""
    _, config, supervision = _load_fleet(name)
    found = await _fetch_status(config, supervision)
    _show_status(found, as_json)
    failed = any(server.phase == "failed" for server in found.servers)
    if failed or not found.running or any(end.error or end.key for end in found.endpoints):
        raise typer.Exit(1)


class _EndpointStatus(msgspec.Struct, frozen=True):
    """An endpoint, which nobody here keeps: why it cannot be reached, and what its key lacks."""

    name: str
    endpoint: str
    model: str
    external: bool
    error: str
    key: str


class _FleetStatus(msgspec.Struct, frozen=True):
    """What the supervisor says, where there is one, and the endpoints."""

    config: FleetConfig
    report: SupervisorReport | None
    endpoints: list[_EndpointStatus]

    @property
    def running(self) -> bool:
        return self.report is not None or not self.config.local_servers

    @property
    def servers(self) -> list[ServerReport]:
        return self.report.servers if self.report is not None else []

    def as_data(self) -> dict[str, Any]:
        told = msgspec.to_builtins(self.report) if self.report is not None else {}
        common = {"fleet": self.config.name, "running": self.running, "servers": []}
        cpu = (
            {"cpu": cpu_as_data()}
            if any(server.device == "cpu" for server in self.config.local_servers.values())
            else {}
        )
        return {**common, **told, **cpu, "endpoints": msgspec.to_builtins(self.endpoints)}


async def _fetch_status(config: FleetConfig, supervision: SupervisorClient) -> _FleetStatus:
    report = await supervision.status() if config.local_servers else None
    known = {server: endpoint for server, endpoint in config.servers.items() if isinstance(endpoint, Endpoint)}
    reasons = await asyncio.gather(
        *(asyncio.to_thread(connection_error, endpoint.endpoint) for endpoint in known.values())
    )
    keys = [error.message if (error := missing_key_error(endpoint)) else "" for endpoint in known.values()]
    endpoints = [
        _EndpointStatus(server, end.endpoint, end.model, end.external, why, key)
        for (server, end), why, key in zip(known.items(), reasons, keys, strict=True)
    ]
    return _FleetStatus(config, report, endpoints)


def _show_status(found: _FleetStatus, as_json: bool) -> None:
    config, report = found.config, found.report
    if as_json:
        print_json(found.as_data())
        return
    if not found.running:
        print_text(f"the fleet {config.name!r} is not running; start it with: orchestra fleet start")
        return
    if report is not None and report.servers:
        rows = [_server_row(server) for server in report.servers]
        print_text(
            f"{config.name}: up for {format_duration(report.uptime)}; ends after {format_duration(report.idle_stop)} without work\n",
            style="bold",
        )
        headings = (
            "server",
            "is",
            "model",
            "vLLM",
            "address",
            "up",
            "restarts",
            "running",
            "waiting",
            "precision",
            "most tokens/s",
            "memory",
        )
        make_console().print(make_table(headings, rows, right=(6, 7, 8, 10, 11)))
        if any(server.device == "cpu" for server in config.local_servers.values()):
            print_text("\n" + describe_cpu(), style="dim")
    for server in found.servers:
        if error := server.error:
            print_text(escape_invisible(f"\n{server.name}: {error.code}: {error.message}\n  {error.hint}"), style="red")
    for end in found.endpoints:
        where = f"{end.model} at {end.endpoint}{' (external)' if end.external else ''}"
        why = f" cannot be reached: {end.error}" if end.error else ", takes connections"
        key = f"; {end.key}" if end.key else ""
        print_text(f"{end.name}: {where}{why}{key}", style="red" if end.error or key else "")


def _server_row(server: ServerReport) -> Sequence[str]:
    version = server.version
    return (
        server.name,
        server.phase,
        server.model,
        str(version.get("version", "") if isinstance(version, Mapping) else version or ""),
        server.url or "",
        format_duration(server.uptime),
        str(server.restarts),
        str(server.running),
        str(server.waiting),
        server.precision,
        f"{server.tokens_per_second:.0f}" if server.tokens_per_second else "",
        format_size(server.memory_bytes),
    )


async def stop(name: str | None, as_json: bool) -> None:
    """Stops the local servers."""
    _, config, supervision = _load_fleet(name)
    stopped = await supervision.stop()
    if as_json:
        print_json({"fleet": config.name, "stopped": stopped})
    else:
        print_text(
            f"the fleet {config.name!r} has stopped" if stopped else f"the fleet {config.name!r} was not running"
        )


async def key(name: str | None, header: bool, as_json: bool) -> None:
    """Prints the key that the local servers want. Raises `FleetError` F008 where none runs."""
    _, config, supervision = _load_fleet(name)
    if not config.local_servers:
        hint = "those of its endpoints are what `api_key:` stands for in the fleet file"
        raise FleetError("F008", f"the fleet {config.name!r} has no servers here that want a key", hint=hint)
    found = await supervision.key()
    if not found:
        print_note(
            "its servers want no key, for an earlier version of Orchestra started them: orchestra fleet stop ends them"
        )
    if as_json:
        print_json({"fleet": config.name, "key": found})
    elif found:
        print_text("".join(f"{name}: {value}" for name, value in auth_headers(found).items()) if header else found)


async def logs(name: str | None, lines: int, as_json: bool) -> None:
    """Prints the last lines of each server's log, running or not."""

    _, config, supervision = _load_fleet(name)
    logs = await supervision.logs(lines)
    if logs is None:
        folder = Folders.from_environment().logs(config.digest)
        logs = {path.stem: last_lines(path, lines) for path in sorted(folder.glob("*.log"))}
    if as_json:
        print_json({"fleet": config.name, "logs": logs})
        return
    for server, told in logs.items():
        print_text(f"--- {server}", style="bold")
        print_text(escape_invisible("\n".join(told)))
    if not logs:
        print_text("there are no logs yet")

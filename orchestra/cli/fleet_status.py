"""What the verbs of `orchestra fleet` do: the supervisor started, asked and stopped; its answers shown."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import typer

from orchestra.cli.context import settings, settings_to_inspect
from orchestra.cli.cpu_report import cpu_as_data, describe_cpu
from orchestra.cli.endpoints import unreachable
from orchestra.cli.output import console, note, print_json, say, seconds, size, table
from orchestra.cli.progress import Waiting
from orchestra.core.child_process import last_lines
from orchestra.core.errors import FleetError
from orchestra.core.settings import Settings
from orchestra.core.untrusted_text import visible
from orchestra.fleet.config import Endpoint, FleetConfig, read
from orchestra.fleet.secrets import lacking, signed
from orchestra.fleet.supervisor import vllm_launch
from orchestra.fleet.supervisor.client import Supervision
from orchestra.fleet.supervisor.folders import Folders
from orchestra.fleet.supervisor.messages import ServerReport, SupervisorReport
from orchestra.fleet.weights import weights


def _found(name: str | None, load: Callable[..., Settings] = settings_to_inspect) -> tuple[Settings, FleetConfig, Supervision]:
    chosen = load(fleet=name)
    config = read(chosen.find_resource("configs", chosen.fleet))
    return chosen, config, Supervision(config, Folders.of())


async def start(name: str | None, wait: bool, as_json: bool) -> None:
    """Starts the local servers and shows them; `wait` says whether until they are ready. Raises `FleetError`."""

    chosen, config, supervision = _found(name, settings)
    waiting = Waiting()
    try:
        if config.local:
            vllm_launch.vllm_version()
            for server in config.local.values():
                await weights.ensure(server.weights, weights.Pantry.of(hub=chosen.hub), waiting)
            await supervision.start()
            if wait:
                await supervision.healthy(waiting)
    finally:
        waiting.close()
    _show(await _asked(config, supervision), as_json)


async def status(name: str | None, as_json: bool) -> None:
    """Shows the servers; exits with 1 where one does not run or cannot be reached, or an endpoint's key is not there."""
    _, config, supervision = _found(name)
    found = await _asked(config, supervision)
    _show(found, as_json)
    failed = any(server.phase == "failed" for server in found.servers)
    if failed or not found.running or any(end.error or end.key for end in found.endpoints):
        raise typer.Exit(1)


class _End(msgspec.Struct, frozen=True):
    """An endpoint, which nobody here keeps: why it cannot be reached, and what its key lacks."""

    name: str
    endpoint: str
    model: str
    external: bool
    error: str
    key: str


class _Asked(msgspec.Struct, frozen=True):
    """What the supervisor says, where there is one, and the endpoints."""

    config: FleetConfig
    report: SupervisorReport | None
    endpoints: list[_End]

    @property
    def running(self) -> bool:
        return self.report is not None or not self.config.local

    @property
    def servers(self) -> list[ServerReport]:
        return self.report.servers if self.report is not None else []

    def as_data(self) -> dict[str, Any]:
        told = msgspec.to_builtins(self.report) if self.report is not None else {}
        common = {"fleet": self.config.name, "running": self.running, "servers": []}
        cpu = {"cpu": cpu_as_data()} if any(server.device == "cpu" for server in self.config.local.values()) else {}
        return {**common, **told, **cpu, "endpoints": msgspec.to_builtins(self.endpoints)}


async def _asked(config: FleetConfig, supervision: Supervision) -> _Asked:
    report = await supervision.status() if config.local else None
    known = {server: endpoint for server, endpoint in config.servers.items() if isinstance(endpoint, Endpoint)}
    reasons = await asyncio.gather(*(asyncio.to_thread(unreachable, endpoint.endpoint) for endpoint in known.values()))
    keys = [error.message if (error := lacking(endpoint)) else "" for endpoint in known.values()]
    endpoints = [
        _End(server, end.endpoint, end.model, end.external, why, key)
        for (server, end), why, key in zip(known.items(), reasons, keys, strict=True)
    ]
    return _Asked(config, report, endpoints)


def _show(found: _Asked, as_json: bool) -> None:
    config, report = found.config, found.report
    if as_json:
        print_json(found.as_data())
        return
    if not found.running:
        say(f"the fleet {config.name!r} is not running; start it with: orchestra fleet start")
        return
    if report is not None and report.servers:
        rows = [_row(server) for server in report.servers]
        say(f"{config.name}: up for {seconds(report.uptime)}; ends after {seconds(report.idle_stop)} without work\n", style="bold")
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
        console().print(table(headings, rows, right=(6, 7, 8, 10, 11)))
        if any(server.device == "cpu" for server in config.local.values()):
            say("\n" + describe_cpu(), style="dim")
    for server in found.servers:
        if error := server.error:
            say(visible(f"\n{server.name}: {error.code}: {error.message}\n  {error.hint}"), style="red")
    for end in found.endpoints:
        where = f"{end.model} at {end.endpoint}{' (external)' if end.external else ''}"
        why = f" cannot be reached: {end.error}" if end.error else ", takes connections"
        key = f"; {end.key}" if end.key else ""
        say(f"{end.name}: {where}{why}{key}", style="red" if end.error or key else "")


def _row(server: ServerReport) -> Sequence[str]:
    version = server.version
    return (
        server.name,
        server.phase,
        server.model,
        str(version.get("version", "") if isinstance(version, Mapping) else version or ""),
        server.url or "",
        seconds(server.uptime),
        str(server.restarts),
        str(server.running),
        str(server.waiting),
        server.precision,
        f"{server.tokens_per_second:.0f}" if server.tokens_per_second else "",
        size(server.memory_bytes),
    )


async def stop(name: str | None, as_json: bool) -> None:
    """Stops the local servers."""
    _, config, supervision = _found(name)
    stopped = await supervision.stop()
    if as_json:
        print_json({"fleet": config.name, "stopped": stopped})
    else:
        say(f"the fleet {config.name!r} has stopped" if stopped else f"the fleet {config.name!r} was not running")


async def key(name: str | None, header: bool, as_json: bool) -> None:
    """Prints the key that the local servers want. Raises `FleetError` F008 where none runs."""
    _, config, supervision = _found(name)
    if not config.local:
        hint = "those of its endpoints are what `api_key:` stands for in the fleet file"
        raise FleetError("F008", f"the fleet {config.name!r} has no servers here that want a key", hint=hint)
    found = await supervision.key()
    if not found:
        note("its servers want no key, for an earlier version of Orchestra started them: orchestra fleet stop ends them")
    if as_json:
        print_json({"fleet": config.name, "key": found})
    elif found:
        say("".join(f"{name}: {value}" for name, value in signed(found).items()) if header else found)


async def logs(name: str | None, lines: int, as_json: bool) -> None:
    """Prints the last lines of each server's log, running or not."""

    _, config, supervision = _found(name)
    logs = await supervision.logs(lines)
    if logs is None:
        folder = Folders.of().logs(config.digest)
        logs = {path.stem: last_lines(path, lines) for path in sorted(folder.glob("*.log"))}
    if as_json:
        print_json({"fleet": config.name, "logs": logs})
        return
    for server, told in logs.items():
        say(f"--- {server}", style="bold")
        say(visible("\n".join(told)))
    if not logs:
        say("there are no logs yet")

"""`orchestra fleet`: start, inspect and stop the model servers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from orchestra.cli.context import load_settings, load_settings_to_inspect
from orchestra.cli.options import FleetOption, JsonOption
from orchestra.cli.output import StatusLine, print_json, print_note, print_table, print_text
from orchestra.cli.typer_adapter import OrchestraGroup, add_command, format_error
from orchestra.core.errors import FleetError, InputError, OrchestraError
from orchestra.core.quantities import format_duration, format_size
from orchestra.core.untrusted_text import escape_invisible, pluralize

if TYPE_CHECKING:
    from orchestra.core.settings import Settings
    from orchestra.fleet.base_models import BaseModel
    from orchestra.fleet.config import FleetConfig
    from orchestra.fleet.supervisor.client import SupervisorClient
    from orchestra.fleet.supervisor.messages import ServerReport, SupervisorReport


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    group = typer.Typer(cls=OrchestraGroup, no_args_is_help=True, help="Start, inspect and stop the model servers.")
    add_command(group, start)
    add_command(group, status)
    add_command(group, stop)
    add_command(group, logs)
    add_command(group, key)
    add_command(group, models)
    add_command(group, add)
    app.add_typer(group, name="fleet", rich_help_panel="Operate")


def start(
    fleet: FleetOption = None,
    wait: Annotated[bool, typer.Option(help="Wait until every server is ready.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Start the servers, or connect to running ones. The first start downloads the weights and prints their size."""
    import asyncio

    asyncio.run(start_fleet(fleet, wait, as_json))


def status(fleet: FleetOption = None, as_json: JsonOption = False) -> None:
    """Show the servers (health, version, load and memory) and whether endpoints can be reached.

    Exits with 1 if the fleet is not running, a server has failed, an endpoint refuses connections, or its key is
    missing.
    """
    import asyncio

    asyncio.run(show_status(fleet, as_json))


def stop(fleet: FleetOption = None, as_json: JsonOption = False) -> None:
    """Stop the servers."""
    import asyncio

    asyncio.run(stop_fleet(fleet, as_json))


def logs(
    fleet: FleetOption = None,
    lines: Annotated[
        int, typer.Option("--lines", "-n", min=1, max=500, help="The number of lines of each server.")
    ] = 40,
    as_json: JsonOption = False,
) -> None:
    """Print the last lines of the server logs."""
    import asyncio

    asyncio.run(show_logs(fleet, lines, as_json))


def key(
    fleet: FleetOption = None,
    header: Annotated[bool, typer.Option("--header", help="Print it as an HTTP header, for curl -H @-.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Print the API key of the running local servers.

    orchestra fleet key --header | curl -H @- ADDRESS/v1/models keeps the key off the command line, which all users of a
    machine can read. orchestra fleet status shows the address.
    """
    import asyncio

    asyncio.run(show_key(fleet, header, as_json))


def models(as_json: JsonOption = False) -> None:
    """List the base models of all fleet files: what is installed, what must be downloaded, and what fits in memory."""
    show_models(as_json)


def add(
    source: Annotated[
        str,
        typer.Argument(metavar="PATH|HUB-ID", help="A folder of safetensors, a GGUF file, or OWNER/NAME of the hub."),
    ],
    name: Annotated[
        str | None, typer.Option("--name", help="The name of the fleet.", show_default="from the source")
    ] = None,
    device: Annotated[str, typer.Option(help="Where the model computes: cpu or gpu.")] = "cpu",
    check: Annotated[bool, typer.Option(help="Start the server and send one request.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Write a fleet file for a model of your own, and check that it answers.

    Families: Llama, Qwen, Gemma, Phi, Mistral and SmolLM. The memory is checked before a download and before a start.
    """
    import asyncio

    asyncio.run(add_model(source, name, device, check, as_json))


def _load_fleet(
    name: str | None, load: Callable[..., Settings] = load_settings_to_inspect
) -> tuple[Settings, FleetConfig, SupervisorClient]:
    from orchestra.fleet.config import configured_fleet
    from orchestra.fleet.supervisor.client import SupervisorClient
    from orchestra.fleet.supervisor.folders import Folders

    settings = load(fleet=name)
    config = configured_fleet(settings)
    return settings, config, SupervisorClient(config, Folders.from_environment())


async def start_fleet(name: str | None, wait: bool, as_json: bool) -> None:
    """Starts the local servers and shows them. With `wait`, waits until they are ready. Raises `FleetError`."""
    from orchestra.fleet.memory import available_memory, check_memory
    from orchestra.fleet.supervisor import vllm_launch
    from orchestra.fleet.weights import weights

    settings, config, supervision = _load_fleet(name, load_settings)
    status_line = StatusLine()
    try:
        if config.local_servers:
            vllm_launch.vllm_version()
            is_running = await supervision.status() is not None
            model_store = weights.ModelStore.from_environment(hub=settings.hub)
            for place, server in config.local_servers.items():
                if not is_running:
                    check_memory(f"servers.{place}", server, model_store, available_memory())
                await weights.ensure_weights(server.weights, model_store, status_line)
            await supervision.start()
            if wait:
                await supervision.wait_until_ready(status_line)
    finally:
        status_line.close()
    _show_status(await _fetch_status(config, supervision), as_json)


async def show_status(name: str | None, as_json: bool) -> None:
    """Shows the servers. Exits with 1 if one does not run or cannot be reached, or an endpoint key is missing."""
    _, config, supervision = _load_fleet(name)
    fleet_status = await _fetch_status(config, supervision)
    _show_status(fleet_status, as_json)
    has_failures = any(server.phase == "failed" for server in fleet_status.servers)
    if has_failures or not fleet_status.running or any(end.error or end.key for end in fleet_status.endpoints):
        raise typer.Exit(1)


@dataclass(frozen=True, slots=True)
class _EndpointStatus:
    """An endpoint that is not managed here, its connection error and its key error."""

    name: str
    endpoint: str
    model: str
    external: bool
    error: str
    key: str


@dataclass(frozen=True, slots=True)
class _FleetStatus:
    """The report of the supervisor, if it runs, and the endpoints."""

    config: FleetConfig
    report: SupervisorReport | None
    endpoints: list[_EndpointStatus]

    @property
    def running(self) -> bool:
        """Whether the supervisor runs, or the fleet has no local servers."""
        return self.report is not None or not self.config.local_servers

    @property
    def servers(self) -> list[ServerReport]:
        """The reports of the local servers; empty if the supervisor does not run."""
        return self.report.servers if self.report is not None else []

    def as_data(self) -> dict[str, Any]:
        """Returns the status as JSON data."""
        import msgspec

        fields = msgspec.to_builtins(self.report) if self.report is not None else {}
        common = {"fleet": self.config.name, "running": self.running, "servers": []}
        cpu_part = (
            {"cpu": cpu_as_data()}
            if any(server.device == "cpu" for server in self.config.local_servers.values())
            else {}
        )
        return {**common, **fields, **cpu_part, "endpoints": msgspec.to_builtins(self.endpoints)}


async def _fetch_status(config: FleetConfig, supervision: SupervisorClient) -> _FleetStatus:
    import asyncio

    from orchestra.fleet.config import Endpoint
    from orchestra.fleet.endpoints import inspect_endpoint
    from orchestra.fleet.secrets import missing_key_error

    report = await supervision.status() if config.local_servers else None
    external_servers = {name: end for name, end in config.servers.items() if isinstance(end, Endpoint)}
    inspected_endpoints = await asyncio.gather(*map(inspect_endpoint, external_servers.values()))
    endpoints_by_name = dict(zip(external_servers, inspected_endpoints, strict=True))
    reasons = await asyncio.gather(
        *(asyncio.to_thread(connection_error, endpoint.endpoint) for endpoint in endpoints_by_name.values())
    )
    keys = [error.message if (error := missing_key_error(endpoint)) else "" for endpoint in endpoints_by_name.values()]
    endpoints = [
        _EndpointStatus(server, end.endpoint, end.model, end.external, reason, key)
        for (server, end), reason, key in zip(endpoints_by_name.items(), reasons, keys, strict=True)
    ]
    return _FleetStatus(config, report, endpoints)


def _show_status(fleet_status: _FleetStatus, as_json: bool) -> None:
    config, report = fleet_status.config, fleet_status.report
    if as_json:
        print_json(fleet_status.as_data())
        return
    if not fleet_status.running:
        print_text(f"the fleet {config.name!r} is not running; start it with: orchestra fleet start")
        return
    if report is not None and report.servers:
        rows = [_server_row(server) for server in report.servers]
        print_text(
            f"{config.name}: up for {format_duration(report.uptime)}; ends after "
            f"{format_duration(report.idle_stop)} idle\n",
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
        print_table(headings, rows, right=(6, 7, 8, 10, 11))
        if any(server.device == "cpu" for server in config.local_servers.values()):
            print_text("\n" + describe_cpu(), style="dim")
    for server in fleet_status.servers:
        if error := server.error:
            print_text(escape_invisible(f"\n{server.name}: {error.code}: {error.message}\n  {error.hint}"), style="red")
        elif error := server.last_failure:
            when = f"restarted; {format_duration(server.since_failure)} ago"
            text = f"\n{server.name}: {when}: {error.code}: {error.message}\n  {error.hint}"
            print_text(escape_invisible(text), style="yellow")
    for end in fleet_status.endpoints:
        label = f"{end.model} at {end.endpoint}{' (external)' if end.external else ''}"
        reason = f" cannot be reached: {end.error}" if end.error else ", accepts connections"
        key = f"; {end.key}" if end.key else ""
        print_text(f"{end.name}: {label}{reason}{key}", style="red" if end.error or key else "")


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


def show_models(as_json: bool) -> None:
    """Prints the base models of all fleet files. Files that cannot be read are named."""
    import msgspec

    from orchestra.fleet.base_models import list_base_models
    from orchestra.fleet.config import read_config
    from orchestra.fleet.memory import available_memory
    from orchestra.fleet.weights.weights import ModelStore

    settings = load_settings_to_inspect()
    configs, errors = {}, {}
    for name, path in settings.resources("configs").items():
        try:
            configs[name] = read_config(path)
        except OrchestraError as error:
            errors[name] = error
    base_models = list(
        list_base_models(configs, ModelStore.from_environment(hub=settings.hub or None), available_memory())
    )
    if as_json:
        print_json(
            {"models": msgspec.to_builtins(base_models), "broken": {name: error.code for name, error in errors.items()}}
        )
        return
    rows = [
        (
            model.fleet,
            model.server,
            model.model,
            _download_text(model),
            "" if model.installed is None else format_size(model.weights_bytes),
            "no" if model.refusal else "" if model.installed is None else "yes",
        )
        for model in base_models
    ]
    print_table(("fleet", "server", "model", "to download", "weights", "fits now"), rows, right=(3, 4))
    for refusal in dict.fromkeys(model.refusal for model in base_models if model.refusal):
        print_text(f"  {refusal}", style="dim")
    for fault in errors.values():
        print_note(f"\n{format_error(fault)}")
    if any(not model.installed and model.installed is not None for model in base_models):
        print_text("\nuse one: orchestra run … --fleet FLEET; the first start downloads its weights", style="dim")


def _download_text(model: BaseModel) -> str:
    if model.installed is None:
        return "endpoint"
    return "installed" if model.installed else format_size(model.download_bytes)


async def add_model(source: str, name: str | None, device: str, check: bool, as_json: bool) -> None:
    """Writes the fleet file of a model, and with `check` starts its server and sends one request.

    Raises:
        InputError: F107 for a source that is no model, C016 if the fleet file exists.
        FleetError: F227 without the GPU of `device`; or the model does not fit in memory, does not start, or does not
            answer.
    """
    from orchestra.fleet import base_models
    from orchestra.fleet.config import parse_config
    from orchestra.fleet.memory import available_memory, check_memory
    from orchestra.fleet.weights.weights import ModelStore

    if device not in ("cpu", "gpu"):
        raise InputError("C010", f"--device cannot be {device!r}", hint="--device cpu, or --device gpu")
    settings = load_settings()
    fleet = name or base_models.fleet_name(source)
    base_models.check_gpu(fleet, "gpu" if device == "gpu" else "cpu")
    path = (settings.project or Path.cwd()) / "configs" / f"{fleet}.yaml"
    if path.exists():
        raise InputError("C016", f"{path}: it exists already; nothing was written", hint="choose another --name")
    progress = StatusLine()
    try:
        model_store = ModelStore.from_environment(hub=True)
        model = await base_models.find_model(source, model_store, progress)
        text = base_models.fleet_text(fleet, model, device="gpu" if device == "gpu" else "cpu", model=fleet)
        config = parse_config(text, str(path))
        check_memory(fleet, config.local_servers[fleet], model_store, available_memory())
        answer = await base_models.ask_model(config, model_store, progress) if check else None
    finally:
        progress.close()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OrchestraError("C023", f"{path} cannot be written: {error.strerror}", hint="check the folder") from error
    if as_json:
        print_json({"fleet": fleet, "file": str(path), "answer": answer})
        return
    print_text(f"{path}: written", style="bold")
    if answer is not None:
        print_text(escape_invisible(f"it answers: {answer}"))
    print_text(f"use it: orchestra run … --fleet {fleet}")


async def stop_fleet(name: str | None, as_json: bool) -> None:
    """Stops the local servers."""
    _, config, supervision = _load_fleet(name)
    was_running = await supervision.stop()
    if as_json:
        print_json({"fleet": config.name, "stopped": was_running})
    else:
        print_text(
            f"the fleet {config.name!r} has stopped" if was_running else f"the fleet {config.name!r} was not running"
        )


async def show_key(name: str | None, header: bool, as_json: bool) -> None:
    """Prints the API key of the local servers. Raises `FleetError` F008 if none runs."""
    from orchestra.fleet.secrets import auth_headers

    _, config, supervision = _load_fleet(name)
    if not config.local_servers:
        hint = "the keys of its endpoints are those of `api_key:` in the fleet file"
        raise FleetError("F008", f"the fleet {config.name!r} has no local servers with a key", hint=hint)
    server_key = await supervision.key()
    if not server_key:
        print_note("an earlier version of Orchestra started its servers without a key; stop them: orchestra fleet stop")
    if as_json:
        print_json({"fleet": config.name, "key": server_key})
    elif server_key:
        print_text(
            "".join(f"{name}: {value}" for name, value in auth_headers(server_key).items()) if header else server_key
        )


async def show_logs(name: str | None, lines: int, as_json: bool) -> None:
    """Prints the last lines of each server log, also of stopped servers."""
    from orchestra.core.child_process import last_lines
    from orchestra.fleet.supervisor.folders import Folders

    _, config, supervision = _load_fleet(name)
    logs = await supervision.logs(lines)
    if logs is None:
        folder = Folders.from_environment().logs(config.digest)
        logs = {path.stem: last_lines(path, lines) for path in sorted(folder.glob("*.log"))}
    if as_json:
        print_json({"fleet": config.name, "logs": logs})
        return
    for server, log_lines in logs.items():
        print_text(f"--- {server}", style="bold")
        print_text(escape_invisible("\n".join(log_lines)))
    if not logs:
        print_text("there are no logs yet")


def cpu_as_data(*, measure: bool = False) -> dict[str, Any]:
    """Describes the CPU, the default data type of servers on it, and the expected speed.

    Args:
        measure: Whether to measure missing matrix product times, which takes seconds.

    Returns:
        JSON values; `expected_tokens_per_second` is None without a measurement.
    """
    from orchestra.fleet import cpu
    from orchestra.fleet.supervisor.folders import Folders

    cached_cpu, cache = cpu.read_cpu(), Folders.from_environment().cache
    speeds = cpu.ensure_speeds(cache) if measure else cpu.cached_speeds(cached_cpu, cache)
    dtype = cpu.choose_dtype(cached_cpu, speeds)
    int8 = cpu.default_quantization(cached_cpu, dtype) == "int8"
    expected = None if speeds is None else round(cpu.expected_tokens_per_second(speeds, dtype, int8=int8))
    return {
        "model": cached_cpu.model,
        "cores": cached_cpu.cores,
        "instructions": cached_cpu.instructions,
        "dtype": dtype,
        "quantization": "int8" if int8 else None,
        "expected_tokens_per_second": expected,
    }


def describe_cpu(*, measure: bool = False) -> str:
    """Describes the CPU in one line."""
    fields = cpu_as_data(measure=measure)
    precision = f"{fields['dtype']} with linear layers in int8" if fields["quantization"] else fields["dtype"]
    line = (
        f"{fields['model']}, {pluralize(fields['cores'], 'core')}, {fields['instructions']}: servers compute in "
        f"{precision}"
    )
    expected = fields["expected_tokens_per_second"]
    return line if expected is None else f"{line}, about {expected} tokens/s (135M model, 32 requests at once)"


CONNECT_TIMEOUT = 3.0


def connection_error(address: str) -> str:
    """Tries to connect to an address, without sending anything. Returns the error of the system, or an empty text."""
    import socket

    parts = urlsplit(address)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname or "", port), CONNECT_TIMEOUT).close()
    except OSError as error:
        return error.strerror or str(error)
    return ""

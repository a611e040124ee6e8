"""What `orchestra doctor` looks at: Python, packages, vLLM, weights, memory and disk, journal, project, servers."""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, TypeAlias

from orchestra.app.open_journal import reached, unmounted
from orchestra.cli.cpu_report import describe_cpu
from orchestra.cli.endpoints import unreachable
from orchestra.cli.output import size
from orchestra.core.errors import OrchestraError
from orchestra.core.settings import Settings, load_modules, looks_like_path
from orchestra.fleet.config import FleetConfig, read
from orchestra.fleet.secrets import lacking
from orchestra.fleet.supervisor.client import Supervision
from orchestra.fleet.supervisor.folders import Folders
from orchestra.fleet.supervisor.vllm_launch import closes_internal_ports, vllm_version
from orchestra.fleet.weights.weights import Pantry, find

State: TypeAlias = Literal["ok", "warning", "problem"]
DISK_WANTED = 2_000_000_000
MEMORY_WANTED = 4_500_000_000
"""Bytes: one laptop server takes about 3.7 GiB; the commands around it take the rest (SERVING)."""
IMPORT_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at; `type` is what to type where something is to be done."""

    what: str
    state: State
    says: str
    type: str = ""


def findings(settings: Settings, *, deep: bool = False) -> Iterator[Finding]:
    """Everything that is looked at, in an order in which it can be mended. `deep` also imports vLLM."""
    yield _python()
    yield from _extras()
    fleet = yield from _fleet(settings)
    if fleet is not None and fleet.local:
        yield _cpu(deep)
        yield from _vllm(deep)
        yield from _weights(settings, fleet)
        yield _memory()
    yield _disk(Folders.of().cache)
    yield _journal(settings)
    yield _modules(settings)
    if fleet is not None:
        yield from _servers(fleet)
        yield from _endpoints(fleet)


def _python() -> Finding:
    here = f"{platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} CPUs"
    return (
        Finding("Python", "ok", here) if sys.version_info >= (3, 11) else Finding("Python", "problem", f"{here}; 3.11 or later is needed")
    )


def _cpu(deep: bool) -> Finding:
    said = describe_cpu(measure=deep)
    return Finding("CPU", "ok", said if "tokens/s" in said else f"{said}; --deep measures its speed")


EXTRAS = (
    ("search", "bm25s", "the tool `search`"),
    ("classical", "numpy", "classical agents"),
    ("encoder", "tokenizers", "agents that stand on an encoder"),
)
"""What may be installed beside the library, a module of it, and what needs it."""


def _extras() -> Iterator[Finding]:
    for extra, module, use in EXTRAS:
        if _there(module):
            yield Finding(extra, "ok", f"{module} {_version(module)}")
        else:
            yield Finding(extra, "warning", f"{module} is not installed, and wanted for {use}", f"pip install 'orchestra-slm[{extra}]'")


def _fleet(settings: Settings) -> Generator[Finding, None, FleetConfig | None]:
    try:
        fleet = read(path := settings.find_resource("configs", settings.fleet))
    except OrchestraError as error:
        yield Finding(
            "fleet file",
            "problem",
            error.message,
            f"orchestra validate {settings.fleet}" if looks_like_path(settings.fleet) else f"# {error.hint}",
        )
        return None
    source = settings.sources.get("fleet", "default")
    yield Finding("fleet file", "ok", f"{fleet.name}: {path}, chosen by {source}")
    return fleet


def _vllm(deep: bool) -> Iterator[Finding]:
    if platform.system() != "Linux":
        yield Finding("vLLM", "problem", "local servers run on Linux only", "orchestra run --fleet endpoint …")
        return
    try:
        yield Finding("vLLM", "ok", vllm_version())
    except OrchestraError as error:
        yield Finding("vLLM", "problem", error.message, error.hint)
        if error.code == "F001":
            return
    yield from _torch()
    if deep:
        yield _import_vllm()


def _torch() -> Iterator[Finding]:
    torch = _version("torch")
    yield Finding("torch", "ok" if torch else "problem", torch or "not installed", "" if torch else "pip install 'orchestra-slm[cpu]'")
    if "+cpu" not in torch:
        return
    # pip takes CUDA builds of these beside a CPU torch, and then `transformers` fails at import (SERVING).
    trap = [name for name in ("torchaudio", "torchcodec") if (found := _version(name)) and "+cpu" not in found]
    if trap:
        says = f"{' and '.join(trap)} beside the CPU build of torch make transformers fail at import; nothing here needs them"
        yield Finding("torch", "problem", says, f"pip uninstall -y {' '.join(trap)}")


def _import_vllm() -> Finding:
    command = [sys.executable, "-P", "-c", "import vllm, transformers"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=IMPORT_SECONDS, check=False)  # noqa: S603 - a constant command
    except subprocess.TimeoutExpired:
        return Finding("vLLM", "problem", f"`import vllm` takes more than {IMPORT_SECONDS:.0f} s")
    if done.returncode == 0:
        return Finding("vLLM", "ok", "imports")
    last = (done.stderr.strip().splitlines() or ["no output"])[-1]
    return Finding("vLLM", "problem", f"`import vllm` fails: {last}", f"{Path(sys.executable).name} -c 'import vllm'")


def _weights(settings: Settings, fleet: FleetConfig) -> Iterator[Finding]:
    pantry = Pantry.of(hub=settings.hub)
    for name, server in fleet.local.items():
        if folder := find(server.weights, pantry):
            yield Finding("weights", "ok", f"{server.model}: {folder}")
            continue
        sources = pantry.sources(server.weights)
        if sources:
            wanted = size(getattr(sources[0], "download_bytes", 0))
            yield Finding(
                "weights", "warning", f"{server.model} of the server {name} is not here yet: {wanted} to fetch", "orchestra fleet start"
            )
        else:
            says = f"{server.model} of the server {name} comes from the hub only, which is not allowed"
            yield Finding("weights", "problem", says, "export ORCHESTRA_HUB=1")


def _memory() -> Finding:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return Finding("memory", "warning", "cannot be read here")
    fields = dict(line.split(":", 1) for line in lines)
    free = int(fields["MemAvailable"].split()[0]) * 1024
    if free < MEMORY_WANTED:
        return Finding("memory", "warning", f"{size(free)} free; one local server wants {size(MEMORY_WANTED)}, unless it runs already")
    return Finding("memory", "ok", f"{size(free)} free")


def _disk(cache: Path) -> Finding:
    folder = next(place for place in (cache, *cache.parents) if place.exists())
    free = shutil.disk_usage(folder).free
    if free < DISK_WANTED:
        return Finding("disk", "warning", f"{size(free)} free at {folder}; weights want {size(DISK_WANTED)}", "export XDG_CACHE_HOME=…")
    return Finding("disk", "ok", f"{size(free)} free at {folder}")


def _journal(settings: Settings) -> Finding:
    place = settings.journal
    if error := settings.untrusted("journal"):
        return Finding("journal", "problem", f"{error.message}: {error.why}", f"orchestra trust {settings.project}")
    if place == "off":
        return Finding("journal", "warning", "off: runs cannot be shown afterwards")
    if not isinstance(place, Path):
        try:
            where = asyncio.run(reached(place))
        except OrchestraError as error:
            why = f": {error.why}" if error.why else ""
            return Finding("journal", "problem", f"{error.message}{why}", _typed(error))
        return Finding("journal", "ok", f"{where} takes connections, by asyncpg {_version('asyncpg')}")
    if (lacking := unmounted(settings)) is not None:
        return Finding("journal", "problem", f"{lacking} is not there; is its disk mounted?", f"mkdir -p {lacking}")
    nearest = next(folder for folder in (place, *place.parents) if folder.exists())
    if nearest.is_dir() and place.exists():
        return Finding("journal", "problem", f"{place} is a folder", "export ORCHESTRA_JOURNAL=…/journal.db")
    if not nearest.is_dir() and nearest != place:
        return Finding("journal", "problem", f"{nearest} is no folder, so {place} cannot be made", "export ORCHESTRA_JOURNAL=…/journal.db")
    if not os.access(nearest, os.W_OK):
        return Finding("journal", "problem", f"{place} cannot be written", f"ls -ld {nearest}")
    return Finding("journal", "ok", f"{place}" + ("" if place.exists() else ", made by the first run"))


def _modules(settings: Settings) -> Finding:
    if error := settings.untrusted("modules"):
        return Finding("modules", "problem", f"{error.message}: {error.why}", f"orchestra trust {settings.project}")
    try:
        loaded = load_modules(settings)
    except OrchestraError as error:
        return Finding("modules", "problem", error.message, error.hint and f"# {error.hint}")
    names = ", ".join(module.__name__ for module in loaded)
    project = f"project {settings.project}" if settings.project else "no project here"
    return Finding("modules", "ok", f"{names or 'none'}; {project}")


def _servers(fleet: FleetConfig) -> Iterator[Finding]:
    if not fleet.local:
        return
    if open_ := [name for name, server in fleet.local.items() if not closes_internal_ports(server)]:
        said = f"users of this machine can connect to internal ports of {', '.join(open_)}, and use up their descriptors"
        yield Finding("ports", "warning", said, "# docs/how-to/fleet.md: who may ask the servers")
    try:
        status = asyncio.run(Supervision(fleet, Folders.of()).status())
    except OrchestraError as error:
        yield Finding("servers", "problem", error.message, "orchestra fleet logs")
        return
    if status is None:
        yield Finding("servers", "ok", "not running; the first run starts them, or: orchestra fleet start")
    for server in status.servers if status else ():
        state: State = "problem" if server.phase == "failed" else "ok"
        yield Finding(server.name, state, f"{server.phase}, {server.model}", "orchestra fleet logs" if state == "problem" else "")


def _endpoints(fleet: FleetConfig) -> Iterator[Finding]:
    for name, server in fleet.servers.items():
        address = getattr(server, "endpoint", None)
        if address is None:
            continue
        if error := lacking(server):
            yield Finding(name, "problem", error.message, _typed(error))
        if why := unreachable(address):
            yield Finding(name, "problem", f"{address} cannot be reached: {why}", f"curl {address}/models")
        else:
            yield Finding(name, "ok", f"{address} takes connections")


def _typed(error: OrchestraError) -> str:
    """The hint of an error as something to type: a command, or a comment."""
    return error.hint if error.hint.startswith(("export ", "pip ")) else f"# {error.hint}"


def _there(module: str) -> bool:
    return find_spec(module) is not None


def _version(*distributions: str) -> str:
    for name in distributions:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return ""

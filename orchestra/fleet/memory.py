"""Whether a model fits in the memory of this machine, before its weights are downloaded and before its server starts.

The estimate is a lower bound (weights and key-value cache, without the process itself), so a model that is refused
would not have run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestra.core.errors import FleetError
from orchestra.fleet.config import FolderSource, LocalServer
from orchestra.fleet.weights.weights import ModelStore, find_weights

PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")
FLOAT32_RATIO, INT8_RATIO = 2.0, 0.5
"""Bytes in memory per byte of 16-bit weights."""
PROCESS_BYTES = int(2.4 * (1 << 30))
"""Memory of a vLLM 0.32 server without weights and key-value cache. SmolLM2-135M in bfloat16 takes 3.7 GiB, with 0.25
GiB of weights and 1 GiB of cache (docs/how-to/larger-models.md).
"""


@dataclass(frozen=True, slots=True)
class AvailableMemory:
    """Memory that a new process can use, and what limits it."""

    bytes: int
    limit: str


def available_memory(proc: Path = PROC, cgroups: Path = CGROUPS) -> AvailableMemory | None:
    """Returns the least of the machine's available memory and the rests of the cgroup limits; None if unknown.

    Page cache of a cgroup counts as available, because the kernel frees it first.
    """
    limits = [AvailableMemory(rest, "the limit of the container or cgroup") for rest in _cgroup_rests(proc, cgroups)]
    for line in _read_lines(proc / "meminfo"):
        if line.startswith("MemAvailable:"):
            limits.append(AvailableMemory(int(line.split()[1]) * 1024, "the memory of the machine"))
    return min(limits, key=lambda memory: memory.bytes, default=None)


def _cgroup_rests(proc: Path, cgroups: Path) -> Iterator[int]:
    """Yields the free bytes of each memory limit (cgroup v2) of this process and its parents."""
    place = next((line[3:] for line in _read_lines(proc / "self" / "cgroup") if line.startswith("0::")), "/")
    path = cgroups / place.lstrip("/")
    for folder in (path, *path.parents):
        if not folder.is_relative_to(cgroups):
            break
        limit, lines = _read_lines(folder / "memory.max"), _read_lines(folder / "memory.current")
        if limit and lines and limit[0].isdecimal() and lines[0].isdecimal():
            stat = dict(line.split() for line in _read_lines(folder / "memory.stat"))
            yield max(0, int(limit[0]) - int(lines[0]) + int(stat.get("inactive_file", 0)))


def _read_lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return []


def weights_bytes(server: LocalServer, model_store: ModelStore) -> int:
    """Returns the bytes of a server's weights: of the installed files, else as the fleet file states them; 0 if
    unknown.
    """
    if (folder := find_weights(server.weights, model_store)) is not None:
        return sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    sources = [source for source in model_store.sources(server.weights) if not isinstance(source, FolderSource)]
    return sources[0].disk_bytes if sources else 0


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """The least memory of a CPU server."""

    weights: int
    cache: int
    kind: str
    """The data type of the weights, as text."""

    @property
    def bytes(self) -> int:
        """The sum, without the process itself."""
        return self.weights + self.cache


def memory_need(server: LocalServer, model_store: ModelStore) -> MemoryNeed | None:
    """Returns the least memory of a server; None on a GPU, whose memory is not known here."""
    if server.device != "cpu":
        return None
    ratio, kind = 1.0, "16-bit"
    if server.quantization in ("int8", "auto"):
        ratio, kind = INT8_RATIO, "int8"
    elif server.dtype == "float32":
        ratio, kind = FLOAT32_RATIO, "float32"
    return MemoryNeed(int(weights_bytes(server, model_store) * ratio), server.kv_cache_gib << 30, kind)


def check_memory(name: str, server: LocalServer, model_store: ModelStore, memory: AvailableMemory | None) -> None:
    """Refuses a CPU server whose weights and key-value cache do not fit. The memory of a GPU is not known here.

    Raises:
        FleetError: F224.
    """
    need = memory_need(server, model_store)
    if memory is None or need is None or need.bytes <= memory.bytes:
        return
    raise FleetError(
        "F224",
        f"{name} needs at least {gigabytes(need.bytes)}: {gigabytes(need.weights)} for {need.kind} weights of "
        f"{server.model} and {gigabytes(need.cache)} for its key-value cache; {gigabytes(memory.bytes)} are available "
        f"({memory.limit})",
        hint="close other programs, lower kv_cache_gib, or use a smaller model or quantization: int8",
    )


def gigabytes(size: int) -> str:
    """Formats a number of bytes as gigabytes."""
    return f"{size / 1e9:.1f} GB"

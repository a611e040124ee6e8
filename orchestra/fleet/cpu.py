"""The CPU of this machine, and the data type that a server, a training or an encoder uses on it by default.

A CPU without instructions for bfloat16 (AVX512-BF16, AMX; on ARM `bf16`) emulates it, several times slower than
float32. The type follows the CPU's flags and a small timed matrix product. The product decides, because flags do not
describe the speed of a virtual machine. The times are stored in the user's cache per CPU, version of PyTorch and
instruction limit.

`ONEDNN_MAX_CPU_ISA` limits the instructions of oneDNN. This module obeys it too, so `ONEDNN_MAX_CPU_ISA=AVX2` makes any
machine compute like one that has AVX2 only.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec

from orchestra.core.atomic_files import write_file
from orchestra.fleet.config import LocalServer
from orchestra.schema.strict_json import canonical, digest

Dtype: TypeAlias = Literal["bfloat16", "float32"]
CPUINFO = Path("/proc/cpuinfo")
TOPOLOGY = Path("/sys/devices/system/cpu")
"""Linux's folder of the processors that share a core."""
ISA_VARIABLE = "ONEDNN_MAX_CPU_ISA"
INSTRUCTIONS: Mapping[str, str] = {
    "avx2": "AVX2",
    "avx_vnni": "AVX-VNNI",
    "avx512f": "AVX-512",
    "avx512_vnni": "AVX512-VNNI",
    "avx512_bf16": "AVX512-BF16",
    "amx_bf16": "AMX",
    "asimd": "NEON",
    "bf16": "BF16",
}
"""Flags of /proc/cpuinfo to the names of instructions."""
NATIVE_BFLOAT16 = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
ISA_FLAGS: Mapping[str, frozenset[str]] = {
    "SSE41": frozenset(),
    "AVX": frozenset(),
    "AVX2": frozenset({"avx2"}),
    "AVX2_VNNI": frozenset({"avx2", "avx_vnni"}),
    "AVX512_CORE": frozenset({"avx2", "avx512f"}),
    "AVX512_CORE_VNNI": frozenset({"avx2", "avx512f", "avx512_vnni"}),
    "AVX512_CORE_BF16": frozenset({"avx2", "avx512f", "avx512_vnni", "avx512_bf16"}),
}
"""The flags that each value of `ONEDNN_MAX_CPU_ISA` keeps (oneDNN, CPU dispatcher control). Other values limit nothing
here.
"""
OVERRIDE_RATIO = 1.5
"""The speed ratio of the timed products from which on they override the flags."""
MEASURE_TIMEOUT = 120.0
"""Timeout of the timed products in seconds. The import of PyTorch takes most of it."""
FLOPS_PER_TOKEN = 2 * 134.5e6
"""Multiplications and additions of the packaged model for one token."""
STEP_SECONDS = 0.060
PACKED_BFLOAT16_SPEEDUP = 3.0
INT8_SPEEDUP = 3.0


@dataclass(frozen=True, slots=True)
class Cpu:
    """The CPU of a machine."""

    model: str
    flags: frozenset[str]
    """Those of `INSTRUCTIONS` that the CPU has and no limit removes."""
    cores: int
    """Physical cores that this process may use."""

    @property
    def native_bfloat16(self) -> bool:
        """Whether the CPU has instructions for products of bfloat16."""
        return not NATIVE_BFLOAT16.isdisjoint(self.flags)

    @property
    def instructions(self) -> str:
        """The names of the vector instructions, for messages."""
        return (
            ", ".join(name for flag, name in INSTRUCTIONS.items() if flag in self.flags)
            or "no known vector instructions"
        )


class MatmulSpeeds(msgspec.Struct, frozen=True):
    """Results of the timed products on one core, in billions of floating point operations per second."""

    bfloat16: float
    float32: float


def read_cpu(cpuinfo: Path | None = None, environment: Mapping[str, str] = os.environ) -> Cpu:
    """Returns the CPU of this machine, or that of another file in the format of /proc/cpuinfo. It has no flags if Linux
    lists none.
    """
    model, flags = platform.processor() or platform.machine(), frozenset[str]()
    try:
        lines = (cpuinfo or CPUINFO).read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        name, _, value = (part.strip() for part in line.partition(":"))
        if name == "model name":
            model = value
        elif name in ("flags", "Features"):
            flags = frozenset(value.split()) & INSTRUCTIONS.keys()
            break
    allowed_flags = ISA_FLAGS.get(environment.get(ISA_VARIABLE, "").upper(), flags)
    return Cpu(model, flags & allowed_flags, core_count())


def core_count(topology: Path = TOPOLOGY) -> int:
    """Returns the number of physical cores that this process may use. Processors that share a core count once, if Linux
    states it.
    """
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    return len(
        {_core_siblings(topology / f"cpu{number}" / "topology" / "thread_siblings_list", number) for number in usable}
    )


def _core_siblings(file: Path, number: int) -> str:
    """Returns the processors of one core in Linux's notation; the processor itself if Linux does not state them."""
    try:
        return file.read_text("ascii").strip()
    except OSError:
        return str(number)


def choose_dtype(cpu: Cpu, speeds: MatmulSpeeds | None = None) -> Dtype:
    """Returns the faster data type: that of the flags, unless the timed products clearly contradict it."""
    by_flags: Dtype = "bfloat16" if cpu.native_bfloat16 else "float32"
    if speeds is None:
        return by_flags
    if speeds.bfloat16 >= OVERRIDE_RATIO * speeds.float32:
        return "bfloat16"
    return "float32" if speeds.float32 >= OVERRIDE_RATIO * speeds.bfloat16 else by_flags


def default_dtype(cache: Path) -> Dtype:
    """Returns the data type of this machine. Uses cached speeds, and measures nothing."""
    cpu = read_cpu()
    return choose_dtype(cpu, cached_speeds(cpu, cache))


def resolve_auto(server: LocalServer, cache: Path) -> LocalServer:
    """Returns the server with `dtype: auto` and `quantization: auto` resolved if it is a CPU server; else the server
    itself.

    8-bit products are for CPUs without bfloat16: they gain little compared with bfloat16 instructions.
    """
    if server.device != "cpu":
        return server.model_copy(update={"quantization": None}) if server.quantization == "auto" else server
    by_default = "float32" if server.quantization == "int8" else default_dtype(cache)
    dtype = by_default if server.dtype == "auto" else server.dtype
    quantization = default_quantization(read_cpu(), dtype) if server.quantization == "auto" else server.quantization
    return server.model_copy(update={"dtype": dtype, "quantization": quantization})


def default_quantization(cpu: Cpu, dtype: str) -> Literal["int8"] | None:
    """Returns the meaning of `quantization: auto` for a data type. FBGEMM needs AVX2."""
    return "int8" if dtype == "float32" and "avx2" in cpu.flags else None


def isa_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Returns variables that limit PyTorch's libraries to AVX2 if `ONEDNN_MAX_CPU_ISA` does. Only oneDNN reads that
    variable itself.
    """
    if not environment.get(ISA_VARIABLE, "").upper().startswith("AVX2"):
        return {}
    return {"ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2", "FBGEMM_ENABLE_INSTRUCTIONS": "AVX2"}


def cached_speeds(cpu: Cpu, cache: Path) -> MatmulSpeeds | None:
    """Returns the cached speeds of this machine; None if there are none or the file is damaged."""
    try:
        return msgspec.json.decode(_speeds_file(cpu, cache).read_bytes(), type=MatmulSpeeds)
    except (OSError, msgspec.MsgspecError):
        return None


def measure_speeds(cpu: Cpu, cache: Path) -> MatmulSpeeds | None:
    """Times products of both types in a child process and caches the result. Returns None if PyTorch is missing or the
    child fails.
    """
    command = [sys.executable, "-P", "-m", "orchestra.fleet.vllm_cpu.product_timing"]
    environment = {
        **os.environ,
        **isa_environment(os.environ),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    try:
        result = subprocess.run(  # noqa: S603 - a constant command
            command,
            capture_output=True,
            timeout=MEASURE_TIMEOUT,
            check=True,
            env=environment,
        )
        speeds = msgspec.json.decode(result.stdout, type=MatmulSpeeds)
        file = _speeds_file(cpu, cache)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_file(file, result.stdout)
    except (OSError, subprocess.SubprocessError, msgspec.MsgspecError):
        return None
    return speeds


def ensure_speeds(cache: Path) -> MatmulSpeeds | None:
    """Returns the speeds of this machine, and measures them if they are not cached. Returns None if that fails."""
    cpu = read_cpu()
    return cached_speeds(cpu, cache) or measure_speeds(cpu, cache)


def expected_tokens_per_second(speeds: MatmulSpeeds, dtype: Dtype, *, int8: bool) -> float:
    """Estimates the output tokens per second of the packaged model of 135 million parameters with 32 requests at once.

    A step costs its products and `STEP_SECONDS` for the rest. The constants are fitted to the measurements in
    docs/how-to/fleet.md. The timed products are PyTorch's own, and its bfloat16 products are slower than the packed
    ones of a server.

    Args:
        speeds: The timed products.
        dtype: The data type of the server.
        int8: Whether its linear layers are in 8 bits.

    Returns:
        Output tokens per second.
    """
    faster = PACKED_BFLOAT16_SPEEDUP if dtype == "bfloat16" else INT8_SPEEDUP if int8 else 1.0
    speed = faster * (speeds.bfloat16 if dtype == "bfloat16" else speeds.float32) * 1e9
    return 32 / (STEP_SECONDS + 32 * FLOPS_PER_TOKEN / speed)


def _speeds_file(cpu: Cpu, cache: Path) -> Path:
    """Returns the cache file of a CPU, its instruction limit and the version of PyTorch."""
    try:
        torch = version("torch")
    except PackageNotFoundError:
        torch = ""
    return cache / "cpu" / f"{digest(canonical([cpu.model, sorted(cpu.flags), torch]))[:16]}.json"

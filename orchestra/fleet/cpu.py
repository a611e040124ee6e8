"""What the CPU of this machine computes fast, and the data type that a server, a training or an encoder on it uses by default.

A CPU without instructions for bfloat16 (AVX512-BF16, AMX; on ARM `bf16`) emulates it, several times slower than float32. So the type
follows the CPU's flags, and a small timed matrix product, which has the last word: flags do not say how a virtual machine behaves.
The times are kept in the user's cache; they belong to one CPU, one version of PyTorch and one limit of instructions.

`ONEDNN_MAX_CPU_ISA` limits the instructions of oneDNN. It is obeyed here as well, so that `ONEDNN_MAX_CPU_ISA=AVX2` makes any machine
compute like one that has AVX2 only.
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
"""Where Linux says which processors share a core."""
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
"""Flags of /proc/cpuinfo that matter here, and the names of these instructions."""
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
"""What is left by each value of `ONEDNN_MAX_CPU_ISA` (oneDNN, CPU dispatcher control); any other value limits nothing here."""
OVERRIDE_RATIO = 1.5
"""How many times as fast the timed products must find a type, so that it is taken against the flags."""
MEASURE_TIMEOUT = 120.0
"""The longest that the timed products may take; PyTorch's import is most of it."""
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
    """Those of `INSTRUCTIONS` that it has and that no limit takes away."""
    cores: int
    """Physical cores that this process may use."""

    @property
    def native_bfloat16(self) -> bool:
        """Whether it has instructions for products of bfloat16."""
        return not NATIVE_BFLOAT16.isdisjoint(self.flags)

    @property
    def instructions(self) -> str:
        """The vector instructions by name, for a message."""
        return (
            ", ".join(name for flag, name in INSTRUCTIONS.items() if flag in self.flags)
            or "no vector instructions known here"
        )


class MatmulSpeeds(msgspec.Struct, frozen=True):
    """What timed products gave, in billions of floating point operations per second, on one core."""

    bfloat16: float
    float32: float


def read_cpu(cpuinfo: Path | None = None, environment: Mapping[str, str] = os.environ) -> Cpu:
    """The CPU of this machine; without flags where Linux does not list them in /proc/cpuinfo, or in another file of that format."""
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
    allowed = ISA_FLAGS.get(environment.get(ISA_VARIABLE, "").upper(), flags)
    return Cpu(model, flags & allowed, core_count())


def core_count(topology: Path = TOPOLOGY) -> int:
    """How many physical cores this process may use: processors that share one count once, where Linux says so."""
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    return len(
        {_core_siblings(topology / f"cpu{number}" / "topology" / "thread_siblings_list", number) for number in usable}
    )


def _core_siblings(file: Path, number: int) -> str:
    """The processors of one core, as Linux writes them; the processor alone where it says nothing."""
    try:
        return file.read_text("ascii").strip()
    except OSError:
        return str(number)


def choose_dtype(cpu: Cpu, speeds: MatmulSpeeds | None = None) -> Dtype:
    """The data type that computes fastest: what the flags say, unless the timed products clearly say the other."""
    by_flags: Dtype = "bfloat16" if cpu.native_bfloat16 else "float32"
    if speeds is None:
        return by_flags
    if speeds.bfloat16 >= OVERRIDE_RATIO * speeds.float32:
        return "bfloat16"
    return "float32" if speeds.float32 >= OVERRIDE_RATIO * speeds.bfloat16 else by_flags


def default_dtype(cache: Path) -> Dtype:
    """The data type of this machine. Nothing is measured: speeds are those in the cache, if they are there."""
    cpu = read_cpu()
    return choose_dtype(cpu, cached_speeds(cpu, cache))


def resolve_auto(server: LocalServer, cache: Path) -> LocalServer:
    """A server on a CPU with what `dtype: auto` and `quantization: auto` mean on this machine; any other one as it is.

    Products in 8 bits are for CPUs without bfloat16: beside bfloat16's own instructions they gain little.
    """
    if server.device != "cpu":
        return server.model_copy(update={"quantization": None}) if server.quantization == "auto" else server
    by_default = "float32" if server.quantization == "int8" else default_dtype(cache)
    dtype = by_default if server.dtype == "auto" else server.dtype
    quantization = default_quantization(read_cpu(), dtype) if server.quantization == "auto" else server.quantization
    return server.model_copy(update={"dtype": dtype, "quantization": quantization})


def default_quantization(cpu: Cpu, dtype: str) -> Literal["int8"] | None:
    """What `quantization: auto` means for a server that computes in this data type; FBGEMM needs AVX2."""
    return "int8" if dtype == "float32" and "avx2" in cpu.flags else None


def isa_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Variables that keep PyTorch's libraries to AVX2 where `ONEDNN_MAX_CPU_ISA` says so; only oneDNN reads that one itself."""
    if not environment.get(ISA_VARIABLE, "").upper().startswith("AVX2"):
        return {}
    return {"ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2", "FBGEMM_ENABLE_INSTRUCTIONS": "AVX2"}


def cached_speeds(cpu: Cpu, cache: Path) -> MatmulSpeeds | None:
    """The speeds that were measured on this machine before; None where there are none, or the file is damaged."""
    try:
        return msgspec.json.decode(_speeds_file(cpu, cache).read_bytes(), type=MatmulSpeeds)
    except (OSError, msgspec.MsgspecError):
        return None


def measure_speeds(cpu: Cpu, cache: Path) -> MatmulSpeeds | None:
    """Times products of both types in a child process, and keeps the result. None where PyTorch is missing or the child fails."""
    command = [sys.executable, "-P", "-m", "orchestra.fleet.vllm_cpu.product_timing"]
    environment = {
        **os.environ,
        **isa_environment(os.environ),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    try:
        done = subprocess.run(  # noqa: S603 - a constant command
            command,
            capture_output=True,
            timeout=MEASURE_TIMEOUT,
            check=True,
            env=environment,
        )
        speeds = msgspec.json.decode(done.stdout, type=MatmulSpeeds)
        file = _speeds_file(cpu, cache)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_file(file, done.stdout)
    except (OSError, subprocess.SubprocessError, msgspec.MsgspecError):
        return None
    return speeds


def ensure_speeds(cache: Path) -> MatmulSpeeds | None:
    """The speeds of this machine, measured if nobody has done so yet. None where that fails."""
    cpu = read_cpu()
    return cached_speeds(cpu, cache) or measure_speeds(cpu, cache)


def expected_tokens_per_second(speeds: MatmulSpeeds, dtype: Dtype, *, int8: bool) -> float:
    """A rough guess of the tokens that 32 requests at once get from the packaged model of 135 million parameters.

    A step costs its products and `STEP_SECONDS` for all else. The constants are fitted to the measurements in docs/fleet.md; PyTorch's
    own bfloat16 products, which are timed, are slower than the packed ones of a server.

    Args:
        speeds: What the timed products gave.
        dtype: What a server computes in.
        int8: Whether its linear layers are in 8 bits.

    Returns:
        Output tokens per second.
    """
    faster = PACKED_BFLOAT16_SPEEDUP if dtype == "bfloat16" else INT8_SPEEDUP if int8 else 1.0
    speed = faster * (speeds.bfloat16 if dtype == "bfloat16" else speeds.float32) * 1e9
    return 32 / (STEP_SECONDS + 32 * FLOPS_PER_TOKEN / speed)


def _speeds_file(cpu: Cpu, cache: Path) -> Path:
    """Speeds belong to one CPU, with or without limits, and to one version of PyTorch."""
    try:
        torch = version("torch")
    except PackageNotFoundError:
        torch = ""
    return cache / "cpu" / f"{digest(canonical([cpu.model, sorted(cpu.flags), torch]))[:16]}.json"

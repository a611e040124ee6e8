"""The start of vLLM: its command, its environment, and the diagnosis of its log after a failed start."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from orchestra.core.child_process import ProcessSpec
from orchestra.core.errors import FleetError
from orchestra.fleet import cpu
from orchestra.fleet.config import LocalServer
from orchestra.fleet.supervisor.auth_middleware import MIDDLEWARE
from orchestra.fleet.vllm_cpu import plugin
from orchestra.fleet.weights import weights

MIN_VERSION = (0, 18)
"""Before 0.18 there were three ways around `trust_remote_code=False` (SERVING.md)."""
LOOPBACK = "127.0.0.1"
WORKER_CLASS = "orchestra.fleet.vllm_cpu.worker.SeededWorker"
"""vLLM's worker for CPUs with corrections, for versions whose source was read."""
PASSED_VARIABLES = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "VIRTUAL_ENV",
    "XDG_CACHE_HOME",
    cpu.ISA_VARIABLE,
)
"""Variables of the user's environment that a server gets; no secrets. GPU servers also get `GPU_PREFIXES`."""
GPU_PREFIXES = ("CUDA_", "NVIDIA_", "HIP_", "ROCR_")
KV_BLOCK_TOKENS = 32
"""Tokens per block of a CPU server's prefix cache. vLLM 0.32 defaults to 128, more than most agents' instructions have,
so nothing of them is cached. Its kernels need 32, which is as fast.
"""
PROMPT_LOOKUP_RANGE = (1, 4)
"""The least and most tokens that must match an earlier place of the request, for the tokens after it to be proposed."""
QUANTIZATION_KEY, THREADS_KEY = "orchestra_quantization", "orchestra_threads"
"""Keys of our worker in vLLM's `--additional-config`."""

MEMORY_HINT = "close other programs, or lower kv_cache_gib, max_model_len or gpu_memory_utilization"
ENGINE_DEATHS = ("EngineDeadError", "Engine core proc", "died unexpectedly")
"""Parts of the lines that vLLM's API server writes when its engine process has ended."""
START_PHASES = {
    "Starting vLLM server": "opening its port",
    "init engine": "opening its port",
    "KV cache size": "warming up",
    "Capturing CUDA graphs": "warming up",
    "Dynamo bytecode transform": "compiling",
    "Loading weights took": "preparing the model",
    "Loading safetensors": "loading weights",
    "Starting to load model": "loading weights",
    "Initializing a V1 LLM engine": "starting the engine",
    "Resolved architecture": "reading the configuration",
}
"""Parts of lines of vLLM 0.32 to the phase of a start that begins with them."""


def vllm_version() -> str:
    """Returns the version of the installed vLLM. Raises `FleetError` F001 (none) or F009 (too old)."""
    for name in ("vllm", "vllm-cpu"):
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        parts = tuple(int(part) for part in version.split("+")[0].split(".")[:2] if part.isdigit())
        if parts < MIN_VERSION:
            raise FleetError(
                "F009",
                f"vLLM {version} is too old to be safe",
                hint="pip install --upgrade 'orchestra-slm[cpu]'   # or [gpu]",
            )
        return version
    raise FleetError(
        "F001",
        f"vLLM is not installed for {sys.executable}",
        hint="pip install 'orchestra-slm[cpu]'   # or [gpu]; or use a server that runs already: --endpoint URL",
    )


def build_launch(
    server: LocalServer, folder: Path, port: int, environment: Mapping[str, str] = os.environ
) -> ProcessSpec:
    """Returns the command and environment of one server. It serves only after it was given a `key`.

    On a CPU, `auto` settings are resolved before (`orchestra.fleet.cpu.resolve_auto`).

    Args:
        server: The configuration of the server.
        folder: The folder of the weights.
        port: The port of the loopback interface.
        environment: The user's environment.
    """
    return ProcessSpec(
        (sys.executable, "-P", "-m", "vllm.entrypoints.openai.api_server", *vllm_arguments(server, folder, port)),
        _environment(server, environment),
        weights.quick_digest(folder),
        plugin.spare_slots() if server.device == "cpu" and server.max_loras else 0,
        server.dtype
        if server.quantization == "int8" and not _is_single_process(server)
        else server.quantization or server.dtype,
    )


def vllm_arguments(server: LocalServer, folder: Path, port: int) -> list[str]:
    """Returns the arguments of vLLM's server, as of vLLM 0.32."""
    arguments: list[str] = []
    for flag, value in {
        "--model": folder,
        "--served-model-name": server.model,
        "--host": LOOPBACK,
        "--port": port,
        "--middleware": MIDDLEWARE,
        "--dtype": server.dtype,
        "--max-model-len": server.max_model_len,
        "--max-num-seqs": server.max_num_seqs,
        "--generation-config": "vllm",  # sampling comes from cards, never from a file beside the weights
        "--load-format": "safetensors",
        "--scheduling-policy": server.scheduling,
        "--structured-outputs-config": json.dumps({"backend": server.structured_outputs}),
        "--tensor-parallel-size": server.tensor_parallel_size if server.tensor_parallel_size > 1 else None,
        "--gpu-memory-utilization": server.gpu_memory_utilization,
        "--block-size": KV_BLOCK_TOKENS if server.device == "cpu" else None,
        "--quantization": None if server.quantization == "int8" else server.quantization,
        "--kv-cache-dtype": server.kv_cache_dtype if server.kv_cache_dtype != "auto" else None,
        **(
            _worker_arguments(server)
            if server.device == "cpu" and plugin.installed_version() in plugin.KNOWN_VERSIONS
            else {}
        ),
        **(_lora_arguments(server) if server.max_loras else {}),
    }.items():
        arguments += [flag, str(value)] if value is not None else []
    arguments.append("--enable-prefix-caching" if server.prefix_caching else "--no-enable-prefix-caching")
    arguments += ["--enable-prompt-tokens-details", "--disable-uvicorn-access-log"]
    arguments += ["--enable-lora"] if server.max_loras else []
    arguments += ["--enforce-eager"] if server.enforce_eager else []
    return arguments


def closes_internal_ports(server: LocalServer) -> bool:
    """Whether vLLM's internal ports are closed to connections (`orchestra.fleet.vllm_cpu.socket_filter`).

    Our worker closes them. Servers on a GPU and other versions of vLLM do not use it, and several workers need the
    ports.
    """
    closes_ports = (
        server.device == "cpu"
        and plugin.installed_version() in plugin.KNOWN_VERSIONS
        and server.tensor_parallel_size == 1
    )
    return closes_ports and sys.platform == "linux"


def _lora_arguments(server: LocalServer) -> dict[str, int | None]:
    return {
        "--max-loras": server.max_loras,
        "--max-lora-rank": server.max_lora_rank,
        "--max-cpu-loras": server.max_cpu_loras,
    }


def _worker_arguments(server: LocalServer) -> dict[str, str | None]:
    """Returns the arguments for our worker, and for speculation without a second model.

    Drafts come from the request itself (prompt lookup, Saxena 2023) and from the n-gram cache
    (`orchestra.fleet.vllm_cpu.ngram_cache`). There is no speculation without our worker, because scoring a request with
    drafts crashes vLLM's own.
    """
    guesses = {
        "method": "ngram",
        "num_speculative_tokens": server.speculative_tokens,
        "prompt_lookup_min": PROMPT_LOOKUP_RANGE[0],
        "prompt_lookup_max": PROMPT_LOOKUP_RANGE[1],
    }
    options = (
        {QUANTIZATION_KEY: server.quantization or "", THREADS_KEY: cpu.core_count(cpu.TOPOLOGY)}
        if _is_single_process(server)
        else {}
    )
    return {
        "--worker-cls": WORKER_CLASS,
        "--speculative-config": json.dumps(guesses) if server.speculative_tokens else None,
        "--additional-config": json.dumps(options) if options else None,
    }


def _environment(server: LocalServer, environment: Mapping[str, str]) -> dict[str, str]:
    passed_variables = {name: environment[name] for name in PASSED_VARIABLES if name in environment}
    if server.device == "gpu":
        passed_variables |= {name: value for name, value in environment.items() if name.startswith(GPU_PREFIXES)}
    else:
        passed_variables |= (
            {"VLLM_CPU_KVCACHE_SPACE": str(server.kv_cache_gib)}
            | _thread_environment(server)
            | cpu.isa_environment(environment)
        )
    path = [Path(__file__).parents[3]]
    if server.device == "cpu" and cpu.isa_environment(environment):
        path.append(Path(__file__).parents[1] / "vllm_cpu" / "isa")
    return passed_variables | {
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "GLOO_SOCKET_IFNAME": "lo",  # else gloo listens on the interface of the host's name, which may be the network
        "DO_NOT_TRACK": "1",
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True" if server.max_loras else "False",
        "VLLM_PLUGINS": plugin.PLUGIN_NAME
        if server.device == "cpu"
        else "",  # only these: other installed plugins are not loaded
        "PYTHONPATH": os.pathsep.join(map(str, path)),  # our modules come from this installation
        "PYTHONUNBUFFERED": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


def _is_single_process(server: LocalServer) -> bool:
    """Whether a CPU server computes in the scheduler's process, and may use all cores there.

    vLLM 0.32 by default computes in another process, and keeps a core for the scheduler, which polls
    (docs/decisions/036). In float32 the number of threads depends on what other programs leave
    (`orchestra.fleet.vllm_cpu.thread_policy`).
    """
    is_known_version = plugin.installed_version() in plugin.KNOWN_VERSIONS
    return (
        is_known_version
        and server.device == "cpu"
        and server.tensor_parallel_size == 1
        and (server.dedicated or server.dtype == "float32")
    )


def _thread_environment(server: LocalServer) -> dict[str, str]:
    """Returns the variables of OpenMP's threads. Float32 starts with one, because the engine is forked; the worker adds
    more.
    """
    if not _is_single_process(server):
        return {}
    return {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "OMP_NUM_THREADS": "1" if server.dtype == "float32" else str(cpu.core_count(cpu.TOPOLOGY)),
    }


def choose_port(wanted: int | None) -> int:
    """Returns a free port of the loopback. Raises `FleetError` F002 if the requested port is in use."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, wanted or 0))
        except OSError as error:
            hint = f"end what listens there (`ss -ltnp 'sport = :{wanted}'`), or leave `port:` out of the fleet file"
            raise FleetError("F002", f"port {wanted} is taken", hint=hint) from error
        return int(probe.getsockname()[1])


def diagnose(lines: Sequence[str], status: int | None) -> FleetError:
    """Returns the reason of a failed start, from the last lines of the log and the exit status."""
    text = "\n".join(lines)
    reason = "\n   ".join(lines[-8:])
    if "Address already in use" in text or "address already in use" in text:
        return FleetError(
            "F002",
            "its port was taken while it started",
            why=reason,
            hint="orchestra fleet start   # another port is tried",
        )
    if "No space left on device" in text:
        return FleetError("F004", "the disk is full", why=reason, hint="free some space, then `orchestra fleet start`")
    if "No module named 'vllm'" in text:
        return FleetError(
            "F001",
            f"vLLM is not installed for {sys.executable}",
            why=reason,
            hint="pip install 'orchestra-slm[cpu]'   # or [gpu]",
        )
    if "out of memory" in text.lower() or "Cannot allocate memory" in text or status == -9:
        return FleetError(
            "F005",
            "vLLM did not start: not enough memory",
            why=reason,
            hint=MEMORY_HINT,
        )
    if "KV cache" in text and "larger than" in text:
        return FleetError(
            "F005",
            "vLLM did not start: the key-value cache is too small",
            why=reason,
            hint="raise kv_cache_gib, or lower max_model_len",
        )
    end_text = "it took too long" if status is None else f"it ended with status {status}"
    return FleetError(
        "F005", f"vLLM did not start: {end_text}", why=reason, hint="orchestra fleet logs   # shows its complete log"
    )


def diagnose_end(lines: Sequence[str], status: int) -> FleetError:
    """Returns why a server that had been ready ended, from its exit status and the last lines of its log."""
    reason = "\n   ".join(lines[-8:])
    if status == -signal.SIGKILL:
        return FleetError(
            "F223", "the kernel ended the server (signal 9, out of memory?)", why=reason, hint=MEMORY_HINT
        )
    if any(text in line for line in lines for text in ENGINE_DEATHS):
        return FleetError(
            "F223", f"vLLM's engine process died (out of memory?), and the server ended with status {status}",
            why=reason, hint=MEMORY_HINT,
        )  # fmt: skip
    how = f"signal {-status}" if status < 0 else f"status {status}"
    return FleetError("F223", f"the server ended with {how}", why=reason, hint="orchestra fleet logs")


def start_phase(lines: Sequence[str]) -> str:
    """Returns what a starting server does, by the last known line of its log; empty if none is known."""
    for line in reversed(lines):
        for part, phase in START_PHASES.items():
            if part in line:
                return phase
    return ""

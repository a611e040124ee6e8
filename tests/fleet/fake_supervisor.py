"""The real supervisor with short times and `fake_vllm.py` instead of vLLM. It is run by its path, like the real one."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from orchestra.core.child_process import ProcessSpec
from orchestra.fleet.config import LocalServer
from orchestra.fleet.memory import AvailableMemory
from orchestra.fleet.supervisor.main import serve
from orchestra.fleet.supervisor.server import Timing
from orchestra.fleet.weights import weights

SERVER = str(Path(__file__).with_name("fake_vllm.py"))
TIMING = Timing(
    start_timeout=10,
    poll_interval=0.1,
    stall_timeout=1.0,
    failure_timeout=1.0,
    initial_backoff=0.05,
    max_backoff=0.2,
    backoff_reset=5,
    grace_period=2,
    memory_wait=3.0,
    least_idle=0.4,
    idle_check_timeout=1.0,
)


ENOUGH = AvailableMemory(1 << 40, "the memory of the machine")
"""The memory of the machine does not decide a test."""


def launcher(server: LocalServer, port: int) -> ProcessSpec:
    """Reports a spare slot for the server of the model `stock`."""
    command, environment = (sys.executable, "-I", SERVER, server.model, str(port)), {"PATH": os.environ.get("PATH", "")}
    folder = weights.find_weights(server.weights, weights.ModelStore())
    return ProcessSpec(
        command, environment, weights.quick_digest(folder) if folder else "", int(server.model == "stock")
    )


if __name__ == "__main__":
    if os.fork():
        os._exit(0)
    os.setsid()
    sys.exit(serve(Path(sys.argv[1]), launcher, TIMING, lambda: ENOUGH))

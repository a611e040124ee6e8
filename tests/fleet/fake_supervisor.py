"""The real supervisor, with short times and `fake_vllm.py` in the place of vLLM; run by its path, as the real one is started."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from orchestra.core.child_process import Launch
from orchestra.fleet.config import LocalServer
from orchestra.fleet.supervisor.main import serve
from orchestra.fleet.supervisor.server import Timing
from orchestra.fleet.weights import weights

SERVER = str(Path(__file__).with_name("fake_vllm.py"))
TIMING = Timing(start=10, poll=0.1, answer=0.5, stall=1.0, first_pause=0.05, longest_pause=0.2, steady=5, grace=2)


def launcher(server: LocalServer, port: int) -> Launch:
    """A server whose model is named `stock` needs a slot that stays free."""
    command, environment = (sys.executable, "-I", SERVER, server.model, str(port)), {"PATH": os.environ.get("PATH", "")}
    folder = weights.find(server.weights, weights.Pantry())
    return Launch(command, environment, weights.look(folder) if folder else "", int(server.model == "stock"))


if os.fork():
    os._exit(0)
os.setsid()
sys.exit(serve(Path(sys.argv[1]), launcher, TIMING))

"""Starts vLLM's engine on a CPU as a copy of the process that starts it, which has imported everything already.

vLLM 0.32 makes each of its processes on a CPU anew (`spawn`), and each imports PyTorch and vLLM for many seconds. On a GPU it forks the
engine, and that is done here too: it saves a third to a half of the time until a server answers. Forking is safe as long as OpenMP has no
threads yet, so the first process computes nothing (`orchestra.fleet.supervisor.vllm_launch` gives it one thread).
What the engine starts itself is made
anew, as vLLM has it, because OpenMP reads which cores a process may use only when it is loaded.

Used by the plugin, `orchestra.fleet.vllm_cpu.plugin`, inside vLLM's first process.
"""

from __future__ import annotations

import os
from functools import partial
from typing import Any

METHOD_VARIABLE = "VLLM_WORKER_MULTIPROC_METHOD"


def install(platform: Any) -> None:
    """From now on the engine is forked. `platform` is vLLM's class for CPUs, which asks for `spawn` whenever it checks a configuration."""
    usual = platform.check_and_update_config

    def check_and_update_config(cls: Any, config: Any) -> None:
        usual(config)
        os.environ[METHOD_VARIABLE] = "fork"

    platform.check_and_update_config = classmethod(check_and_update_config)
    os.register_at_fork(after_in_child=partial(_restore, platform, usual))


def _restore(platform: Any, usual: Any) -> None:
    platform.check_and_update_config = usual
    os.environ[METHOD_VARIABLE] = "spawn"

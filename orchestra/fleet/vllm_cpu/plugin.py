"""A plugin of vLLM (entry point `vllm.general_plugins`) that corrects and accelerates LoRA adapters on CPUs.

vLLM 0.32 has two faults on CPUs: with all slots in use, requests without an adapter silently get the last slot's, and
an adapter costs most of the speed. In versions whose source was read, the plugin replaces vLLM's product by
`orchestra.fleet.vllm_cpu.lora_product`. Other versions are not changed, and the fleet keeps a slot free instead
(`spare_slots`).

The fleet and vLLM's processes import this module, so its top level needs the standard library only.
"""

from __future__ import annotations

import importlib.metadata
import inspect
import os
from functools import partial
from typing import Any

ENTRY_POINT_GROUP = "vllm.general_plugins"
PLUGIN_NAME = "orchestra_lora_cpu"
"""The name of the entry point in pyproject.toml and in `VLLM_PLUGINS`."""
WRAPPER_CLASS = "orchestra.fleet.vllm_cpu.lora_product.GroupedLora"

METHOD_VARIABLE = "VLLM_WORKER_MULTIPROC_METHOD"
KNOWN_VERSIONS = ("0.32.0",)
"""Versions of vLLM whose LoRA on CPUs was read. `tests/real/test_adapters.py` tests them, `bench/adapters.py` measures
them.
"""

REPLACED_METHODS = {
    "add_lora_linear": "self y x lora_a_stacked lora_b_stacked scale output_slices buffer kwargs",
    "add_lora_logits": "self y x lora_a_stacked lora_b_stacked scale buffer kwargs",
    "add_lora_embedding": "self y x lora_b_stacked add_inputs kwargs",
    "add_shrink": "self y x lora_a_stacked scale kwargs",
    "update_metadata": "self mapping lora_index_to_id max_loras vocab_size kwargs",
}
"""The replaced methods of `PunicaWrapperCPU`, with their parameters in those versions."""


def installed_version() -> str:
    """Returns the version of the installed vLLM without its local part; empty if it is not installed."""
    for name in ("vllm", "vllm-cpu"):
        try:
            return importlib.metadata.version(name).partition("+")[0]
        except importlib.metadata.PackageNotFoundError:
            continue
    return ""


def spare_slots() -> int:
    """Returns the number of slots that a CPU server here must keep free: 0 if vLLM loads this plugin, else 1."""
    is_registered = any(entry.name == PLUGIN_NAME for entry in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP))
    return 0 if is_registered and installed_version() in KNOWN_VERSIONS else 1


def register() -> None:
    """Installs the corrections. vLLM calls it at the start of each process.

    Raises:
        RuntimeError: A known version differs from its release.
    """
    from vllm.logger import init_logger
    from vllm.platforms import current_platform

    log = init_logger("vllm.plugins.orchestra")
    if not current_platform.is_cpu():
        log.warning("orchestra: adapters are left to vLLM, because this is not a CPU")
        return
    if (version := installed_version()) not in KNOWN_VERSIONS:
        log.warning(
            "orchestra: adapters are left to vLLM %s, which orchestra does not know: one slot stays free",
            version,
        )
        return
    if strange := changed_methods():
        raise RuntimeError(
            f"vLLM {version} differs from its release: {', '.join(strange)} of PunicaWrapperCPU; reinstall vllm-cpu"
        )
    setattr(type(current_platform), "get_punica_wrapper", classmethod(_wrapper_class))  # noqa: B010 - vLLM's platforms have no types
    fork_engine(type(current_platform))
    log.info("orchestra: LoRA products of orchestra (vLLM %s)", version)


def _wrapper_class(platform: Any) -> str:
    return WRAPPER_CLASS


def changed_methods() -> list[str]:
    """Returns the methods of vLLM's product whose parameters differ from the known ones. Needs vLLM."""
    from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

    return [
        name
        for name, parameters in REPLACED_METHODS.items()
        if " ".join(inspect.signature(getattr(PunicaWrapperCPU, name)).parameters) != parameters
    ]


def fork_engine(platform: Any) -> None:
    """Makes vLLM fork its engine on CPUs, as it does on GPUs.

    vLLM 0.32 spawns each of its processes on a CPU, and each imports PyTorch and vLLM for many seconds. A forked engine
    has these imports: it saves a third to a half of the time until a server answers. A fork is safe as long as OpenMP
    has no threads yet, so the first process computes nothing (`orchestra.fleet.supervisor.vllm_launch` gives it one
    thread). The processes that the engine starts are still spawned, because OpenMP reads which cores a process may use
    only when it is loaded.

    Args:
        platform: vLLM's class for CPUs. It sets `spawn` each time it checks a configuration.
    """
    original = platform.check_and_update_config

    def check_and_update_config(cls: Any, config: Any) -> None:
        original(config)
        os.environ[METHOD_VARIABLE] = "fork"

    platform.check_and_update_config = classmethod(check_and_update_config)
    os.register_at_fork(after_in_child=partial(_restore_spawn, platform, original))


def _restore_spawn(platform: Any, original: Any) -> None:
    platform.check_and_update_config = original
    os.environ[METHOD_VARIABLE] = "spawn"

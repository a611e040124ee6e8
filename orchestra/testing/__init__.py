"""Tests of your own workflows without a model: simulated workers, a simulated vLLM server, virtual time.

    def test_answers_with_a_quote() -> None:
        async def scenario(clock: VirtualClock) -> None:
            workers = SimulatedWorkers({"reader": {"answer": "1889"}}, clock=clock, faults=Faults(refused=0.2))
            ...  # run the workflow with these workers and this clock

        for seed in range(100):
            run_simulated(scenario, seed=seed)

`SimulatedWorkers` replace the fleet and the tools. `SimulatedServer` replaces a vLLM server, for tests of HTTP clients.
Everything is seeded: the same seed gives the same run, and a failing seed prints the command that repeats it.

With pytest, use the fixtures `simulated` and `cassette` of `orchestra.testing.pytest_plugin` (docs/how-to/testing.md).
Names are loaded on first use, because pytest imports this package at every start if Orchestra is installed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestra.core.protocols import CallError, CallResult
    from orchestra.testing.cassette import CassetteError, Player, Recorder
    from orchestra.testing.fake_vllm.faults import EndpointFaults, SimulatedRequest, first_faults
    from orchestra.testing.fake_vllm.server import Behaviour, SimulatedServer, SimulatedVLLM
    from orchestra.testing.fake_workers import Faults, SimulatedWorkers, answer_sequence, from_schemas
    from orchestra.testing.schema_samples import InstanceError, make_instance
    from orchestra.testing.simulation import CassetteOrchestra, SimulatedOrchestra
    from orchestra.testing.virtual_clock import Deadlock, TaskLeak, VirtualClock, VirtualLoop, run_simulated

__all__ = [
    "Behaviour",
    "CallError",
    "CallResult",
    "CassetteError",
    "CassetteOrchestra",
    "Deadlock",
    "EndpointFaults",
    "Faults",
    "InstanceError",
    "Player",
    "Recorder",
    "SimulatedOrchestra",
    "SimulatedRequest",
    "SimulatedServer",
    "SimulatedVLLM",
    "SimulatedWorkers",
    "TaskLeak",
    "VirtualClock",
    "VirtualLoop",
    "answer_sequence",
    "first_faults",
    "from_schemas",
    "make_instance",
    "run_simulated",
]

_EXPORTS = {
    "cassette": "CassetteError Player Recorder",
    "virtual_clock": "Deadlock TaskLeak VirtualClock VirtualLoop run_simulated",
    "fake_vllm.faults": "EndpointFaults SimulatedRequest first_faults",
    "schema_samples": "InstanceError make_instance",
    "fake_vllm.server": "Behaviour SimulatedServer SimulatedVLLM",
    "simulation": "CassetteOrchestra SimulatedOrchestra",
    "fake_workers": "CallError CallResult Faults SimulatedWorkers answer_sequence from_schemas",
}
"""Module to the names that it exports."""


def __getattr__(name: str) -> Any:
    module = next((module_name for module_name, names in _EXPORTS.items() if name in names.split()), None)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)

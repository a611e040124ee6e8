"""Test your own workflow without a model: simulated workers, a simulated vLLM server, virtual time.

    def test_answers_with_a_quote() -> None:
        async def scenario(clock: VirtualClock) -> None:
            workers = SimulatedWorkers({"reader": {"answer": "1889"}}, clock=clock, faults=Faults(refused=0.2))
            ...  # run the workflow with these workers and this clock

        for seed in range(100):
            run_simulated(scenario, seed=seed)

`SimulatedWorkers` stand where fleet and tools stand; `SimulatedServer` stands where a vLLM server stands, for tests of what
speaks HTTP. Everything is seeded: the same seed gives the same run, and a failing seed prints how to repeat it.

With pytest there is less to write: the fixtures `simulated` and `cassette` of `orchestra.testing.pytest_plugin`
(docs/how-to/testing.md). Names are
loaded at first use, because pytest imports this package at its start wherever Orchestra is installed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestra.core.protocols import Done, Refused
    from orchestra.testing.cassette import CassetteError, Player, Recorder
    from orchestra.testing.fake_vllm.faults import EndpointFaults, Request, first
    from orchestra.testing.fake_vllm.server import Behaviour, SimulatedServer, SimulatedVLLM
    from orchestra.testing.fake_workers import Faults, SimulatedWorkers, from_schemas, in_turn
    from orchestra.testing.schema_samples import NoInstance, instance
    from orchestra.testing.simulation import Simulated, Taped
    from orchestra.testing.virtual_clock import Deadlock, Leak, VirtualClock, VirtualLoop, run_simulated

__all__ = [
    "Behaviour",
    "CassetteError",
    "Deadlock",
    "Done",
    "EndpointFaults",
    "Faults",
    "Leak",
    "NoInstance",
    "Player",
    "Recorder",
    "Refused",
    "Request",
    "Simulated",
    "SimulatedServer",
    "SimulatedVLLM",
    "SimulatedWorkers",
    "Taped",
    "VirtualClock",
    "VirtualLoop",
    "first",
    "from_schemas",
    "in_turn",
    "instance",
    "run_simulated",
]

_HOMES = {
    "cassette": "CassetteError Player Recorder",
    "virtual_clock": "Deadlock Leak VirtualClock VirtualLoop run_simulated",
    "fake_vllm.faults": "EndpointFaults Request first",
    "schema_samples": "NoInstance instance",
    "fake_vllm.server": "Behaviour SimulatedServer SimulatedVLLM",
    "simulation": "Simulated Taped",
    "fake_workers": "Done Faults Refused SimulatedWorkers from_schemas in_turn",
}
"""The modules that the names come from."""


def __getattr__(name: str) -> Any:
    home = next((module for module, names in _HOMES.items() if name in names.split()), None)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)

"""Test your own workflow without a model: simulated workers, a simulated vLLM server, virtual time.

    def test_answers_with_a_quote() -> None:
        async def scenario(clock: VirtualClock) -> None:
            workers = SimulatedWorkers({"reader": {"answer": "1889", "quote": "in 1889"}}, clock=clock, faults=Faults(refused=0.2))
            ...  # run the workflow with these workers and this clock

        for seed in range(100):
            run_simulated(scenario, seed=seed)

`SimulatedWorkers` stand where fleet and tools stand; `SimulatedServer` stands where a vLLM server stands, for tests of what
speaks HTTP. Everything is seeded: the same seed gives the same run, and a failing seed prints how to repeat it.
"""

from orchestra.testing.clock import Deadlock, Leak, VirtualClock, VirtualLoop, run_simulated
from orchestra.testing.endpoint import EndpointFaults, Request, first
from orchestra.testing.instances import NoInstance, instance
from orchestra.testing.server import Behaviour, SimulatedServer, SimulatedVLLM
from orchestra.testing.workers import Faults, SimulatedWorkers, from_schemas, in_turn

__all__ = [
    "Behaviour",
    "Deadlock",
    "EndpointFaults",
    "Faults",
    "Leak",
    "NoInstance",
    "Request",
    "SimulatedServer",
    "SimulatedVLLM",
    "SimulatedWorkers",
    "VirtualClock",
    "VirtualLoop",
    "first",
    "from_schemas",
    "in_turn",
    "instance",
    "run_simulated",
]

"""Test your own workflow without a model: simulated workers, a simulated server, virtual time.

Everything here is seeded: the same seed gives the same run, and a failing seed can be repeated.
"""

from orchestra.testing.clock import Deadlock, Leak, VirtualClock, VirtualLoop, run_simulated
from orchestra.testing.instances import NoInstance, instance
from orchestra.testing.workers import Faults, SimulatedWorkers, from_schemas, in_turn

__all__ = [
    "Deadlock",
    "Faults",
    "Leak",
    "NoInstance",
    "SimulatedWorkers",
    "VirtualClock",
    "VirtualLoop",
    "from_schemas",
    "in_turn",
    "instance",
    "run_simulated",
]

"""The data type that is not this machine's default: AVX2 only if the CPU has bfloat16, else bfloat16.

`test_adapters.py` tests the default, so both are tested on every machine.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from orchestra.fleet import cpu
from orchestra.fleet.config import FleetConfig
from orchestra.fleet.dispatch import Fleet
from orchestra.fleet.supervisor.client import SupervisorClient
from orchestra.fleet.supervisor.folders import Folders
from orchestra.fleet.weights import weights
from tests.real.test_adapters import SERVER, STRONG, alone, ask, same
from tests.simulation.lab.noise_adapters import write_noise_adapter

pytestmark = pytest.mark.real

ADAPTERS = 3


@pytest.fixture
async def other(laptop: FleetConfig, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Fleet]:
    """A second fleet with the other data type. It is stopped at the end."""
    server = laptop.local_servers[SERVER]
    if cpu.read_cpu().native_bfloat16:
        monkeypatch.setenv(cpu.ISA_VARIABLE, "AVX2")
    else:
        server = server.model_copy(update={"dtype": "bfloat16", "quantization": None})
    described = laptop.model_copy(update={"name": "other", "idle_stop": 601.0, "servers": {SERVER: server}})
    try:
        async with Fleet.open(described, cards={}, mode="start") as fleet:
            await fleet.wait_until_ready()
            yield fleet
    finally:
        await SupervisorClient(described, Folders.from_environment()).stop()


async def test_other_precision_adapters_answer_as_alone(other: Fleet, tmp_path: Path) -> None:
    (server,) = (await other.status())["servers"]
    precision = server["precision"]
    assert precision in ("int8", "bfloat16")
    model = weights.find_weights(other.config.local_servers[SERVER].weights, weights.ModelStore.from_environment())
    assert model
    names = [""]
    for slot in range(ADAPTERS):
        names.append(f"noise{random.randrange(1 << 30)}_{slot}")
        folder = write_noise_adapter(tmp_path / names[-1], model, slot, rank=(16, 8)[slot % 2], strength=STRONG)
        assert await other.client.load_adapter(SERVER, names[-1], str(folder)) is None
    wanted = await alone(other, names)
    assert len({done.text for done in wanted.values()}) == len(names)
    for mix in (names * 3, names[1:] * 2):
        found = await asyncio.gather(*(ask(other, name) for name in mix))
        assert [name for name, done in zip(mix, found, strict=True) if not same(done, wanted[name])] == []
    log = await asyncio.to_thread(Path(server["log"]).read_text, "utf-8", "replace")
    assert ("orchestra: linear layers in 8 bits" in log) is (precision == "int8")

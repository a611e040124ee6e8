"""The real fleet: vLLM on the CPU with SmolLM2-135M, as configured in `configs/laptop.yaml`. All tests share one
server.

A running fleet is used and left running. A fleet that the tests start is stopped afterwards.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestra.fleet import config
from orchestra.fleet.config import FleetConfig
from orchestra.fleet.progress import Progress
from orchestra.fleet.supervisor import vllm_launch
from orchestra.fleet.supervisor.client import SupervisorClient
from orchestra.fleet.supervisor.folders import Folders
from orchestra.fleet.supervisor.messages import HeartbeatRequest
from orchestra.fleet.weights import weights
from orchestra.fleet.weights.encoders import KNOWN_ENCODERS

LAPTOP = Path(__file__).resolve().parents[2] / "configs" / "laptop.yaml"


@pytest.fixture(scope="session")
def laptop() -> Iterator[FleetConfig]:
    """The configuration of the fleet; its server is healthy."""
    described = config.read_config(LAPTOP)
    supervision = SupervisorClient(described, Folders.from_environment())
    said: set[str] = set()

    def report(progress: Progress) -> None:
        if progress.message not in said:
            said.add(progress.message)
            print(progress.message, file=sys.stderr)

    async def bring_up() -> bool:
        there = await supervision.notify(HeartbeatRequest())
        vllm_launch.vllm_version()
        # the encoders too
        for wanted in (
            *(server.weights for server in described.local_servers.values()),
            *KNOWN_ENCODERS.values(),
        ):
            await weights.ensure_weights(wanted, weights.ModelStore.from_environment(), report)
        await supervision.start()
        await supervision.wait_until_ready(report)
        return there

    was_there = asyncio.run(bring_up())
    yield described
    if not was_there:
        asyncio.run(supervision.stop())

"""Fleets whose local servers start when a call needs them: calls wait, larger models start for an escalation, and
answers come although servers are stopped between calls.
"""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import pytest

from orchestra.agents.card import Card
from orchestra.core.protocols import CallError, CallResult
from orchestra.fleet.config import FleetConfig
from orchestra.fleet.dispatch import Fleet
from orchestra.fleet.http import addresses
from orchestra.fleet.progress import Progress
from orchestra.fleet.supervisor.folders import Folders

from .calling import CARDS, TEXT, call, only
from .conftest import eventually, local_config, post
from .fake_supervisor import ENOUGH

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def announce_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """The supervisor of the tests stops servers after a shorter time, too. The memory of the machine is enough."""
    monkeypatch.setattr(addresses, "available_memory", lambda: ENOUGH)
    monkeypatch.setattr(addresses, "ANNOUNCE_INTERVAL", 0.05)


def on_demand(folders: Folders, *models: str, memory: str | None = None, idle_stop: float = 600.0) -> FleetConfig:
    """Returns a fleet of CPU servers with a larger model `n`. Each server is expected to take 3.7 GB."""
    folder = folders.cache / "weights"
    (folder / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    weights = {"licence": "none", "sources": [{"folder": str(folder)}]}
    config = local_config(*models, on_demand=True, memory=memory, device="cpu", weights=weights)
    servers = {
        name: server.model_copy(update={"idle_stop": idle_stop}) for name, server in config.local_servers.items()
    }
    return config.model_copy(update={"servers": servers, "escalate": models[-1]})


async def phases(fleet: Fleet) -> dict[str, str]:
    return {server["name"]: server["phase"] for server in (await fleet.status())["servers"]}


async def test_call_starts_only_its_server(faked: Any, folders: Folders) -> None:
    async with faked(on_demand(folders, "m", "n")) as fleet:
        assert isinstance(await only(fleet, call("writer")), CallResult)
        assert await phases(fleet) == {"m": "ready", "n": "stopped"}
        states = {server.name: (server.state, server.can_serve) for server in (await fleet.health()).servers}
    assert states == {"m": ("ready", True), "n": ("idle", True)}


async def test_escalation_waits_for_stopped_server(faked: Any, folders: Folders) -> None:
    told: list[Progress] = []
    async with faked(on_demand(folders, "m", "n", memory="4GB"), progress=told.append) as fleet:
        first = await only(fleet, call("writer"))
        larger = await only(fleet, call("writer", tier=1))
        assert await phases(fleet) == {"m": "stopped", "n": "ready"}, "there is memory for one"
        again = await only(fleet, call("writer"))
    assert [reply.server for reply in (first, larger, again) if isinstance(reply, CallResult)] == ["m", "n", "m"]
    assert any(progress.stage == "wait" and progress.message.endswith("with n") for progress in told)


async def test_calls_at_once_to_two_models_are_answered_in_turn(faked: Any, folders: Folders) -> None:
    cards = CARDS | {
        name: Card.declare(name, input=TEXT, output={"type": "string"}, prompt="{{ text }}", model=name)
        for name in ("m", "n")
    }
    async with faked(on_demand(folders, "m", "n", memory="4GB"), cards) as fleet:
        replies = await asyncio.gather(*(only(fleet, call(name)) for name in ("m", "n", "m", "n")))
    assert sorted(reply.server for reply in replies if isinstance(reply, CallResult)) == ["m", "m", "n", "n"]


async def test_call_restarts_server_that_stopped_when_idle(faked: Any, folders: Folders) -> None:
    told: list[Progress] = []
    async with faked(on_demand(folders, "m", idle_stop=0.5), progress=told.append) as fleet:
        first = await only(fleet, call("writer"))

        async def stopped() -> bool:
            return await phases(fleet) == {"m": "stopped"}

        await eventually(stopped)
        told.clear()
        second = await only(fleet, call("writer"))
    assert isinstance(first, CallResult)
    assert isinstance(second, CallResult)
    assert first.value != second.value, "another process"
    assert {progress.stage for progress in told} == {"wait", "ready"}, "the second start is shown, too"


async def test_call_is_announced_to_the_supervisor(faked: Any, folders: Folders) -> None:
    """The load of a server shows a request too late, if the server is about to be stopped."""
    async with faked(on_demand(folders, "m")) as fleet:
        await only(fleet, call("writer"))

        async def idle() -> float:
            return float((await fleet.status())["servers"][0]["idle"])

        async def idle_for_a_second() -> float:
            return seconds if (seconds := await idle()) >= 1 else 0.0

        before = await eventually(idle_for_a_second)
        await only(fleet, call("writer"))
        assert await idle() < before


async def test_calls_while_servers_stop_are_all_answered(faked: Any, folders: Folders) -> None:
    """Calls come about as often as the server stops."""
    async with faked(on_demand(folders, "m", idle_stop=0.5)) as fleet:
        for pause in (0.35, 0.45, 0.5, 0.55, 0.6, 0.4):
            reply = await only(fleet, call("writer"))
            assert isinstance(reply, CallResult), reply
            await asyncio.sleep(pause)


async def test_call_without_memory_is_retryable_error(faked: Any, folders: Folders) -> None:
    async with faked(on_demand(folders, "m", "n", memory="4GB")) as fleet:
        assert isinstance(await only(fleet, call("writer")), CallResult)
        await post((await fleet.status())["servers"][0]["url"], "/test/busy")
        refused = await only(fleet, call("writer", tier=1))
    assert isinstance(refused, CallError)
    assert (refused.code, refused.retryable) == ("F226", True)
    assert "m 3.7 GB (has requests)" in refused.reason


async def test_server_killed_in_call_costs_one_attempt(faked: Any, folders: Folders) -> None:
    async with faked(on_demand(folders, "m")) as fleet:
        done = await only(fleet, call("writer"))
        assert isinstance(done, CallResult)
        task = asyncio.create_task(only(fleet, call("writer", inputs={"text": "slow"})))

        async def under_way() -> bool:
            return bool((await fleet.status())["servers"][0]["running"] == 1)

        await eventually(under_way)
        os.kill(int(done.value.removeprefix("pid ")), signal.SIGKILL)
        broken = await task
        again = await only(fleet, call("writer", attempt=2))
    assert isinstance(broken, CallError)
    assert broken.reason.endswith("; F223: the kernel ended the server (signal 9, out of memory?)")
    assert isinstance(again, CallResult)


async def test_call_after_killed_supervisor_starts_another(faked: Any, folders: Folders) -> None:
    async with faked(on_demand(folders, "m", "n")) as fleet:
        assert isinstance(await only(fleet, call("writer")), CallResult)
        os.kill((await fleet.status())["pid"], signal.SIGKILL)
        replies = [await only(fleet, call("writer", attempt=attempt)) for attempt in (1, 2)]
        assert isinstance(replies[-1], CallResult), replies
        assert await phases(fleet) == {"m": "ready", "n": "stopped"}


async def test_budget_too_small_downloads_nothing(faked: Any, folders: Folders) -> None:
    async with faked(on_demand(folders, "m", memory="1GB")) as fleet:
        refused = await only(fleet, call("writer"))
        assert await fleet.status() | {"requests": []} == {
            "running": False,
            "fleet": "fakes",
            "servers": [],
            "requests": [],
        }
    assert isinstance(refused, CallError)
    assert refused.code == "F224"
    assert "(`memory:` of the fleet file)" in refused.reason

"""Servers start once, for the calls that need them, within the timeout of each call."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from orchestra.agents.card import Card
from orchestra.core.errors import FleetError
from orchestra.fleet.config import FleetConfig
from orchestra.fleet.readiness import ServerReadiness
from orchestra.fleet.server_selection import ServerChoice

from .calling import TEXT, call
from .conftest import endpoints, local_config

CHOICE = ServerChoice(Card.declare("writer", input=TEXT, output={"type": "string"}, prompt="{{ text }}"), ("m",))


async def test_start_time_is_subtracted_from_call() -> None:
    readiness = ServerReadiness(local_config("m"), lambda _: asyncio.sleep(0.05))
    first, _ = await readiness.wait_for_servers(call(timeout=20.0), CHOICE)
    second, _ = await readiness.wait_for_servers(call(timeout=20.0), CHOICE)
    assert first.timeout is not None
    assert first.timeout <= 19.95
    assert second.timeout == 20.0


BOTH = replace(CHOICE, servers=("m", "far"))


def with_another() -> FleetConfig:
    """Returns a fleet of a local server and an endpoint for the same model."""
    config = local_config("m")
    return config.model_copy(
        update={"servers": {**config.servers, "far": endpoints("http://127.0.0.1:1").servers["s0"]}}
    )


async def test_ready_server_is_used_while_other_starts() -> None:
    may = asyncio.Event()

    async def bring_up(name: str) -> None:
        await may.wait()

    readiness = ServerReadiness(with_another(), bring_up)
    assert (await readiness.wait_for_servers(call(timeout=30.0), BOTH))[1].servers == ("far",)
    may.set()
    await asyncio.gather(*readiness.start_tasks)
    assert (await readiness.wait_for_servers(call(timeout=30.0), BOTH))[1].servers == ("m", "far")


async def test_starting_endpoint_wait_is_within_timeout() -> None:
    may = asyncio.Event()

    async def bring_up(name: str) -> None:
        await may.wait()

    readiness, far = (
        ServerReadiness(endpoints("http://127.0.0.1:1", starts_within=300), bring_up),
        replace(CHOICE, servers=("s0",)),
    )
    with pytest.raises(FleetError, match=r"s0 was still starting when the call's timeout of 0.01 s ended") as caught:
        await readiness.wait_for_servers(call(timeout=0.01), far)
    assert (caught.value.code, caught.value.hint) == ("F203", "raise the node's `timeout`, or: orchestra fleet status")
    may.set()
    assert await readiness.wait_for_servers(call(), far) == (call(), far)


async def test_failed_start_is_retried_in_background(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun = []

    async def bring_up(name: str) -> None:
        begun.append(name)
        if len(begun) == 1:
            raise FleetError("F005", "it does not start")

    async def ask() -> tuple[str, ...]:
        servers = (await readiness.wait_for_servers(call(), BOTH))[1].servers
        await asyncio.gather(*readiness.start_tasks)
        return servers

    readiness = ServerReadiness(with_another(), bring_up)
    assert [await ask(), await ask(), begun] == [("far",), ("far",), ["m"]]
    monkeypatch.setattr("orchestra.fleet.readiness.RESTART_AFTER", 0.0)
    assert [await ask(), await ask(), begun] == [("far",), ("m", "far"), ["m", "m"]]


async def test_all_starts_fail_first_error_then_retry() -> None:
    begun = []

    async def bring_up(name: str) -> None:
        begun.append(name)
        raise FleetError("F005", f"{name} does not start")

    readiness = ServerReadiness(local_config("m", "n"), bring_up)
    for times in (1, 2):
        with pytest.raises(FleetError, match="m does not start"):
            await readiness.wait_for_servers(call(), replace(CHOICE, servers=("m", "n")))
        assert begun == ["m", "n"] * times


async def test_start_continues_after_timeouts_and_runs_once() -> None:
    begun, may = [], asyncio.Event()

    async def bring_up(name: str) -> None:
        begun.append(name)
        await may.wait()

    readiness = ServerReadiness(local_config("m"), bring_up)
    with pytest.raises(FleetError) as caught:
        await readiness.wait_for_servers(call(timeout=0.01), CHOICE)
    assert caught.value.code == "F216"
    may.set()
    assert await readiness.wait_for_servers(call(), CHOICE) == (call(), CHOICE)
    assert begun == ["m"]

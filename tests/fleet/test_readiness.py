"""Servers are brought up once, for the calls that want them, within the time of each call."""

from __future__ import annotations

import asyncio

import pytest

from orchestra.agent.card import Card
from orchestra.errors import FleetError
from orchestra.fleet.choice import Choice
from orchestra.fleet.readiness import Readiness

from .calling import TEXT, call
from .conftest import local_config

CHOICE = Choice(Card.declared("writer", input=TEXT, output={"type": "string"}, prompt="{{ text }}"), ("m",))


async def test_what_a_start_took_is_no_longer_the_calls() -> None:
    readiness = Readiness(local_config("m"), lambda _: asyncio.sleep(0.05))
    first, _ = await readiness.reached(call(timeout=20.0), CHOICE)
    second, _ = await readiness.reached(call(timeout=20.0), CHOICE)
    assert first.timeout is not None
    assert first.timeout <= 19.95
    assert second.timeout == 20.0


async def test_a_start_goes_on_without_those_whose_time_is_over_and_is_begun_once() -> None:
    begun, may = [], asyncio.Event()

    async def bring_up(name: str) -> None:
        begun.append(name)
        await may.wait()

    readiness = Readiness(local_config("m"), bring_up)
    with pytest.raises(FleetError) as caught:
        await readiness.reached(call(timeout=0.01), CHOICE)
    assert caught.value.code == "F216"
    may.set()
    assert await readiness.reached(call(), CHOICE) == (call(), CHOICE)
    assert begun == ["m"]

"""A server in virtual time that has a capacity, and rejects requests: because it is full, or for reasons unrelated to load."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

from orchestra.fleet.concurrency import AdaptiveLimit, ConcurrencyLimit
from orchestra.fleet.config import FleetConfig, Limits
from orchestra.fleet.faults import Fault
from orchestra.fleet.order import Turn
from orchestra.fleet.send import Sender
from orchestra.fleet.wire import Answer, Request, Wire
from orchestra.testing.clock import VirtualClock

from .conftest import NoAddresses, endpoints


@dataclass
class Server:
    """What a simulated server does."""

    seed: int = 0
    latency: float = 0.05
    """Seconds of an answer; each takes between half and one and a half of it."""
    rejection: float = 0.0
    """Seconds of a rejection."""
    slots: int = 1 << 20
    """Requests at once; more are rejected."""
    rate: float = 0.0
    """Requests a second, where it is limited: a token bucket that holds `burst` of them."""
    burst: float = 10.0
    unrelated: float = 0.0
    """The share of requests that is rejected for reasons unrelated to load."""
    retry_after: float | None = None

    inside: int = 0
    answered: int = 0
    rejected: int = 0
    times: list[float] = field(default_factory=list)
    """When requests came."""
    _tokens: float = 0.0
    _filled: float = 0.0

    def __post_init__(self) -> None:
        self.chance = Random(f"server {self.seed}")
        self._tokens = self.burst

    def full(self, now: float) -> bool:
        if self.rate:
            self._tokens = min(self.burst, self._tokens + (now - self._filled) * self.rate)
            self._filled = now
            if self._tokens < 1:
                return True
            self._tokens -= 1
        return self.inside >= self.slots

    async def answer(self, request: Request, seconds: float) -> Answer | Fault:
        now = asyncio.get_running_loop().time()
        self.times.append(now)
        if self.chance.random() < self.unrelated or self.full(now):
            self.rejected += 1
            await asyncio.sleep(self.rejection)
            return Fault("F204", "busy", seen=False, busy=True, retry_after=self.retry_after)
        self.inside += 1
        try:
            took = self.latency * (0.5 + self.chance.random())
            await asyncio.sleep(min(took, seconds))
        finally:
            self.inside -= 1
        if took > seconds:
            return Fault("F205", "no answer in time")
        self.answered += 1
        return Answer(b"", b"")


class SimulatedWire(Wire):
    """Reaches the simulated servers by their addresses."""

    def __init__(self, servers: Mapping[str, Server]) -> None:
        super().__init__(Limits())
        self.servers = servers

    async def exchange(self, root: str, request: Request, *arguments: Any, **_: Any) -> Answer | Fault:
        return await self.servers[root].answer(request, arguments[1])


def sender(clock: VirtualClock, *servers: Server, limit: Callable[[int], ConcurrencyLimit] = AdaptiveLimit, **limits: Any) -> Sender:
    """A sender to these servers, `s0` and so on."""
    roots = {f"http://s{number}": server for number, server in enumerate(servers)}
    config: FleetConfig = endpoints(*roots, limits=Limits(**limits))
    return Sender(config, SimulatedWire(roots), NoAddresses(), clock, concurrency=limit)


async def closed_loop(send: Sender, clients: int, requests: int) -> float:
    """Seconds in which so many clients, that each wait for their answer, make so many requests together."""
    clock, left = send._clock, iter(range(requests))
    began = clock.monotonic()

    async def client(number: int) -> None:
        for at in left:
            sent = await send.send("s0", Request("/v1/x", b"", turn=Turn(run=f"{number} {at}")))
            assert isinstance(sent.result, Answer), sent.result

    await asyncio.gather(*(client(number) for number in range(clients)))
    return clock.monotonic() - began


async def open_loop(send: Sender, rate: float, seconds: float) -> None:
    """Sends so many requests a second, whether they are answered or not; what is not answered in the end is cancelled."""
    clock, tasks = send._clock, list[asyncio.Task[Any]]()
    end = clock.monotonic() + seconds
    while clock.monotonic() < end:
        tasks.append(asyncio.create_task(send.send("s0", Request("/v1/x", b"", turn=Turn(run=str(len(tasks)))))))
        await clock.sleep(1 / rate)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

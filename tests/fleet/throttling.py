"""A server in virtual time with a capacity.

It rejects requests because it is full, or for reasons unrelated to load.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from orchestra.fleet.concurrency import AdaptiveLimit, ConcurrencyLimit
from orchestra.fleet.config import FleetConfig, FleetLimits
from orchestra.fleet.http.client import HttpClient, HttpRequest, HttpResponse
from orchestra.fleet.request_errors import RequestError
from orchestra.fleet.scheduling import QueueRequest
from orchestra.fleet.sender import Sender
from orchestra.testing.virtual_clock import VirtualClock

from .conftest import NoAddresses, endpoints


@dataclass
class Server:
    """The behaviour of a simulated server."""

    seed: int = 0
    latency: float = 0.05
    """Seconds of a response; each takes 0.5 to 1.5 times as long."""
    rejection: float = 0.0
    """Seconds of a rejection."""
    slots: int = 1 << 20
    """Requests at once. More are rejected."""
    rate: float = 0.0
    """Requests per second, if limited, by a token bucket with a capacity of `burst`."""
    burst: float = 10.0
    unrelated: float = 0.0
    """The share of requests that is rejected for reasons unrelated to load."""
    retry_after: float | None = None
    script: Sequence[bool] = ()
    """Whether each of the first requests is rejected."""

    inside: int = 0
    answered: int = 0
    rejected: int = 0
    visits: int = 0
    happened: list[tuple[float, str, str]] = field(default_factory=list)
    """The time, the kind (`sent`, `rejected` or `answered`) and the run of each event."""
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

    async def answer(self, request: HttpRequest, seconds: float) -> HttpResponse | RequestError:
        self._note(request, "sent")
        self.visits += 1
        scripted = self.visits <= len(self.script) and self.script[self.visits - 1]
        if scripted or self.chance.random() < self.unrelated or self.full(asyncio.get_running_loop().time()):
            self.rejected += 1
            await asyncio.sleep(self.rejection)
            self._note(request, "rejected")
            return RequestError("F204", "busy", reached_model=False, busy=True, retry_after=self.retry_after)
        self.inside += 1
        try:
            took = self.latency * (0.5 + self.chance.random())
            await asyncio.sleep(min(took, seconds))
        finally:
            self.inside -= 1
        if took > seconds:
            return RequestError("F205", "no answer in time")
        self.answered += 1
        self._note(request, "answered")
        return HttpResponse(b"", b"")

    def _note(self, request: HttpRequest, what: str) -> None:
        self.happened.append((asyncio.get_running_loop().time(), request.queue_request.run, what))


class SimulatedWire(HttpClient):
    """Connects to the simulated servers by their addresses."""

    def __init__(self, servers: Mapping[str, Server]) -> None:
        super().__init__(FleetLimits())
        self.servers = servers

    async def exchange(self, root: str, request: HttpRequest, *arguments: Any, **_: Any) -> HttpResponse | RequestError:
        return await self.servers[root].answer(request, arguments[1])


def sender(
    clock: VirtualClock, *servers: Server, limit: Callable[[int], ConcurrencyLimit] = AdaptiveLimit, **limits: Any
) -> Sender:
    """Returns a sender for these servers, named `s0` and so on."""
    roots = {f"http://s{number}": server for number, server in enumerate(servers)}
    config: FleetConfig = endpoints(*roots, limits=FleetLimits(**limits))
    return Sender(config, SimulatedWire(roots), NoAddresses(), clock, concurrency=limit)


async def closed_loop(send: Sender, clients: int, requests: int) -> float:
    """Returns the requests per second of clients that each wait for their answer, until nine tenths are answered. The
    last ones wait for their own pauses.
    """
    clock, left, ends = send._clock, iter(range(requests)), list[float]()
    began = clock.monotonic()

    async def client() -> None:
        for number in left:
            sent = await send.send("s0", HttpRequest("/v1/x", b"", queue_request=QueueRequest(run=str(number))))
            assert isinstance(sent.result, HttpResponse), sent.result
            ends.append(clock.monotonic())

    await asyncio.gather(*(client() for _ in range(clients)))
    counted = max(1, requests * 9 // 10)
    return counted / (sorted(ends)[counted - 1] - began)


async def open_loop(send: Sender, rate: float, seconds: float) -> None:
    """Sends requests at a fixed rate. Unanswered ones are cancelled at the end."""
    clock, tasks = send._clock, list[asyncio.Task[Any]]()
    end = clock.monotonic() + seconds
    while clock.monotonic() < end:
        tasks.append(
            asyncio.create_task(
                send.send("s0", HttpRequest("/v1/x", b"", queue_request=QueueRequest(run=str(len(tasks)))))
            )
        )
        await clock.sleep(1 / rate)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

"""Rejected requests in virtual time: random rejections cost little, overload reduces the rate, and queue time is no
request time.
"""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import pytest

from orchestra.fleet.http.client import HttpRequest, HttpResponse
from orchestra.fleet.request_errors import RequestError
from orchestra.fleet.scheduling import QueueRequest
from orchestra.fleet.sender import REJECTION_THRESHOLD
from orchestra.testing.virtual_clock import VirtualClock, run_simulated
from tests.sizes import sample_size

from .throttling import Server, closed_loop, open_loop, sender

FEW, MANY = 3, 100
"""Cases per test in the quick suite and in the slow one."""


def seeds(few: int = FEW) -> list[Any]:
    """Returns the numbers of cases: a few, and many that are marked slow."""
    return [*range(few), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(few, sample_size(MANY, 4)))]


@pytest.mark.parametrize("seed", seeds())
def test_random_rejections_keep_70_percent_throughput(seed: int) -> None:
    chance = Random(f"unrelated {seed}")
    settings: dict[str, Any] = {
        "rejection": chance.choice((0.0, 0.01, 0.05)),
        "retry_after": chance.choice((None, 1.0)),
        "seed": seed,
    }
    share = chance.uniform(0.0, 0.1)

    async def rate(clock: VirtualClock, unrelated: float) -> float:
        return await closed_loop(sender(clock, Server(unrelated=unrelated, **settings)), 500, 2_500)

    clean = run_simulated(lambda clock: rate(clock, 0.0), seed)
    assert run_simulated(lambda clock: rate(clock, share), seed) >= 0.7 * clean, f"{share:.3f} {settings}"


@pytest.mark.parametrize("seed", seeds())
def test_overload_keeps_90_percent_of_capacity(seed: int) -> None:
    chance = Random(f"overload {seed}")
    slots = int(2 ** chance.uniform(0, 6))
    settings: dict[str, Any] = {
        "rejection": chance.choice((0.0, 0.001, 0.02)),
        "retry_after": chance.choice((None, 1.0)),
        "seed": seed,
    }
    capacity = slots / 0.05
    seconds = 2_000 / capacity + 1

    async def goodput(clock: VirtualClock) -> tuple[float, float]:
        server = Server(slots=slots, **settings)
        await open_loop(sender(clock, server), 1.2 * capacity, seconds)
        return server.answered / seconds / capacity, server.rejected / server.answered

    good, rejected = run_simulated(goodput, seed)
    assert good >= 0.9, f"{slots} {settings}"
    assert rejected <= 1.0, f"{slots} {settings}"


@pytest.mark.parametrize("seed", seeds(8))
def test_queue_time_is_not_request_time(seed: int) -> None:
    chance = Random(f"queue {seed}")
    places, clients = chance.randint(1, 4), chance.randint(20, 60)

    async def main(clock: VirtualClock) -> int:
        server = Server(seed=seed)
        await closed_loop(sender(clock, server, in_flight=places, request_seconds=0.1), clients, clients)
        return server.answered

    assert run_simulated(main, seed) == clients


def test_call_timeout_bounds_queue_time() -> None:
    async def main(clock: VirtualClock) -> list[HttpResponse | RequestError]:
        send = sender(clock, Server(), in_flight=1)
        sent = await asyncio.gather(*(send.send("s0", HttpRequest("/v1/x", b""), seconds=0.3) for _ in range(20)))
        assert clock.monotonic() < 0.4
        return [one.result for one in sent]

    results = run_simulated(main)
    assert {one.code for one in results if isinstance(one, RequestError)} == {"F204", "F205"}
    assert sum(isinstance(one, HttpResponse) for one in results) >= 3


@pytest.mark.parametrize("seed", seeds(20))
def test_rejections_in_a_row_pause_all_requests(seed: int) -> None:
    chance = Random(f"pauses {seed}")
    share, asked = chance.choice((0.1, 0.3, 0.6)), chance.choice((0.513, 1.037, 3.071))
    script = [chance.random() < share for _ in range(60)]

    async def main(clock: VirtualClock) -> Server:
        server = Server(seed=seed, latency=0.01, retry_after=asked, script=script)
        await open_loop(sender(clock, server), 10, 30)
        return server

    in_a_row, held = 0, 0.0
    again = dict[str, float]()
    holds: list[tuple[float, float]] = []
    for at, run, what in run_simulated(main, seed).happened:
        if what == "sent":
            assert at >= held - 1e-6 or at <= holds[-1][0] + 1e-6, "nothing is sent while the server is held"
            assert at >= again.get(run, 0.0) - 1e-6, "a request that was rejected waits as long as the server asks"
            offered = int(run) / 10
            on_time = run in again or at <= offered + 0.02
            assert on_time or any(first <= offered + 0.02 and offered <= last for first, last in holds), (
                "no other request waits"
            )
        elif what == "rejected":
            in_a_row, again[run] = in_a_row + 1, at + asked
            if in_a_row >= REJECTION_THRESHOLD:
                held = at + asked
                holds.append((at, at + 8.0))  # the pause may be longer than requested, and requests continue then
        else:
            in_a_row, held = 0, 0.0


def test_answer_ends_pause_of_server() -> None:
    async def main(clock: VirtualClock) -> tuple[float, Server]:
        server = Server(latency=0.4, retry_after=20.0, script=[False, True, True, True])
        send = sender(clock, server)
        early = [
            asyncio.create_task(send.send("s0", HttpRequest("/v1/x", b"", queue_request=QueueRequest(run=str(at)))))
            for at in range(4)
        ]
        await clock.sleep(0.01)
        assert send.states["s0"].gate.paused
        await send.send("s0", HttpRequest("/v1/x", b"", queue_request=QueueRequest(run="4")))
        took = clock.monotonic()
        for task in early:
            task.cancel()
        await asyncio.gather(*early, return_exceptions=True)
        return took, server

    took, server = run_simulated(main)
    assert took < 2
    assert server.visits == 5


@pytest.mark.parametrize("asked", [None, 1.0, 20.0])
def test_queued_requests_end_if_server_stays_busy(asked: float | None) -> None:
    async def main(clock: VirtualClock) -> tuple[float, list[Any], Server]:
        server = Server(unrelated=1.0, rejection=0.01, retry_after=asked)
        send = sender(clock, server)
        sent = await asyncio.gather(
            *(send.send("s0", HttpRequest("/v1/x", b"", queue_request=QueueRequest(run=str(at)))) for at in range(500))
        )
        return clock.monotonic(), [one.result.code for one in sent if isinstance(one.result, RequestError)], server

    seconds, codes, server = run_simulated(main)
    assert codes == ["F204"] * 500
    assert 120 <= seconds < 200
    assert server.visits < 1_500, "it was not sent all of them again and again"


def test_queued_requests_are_not_sent_to_hanging_server() -> None:
    async def main(clock: VirtualClock) -> tuple[float, set[str], Server]:
        server = Server(latency=1e6)
        send = sender(clock, server, in_flight=8, request_seconds=60)
        sent = await asyncio.gather(
            *(send.send("s0", HttpRequest("/v1/x", b"", queue_request=QueueRequest(run=str(at)))) for at in range(200))
        )
        return clock.monotonic(), {one.result.code for one in sent if isinstance(one.result, RequestError)}, server

    seconds, codes, server = run_simulated(main)
    assert codes == {"F205", "F218"}
    assert seconds < 200
    assert server.visits < 20

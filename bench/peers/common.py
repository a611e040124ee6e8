"""The workloads, their measurement, and the command line of an adapter: `bench_NAME.py` subclasses `Peer` and calls
`main`.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import statistics
import sys
import time
import traceback
from collections.abc import Awaitable, Callable
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from bench.peers import shapes
    from bench.peers.clients import Clients, Mock
    from bench.peers.shapes import Graph, layers_of
else:
    import shapes
    from clients import Clients, Mock
    from shapes import Graph, layers_of

__all__ = ["Peer", "layers_of", "main"]

SIZES = {"a": 100, "b": 1000, "c": 1000, "d": 300, "e": 300, "f": 200, "g": 300, "i": 2000}
"""Nodes of each workload; for f and i, runs."""
ROUNDS = {"a": 7, "b": 3, "c": 3, "d": 1, "e": 1, "f": 1, "g": 3, "i": 1}
"""Measurements in one process."""
LIMIT_S = 150
CALL_S = 0.020
"""Seconds of a call in f."""
DEPTH = 5
"""Sequential calls in f."""

Body = Callable[[Any], Awaitable[Any]]


class Peer:
    """One library under test. A subclass builds graphs and runs them; everything else is shared."""

    name = "?"
    packages: tuple[str, ...] = ()
    workloads = "abcdefi"
    client = "openai"
    inner: ClassVar[dict[str, int]] = {}
    """Measurements in one process, if the library is too slow for the usual number."""
    warm = 1
    n_default: ClassVar[dict[str, int]] = {}
    remote = False
    """Whether bodies run in other processes, where they cannot be counted."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args

    async def setup(self) -> None:
        """Opens shared resources of all workloads."""

    async def teardown(self) -> None:
        """Closes them."""

    def compile(self, g: Graph, fn: Body, shape: str, durable: bool = False) -> Any:
        """Builds everything that can be built once. `fn(v)` is the body of node `v`; `shape` is chain, fan, dag or
        diamond.
        """
        raise NotImplementedError

    async def run(self, compiled: Any, run_id: str = "r") -> None:
        """Executes one run; runs may be concurrent."""
        raise NotImplementedError

    def cpu(self) -> float:
        """Returns the processor seconds of this process."""
        return time.process_time()

    def sleeper(self) -> Body:
        """Returns the body of d."""

        async def node(v: Any) -> Any:
            await asyncio.sleep(shapes.node_latency(v))
            return v

        return node

    def caller(self, c: Clients, base: str) -> Body:
        """Returns the body of e and f: one call with an open client. `base` is the server's address."""

        async def node(v: Any) -> Any:
            return await c.call(f"n{v}")

        return node


class Count:
    """A body that only counts, so that every result is compared with the number of nodes."""

    def __init__(self) -> None:
        self.n = 0

    async def __call__(self, v: Any) -> Any:
        self.n += 1
        return v


async def timed(peer: Peer, compiled: Any, rounds: int, warm: int = 1) -> tuple[float, float]:
    """Returns the medians of wall-clock and processor time of some runs, in seconds."""
    walls, cpus = [], []
    for number in range(rounds + warm):
        gc.collect()
        cpu, wall = peer.cpu(), time.perf_counter()
        await peer.run(compiled, f"{number}-{wall}")
        wall, cpu = time.perf_counter() - wall, peer.cpu() - cpu
        if number >= warm:
            walls.append(wall)
            cpus.append(cpu)
    return statistics.median(walls), statistics.median(cpus)


async def empty_nodes(peer: Peer, letter: str, n: int, rounds: int) -> dict[str, Any]:
    """a, b, c, g: the engine's own cost; in g with durability."""
    graph, shape = {"a": (shapes.chain, "chain"), "b": (shapes.fan, "fan")}.get(letter, (shapes.layered, "dag"))
    g = graph(n)
    total = g.number_of_nodes()
    body = Count()
    began = time.perf_counter()
    compiled = peer.compile(g, body, shape, durable=letter == "g")
    built = time.perf_counter() - began
    wall, cpu = await timed(peer, compiled, rounds, peer.warm)
    if body.n != total * (rounds + peer.warm) and not peer.remote:
        raise AssertionError(f"ran {body.n} of {total * (rounds + peer.warm)} nodes")
    found = {"us_per_node": wall * 1e6 / total, "nodes_per_s": total / wall, "cpu_us_per_node": cpu * 1e6 / total}
    return {"nodes": total, "build_ms": built * 1e3, "wall_ms": wall * 1e3, **found}


async def waiting_nodes(peer: Peer, letter: str, n: int, rounds: int) -> dict[str, Any]:
    """d and e: waiting nodes, by sleeping or for a server."""
    g = shapes.layered(n, width=15)
    total = g.number_of_nodes()
    found: dict[str, Any] = {}
    if letter == "d":
        wall, cpu = await timed(peer, peer.compile(g, peer.sleeper(), "dag"), rounds, warm=0)
    else:
        mock = Mock(shapes.SLEEP, shapes.SEED)
        try:
            async with Clients(peer.client, mock.base) as client:
                compiled = peer.compile(g, peer.caller(client, mock.base), "dag")
                await client.call("warm")
                mock.reset()
                wall, cpu = await timed(peer, compiled, rounds, warm=0)
                found = answered(mock, total * rounds)
        finally:
            mock.close()
    path, barrier = shapes.critical_path(g, shapes.node_latency), shapes.barrier_path(g, shapes.node_latency)
    found |= {"critical_path_ms": path * 1e3, "makespan_over_cp": wall / path, "barrier_over_cp": barrier / path}
    return {"nodes": total, "wall_ms": wall * 1e3, "cpu_us_per_node": cpu * 1e6 / total, **found}


def answered(mock: Mock, wanted: int) -> dict[str, Any]:
    """Returns the server's time for a request, if it answered each once."""
    stats = mock.stats()
    if stats["by"].get("ok") != wanted:
        raise AssertionError(f"the server answered {stats['by']}, and {wanted} calls were wanted")
    return {"server_cpu_us_per_req": stats["cpu_s"] * 1e6 / stats["total"]}


async def many_runs(peer: Peer, n: int, rounds: int) -> dict[str, Any]:
    """f: `n` concurrent runs of 8 nodes, each node a call of 20 ms."""
    mock = Mock(f"fixed:{CALL_S * 1e3:g}", shapes.SEED)
    measured = []
    try:
        async with Clients(peer.client, mock.base) as client:
            compiled = peer.compile(shapes.diamond(), peer.caller(client, mock.base), "diamond")
            await peer.run(compiled, "warm")
            mock.reset()
            measured = [await burst(peer, compiled, n) for _ in range(rounds)]
            found = answered(mock, 8 * n * rounds)
    finally:
        mock.close()
    wall, cpu, middle, late = (statistics.median(one) for one in zip(*measured, strict=True))
    ideal = DEPTH * CALL_S
    found |= {
        "runs_per_s": n / wall,
        "calls_per_s": 8 * n / wall,
        "p50_over_ideal": middle / ideal,
        "p99_over_ideal": late / ideal,
    }
    return {
        "nodes": 8 * n,
        "wall_ms": wall * 1e3,
        "cpu_us_per_node": cpu * 1e6 / (8 * n),
        "runs_per_cpu_s": n / cpu,
        **found,
    }


async def burst(peer: Peer, compiled: Any, n: int) -> tuple[float, float, float, float]:
    """Returns wall-clock and processor seconds of `n` runs that start together, and the median and 99th percentile of
    one.
    """
    took: list[float] = []

    async def one(number: int) -> None:
        began = time.perf_counter()
        await peer.run(compiled, f"f{number}-{began}")
        took.append(time.perf_counter() - began)

    gc.collect()
    cpu, wall = peer.cpu(), time.perf_counter()
    await asyncio.gather(*(one(number) for number in range(n)))
    wall, cpu = time.perf_counter() - wall, peer.cpu() - cpu
    took.sort()
    return wall, cpu, took[n // 2], took[min(n - 1, int(n * 0.99))]


async def idle_runs(peer: Peer, n: int) -> dict[str, Any]:
    """i: `n` runs that wait in their first node and then continue."""
    gate, full_house, waiting = asyncio.Event(), asyncio.Event(), [0]

    async def first(v: Any) -> Any:
        if v == 0:
            waiting[0] += 1
            if waiting[0] == n:
                full_house.set()
            await gate.wait()
        return v

    compiled = peer.compile(shapes.diamond(), first, "diamond")
    gate.set()
    await peer.run(compiled, "warm")
    gate.clear()
    waiting[0] = 0
    gc.collect()
    empty, began = shapes.resident_mib(), time.perf_counter()
    tasks = [asyncio.ensure_future(peer.run(compiled, f"i{number}")) for number in range(n)]
    async with asyncio.timeout(LIMIT_S / 2):
        await full_house.wait()
    started = time.perf_counter() - began
    gc.collect()
    full, draining = shapes.resident_mib(), time.perf_counter()
    gate.set()
    await asyncio.gather(*tasks)
    wall = started + time.perf_counter() - draining
    found = {
        "kib_per_run": (full - empty) * 1024 / max(1, waiting[0]),
        "start_ms": started * 1e3,
        "wall_ms": wall * 1e3,
    }
    return {"nodes": n, "started": n, **found}


async def workload(peer: Peer, letter: str, n: int, rounds: int) -> dict[str, Any]:
    """Returns the results of one workload."""
    match letter:
        case "f":
            return await many_runs(peer, n, rounds)
        case "i":
            return await idle_runs(peer, n)
        case "d" | "e":
            return await waiting_nodes(peer, letter, n, rounds)
        case _:
            return await empty_nodes(peer, letter, n, rounds)


async def measured(peer: Peer, letters: str) -> None:
    """Prints one line of JSON for each workload; an error in one is its result."""
    given = peer.args
    versions = {name: _version(name) for name in peer.packages}
    await peer.setup()
    try:
        for letter in letters:
            n = given.n or peer.n_default.get(letter) or SIZES[letter]
            found: dict[str, Any] = {"peer": peer.name, "workload": letter, "n": n}
            try:
                rounds = given.inner or peer.inner.get(letter) or ROUNDS[letter]
                found |= await asyncio.wait_for(workload(peer, letter, n, rounds), LIMIT_S)
            except Exception as error:  # noqa: BLE001 - a peer may raise anything; it is reported as the result
                found["error"] = f"{type(error).__name__}: {error}"[:300]
                if os.environ.get("BENCH_TRACE"):
                    traceback.print_exc()
            found |= {"variant": given.variant, "client": peer.client if letter in "ef" else "", "versions": versions}
            print(json.dumps({**found, "python": sys.version.split()[0]}), flush=True)
    finally:
        await peer.teardown()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "-"


def main(cls: type[Peer]) -> None:
    """The command line of an adapter."""
    options = argparse.ArgumentParser(description=cls.__doc__)
    options.add_argument("--workload", default="a", help="letters, as in acf; all: all that this peer supports")
    options.add_argument("--n", type=int, default=0, help="nodes; for f and i, runs")
    options.add_argument("--inner", type=int, default=0, help="measurements in this process")
    options.add_argument("--client", default=None, help="openai, openai-aiohttp or aiohttp")
    options.add_argument("--variant", default="")
    given = options.parse_args()
    peer = cls(given)
    if given.client:
        peer.client = given.client
    wanted = peer.workloads if given.workload == "all" else given.workload
    asyncio.run(measured(peer, "".join(letter for letter in wanted if letter in peer.workloads)))

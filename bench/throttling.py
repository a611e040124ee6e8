"""Throughput against an endpoint that rejects some requests, and goodput against an overloaded one: three concurrency
limits and a plain client.

    python -m bench.throttling [--runs 400] [--rounds 1] [--seconds 20] [--only 429 503 mixed capacity] [--record]

A run is eight sequential calls; many runs start together, and the endpoint (`bench.throttling_server`, a separate
process) gets 64 concurrent requests. The limits are Orchestra's own, its earlier AIMD (half the limit for each
rejection), and a fixed window, all behind `orchestra.fleet.concurrency_limit.ConcurrencyLimit`, in the engine. The
plain client is aiohttp with a semaphore and tenacity's exponential back-off.

Rates are of the first nine tenths of the successful calls: the last ones wait for their own back-off. Each is divided
by the rate of the same client without faults in the same round; beside it is the same up to the last call. An
overloaded endpoint has 16 slots, rejects further requests, and gets 1.2 times the load that these answer in 50 ms;
goodput is the share of the slots' time in which requests are answered, so the load of the machine does not change the
capacity. Exits with 1 if Orchestra misses a goal.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import math
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias
from unittest import mock

import aiohttp
import tenacity

from bench import machine
from bench.throttling_server import LATENCY, SLOTS
from orchestra import Orchestra
from orchestra.core.settings import Settings
from orchestra.fleet import dispatch, sender
from orchestra.fleet.concurrency import AdaptiveLimit, ConcurrencyLimit, InFlightRequest, RequestOutcome
from orchestra.workflows.python.steps import Workflow
from orchestra.workflows.yaml.reader import read

MOST = 1 << 24
"""Maximal number of bytes of a response, as in Orchestra."""
CALLS = 8
"""Calls of one run."""
WINDOW = 64
"""Maximal number of concurrent requests, the default of a fleet file."""
LOAD = 1.2
"""Offered load as a multiple of the endpoint's capacity."""
FLEET = """
schema: orchestra/fleet/v1
name: scripted
servers:
  scripted: {{endpoint: "http://127.0.0.1:{port}/{scenario}/v1", model: m, dialect: vllm,
             external: false, label: restricted}}
models: {{base: scripted}}
limits: {{in_flight: {window}, request_seconds: {seconds}}}
"""
CARD = """
name: writer
description: Says yes.
input: {text: str}
output: str
prompt: prompt.md
max_output: 5
"""
NODES = "\n".join(
    f'  n{at}: {{agent: writer, with: {{text: "${{{f"n{at - 1}" if at else "input.text"}}}"}}}}' for at in range(CALLS)
)
WORKFLOW = f"schema: orchestra/v1\nname: chain\ninput: {{text: str}}\noutput: ${{n{CALLS - 1}}}\nnodes:\n{NODES}\n"
DONE = 0.95
"""Minimal share of successful runs with mixed faults."""


class Aimd:
    """The earlier limit: plus one after as many answers as the limit, half for each rejection (Chiu and Jain 1989)."""

    def __init__(self, most: int) -> None:
        self._most, self._limit = most, float(most)

    @property
    def limit(self) -> int:
        """Concurrent requests."""
        return int(self._limit)

    def record_sent(self, in_flight: int) -> InFlightRequest:
        """Ignored."""
        return InFlightRequest()

    def record_finished(self, request: InFlightRequest, outcome: RequestOutcome) -> None:
        """Halves the limit for each rejection."""
        if outcome == "rejected":
            self._limit = max(1.0, self._limit / 2)
        elif outcome == "success":
            self._limit = min(float(self._most), self._limit + 1 / self._limit)


class Fixed:
    """A constant limit."""

    def __init__(self, most: int) -> None:
        self.limit = most

    def record_sent(self, in_flight: int) -> InFlightRequest:
        """Ignored."""
        return InFlightRequest()

    def record_finished(self, request: InFlightRequest, outcome: RequestOutcome) -> None:
        """Ignored."""


LIMITS: dict[str, Callable[[int], ConcurrencyLimit]] = {"orchestra": AdaptiveLimit, "aimd": Aimd, "fixed window": Fixed}
PLAIN = "tenacity"


@dataclass
class Tally:
    """Times of successful calls, the number of successful runs, and the error codes of the others."""

    began: float = field(default_factory=time.perf_counter)
    calls: list[float] = field(default_factory=list)
    done: int = 0
    errors: Counter[str] = field(default_factory=Counter)

    @property
    def rate(self) -> float:
        """Returns calls per second of the first nine tenths."""
        part = sorted(self.calls)[: max(1, len(self.calls) * 9 // 10)]
        return len(part) / (part[-1] - self.began) if part else 0.0

    @property
    def whole(self) -> float:
        """Returns calls per second up to the last one."""
        return len(self.calls) / (max(self.calls) - self.began) if self.calls else 0.0

    @property
    def share(self) -> float:
        """Returns the share of successful runs."""
        return self.done / max(1, self.done + self.errors.total())


@dataclass(frozen=True)
class Place:
    """The location of the endpoint and the parameters of requests."""

    port: int
    scenario: str
    window: int = WINDOW
    seconds: float = 600.0

    async def counters(self) -> dict[str, float]:
        """Returns the counters of the endpoint."""
        url = f"http://127.0.0.1:{self.port}/{self.scenario}/counters"
        async with aiohttp.ClientSession() as session, session.get(url) as said:
            return dict(json.loads(await said.read()))


Client: TypeAlias = Callable[[Tally], Coroutine[Any, Any, None]]
"""Executes one run."""


@contextlib.contextmanager
def limited(name: str) -> Iterator[None]:
    """Gives fleets that are opened in the block such a limit. Only Orchestra's own limit pauses a server after
    consecutive rejections.
    """
    made = partial(sender.Sender, concurrency=LIMITS[name])
    several = sender.REJECTION_THRESHOLD if name == "orchestra" else sys.maxsize
    with mock.patch.object(dispatch, "Sender", made), mock.patch.object(sender, "REJECTION_THRESHOLD", several):
        yield


@contextlib.asynccontextmanager
async def engine(place: Place, name: str) -> AsyncIterator[Client]:
    """Runs of Orchestra."""
    with tempfile.TemporaryDirectory() as made, limited(name):
        folder = Path(made)
        (folder / "agents" / "writer").mkdir(parents=True)
        (folder / "agents" / "writer" / "agent.yaml").write_text(CARD)
        (folder / "agents" / "writer" / "prompt.md").write_text("Say: {{ text }}\n")
        (folder / "orchestra.toml").write_text("")
        (folder / "fleet.yaml").write_text(
            FLEET.format(port=place.port, scenario=place.scenario, window=place.window, seconds=place.seconds)
        )
        settings = Settings.load({"fleet": str(folder / "fleet.yaml"), "journal": "off"}, start=folder)
        step = Workflow.from_graph(read(WORKFLOW, "chain.yaml").graph)
        async with Orchestra.open(settings, fleet="none", progress=lambda _: None) as orchestra:

            async def client(tally: Tally) -> None:
                run = await orchestra.start(step, text="yes")
                ends = [e async for e in run.events()]
                tally.calls += [time.perf_counter() - (ends[-1].at - e.at) for e in ends if getattr(e, "final", False)]
                result = await run.wait()
                if result.status == "done":
                    tally.done += 1
                else:
                    tally.errors[result.error.code if result.error is not None else result.status] += 1

            yield client


@contextlib.asynccontextmanager
async def plain(place: Place) -> AsyncIterator[Client]:
    """Runs of aiohttp, a semaphore and tenacity: 429 and 503 until the deadline, other faults three times."""
    gate, url = asyncio.Semaphore(place.window), f"http://127.0.0.1:{place.port}/{place.scenario}/v1/chat/completions"
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Say: yes"}], "max_tokens": 5}).encode()
    limit = aiohttp.ClientTimeout(total=place.seconds)
    faults = (aiohttp.ClientError, TimeoutError, ValueError, LookupError, RecursionError)

    class Busy(Exception):
        pass

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=limit) as session:

        @tenacity.retry(
            retry=tenacity.retry_if_exception_type(faults), stop=tenacity.stop_after_attempt(3), reraise=True
        )
        @tenacity.retry(
            retry=tenacity.retry_if_exception_type(Busy),
            wait=tenacity.wait_random_exponential(multiplier=0.25, max=8),
            stop=tenacity.stop_after_delay(place.seconds),
        )
        async def call() -> None:
            async with gate, session.post(url, data=body, allow_redirects=False) as said:
                if said.status in (429, 503):
                    raise Busy
                said.raise_for_status()
                got = b""
                async for piece in said.content.iter_chunked(1 << 16):
                    got += piece
                    if len(got) > MOST:
                        raise ValueError("too large")
            json.loads(got)["choices"][0]

        async def client(tally: Tally) -> None:
            try:
                for _ in range(CALLS):
                    await call()
                    tally.calls.append(time.perf_counter())
                tally.done += 1
            except (*faults, tenacity.RetryError) as error:
                tally.errors[type(error).__name__] += 1

        yield client


def opened(place: Place, name: str) -> contextlib.AbstractAsyncContextManager[Client]:
    """Opens the client of a name."""
    return plain(place) if name == PLAIN else engine(place, name)


async def all_at_once(place: Place, name: str, runs: int) -> Tally:
    """Starts that many runs together."""
    async with opened(place, name) as client:
        tally = Tally()
        await asyncio.gather(*(client(tally) for _ in range(runs)))
    return tally


async def goodput(place: Place, name: str, seconds: float) -> tuple[float, float]:
    """Returns the share of an overloaded endpoint's capacity that is answered after the first second, and rejections
    for each answer.
    """
    async with opened(place, name) as client:
        tally, began = Tally(), time.perf_counter()
        tasks, counted = set[asyncio.Task[None]](), dict[str, float]()
        rate = LOAD * SLOTS / LATENCY / CALLS
        for number in itertools.count(1):
            now = time.perf_counter() - began
            if now >= 1 and not counted:
                first, counted = now, await place.counters()
            if now >= seconds + 1:
                break
            tasks.add(asyncio.create_task(client(tally)))
            await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
        after, last = await place.counters(), time.perf_counter() - began
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    good, bad, busy = (after[kind] - counted[kind] for kind in ("answered", "rejected", "busy"))
    return busy / SLOTS / (last - first), bad / max(1, good)


@dataclass
class Table:
    """Ratios by scenario, client and round."""

    found: dict[tuple[str, str], list[float]] = field(default_factory=dict)

    def add(self, scenario: str, name: str, value: float) -> None:
        """Adds a ratio."""
        self.found.setdefault((scenario, name), []).append(value)
        print(f"{scenario} | {name} | {value:.2f}", file=sys.stderr, flush=True)

    def of(self, scenario: str, name: str) -> float:
        """Returns the median."""
        return median(self.found.get((scenario, name), [math.nan]))

    def shown(self) -> str:
        """Returns Markdown."""
        names = list(dict.fromkeys(name for _, name in self.found))
        lines = [f"| | {' | '.join(names)} |", f"|---|{'---:|' * len(names)}"]
        for scenario in dict.fromkeys(scenario for scenario, _ in self.found):
            cells = ("" if math.isnan(value := self.of(scenario, name)) else f"{value:.2f}" for name in names)
            lines.append(f"| {scenario} | {' | '.join(cells)} |")
        return "\n".join(lines)


async def measured(port: int, given: argparse.Namespace) -> Table:
    """Runs all scenarios with all clients."""
    table, number = Table(), itertools.count()

    def place(scenario: str, **more: float) -> Place:
        return Place(port, f"{scenario}-{next(number)}", **more)  # type: ignore[arg-type]  # a window is whole

    for turn in range(given.rounds):
        names = given.clients
        for name in names if turn % 2 == 0 else names[::-1]:
            clean = await all_at_once(place("clean"), name, given.runs)
            table.add("without faults: calls a second", name, clean.rate)
            for scenario in (one for one in ("429", "503") if one in given.only):
                tally = await all_at_once(place(scenario), name, given.runs)
                table.add(f"5 % {scenario}: share of the rate without faults", name, tally.rate / clean.rate)
                table.add(f"5 % {scenario}: the same, to the last call", name, tally.whole / clean.whole)
            if "mixed" in given.only:
                tally = await all_at_once(place("mixed", seconds=given.request_seconds), name, given.runs)
                table.add("14 % mixed faults: share of the rate", name, tally.rate / clean.rate)
                table.add("14 % mixed faults: share of runs that finish", name, tally.share)
                print(f"errors of the other runs: {dict(tally.errors)}", file=sys.stderr, flush=True)
        if "capacity" in given.only:
            for name in names:
                good, rejected = await goodput(place("capacity"), name, given.seconds)
                table.add("1.2 times the capacity: goodput / capacity", name, good)
                table.add("1.2 times the capacity: rejections per answer", name, rejected)
    return table


async def main() -> int:
    """Measures, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=20.0, help="duration of each goodput measurement")
    parser.add_argument("--only", nargs="+", default=["429", "503", "mixed", "capacity"])
    parser.add_argument("--clients", nargs="+", default=[*LIMITS, PLAIN])
    parser.add_argument(
        "--record",
        action="store_true",
        help="store the table for docs/evaluation/performance.md (python -m bench.page)",
    )
    parser.add_argument(
        "--request-seconds",
        type=float,
        default=30.0,
        help="request timeout with mixed faults; the product's default is 600",
    )
    given = parser.parse_args()
    pipe = asyncio.subprocess.PIPE
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.throttling_server", stdin=pipe, stdout=pipe
    )
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        table = await measured(int(await server.stdout.readline()), given)
    finally:
        server.stdin.close()
        server.kill()
        await server.wait()
    told = f"{table.shown()}\n\n{machine.now()}; {machine.code()}."
    print(told)
    if given.record:
        (machine.folder() / "throttling.txt").write_text(f"{told}\n", "utf-8")
    values = {scenario: table.of(scenario, "orchestra") for scenario, name in table.found if name == "orchestra"}
    wanted = {
        "5 % 429: share": 0.7,
        "5 % 503: share": 0.7,
        "1.2 times the capacity: goodput": 0.9,
        "14 % mixed faults: share of runs": DONE,
    }
    missed = [
        scenario
        for scenario, value in values.items()
        for start, goal in wanted.items()
        if scenario.startswith(start) and value < goal
    ]
    print(*(f"missed: {name}" for name in missed), sep="\n", end="")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))

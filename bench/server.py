"""The HTTP server compared with `Orchestra.run` in one process, with Starlette alone, and with peers' servers.

    python -m bench.server [--runs 2000] [--concurrency 200] [--rounds 3] [--streams 5000] [--only NAME ...] [--record]

A run is a workflow of 8 nodes and depth 5, whose calls take 20 ms, so it takes at least 100 ms. As many clients as
`--concurrency` each send one request after the other, over kept connections, and wait for the result. `Orchestra.run`
does the same without HTTP; it and the server have a journal in a file. Every server is a process of its own, and so are
the clients. A peer is installed in an environment of its own (`bench.peers.environments`).

Idle streams: a reader of the events of a run that waits for a person; the figure is the growth of the server's resident
memory for each. Exits with 1 if a goal is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import aiohttp

from bench import machine
from bench.peers import environments
from bench.serving import CALL_SECONDS, DEPTH, closed_loop, raise_limit

HERE = Path(__file__).parent
INSIDE, OURS, BARE = "Orchestra.run, no HTTP", "orchestra serve", "Starlette alone"
RATE_GOAL, PEER_GOAL, P99_GOAL, STREAM_GOAL = 0.85, 3.0, 1.3, 40.0
START_SECONDS = 60.0
STREAMS_PER_RUN = 100


@dataclass(frozen=True)
class Contestant:
    """A server: its command, and how it is asked for a run."""

    command: Sequence[str]
    path: str
    body: Mapping[str, Any]
    environment: str = ""


RUN = {"workflow": "diamond", "inputs": {"text": "x"}}
SERVERS: Mapping[str, Contestant] = {
    OURS: Contestant(("-m", "bench.serving", "orchestra"), "/api/runs", RUN),
    BARE: Contestant(("-m", "bench.serving", "starlette"), "/api/runs", RUN),
    "llama-agents-server": Contestant(
        (str(HERE / "peers" / "serve_llamaindex.py"),), "/workflows/diamond/run", {"start_event": {}}, "llamaserver"
    ),
    "hayhooks": Contestant((str(HERE / "peers" / "serve_hayhooks.py"),), "/diamond/run", {"text": "x"}, "hayhooks"),
}
NAMES = (INSIDE, *SERVERS)


@dataclass
class Figures:
    """Measured values by contestant and quantity; the median of the rounds counts."""

    values: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    stream_kib: float | None = None

    def add(self, name: str, measured: Mapping[str, float]) -> None:
        """Adds the values of a round."""
        for quantity, value in measured.items():
            self.values.setdefault((name, quantity), []).append(value)
        shown = ", ".join(f"{quantity} {value:.4g}" for quantity, value in measured.items())
        print(f"{name}: {shown}", file=sys.stderr, flush=True)

    def of(self, name: str, quantity: str) -> float:
        """Returns the median; NaN without a value."""
        return median(self.values.get((name, quantity), [float("nan")]))

    def ratio(self, name: str, other: str, quantity: str) -> float:
        """Returns the median of the ratios of the rounds, since the load of the machine changes between them."""
        pairs = zip(self.values.get((name, quantity), []), self.values.get((other, quantity), []), strict=False)
        return median([one / two for one, two in pairs] or [float("nan")])


def free_port() -> int:
    """Returns a port that is free now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@asynccontextmanager
async def served(contestant: Contestant) -> AsyncIterator[tuple[int, int]]:
    """Starts a server; yields its port and its process."""
    interpreter = str(environments.python(contestant.environment)) if contestant.environment else sys.executable
    with tempfile.TemporaryDirectory(prefix="orchestra-bench-") as folder:
        port = free_port()
        process = await asyncio.create_subprocess_exec(
            interpreter, *contestant.command, folder, str(port), cwd=HERE.parent, stdout=asyncio.subprocess.DEVNULL
        )
        try:
            async with asyncio.timeout(START_SECONDS):
                while not await _listens(port):
                    if process.returncode is not None:
                        raise RuntimeError(f"the server has ended with {process.returncode}")
                    await asyncio.sleep(0.1)
            yield port, process.pid
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
                try:
                    await asyncio.wait_for(process.wait(), 15)
                except TimeoutError:
                    process.kill()
                    await process.wait()


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def measure_server(contestant: Contestant, concurrency: int, runs: int) -> dict[str, float]:
    """Returns the rate and the latencies of a server."""
    async with (
        served(contestant) as (port, _),
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
    ):

        async def run() -> None:
            url = f"http://127.0.0.1:{port}{contestant.path}"
            async with session.post(url, json=contestant.body) as reply:
                text = await reply.text()
                if reply.status != 200:
                    raise RuntimeError(f"status {reply.status}: {text[:200]}")

        measured: dict[str, float] = await closed_loop(run, concurrency, runs)
        return measured


async def measure_inside(concurrency: int, runs: int) -> dict[str, float]:
    """Returns the same of `Orchestra.run` in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="orchestra-bench-") as folder:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bench.serving", "inside", folder, str(concurrency), str(runs),
            cwd=HERE.parent, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        output, _ = await process.communicate()
    measured: dict[str, float] = json.loads(output)
    return measured


async def measure_streams(count: int) -> float:
    """Returns the KiB of the server's memory that an idle stream takes."""
    async with (
        served(SERVERS[OURS]) as (port, process),
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
    ):
        url = f"http://127.0.0.1:{port}/api/runs"
        runs = list[str]()
        for _ in range(-(-count // STREAMS_PER_RUN)):
            body = {"workflow": "waits", "inputs": {"text": "x"}}
            async with session.post(url, json=body) as reply:
                runs.append((await reply.json(content_type=None))["id"])
        streams = [await _open_stream(port, runs[number % len(runs)]) for number in range(len(runs))]
        before = resident_kib(process)
        streams += [await _open_stream(port, runs[number % len(runs)]) for number in range(count)]
        after = resident_kib(process)
        for writer in streams:
            writer.close()
    return (after - before) / count


async def _open_stream(port: int, run: str) -> asyncio.StreamWriter:
    """Opens a stream and reads what is there, so that it is idle."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET /api/runs/{run}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    await reader.readuntil(b"question_asked")
    return writer


def resident_kib(process: int) -> int:
    """Returns the resident memory of a process."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS:")).split()[1])


async def measure(arguments: argparse.Namespace) -> Figures:
    """Measures everything that is wanted."""
    figures = Figures()
    for number in range(arguments.rounds):
        for name in arguments.only if number % 2 == 0 else arguments.only[::-1]:
            if name in figures.faults:
                continue
            try:
                if name == INSIDE:
                    figures.add(name, await measure_inside(arguments.concurrency, arguments.runs))
                else:
                    figures.add(name, await measure_server(SERVERS[name], arguments.concurrency, arguments.runs))
            except (OSError, RuntimeError, TimeoutError, aiohttp.ClientError) as error:
                figures.faults[name] = f"{type(error).__name__}: {error}"[:200]
                print(f"{name}: {figures.faults[name]}", file=sys.stderr, flush=True)
    if arguments.streams:
        figures.stream_kib = await measure_streams(arguments.streams)
    return figures


def table(figures: Figures, arguments: argparse.Namespace) -> str:
    """Returns the results as Markdown."""
    lines = [
        f"| | runs a second | of {INSIDE} | median, of {DEPTH * CALL_SECONDS * 1e3:.0f} ms | p99 | p99, of {INSIDE} |"
    ]
    lines.append("|---|---:|---:|---:|---:|---:|")
    for name in arguments.only:
        if name in figures.faults:
            lines.append(f"| {name} | not measured: {figures.faults[name]} | | | | |")
            continue
        lines.append(
            f"| {name} | {figures.of(name, 'rate'):.0f} | {figures.ratio(name, INSIDE, 'rate'):.2f} | "
            f"{figures.of(name, 'p50') / (DEPTH * CALL_SECONDS):.2f} | {figures.of(name, 'p99') * 1e3:.0f} ms | "
            f"{figures.ratio(name, INSIDE, 'p99'):.2f} |"
        )
    lines += ["", f"{arguments.concurrency} runs at the same time, {arguments.runs} in all, {arguments.rounds} rounds."]
    if figures.stream_kib is not None:
        lines[-1] += f" {arguments.streams} idle streams: {figures.stream_kib:.1f} KiB each."
    return "\n".join(lines)


def missed_goals(figures: Figures) -> list[str]:
    """Returns the goals that are missed, as far as they were measured."""
    peers = [name for name in SERVERS if name not in (OURS, BARE)]
    ratios = [figures.ratio(OURS, name, "rate") for name in peers]
    checks = [
        (f"rate of {INSIDE}", figures.ratio(OURS, INSIDE, "rate"), RATE_GOAL, 1),
        ("rate of the best peer", min(ratios, default=float("nan")), PEER_GOAL, 1),
        (f"p99 of {INSIDE}", figures.ratio(OURS, INSIDE, "p99"), P99_GOAL, -1),
        ("KiB of a stream", figures.stream_kib if figures.stream_kib is not None else float("nan"), STREAM_GOAL, -1),
    ]
    return [
        f"missed: {name}: {value:.2f}, goal {goal}" for name, value, goal, sign in checks if (value - goal) * sign < 0
    ]


def main() -> int:
    """Measures, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--concurrency", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--streams", type=int, default=5000, help="idle streams; 0 for none")
    parser.add_argument("--only", nargs="+", default=list(NAMES), choices=NAMES)
    parser.add_argument("--record", action="store_true", help="store the table for docs/evaluation (bench.page)")
    arguments = parser.parse_args()
    raise_limit()
    os.environ["PYTHONPATH"] = str(HERE.parent)
    peers = [SERVERS[name].environment for name in arguments.only if name in SERVERS and SERVERS[name].environment]
    environments.prepare(peers)
    figures = asyncio.run(measure(arguments))
    shown = f"{table(figures, arguments)}\n\n{machine.now()}; {machine.code()}."
    print(shown)
    if arguments.record:
        (machine.folder() / "server.txt").write_text(f"{shown}\n", "utf-8")
    missed = missed_goals(figures)
    print(*missed, sep="\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())

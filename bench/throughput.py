"""Tokens per second through the engine, compared with the same requests sent directly to the server.

    python -m bench.throughput [--fleet laptop] [--requests 32] [--rounds 3]

Both arms send the same bytes: the direct arm replays the request bodies in the engine's journal with only aiohttp. Each
round runs both arms in alternating order; the table has the medians and their ratio. Needs the local fleet, which it
starts or adopts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import aiohttp

from bench import signing
from orchestra import Orchestra
from orchestra.core.events import AttemptFinished
from orchestra.core.settings import Settings
from orchestra.workflows.python.steps import Workflow
from orchestra.workflows.yaml.reader import read

CARD = """
name: storyteller
description: Tells a short story about a number.
input: {number: int}
output: str
prompt: prompt.md
max_output: 40
"""
WORKFLOW = """
schema: orchestra/v1
name: stories
input: {numbers: "list[int]"}
output: ${stories.values}
nodes:
  stories: {agent: storyteller, each: "${input.numbers}", as: number, concurrency: %d, with: {number: "${number}"}}
"""


def project(folder: Path) -> None:
    """Writes a project with one agent, whose output is free text of at most 40 tokens."""
    agent = folder / "agents" / "storyteller"
    agent.mkdir(parents=True)
    (agent / "agent.yaml").write_text(CARD)
    (agent / "prompt.md").write_text("Tell me a short story about the number {{ number }}.\n")
    (folder / "orchestra.toml").write_text("")


async def through_engine(
    orchestra: Orchestra, concurrency: int, requests: int, first: int
) -> tuple[float, int, list[bytes]]:
    """Returns seconds, output tokens, and the sent bodies."""
    step = Workflow.from_graph(read(WORKFLOW % concurrency, "stories.yaml").graph)
    began = time.perf_counter()
    run = await orchestra.start(step, numbers=list(range(first, first + requests)))
    result = await run
    seconds = time.perf_counter() - began
    sent = [event.sent for event in await orchestra.journal.read(run.id) if isinstance(event, AttemptFinished)]
    return seconds, result.usage.output_tokens, [await orchestra.journal.get_blob(digest) or b"" for digest in sent]


async def straight(
    address: str, headers: Mapping[str, str], concurrency: int, bodies: list[bytes]
) -> tuple[float, int]:
    """Returns seconds and output tokens of the same bodies, sent with only aiohttp."""
    gate, tokens = asyncio.Semaphore(concurrency), 0
    told = {**headers, "content-type": "application/json"}

    async def one(session: aiohttp.ClientSession, body: bytes) -> None:
        nonlocal tokens
        async with gate, session.post(f"{address}/v1/chat/completions", data=body, headers=told) as reply:
            tokens += json.loads(await reply.read())["usage"]["completion_tokens"]

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for body in bodies:
                group.create_task(one(session, body))
        return time.perf_counter() - began, tokens


async def measure(
    orchestra: Orchestra, address: str, headers: Mapping[str, str], concurrency: int, requests: int, rounds: int
) -> tuple[float, float]:
    """Returns medians of tokens per second: engine, direct. Each round has new numbers, so the prefix cache has no
    effect.
    """
    engine: list[float] = []
    direct: list[float] = []
    _, _, bodies = await through_engine(orchestra, concurrency, requests, 1000)
    for turn in range(rounds):
        for arm in ("engine", "direct") if turn % 2 else ("direct", "engine"):
            if arm == "engine":
                seconds, tokens, _ = await through_engine(orchestra, concurrency, requests, 1000)
                engine.append(tokens / seconds)
            else:
                seconds, tokens = await straight(address, headers, concurrency, bodies)
                direct.append(tokens / seconds)
    return statistics.median(engine), statistics.median(direct)


async def main() -> int:
    """Prints the table; exits with 1 if a ratio is below the goal of 0.95."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fleet", default="laptop")
    parser.add_argument("--requests", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    ratios: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        project(Path(folder))
        settings = Settings.load(
            {"fleet": given.fleet, "concurrency": 64, "journal": str(Path(folder) / "journal.db")}, start=Path(folder)
        )
        async with Orchestra.open(settings, progress=lambda step: print(step.message, file=sys.stderr)) as orchestra:
            await through_engine(orchestra, 1, 1, 1)
            status = await orchestra.fleet_status()
            address, headers = status.servers[0].address, await signing.headers(settings)
            print("| concurrency | engine tok/s | direct tok/s | ratio | goal |\n|---|---|---|---|---|")
            for concurrency in (1, 8, 32):
                requests = max(4, min(given.requests, 4 * concurrency))
                engine, direct = await measure(orchestra, address, headers, concurrency, requests, given.rounds)
                ratios.append(engine / direct)
                print(f"| {concurrency} | {engine:.0f} | {direct:.0f} | {engine / direct:.3f} | 0.95 |", flush=True)
    return 0 if min(ratios) >= 0.95 else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))

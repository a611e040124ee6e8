"""The cost of token log-probabilities: the same requests with and without `logprobs`, directly to the server.

`bench.verification --cost` runs it. The order of the arms alternates by round; the table has medians.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import Mapping, Sequence

import aiohttp

AT_ONCE = 32


async def sent(address: str, headers: Mapping[str, str], bodies: Sequence[bytes]) -> tuple[float, int]:
    """Returns tokens per second, and the bytes of all responses."""
    gate, tokens, size = asyncio.Semaphore(AT_ONCE), 0, 0
    told = {**headers, "content-type": "application/json"}

    async def one(session: aiohttp.ClientSession, body: bytes) -> None:
        nonlocal tokens, size
        async with gate, session.post(f"{address}/v1/chat/completions", data=body, headers=told) as reply:
            received = await reply.read()
            tokens += json.loads(received)["usage"]["completion_tokens"]
            size += len(received)

    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(600)
    ) as session:
        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for body in bodies:
                group.create_task(one(session, body))
        return tokens / (time.perf_counter() - began), size


async def weighed(address: str, headers: Mapping[str, str], bodies: Sequence[bytes], rounds: int) -> str:
    """Returns a line of the table: tokens per second without and with, their ratio, and bytes per response without and
    with.
    """
    arms = {"without": [_asking(body, False) for body in bodies], "with": [_asking(body, True) for body in bodies]}
    await sent(address, headers, arms["without"])  # caches the prompts' prefixes for both arms
    rates: dict[str, list[float]] = {"without": [], "with": []}
    sizes: dict[str, int] = {}
    for turn in range(rounds):
        for arm in ("without", "with") if turn % 2 else ("with", "without"):
            rate, sizes[arm] = await sent(address, headers, arms[arm])
            rates[arm].append(rate)
    without, told = statistics.median(rates["without"]), statistics.median(rates["with"])
    ratios = sorted(b / a for a, b in zip(rates["without"], rates["with"], strict=True))
    spread = f"{statistics.median(ratios):.3f} [{ratios[0]:.3f}, {ratios[-1]:.3f}]"
    return (
        f"{without:.0f} | {told:.0f} | {spread} | {sizes['without'] / len(bodies):.0f} | "
        f"{sizes['with'] / len(bodies):.0f}"
    )


HEAD = """\
| agent | requests | tokens/s without | with | ratio a round | bytes an answer without | with |
|---|---:|---:|---:|---:|---:|---:|"""


def _asking(body: bytes, told: bool) -> bytes:
    said = json.loads(body)
    for key in ("logprobs", "top_logprobs"):
        said.pop(key, None)
    return json.dumps(said | ({"logprobs": True} if told else {})).encode()

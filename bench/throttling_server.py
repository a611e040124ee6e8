"""A scripted endpoint on loopback for `bench.throttling`: it answers after 50 ms, rejects, is full, or fails in several
ways.

    python -m bench.throttling_server        # prints its port, serves until its input ends

The first part of a path selects the scenario and names its counters, such as `/mixed-7/v1/chat/completions`; `GET
/mixed-7/counters` returns them.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field

LATENCY = 0.05
SLOTS = 16
"""Concurrent requests of scenarios with a capacity."""
SHARE = {"429": 0.05, "503": 0.05, "mixed": 0.14}
"""Share of requests that a scenario fails."""
CHOICES = [{"index": 0, "message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}]
USAGE = {"prompt_tokens": 11, "completion_tokens": 3}


def reply(**changed: object) -> bytes:
    """Returns the body of a response."""
    return json.dumps({"id": "x", "model": "m", "choices": CHOICES, "usage": USAGE, **changed}).encode()


@dataclass
class Scenario:
    """The state of one scenario."""

    name: str
    requests: int = 0
    answered: int = 0
    rejected: int = 0
    inside: int = 0
    busy: float = 0.0
    """Seconds of all slots together in which requests were answered."""
    chance: random.Random = field(default_factory=lambda: random.Random(7))

    def fault(self) -> str:
        """Returns the fault of the next request; empty for none."""
        kind = self.name.partition("-")[0]
        if kind == "capacity":
            return "busy" if self.inside >= SLOTS else ""
        if self.chance.random() >= SHARE.get(kind, 0.0):
            return ""
        return {"429": "busy", "503": "unavailable"}.get(kind) or self.chance.choice(tuple(FAULTS))


class Connection:
    """One connection and its faults."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def say(self, *pieces: bytes) -> None:
        """Writes bytes."""
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()

    async def answer(self, body: bytes, status: str = "200 OK", *headers: str) -> None:
        """Sends a complete response."""
        head = "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""])
        await self.say(head.encode() + body)

    async def hang(self) -> None:
        """Sends nothing while the client waits."""
        await self.reader.read()

    async def reset(self) -> None:
        """Closes the connection."""
        self.writer.transport.abort()

    async def half(self) -> None:
        """Sends half of a response."""
        body = reply()
        await self.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body), body[: len(body) // 2])
        self.writer.transport.abort()

    async def drip(self) -> None:
        """Sends one byte of a response each second."""
        await self.say(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n")
        for _ in range(900):
            await self.say(b" ")
            await asyncio.sleep(1)

    async def endless_headers(self) -> None:
        """Sends endless headers."""
        await self.say(b"HTTP/1.1 200 OK\r\n")
        while True:
            await self.say(b"X-More: " + b"x" * 1000 + b"\r\n")

    async def endless_body(self) -> None:
        """Sends an endless body."""
        await self.say(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            await self.say(b"x" * 65_536)


FAULTS: dict[str, Callable[[Connection], Awaitable[None]]] = {
    "busy": lambda to: to.answer(b"", "429 Too Many Requests", "Retry-After: 1"),
    "unavailable": lambda to: to.answer(b"", "503 Service Unavailable"),
    "hang": Connection.hang,
    "reset": Connection.reset,
    "half": Connection.half,
    "garbage": lambda to: to.answer(b"\xff\x00garbage"),
    "large": lambda to: to.answer(b"x" * 10_000_000),
    "drip": Connection.drip,
    "html": lambda to: to.answer(b"<html><body>Sign in</body></html>"),
    "redirect": lambda to: to.answer(b"", "302 Found", "Location: http://127.0.0.1:1/"),
    "deep": lambda to: to.answer(b"[" * 200_000 + b"]" * 200_000),
    "negative usage": lambda to: to.answer(reply(usage={"prompt_tokens": -5, "completion_tokens": -5})),
    "huge usage": lambda to: to.answer(reply(usage={"prompt_tokens": 1e30, "completion_tokens": 1e30})),
    "no choices": lambda to: to.answer(reply(choices=[])),
    "endless headers": Connection.endless_headers,
    "endless body": Connection.endless_body,
    "compressed": lambda to: to.answer(b"\x1f\x8b\x08\x00" + b"\x00" * 1000, "200 OK", "Content-Encoding: gzip"),
    "huge length": lambda to: to.say(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000000000000000\r\n\r\n{"),
}


async def serve() -> None:
    """Prints the port, and serves until the input ends."""
    scenarios: dict[str, Scenario] = {}

    async def one(connection: Connection, scenario: Scenario) -> None:
        scenario.requests += 1
        if fault := scenario.fault():
            scenario.rejected += fault in ("busy", "unavailable")
            await FAULTS[fault](connection)
            return
        scenario.inside += 1
        began = asyncio.get_running_loop().time()
        try:
            await asyncio.sleep(LATENCY)
        finally:
            scenario.inside -= 1
        scenario.answered += 1
        scenario.busy += asyncio.get_running_loop().time() - began
        await connection.answer(reply())

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(reader, writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                name = head.split(" ", 2)[1].split("/")[1]
                scenario = scenarios.setdefault(name, Scenario(name))
                if head.startswith("GET"):
                    told = asdict(scenario)
                    del told["chance"]
                    await connection.answer(json.dumps(told).encode())
                    continue
                lengths = [line for line in head.lower().split("\r\n") if line.startswith("content-length:")]
                await reader.readexactly(int(lengths[0][15:]))
                await one(connection, scenario)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(serve())

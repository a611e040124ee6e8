"""Request heads as raw bytes: too slow, too large, and in the right time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from orchestra.server import ServerSettings, http_server
from tests.server.servers import OPEN, TestServer, listening, serving

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
TOO_LARGE = (b"GET /api HTTP/1.1\r\nHost: x\r\nX-Large: ").ljust(http_server.MAX_HEAD_BYTES + 1, b"a")
GET = b"GET /api HTTP/1.1\r\nHost: x\r\n\r\n"


@asynccontextmanager
async def connection(server: TestServer) -> AsyncIterator[Connection]:
    """A connection to a server."""
    async with listening(server.app) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        try:
            yield reader, writer
        finally:
            writer.close()


async def read_until_closed(reader: asyncio.StreamReader) -> bytes:
    """Reads until the server closes; it may reset a connection on which the client still writes."""
    received = bytearray()
    try:
        while chunk := await reader.read(1 << 16):
            received += chunk
    except ConnectionError:
        pass
    return bytes(received)


async def read_reply(reader: asyncio.StreamReader) -> bytes:
    """Reads one reply with its body; returns its head."""
    head = await reader.readuntil(b"\r\n\r\n")
    size = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    await reader.readexactly(int(size.partition(b":")[2]))
    return head


@pytest.mark.parametrize("sent", [b"", b"GET /api HTTP/1.1\r\nHost:", GET + b"GET"])
async def test_head_that_does_not_arrive_ends_the_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(http_server, "HEAD_SECONDS", 0.05)
    async with serving(tmp_path) as server, connection(server) as (reader, writer), asyncio.timeout(20):
        writer.write(sent)
        received = await read_until_closed(reader)
    assert received.count(b"HTTP/1.1 ") == sent.count(GET)


async def test_head_byte_by_byte_is_not_given_more_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "HEAD_SECONDS", 0.05)
    async with serving(tmp_path) as server, connection(server) as (reader, writer), asyncio.timeout(20):
        closed = asyncio.ensure_future(read_until_closed(reader))
        writer.write(b"GET /api HTTP/1.1\r\nX-Slow: ")
        while not closed.done():
            writer.write(b"a")
            await asyncio.sleep(0.001)
    assert closed.result() == b""


@pytest.mark.parametrize("first", [b"", GET])
async def test_head_that_is_too_large_is_refused_before_its_end(tmp_path: Path, first: bytes) -> None:
    async with serving(tmp_path) as server, connection(server) as (reader, writer), asyncio.timeout(60):
        if first:
            writer.write(first)
            await read_reply(reader)
        writer.write(TOO_LARGE)
        reply = await read_until_closed(reader)
    assert reply.startswith(b"HTTP/1.1 431 ")


async def test_head_that_is_too_large_ends_a_stream(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        run = (await server.run("approve", {"draft": "a"}))["id"]
        async with connection(server) as (reader, writer), asyncio.timeout(60):
            writer.write(f"GET /api/runs/{run}/events HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            await reader.readuntil(b"question_asked")
            writer.write(TOO_LARGE[:20])
            await asyncio.sleep(0.05)  # The bytes of a head are counted from the second read on.
            writer.write(TOO_LARGE[20:] + b"a" * 20)
            rest = await read_until_closed(reader)
    assert b"HTTP/1.1" not in rest


async def test_requests_of_a_kept_connection_are_bounded_one_by_one(tmp_path: Path) -> None:
    head = b"GET /api HTTP/1.1\r\nHost: x\r\nX-Large: " + b"a" * 30_000 + b"\r\n\r\n"
    async with serving(tmp_path) as server, connection(server) as (reader, writer), asyncio.timeout(60):
        heads = list[bytes]()
        for _ in range(4):
            writer.write(head[:-4])
            await asyncio.sleep(0.01)  # The size is checked when a part of a head has arrived.
            writer.write(head[-4:])
            heads.append(await read_reply(reader))
    assert [one.split()[1] for one in heads] == [b"200"] * 4


async def test_rest_of_a_refused_body_is_no_head(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, settings=ServerSettings(auth=False, hosts=("*",), max_body=1000)) as server,
        connection(server) as (reader, writer),
        asyncio.timeout(60),
    ):
        size = http_server.MAX_HEAD_BYTES + 1000
        head = f"POST /api/runs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {size}\r\n\r\n"
        writer.write(head.encode())
        refused = await read_reply(reader)
        writer.write(b" " * (size - 1))
        await asyncio.sleep(0.05)  # The size is checked when a part has arrived.
        writer.write(b" " + GET)
        after = await read_reply(reader)
    assert (refused.split()[1], after.split()[1]) == (b"413", b"200")


async def test_body_may_take_longer_than_a_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "HEAD_SECONDS", 0.05)
    async with serving(tmp_path, settings=OPEN) as server, connection(server) as (reader, writer), asyncio.timeout(60):
        head = b"POST /api/runs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{"
        writer.write(head)
        await asyncio.sleep(0.2)
        writer.write(b"}")
        reply = await read_reply(reader)
    assert reply.split()[1] == b"422"

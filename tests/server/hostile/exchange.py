"""Requests as bytes, and replies as they are on the wire: a client that sends what no library would send."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

REPLY_SECONDS = 60.0
"""Seconds in which a reply must begin and end."""
SECOND_REPLY_SECONDS = 0.2
"""Seconds in which a second reply would arrive, to a request that the server has taken for two."""
HOST = "localhost"


@dataclass(frozen=True)
class Reply:
    """One reply; the status 0 means a connection that ended without one."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    more: bytes = b""
    """What came after it on the connection."""

    def header(self, name: str) -> str:
        """Returns a header; empty without one."""
        return next((value for key, value in self.headers if key == name), "")

    def json(self) -> Any:
        """Returns the body as JSON; None for any other."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


@dataclass(frozen=True)
class Attack:
    """A request, and what the server may reply to it."""

    name: str
    data: bytes
    statuses: frozenset[int] = frozenset()
    """The statuses that are right; any below 500 if it is empty. 0: the server closes the connection."""
    code: str = ""
    """The only right code of an error; empty for any."""
    pointer: str | None = None
    """The only right place of an error; None for any."""
    pieces: tuple[bytes, ...] = ()
    """What is sent later, in pieces, with a pause before each."""
    pause: float = 0.0
    is_single: bool = field(default=False)
    """Whether a second reply is a fault: the server has taken one request for two."""
    leaves: bool = False
    """Whether the client goes away without waiting for a reply."""


def message(
    method: str, path: str, headers: Iterable[tuple[str, str]] = (), body: bytes | None = None, *, host: str = HOST
) -> bytes:
    """Returns a request in the right form around its parts; nothing in them is escaped."""
    lines = [f"{method} {path} HTTP/1.1", *([f"Host: {host}"] if host else [])]
    lines += [f"{name}: {value}" for name, value in headers]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogatepass") + (body or b"")


def bearer(key: str) -> tuple[str, str]:
    """Returns the header of a credential."""
    return "Authorization", f"Bearer {key}"


def json_message(method: str, path: str, value: Any, headers: Sequence[tuple[str, str]] = ()) -> bytes:
    """Returns a request with a JSON body; bytes are sent as they are."""
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return message(method, path, [*headers, ("Content-Type", "application/json")], body)


async def send(port: int, attack: Attack) -> Reply:
    """Sends a request and returns the first reply. Raises `TimeoutError` if there is none."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=64 << 20)
    try:
        async with asyncio.timeout(REPLY_SECONDS):
            writing = asyncio.ensure_future(_write(writer, attack))
            try:
                if attack.leaves:
                    await writing
                    return Reply(0)
                reply = await read_reply(reader, is_head=attack.data.startswith(b"HEAD "))
                more = b""
                if attack.is_single:
                    more = await _read_more(reader)
                return Reply(reply.status, reply.headers, reply.body, more)
            finally:
                writing.cancel()
                await asyncio.gather(writing, return_exceptions=True)
    except (ConnectionError, asyncio.IncompleteReadError):
        return Reply(0)
    finally:
        if writer.transport is not None:
            writer.transport.abort()


async def _write(writer: asyncio.StreamWriter, attack: Attack) -> None:
    """Writes until everything is sent, or the server does not take any more."""
    writer.write(attack.data)
    for piece in attack.pieces:
        await asyncio.sleep(attack.pause)
        if writer.is_closing():
            return
        writer.write(piece)
    await writer.drain()


async def _read_more(reader: asyncio.StreamReader) -> bytes:
    try:
        async with asyncio.timeout(SECOND_REPLY_SECONDS):
            return await reader.read(1 << 16)
    except (TimeoutError, ConnectionError):
        return b""


async def read_reply(reader: asyncio.StreamReader, *, is_head: bool = False) -> Reply:
    """Reads one reply. Of a stream of events, only the first part is read."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            return Reply(599, (), error.partial)
        return Reply(0)
    first, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
    status = int(first.split()[1])
    if status < 200:
        return await read_reply(reader, is_head=is_head)
    headers = tuple((name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines))
    fields: Mapping[str, str] = dict(headers)
    if is_head or status in (204, 304):
        return Reply(status, headers)
    if fields.get("content-type", "").startswith("text/event-stream"):
        return Reply(status, headers, await reader.read(1 << 16))
    if fields.get("transfer-encoding") == "chunked":
        return Reply(status, headers, await _read_chunks(reader))
    return Reply(status, headers, await reader.readexactly(int(fields.get("content-length", "0"))))


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readuntil(b"\r\n")
    return body

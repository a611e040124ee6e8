"""A small HTTP/1.1 server on loopback for one ASGI application, for tests. It can break a connection during a response.

It supports what clients of model servers use: bodies with a length, keep-alive, streamed responses. No TLS, no
upgrades, no pipelining; not for public networks.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any, TypeAlias
from urllib.parse import unquote, urlsplit

Scope: TypeAlias = MutableMapping[str, Any]
AsgiMessage: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[AsgiMessage]]
Send: TypeAlias = Callable[[AsgiMessage], Awaitable[None]]
Application: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

RESET = "orchestra.reset"
"""An ASGI extension of this server: a message of this type aborts the connection, like a killed server."""

_STATUS_PHRASES = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    405: "Method Not Allowed",
    429: "Too Many Requests",
}
_STATUS_PHRASES |= {500: "Internal Server Error", 501: "Not Implemented", 503: "Service Unavailable"}
_MAX_HEAD_BYTES = 64 << 10


@asynccontextmanager
async def serving(app: Application, port: int = 0) -> AsyncIterator[int]:
    """Serves the application on 127.0.0.1 and yields the port; 0 chooses a free one.

    Closes all connections at the end.
    """
    connections: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        try:
            await _ServerConnection(app, reader, writer).serve()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            pass  # a client that disconnected, or does not speak HTTP, gets no response
        except asyncio.CancelledError:
            pass  # the server stops, and asyncio would log a cancelled connection
        finally:
            connections.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()

    server = await asyncio.start_server(accept, "127.0.0.1", port, limit=_MAX_HEAD_BYTES)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(connections):
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        await server.wait_closed()


class _ServerConnection:
    """One connection with successive requests."""

    def __init__(self, app: Application, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.app, self.reader, self.writer = app, reader, writer
        self.buffered = b""

    async def serve(self) -> None:
        """Serves requests until the connection ends."""
        while True:
            head = await self._read_head()
            if head is None:
                return
            method, target, headers = head
            body = await self.reader.readexactly(int(headers.get("content-length", 0)))
            answer = _ResponseWriter(self, keep=headers.get("connection", "").lower() != "close")
            await self.app(_scope(method, target, headers), _make_receive(self, body), answer.send)
            if not answer.finished:
                self.writer.transport.abort()
                return
            if not answer.keep:
                return

    async def _read_head(self) -> tuple[str, str, dict[str, str]] | None:
        first, self.buffered = self.buffered, b""
        try:
            lines = (first + await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        except asyncio.IncompleteReadError:
            return None
        method, target, _ = lines[0].split(" ", 2)
        headers = dict(_parse_header(line) for line in lines[1:] if line)
        return method, target, headers

    async def wait_until_closed(self) -> None:
        """Returns when the client has closed the connection."""
        while True:
            byte = await self.reader.read(1)
            if not byte:
                return
            self.buffered += byte  # the next request, sent early
            await asyncio.Event().wait()


def _parse_header(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name.strip().lower(), value.strip()


def _scope(method: str, target: str, headers: dict[str, str]) -> Scope:
    parts = urlsplit(target)
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "path": unquote(parts.path),
        "query_string": parts.query.encode(),
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers.items()],
        "extensions": {RESET: {}},
    }


def _make_receive(connection: _ServerConnection, body: bytes) -> Receive:
    is_sent = False

    async def receive() -> AsgiMessage:
        nonlocal is_sent
        if not is_sent:
            is_sent = True
            return {"type": "http.request", "body": body, "more_body": False}
        await connection.wait_until_closed()
        return {"type": "http.disconnect"}

    return receive


class _ResponseWriter:
    """Writes one response; chunked if the application states no length."""

    def __init__(self, connection: _ServerConnection, *, keep: bool) -> None:
        self.writer, self.keep = connection.writer, keep
        self.chunked = False
        self.finished = False

    async def send(self, message: AsgiMessage) -> None:
        """Writes one message of the application."""
        if message["type"] == RESET:
            self.writer.transport.abort()
            raise ConnectionResetError
        if message["type"] == "http.response.start":
            self._start(message)
            return
        body: bytes = message.get("body", b"")
        if self.chunked:
            body = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
        if not message.get("more_body", False):
            body += b"0\r\n\r\n" if self.chunked else b""
            self.finished = True
        self.writer.write(body)
        await self.writer.drain()

    def _start(self, message: AsgiMessage) -> None:
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in message.get("headers", ())]
        self.chunked = all(name.lower() != "content-length" for name, _ in headers)
        headers += [("transfer-encoding", "chunked")] if self.chunked else []
        status = message["status"]
        lines = [
            f"HTTP/1.1 {status} {_STATUS_PHRASES.get(status, 'Other')}",
            *(f"{name}: {value}" for name, value in headers),
        ]
        self.writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))

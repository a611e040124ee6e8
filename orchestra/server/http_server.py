"""Serves the application with uvicorn: bounded request heads, and an orderly end at a signal."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any, Final, cast

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from orchestra.server.limits import SECURITY_HEADERS
from orchestra.server.problems import RequestError, problem_response
from orchestra.server.services import Services

HEAD_SECONDS: Final = 15.0
"""Seconds in which the head of a request must arrive."""
MAX_HEAD_BYTES: Final = 64 << 10
IDLE_SECONDS: Final = 30
"""Seconds that an idle connection is kept."""


class BoundedHeadProtocol(HttpToolsProtocol):
    """Closes connections whose request head is too large, or does not arrive in time.

    This also holds for a head that is sent while the reply to an earlier request goes on.
    """

    _timer: asyncio.TimerHandle | None = None
    """Runs while a head is incomplete."""
    _head_bytes = 0
    _in_body = False
    """Whether the head of a request is complete, and its body is not."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Starts the time of the first head."""
        super().connection_made(cast(asyncio.Transport, transport))
        self._start_head()

    def data_received(self, data: bytes) -> None:
        """Counts the bytes of a head."""
        if self._timer is None and not self._in_body and (self.cycle is None or self.cycle.response_complete):
            self._start_head()
        self._head_bytes += len(data)
        super().data_received(data)
        if self._timer is not None and self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refuse(_too_large())

    def send_400_response(self, msg: str) -> None:
        """Refuses what is no HTTP."""
        self._refuse(RequestError("S040", "the request is not valid HTTP", hint="send HTTP/1.1", status=400))

    def _refuse(self, error: RequestError) -> None:
        """Sends an error as the reply to an incomplete request, and closes the connection."""
        if self.transport.is_closing():
            return
        cycle = self.cycle
        if cycle is None or cycle.response_complete or not (cycle.response_started or self.pipeline):
            self.transport.write(_reply_bytes(error))  # In any other case the bytes would be part of another reply.
        if cycle is not None:
            cycle.disconnected = True  # Its application writes no second reply.
        self._close()

    def on_message_begin(self) -> None:
        """Starts the time of a head."""
        if self._timer is None:
            self._start_head()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Ends the time of a head."""
        self._stop_timer()
        self._in_body = True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Ends a body."""
        self._in_body = False
        super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends the time of a head."""
        self._stop_timer()
        super().connection_lost(exc)

    def _start_head(self) -> None:
        self._stop_timer()
        self._head_bytes = 0
        self._timer = self.loop.call_later(HEAD_SECONDS, self._close)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _close(self) -> None:
        self._stop_timer()
        if not self.transport.is_closing():
            self.transport.close()


def _too_large() -> RequestError:
    return RequestError("S017", "the headers are too large", hint=f"at most {MAX_HEAD_BYTES} bytes", status=431)


def _reply_bytes(error: RequestError) -> bytes:
    """Returns the reply for an error as it is sent, if no application has seen the request."""
    response = problem_response(error)
    fields = {**response.headers, **SECURITY_HEADERS, "cache-control": "no-store", "connection": "close"}
    lines = [f"{name}: {value}" for name, value in fields.items()]
    phrase = HTTPStatus(response.status_code).phrase
    head = "\r\n".join([f"HTTP/1.1 {response.status_code} {phrase}", *lines, "", ""])
    return head.encode("latin-1") + bytes(response.body)


class _Server(uvicorn.Server):
    """A server whose signals are handled by `serve`."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handles no signals."""
        yield


async def serve(app: Starlette, host: str, port: int, on_started: Callable[[int], None]) -> int:
    """Serves an application until SIGTERM or SIGINT, then lets requests and runs end; a second signal ends at once.

    Args:
        app: The application of `create_app`.
        host: The address on which it listens.
        port: The port; 0 for a free one.
        on_started: Called with the port once it listens.

    Returns:
        The number of runs that still went on at the end.
    """
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=BoundedHeadProtocol,
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=2,
    )
    server = _Server(config)
    signalled, loop = asyncio.Event(), asyncio.get_running_loop()

    def on_signal() -> None:
        if signalled.is_set():
            server.force_exit = server.should_exit = True
        signalled.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    serving = loop.create_task(server.serve())
    announcing = loop.create_task(_announce(server, on_started))
    stopping = loop.create_task(signalled.wait())
    unfinished_runs = 0
    try:
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not serving.done():
            services: Services = app.state.services
            draining = loop.create_task(services.drain())
            await asyncio.wait({draining, serving}, return_when=asyncio.FIRST_COMPLETED)
            unfinished_runs = draining.result() if draining.done() else 0
            draining.cancel()
        server.should_exit = True
        await serving
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
        for task in (announcing, stopping):
            task.cancel()
        await asyncio.gather(announcing, stopping, return_exceptions=True)
    return unfinished_runs


async def _announce(server: uvicorn.Server, on_started: Callable[[int], Any]) -> None:
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.02)
    on_started(server.servers[0].sockets[0].getsockname()[1])

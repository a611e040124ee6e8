"""One HTTP/1.1 connection to a server: one request at a time, parsed by llhttp, the parser of Node.js, through
httptools.

It costs a quarter of a general-purpose client. All errors become a `RequestError`. A connection whose response was not
read to its end is aborted, which makes vLLM abort the request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeAlias, cast

import httptools

from orchestra.fleet.request_errors import RequestError, printable

MAX_HEAD_BYTES = 1 << 16
"""Size limit of a response's status and headers."""
MAX_ERROR_BYTES = 1 << 16
"""Bytes that are read of an error response."""
SHORT_TIMEOUT = 3.0
"""A timeout up to this many seconds is no evidence about the server: a healthy server may need as long."""
KEPT_HEADERS = (b"retry-after", b"location")
"""Response headers that are kept."""
LENGTH_HEADERS = (b"content-length", b"transfer-encoding")
"""Headers that state the end of a body. Without them it ends with the connection."""

BodyCallback: TypeAlias = Callable[[bytes], RequestError | float | None]
"""Called with each part of a streamed body. An error ends the exchange. A number means that the response is complete,
and how many seconds the stream may take to end by itself.
"""


class HttpConnection(asyncio.Protocol):
    """An open connection. After `exchange` returned None, `status`, `headers` and the body of a complete response are
    available.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, open_connections: set[HttpConnection]) -> None:
        """The connection adds itself to `open_connections`, and removes itself when it ends."""
        self.status = 0
        self.headers: dict[str, str] = {}
        self.usable = False
        """Whether another request may be sent."""
        self.idle_since = 0.0
        """The end of the latest response, in the loop's time."""
        self._loop, self._open_connections = loop, open_connections
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[RequestError | None] | None = None
        self._pieces: list[bytes] = []
        self._size = self._max_bytes = self._head_bytes = 0
        self._head_complete = self._has_length = self._complete = self._malformed = self._stream_done = False
        self._on_body: BodyCallback | None = None
        self._linger_timer: asyncio.TimerHandle | None = None
        self._silence_timeout = self._last_data_at = 0.0

    @property
    def port(self) -> int:
        """The local port; 0 if it is not an internet socket."""
        name = self._transport.get_extra_info("sockname") if self._transport is not None else None
        return int(name[1]) if isinstance(name, tuple) else 0

    def take_body(self) -> bytes:
        """Returns the body received so far, and releases it."""
        body, self._pieces = b"".join(self._pieces), []
        return body

    async def exchange(
        self,
        request: bytes,
        seconds: float,
        max_bytes: int,
        on_body: BodyCallback | None = None,
        silence: float | None = None,
    ) -> RequestError | None:
        """Sends a request and reads its response. Cancellation aborts the connection.

        Args:
            request: The bytes of the request.
            seconds: The timeout.
            max_bytes: The size limit of the body.
            on_body: Called with each part of the body.
            silence: The longest pause between two parts of the response, in seconds.
        """
        assert self._transport is not None, "it is open"
        assert self._waiter is None, "one exchange at a time"
        if not self.usable:
            return connection_error(False, None)  # the connection ended before its first request
        self.status, self.headers, self.usable = 0, {}, False
        self._pieces, self._size, self._max_bytes, self._head_bytes = [], 0, max_bytes, 0
        self._head_complete = self._has_length = self._complete = self._malformed = self._stream_done = False
        self._on_body, self._silence_timeout = on_body, silence or 0.0
        waiter: asyncio.Future[RequestError | None] = self._loop.create_future()
        self._waiter = waiter
        late = self._loop.call_later(max(0.0, seconds), self._on_timeout, seconds)
        if silence is not None:
            self._last_data_at = self._loop.time()
            self._loop.call_later(silence, self._check_silence, waiter)
        self._transport.write(request)
        try:
            return await waiter
        finally:
            late.cancel()
            if self._linger_timer is not None:
                self._linger_timer.cancel()
            self._waiter = self._on_body = self._linger_timer = None
            self.usable = (
                self.usable and self._complete and not self._malformed and not self._transport.get_write_buffer_size()
            )
            self.idle_since = self._loop.time()
            if not self.usable:
                self._transport.abort()

    def abort(self) -> None:
        """Aborts the connection."""
        self.usable = False
        if self._transport is not None:
            self._transport.abort()

    def _finish(self, fault: RequestError | None) -> None:
        if self._waiter is not None and not self._waiter.done():
            # An error after the end of a stream is ignored.
            self._waiter.set_result(None if self._stream_done else fault)

    def _on_timeout(self, seconds: float) -> None:
        self._finish(timeout_error(seconds))

    def _check_silence(self, waiter: asyncio.Future[RequestError | None]) -> None:
        """Ends the exchange if the pause was too long, else schedules the next check."""
        if waiter.done():
            return
        remaining_silence = self._last_data_at + self._silence_timeout - self._loop.time()
        if remaining_silence > 0:
            self._loop.call_later(remaining_silence, self._check_silence, waiter)
        else:
            reason = f"the response stalled: no data for {self._silence_timeout:.0f} s"
            self._finish(RequestError("F205", reason, "orchestra fleet status"))

    # Called by asyncio.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called when the connection is open."""
        self._transport, self.usable = cast(asyncio.Transport, transport), True
        self._open_connections.add(self)

    def data_received(self, data: bytes) -> None:
        """Called with received bytes. Unrequested bytes close the connection."""
        waiter = self._waiter
        if waiter is None or waiter.done():
            self.abort()
            return
        if self._silence_timeout:
            self._last_data_at = self._loop.time()
        if not self._head_complete:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:
            if not waiter.done():
                waiter.set_exception(error.__context__ or error)  # an error of the reader of the stream
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._malformed = True
            self._finish(protocol_error(str(error)))
        if not self._head_complete and self._head_bytes > MAX_HEAD_BYTES:
            self._finish(protocol_error(f"its headers have more than {MAX_HEAD_BYTES} bytes"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Called when the connection has ended. A body without a stated length ends with it."""
        self.usable = False
        self._open_connections.discard(self)
        if exc is None and self._head_complete and not self._has_length:
            self._finish(None)
        else:
            self._finish(connection_error(bool(self._size), exc))

    # Called by the parser.

    def on_message_begin(self) -> None:
        """Called at the start of a response. A second response without a request is an error."""
        self._malformed = self._head_complete

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called with each header."""
        if self._malformed:
            return
        name = name.lower()
        if name in LENGTH_HEADERS:
            self._has_length = True
        elif name in KEPT_HEADERS:
            self.headers[name.decode()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Called at the end of the headers. An interim response (status below 200) is skipped."""
        if self._malformed:
            return
        self.status = self._parser.get_status_code()
        if self.status >= 200:
            self._head_complete = True
            if self.status != 200:
                self._on_body, self._max_bytes = None, MAX_ERROR_BYTES
        else:
            self._has_length = False
            self.headers = {}

    def on_body(self, body: bytes) -> None:
        """Called with each part of the body."""
        waiter = self._waiter
        if waiter is None or waiter.done():
            return
        self._pieces.append(body)
        self._size += len(body)
        if self._size > self._max_bytes:
            self._finish(None if self.status != 200 else size_error(self._max_bytes))
        elif self._on_body is not None and (end := self._on_body(body)) is not None:
            self._stream_done = not isinstance(end, RequestError)
            if isinstance(end, RequestError):
                self._finish(end)
                return
            if self._linger_timer is not None and self._linger_timer.when() <= self._loop.time() + end:
                return  # later parts, such as pings, do not extend the limit
            if self._linger_timer is not None:
                self._linger_timer.cancel()
            self._linger_timer = self._loop.call_later(end, _finish_stream, waiter)

    def on_message_complete(self) -> None:
        """Called at the end of a response. An interim response is skipped."""
        if self._malformed or not self._head_complete:
            return
        waiter = self._waiter
        self._complete = waiter is not None and not waiter.done()
        self.usable = self._parser.should_keep_alive()
        self._finish(None)


def _finish_stream(waiter: asyncio.Future[RequestError | None]) -> None:
    """Ends the exchange of a complete stream whose body does not end, because the server or a proxy keeps the
    connection open.
    """
    if not waiter.done():
        waiter.set_result(None)


def timeout_error(seconds: float) -> RequestError:
    """Returns the error of a timeout."""
    hint = "raise the node's `timeout`, or ask for less `max_output`"
    return RequestError("F205", f"no complete response within {seconds:.1f} s", hint, timed_out=seconds < SHORT_TIMEOUT)


def protocol_error(reason: str) -> RequestError:
    """Returns the error of a response that is not HTTP."""
    return RequestError(
        "F209",
        f"the response is not valid HTTP: {printable(reason)}",
        "check the address of the server",
    )


def connection_error(begun: bool, error: Exception | None) -> RequestError:
    """Returns the error of a connection that ended before the response did."""
    phase = "during the response" if begun else "before a response"
    reason = type(error).__name__ if error is not None else "it was closed"
    return RequestError(
        "F206", f"the connection was lost {phase} ({reason})", "orchestra fleet status", unreachable=True
    )


def size_error(most: int) -> RequestError:
    """Returns the error of a response above the size limit."""
    return RequestError("F210", f"the response has more than {most} bytes", "ask for less `max_output`")

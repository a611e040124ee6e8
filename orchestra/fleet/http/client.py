"""HTTP exchanges with a server. Errors are returned as values, not raised.

No redirects, no proxies from the environment, no cookies, no compression. The response size is bounded. Cancelling an
exchange closes its connection, which makes vLLM abort the request.
"""

from __future__ import annotations

import asyncio
import email.utils
import ipaddress
import os
import re
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec

from orchestra.core.labels import Label
from orchestra.fleet.config import FleetLimits
from orchestra.fleet.http.connection import BodyCallback, HttpConnection, protocol_error, timeout_error
from orchestra.fleet.request_errors import RequestError, printable
from orchestra.fleet.scheduling import NO_RUN, QueueRequest
from orchestra.fleet.secrets import key_in_headers, redact, redact_bytes
from orchestra.fleet.supervisor import port_owner

KEEP_ALIVE_SECONDS = 3.0
"""Seconds that an idle connection is kept: less than uvicorn's 5, after which uvicorn closes it, possibly during a
request.
"""
HAPPY_EYEBALLS_DELAY = 0.25
"""Seconds until the next address of a host is tried as well (RFC 8305, section 5)."""
ERRNO_PATTERN = re.compile(r"\[Errno (\d+)\]")
"""The error numbers in the message that asyncio makes of several errors."""


class HttpRequest(msgspec.Struct, frozen=True):
    """A request without the server's address and key."""

    path: str
    """The path from the server's root, such as `/v1/chat/completions`."""
    body: bytes | None = None
    """JSON; None makes it a GET."""
    label: Label = "public"
    """The label of the data in the body."""
    stream: bool = False
    queue_request: QueueRequest = NO_RUN
    """The properties that decide the order in the queue."""


class HttpResponse(msgspec.Struct, frozen=True):
    """A complete response with status 200."""

    sent: bytes
    received: bytes


class ConnectionPool:
    """The address of a server, and its idle connections."""

    __slots__ = ("_head_cache", "_host", "_path", "authority", "host", "idle", "is_ip_address", "port", "secure")

    def __init__(self, root: str) -> None:
        """Raises `ValueError` for an invalid address."""
        parts = urlsplit(root)
        if not parts.hostname:
            raise ValueError(f"{root} has no host")
        self.host, self.secure = parts.hostname, parts.scheme == "https"
        self.port = parts.port or (443 if self.secure else 80)
        self.authority = parts.netloc.rpartition("@")[2]
        self._host = self.authority if self.authority.isascii() else self.authority.encode("idna").decode()
        self._path = quote(parts.path.rstrip("/"), safe="/%:@!$&'()*+,;=-._~")
        self._head_cache: dict[tuple[str, bool], bytes] = {}
        """Heads of requests without extra headers, up to the content length."""
        self.idle: list[HttpConnection] = []
        self.is_ip_address = _is_ip_address(self.host)

    def head(self, request: HttpRequest, headers: Mapping[str, str]) -> bytes:
        """Returns the request line and the headers. Raises `ValueError` for an invalid header."""
        if headers:
            head = self._head(request, headers)
        elif (cached_head := self._head_cache.get((request.path, request.body is None))) is None:
            head = self._head_cache[request.path, request.body is None] = self._head(request, headers)
        else:
            head = cached_head
        return head + (b"\r\n" if request.body is None else b"Content-Length: %d\r\n\r\n" % len(request.body))

    def _head(self, request: HttpRequest, headers: Mapping[str, str]) -> bytes:
        lines = [
            f"{'GET' if request.body is None else 'POST'} {self._path}{request.path} HTTP/1.1",
            f"Host: {self._host}",
        ]
        lines += ["User-Agent: orchestra", "Accept: */*", "Accept-Encoding: identity"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        lines += [] if request.body is None else ["Content-Type: application/json"]
        if any(char in line for line in lines for char in "\r\n\0"):
            raise ValueError("a header contains a line break")
        return "\r\n".join([*lines, ""]).encode()


def _is_ip_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


class HttpClient:
    """The connections to all servers of a fleet. Use it as a context manager; it closes all sockets."""

    def __init__(self, limits: FleetLimits) -> None:
        self.limits = limits
        self._pools: dict[str, ConnectionPool] = {}
        self._open: set[HttpConnection] = set()
        self._sweep_timer: asyncio.TimerHandle | None = None
        self._ssl_context: ssl.SSLContext | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __aenter__(self) -> HttpClient:
        self._loop = asyncio.get_running_loop()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._loop = None
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
        for connection in list(self._open):
            connection.abort()
        for _turn in range(100):
            if not self._open:
                break
            await asyncio.sleep(0)  # aborted connections are notified in the next turns of the loop

    async def exchange(
        self,
        root: str,
        request: HttpRequest,
        headers: Mapping[str, str],
        seconds: float,
        on_body: BodyCallback | None = None,
        *,
        own_server: bool = False,
    ) -> HttpResponse | RequestError:
        """Sends one request and returns the response or the error.

        The key in the headers is redacted in both, if the server repeats it.

        Args:
            root: The address of the server.
            request: The request.
            headers: Further headers, such as the key.
            seconds: The timeout.
            on_body: Called with each part of the body.
            own_server: Whether the server is a process of this user on this machine. If the port belongs to another
                user's process, nothing is sent.
        """
        assert self._loop is not None, "the client is used inside its context"
        body = request.body or b""
        try:
            place = self._pools.get(root) or self._pools.setdefault(root, ConnectionPool(root))
            head = place.head(request, headers)
        except ValueError as error:
            return replace(protocol_error(str(error)), sent=body, reached_model=False)
        connection = self._take_idle(place)
        if connection is None:
            start_time = self._loop.time()
            connect_result = await self._connect(self._loop, root, place, seconds)
            if isinstance(connect_result, RequestError):
                return replace(connect_result, sent=body)
            if own_server and not port_owner.is_own_port(place.port, connect_result.port):
                connect_result.abort()
                return replace(
                    _unreachable_error(root, "another user's process listens there", unreachable=True), sent=body
                )
            connection, seconds = connect_result, seconds - (self._loop.time() - start_time)
        max_bytes = self.limits.response_bytes
        try:
            if request.stream:
                fault = await connection.exchange(head + body, seconds, max_bytes, on_body, self.limits.silence_seconds)
            else:
                fault = await connection.exchange(head + body, seconds, max_bytes)
        finally:
            key = key_in_headers(headers)
            response_body = redact_bytes(connection.take_body(), key)
            if connection.usable:
                self._return_idle(place, connection)
        if fault is None:
            if connection.status == 200:
                return HttpResponse(body, response_body)
            fault = replace(
                _status_error(connection.status, connection.headers, response_body, key), status=connection.status
            )
        return replace(fault, reason=redact(fault.reason, key), sent=body, received=response_body)

    async def _connect(
        self, loop: asyncio.AbstractEventLoop, root: str, pool: ConnectionPool, seconds: float
    ) -> HttpConnection | RequestError:
        """Opens a connection within `connect_seconds` and `seconds`."""
        if pool.secure and self._ssl_context is None:
            self._ssl_context = ssl.create_default_context()
        max_seconds = self.limits.connect_seconds
        # A numeric address has no alternatives, and racing costs as much as connecting. uvloop has no race.
        race: dict[str, Any] = (
            {}
            if pool.is_ip_address or not isinstance(loop, asyncio.BaseEventLoop)
            else {"happy_eyeballs_delay": HAPPY_EYEBALLS_DELAY}
        )
        try:
            async with asyncio.timeout(max(0.0, min(seconds, max_seconds))) as limit:
                _, connection = await loop.create_connection(
                    lambda: HttpConnection(loop, self._open),
                    pool.host,
                    pool.port,
                    ssl=self._ssl_context if pool.secure else None,
                    **race,
                )
        except ssl.SSLError as error:
            return replace(_unreachable_error(root, f"TLS failed: {error}", unreachable=False), retryable=False)
        except socket.gaierror as error:
            return _unreachable_error(root, f"its host name cannot be resolved: {error}", unreachable=False)
        except OSError as error:
            if limit.expired() and seconds < max_seconds:
                return replace(timeout_error(seconds), reached_model=False)
            late = f"no connection within {max_seconds:g} s"
            return _unreachable_error(root, late if limit.expired() else _connect_reason(error), unreachable=True)
        except ValueError as error:  # an invalid host name
            return _unreachable_error(root, str(error), unreachable=False)
        return connection

    def _take_idle(self, pool: ConnectionPool) -> HttpConnection | None:
        """Returns the most recently used idle connection that is still usable."""
        assert self._loop is not None, "the client is used inside its context"
        oldest = self._loop.time() - KEEP_ALIVE_SECONDS
        while pool.idle:
            connection = pool.idle.pop()
            if connection.usable and connection.idle_since > oldest:
                return connection
            connection.abort()
        return None

    def _return_idle(self, pool: ConnectionPool, connection: HttpConnection) -> None:
        if self._loop is None:
            connection.abort()
            return
        pool.idle.append(connection)
        if self._sweep_timer is None:
            self._sweep_timer = self._loop.call_later(KEEP_ALIVE_SECONDS, self._close_expired)

    def _close_expired(self) -> None:
        """Closes connections that were idle for too long, and schedules the next check."""
        assert self._loop is not None, "leaving the context ends it"
        oldest = self._loop.time() - KEEP_ALIVE_SECONDS
        for place in self._pools.values():
            for connection in place.idle:
                if connection.idle_since <= oldest:
                    connection.abort()
            place.idle = [connection for connection in place.idle if connection.usable]
        has_idle = any(place.idle for place in self._pools.values())
        self._sweep_timer = self._loop.call_later(KEEP_ALIVE_SECONDS, self._close_expired) if has_idle else None


def _connect_reason(error: OSError) -> str:
    """Returns the system's reason for a failed connection. Each address of a host may have its own."""
    error_numbers = {error.errno} if error.errno else {int(number) for number in ERRNO_PATTERN.findall(str(error))}
    return ", ".join(os.strerror(number) for number in sorted(error_numbers)) or str(error)


def _unreachable_error(root: str, reason: str, *, unreachable: bool) -> RequestError:
    return RequestError(
        "F203",
        f"{root} cannot be reached: {printable(reason)}",
        "orchestra fleet status",
        reached_model=False,
        unreachable=unreachable,
    )


def _status_error(status: int, headers: Mapping[str, str], body: bytes, key: str = "") -> RequestError:
    """Returns the error for a status other than 200 (RFC 9110, section 15)."""
    error_message = _error_message(body, key)
    reason = f"HTTP {status}{': ' + error_message if error_message else ''}"
    match status:
        case 429 | 503:
            hint = "try later, or lower `limits: {in_flight: N}` of the fleet file"
            fault = RequestError.not_reached("F204", f"the server is too busy ({reason})", hint)
            return replace(fault, retryable=True, busy=True, retry_after=_parse_retry_after(headers.get("retry-after")))
        case 401 | 403:
            return RequestError.not_reached(
                "F214", f"the server refuses the key ({reason})", "check `api_key:` of the fleet file"
            )
        case 404:
            return RequestError.not_reached(
                "F212",
                f"the server does not know the model, the adapter or the path ({reason})",
                "orchestra fleet status",
            )
        case 400 | 413 | 422 if _is_context_overflow(error_message):
            hint = "shorten the input, or lower max_output"
            return RequestError.not_reached(
                "F215", f"the prompt and `max_output` are longer than the model's context ({reason})", hint
            )
        case 408 | 500 | 502 | 504:
            return RequestError("F208", f"the server failed ({reason})", "orchestra fleet logs")
        case _ if 300 <= status < 400:
            redirect_target = printable(redact(headers.get("location", "somewhere else"), key))
            hint = "write the final address as `endpoint:`"
            return RequestError.not_reached(
                "F213", f"the server redirects to {redirect_target}, and redirects are not followed", hint
            )
        case _ if status >= 500:
            return RequestError(
                "F208", f"the server failed ({reason})", "orchestra fleet logs", retryable=status != 501
            )
        case _:
            hint = "orchestra runs show RUN NODE --prompt   # what was sent"
            return RequestError.not_reached("F207", f"the server refuses the request ({reason})", hint)


def _is_context_overflow(reason: str) -> bool:
    lower_reason = reason.lower()
    return any(
        mark in lower_reason
        for mark in ("context length", "max_model_len", "maximum model length", "context window", "context size")
    )


def _error_message(body: bytes, key: str) -> str:
    """Returns the server's message: `error.message`, `message` or `detail`; else an empty string."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ""
    if isinstance(value, dict):
        inner = value.get("error", value)
        message_value = (inner.get("message") or inner.get("detail")) if isinstance(inner, dict) else inner
        return printable(redact(message_value, key)) if isinstance(message_value, str) else ""
    return ""


def _parse_retry_after(text: str | None) -> float | None:
    """Returns the seconds of a `Retry-After`: a number, or a date (RFC 9110, section 10.2.3); else None."""
    if not text:
        return None
    if text.isascii() and text.isdigit():
        return float(text) if len(text) < 20 else 1e9
    try:
        date = email.utils.parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    # One of the three date formats has no time zone; it is GMT like the others.
    return max(0.0, (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - time.time())

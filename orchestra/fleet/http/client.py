"""One HTTP exchange with a server: bytes out, bytes in, and every way in which it can fail as a value.

No redirects, no proxies from the environment, no cookies, no compression; what comes back is bounded. An exchange that is
cancelled closes its connection, by which vLLM aborts the request.
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
from orchestra.fleet.config import Limits
from orchestra.fleet.http.connection import Block, Connection, no_answer, no_http
from orchestra.fleet.request_errors import Fault, printable
from orchestra.fleet.scheduling import NOBODY, Turn
from orchestra.fleet.secrets import hidden, hidden_bytes, sent_with
from orchestra.fleet.supervisor import port_owner

KEEP_ALIVE = 3.0
"""Seconds that an idle connection is kept: less than the 5 of uvicorn, which would close it while a request is under way."""
NEXT_ADDRESS = 0.25
"""Seconds until a name's next address is tried as well (RFC 8305, section 5)."""
ERRNO = re.compile(r"\[Errno (\d+)\]")
"""In the one message that asyncio makes of several."""


class Request(msgspec.Struct, frozen=True):
    """What is sent: everything but the server's address and its key."""

    path: str
    """From the server's root, such as `/v1/chat/completions`."""
    body: bytes | None = None
    """JSON; None makes it a GET."""
    label: Label = "public"
    """Of the data in the body."""
    stream: bool = False
    turn: Turn = NOBODY
    """What decides who goes first where requests wait for each other."""


class Answer(msgspec.Struct, frozen=True):
    """What came back with status 200, whole."""

    sent: bytes
    received: bytes


class Place:
    """A server's address, and the connections to it that wait for a request."""

    __slots__ = ("_heads", "_host", "_path", "host", "idle", "is_number", "name", "port", "secure")

    def __init__(self, root: str) -> None:
        """Raises `ValueError` for what is no address."""
        parts = urlsplit(root)
        if not parts.hostname:
            raise ValueError(f"{root} has no host")
        self.host, self.secure = parts.hostname, parts.scheme == "https"
        self.port = parts.port or (443 if self.secure else 80)
        self.name = parts.netloc.rpartition("@")[2]
        self._host = self.name if self.name.isascii() else self.name.encode("idna").decode()
        self._path = quote(parts.path.rstrip("/"), safe="/%:@!$&'()*+,;=-._~")
        self._heads: dict[tuple[str, bool], bytes] = {}
        """Of requests without headers of their own, up to the length of the body."""
        self.idle: list[Connection] = []
        self.is_number = _is_number(self.host)

    def head(self, request: Request, headers: Mapping[str, str]) -> bytes:
        """The request line and the headers, for a body of its length. Raises `ValueError` for a header that is none."""
        if headers:
            head = self._head(request, headers)
        elif (known := self._heads.get((request.path, request.body is None))) is None:
            head = self._heads[request.path, request.body is None] = self._head(request, headers)
        else:
            head = known
        return head + (b"\r\n" if request.body is None else b"Content-Length: %d\r\n\r\n" % len(request.body))

    def _head(self, request: Request, headers: Mapping[str, str]) -> bytes:
        lines = [f"{'GET' if request.body is None else 'POST'} {self._path}{request.path} HTTP/1.1", f"Host: {self._host}"]
        lines += ["User-Agent: orchestra", "Accept: */*", "Accept-Encoding: identity"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        lines += [] if request.body is None else ["Content-Type: application/json"]
        if any(char in line for line in lines for char in "\r\n\0"):
            raise ValueError("a header has a line break in it")
        return "\r\n".join([*lines, ""]).encode()


def _is_number(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


class Wire:
    """The connections to all servers of a fleet. Open it as a context; it leaves no socket behind."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._places: dict[str, Place] = {}
        self._open: set[Connection] = set()
        self._sweeping: asyncio.TimerHandle | None = None
        self._trust: ssl.SSLContext | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __aenter__(self) -> Wire:
        self._loop = asyncio.get_running_loop()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._loop = None
        if self._sweeping is not None:
            self._sweeping.cancel()
        for connection in list(self._open):
            connection.end()
        for _turn in range(100):
            if not self._open:
                break
            await asyncio.sleep(0)  # what was broken off is told of it in the loop's next turns

    async def exchange(
        self,
        root: str,
        request: Request,
        headers: Mapping[str, str],
        seconds: float,
        on_block: Block | None = None,
        *,
        ours: bool = False,
    ) -> Answer | Fault:
        """Sends one request to the server at `root`, and gives its answer or what went wrong, within `seconds`.

        A key among the headers stands in neither, though the server says it again; `on_block` reads what came as it came. `ours` is for a
        server of this user on this machine: where another user's program listens in its place, nothing is sent.
        """
        assert self._loop is not None, "the wire is used inside its context"
        sent = request.body or b""
        try:
            place = self._places.get(root) or self._places.setdefault(root, Place(root))
            head = place.head(request, headers)
        except ValueError as error:
            return replace(no_http(str(error)), sent=sent, seen=False)
        connection = self._idle(place)
        if connection is None:
            began = self._loop.time()
            found = await self._connected(self._loop, root, place, seconds)
            if isinstance(found, Fault):
                return replace(found, sent=sent)
            if ours and not port_owner.is_ours(place.port, found.port):
                found.end()
                return replace(_unreachable(root, "another user's program listens there", lost=True), sent=sent)
            connection, seconds = found, seconds - (self._loop.time() - began)
        most = self.limits.response_bytes
        try:
            if request.stream:
                fault = await connection.exchange(head + sent, seconds, most, on_block, self.limits.silence_seconds)
            else:
                fault = await connection.exchange(head + sent, seconds, most)
        finally:
            key = sent_with(headers)
            received = hidden_bytes(connection.taken(), key)
            if connection.usable:
                self._keep(place, connection)
        if fault is None:
            if connection.status == 200:
                return Answer(sent, received)
            fault = replace(_of_status(connection.status, connection.headers, received, key), status=connection.status)
        return replace(fault, reason=hidden(fault.reason, key), sent=sent, received=received)

    async def _connected(self, loop: asyncio.AbstractEventLoop, root: str, place: Place, seconds: float) -> Connection | Fault:
        """A new connection, within `connect_seconds`, and within `seconds` in any case."""
        if place.secure and self._trust is None:
            self._trust = ssl.create_default_context()
        most = self.limits.connect_seconds
        # To race a number costs as much as to connect, and it has no other address; uvloop knows no races.
        race: dict[str, Any] = (
            {} if place.is_number or not isinstance(loop, asyncio.BaseEventLoop) else {"happy_eyeballs_delay": NEXT_ADDRESS}
        )
        try:
            async with asyncio.timeout(max(0.0, min(seconds, most))) as limit:
                _, connection = await loop.create_connection(
                    lambda: Connection(loop, self._open),
                    place.host,
                    place.port,
                    ssl=self._trust if place.secure else None,
                    **race,
                )
        except ssl.SSLError as error:
            return replace(_unreachable(root, f"TLS failed: {error}", lost=False), retryable=False)
        except socket.gaierror as error:
            return _unreachable(root, f"its name is not known: {error}", lost=False)
        except OSError as error:
            if limit.expired() and seconds < most:
                return replace(no_answer(seconds), seen=False)
            late = f"no connection within {most:g} s"
            return _unreachable(root, late if limit.expired() else _why(error), lost=True)
        except ValueError as error:  # a name that is no host's
            return _unreachable(root, str(error), lost=False)
        return connection

    def _idle(self, place: Place) -> Connection | None:
        """The connection that was used last, if it can be used again."""
        assert self._loop is not None, "the wire is used inside its context"
        oldest = self._loop.time() - KEEP_ALIVE
        while place.idle:
            connection = place.idle.pop()
            if connection.usable and connection.since > oldest:
                return connection
            connection.end()
        return None

    def _keep(self, place: Place, connection: Connection) -> None:
        if self._loop is None:
            connection.end()
            return
        place.idle.append(connection)
        if self._sweeping is None:
            self._sweeping = self._loop.call_later(KEEP_ALIVE, self._sweep)

    def _sweep(self) -> None:
        """Ends what has been idle for too long, and looks again later where something is left."""
        assert self._loop is not None, "leaving the context ends it"
        oldest = self._loop.time() - KEEP_ALIVE
        for place in self._places.values():
            for connection in place.idle:
                if connection.since <= oldest:
                    connection.end()
            place.idle = [connection for connection in place.idle if connection.usable]
        left = any(place.idle for place in self._places.values())
        self._sweeping = self._loop.call_later(KEEP_ALIVE, self._sweep) if left else None


def _why(error: OSError) -> str:
    """The system's word for why there is no connection; of a name with several addresses each may have its own."""
    told = {error.errno} if error.errno else {int(number) for number in ERRNO.findall(str(error))}
    return ", ".join(os.strerror(number) for number in sorted(told)) or str(error)


def _unreachable(root: str, reason: str, *, lost: bool) -> Fault:
    return Fault("F203", f"{root} cannot be reached: {printable(reason)}", "orchestra fleet status", seen=False, lost=lost)


def _of_status(status: int, headers: Mapping[str, str], body: bytes, key: str = "") -> Fault:
    """What a status other than 200 means (RFC 9110, section 15)."""
    said = _message(body, key)
    reason = f"HTTP {status}{': ' + said if said else ''}"
    match status:
        case 429 | 503:
            hint = "try later, or lower `limits: {in_flight: N}` of the fleet file"
            fault = Fault.unseen("F204", f"the server is too busy ({reason})", hint)
            return replace(fault, retryable=True, busy=True, retry_after=_retry_after(headers.get("retry-after")))
        case 401 | 403:
            return Fault.unseen("F214", f"the server wants another key ({reason})", "check `api_key:` of the fleet file")
        case 404:
            return Fault.unseen("F212", f"the server does not know the model, the adapter or the path ({reason})", "orchestra fleet status")
        case 400 | 413 | 422 if _too_long(said):
            hint = "give it less text, or lower max_output"
            return Fault.unseen("F215", f"the prompt and `max_output` are longer than the model's context ({reason})", hint)
        case 408 | 500 | 502 | 504:
            return Fault("F208", f"the server failed ({reason})", "orchestra fleet logs")
        case _ if 300 <= status < 400:
            where = printable(hidden(headers.get("location", "somewhere else"), key))
            hint = "write the final address as `endpoint:`"
            return Fault.unseen("F213", f"the server points to {where}, and redirects are not followed", hint)
        case _ if status >= 500:
            return Fault("F208", f"the server failed ({reason})", "orchestra fleet logs", retryable=status != 501)
        case _:
            hint = "orchestra runs show RUN NODE --prompt   # what was sent"
            return Fault.unseen("F207", f"the server refuses the request ({reason})", hint)


def _too_long(said: str) -> bool:
    lowered = said.lower()
    return any(mark in lowered for mark in ("context length", "max_model_len", "maximum model length", "context window", "context size"))


def _message(body: bytes, key: str) -> str:
    """The server's own words, where it has any: `error.message`, `message` or `detail`, else nothing."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ""
    if isinstance(value, dict):
        inner = value.get("error", value)
        found = (inner.get("message") or inner.get("detail")) if isinstance(inner, dict) else inner
        return printable(hidden(found, key)) if isinstance(found, str) else ""
    return ""


def _retry_after(text: str | None) -> float | None:
    """Seconds that a server asks to wait: a number, or a date (RFC 9110, section 10.2.3); None where it says neither."""
    if not text:
        return None
    if text.isascii() and text.isdigit():
        return float(text) if len(text) < 20 else 1e9
    try:
        date = email.utils.parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    # One of the three forms does not name its zone, which is that of the others.
    return max(0.0, (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - time.time())

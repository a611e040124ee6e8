"""One HTTP exchange with a server: bytes out, bytes in, and every way in which it can fail as a value.

No redirects, no proxies from the environment, no cookies, no compression; what comes back is bounded. An exchange that is
cancelled closes its connection, by which vLLM aborts the request.
"""

from __future__ import annotations

import asyncio
import email.utils
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from orchestra.fleet.config import Limits
from orchestra.values.labels import Label

if TYPE_CHECKING:
    import aiohttp

ERROR_BYTES = 1 << 16
"""Bytes that are read of an answer which is an error."""
KEEP_ALIVE = 3.0
"""Seconds that an idle connection is kept: less than the 5 of uvicorn, which would close it while a request is under way."""


class Request(msgspec.Struct, frozen=True):
    """What is sent: everything but the server's address and its key."""

    path: str
    """From the server's root, such as `/v1/chat/completions`."""
    body: bytes | None = None
    """JSON; None makes it a GET."""
    label: Label = "public"
    """Of the data in the body."""
    stream: bool = False
    priority: int = 0
    """Lower goes first where requests wait for each other."""


class Answer(msgspec.Struct, frozen=True):
    """What came back with status 200, whole."""

    sent: bytes
    received: bytes


@dataclass(frozen=True, slots=True)
class Fault:
    """Why there is no answer: a code of `orchestra explain`, and whether a model may have seen the request."""

    code: str
    reason: str
    hint: str = ""
    seen: bool = True
    """False only where no model can have worked on it, so that sending it again costs nothing."""
    retryable: bool = True
    busy: bool = False
    """The server said that it has too much to do."""
    lost: bool = False
    """Nobody listens there, or no longer."""
    retry_after: float | None = None
    sent: bytes = b""
    received: bytes = b""


Block: TypeAlias = Callable[[bytes], Fault | None]
"""Takes a piece of a streamed answer as it comes; a fault ends the exchange."""


@dataclass(slots=True)
class Wire:
    """The connections to all servers of a fleet. Open it as a context; it leaves no socket behind."""

    limits: Limits
    _session: aiohttp.ClientSession | None = field(default=None, init=False)
    _streaming: aiohttp.ClientTimeout | None = field(default=None, init=False)

    async def __aenter__(self) -> Wire:
        import aiohttp

        waits: dict[str, Any] = {"total": None, "connect": self.limits.connect_seconds}
        self._streaming = aiohttp.ClientTimeout(**waits, sock_read=self.limits.silence_seconds)
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(**waits),
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE, ttl_dns_cache=30),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            headers={"User-Agent": "orchestra", "Accept-Encoding": "identity"},
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def exchange(
        self, root: str, request: Request, headers: Mapping[str, str], seconds: float, on_block: Block | None = None
    ) -> Answer | Fault:
        """Sends one request to the server at `root`, and gives its answer or what went wrong, within `seconds`."""
        received = bytearray()
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                result = await self._try(root + request.path, request, headers, received, on_block)
        except TimeoutError:
            result = Fault("F205", f"no whole answer within {seconds:.1f} s", "raise the node's `timeout`, or ask for less `max_output`")
        if isinstance(result, Fault):
            return replace(result, sent=request.body or b"", received=bytes(received))
        return result

    async def _try(
        self, url: str, request: Request, headers: Mapping[str, str], received: bytearray, on_block: Block | None
    ) -> Answer | Fault:
        import aiohttp

        assert self._session is not None, "the wire is used inside its context"
        body = None if request.body is None else aiohttp.BytesPayload(request.body, content_type="application/json")
        options: dict[str, Any] = {"headers": headers} if headers else {}
        if request.stream:
            options["timeout"] = self._streaming
        response: aiohttp.ClientResponse | None = None
        try:
            response = await self._session.request("GET" if body is None else "POST", url, data=body, allow_redirects=False, **options)
            if response.status != 200:
                await _read(response, received, ERROR_BYTES)
                return _of_status(response.status, response.headers, bytes(received))
            if not await _read(response, received, self.limits.response_bytes, on_block if request.stream else None):
                return Fault("F210", f"the answer has more than {self.limits.response_bytes} bytes", "ask for less `max_output`")
            return Answer(request.body or b"", bytes(received))
        except _Ended as ended:
            return ended.fault
        except aiohttp.ClientConnectorDNSError as error:
            return _unreachable(url, f"its name is not known: {error.os_error}", lost=False)
        except aiohttp.ClientSSLError as error:
            return replace(_unreachable(url, f"TLS failed: {error}", lost=False), retryable=False)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            return _unreachable(url, str(getattr(error, "os_error", "") or error), lost=True)
        except aiohttp.SocketTimeoutError:
            silence = self.limits.silence_seconds
            return Fault("F205", f"the answer stalled: nothing came for {silence:.0f} s", "orchestra fleet status")
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, aiohttp.ClientPayloadError, ConnectionError) as error:
            reason = f"the connection broke {'in the middle of the answer' if received else 'before an answer came'}"
            return Fault("F206", f"{reason} ({type(error).__name__})", "orchestra fleet status", lost=True)
        except (aiohttp.ClientError, ValueError) as error:
            return Fault(
                "F209", f"what answers there does not speak HTTP as it should: {_printable(str(error))}", "check the address of the server"
            )
        finally:
            if response is not None and response.connection is not None:
                response.close()  # it was not read to its end: by this vLLM notices, and stops


class _Ended(Exception):
    """Carries a fault out of the reading of a stream."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault


async def _read(response: aiohttp.ClientResponse, into: bytearray, most: int, on_block: Block | None = None) -> bool:
    """Reads a body into `into`; False where it has more than `most` bytes."""
    content = response.content
    while not content.at_eof() and (block := await content.readany()):
        into += block
        if len(into) > most:
            return False
        if on_block is not None and (fault := on_block(block)) is not None:
            raise _Ended(fault)
    return True


def _unreachable(url: str, reason: str, *, lost: bool) -> Fault:
    host = url.split("/", 3)[2]
    return Fault("F203", f"{host} cannot be reached: {_printable(reason)}", "orchestra fleet status", seen=False, lost=lost)


def _of_status(status: int, headers: Mapping[str, str], body: bytes) -> Fault:
    """What a status other than 200 means (RFC 9110, section 15)."""
    said = _message(body)
    reason = f"HTTP {status}{': ' + said if said else ''}"
    match status:
        case 429 | 503:
            fault = _unseen("F204", f"the server is too busy ({reason})", "try later, or lower `concurrency`")
            return replace(fault, retryable=True, busy=True, retry_after=_retry_after(headers.get("Retry-After")))
        case 401 | 403:
            return _unseen("F214", f"the server wants another key ({reason})", "check `api_key:` of the fleet file")
        case 404:
            return _unseen("F212", f"the server does not know the model, the adapter or the path ({reason})", "orchestra fleet status")
        case 400 | 413 | 422 if _too_long(said):
            hint = "give it less text, or lower max_output"
            return _unseen("F215", f"the prompt and `max_output` are longer than the model's context ({reason})", hint)
        case 408 | 500 | 502 | 504:
            return Fault("F208", f"the server failed ({reason})", "orchestra fleet logs")
        case _ if 300 <= status < 400:
            where = _printable(headers.get("Location", "somewhere else"))
            hint = "write the final address as `endpoint:`"
            return _unseen("F213", f"the server points to {where}, and redirects are not followed", hint)
        case _ if status >= 500:
            return Fault("F208", f"the server failed ({reason})", "orchestra fleet logs", retryable=status != 501)
        case _:
            hint = "orchestra runs show RUN NODE --prompt   # what was sent"
            return _unseen("F207", f"the server refuses the request ({reason})", hint)


def _unseen(code: str, reason: str, hint: str) -> Fault:
    """A fault that no model saw, and that sending the same again cannot mend."""
    return Fault(code, reason, hint, seen=False, retryable=False)


def _too_long(said: str) -> bool:
    lowered = said.lower()
    return any(mark in lowered for mark in ("context length", "max_model_len", "maximum model length", "context window", "context size"))


def _message(body: bytes) -> str:
    """The server's own words, where it has any: `error.message`, `message` or `detail`, else nothing."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ""
    if isinstance(value, dict):
        inner = value.get("error", value)
        found = (inner.get("message") or inner.get("detail")) if isinstance(inner, dict) else inner
        return _printable(found) if isinstance(found, str) else ""
    return ""


def _retry_after(text: str | None) -> float | None:
    """Seconds that a server asks to wait: a number, or a date (RFC 9110, section 10.2.3); None where it says neither."""
    if not text:
        return None
    try:
        return max(0.0, min(float(int(text)), 1e9)) if len(text) < 20 else 1e9
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def _printable(text: str) -> str:
    """A stranger's text on one line, without control characters."""
    return "".join(char if char.isprintable() else " " for char in text)[:300]

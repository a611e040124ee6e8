"""What is refused before a route is chosen: foreign hosts and origins, large or slow bodies, too many headers.

It is plain ASGI, and adds the security headers to every reply.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestra.server.problems import RequestError, problem_response
from orchestra.server.settings import ServerSettings

CONTENT_POLICY: Final = (
    "default-src 'self'; img-src 'self' data:; style-src 'self'; frame-ancestors 'none'; base-uri 'none'; "
    "form-action 'self'; object-src 'none'"
)
SECURITY_HEADERS: Final[Mapping[str, str]] = {
    "content-security-policy": CONTENT_POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}
CORS_METHODS = "GET, POST, PUT, PATCH, DELETE"
CORS_HEADERS = (
    "authorization, content-type, idempotency-key, last-event-id, mcp-session-id, mcp-protocol-version, mcp-method, "
    "mcp-name, a2a-version"
)
CORS_EXPOSED = "location, retry-after, mcp-session-id"
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


class Limits:
    """Refuses requests beyond the limits of the settings, and passes on the others."""

    def __init__(self, app: ASGIApp, settings: ServerSettings) -> None:
        self._app, self._settings = app, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin = headers.get("origin", "")
        is_allowed = origin in self._settings.origins
        send = _with_headers(send, origin if is_allowed else "")
        try:
            self._check(scope, headers, is_allowed=is_allowed)
        except RequestError as error:
            await problem_response(error)(scope, receive, send)
            return
        if scope["method"] == "OPTIONS" and is_allowed:
            await Response(status_code=204)(scope, receive, send)
            return
        body = _BoundedBody(receive, self._settings, is_upload=scope["path"].endswith("/files"))
        try:
            await self._app(scope, body.receive, send)
        except RequestError as error:  # Raised while a body is read outside of a route.
            await problem_response(error)(scope, receive, send)

    def _check(self, scope: Scope, headers: Headers, *, is_allowed: bool) -> None:
        settings = self._settings
        size = sum(len(name) + len(value) for name, value in scope["headers"])
        if len(scope["headers"]) > settings.max_header_count or size > settings.max_headers:
            raise RequestError("S017", "the headers are too large", hint=f"at most {settings.max_headers} bytes")
        if len(headers.getlist("host")) > 1:
            raise RequestError("S007", "the request has several hosts", hint="send one Host header", pointer="Host")
        host = _host_name(headers.get("host", ""))
        if "*" not in settings.hosts and host not in settings.hosts:
            message = f"this server does not answer for the host {host[:100]!r}"
            raise RequestError("S007", message, hint="--host-name", pointer="Host")
        if "content-encoding" in headers and headers["content-encoding"].lower() != "identity":
            hint = "send it without Content-Encoding"
            raise RequestError("S001", "the body is compressed", hint=hint, pointer="Content-Encoding")
        origin = headers.get("origin")
        if origin is not None and not is_allowed and not _is_own(origin, headers.get("host", "")):
            message = f"requests from {origin[:100]!r} are refused"
            raise RequestError("S008", message, hint="--origin", pointer="Origin")
        if scope["method"] not in _SAFE and headers.get("sec-fetch-site") == "cross-site" and not is_allowed:
            message = "requests from other web pages are refused"
            raise RequestError("S008", message, hint="--origin", pointer="Sec-Fetch-Site")
        length, most = headers.get("content-length", ""), self._most(scope)
        if length.isdecimal() and int(length[:20]) > most:
            raise RequestError("S003", f"the body has more than {most} bytes", hint="send less")

    def _most(self, scope: Scope) -> int:
        return self._settings.max_upload if scope["path"].endswith("/files") else self._settings.max_body


_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]*)\]|([^\[\]:]*))(?::\d{0,5})?")


def _host_name(host: str) -> str:
    """Returns a `Host` header without the port; the whole header if it has another form."""
    match = _HOST.fullmatch(host)
    return host.lower() if match is None else (match[1] or match[2] or "").lower()


def _is_own(origin: str, host: str) -> bool:
    """Whether a page comes from this server."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower() != ""


def _with_headers(send: Send, origin: str) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in SECURITY_HEADERS.items():
                headers.setdefault(name, value)
            headers.setdefault("cache-control", "no-store")
            if origin:
                headers["access-control-allow-origin"] = origin
                headers["access-control-allow-methods"] = CORS_METHODS
                headers["access-control-allow-headers"] = CORS_HEADERS
                headers["access-control-expose-headers"] = CORS_EXPOSED
                headers.add_vary_header("Origin")
        await send(message)

    return send_with_headers


class _BoundedBody:
    """A body that must arrive in time and must not be too large."""

    def __init__(self, receive: Receive, settings: ServerSettings, *, is_upload: bool) -> None:
        self._receive = receive
        self._most = settings.max_upload if is_upload else settings.max_body
        self._seconds = settings.body_timeout
        self._deadline: float | None = None
        self._size, self._complete = 0, False

    async def receive(self) -> Message:
        """Returns the next part of the body. Raises `RequestError` S003 or S014."""
        if self._complete:
            return await self._receive()  # Waits for the client to disconnect.
        now: Callable[[], float] = asyncio.get_running_loop().time
        self._deadline = self._deadline or now() + self._seconds
        try:
            async with asyncio.timeout_at(self._deadline):
                message: Message = await self._receive()
        except TimeoutError as error:
            raise RequestError(
                "S014", f"the body did not arrive within {self._seconds:g} seconds", hint="send it faster",
                headers={"Connection": "close"},
            ) from error  # fmt: skip
        if message["type"] == "http.request":
            self._size += len(_body(message))
            self._complete = not message.get("more_body", False)
            if self._size > self._most:
                raise RequestError(
                    "S003", f"the body has more than {self._most} bytes", hint="send less",
                    headers={"Connection": "close"},
                )  # fmt: skip
        return message


def _body(message: Mapping[str, Any]) -> bytes:
    data: bytes = message.get("body", b"")
    return data

"""The lock before vLLM: an ASGI middleware that vLLM loads (`--middleware`), and that lets nobody in without the
fleet's
key.

vLLM's own guard leaves out whatever is not under `/v1` and a few other beginnings: `/invocations`, `/tokenize`,
`/generative_scoring`,
`/metrics`. This one knows no beginnings: it opens `/health`, which says only that the server lives, and nothing else
(docs/decisions/052).
"""

from __future__ import annotations

import hmac
import json
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from orchestra.core.child_process import KEY_VARIABLE

PUBLIC_PATH = "/health"
MIDDLEWARE = f"{__name__}.KeyAuthMiddleware"
UNAUTHORIZED_MESSAGE = (
    "this server wants the key of its fleet, which `orchestra fleet key` prints; an Orchestra that is older than the one "
    "which started it has no key to send: update it, or stop the fleet and start it with the older one"
)

AsgiMessage: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[AsgiMessage]]
Send: TypeAlias = Callable[[AsgiMessage], Awaitable[None]]
Application: TypeAlias = Callable[[AsgiMessage, Receive, Send], Awaitable[None]]


class KeyAuthMiddleware:
    """An application behind a key: 401 for requests without it, websockets closed before they open."""

    def __init__(self, app: Application, key: str | None = None) -> None:
        """The key is that of the environment where None is given. Raises `RuntimeError` where there is none: then
        nothing
        is served.
        """
        found = os.environ.get(KEY_VARIABLE, "") if key is None else key
        if not found:
            raise RuntimeError(f"there is no key in {KEY_VARIABLE}, and without one this server would be anybody's")
        self._app, self._key = app, found.encode()

    async def __call__(self, scope: AsgiMessage, receive: Receive, send: Send) -> None:
        """Hands on what may pass: the server's own start and end, `GET /health`, and what comes with the key."""
        kind = scope["type"]
        is_health = kind == "http" and scope["method"] == "GET" and scope["path"] == PUBLIC_PATH
        if kind == "lifespan" or is_health or self._is_authorized(scope):
            await self._app(scope, receive, send)
        elif kind == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await _send_unauthorized(send)

    def _is_authorized(self, scope: AsgiMessage) -> bool:
        scheme, _, key = dict(scope.get("headers", ())).get(b"authorization", b"").partition(b" ")
        return hmac.compare_digest(key.strip(), self._key) and scheme.lower() == b"bearer"


async def _send_unauthorized(send: Send) -> None:
    body = json.dumps(
        {"error": {"message": UNAUTHORIZED_MESSAGE, "type": "AuthenticationError", "param": None, "code": 401}}
    ).encode()
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        "www-authenticate": "Bearer",
        "connection": "close",
    }
    listed = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": 401, "headers": listed})
    await send({"type": "http.response.body", "body": body, "more_body": False})

"""Authentication of vLLM: an ASGI middleware that requires the fleet's key. vLLM loads it (`--middleware`).

vLLM's own check covers `/v1` and a few other prefixes. It leaves out `/invocations`, `/tokenize`, `/generative_scoring`
and `/metrics`. This middleware covers all paths except `/health`, which only reports that the server lives
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
    "this server requires the key of its fleet, which `orchestra fleet key` prints; "
    "an Orchestra older than the one that started it sends no key: "
    "update it, or stop the fleet and start it with the older one"
)

AsgiMessage: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[AsgiMessage]]
Send: TypeAlias = Callable[[AsgiMessage], Awaitable[None]]
Application: TypeAlias = Callable[[AsgiMessage, Receive, Send], Awaitable[None]]


class KeyAuthMiddleware:
    """Requires a key for an application: 401 for requests without it, and websockets are closed before they open."""

    def __init__(self, app: Application, key: str | None = None) -> None:
        """Takes the key from the environment if it is None.

        Raises:
            RuntimeError: There is no key. The server does not start then.
        """
        server_key = os.environ.get(KEY_VARIABLE, "") if key is None else key
        if not server_key:
            raise RuntimeError(f"there is no key in {KEY_VARIABLE}, so any user could use this server")
        self._app, self._key = app, server_key.encode()

    async def __call__(self, scope: AsgiMessage, receive: Receive, send: Send) -> None:
        """Forwards the server's lifespan events, `GET /health`, and requests with the key."""
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
    header_list = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": 401, "headers": header_list})
    await send({"type": "http.response.body", "body": body, "more_body": False})

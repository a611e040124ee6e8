"""The authentication of local servers: which requests pass."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

from orchestra.core.child_process import KEY_VARIABLE
from orchestra.fleet.secrets import auth_headers
from orchestra.fleet.supervisor.auth_middleware import KeyAuthMiddleware
from orchestra.testing import SimulatedServer

THE_KEY = "k3y-of-the-fleet-and-no-other"


async def passed(scope: dict[str, Any]) -> tuple[bool, list[Any]]:
    """Returns whether the application was called, and the response if it was not."""
    came: list[Any] = []
    sent: list[Any] = []

    async def app(*_: Any) -> None:
        came.append(scope)

    async def receive() -> Any:
        raise AssertionError("nothing is read of what may not pass")

    async def send(message: Any) -> None:
        sent.append(message)

    await KeyAuthMiddleware(app, THE_KEY)(scope, receive, send)
    return bool(came), sent


def http(path: str, method: str = "GET", authorization: str | None = None) -> dict[str, Any]:
    headers = [] if authorization is None else [(b"authorization", authorization.encode("utf-8"))]
    return {"type": "http", "method": method, "path": path, "headers": headers}


@pytest.mark.parametrize(
    "scope",
    [
        {"type": "lifespan"},
        http("/health"),
        http("/v1/models", authorization=f"Bearer {THE_KEY}"),
        http("/metrics", authorization=f"bearer {THE_KEY}"),
        http("/invocations", "POST", f"Bearer {THE_KEY}"),
        {"type": "websocket", "path": "/v1/realtime", "headers": [(b"authorization", f"Bearer {THE_KEY}".encode())]},
    ],
)
async def test_middleware_key_or_health_passes(scope: dict[str, Any]) -> None:
    assert await passed(scope) == (True, [])


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        f"Bearer {THE_KEY}x",
        f"Bearer {THE_KEY[:-1]}",
        THE_KEY,
        f"Basic {THE_KEY}",
        "Bearer é",
    ],
)
@pytest.mark.parametrize(
    ("path", "method"),
    [
        ("/v1/models", "GET"),
        ("/metrics", "GET"),
        ("/health", "POST"),
        ("/health/", "GET"),
        ("/x", "OPTIONS"),
        ("", "GET"),
    ],
)
async def test_middleware_without_key_is_refused(path: str, method: str, authorization: str | None) -> None:
    came, sent = await passed(http(path, method, authorization))
    assert not came
    assert sent[0]["status"] == 401
    assert THE_KEY.encode() not in sent[1]["body"]


async def test_middleware_websocket_without_key_is_closed() -> None:
    assert await passed({"type": "websocket", "path": "/health", "headers": []}) == (
        False,
        [{"type": "websocket.close", "code": 1008}],
    )


def test_middleware_without_key_variable_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    async def app(*_: Any) -> None:
        raise AssertionError("it is never asked")

    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    with pytest.raises(RuntimeError, match=KEY_VARIABLE):
        KeyAuthMiddleware(app)
    monkeypatch.setenv(KEY_VARIABLE, THE_KEY)
    KeyAuthMiddleware(app)


async def test_simulated_server_requires_key() -> None:
    async with SimulatedServer("smol", key=THE_KEY) as server, aiohttp.ClientSession() as session:

        async def status(method: str, path: str, key: str = "") -> int:
            async with session.request(
                method, server.url + path, headers=auth_headers(key), json={"model": "smol", "prompt": "hi"}
            ) as answer:
                return answer.status

        for method, path in (
            ("GET", "/v1/models"),
            ("GET", "/metrics"),
            ("POST", "/tokenize"),
            ("POST", "/v1/completions"),
        ):
            assert [await status(method, path), await status(method, path, THE_KEY)] == [401, 200]
        assert await status("GET", "/health") == 200
    assert len(server.app.requests) == 2

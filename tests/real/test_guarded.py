"""The real vLLM answers no request without the fleet's key, on all of its routes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from orchestra.fleet.config import FleetConfig
from orchestra.fleet.secrets import auth_headers
from orchestra.fleet.supervisor.client import SupervisorClient
from orchestra.fleet.supervisor.folders import Folders
from orchestra.fleet.supervisor.messages import SupervisorReport

pytestmark = pytest.mark.real

UNLISTED = [
    ("GET", path)
    for path in ("/metrics", "/metrics/", "/docs", "/redoc", "/openapi.json", "/nowhere", "//health", "/health/x")
]
UNLISTED += [
    ("POST", path)
    for path in ("/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/health", "/tokenize", "/invocations")
]
UNLISTED += [("OPTIONS", "/v1/models"), ("HEAD", "/metrics")]
ROUTE = re.compile(r"Route: (\S+), Methods: ([A-Z, ]+)$", re.MULTILINE)


async def running(laptop: FleetConfig) -> tuple[SupervisorReport, str]:
    supervision = SupervisorClient(laptop, Folders.from_environment())
    status = await supervision.wait_until_ready()
    key = await supervision.key(status)
    if not key:
        pytest.skip("an earlier version of Orchestra started this fleet")
    return status, key


async def routes(session: aiohttp.ClientSession, url: str, key: str, log: str) -> set[tuple[str, str]]:
    """Returns the routes that the server lists, and its log."""
    async with session.get(f"{url}/openapi.json", headers=auth_headers(key)) as answer:
        assert answer.status == 200
        listed: dict[str, Any] = (await answer.json())["paths"]
    found = {(method.upper(), path) for path, operations in listed.items() for method in operations}
    for path, methods in ROUTE.findall(log):
        found |= {(method.strip(), path) for method in methods.split(",")}
    return found


async def test_all_routes_require_key(laptop: FleetConfig) -> None:
    status, key = await running(laptop)
    url = str(status.servers[0].url)
    async with aiohttp.ClientSession() as session:
        served = await routes(session, url, key, read(status.servers[0].log))
        assert {
            ("POST", "/v1/chat/completions"),
            ("POST", "/generative_scoring"),
            ("POST", "/v1/load_lora_adapter"),
        } <= served
        answered = []
        for method, path in sorted({*served, *UNLISTED} - {("GET", "/health")}):
            for headers in ({}, auth_headers("x" * len(key))):
                body = {"lora_name": "x", "lora_path": "/"} if method in ("POST", "PUT", "PATCH") else None
                place = re.sub(r"{[^}]*}", "x", path)
                async with session.request(
                    method, url + place, headers=headers, json=body, allow_redirects=False
                ) as answer:
                    if answer.status != 401:
                        answered.append((method, path, answer.status, (await answer.read())[:200]))
        assert answered == []
        for path in ("/v1/realtime", "/"):
            with pytest.raises(aiohttp.WSServerHandshakeError):
                await session.ws_connect(url + path)
        async with session.get(f"{url}/health") as answer:
            assert (answer.status, await answer.read()) == (200, b"")
    print(f"{len(served)} routes")


async def test_key_is_accepted_and_not_logged(laptop: FleetConfig) -> None:
    status, key = await running(laptop)
    server = status.servers[0]
    chat = {"model": server.model, "messages": [{"role": "user", "content": "Hi."}], "max_tokens": 2}
    asked: dict[str, Any] = {
        "/v1/models": None,
        "/metrics": None,
        "/version": None,
        "/v1/chat/completions": chat,
        "/tokenize": chat,
    }
    async with aiohttp.ClientSession(headers=auth_headers(key)) as session:
        for path, body in asked.items():
            async with session.request("GET" if body is None else "POST", f"{server.url}{path}", json=body) as answer:
                assert answer.status == 200, (path, await answer.text())
    assert key not in read(server.log)
    assert key not in read(f"/proc/{server.pid}/cmdline")


def read(file: str) -> str:
    return Path(file).read_text("utf-8", "replace")

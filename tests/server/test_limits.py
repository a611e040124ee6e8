"""What the server refuses before a route is chosen."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from orchestra.server import ServerSettings
from tests.server.servers import INPUTS, listening, serving

BODY = {"workflow": "answer", "inputs": INPUTS}


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Host": "evil.example"}, 421, "S007"),
        ({"Host": "localhost.evil.example:80"}, 421, "S007"),
        ({"Host": ""}, 421, "S007"),
        ({"Host": "[::1]:8100"}, 200, ""),
        ({"Host": "LOCALHOST:8100"}, 200, ""),
        ({"Origin": "https://evil.example"}, 403, "S008"),
        ({"Origin": "null"}, 403, "S008"),
        ({"Origin": "http://localhost"}, 200, ""),
        ({"Sec-Fetch-Site": "cross-site"}, 403, "S008"),
        ({"Content-Type": "text/plain"}, 415, "S001"),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415, "S001"),
        ({"Content-Encoding": "gzip"}, 415, "S001"),
        ({"X-Large": "a" * 40_000}, 431, "S017"),
        ({f"X-{number}": "a" for number in range(120)}, 431, "S017"),
        ({"Idempotency-Key": "a" * 300}, 422, "S002"),
    ],
)
async def test_request_with_hostile_headers_is_refused(
    tmp_path: Path, headers: dict[str, str], status: int, code: str
) -> None:
    async with serving(tmp_path, settings=ServerSettings(auth=False)) as server:
        headers = {"Content-Type": "application/json", **headers}
        reply = await server.client.post("/api/runs", content=json.dumps(BODY), headers=headers)
        started = await server.orchestra.runs()
    assert (reply.status_code, reply.json().get("code", "")) == (status, code)
    assert len(started) == (status == 200)
    assert "access-control-allow-origin" not in reply.headers


async def test_request_of_an_allowed_origin_gets_cors_headers(tmp_path: Path) -> None:
    settings = ServerSettings(auth=False, origins=("https://app.example",))
    async with serving(tmp_path, settings=settings) as server:
        headers = {"Origin": "https://app.example"}
        asked = await server.client.options("/api/runs", headers=headers)
        reply = await server.client.post("/api/runs", json=BODY, headers=headers)
    assert (asked.status_code, reply.status_code) == (204, 200)
    assert reply.headers["access-control-allow-origin"] == "https://app.example"
    assert "access-control-allow-credentials" not in reply.headers


@pytest.mark.parametrize("stated", [True, False])
async def test_body_that_is_too_large_is_refused(tmp_path: Path, stated: bool) -> None:
    async def parts() -> Any:
        for _ in range(20):
            yield b'{"workflow": "'
            yield b"a" * 100

    settings = ServerSettings(auth=False, max_body=1000)
    async with serving(tmp_path, settings=settings) as server:
        content: Any = b"{" + b" " * 2000 if stated else parts()
        reply = await server.client.post("/api/runs", content=content, headers={"Content-Type": "application/json"})
    assert (reply.status_code, reply.json()["code"]) == (413, "S003")


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[" * 100_000, 400),
        (b'{"workflow": "answer", "inputs": ' + b'{"a":' * 200 + b"1" + b"}" * 201, 422),
        (b'{"workflow": "\\ud800"}', 400),
        (b'{"workflow": "\xff"}', 400),
        (b'{"workflow": NaN}', 400),
        (b'{"workflow": "answer", "inputs": {"question": ' + b"9" * 5000 + b"}}", 400),
        (b"null", 422),
        (b'{"workflow": "answer", "unknown": 1}', 422),
    ],
)
async def test_body_that_is_no_plain_json_is_refused(tmp_path: Path, content: bytes, status: int) -> None:
    async with serving(tmp_path) as server:
        reply = await server.client.post("/api/runs", content=content, headers={"Content-Type": "application/json"})
    assert (reply.status_code, reply.json()["code"]) == (status, "S002")
    assert "Traceback" not in reply.text


async def test_body_that_arrives_slowly_is_refused(tmp_path: Path) -> None:
    settings = ServerSettings(auth=False, body_timeout=0.05, hosts=("*",))
    async with serving(tmp_path, settings=settings) as server, listening(server.app) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        head = b"POST /api/runs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{"
        writer.write(head)
        reply = await reader.read()
        writer.close()
    assert reply.startswith(b"HTTP/1.1 408")
    assert b"S014" in reply


@pytest.mark.parametrize(
    "path",
    [
        "/api/runs/..%2F..%2Fetc%2Fpasswd",
        "/api/runs/%00",
        "/api/runs/a'%20OR%201=1",
        f"/api/runs/{'a' * 500}",
        "/api/workflows/..%2Fanswer.yaml",
        "/api/agents/%2e%2e",
        "/api/runs/a%0d%0aX-Injected:%201",
        "/..%2f..%2fetc/passwd",
    ],
)
async def test_path_with_hostile_text_is_404(tmp_path: Path, path: str) -> None:
    async with serving(tmp_path) as server:
        reply = await server.client.get(path)
    assert reply.status_code == 404
    assert "x-injected" not in reply.headers


async def test_every_reply_has_security_headers(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        for path in ("/api", "/docs", "/nothing", "/api/runs/x"):
            headers = (await server.client.get(path)).headers
            assert headers["x-content-type-options"] == "nosniff"
            assert "default-src 'self'" in headers["content-security-policy"]
            assert headers["cache-control"] == "no-store"


async def test_fault_of_the_server_is_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(tmp_path) as server:

        async def broken(*_: object) -> None:
            raise ValueError("secret")

        monkeypatch.setattr(server.orchestra.journal, "check_writable", broken)
        reply = await server.client.get("/readyz")
    assert (reply.status_code, reply.json()["code"]) == (500, "S018")
    assert "secret" not in reply.text


async def test_address_of_a_run_redirects_to_its_page(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        reply = await server.client.get("/runs/01m8t33tppzbqe7zapwd")
    assert (reply.status_code, reply.headers["location"]) == (302, "/#/runs/01m8t33tppzbqe7zapwd")

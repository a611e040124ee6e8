"""A sample of hostile requests to a real server, and single attacks that were once faults. `make attacks-server` sends
10,000.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import pytest

from orchestra.core.errors import InputError
from orchestra.server.limits import SECURITY_HEADERS
from orchestra.server.problems import pointer_of
from orchestra.server.webhooks import check_url, open_session
from tests.server.hostile.audit import violations
from tests.server.hostile.campaign import attack_server, memory_faults
from tests.server.hostile.exchange import Attack, Reply, message, send
from tests.server.servers import listening, serving
from tests.server.test_http_server import read_until_closed


async def test_server_refuses_hostile_requests_and_goes_on(tmp_path: Path) -> None:
    report = await attack_server(tmp_path, 300, 7)
    assert report.faults == []
    assert report.requests == 300
    assert {200, 400, 401, 403, 404, 405, 413, 415, 421, 422} <= set(report.statuses)


@pytest.mark.parametrize(
    ("memory", "max_growth", "faults"),
    [
        ([100, 160], None, 0),
        ([100, 160, 220], None, 0),
        ([100, 160, 165], 0.25, 0),
        ([100, 160, 176], 0.25, 1),
        ([100, 160, 150], 0.25, 0),
        ([100, 300], None, 1),
        ([100, 300, 500], 0.25, 2),
    ],
)
def test_memory_that_goes_on_growing_is_a_fault(memory: list[int], max_growth: float | None, faults: int) -> None:
    values = [value << 20 for value in memory]
    assert len(list(memory_faults(values, max(values), max_growth))) == faults


async def test_second_round_goes_to_the_same_server(tmp_path: Path) -> None:
    report = await attack_server(tmp_path, 60, 3, max_growth=100.0)
    assert report.faults == []
    assert (report.requests, len(report.memory)) == (120, 3)


@pytest.mark.parametrize(
    ("reply", "fault"),
    [
        (Reply(500, (), b"x"), "status 500"),
        (Reply(200, (), b"Traceback (most recent call last)"), "the reply has 'Traceback"),
        (Reply(200, (), b"/srv/data/runs.db"), "the reply has '/srv/data'"),
        (Reply(200, (), b"canary-of-the-victim"), "the reply has 'canary"),
        (Reply(200, (("x-injected", "1"),)), "a header was injected"),
        (Reply(200, (("access-control-allow-origin", "*"),)), "another web page may read"),
        (Reply(200, (), b"", b"HTTP/1.1 200 OK"), "there was a second reply"),
        (
            Reply(200, (("content-type", "text/event-stream"),), b"5\r\nid: 1\r\n", b"HTTP/1.1 400 Bad Request"),
            "there was a second reply",
        ),
        (Reply(404, (("content-type", "text/plain"),), b"no"), "the error is 'text/plain'"),
        (
            Reply(404, (("content-type", "application/problem+json"),), b'{"status": 404, "code": "S009"}'),
            "the error has no ['type', 'title', 'detail', 'hint', 'pointer']",
        ),
        (Reply(200), "the header content-security-policy is ''"),
        (Reply(201), "status 201, not [200, 404, 500]"),
    ],
)
def test_audit_finds_each_kind_of_fault(reply: Reply, fault: str) -> None:
    attack = Attack("one", b"GET / HTTP/1.1", frozenset({200, 404, 500}), is_single=True)
    assert any(found.startswith(fault) for found in violations(attack, reply, "/srv/data"))


@pytest.mark.parametrize(
    ("body", "more"),
    [(b"5\r\nid: 1\r\n0\r\n\r\n", b"HTTP/1.1 400 Bad"), (b"5\r\nid: 1", b"\r\n0\r\n\r\nHTTP/1.1 400 Bad")],
)
def test_reply_after_the_end_of_a_stream_is_no_fault(body: bytes, more: bytes) -> None:
    attack = Attack("one", b"GET / HTTP/1.1", frozenset({200}), is_single=True)
    reply = Reply(200, (("content-type", "text/event-stream"), *SECURITY_HEADERS.items()), body, more)
    assert list(violations(attack, reply, "/srv/data")) == []


@pytest.mark.parametrize("host", ["①②⑦.0.0.1", "１27.0.0.1", "127。0。0。1"])
def test_webhook_to_an_address_in_other_digits_is_refused(host: str) -> None:
    with pytest.raises(InputError, match="not public"):
        check_url(f"https://{host}/", allow_private=False)


async def test_webhook_connection_to_a_private_address_is_refused() -> None:
    connected = list[object]()
    async with await asyncio.start_server(lambda *pair: connected.append(pair), "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with open_session(allow_private=False) as session:
            for host in ("127.0.0.1", "[::ffff:127.0.0.1]", "①②⑦.0.0.1"):
                with pytest.raises(aiohttp.ClientConnectorError):
                    await session.post(f"https://{host}:{port}/")
    assert connected == []


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"EVIL /api HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, "S040"),
        (message("GET", "/api", [("X-Large", "a" * 100_000)]), 431, "S017"),
        (message("GET", "/api", [("Host", "evil.example")]), 421, "S007"),
        (message("POST", "/api/runs", [("Content-Type", "text/plain")], b"{}"), 415, "S001"),
    ],
)
async def test_error_of_every_layer_is_a_problem(tmp_path: Path, data: bytes, status: int, code: str) -> None:
    async with serving(tmp_path) as server, listening(server.app) as url:
        attack = Attack("one", data, frozenset({status}), code)
        reply = await send(int(url.rpartition(":")[2]), attack)
    assert list(violations(attack, reply, str(tmp_path))) == []


async def test_bytes_that_are_no_http_do_not_reach_a_stream(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, listening(server.app) as url:
        run = (await server.run("approve", {"draft": "a"}))["id"]
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        writer.write(message("GET", f"/api/runs/{run}/events"))
        received = await reader.readuntil(b"question_asked")
        writer.write(b"\x00 no HTTP\r\n\r\n")
        received += await read_until_closed(reader)
        writer.close()
    assert received.count(b"HTTP/1.1 ") == 1


async def test_client_that_leaves_in_a_body_is_no_fault(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(tmp_path) as server, listening(server.app) as url:
        _, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        writer.write(message("POST", "/api/runs", [("Content-Type", "application/json"), ("Content-Length", "50")]))
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.transport.abort()
        await asyncio.sleep(0.05)
        assert (await server.client.get("/healthz")).status_code == 200
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []


async def test_value_whose_name_no_input_has_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        reply = await server.client.post("/api/ask", json={"request": "When?", "values": {"//": 1}})
    assert (reply.status_code, reply.json()["code"], reply.json()["pointer"]) == (422, "E012", "/values")


def test_place_of_a_missing_or_unknown_field_has_its_name() -> None:
    assert pointer_of("Object missing required field `name`")[1] == "/name"
    assert pointer_of("Object contains unknown field `a` - at `$.options`")[1] == "/options/a"


async def test_part_of_a_studio_file_is_not_sent(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        whole = await server.client.get("/index.html")
        for wanted in ("bytes=0-1", "bytes=9-1", "x" * 5000):
            reply = await server.client.get("/index.html", headers={"Range": wanted})
            assert (reply.status_code, reply.content) == (200, whole.content)

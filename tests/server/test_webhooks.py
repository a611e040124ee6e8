"""Webhooks: signed, repeated, given up at last, and never sent to a private address."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from orchestra.server import ServerSettings
from orchestra.server.webhooks import BACKOFF, PublicResolver, deliver_due, is_public, open_session, watches_of
from tests.server.receivers import receiving
from tests.server.servers import INPUTS, TestServer, serving, until_async

PRIVATE = ServerSettings(auth=False, hosts=("*",), private_webhooks=True)


async def add_hook(server: TestServer, url: str, **body: Any) -> dict[str, Any]:
    """Adds a webhook."""
    reply = await server.client.post("/api/webhooks", json={"url": url, **body})
    assert reply.status_code == 201, reply.text
    found: dict[str, Any] = reply.json()
    return found


async def deliveries(server: TestServer, hook: str) -> list[dict[str, Any]]:
    """The messages of a webhook."""
    found: list[dict[str, Any]] = (await server.client.get(f"/api/webhooks/{hook}/deliveries")).json()["items"]
    return found


async def test_webhook_gets_a_signed_message_about_the_end(tmp_path: Path) -> None:
    async with receiving() as receiver, serving(tmp_path, settings=PRIVATE) as server:
        hook = await add_hook(server, receiver.url)
        run = (await server.run())["id"]

        async def delivered() -> bool:
            return [one["status"] for one in await deliveries(server, hook["id"])] == ["delivered"]

        await until_async(delivered)
        listed = (await server.client.get("/api/webhooks")).json()["items"]
    ((headers, body),) = receiver.messages
    message = json.loads(body)
    assert (message["type"], message["data"]["id"], message["data"]["status"]) == ("run.finished", run, "done")
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    key = base64.b64decode(hook["secret"].removeprefix("whsec_"))
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert listed[0]["secret"] is None


async def test_webhook_hears_of_a_run_that_waits(tmp_path: Path) -> None:
    async with receiving() as receiver, serving(tmp_path, settings=PRIVATE) as server:
        await add_hook(server, receiver.url, events=["run.waiting"])
        await server.run("approve", {"draft": "a"})

        async def received() -> bool:
            return bool(receiver.messages)

        await until_async(received)
    assert json.loads(receiver.messages[0][1])["type"] == "run.waiting"


@pytest.mark.parametrize("status", [500, 302, 404])
async def test_refused_message_is_repeated_and_dead_at_last(tmp_path: Path, status: int) -> None:
    async with receiving(status) as receiver, serving(tmp_path, settings=PRIVATE) as server:
        hook = await add_hook(server, receiver.url)
        await server.run()

        async def was_tried() -> bool:
            found = [(one["attempts"], one["last_error"]) for one in await deliveries(server, hook["id"])]
            return found == [(1, f"status {status}")]

        await until_async(was_tried)
        now, slots = time.time(), asyncio.Semaphore(1)
        async with open_session(allow_private=True) as session:
            for _ in BACKOFF:
                now += 100_000
                await deliver_due(server.services, session, slots, now)
        (dead,) = await deliveries(server, hook["id"])
        receiver.status = 200
        await server.client.post(f"/api/webhooks/{hook['id']}/deliveries/{dead['id']}/retry", json={})

        async def delivered() -> bool:
            return [one["status"] for one in await deliveries(server, hook["id"])] == ["delivered"]

        await until_async(delivered)
    assert (dead["status"], dead["attempts"], dead["last_error"]) == ("dead", 1 + len(BACKOFF), f"status {status}")
    assert len({headers["webhook-id"] for headers, _ in receiver.messages}) == 1
    assert len(receiver.messages) == 2 + len(BACKOFF)


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example/",
        "https://127.0.0.1/",
        "https://10.0.0.1/",
        "https://169.254.169.254/latest/meta-data",
        "https://[::1]/",
        "https://[::ffff:10.0.0.1]/",
        "https://[64:ff9b::a00:1]/",
        "https://[2002:a00:1::]/",
        "https://user:pass@hooks.example/",
        "https://0.0.0.0/",
        "https://hooks.example:0/",
        "ftp://hooks.example/",
        "file:///etc/passwd",
        "https://",
    ],
)
async def test_webhook_to_a_private_or_odd_address_is_refused(tmp_path: Path, url: str) -> None:
    async with serving(tmp_path) as server:
        reply = await server.client.post("/api/webhooks", json={"url": url})
    assert (reply.status_code, reply.json()["code"]) == (422, "S012")


async def test_name_with_a_private_address_is_not_connected() -> None:
    with pytest.raises(OSError, match="not public"):
        await PublicResolver(allow_private=False).resolve("localhost", 80)


@pytest.mark.parametrize(
    ("address", "public"),
    [("8.8.8.8", True), ("2606:4700::1", True), ("192.168.1.1", False), ("100.64.0.1", False), ("224.0.0.1", False)],
)
def test_is_public(address: str, public: bool) -> None:
    assert is_public(ip_address(address)) is public


async def test_message_of_a_process_that_died_is_recorded_later(tmp_path: Path) -> None:
    async with receiving() as receiver:
        async with serving(tmp_path, settings=PRIVATE) as server:
            hook = await add_hook(server, receiver.url)
            await server.services.close()  # Nothing in the background records or sends any more.
            run = await server.orchestra.options(tags={"orchestra.tenant": "local"}).run(
                server.orchestra.find("answer"), **INPUTS
            )
            await watches_of(server.services).add(run.run, "local", watch(run.run))
        async with serving(tmp_path, settings=PRIVATE) as server:

            async def delivered() -> bool:
                return [one["status"] for one in await deliveries(server, hook["id"])] == ["delivered"]

            await until_async(delivered)
    assert json.loads(receiver.messages[0][1])["data"]["id"] == run.run


def watch(run: str) -> Any:
    """The record of a run whose messages are missing."""
    from orchestra.server.webhooks import Watch

    return Watch(run=run)

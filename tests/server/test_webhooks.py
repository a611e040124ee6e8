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

import msgspec
import pytest

from orchestra.server import ServerSettings
from orchestra.server.webhooks import (
    BACKOFF,
    MAX_DUE,
    Delivery,
    PublicResolver,
    deliver_due,
    deliveries_of,
    is_public,
    open_session,
    watches_of,
)
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


def delivery(id: str, **fields: Any) -> Delivery:
    """A message of the webhook `hook`."""
    values = {"webhook": "hook", "event": "run.finished", "run": "r", "status": "pending", "attempts": 0}
    values |= {"next_attempt": 100.0, "last_error": "", "created": 1.0, "body": "{}", **fields}
    return msgspec.convert({"id": id, **values}, Delivery)


async def test_only_messages_that_are_due_are_read(tmp_path: Path) -> None:
    async with receiving() as receiver, serving(tmp_path, settings=PRIVATE) as server:
        hook = (await add_hook(server, receiver.url))["id"]
        await server.services.close()  # Nothing in the background sends.
        messages = deliveries_of(server.services)
        for stored in (
            delivery("old", webhook=hook, status="delivered", next_attempt=None),
            delivery("due", webhook=hook, next_attempt=100.0),
            delivery("later", webhook=hook, next_attempt=300.0),
        ):
            await messages.add(stored.id, "local", stored)
        await server.services.records.add("delivery", "unreadable", "local", b"no JSON")
        async with open_session(allow_private=True) as session:
            numbers = [await deliver_due(server.services, session, asyncio.Semaphore(1), 200.0) for _ in range(2)]
    assert numbers == [1, 0]
    assert [headers["webhook-id"] for headers, _ in receiver.messages] == ["due"]


async def test_time_that_an_earlier_version_did_not_change_is_corrected(tmp_path: Path) -> None:
    async with receiving() as receiver, serving(tmp_path, settings=PRIVATE) as server:
        hook = (await add_hook(server, receiver.url))["id"]
        await server.services.close()
        for name, status in (("sent", "delivered"), ("later", "pending")):
            data = msgspec.json.encode(delivery(name, webhook=hook, status=status, next_attempt=300.0))
            await server.services.records.add("delivery", name, "local", data, 100.0)
        async with open_session(allow_private=True) as session:
            numbers = [await deliver_due(server.services, session, asyncio.Semaphore(1), 200.0) for _ in range(2)]
        due = await deliveries_of(server.services).all_due(1000.0, 5)
    assert numbers == [2, 0]
    assert [(one.value.id, one.record.due) for one in due] == [("later", 300.0)]
    assert receiver.messages == []


async def test_many_messages_are_sent_in_parts(tmp_path: Path) -> None:
    async with receiving() as receiver, serving(tmp_path, settings=PRIVATE) as server:
        hook = (await add_hook(server, receiver.url))["id"]
        await server.services.close()
        for number in range(MAX_DUE + 3):
            name = f"m{number}"
            await deliveries_of(server.services).add(name, "local", delivery(name, webhook=hook, next_attempt=number))
        async with open_session(allow_private=True) as session:
            numbers = [await deliver_due(server.services, session, asyncio.Semaphore(8), 200.0) for _ in range(3)]
    assert numbers == [MAX_DUE, 3, 0]
    assert len({headers["webhook-id"] for headers, _ in receiver.messages}) == MAX_DUE + 3


async def test_dead_messages_are_listed_in_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(tmp_path, settings=PRIVATE) as server:
        hook = (await add_hook(server, "https://hooks.example/"))["id"]
        messages = deliveries_of(server.services)

        async def add(name: str, status: str, webhook: str = hook) -> None:
            stored = delivery(name, webhook=webhook, status=status, next_attempt=None)
            await messages.add(name, "local", stored)

        for number in range(7):
            await add(f"dead{number}", "dead")
            await add(f"sent{number}", "delivered")
            await add(f"other{number}", "dead", "another")
        path = f"/api/webhooks/{hook}/deliveries?status=dead"

        async def pages(limit: int) -> list[list[str]]:
            """The ids of each page, with a new message after each."""
            found, cursor = list[list[str]](), ""
            while True:
                page = (await server.client.get(f"{path}&limit={limit}&cursor={cursor}")).json()
                found.append([one["id"] for one in page["items"]])
                if (cursor := page["next"]) is None:
                    return found
                await add(f"new{limit}.{len(found)}", "delivered")

        everything = [f"dead{number}" for number in reversed(range(7))]
        assert await pages(3) == [everything[:3], everything[3:6], everything[6:]]
        assert await pages(7) == [everything]
        monkeypatch.setattr("orchestra.server.webhooks.MAX_EXAMINED", 4)
        short = await pages(3)
        assert [name for page in short for name in page] == everything
        assert max(map(len, short)) <= 2
        unknown = await server.client.get(f"{path}&cursor=unknown")
    assert (unknown.status_code, unknown.json()["code"], unknown.json()["pointer"]) == (422, "S002", "cursor")


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

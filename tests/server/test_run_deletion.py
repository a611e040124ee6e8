"""A run is deleted with the messages about it, which contain its answer."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from orchestra.server.retention import sweep
from orchestra.server.webhooks import deliveries_of
from tests.server.servers import INPUTS, TestServer, serving, until_async
from tests.server.test_threads import idle
from tests.server.test_webhooks import PRIVATE, add_hook


async def start(server: TestServer, thread: str) -> str:
    """Runs the workflow, with a retention of one second, and returns the id of the run that has ended."""
    body = {"workflow": "answer", "inputs": INPUTS, "mode": "wait"}
    path = f"/api/threads/{thread}/runs" if thread else "/api/runs"
    reply = await server.client.post(path, json={**body, "options": {"ttl": 1}})
    assert reply.status_code in (200, 201), reply.text
    if thread:
        await idle(server, thread)
    run: str = reply.json()["id"]
    return run


async def delete(server: TestServer, how: str, run: str, thread: str) -> None:
    """Deletes a run in one of the ways in which runs are deleted."""
    if how == "retention":
        assert await sweep(server.services, time.time() + 100) >= 1
    else:
        reply = await server.client.delete(f"/api/threads/{thread}" if how == "thread" else f"/api/runs/{run}")
        assert reply.status_code == 204, reply.text


@pytest.mark.parametrize("how", ["run", "thread", "retention"])
async def test_run_is_deleted_with_its_messages(tmp_path: Path, how: str) -> None:
    async with serving(tmp_path, settings=PRIVATE) as server:
        await add_hook(server, "http://127.0.0.1:9/")
        thread = (await server.client.post("/api/threads", json={})).json()["id"] if how == "thread" else ""
        run = await start(server, thread)
        other = (await server.run())["id"]

        async def runs_with_messages() -> set[str]:
            return {stored.value.run for stored in await deliveries_of(server.services).all()}

        async def both() -> bool:
            return await runs_with_messages() == {run, other}

        await until_async(both)
        await delete(server, how, run, thread)
        left = await runs_with_messages()
    assert left == {other}

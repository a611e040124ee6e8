"""Threads: runs that go one after the other, and what happens to a request while one goes on."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from orchestra.core.protocols import CallRequest
from tests.server.servers import INPUTS, REPLY, TestServer, serving, until, until_async


class Gate:
    """An agent that answers when it may, and counts the calls that go on."""

    def __init__(self) -> None:
        self.open, self.now, self.most = asyncio.Event(), 0, 0
        self.asked = list[str]()

    async def __call__(self, call: CallRequest) -> Any:
        self.asked.append(call.inputs["question"])
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await self.open.wait()
        finally:
            self.now -= 1
        return REPLY


async def send(
    server: TestServer, thread: str, question: str, policy: str = "enqueue", mode: str = "background"
) -> Any:
    """Sends a request to a thread."""
    body = {"workflow": "answer", "inputs": {**INPUTS, "question": question}, "if_busy": policy, "mode": mode}
    return await server.client.post(f"/api/threads/{thread}/runs", json=body)


async def new_thread(server: TestServer) -> str:
    """Makes a thread; returns its id."""
    found: str = (await server.client.post("/api/threads", json={"title": "talk"})).json()["id"]
    return found


async def idle(server: TestServer, thread: str) -> dict[str, Any]:
    """Waits until nothing goes on in a thread."""

    async def is_idle() -> bool:
        return (await server.client.get(f"/api/threads/{thread}")).json()["active"] is None

    await until_async(is_idle)
    found: dict[str, Any] = (await server.client.get(f"/api/threads/{thread}")).json()
    return found


async def test_thread_runs_requests_one_after_the_other(tmp_path: Path) -> None:
    gate = Gate()
    async with serving(tmp_path, gate) as server:
        thread = await new_thread(server)
        sent = [(await send(server, thread, name)).json()["id"] for name in ("a", "b", "c")]
        await until(lambda: gate.asked)
        gate.open.set()
        ended = await idle(server, thread)
    assert gate.asked == ["a", "b", "c"]
    assert gate.most == 1
    assert ended["runs"] == sent


async def test_busy_thread_rejects_if_asked(tmp_path: Path) -> None:
    gate = Gate()
    async with serving(tmp_path, gate) as server:
        thread = await new_thread(server)
        await send(server, thread, "a")
        reply = await send(server, thread, "b", "reject")
        gate.open.set()
        await idle(server, thread)
        later = await send(server, thread, "c", "reject", "wait")
    assert (reply.status_code, reply.json()["code"]) == (409, "S011")
    assert (later.status_code, later.json()["output"]) == (200, REPLY)


@pytest.mark.parametrize(("policy", "kept"), [("interrupt", True), ("rollback", False)])
async def test_busy_thread_replaces_its_run_if_asked(tmp_path: Path, policy: str, kept: bool) -> None:
    gate = Gate()
    async with serving(tmp_path, gate) as server:
        thread = await new_thread(server)
        first = (await send(server, thread, "a")).json()["id"]
        await until(lambda: gate.asked)
        second = (await send(server, thread, "b", policy)).json()["id"]
        await until(lambda: len(gate.asked) == 2)
        gate.open.set()
        ended = await idle(server, thread)
        old = await server.client.get(f"/api/runs/{first}/answer")
    assert gate.asked == ["a", "b"]
    assert ended["runs"] == ([first, second] if kept else [second])
    assert (old.status_code == 200 and old.json()["status"] == "cancelled") if kept else old.status_code == 404


async def test_thread_reports_why_a_request_cannot_start(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        thread = await new_thread(server)
        body = {"workflow": "answer", "inputs": {"question": 1}, "mode": "wait"}
        reply = await server.client.post(f"/api/threads/{thread}/runs", json=body)
        ended = await idle(server, thread)
    assert (reply.status_code, reply.json()["code"]) == (422, "E013")
    assert ended["queued"] == 0


async def test_thread_continues_after_a_restart(tmp_path: Path) -> None:
    gate = Gate()
    async with serving(tmp_path, gate) as server:
        thread = await new_thread(server)
        sent = [(await send(server, thread, name)).json()["id"] for name in ("a", "b")]
        await until(lambda: gate.asked)
    async with serving(tmp_path) as server:
        ended = await idle(server, thread)
        outputs = [(await server.client.get(f"/api/runs/{run}/answer")).json()["output"] for run in sent]
    assert ended["runs"] == sent
    assert outputs == [REPLY, REPLY]


async def test_delete_thread_deletes_its_runs(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        thread = await new_thread(server)
        run = (await send(server, thread, "a", mode="wait")).json()["id"]
        await idle(server, thread)
        deleted = await server.client.delete(f"/api/threads/{thread}")
        gone = await server.client.get(f"/api/runs/{run}")
    assert (deleted.status_code, gone.status_code) == (204, 404)


async def test_thread_gives_its_history_to_a_run(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        thread = await new_thread(server)
        await send(server, thread, "a", mode="wait")
        await idle(server, thread)
        body = {"workflow": "recall", "inputs": {"earlier": {"$history": 3}}, "mode": "wait"}
        reply = await server.client.post(f"/api/threads/{thread}/runs", json=body)
        run = reply.json()["id"]
        detail = (await server.client.get(f"/api/runs/{run}")).json()
    assert detail["inputs"]["earlier"] == [{"inputs": {**INPUTS, "question": "a"}, "output": REPLY}]

"""A client that disconnects: its own run is cancelled if it asked for that, and no other run."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.types import Message

from orchestra.app.run import Run
from orchestra.core.protocols import CallRequest
from orchestra.core.tags import Tags
from orchestra.server.agent_protocols.skills import cancel_for_client, find_skill, start_skill
from orchestra.server.endpoints import Call, NoBody, NoQuery
from orchestra.server.principals import LOCAL_USER
from tests.server.servers import INPUTS, REPLY, TestServer, serving

AG_UI = {
    "threadId": "talk", "runId": "1", "state": {}, "messages": [], "tools": [], "context": [],
    "forwardedProps": {"inputs": INPUTS},
}  # fmt: skip


class WaitingModel:
    """A model that answers after an event."""

    def __init__(self, calls: int) -> None:
        self._missing = calls
        self.are_called = asyncio.Event()
        """Set when so many calls wait."""
        self.answers = asyncio.Event()

    async def answer(self, call: CallRequest) -> Any:
        """Answers the call of a worker."""
        self._missing -= 1
        if self._missing <= 0:
            self.are_called.set()
        await self.answers.wait()
        return REPLY


async def send_and_disconnect(server: TestServer, path: str, body: Any, leaves: asyncio.Event) -> None:
    """Sends a request and disconnects at an event. Returns when the server has done everything for this client."""
    data = json.dumps(body).encode()
    headers = [(b"content-type", b"application/json"), (b"host", b"localhost")]
    messages: list[Message] = [{"type": "http.request", "body": data, "more_body": False}]
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "headers": headers,
        "client": ("127.0.0.1", 1), "server": ("localhost", 80),
    }  # fmt: skip

    async def receive() -> Message:
        if messages:
            return messages.pop()
        await leaves.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        """Takes what the server sends to a client that may have gone."""

    await server.app(scope, receive, send)


def call_of(server: TestServer) -> Call[Any, Any]:
    """A request of the local user."""
    return Call(server.services, Request({"type": "http", "headers": []}), LOCAL_USER, NoBody(), NoQuery())


async def start(server: TestServer) -> Run[Any]:
    """A run of an agent's client."""
    call = call_of(server)
    return await start_skill(call, find_skill(call, "answer"), INPUTS)


async def statuses(server: TestServer) -> dict[str, str]:
    """The statuses of all runs when they have ended."""
    found = [run.run for run in await server.orchestra.runs()]
    async with asyncio.timeout(60):
        return {run: (await server.client.get(f"/api/runs/{run}/answer?wait=60")).json()["status"] for run in found}


def api_body(mode: str, policy: str) -> dict[str, Any]:
    """The body of a request for a run."""
    return {"workflow": "answer", "inputs": INPUTS, "mode": mode, "on_disconnect": policy}


def chat_body(stream: bool, policy: str) -> dict[str, Any]:
    """The body of a request of OpenAI's API."""
    extension = {"inputs": {"documents": INPUTS["documents"]}, "on_disconnect": policy}
    messages = [{"role": "user", "content": "When?"}]
    return {"model": "answer", "messages": messages, "stream": stream, "orchestra": extension}


@pytest.mark.parametrize(
    ("path", "body", "cancels"),
    [
        ("/api/runs", api_body("wait", "cancel"), True),
        ("/api/runs", api_body("wait", "continue"), False),
        ("/api/runs", api_body("stream", "cancel"), True),
        ("/api/runs", api_body("stream", "continue"), False),
        ("/v1/chat/completions", chat_body(False, "cancel"), True),
        ("/v1/chat/completions", chat_body(False, "continue"), False),
        ("/v1/chat/completions", chat_body(True, "cancel"), True),
        ("/v1/chat/completions", chat_body(True, "continue"), False),
        ("/ag-ui/answer", AG_UI, True),
    ],
    ids=[
        "wait-cancel",
        "wait-continue",
        "stream-cancel",
        "stream-continue",
        "chat-cancel",
        "chat-continue",
        "chat-stream-cancel",
        "chat-stream-continue",
        "ag-ui",
    ],
)
async def test_disconnect_ends_the_own_run_if_wanted_and_no_other(
    tmp_path: Path, path: str, body: dict[str, Any], cancels: bool
) -> None:
    model, leaves, stays = WaitingModel(2), asyncio.Event(), asyncio.Event()
    async with serving(tmp_path, model.answer) as server:
        other = (await server.run(mode="background"))["id"]
        sending = asyncio.create_task(send_and_disconnect(server, path, body, leaves))
        staying = asyncio.create_task(send_and_disconnect(server, path, body, stays))
        async with asyncio.timeout(60):
            await model.are_called.wait()
            leaves.set()
            await sending  # The server has seen that the client has gone.
            model.answers.set()
            found = await statuses(server)
            stays.set()
            await staying
    assert found.pop(other) == "done"
    assert sorted(found.values()) == (["cancelled", "done"] if cancels else ["done", "done"])


async def test_client_cancels_its_run_and_no_other(tmp_path: Path) -> None:
    model = WaitingModel(2)
    async with serving(tmp_path, model.answer) as server:
        own, other = await start(server), await start(server)
        async with asyncio.timeout(60):
            await model.are_called.wait()
            cancel_for_client(call_of(server), own)
            model.answers.set()
            found = await statuses(server)
            detail = (await server.client.get(f"/api/runs/{own.id}")).json()
    assert found == {own.id: "cancelled", other.id: "done"}
    assert detail["cancelled_by"] == "its client"


async def test_connection_that_a_stopping_server_closes_cancels_nothing(tmp_path: Path) -> None:
    model = WaitingModel(1)
    async with serving(tmp_path, model.answer) as server:
        run = await start(server)
        async with asyncio.timeout(60):
            await model.are_called.wait()
            server.services.stopping.set()
            cancel_for_client(call_of(server), run)
            model.answers.set()
            result = await run
    assert result.status == "done"


async def test_client_that_leaves_while_its_run_starts_cancels_it(tmp_path: Path) -> None:
    model, starts, goes_on = WaitingModel(1), asyncio.Event(), asyncio.Event()

    async def listen(run: Run[Any], tags: Tags) -> None:
        starts.set()
        await goes_on.wait()

    async with serving(tmp_path, model.answer) as server:
        server.services.on_start.append(listen)
        starting = asyncio.create_task(start(server))
        async with asyncio.timeout(60):
            await starts.wait()
            starting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await starting
            goes_on.set()
            found = await statuses(server)
    assert list(found.values()) == ["cancelled"]

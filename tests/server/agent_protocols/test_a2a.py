"""A2A over HTTP, with the official client: the card, tasks, streams, questions, access."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from a2a.helpers import get_message_text
from a2a.types import a2a_pb2 as pb
from a2a.utils.errors import (
    A2AError,
    InvalidParamsError,
    TaskNotCancelableError,
    TaskNotFoundError,
    UnsupportedOperationError,
)
from google.protobuf.json_format import ParseDict

from orchestra.core.protocols import CallRequest
from orchestra.server import ServerSettings
from tests.server.agent_protocols.a2a_clients import a2a_client, data_of, message, send, state
from tests.server.servers import INPUTS, LOCKED, REPLY, TestServer, listening, serving, until_async

CARD = "/.well-known/agent-card.json"


async def test_card_of_an_open_server_has_each_workflow(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        card = ParseDict((await server.client.get(CARD)).json(), pb.AgentCard())
        workflows = server.orchestra.workflows()
    assert {skill.id for skill in card.skills} == {*workflows, "ask"}
    (interface,) = card.supported_interfaces
    assert (interface.url, interface.protocol_binding, interface.protocol_version) == (
        "http://localhost/a2a", "JSONRPC", "1.0",
    )  # fmt: skip


async def test_card_lists_workflows_to_senders_with_a_key_only(tmp_path: Path) -> None:
    async with serving(tmp_path, settings=LOCKED) as server, a2a_client(server, await server.key("alpha")) as client:
        public = ParseDict((await server.client.get(CARD)).json(), pb.AgentCard())
        extended = await client.get_extended_agent_card(pb.GetExtendedAgentCardRequest())
    assert [skill.id for skill in public.skills] == ["ask"]
    assert public.security_schemes["bearer"].http_auth_security_scheme.scheme == "Bearer"
    assert {"ask", "answer", "approve"} <= {skill.id for skill in extended.skills}


async def test_send_message_returns_the_task_with_evidence(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, a2a_client(server) as client:
        task = await send(client, message({"data": INPUTS}, skill="answer", contextId="talk-1"))
        again = await client.get_task(pb.GetTaskRequest(id=task.id))
    data = data_of(task)
    assert (state(task), task.context_id, data["run"], data["output"]) == ("completed", "talk-1", task.id, REPLY)
    assert task.artifacts[0].parts[0].text == "1889"
    assert data["claims"][0]["verdicts"][0]["outcome"] == "pass"
    assert data_of(again) == data


async def test_send_message_with_text_fills_the_text_input(tmp_path: Path) -> None:
    documents = {"data": {"documents": INPUTS["documents"]}}
    async with serving(tmp_path) as server, a2a_client(server) as client:
        task = await send(client, message({"text": "When?"}, documents, skill="answer"))
        run = await server.services.started(task.id)
    assert state(task) == "completed"
    assert run is not None
    assert run.inputs["question"] == "When?"


async def test_send_message_without_a_skill_is_planned(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, a2a_client(server) as client:
        task = await send(client, message({"text": "When was it finished?"}))
        run = await server.services.started(task.id)
    assert run is not None
    assert (run.workflow, run.inputs["request"]) == ("ask", "When was it finished?")


async def test_task_that_abstains_is_completed_without_an_output(tmp_path: Path) -> None:
    def wrong(call: CallRequest) -> Any:
        return {"answer": "1999", "quote": "finished in 1999"}

    async with serving(tmp_path, wrong) as server, a2a_client(server) as client:
        task = await send(client, message({"data": INPUTS}, skill="answer"))
    data = data_of(task)
    assert (state(task), data["status"], data["output"]) == ("completed", "abstained", None)
    assert get_message_text(task.status.message).startswith("The answer is withheld")


async def test_stream_has_the_task_its_artifact_and_its_end(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, a2a_client(server, streaming=True) as client:
        events = [one async for one in client.send_message(message({"data": INPUTS}, skill="answer"))]
    kinds = [one.WhichOneof("payload") for one in events]
    assert (kinds[0], kinds[-2], kinds[-1]) == ("task", "artifact_update", "status_update")
    assert pb.TaskState.Name(events[-1].status_update.status.state) == "TASK_STATE_COMPLETED"
    assert events[-2].artifact_update.artifact.parts[0].text == "1889"
    assert len({one.status_update.task_id for one in events[1:] if one.HasField("status_update")}) == 1


@pytest.mark.parametrize("streaming", [False, True])
async def test_question_is_answered_by_the_next_message(tmp_path: Path, streaming: bool) -> None:
    async with serving(tmp_path) as server, a2a_client(server, streaming=streaming) as client:
        asked = message({"data": {"draft": "Hello"}}, skill="approve")
        first = [one async for one in client.send_message(asked)]
        run = first[0].task.id
        waiting = await client.get_task(pb.GetTaskRequest(id=run))
        with pytest.raises(InvalidParamsError, match="E022"):
            _ = [one async for one in client.send_message(message({"text": "perhaps"}, taskId=run))]
        _ = [one async for one in client.send_message(message({"text": "yes"}, taskId=run))]
        ended = await client.get_task(pb.GetTaskRequest(id=run))
    assert state(waiting) == "input_required"
    assert "Send this? Hello (yes, no)" in get_message_text(waiting.status.message)
    if streaming:
        assert pb.TaskState.Name(first[-1].status_update.status.state) == "TASK_STATE_INPUT_REQUIRED"
    assert (state(ended), data_of(ended)["output"]) == ("completed", "yes")


async def test_cancel_task_cancels_the_run(tmp_path: Path) -> None:
    called, cancelled = asyncio.Event(), asyncio.Event()

    async def never(call: CallRequest) -> Any:
        called.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with serving(tmp_path, never) as server, a2a_client(server, polling=True) as client:
        async with asyncio.timeout(60):
            task = await send(client, message({"data": INPUTS}, skill="answer"))
            await called.wait()
            ended = await client.cancel_task(pb.CancelTaskRequest(id=task.id))
            await cancelled.wait()
        with pytest.raises(TaskNotCancelableError):
            await client.cancel_task(pb.CancelTaskRequest(id=task.id))
        with pytest.raises(UnsupportedOperationError):
            await send(client, message({"text": "more"}, taskId=task.id))
    assert (state(task), state(ended)) == ("working", "canceled")


async def test_subscribe_follows_a_task_to_its_end(tmp_path: Path) -> None:
    called, go = asyncio.Event(), asyncio.Event()

    async def waits(call: CallRequest) -> Any:
        called.set()
        await go.wait()
        return REPLY

    async with serving(tmp_path, waits) as server, a2a_client(server, streaming=True) as client:
        async with asyncio.timeout(60):
            first = client.send_message(message({"data": INPUTS}, skill="answer"))
            task = (await anext(first)).task
            await first.aclose()  # type: ignore[attr-defined]  # a generator: the client disconnects
            await called.wait()
            events = list[pb.StreamResponse]()
            async for one in client.subscribe(pb.SubscribeToTaskRequest(id=task.id)):
                events.append(one)
                go.set()
        with pytest.raises(UnsupportedOperationError):
            _ = [one async for one in client.subscribe(pb.SubscribeToTaskRequest(id=task.id))]
    assert pb.TaskState.Name(events[-1].status_update.status.state) == "TASK_STATE_COMPLETED"


async def test_stopping_server_ends_the_stream_with_an_error(tmp_path: Path) -> None:
    called = asyncio.Event()

    async def never(call: CallRequest) -> Any:
        called.set()
        await asyncio.Event().wait()

    async with serving(tmp_path, never) as server, a2a_client(server, streaming=True) as client:
        stream = client.send_message(message({"data": INPUTS}, skill="answer"))
        run = (await anext(stream)).task.id
        await called.wait()
        server.services.stopping.set()
        with pytest.raises(A2AError, match="S010"):
            _ = [one async for one in stream]
    async with serving(tmp_path) as server:

        async def has_ended() -> bool:
            return (await server.services.answer(run)).status == "done"

        await until_async(has_ended)


# Access and bad input


async def test_task_of_another_tenant_is_unknown(tmp_path: Path) -> None:
    async with serving(tmp_path, settings=LOCKED) as server:
        alpha, beta = await server.key("alpha"), await server.key("beta")
        async with a2a_client(server, alpha) as client:
            task = await send(client, message({"data": {"draft": "secret"}}, skill="approve"))
        async with a2a_client(server, beta) as client:
            errors = list[A2AError]()
            for name in (task.id, "x" * len(task.id), "../x"):
                for request in (
                    client.get_task(pb.GetTaskRequest(id=name)),
                    client.cancel_task(pb.CancelTaskRequest(id=name)),
                    send(client, message({"text": "yes"}, taskId=name)),
                ):
                    with pytest.raises(TaskNotFoundError) as caught:
                        await request
                    errors.append(caught.value)
        waiting = await server.services.answer(task.id)
    assert waiting.status == "waiting"
    assert {one.data["code"] for one in errors if one.data} == {"S009"}
    assert "secret" not in str(errors)


async def test_answer_without_the_scope_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path, settings=LOCKED) as server, a2a_client(server, await server.key("a", "run")) as client:
        task = await send(client, message({"data": {"draft": "Hello"}}, skill="approve"))
        with pytest.raises(A2AError, match="S006"):
            await send(client, message({"text": "yes"}, taskId=task.id))


async def rpc(server: TestServer, value: Any, **headers: str) -> dict[str, Any]:
    """The error of a request as raw bytes."""
    content = value if isinstance(value, bytes) else json.dumps(value).encode()
    reply = await server.client.post(
        "/a2a", content=content, headers={"Content-Type": "application/json", "A2A-Version": "1.0", **headers}
    )
    assert reply.status_code == 200, reply.text
    found: dict[str, Any] = reply.json()["error"]
    return found


def request(method: str, params: Any) -> dict[str, Any]:
    """A request of JSON-RPC."""
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


@pytest.mark.parametrize(
    ("body", "number", "code"),
    [
        (b"", -32700, "S002"),
        (b"{", -32700, "S002"),
        (b"\xff", -32700, "S002"),
        (b"[]", -32600, "S002"),
        (b"null", -32600, "S002"),
        (b'{"jsonrpc":"1.0","id":1,"method":"GetTask"}', -32600, "S002"),
        (b'{"jsonrpc":"2.0","id":{},"method":"GetTask"}', -32600, "S002"),
        (b'{"jsonrpc":"2.0","method":"GetTask"}', -32600, "S002"),
        (request("Nothing", {}), -32601, "S004"),
        (request("GetTask", {}), -32602, "S002"),
        (request("message/send", {}), -32009, "S035"),
        (request("ListTaskPushNotificationConfigs", {"taskId": "x"}), -32001, "S009"),
        (request("SendMessage", {"message": {"messageId": "1", "role": "ROLE_USER", "parts": []}}), -32602, "S002"),
        (
            request("SendMessage", {"message": {"messageId": "1", "role": "ROLE_USER", "parts": [{"url": "http://x"}]}}),
            -32005, "S031",
        ),
        (
            request(
                "SendMessage",
                {"message": {"messageId": "1", "role": "ROLE_USER", "parts": [{"text": "a"}],
                             "metadata": {"skill": "../x"}}},
            ),
            -32602, "S009",
        ),
        (
            request("SendMessage", {"message": {"messageId": "1", "role": "ROLE_USER", "parts": [{"data": {"a": 1}}],
                                                "metadata": {"skill": "answer"}}}),
            -32602, "E012",
        ),
    ],
)  # fmt: skip
async def test_bad_request_has_number_code_and_hint(tmp_path: Path, body: Any, number: int, code: str) -> None:
    async with serving(tmp_path) as server:
        error = await rpc(server, body)
    (details,) = error["data"]
    assert (error["code"], details["metadata"]["code"]) == (number, code)
    assert details["metadata"]["hint"]


async def test_request_of_another_version_or_type_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        version = await rpc(server, request("GetTask", {"id": "x"}), **{"A2A-Version": "2.0"})
        content = await rpc(server, request("GetTask", {"id": "x"}), **{"Content-Type": "text/plain"})
    assert (version["code"], content["code"]) == (-32009, -32600)


async def test_request_that_is_too_large_is_413(tmp_path: Path) -> None:
    settings = ServerSettings(auth=False, hosts=("*",), max_body=1000)
    async with (
        serving(tmp_path, settings=settings) as server,
        listening(server.app) as url,
        httpx.AsyncClient(base_url=url) as http,
    ):
        whole = await http.post("/a2a", json={"a": "x" * 2000})
        chunks = await http.post("/a2a", content=_chunks(b"x" * 500, 4))
    assert [(one.status_code, one.json()["code"]) for one in (whole, chunks)] == [(413, "S003")] * 2


async def _chunks(chunk: bytes, count: int) -> Any:
    for _ in range(count):
        yield chunk


@pytest.mark.parametrize("key", ["", f"Bearer ok_0123456789ab_{'a' * 43}"])
async def test_request_without_a_valid_key_is_401(tmp_path: Path, key: str) -> None:
    headers = {"Authorization": key} if key else {}
    async with serving(tmp_path, settings=LOCKED) as server:
        reply = await server.client.post("/a2a", json=request("GetTask", {"id": "x"}), headers=headers)
    assert (reply.status_code, reply.json()["code"]) == (401, "S005")

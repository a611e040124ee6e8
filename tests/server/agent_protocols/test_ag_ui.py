"""AG-UI: streams of events, each checked with the types of the protocol's package, in a valid order."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from ag_ui.core import (
    Event,
    RunAgentInput,
    RunErrorEvent,
    RunFinishedEvent,
    StateSnapshotEvent,
    TextMessageContentEvent,
    UserMessage,
)
from msgspec import structs
from pydantic import TypeAdapter

from orchestra.core.events import AttemptStarted
from orchestra.core.protocols import CallRequest
from orchestra.server import ServerSettings
from orchestra.server.agent_protocols.ag_ui_events import AgUiEncoder
from tests.server.servers import INPUTS, LOCKED, REPLY, TestServer, frames, listening, project, serving, until_async

EVENTS: TypeAdapter[Any] = TypeAdapter(Event)
DOCUMENTS = {"inputs": {"documents": INPUTS["documents"]}}
SEARCHING = """\
schema: orchestra/v1
name: lookup
description: Finds passages.
input: {words: str, documents: "list[Document]"}
nodes:
  find:
    tool: search
    with: {query: "${input.words}", top: 1, documents: "${input.documents}"}
output: ${find}
"""


def agent_input(text: str = "When?", props: Any = None, **fields: Any) -> dict[str, Any]:
    """The request of a user interface, as the package writes it."""
    given = RunAgentInput(
        thread_id="talk", run_id="run-1", messages=[UserMessage(id="1", role="user", content=text)] if text else [],
        forwarded_props=DOCUMENTS if props is None else props, **fields,
    )  # fmt: skip
    written: dict[str, Any] = given.model_dump(mode="json", by_alias=True)
    return written


def events_in(text: str) -> list[Any]:
    """The events of a stream in the types of the package, in a valid order."""
    found = [json.loads(one["data"]) for one in frames(text)]
    events = [EVENTS.validate_python(one) for one in found]
    assert_order(found)
    return events


def assert_order(events: Sequence[Mapping[str, Any]]) -> None:
    """The rules of the protocol: one run, what opens closes, and nothing after the end."""
    kinds = [one["type"] for one in events]
    assert kinds[0] == "RUN_STARTED"
    assert kinds[-1] in ("RUN_FINISHED", "RUN_ERROR")
    assert sum(kind in ("RUN_STARTED", "RUN_FINISHED", "RUN_ERROR") for kind in kinds) == 2
    steps, calls, messages = set[str](), set[str](), set[str]()
    for one in events:
        match one["type"]:
            case "STEP_STARTED":
                assert one["stepName"] not in steps
                steps.add(one["stepName"])
            case "STEP_FINISHED":
                steps.remove(one["stepName"])
            case "TOOL_CALL_START":
                calls.add(one["toolCallId"])
            case "TOOL_CALL_ARGS":
                assert one["toolCallId"] in calls
            case "TOOL_CALL_END":
                calls.remove(one["toolCallId"])
            case "TEXT_MESSAGE_START":
                messages.add(one["messageId"])
            case "TEXT_MESSAGE_CONTENT":
                assert one["messageId"] in messages
            case "TEXT_MESSAGE_END":
                messages.remove(one["messageId"])
    assert not steps | calls | messages


async def post(server: TestServer, name: str, body: Any, headers: dict[str, str] | None = None) -> httpx.Response:
    """Runs a workflow as an agent."""
    return await server.client.post(f"/ag-ui/{name}", json=body, headers=headers)


def kinds_of(events: Sequence[Any]) -> list[str]:
    """The types of events."""
    return [one.type.value for one in events]


async def test_run_has_steps_text_state_and_the_result(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        reply = await post(server, "answer", agent_input())
    events = events_in(reply.text)
    assert reply.headers["content-type"] == "text/event-stream"
    assert kinds_of(events) == [
        "RUN_STARTED", "STATE_SNAPSHOT", "STEP_STARTED", "STEP_FINISHED", "TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT",
        "TEXT_MESSAGE_END", "STATE_SNAPSHOT", "RUN_FINISHED",
    ]  # fmt: skip
    first, last, state = events[0], events[-1], events[-2]
    assert (first.thread_id, first.run_id) == ("talk", "run-1")
    assert isinstance(last, RunFinishedEvent)
    assert (last.thread_id, last.run_id, last.result) == ("talk", "run-1", REPLY)
    assert isinstance(state, StateSnapshotEvent)
    assert state.snapshot["claims"][0]["verdicts"][0]["outcome"] == "pass"


async def test_run_that_abstains_says_so_and_has_no_result(tmp_path: Path) -> None:
    def wrong(call: CallRequest) -> Any:
        return {"answer": "1999", "quote": "finished in 1999"}

    async with serving(tmp_path, wrong) as server:
        events = events_in((await post(server, "answer", agent_input())).text)
    text = "".join(one.delta for one in events if isinstance(one, TextMessageContentEvent))
    assert text.startswith("The answer is withheld")
    assert events[-1].result is None
    assert events[-2].snapshot["status"] == "abstained"


def add_lookup(folder: Path) -> dict[str, Any]:
    """Adds a workflow that calls a tool; returns the request for it."""
    project(folder)
    (folder / "workflows" / "lookup.yaml").write_text(SEARCHING)
    return agent_input("", {"inputs": {"words": "tower", "documents": INPUTS["documents"]}})


async def test_call_of_a_tool_has_its_arguments_and_result(tmp_path: Path) -> None:
    body = add_lookup(tmp_path)
    async with serving(tmp_path, lambda call: []) as server:
        events = events_in((await post(server, "lookup", body)).text)
    start, arguments, end, result = (one for one in events if one.type.value.startswith("TOOL_CALL"))
    assert kinds_of([start, arguments, end, result]) == [
        "TOOL_CALL_START", "TOOL_CALL_ARGS", "TOOL_CALL_END", "TOOL_CALL_RESULT",
    ]  # fmt: skip
    assert start.tool_call_name == "search"
    assert json.loads(arguments.delta) == {"query": "tower", "documents": INPUTS["documents"], "top": 1}
    assert (result.content, result.tool_call_id) == ("[]", start.tool_call_id)


async def test_run_that_fails_ends_with_an_error_and_its_code(tmp_path: Path) -> None:
    body = add_lookup(tmp_path)
    async with serving(tmp_path, lambda call: {}) as server:
        events = events_in((await post(server, "lookup", body)).text)
    assert isinstance(events[-1], RunErrorEvent)
    assert events[-1].code == "E009"
    assert "E009" in events[-1].message


async def test_run_that_was_cancelled_ends_with_this_outcome(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        run = (await server.run("approve", {"draft": "a"}))["id"]
        await server.client.post(f"/api/runs/{run}/cancel", json={})
        events = events_in((await server.client.get(f"/api/runs/{run}/events?mode=ag-ui")).text)
    assert events[-1].outcome.type == "cancelled"
    assert [one.value["question"] for one in events if one.type.value == "CUSTOM"] == ["Send this? a"]


async def test_question_is_an_interrupt_and_resume_answers_it(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        first = events_in((await post(server, "approve", agent_input("Hello", {}))).text)
        (interrupt,) = first[-1].outcome.interrupts
        entry = {"interruptId": interrupt.id, "status": "resolved"}
        wrong = await post(server, "approve", agent_input("", resume=[{**entry, "payload": "perhaps"}]))
        second = events_in((await post(server, "approve", agent_input("", resume=[{**entry, "payload": "yes"}]))).text)
        again = await post(server, "approve", agent_input("", resume=[{**entry, "payload": "yes"}]))
    assert (interrupt.message, interrupt.response_schema["enum"]) == ("Send this? Hello", ["yes", "no"])
    assert (wrong.status_code, wrong.json()["code"]) == (422, "E022")
    assert (second[-1].outcome.type, second[-1].result) == ("success", "yes")
    assert (again.json()["code"], again.json()["pointer"]) == ("E021", "/resume/0")


async def test_question_that_is_declined_withholds_the_answer(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        first = events_in((await post(server, "approve", agent_input("Hello", {}))).text)
        entry = {"interruptId": first[-1].outcome.interrupts[0].id, "status": "cancelled"}
        second = events_in((await post(server, "approve", agent_input("", resume=[entry]))).text)
    assert second[-2].snapshot["status"] == "abstained"


async def test_stream_of_any_run_continues_after_an_event(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        run = (await server.run())["id"]
        whole = (await server.client.get(f"/api/runs/{run}/events?mode=ag-ui")).text
        sent = frames(whole)
        numbers = [index for index, one in enumerate(sent) if "id" in one]
        parts = [
            await server.client.get(f"/api/runs/{run}/events?mode=ag-ui", headers={"Last-Event-ID": sent[number]["id"]})
            for number in numbers
        ]
    events = events_in(whole)
    assert (events[0].run_id, events[-1].result) == (run, REPLY)
    for number, part in zip(numbers[:-1], parts[:-1], strict=True):
        assert frames(part.text) == sent[number + 1 :]
    assert parts[-1].status_code == 204


async def test_client_that_disconnects_cancels_the_run(tmp_path: Path) -> None:
    called, cancelled = asyncio.Event(), asyncio.Event()

    async def never(call: CallRequest) -> Any:
        called.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with (
        serving(tmp_path, never) as server,
        listening(server.app) as url,
        httpx.AsyncClient(base_url=url, timeout=60) as http,
    ):
        async with asyncio.timeout(60):
            async with http.stream("POST", "/ag-ui/answer", json=agent_input()) as reply:
                await anext(reply.aiter_lines())
                await called.wait()
            await cancelled.wait()

        async def has_ended() -> bool:
            return [run.status for run in await server.orchestra.runs()] == ["cancelled"]

        await until_async(has_ended)


async def test_stopping_server_ends_the_stream_with_an_error(tmp_path: Path) -> None:
    called = asyncio.Event()

    async def never(call: CallRequest) -> Any:
        called.set()
        await asyncio.Event().wait()

    async with serving(tmp_path, never) as server:
        posting = asyncio.ensure_future(post(server, "answer", agent_input()))
        async with asyncio.timeout(60):
            await called.wait()
            server.services.stopping.set()
            text = (await posting).text
    last = EVENTS.validate_python(json.loads(frames(text)[-1]["data"]))
    assert isinstance(last, RunErrorEvent)
    assert last.code == "S010"


# Access and bad input


async def test_question_of_another_tenant_or_workflow_is_unknown(tmp_path: Path) -> None:
    async with serving(tmp_path, settings=LOCKED) as server:
        alpha, beta = await server.key("alpha"), await server.key("beta")
        first = events_in((await post(server, "approve", agent_input("secret", {}), alpha)).text)
        name = first[-1].outcome.interrupts[0].id
        entry = {"interruptId": name, "status": "resolved", "payload": "yes"}
        replies = [
            await post(server, "approve", agent_input("", resume=[entry]), beta),
            await post(server, "approve", agent_input("", resume=[{**entry, "interruptId": f"{'x' * 26}:1"}]), beta),
            await post(server, "approve", agent_input("", resume=[{**entry, "interruptId": ""}]), beta),
            await post(server, "answer", agent_input("", resume=[entry]), alpha),
        ]
        lesser = await post(server, "approve", agent_input("", resume=[entry]), await server.key("alpha", "run"))
        run = await server.services.answer(name.rpartition(":")[0])
    assert [(one.status_code, one.json()["code"]) for one in replies] == [(404, "S009")] * 4
    assert (lesser.status_code, lesser.json()["code"], run.status) == (403, "S006", "waiting")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 422, "S002"),
        ({"threadId": "a", "runId": "b", "messages": "c"}, 422, "S002"),
        ({"threadId": "a", "runId": "b", "messages": []}, 400, "S031"),
        ({"threadId": "a", "runId": "b", "messages": [{"role": "assistant", "content": "x"}]}, 400, "S031"),
        ({"threadId": "a", "runId": "b", "messages": [{"role": "user", "content": [{"type": "image"}]}]}, 422, "S031"),
    ],
)
async def test_bad_input_is_refused_with_a_code(tmp_path: Path, body: Any, status: int, code: str) -> None:
    async with serving(tmp_path) as server:
        reply = await post(server, "answer", body)
    assert (reply.status_code, reply.json()["code"]) == (status, code)
    assert reply.json()["hint"]


async def test_input_that_is_too_large_is_413(tmp_path: Path) -> None:
    settings = ServerSettings(auth=False, hosts=("*",), max_body=1000)
    async with serving(tmp_path, settings=settings) as server:
        reply = await post(server, "answer", agent_input("x" * 2000))
    assert (reply.status_code, reply.json()["code"]) == (413, "S003")


@pytest.mark.parametrize("name", ["nothing", "reader", "answer.yaml"])
async def test_agent_that_is_no_workflow_is_404(tmp_path: Path, name: str) -> None:
    async with serving(tmp_path) as server:
        reply = await post(server, name, agent_input())
    assert (reply.status_code, reply.json()["code"]) == (404, "S009")


async def test_end_of_a_run_closes_its_open_steps_and_calls(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        run = (await server.run())["id"]
        encoder = AgUiEncoder(server.services, "talk", "run-1")
        events = list(encoder.started(run))
        for event in await server.orchestra.journal.read(run):
            if isinstance(event, AttemptStarted):
                events += await encoder.events_of(event)
                events += await encoder.events_of(structs.replace(event, node="find", name="search"))
        events += encoder.ended(await server.services.answer(run), {})
    assert_order(events)
    assert [one["stepName"] for one in events if one["type"] == "STEP_FINISHED"] == ["read", "find"]
    assert sum(one["type"] == "TOOL_CALL_END" for one in events) == 1

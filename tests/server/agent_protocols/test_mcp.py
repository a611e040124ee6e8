"""MCP over HTTP, with the official client: tools, results, progress, cancellation, questions, access."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import httpx
import mcp_types as types
import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # its stubs are not among the tools
from mcp import MCPError

from orchestra.core.protocols import CallRequest
from orchestra.server import ServerSettings
from tests.server.agent_protocols.mcp_clients import ERAS, connected, mcp_client
from tests.server.servers import INPUTS, LOCKED, REPLY, TEXT, TestServer, listening, serving, until_async

HEADERS = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
INITIALIZE = {
    "jsonrpc": "2.0", "id": 1, "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "0"}},
}  # fmt: skip


@asynccontextmanager
async def http_client(server: TestServer) -> AsyncIterator[httpx.AsyncClient]:
    """A plain client of a server, over a socket."""
    async with listening(server.app) as url, httpx.AsyncClient(base_url=url, headers=HEADERS, timeout=60) as http:
        yield http


def answers(
    value: str | None, action: Literal["accept", "decline", "cancel"] = "accept", seen: list[Any] | None = None
) -> Any:
    """A user who submits a form with this value."""

    async def elicit(context: Any, params: Any) -> types.ElicitResult:
        if seen is not None:
            seen.append(params)
        content: Any = {"answer": value} if action == "accept" else None
        return types.ElicitResult(action=action, content=content)

    return elicit


def data_of(result: types.CallToolResult) -> dict[str, Any]:
    """The structured content of a result, of which the second text is a copy."""
    data: dict[str, Any] = result.structured_content
    assert json.loads(result.content[1].text) == data  # type: ignore[union-attr]  # a text
    return data


@pytest.mark.parametrize("era", ERAS)
async def test_list_tools_has_each_workflow_and_ask_with_types(tmp_path: Path, era: str) -> None:
    async with serving(tmp_path) as server, mcp_client(server, era) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        workflows = server.orchestra.workflows()
    assert set(tools) == {*workflows, "ask"}
    answer = tools["answer"]
    assert answer.description == "Answers a question from documents."
    assert set(answer.input_schema["properties"]) == {"question", "documents"}
    assert answer.annotations is not None
    assert answer.annotations.read_only_hint
    for tool in tools.values():
        Draft202012Validator.check_schema(tool.input_schema)
        assert tool.output_schema is not None
        Draft202012Validator.check_schema(tool.output_schema)
        assert tool.output_schema["type"] == "object"


@pytest.mark.parametrize("era", ERAS)
async def test_call_tool_returns_output_with_evidence_and_verdicts(tmp_path: Path, era: str) -> None:
    async with serving(tmp_path) as server, mcp_client(server, era) as client:
        result = await client.call_tool("answer", INPUTS)  # The client checks it against the output schema.
        stored = await server.services.answer(data_of(result)["run"])
    data = data_of(result)
    assert (result.is_error, data["status"], data["output"]) == (False, "done", REPLY)
    assert result.content[0].text == "1889"  # type: ignore[union-attr]  # a text
    (claim,) = data["claims"]
    (evidence,) = claim["evidence"]
    assert TEXT[evidence["start"] : evidence["end"]] == REPLY["quote"]
    assert [one["outcome"] for one in claim["verdicts"]] == ["pass"]
    assert stored.status == "done"


@pytest.mark.parametrize("era", ERAS)
async def test_call_tool_that_abstains_has_no_output_and_a_reason(tmp_path: Path, era: str) -> None:
    def wrong(call: CallRequest) -> Any:
        return {"answer": "1999", "quote": "finished in 1999"}

    async with serving(tmp_path, wrong) as server, mcp_client(server, era) as client:
        result = await client.call_tool("answer", INPUTS)
    data = data_of(result)
    assert (result.is_error, data["status"], data["output"]) == (False, "abstained", None)
    assert data["withheld"]["node"] == "read"
    assert result.content[0].text.startswith("The answer is withheld")  # type: ignore[union-attr]  # a text
    assert "1999" not in result.content[0].text  # type: ignore[union-attr]  # a text


@pytest.mark.parametrize("era", ERAS)
async def test_call_tool_with_wrong_arguments_has_code_and_hint(tmp_path: Path, era: str) -> None:
    async with serving(tmp_path) as server, mcp_client(server, era) as client:
        result = await client.call_tool("answer", {**INPUTS, "questions": 1})
        asked = await client.call_tool("ask", {"requests": "When?"})
    for one, code in ((result, "E012"), (asked, "S002")):
        data = data_of(one)
        assert (one.is_error, data["error"]["code"]) == (True, code)
        assert data["error"]["hint"] in one.content[0].text  # type: ignore[union-attr]  # a text


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("name", ["nothing", "reader", "../answer", "workflows/answer.yaml"])
async def test_call_tool_of_no_workflow_is_a_protocol_error(tmp_path: Path, era: str, name: str) -> None:
    async with serving(tmp_path) as server, mcp_client(server, era) as client:
        with pytest.raises(MCPError) as caught:
            await client.call_tool(name, INPUTS)
    assert (caught.value.code, caught.value.data["code"]) == (types.INVALID_PARAMS, "S009")


@pytest.mark.parametrize("era", ERAS)
async def test_call_tool_ask_plans_the_request(tmp_path: Path, era: str) -> None:
    async with serving(tmp_path) as server, mcp_client(server, era) as client:
        result = await client.call_tool("ask", {"request": "When was it finished?", "values": {"text": TEXT}})
        run = await server.services.started(data_of(result)["run"])
    assert run is not None
    assert run.workflow == "ask"
    assert run.inputs["request"] == "When was it finished?"


@pytest.mark.parametrize("era", ERAS)
async def test_call_tool_reports_progress_that_increases(tmp_path: Path, era: str) -> None:
    steps, reported = list[tuple[float, str | None]](), asyncio.Event()

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        steps.append((progress, message))
        reported.set()

    async def second_waits(call: CallRequest) -> Any:
        if call.node != "read[0]":
            await reported.wait()
        return REPLY

    inputs = {"questions": ["a", "b", "c"], "documents": INPUTS["documents"]}
    async with serving(tmp_path, second_waits) as server, mcp_client(server, era) as client:
        async with asyncio.timeout(60):
            result = await client.call_tool("many", inputs, progress_callback=on_progress)
    assert data_of(result)["status"] == "done"
    counts = [count for count, _ in steps]
    assert counts == sorted(set(counts))
    assert steps[0][1] == "read[0]: value"


@pytest.mark.parametrize("era", ERAS)
async def test_cancelled_call_cancels_the_run_and_its_requests(tmp_path: Path, era: str) -> None:
    called, cancelled = asyncio.Event(), asyncio.Event()

    async def never(call: CallRequest) -> Any:
        called.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with serving(tmp_path, never) as server, mcp_client(server, era) as client:
        calling = asyncio.ensure_future(client.call_tool("answer", INPUTS))
        async with asyncio.timeout(60):
            await called.wait()
            calling.cancel()
            await cancelled.wait()
            await asyncio.gather(calling, return_exceptions=True)

        async def has_ended() -> bool:
            return [run.status for run in await server.orchestra.runs()] == ["cancelled"]

        await until_async(has_ended)
        (run,) = await server.orchestra.runs()
        detail = (await server.client.get(f"/api/runs/{run.run}")).json()
    assert detail["cancelled_by"] == "its client"


# Questions


@pytest.mark.parametrize("era", ERAS)
async def test_question_is_put_to_the_user_of_the_client(tmp_path: Path, era: str) -> None:
    seen = list[Any]()
    async with (
        serving(tmp_path) as server,
        mcp_client(server, era, elicitation_callback=answers("yes", seen=seen)) as client,
    ):
        result = await client.call_tool("approve", {"draft": "Hello"})
        data = data_of(result)
        detail = (await server.client.get(f"/api/runs/{data['run']}")).json()
    assert (data["status"], data["output"]) == ("done", "yes")
    (form,) = seen
    assert form.message == "Send this? Hello"
    assert form.requested_schema["properties"]["answer"]["enum"] == ["yes", "no"]
    assert [one["by"] for one in detail["timeline"] if one["type"] == "question_answered"] == ["local user"]


@pytest.mark.parametrize("era", ERAS)
async def test_question_with_a_wrong_answer_is_put_again(tmp_path: Path, era: str) -> None:
    given, seen = iter(["perhaps", "no"]), list[str]()

    async def elicit(context: Any, params: Any) -> types.ElicitResult:
        seen.append(params.message)
        return types.ElicitResult(action="accept", content={"answer": next(given)})

    async with serving(tmp_path) as server, mcp_client(server, era, elicitation_callback=elicit) as client:
        result = await client.call_tool("approve", {"draft": "Hello"})
    assert data_of(result)["output"] == "no"
    assert seen[0] == "Send this? Hello"
    assert seen[1].startswith("E022: ")


@pytest.mark.parametrize("era", ERAS)
async def test_question_that_the_user_declines_withholds_the_node(tmp_path: Path, era: str) -> None:
    async with (
        serving(tmp_path) as server,
        mcp_client(server, era, elicitation_callback=answers(None, "decline")) as client,
    ):
        data = data_of(await client.call_tool("approve", {"draft": "Hello"}))
    assert (data["status"], data["output"]) == ("abstained", None)
    assert "declined by the user of the client" in data["withheld"]["reason"]


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("user", [None, answers(None, "cancel")], ids=["no-forms", "dismissed"])
async def test_question_without_an_answer_leaves_the_run_waiting(tmp_path: Path, era: str, user: Any) -> None:
    async with serving(tmp_path) as server, mcp_client(server, era, elicitation_callback=user) as client:
        session, dismisses = client.session, user is not None and era != "legacy"
        result = await session.call_tool("approve", {"draft": "Hello"}, allow_input_required=True)
        if dismisses:
            assert isinstance(result, types.InputRequiredResult)
            run = result.request_state or ""
        else:
            assert isinstance(result, types.CallToolResult)
            data = data_of(result)
            run = data["run"]
            assert (result.is_error, data["status"], data["output"]) == (False, "waiting", None)
            assert [one["options"] for one in data["questions"]] == [["yes", "no"]]
            assert f"/api/runs/{run}/answers" in result.content[0].text  # type: ignore[union-attr]  # a text
        await server.client.post(f"/api/runs/{run}/answers", json={"value": "yes"})
        ended = (await server.client.get(f"/api/runs/{run}/answer?wait=60")).json()
    assert (ended["status"], ended["output"]) == ("done", "yes")


async def test_question_is_not_put_to_a_client_without_the_scope(tmp_path: Path) -> None:
    seen = list[Any]()
    async with serving(tmp_path, settings=LOCKED) as server:
        headers = await server.key("alpha", "run")
        async with mcp_client(server, "legacy", headers, elicitation_callback=answers("yes", seen=seen)) as client:
            data = data_of(await client.call_tool("approve", {"draft": "Hello"}))
    assert (data["status"], seen) == ("waiting", [])


async def test_state_of_a_question_continues_at_another_server(tmp_path: Path) -> None:
    async with (
        serving(tmp_path) as server,
        mcp_client(server, "2026-07-28", elicitation_callback=answers("yes")) as client,
    ):
        first = await client.session.call_tool("approve", {"draft": "Hello"}, allow_input_required=True)
    assert isinstance(first, types.InputRequiredResult)
    assert first.input_requests is not None
    (key,) = first.input_requests
    response: Any = {key: types.ElicitResult(action="accept", content={"answer": "yes"})}
    async with serving(tmp_path) as server, mcp_client(server, "2026-07-28") as client:
        result = await client.call_tool(
            "approve", {"draft": "Hello"}, input_responses=response, request_state=first.request_state
        )
    assert (data_of(result)["run"], data_of(result)["output"]) == (first.request_state, "yes")


# Access


async def test_state_of_another_tenant_or_tool_is_unknown(tmp_path: Path) -> None:
    async with serving(tmp_path, settings=LOCKED) as server:
        alpha, beta = await server.key("alpha"), await server.key("beta")
        async with mcp_client(server, "2026-07-28", alpha, elicitation_callback=answers("yes")) as client:
            first = await client.session.call_tool("approve", {"draft": "secret"}, allow_input_required=True)
            assert isinstance(first, types.InputRequiredResult)
            other_tool = await client.call_tool("answer", INPUTS, request_state=first.request_state)
        async with mcp_client(server, "2026-07-28", beta, elicitation_callback=answers("yes")) as client:
            results = [
                await client.call_tool("approve", {"draft": "x"}, request_state=state)
                for state in (first.request_state, "x" * len(first.request_state or ""), "../x")
            ]
    assert data_of(other_tool)["error"]["code"] == "S009"
    assert [data_of(one)["error"]["code"] for one in results] == ["S009"] * 3
    assert "secret" not in str(results)


async def test_session_of_another_tenant_is_unknown(tmp_path: Path) -> None:
    async with serving(tmp_path, settings=LOCKED) as server:
        alpha, beta = await server.key("alpha"), await server.key("beta")
        async with http_client(server) as http, asyncio.timeout(60):
            opened = await http.post("/mcp", json=INITIALIZE, headers=alpha)
            session = {"Mcp-Session-Id": opened.headers["mcp-session-id"]}
            listing = {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}
            foreign = [
                await http.request(method, "/mcp", json=listing, headers={**session, **beta})
                for method in ("POST", "GET", "DELETE")
            ]
            missing = await http.post("/mcp", json=listing, headers={"Mcp-Session-Id": "x" * 32, **beta})
            started = {"jsonrpc": "2.0", "method": "notifications/initialized"}
            own = await http.post("/mcp", json=started, headers={**session, **alpha})
    assert [(one.status_code, one.text) for one in foreign] == [(404, missing.text)] * 3
    assert own.status_code == 202


@pytest.mark.parametrize("era", ERAS)
async def test_runs_of_a_tenant_belong_to_it(tmp_path: Path, era: str) -> None:
    async with serving(tmp_path, settings=LOCKED) as server:
        alpha, beta = await server.key("alpha"), await server.key("beta")
        async with mcp_client(server, era, alpha) as client:
            run = data_of(await client.call_tool("answer", INPUTS))["run"]
        own = await server.client.get(f"/api/runs/{run}", headers=alpha)
        foreign = await server.client.get(f"/api/runs/{run}", headers=beta)
    assert (own.status_code, foreign.status_code) == (200, 404)


@pytest.mark.parametrize("key", ["", f"Bearer ok_0123456789ab_{'a' * 43}"])
async def test_request_without_a_valid_key_is_401(tmp_path: Path, key: str) -> None:
    headers = {"Authorization": key} if key else {}
    async with serving(tmp_path, settings=LOCKED) as server, http_client(server) as http:
        reply = await http.post("/mcp", json=INITIALIZE, headers=headers)
    assert (reply.status_code, reply.json()["code"]) == (401, "S005")


# Bad input


MALFORMED = [
    b"", b"{", b"[]", b"null", b'{"jsonrpc":"2.0"}', b'{"jsonrpc":"2.0","id":{},"method":"tools/list"}', b"\xff",
]  # fmt: skip


@pytest.mark.parametrize("version", ["", "2025-11-25", "2026-07-28", "nonsense"])
async def test_malformed_message_is_refused_with_an_error(tmp_path: Path, version: str) -> None:
    headers = {**HEADERS, **({"MCP-Protocol-Version": version} if version else {})}
    async with serving(tmp_path) as server, http_client(server) as http:
        replies = [await http.post("/mcp", content=body, headers=headers) for body in MALFORMED]
    assert {400 <= reply.status_code < 500 for reply in replies} == {True}
    assert {reply.json()["error"]["code"] < 0 for reply in replies} == {True}


async def test_message_that_is_too_large_is_413(tmp_path: Path) -> None:
    settings = ServerSettings(auth=False, hosts=("*",), max_body=1000)
    async with serving(tmp_path, settings=settings) as server, http_client(server) as http:
        whole = await http.post("/mcp", json={"a": "x" * 2000})
        chunks = await http.post("/mcp", content=_chunks(b"x" * 500, 4))
    assert [(one.status_code, one.json()["code"]) for one in (whole, chunks)] == [(413, "S003")] * 2


async def _chunks(chunk: bytes, count: int) -> Any:
    for _ in range(count):
        yield chunk


async def test_request_of_a_foreign_page_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        reply = await server.client.post("/mcp", json=INITIALIZE, headers={**HEADERS, "Origin": "https://evil.example"})
    assert (reply.status_code, reply.json()["code"]) == (403, "S008")


async def test_server_without_the_sdk_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestra.server.agent_protocols.mcp_routes.find_spec", lambda name: None)
    async with serving(tmp_path) as server:
        reply = await server.client.post("/mcp", json=INITIALIZE)
    assert (reply.status_code, reply.json()["code"]) == (501, "S034")
    assert "orchestra-slm[mcp]" in reply.json()["hint"]


# The end of the server


@pytest.mark.parametrize("era", ERAS)
async def test_stopping_server_ends_the_call_and_not_the_run(tmp_path: Path, era: str) -> None:
    called = asyncio.Event()

    async def never(call: CallRequest) -> Any:
        called.set()
        await asyncio.Event().wait()

    async with serving(tmp_path, never) as server, listening(server.app) as url, connected(url, era) as client:
        calling = asyncio.ensure_future(client.call_tool("answer", INPUTS))
        async with asyncio.timeout(60):
            await called.wait()
            server.services.stopping.set()
            data = data_of(await calling)
    assert (data["status"], data["error"]["code"]) == ("failed", "S010")
    async with serving(tmp_path) as server:

        async def has_ended() -> bool:
            return (await server.services.answer(data["run"])).status == "done"

        await until_async(has_ended)

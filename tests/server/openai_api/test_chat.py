"""Chat completions, with the official client."""

from __future__ import annotations

import asyncio
import base64
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from openai import OpenAI
from pydantic import BaseModel

from orchestra import Orchestra
from orchestra.core.protocols import CallRequest
from orchestra.server import create_app
from orchestra.server.openai_api.output import UNSUPPORTED
from orchestra.testing.fake_workers import SimulatedWorkers
from tests.server.openai_api.clients import DOCUMENT, GIVEN, QUESTION, SENTENCES, add_project, answer, openai_serving
from tests.server.servers import LOCKED, OPEN, REPLY, TEXT, listening, project, serving


class Reading(BaseModel):
    """What the workflow `answer` returns."""

    answer: str
    quote: str


class Other(BaseModel):
    """What no workflow returns."""

    year: int


async def test_completion_has_text_usage_and_evidence(tmp_path: Path) -> None:
    async with openai_serving(tmp_path) as api:
        completion = await api.client.chat.completions.create(model="answer", messages=QUESTION, extra_body=GIVEN)
        stored = (await api.server.client.get(f"/api/runs/{completion.id}/answer")).json()
    (choice,) = completion.choices
    assert (choice.message.content, choice.message.refusal, choice.finish_reason) == ("1889", None, "stop")
    assert completion.usage is not None
    assert completion.usage.prompt_tokens == stored["usage"]["prompt_tokens"]
    assert completion.usage.completion_tokens == stored["usage"]["output_tokens"] > 0
    extension = completion.orchestra
    assert (extension["output"], extension["status"], extension["run"]) == (REPLY, "done", completion.id)
    (claim,) = extension["claims"]
    (evidence,) = claim["evidence"]
    assert TEXT[evidence["start"] : evidence["end"]] == REPLY["quote"]
    assert [verdict["outcome"] for verdict in claim["verdicts"]] == ["pass"]


async def test_parse_returns_the_output_as_a_model(tmp_path: Path) -> None:
    async with openai_serving(tmp_path) as api:
        completion = await api.client.chat.completions.parse(
            model="answer", messages=QUESTION, response_format=Reading, extra_body=GIVEN
        )
    assert completion.choices[0].message.parsed == Reading(**REPLY)


async def test_parse_of_another_schema_is_refused(tmp_path: Path) -> None:
    async with openai_serving(tmp_path) as api:
        with pytest.raises(openai.BadRequestError) as refused:
            await api.client.chat.completions.parse(
                model="answer", messages=QUESTION, response_format=Other, extra_body=GIVEN
            )
    assert (refused.value.code, refused.value.param) == ("S030", "response_format")
    assert "year" in str(refused.value)


async def test_withheld_answer_is_a_refusal_and_no_exception(tmp_path: Path) -> None:
    def invent(call: CallRequest) -> Any:
        return {"answer": "1900", "quote": "finished in 1900"}

    async with openai_serving(tmp_path, invent) as api:
        plain = await api.client.chat.completions.create(
            model="answer",
            messages=QUESTION,
            extra_body={"orchestra": {**GIVEN["orchestra"], "options": {"accept": 0.9}}},
        )
        parsed = await api.client.chat.completions.parse(
            model="answer",
            messages=QUESTION,
            response_format=Reading,
            extra_body={"orchestra": {**GIVEN["orchestra"], "options": {"accept": 0.9}}},
        )
    message = plain.choices[0].message
    assert message.refusal is not None
    assert message.content == message.refusal
    assert "1900" not in message.content
    assert "finished in 1900" in plain.orchestra["withheld"]["reason"]
    assert (parsed.choices[0].message.parsed, parsed.choices[0].message.content) == (None, None)
    assert parsed.choices[0].message.refusal


async def test_stream_sends_sentences_and_true_usage(tmp_path: Path) -> None:
    async with openai_serving(tmp_path) as api:
        stream = await api.client.chat.completions.create(
            model="tell", messages=QUESTION, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
        stored = (await api.server.client.get(f"/api/runs/{chunks[0].id}/answer")).json()
    texts = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert texts == ["It was finished in 1889. ", "It is in Paris."]
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == stored["usage"]["prompt_tokens"] + stored["usage"]["output_tokens"]
    assert chunks[-2].orchestra["output"] == SENTENCES


async def test_stream_helper_accumulates_a_structured_output(tmp_path: Path) -> None:
    async with (
        openai_serving(tmp_path) as api,
        api.client.chat.completions.stream(
            model="answer", messages=QUESTION, response_format=Reading, extra_body=GIVEN
        ) as stream,
    ):
        final = await stream.get_final_completion()
    assert final.choices[0].message.parsed == Reading(**REPLY)


async def test_stream_of_a_failing_run_raises_an_api_error(tmp_path: Path) -> None:
    def fail(call: CallRequest) -> Any:
        return 7

    async with openai_serving(tmp_path, fail) as api:
        stream = await api.client.chat.completions.create(model="tell", messages=QUESTION, stream=True)
        with pytest.raises(openai.APIError, match="is failed"):
            async for _ in stream:
                pass


@pytest.mark.parametrize("unverified", [False, True])
async def test_stream_of_a_server_that_stops_raises_an_api_error(tmp_path: Path, unverified: bool) -> None:
    called = asyncio.Event()

    async def hang(call: CallRequest) -> Any:
        called.set()
        await asyncio.Event().wait()

    add_project(tmp_path)
    async with serving(tmp_path, hang) as server, listening(server.app) as address:
        client: Any = openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
        extra = {"orchestra": {"unverified": unverified}}
        stream = await client.chat.completions.create(model="tell", messages=QUESTION, stream=True, extra_body=extra)
        await called.wait()
        server.services.stopping.set()
        with pytest.raises(openai.APIError, match="the server stops") as stopped:
            async for _ in stream:
                pass
        (run,) = await server.orchestra.runs()
    assert stopped.value.code == "S010"
    assert run.status == "running"


async def test_failed_run_is_an_error_that_clients_do_not_repeat(tmp_path: Path) -> None:
    def fail(call: CallRequest) -> Any:
        return 7

    async with openai_serving(tmp_path, fail) as api:
        with pytest.raises(openai.UnprocessableEntityError) as failed:
            await api.client.with_options(max_retries=2).chat.completions.create(model="tell", messages=QUESTION)
        runs = (await api.server.client.get("/api/runs")).json()["items"]
    assert failed.value.response.headers["x-should-retry"] == "false"
    assert len(runs) == 1


async def test_message_with_json_object_fills_several_inputs(tmp_path: Path) -> None:
    async with openai_serving(tmp_path) as api:
        await api.client.chat.completions.create(
            model="two", messages=[{"role": "user", "content": '{"first": "a", "second": "b"}'}]
        )
        (run,) = (await api.server.client.get("/api/runs")).json()["items"]
        detail = (await api.server.client.get(f"/api/runs/{run['id']}")).json()
    assert detail["inputs"] == {"first": "a", "second": "b"}


async def test_message_that_only_begins_like_json_is_a_text(tmp_path: Path) -> None:
    async with openai_serving(tmp_path) as served:
        found = await served.client.chat.completions.create(
            model="tell", messages=[{"role": "user", "content": "{not JSON"}]
        )
        run = await served.server.services.started(found.id)
    assert run is not None
    assert run.inputs["text"] == "{not JSON"


async def test_message_of_text_for_two_text_inputs_is_refused(tmp_path: Path) -> None:
    async with openai_serving(tmp_path) as api:
        with pytest.raises(openai.BadRequestError) as refused:
            await api.client.chat.completions.create(model="two", messages=QUESTION)
    assert (refused.value.code, refused.value.param) == ("S031", "messages[0].content")
    assert '"first": ..., "second": ...' in str(refused.value)


async def test_files_and_text_parts_become_documents(tmp_path: Path) -> None:
    data = base64.b64encode(TEXT.encode()).decode()
    content: list[Any] = [
        {"type": "text", "text": "Unrelated."},
        {"type": "file", "file": {"filename": "tower.txt", "file_data": f"data:text/plain;base64,{data}"}},
        {"type": "text", "text": "When?"},
    ]
    async with openai_serving(tmp_path) as api:
        completion = await api.client.chat.completions.create(
            model="answer", messages=[{"role": "user", "content": content}]
        )
        detail = (await api.server.client.get(f"/api/runs/{completion.id}")).json()
    assert detail["inputs"]["question"] == "When?"
    assert detail["inputs"]["documents"] == [{"source": "part 1", "text": "Unrelated."}, DOCUMENT]


async def test_uploaded_file_is_a_document_of_its_tenant_only(tmp_path: Path) -> None:
    async with openai_serving(tmp_path, settings=LOCKED) as api:
        owner, other = await api.key("acme"), await api.key("other")
        headers = {"Authorization": f"Bearer {owner.api_key}", "Content-Type": "text/plain"}
        uploaded = await api.server.client.post("/api/files?name=tower.txt", content=TEXT, headers=headers)
        part = {"type": "file", "file": {"file_id": uploaded.json()["id"]}}
        messages: list[Any] = [{"role": "user", "content": [part, {"type": "text", "text": "When?"}]}]
        completion = await owner.chat.completions.create(model="answer", messages=messages)
        with pytest.raises(openai.NotFoundError):
            await other.chat.completions.create(model="answer", messages=messages)
    assert completion.choices[0].message.content == "1889"


async def test_earlier_turns_reach_a_workflow_that_takes_them(tmp_path: Path) -> None:
    messages: list[Any] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": "Go on."},
    ]
    async with openai_serving(tmp_path) as api:
        completion = await api.client.chat.completions.create(model="tell", messages=messages, temperature=0.3)
        detail = (await api.server.client.get(f"/api/runs/{completion.id}")).json()
    turns = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hello!"}]
    assert detail["inputs"] == {"text": "Go on.", "conversation": turns}
    assert completion.orchestra["ignored"] == ["temperature", "messages[0]"]


@pytest.mark.parametrize(
    ("extra", "param"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]}, "tools"),
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"stop": ["."]}, "stop"),
        ({"messages": [{"role": "tool", "tool_call_id": "1", "content": "x"}]}, "messages[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
         "messages[0].content[0]"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "messages"),
        ({"messages": []}, "messages"),
    ],
)  # fmt: skip
async def test_part_that_cannot_be_honoured_is_refused(tmp_path: Path, extra: Any, param: str) -> None:
    async with openai_serving(tmp_path) as api:
        with pytest.raises(openai.BadRequestError) as refused:
            await api.client.chat.completions.create(**{"model": "tell", "messages": QUESTION, **extra})
        runs = (await api.server.client.get("/api/runs")).json()["items"]
    assert refused.value.param == param
    assert refused.value.code in ("S030", "S031")
    assert not runs


async def test_unknown_model_is_not_found_with_our_code(tmp_path: Path) -> None:
    async with openai_serving(tmp_path) as api:
        for model in ("gpt-4o", "./workflows/answer.yaml", "search"):
            with pytest.raises(openai.NotFoundError) as missing:
                await api.client.chat.completions.create(model=model, messages=QUESTION)
            assert (missing.value.code, missing.value.type) == ("S009", "not_found_error")


async def test_request_without_a_key_is_an_authentication_error(tmp_path: Path) -> None:
    async with openai_serving(tmp_path, settings=LOCKED) as api:
        reader = await api.key("acme", "read")
        with pytest.raises(openai.AuthenticationError) as unknown:
            await api.client.chat.completions.create(model="tell", messages=QUESTION)
        with pytest.raises(openai.PermissionDeniedError) as refused:
            await reader.chat.completions.create(model="tell", messages=QUESTION)
    assert (unknown.value.code, refused.value.code) == ("S005", "S006")


async def test_run_of_a_completion_belongs_to_the_tenant(tmp_path: Path) -> None:
    async with openai_serving(tmp_path, settings=LOCKED) as api:
        owner = await api.key("acme")
        completion = await owner.chat.completions.create(model="tell", messages=QUESTION, metadata={"customer": "42"})
        replies = [
            await api.server.client.get(f"/api/runs/{completion.id}", headers=await api.server.key(tenant))
            for tenant in ("acme", "other")
        ]
    assert [reply.status_code for reply in replies] == [200, 404]
    assert replies[0].json()["tags"] == {"customer": "42"}


async def test_question_to_a_person_is_answered_by_the_next_message(tmp_path: Path) -> None:
    async with openai_serving(tmp_path) as api:
        asking = await api.client.chat.completions.create(
            model="approve", messages=[{"role": "user", "content": "Dear Ada"}]
        )
        answered = await api.client.chat.completions.create(
            model="approve",
            messages=[{"role": "user", "content": "yes"}],
            extra_body={"orchestra": {"answer_to": asking.id}},
        )
    assert asking.choices[0].message.content == "Send this? Dear Ada (yes, no)"
    assert asking.orchestra["status"] == "waiting"
    assert (answered.id, answered.choices[0].message.content) == (asking.id, "yes")


async def test_disconnected_client_cancels_the_run(tmp_path: Path) -> None:
    called, cancelled = asyncio.Event(), asyncio.Event()

    async def hang(call: CallRequest) -> Any:
        called.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    add_project(tmp_path)
    async with serving(tmp_path, hang) as server, listening(server.app) as address:
        client: Any = openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
        stream = await client.chat.completions.create(model="tell", messages=QUESTION, stream=True)
        await called.wait()
        await stream.close()
        async with asyncio.timeout(60):
            await cancelled.wait()


async def test_sync_client_completes_and_streams(tmp_path: Path) -> None:
    add_project(tmp_path)
    async with serving(tmp_path, answer) as server, listening(server.app) as address:

        def talk() -> tuple[str | None, str]:
            client: Any
            with OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client:
                whole = client.chat.completions.create(model="tell", messages=QUESTION)
                parts = client.chat.completions.create(model="tell", messages=QUESTION, stream=True)
                text = "".join(chunk.choices[0].delta.content or "" for chunk in parts if chunk.choices)
                return whole.choices[0].message.content, text

        whole, text = await asyncio.to_thread(talk)
    assert whole == text == SENTENCES


async def test_unverified_text_is_separate_from_the_content(tmp_path: Path) -> None:
    add_project(tmp_path)
    workers = SimulatedWorkers(answer, latency=0.0, chunks=3)
    async with AsyncExitStack() as stack:
        orchestra = await stack.enter_async_context(Orchestra.open(project(tmp_path), workers=workers))
        app = create_app(orchestra, OPEN)
        await stack.enter_async_context(app.router.lifespan_context(app))
        http = await stack.enter_async_context(httpx2.AsyncClient(transport=httpx2.ASGITransport(app)))
        client: Any = openai.AsyncOpenAI(
            base_url="http://localhost/v1", api_key="none", http_client=http, max_retries=0
        )
        stream = await client.chat.completions.create(
            model="tell", messages=QUESTION, stream=True, extra_body={"orchestra": {"unverified": True}}
        )
        chunks = [chunk async for chunk in stream]
    deltas = [chunk.choices[0].delta for chunk in chunks]
    unverified = [chunk for chunk in chunks if getattr(chunk.choices[0].delta, "reasoning_content", "")]
    assert "".join(delta.content or "" for delta in deltas) == SENTENCES
    assert "1889" in "".join(chunk.choices[0].delta.reasoning_content for chunk in unverified)
    assert all(chunk.orchestra["verified"] is False for chunk in unverified)


@pytest.mark.parametrize("stream", [False, True])
async def test_verified_only_withholds_what_no_check_supports(tmp_path: Path, stream: bool) -> None:
    async with openai_serving(tmp_path) as api:

        async def content(model: str, **asked: Any) -> tuple[str, str]:
            extra = {"orchestra": {**asked, "verified_only": True}}
            made = await api.client.chat.completions.create(
                model=model, messages=QUESTION, stream=stream, extra_body=extra
            )
            if not stream:
                message = made.choices[0].message
                return message.content or "", message.refusal or ""
            deltas = [chunk.choices[0].delta async for chunk in made]
            return "".join(one.content or "" for one in deltas), "".join(one.refusal or "" for one in deltas)

        checked = await content("answer", inputs={"documents": [DOCUMENT]})
        unchecked = await content("tell")
    assert checked == ("1889", "")
    assert unchecked == (UNSUPPORTED, UNSUPPORTED)

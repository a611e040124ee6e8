"""Responses, with the official client."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import openai
import pytest

from orchestra.core.protocols import CallRequest
from tests.server.openai_api.clients import GIVEN, SENTENCES, add_project, answer, openai_serving
from tests.server.openai_api.test_chat import Other, Reading
from tests.server.servers import LOCKED, REPLY, listening, serving


async def test_response_has_text_usage_and_evidence(tmp_path: Path) -> None:
    async with openai_serving(tmp_path) as api:
        response = await api.client.responses.create(model="answer", input="When?", extra_body=GIVEN)
        again = await api.client.responses.retrieve(response.id)
    assert (response.status, response.output_text) == ("completed", "1889")
    assert response.usage is not None
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens > 0
    assert response.orchestra["claims"][0]["evidence"]
    assert again.output_text == response.output_text


async def test_response_is_parsed_as_a_model(tmp_path: Path) -> None:
    async with openai_serving(tmp_path) as api:
        response = await api.client.responses.parse(
            model="answer", input="When?", text_format=Reading, extra_body=GIVEN
        )
        with pytest.raises(openai.BadRequestError) as refused:
            await api.client.responses.parse(model="answer", input="When?", text_format=Other, extra_body=GIVEN)
        stored = await api.client.responses.retrieve(response.id)
    assert response.output_parsed == Reading(**REPLY)
    assert refused.value.param == "text.format"
    assert Reading.model_validate_json(stored.output_text) == Reading(**REPLY)


async def test_response_stream_sends_sentences_and_the_response(tmp_path: Path) -> None:
    async with openai_serving(tmp_path) as api, api.client.responses.stream(model="tell", input="Go.") as stream:
        events = [event async for event in stream]
        final = await stream.get_final_response()
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert deltas == ["It was finished in 1889. ", "It is in Paris."]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert (events[-1].type, final.output_text) == ("response.completed", SENTENCES)


async def test_response_in_the_background_is_read_later(tmp_path: Path) -> None:
    release = asyncio.Event()

    async def wait(call: CallRequest) -> Any:
        await release.wait()
        return answer(call)

    async with openai_serving(tmp_path, wait) as api:
        begun = await api.client.responses.create(model="tell", input="Go.", background=True)
        release.set()
        await api.server.client.get(f"/api/runs/{begun.id}/answer?wait=60")
        ended = await api.client.responses.retrieve(begun.id)
    assert (begun.status, begun.usage, begun.output) == ("in_progress", None, [])
    assert (ended.status, ended.output_text) == ("completed", SENTENCES)


async def test_stream_of_a_server_that_stops_raises_an_api_error(tmp_path: Path) -> None:
    called = asyncio.Event()

    async def hang(call: CallRequest) -> Any:
        called.set()
        await asyncio.Event().wait()

    add_project(tmp_path)
    async with serving(tmp_path, hang) as server, listening(server.app) as address:
        client: Any = openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
        stream = await client.responses.create(model="tell", input="Go.", stream=True)
        await called.wait()
        server.services.stopping.set()
        events = [event async for event in stream]
    assert [event.type for event in events] == ["response.created", "response.in_progress", "error"]
    assert [event.sequence_number for event in events] == [0, 1, 2]
    assert events[-1].code == "S010"


async def test_cancel_response_ends_its_run(tmp_path: Path) -> None:
    async def hang(call: CallRequest) -> Any:
        await asyncio.Event().wait()

    async with openai_serving(tmp_path, hang) as api:
        begun = await api.client.responses.create(model="tell", input="Go.", background=True)
        await api.client.responses.cancel(begun.id)
        await api.server.client.get(f"/api/runs/{begun.id}/answer?wait=60")
        ended = await api.client.responses.retrieve(begun.id)
    assert ended.status == "cancelled"


async def test_failed_run_is_a_response_with_an_error(tmp_path: Path) -> None:
    def fail(call: CallRequest) -> Any:
        return 7

    async with openai_serving(tmp_path, fail) as api:
        response = await api.client.responses.create(model="tell", input="Go.")
    assert response.status == "failed"
    assert response.error is not None
    assert response.error.message


async def test_withheld_response_is_a_refusal_in_a_structured_reply(tmp_path: Path) -> None:
    def invent(call: CallRequest) -> Any:
        return {"answer": "1900", "quote": "finished in 1900"}

    extra = {"orchestra": {**GIVEN["orchestra"], "options": {"accept": 0.9}}}
    async with openai_serving(tmp_path, invent) as api:
        response = await api.client.responses.parse(model="answer", input="?", text_format=Reading, extra_body=extra)
    assert response.output_parsed is None
    assert response.output[0].content[0].type == "refusal"


async def test_previous_response_gives_the_conversation(tmp_path: Path) -> None:
    async with openai_serving(tmp_path) as api:
        first = await api.client.responses.create(model="tell", input="Hello")
        second = await api.client.responses.create(model="tell", input="Go on.", previous_response_id=first.id)
        detail = (await api.server.client.get(f"/api/runs/{second.id}")).json()
    assert second.previous_response_id == first.id
    assert detail["inputs"]["conversation"] == [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": SENTENCES},
    ]


async def test_question_is_answered_by_a_following_response(tmp_path: Path) -> None:
    async with openai_serving(tmp_path) as api:
        asking = await api.client.responses.create(model="approve", input="Dear Ada")
        answered = await api.client.responses.create(model="approve", input="yes", previous_response_id=asking.id)
    assert asking.output_text == "Send this? Dear Ada (yes, no)"
    assert (answered.id, answered.output_text) == (asking.id, "yes")


async def test_response_of_another_tenant_is_not_found(tmp_path: Path) -> None:
    async with openai_serving(tmp_path, settings=LOCKED) as api:
        owner, other = await api.key("acme"), await api.key("other")
        response = await owner.responses.create(model="tell", input="Go.")
        for request in (
            other.responses.retrieve(response.id),
            other.responses.cancel(response.id),
            other.responses.create(model="tell", input="Go.", previous_response_id=response.id),
        ):
            with pytest.raises(openai.NotFoundError):
                await request


async def test_tools_and_foreign_items_are_refused(tmp_path: Path) -> None:
    async with openai_serving(tmp_path) as api:
        with pytest.raises(openai.BadRequestError) as tools:
            await api.client.responses.create(model="tell", input="Go.", tools=[{"type": "web_search"}])
        with pytest.raises(openai.BadRequestError) as items:
            await api.client.responses.create(
                model="tell", input=[{"type": "function_call_output", "call_id": "1", "output": "x"}]
            )
    assert (tools.value.param, items.value.param) == ("tools", "input[0]")

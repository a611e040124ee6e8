"""The simulated vLLM over real sockets of this machine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
import uvicorn

from orchestra.agents.evidence_grammar import evidence_grammar
from orchestra.schema.validator import Validator
from orchestra.testing import Behaviour, EndpointFaults, SimulatedRequest, SimulatedServer, SimulatedVLLM, first_faults

SCHEMA = {
    "type": "object",
    "properties": {"answer": {"type": ["string", "null"]}, "certain": {"type": "boolean"}},
    "required": ["answer", "certain"],
    "additionalProperties": False,
}
TEXT = "The Eiffel Tower was completed in 1889 by the company of Gustave Eiffel."


class Caller:
    """A client of one server."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url, self.session = url, session

    async def get(self, path: str) -> tuple[int, str]:
        async with self.session.get(self.url + path) as response:
            return response.status, await response.text()

    async def post(self, path: str, **body: Any) -> tuple[int, bytes]:
        async with self.session.post(self.url + path, json=body) as response:
            return response.status, await response.read()

    async def chat(self, content: str = "hello", **body: Any) -> tuple[int, bytes]:
        return await self.post(
            "/v1/chat/completions", **{"model": "smol", "messages": [{"role": "user", "content": content}]} | body
        )


@asynccontextmanager
async def served(model: str = "smol", **behaviour: Any) -> AsyncIterator[tuple[Caller, SimulatedVLLM]]:
    async with SimulatedServer(model, **behaviour) as server, aiohttp.ClientSession() as session:
        yield Caller(server.url, session), server.app


async def until(condition: Callable[[], bool]) -> None:
    """Runs the loop until the sockets are done; a minute at most."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110  # what is awaited has no event of its own
            await asyncio.sleep(0.001)


def content(body: bytes) -> str:
    text = json.loads(body)["choices"][0]["message"]["content"]
    assert isinstance(text, str)
    return text


def events(body: bytes) -> list[Any]:
    return [
        json.loads(line[6:])
        for line in body.decode().splitlines()
        if line.startswith("data: ") and line != "data: [DONE]"
    ]


async def test_simulated_vllm_schema_gets_instance() -> None:
    async with served() as (caller, _):
        for seed in range(20):
            _, body = await caller.chat(f"question {seed}", structured_outputs={"json": SCHEMA})
            assert Validator(SCHEMA).check(json.loads(content(body))) is None
        _, body = await caller.chat(
            response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
        )
        assert Validator(SCHEMA).check(json.loads(content(body))) is None


async def test_simulated_vllm_satisfies_constraints() -> None:
    reading = {
        "type": "object",
        "properties": {"answer": {"type": ["string", "null"]}, "quote": {"type": "string", "format": "quote"}},
        "required": ["answer", "quote"],
        "additionalProperties": False,
    }
    async with served() as (caller, _):
        assert content((await caller.chat(structured_outputs={"choice": ["yes", "no"]}))[1]) in ("yes", "no")
        assert set(content((await caller.chat(structured_outputs={"regex": "[ab]{3}"}))[1])) <= set("ab")
        for number in range(5):
            grammar = evidence_grammar(reading, [TEXT], 40)
            _, body = await caller.chat(f"question {number}", structured_outputs={"grammar": grammar})
            assert json.loads(content(body))["quote"] in TEXT


async def test_simulated_vllm_invalid_grammar_is_refused() -> None:
    async with served() as (caller, _):
        status, body = await caller.chat(structured_outputs={"grammar": "start: nothing_of_that_name"})
    assert (status, b"BadRequestError" in body) == (400, True)


async def test_simulated_vllm_answer_function_is_used() -> None:
    def answer(request: SimulatedRequest) -> Any:
        return {"answer": request.prompt[:5], "model": request.model} if "?" in request.prompt else None

    async with served(answer=answer) as (caller, _):
        assert json.loads(content((await caller.chat("Where? There."))[1])) == {"answer": "Where", "model": "smol"}
        assert content((await caller.chat("no question", structured_outputs={"choice": ["x"]}))[1]) == "x"


async def test_simulated_vllm_stream_equals_single_response() -> None:
    async with served() as (caller, _):
        _, whole = await caller.chat(TEXT)
        _, stream = await caller.chat(TEXT, stream=True, stream_options={"include_usage": True})
        assert stream.endswith(b"data: [DONE]\n\n")
        found = events(stream)
        told = "".join(event["choices"][0]["delta"].get("content", "") for event in found if event["choices"])
        assert found[-1]["usage"]["completion_tokens"] == json.loads(whole)["usage"]["completion_tokens"]
        assert found[-2]["choices"][0]["finish_reason"] == "stop"
        assert len(told) > 10


async def test_simulated_vllm_limit_gives_finish_length() -> None:
    async with served(answer=lambda request: "one two three four five") as (caller, _):
        body = json.loads((await caller.chat(max_tokens=2))[1])
    assert body["choices"][0]["message"]["content"] == "one two"
    assert (body["choices"][0]["finish_reason"], body["usage"]["completion_tokens"]) == ("length", 2)


async def test_simulated_vllm_logprobs_match_tokens() -> None:
    async with served(answer=lambda request: "one two three") as (caller, _):
        choice = json.loads((await caller.chat(logprobs=True, top_logprobs=3))[1])["choices"][0]
    rows = choice["logprobs"]["content"]
    assert "".join(row["token"] for row in rows) == "one two three"
    assert all(
        row["logprob"] <= 0 and len(row["top_logprobs"]) == 3 and row["top_logprobs"][0]["token"] == row["token"]
        for row in rows
    )


async def test_simulated_vllm_prefix_cache_separates_salts() -> None:
    async def cached(caller: Caller, **body: Any) -> int:
        count = json.loads((await caller.chat(TEXT * 5, **body))[1])["usage"]["prompt_tokens_details"]["cached_tokens"]
        assert isinstance(count, int)
        return count

    async with served() as (caller, _):
        assert await cached(caller) == 0
        assert await cached(caller) >= 48
        assert await cached(caller, cache_salt="another tenant") == 0


async def test_simulated_vllm_adapter_life_cycle() -> None:
    async with served() as (caller, app):
        assert (await caller.chat(model="reader"))[0] == 404
        assert (await caller.post("/v1/load_lora_adapter", lora_name="reader", lora_path="/adapters/reader"))[0] == 200
        status, body = await caller.post("/v1/load_lora_adapter", lora_name="reader", lora_path="/adapters/reader")
        assert (status, b"already been loaded" in body) == (400, True)
        assert json.loads((await caller.chat(model="reader"))[1])["model"] == "reader"
        assert [card["id"] for card in json.loads((await caller.get("/v1/models"))[1])["data"]] == ["smol", "reader"]
        assert (await caller.post("/v1/unload_lora_adapter", lora_name="reader"))[0] == 200
        assert (await caller.post("/v1/unload_lora_adapter", lora_name="reader"))[0] == 404
        assert app.adapters == {}


async def test_simulated_vllm_scores_and_tokenize() -> None:
    async with served(score=lambda query, item: 0.25 if "not" in item else 0.75) as (caller, _):
        scored = await caller.post(
            "/generative_scoring", model="smol", query=TEXT, items=["It is.", "It is not."], label_token_ids=[1, 2]
        )
        assert [(row["index"], row["score"]) for row in json.loads(scored[1])["data"]] == [(0, 0.75), (1, 0.25)]
        assert (await caller.post("/generative_scoring", model="smol", query="x", items=[], label_token_ids=[1]))[
            0
        ] == 400
        tokens = json.loads((await caller.post("/tokenize", model="smol", prompt=TEXT))[1])
        assert tokens["count"] == len(tokens["tokens"]) == 14
        assert json.loads((await caller.post("/v1/completions", model="smol", prompt="x"))[1])["choices"][0]["text"]


async def test_simulated_vllm_health_version_metrics() -> None:
    async with served() as (caller, app):
        assert (await caller.get("/health"))[0] == 200
        app.healthy = False
        assert (await caller.get("/health"))[0] == 503
        assert "version" in json.loads((await caller.get("/version"))[1])
        await caller.chat()
        metrics = (await caller.get("/metrics"))[1]
        assert 'vllm:request_success_total{engine="0",model_name="smol"} 1.0' in metrics
        assert (await caller.get("/nowhere"))[0] == 404


@pytest.mark.parametrize(
    ("fault", "status"), [("busy", 429), ("unavailable", 503), ("error", 500), ("html", 200), ("empty", 200)]
)
@pytest.mark.parametrize("stream", [False, True])
async def test_fault_refused_requests(fault: Any, status: int, stream: bool) -> None:
    async with served(faults=first_faults(fault)) as (caller, app):
        async with caller.session.post(
            caller.url + "/v1/chat/completions", json={"model": "smol", "messages": [], "stream": stream}
        ) as response:
            assert response.status == status
            assert response.headers.get("retry-after") == ("1" if fault == "busy" else None)
            assert (b"<html" in await response.read()) == (fault == "html")
        assert (await caller.chat())[0] == 200
        assert app.fault_counts == {fault: 1}


@pytest.mark.parametrize("stream", [False, True])
async def test_fault_reset_during_response(stream: bool) -> None:
    async with served(faults=first_faults("reset")) as (caller, _):
        with pytest.raises(aiohttp.ClientPayloadError):
            await caller.chat(stream=stream)
        assert (await caller.chat(stream=stream))[0] == 200


@pytest.mark.parametrize("stream", [False, True])
async def test_fault_stall_until_client_disconnects(stream: bool) -> None:
    async with served(faults=first_faults("stall")) as (caller, app):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await caller.chat(stream=stream)
        await until(lambda: not app.running)
        assert [request.path for request in app.aborted] == ["/v1/chat/completions"]


async def test_fault_no_done() -> None:
    async with served(faults=first_faults("no_done")) as (caller, _):
        _, body = await caller.chat(stream=True, stream_options={"include_usage": True})
    assert b"[DONE]" not in body
    assert all(event["choices"][0]["finish_reason"] is None for event in events(body))


async def test_fault_split_character() -> None:
    pieces: list[bytes] = []
    async with served(faults=first_faults("split_character"), answer=lambda request: "naïve – ça va") as (caller, _):
        body = {"model": "smol", "messages": [], "stream": True}
        async with caller.session.post(caller.url + "/v1/chat/completions", json=body) as response:
            async for piece, _ in response.content.iter_chunks():
                pieces.append(piece)
    with pytest.raises(UnicodeDecodeError):
        [piece.decode() for piece in pieces]
    assert "".join(event["choices"][0]["delta"]["content"] for event in events(b"".join(pieces))) == "naïve – ça va"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("fault", "expected"), [("missing_usage", None), ("negative_usage", -1)])
async def test_fault_invalid_usage(fault: Any, expected: int | None, stream: bool) -> None:
    async with served(faults=first_faults(fault)) as (caller, _):
        _, body = await caller.chat(stream=stream, stream_options={"include_usage": True})
    last = events(body)[-1] if stream else json.loads(body)
    assert (last.get("usage") or {}).get("prompt_tokens") == expected


async def test_fault_wrong_model_and_ignored_constraint() -> None:
    async with served(faults=first_faults("wrong_model", "ignored_constraint"), adapters={"reader": "/x"}) as (
        caller,
        _,
    ):
        assert json.loads((await caller.chat(model="reader"))[1])["model"] == "smol"
        with pytest.raises(ValueError, match="Expecting value"):
            json.loads(content((await caller.chat(structured_outputs={"json": SCHEMA}))[1]))


async def test_fault_long_line() -> None:
    async with served(faults=first_faults("long_line")) as (caller, _):
        assert len((await caller.chat(stream=True))[1]) > 10_000_000


async def test_endpoint_faults_follow_seed_not_order() -> None:
    async def play(order: int) -> dict[str, int]:
        async with served(faults=EndpointFaults(busy=0.3, error=0.3), seed=3) as (caller, _):
            questions = [f"question {number}" for number in range(30)][::order]
            return dict(zip(questions, [(await caller.chat(question))[0] for question in questions], strict=True))

    forth, back = await play(1), await play(-1)
    assert forth == back
    assert set(forth.values()) == {200, 429, 500}


async def test_endpoint_faults_end_after_repeats() -> None:
    async with served(faults=EndpointFaults(busy=1.0, repeats=2)) as (caller, _):
        assert [(await caller.chat("same"))[0] for _ in range(4)] == [429, 429, 200, 200]


async def test_simulated_vllm_counts_concurrency() -> None:
    async with served(first_token=0.05) as (caller, app):
        await asyncio.gather(*(caller.chat(str(number)) for number in range(8)))
        assert (app.max_running, app.running, len(app.requests)) == (8, 0, 8)


async def test_simulated_vllm_is_asgi_application() -> None:
    app = SimulatedVLLM("smol", Behaviour(faults=first_faults("reset")))
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="critical", lifespan="off"))
    serving = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    async with aiohttp.ClientSession() as session:
        caller = Caller(url, session)
        with pytest.raises(aiohttp.ClientPayloadError):
            await caller.chat()
        assert content((await caller.chat(structured_outputs={"choice": ["x"]}))[1]) == "x"
    server.should_exit = True
    await serving

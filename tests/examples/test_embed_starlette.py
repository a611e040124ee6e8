"""Tests of the Starlette example over ASGI: concurrent requests through one `Orchestra` with simulated workers."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette

from orchestra.core.protocols import CallRequest
from orchestra.testing.fake_workers import SimulatedWorkers

ROOT = Path(__file__).resolve().parents[2]
TEXT = "The Denver Broncos won the game. It was played in California."
DOCUMENTS = [{"source": "game.txt", "text": TEXT}]


def answer(call: CallRequest) -> Any:
    """A reader that finds the winner; search and cite as the ready-made tools would do it on one short document."""
    match call.name:
        case "search":
            return [
                {**document, "start": 0, "end": len(document["text"]), "score": 1.0}
                for document in call.inputs["documents"]
            ]
        case "generative_reader" if "won" in call.inputs["question"]:
            return {"answer": "Denver Broncos"}
        case "generative_reader":
            return {"answer": None}
        case _:
            readings = [reading for reading in call.inputs["readings"] if reading["answer"]]
            citations = [{"quote": TEXT[:32], "source": "game.txt", "start": 0, "end": 32} for _ in readings]
            return {"text": readings[0]["answer"] if readings else None, "citations": citations}


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The example's module, in a folder that is no project, for a user without files of configuration."""
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.chdir(tmp_path)
    specification = importlib.util.spec_from_file_location("embed_starlette", ROOT / "examples" / "embed_starlette.py")
    assert specification
    assert specification.loader
    module = importlib.util.module_from_spec(specification)
    monkeypatch.setitem(sys.modules, "embed_starlette", module)
    specification.loader.exec_module(module)
    return module


class Client:
    """Sends requests to an app whose lifespan has begun."""

    def __init__(self, app: Starlette, state: dict[str, Any]) -> None:
        self._app, self._state = app, state

    async def post(self, body: Any, **headers: str) -> tuple[int, Any]:
        raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        scope = {
            "type": "http", "method": "POST", "path": "/answers", "query_string": b"", "headers": raw, "state": dict(self._state)  # noqa: E501
        }  # fmt: skip
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        await self._app(scope, receive, send)
        return sent[0]["status"], json.loads(b"".join(message.get("body", b"") for message in sent[1:]))


@asynccontextmanager
async def served(app: Starlette) -> AsyncIterator[Client]:
    """The app between its start and its end."""
    async with app.router.lifespan_context(app) as state:
        yield Client(app, dict(state or {}))


async def test_answers_known_question_returns_quote(example: Any) -> None:
    async with served(example.build_app(SimulatedWorkers(answer))) as client:
        status, reply = await client.post({"question": "Who won?", "documents": DOCUMENTS})
    assert (status, reply["status"], reply["answer"]) == (200, "done", "Denver Broncos")
    quote = reply["quotes"][0]
    assert TEXT[quote["start"] : quote["end"]] == quote["quote"]


async def test_answers_unanswerable_question_returns_null(example: Any) -> None:
    async with served(example.build_app(SimulatedWorkers(answer))) as client:
        status, reply = await client.post({"question": "Who lost?", "documents": DOCUMENTS})
    assert (status, reply["answer"], reply["quotes"]) == (200, None, [])


async def test_answers_many_requests_run_concurrently(example: Any) -> None:
    workers = SimulatedWorkers(answer, latency=0.02)
    async with served(example.build_app(workers)) as client:
        questions = ["Who won?" if number % 2 else "Who lost?" for number in range(12)]
        replies = await asyncio.gather(
            *(client.post({"question": question, "documents": DOCUMENTS}) for question in questions)
        )
    assert [reply["answer"] for _, reply in replies] == [
        "Denver Broncos" if number % 2 else None for number in range(12)
    ]
    assert len({reply["run"] for _, reply in replies}) == 12
    assert workers.max_in_flight > 1


async def test_answers_repeated_key_runs_once(example: Any) -> None:
    workers = SimulatedWorkers(answer)
    async with served(example.build_app(workers)) as client:
        body = {"question": "Who won?", "documents": DOCUMENTS}
        first, second = [await client.post(body, idempotency_key="order-42") for _ in range(2)]
    assert first == second
    assert workers.counts["generative_reader"] == 1


async def test_answers_reconnect_with_key_returns_answer(example: Any) -> None:
    workers = SimulatedWorkers(answer, latency=0.05)
    async with served(example.build_app(workers)) as client:
        body = {"question": "Who won?", "documents": DOCUMENTS}
        request = asyncio.create_task(client.post(body, idempotency_key="order-42"))
        while not workers.in_flight:  # noqa: ASYNC110  # there is no event for it
            await asyncio.sleep(0.001)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        status, reply = await client.post(body, idempotency_key="order-42")
    assert (status, reply["answer"], workers.counts["generative_reader"]) == (200, "Denver Broncos", 1)


@pytest.mark.parametrize("body", [{"question": "Who won?"}, [], {"question": 7, "documents": DOCUMENTS}])
async def test_answers_invalid_input_returns_422(example: Any, body: Any) -> None:
    workers = SimulatedWorkers(answer)
    async with served(example.build_app(workers)) as client:
        status, reply = await client.post(body)
    assert (status, bool(reply["error"])) == (422, True)
    assert workers.calls == []

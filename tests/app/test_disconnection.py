"""Runs that end with the client of a web service: a real Starlette app, HTTP server and model server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from orchestra import Orchestra, RunFailed, run_until_disconnected
from orchestra.core.settings import Settings
from orchestra.testing.fake_vllm.server import SimulatedServer

FLEET = """\
schema: orchestra/fleet/v1
name: test
servers:
  s: {endpoint: "URL/v1", model: m, dialect: vllm, label: restricted, revision: "1"}
models: {base: s}
"""
AGENT = """\
schema: orchestra/v1
name: answerer
description: Answers.
input: {question: str}
output: {answer: str}
model: base
"""
BODY = json.dumps({"question": "Is it?"}).encode()
REQUEST = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
SILENT = 3600.0
"""Seconds until the first token of a server that does not answer while a test runs."""


def settings(folder: Path, url: str) -> Settings:
    (folder / "agents" / "answerer").mkdir(parents=True)
    (folder / "agents" / "answerer" / "agent.yaml").write_text(AGENT)
    (folder / "agents" / "answerer" / "prompt.md").write_text("{{ question }}\n")
    (folder / "fleet.yaml").write_text(FLEET.replace("URL", url))
    (folder / "orchestra.toml").write_text("")
    return Settings.load(
        {"journal": str(folder / "runs.db"), "fleet": str(folder / "fleet.yaml")}, start=folder, environ={}
    )


@asynccontextmanager
async def opened(folder: Path, first_token: float = 0.0) -> AsyncIterator[tuple[Orchestra, SimulatedServer]]:
    """An `Orchestra` on a model server."""
    async with (
        SimulatedServer("m", answer=lambda request: {"answer": "yes"}, first_token=first_token) as server,
        Orchestra.open(settings(folder, server.url)) as orchestra,
    ):
        yield orchestra, server


@asynccontextmanager
async def served(handler: Callable[[Request], Any]) -> AsyncIterator[int]:
    """The port of a web service with one route."""
    app = Starlette(routes=[Route("/", handler, methods=["POST"])])
    server = uvicorn.Server(uvicorn.Config(app, port=0, lifespan="off", log_level="error"))
    task = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    await task


async def until(condition: Callable[[], Any]) -> None:
    """Waits for a condition that has no event."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110  # there is no event for it
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("started", [False, True])
async def test_disconnected_client_cancels_run_and_model_request(tmp_path: Path, started: bool) -> None:
    async with opened(tmp_path, SILENT) as (orchestra, models):
        results: list[Any] = []

        async def handler(request: Request) -> Response:
            inputs = await request.json()
            step = orchestra.find("answerer")
            run = await orchestra.start(step, **inputs) if started else orchestra.run(step, **inputs)
            results.append(await run_until_disconnected(run, request.is_disconnected, interval=0.01))
            return Response(status_code=499)

        async with served(handler) as port:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(REQUEST)
            await until(lambda: models.app.requests)
            assert models.app.aborted == []
            writer.close()
            await until(lambda: results)
        assert results == [None]
        await until(lambda: models.app.aborted)
        assert [summary.status for summary in await orchestra.journal.list_runs()] == ["cancelled"]


async def test_connected_client_gets_result(tmp_path: Path) -> None:
    async with opened(tmp_path) as (orchestra, models):

        async def handler(request: Request) -> Response:
            run = orchestra.run(orchestra.find("answerer"), **await request.json())
            result = await run_until_disconnected(run, request.is_disconnected, interval=0.001)
            return JSONResponse(None if result is None else result.value)

        async with served(handler) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(REQUEST)
            reply = await reader.read()
            writer.close()
        assert reply.startswith(b"HTTP/1.1 200")
        assert reply.endswith(b'\r\n\r\n{"answer":"yes"}')
        assert models.app.aborted == []


async def test_disconnected_client_leaves_run_with_key(tmp_path: Path) -> None:
    async with opened(tmp_path, 0.05) as (orchestra, models):
        keyed = orchestra.options(idempotency_key="order-42")
        step = orchestra.find("answerer")

        async def gone() -> bool:
            return bool(models.app.requests)

        assert await run_until_disconnected(keyed.run(step, question="Is it?"), gone, interval=0.001) is None
        result = await keyed.run(step, question="Is it?")
        assert (result.value, len(models.app.requests), models.app.aborted) == ({"answer": "yes"}, 1, [])


async def test_cancelled_handler_cancels_started_run(tmp_path: Path) -> None:
    async with opened(tmp_path, SILENT) as (orchestra, models):
        run = await orchestra.start(orchestra.find("answerer"), question="Is it?")

        polls: list[bool] = []

        async def connected() -> bool:
            polls.append(True)
            return False

        handler = asyncio.create_task(run_until_disconnected(run, connected, interval=0.001))
        await until(lambda: polls and models.app.requests)
        handler.cancel()
        with pytest.raises(asyncio.CancelledError):
            await handler
        with pytest.raises(RunFailed):
            await run
        await until(lambda: models.app.aborted)

"""Servers for tests: the application over ASGI, with simulated workers and a journal on disk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from starlette.applications import Starlette

from orchestra import Orchestra
from orchestra.core.protocols import CallRequest
from orchestra.core.settings import Settings
from orchestra.server import ServerSettings, create_app
from orchestra.server.access import create_key
from orchestra.server.http_server import BoundedHeadProtocol
from orchestra.server.principals import SCOPES, Scope
from orchestra.server.services import Services
from orchestra.testing.fake_workers import SimulatedWorkers

OPEN = ServerSettings(auth=False, hosts=("*",))
"""Without credentials."""
LOCKED = ServerSettings(hosts=("*",))
READER = """\
schema: orchestra/v1
name: reader
description: Reads.
input: {question: str, documents: "list[Document]"}
output: {answer: str, quote: Quote}
model: base
checks: [quote]
"""
ANSWER = """\
schema: orchestra/v1
name: answer
description: Answers a question from documents.
input: {question: str, documents: "list[Document]"}
nodes:
  read:
    agent: reader
    against: ${input.documents}
    with: {question: "${input.question}", documents: "${input.documents}"}
output: ${read}
"""
ASKING = """\
schema: orchestra/v1
name: approve
description: Asks a person.
input: {draft: str}
nodes:
  decide:
    ask: "Send this? ${input.draft}"
    options: ["yes", "no"]
output: ${decide}
"""
EACH = """\
schema: orchestra/v1
name: many
description: Reads each question.
input: {questions: "list[str]", documents: "list[Document]"}
nodes:
  read:
    agent: reader
    against: ${input.documents}
    each: ${input.questions}
    as: question
    with: {question: "${question}", documents: "${input.documents}"}
output: ${read.values}
"""
RECALL = """\
schema: orchestra/v1
name: recall
description: Returns what it is given.
types:
  Asked: {question: str, documents: "list[Document]"}
  Said: {answer: str, quote: str}
  Turn: {inputs: Asked, output: Said}
input: {earlier: "list[Turn]"}
nodes:
  decide:
    ask: "More?"
output: ${input.earlier}
"""
TEXT = "The tower was finished in 1889. It is in Paris."
INPUTS = {"question": "When?", "documents": [{"source": "tower.txt", "text": TEXT}]}
REPLY = {"answer": "1889", "quote": "finished in 1889"}
AnswerFunction = Callable[[CallRequest], Any]


def project(folder: Path, journal: str = "") -> Settings:
    """A project with one agent and its workflows, and a journal in a file or at an address."""
    agent = folder / "agents" / "reader"
    if not agent.exists():
        agent.mkdir(parents=True)
        (agent / "agent.yaml").write_text(READER)
        (agent / "prompt.md").write_text("{{ question }}\n{{ documents }}\n")
        (folder / "workflows").mkdir()
        for name, text in (("answer", ANSWER), ("approve", ASKING), ("many", EACH), ("recall", RECALL)):
            (folder / "workflows" / f"{name}.yaml").write_text(text)
        (folder / "orchestra.toml").write_text("")
    return Settings.load({"journal": journal or str(folder / "runs.db")}, start=folder, environ={})


@dataclass
class TestServer:
    """A server under test, and a client of it."""

    __test__ = False

    app: Starlette
    orchestra: Orchestra
    client: httpx.AsyncClient
    workers: SimulatedWorkers

    @property
    def services(self) -> Services:
        """What its routes share."""
        found: Services = self.app.state.services
        return found

    async def key(self, tenant: str, *scopes: Scope) -> dict[str, str]:
        """Makes a key; returns the headers of requests with it."""
        _, secret = await create_key(self.services.records, "test", tenant, scopes or SCOPES, None)
        return {"Authorization": f"Bearer {secret}"}

    async def run(self, workflow: str = "answer", inputs: Any = None, **body: Any) -> dict[str, Any]:
        """Starts a run and returns its answer."""
        reply = await self.client.post(
            "/api/runs", json={"workflow": workflow, "inputs": INPUTS if inputs is None else inputs, **body}
        )
        assert reply.status_code in (200, 202), reply.text
        found: dict[str, Any] = reply.json()
        return found


def reply(call: CallRequest) -> Any:
    """The reader's answer."""
    return REPLY


@asynccontextmanager
async def serving(
    folder: Path,
    answer: AnswerFunction = reply,
    settings: ServerSettings = OPEN,
    chunks: int = 0,
    workers: SimulatedWorkers | None = None,
    journal: str = "",
) -> AsyncIterator[TestServer]:
    """An application with its client, without sockets. Models write their text in that many chunks before the value."""
    workers = workers or SimulatedWorkers(answer, latency=0.0, chunks=chunks)
    async with AsyncExitStack() as stack:
        orchestra = await stack.enter_async_context(Orchestra.open(project(folder, journal), workers=workers))
        app = create_app(orchestra, settings)
        await stack.enter_async_context(app.router.lifespan_context(app))
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        client = await stack.enter_async_context(httpx.AsyncClient(transport=transport, base_url="http://localhost"))
        yield TestServer(app, orchestra, client, workers)


@asynccontextmanager
async def listening(app: Starlette) -> AsyncIterator[str]:
    """The address of an application on a port of its own. Its lifespan has begun already."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, lifespan="off", log_level="error", http=BoundedHeadProtocol))
    task = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


async def until(condition: Callable[[], Any]) -> None:
    """Waits for a condition that has no event."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110  # there is no event for it
            await asyncio.sleep(0.005)


async def until_async(condition: Callable[[], Awaitable[Any]]) -> None:
    """Waits for a condition that needs requests."""
    async with asyncio.timeout(60):
        while not await condition():  # noqa: ASYNC110  # there is no event for it
            await asyncio.sleep(0.02)


def frames(text: str) -> list[Mapping[str, str]]:
    """The events of a stream as mappings of their fields."""
    found: list[Mapping[str, str]] = []
    for block in text.split("\n\n"):
        lines = [line.partition(": ") for line in block.splitlines() if line and not line.startswith(":")]
        if lines:
            found.append({name: value for name, _, value in lines})
    return found

"""Servers of the OpenAI-compatible API for tests, with the official client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from openai import AsyncOpenAI

from orchestra.core.protocols import CallRequest
from orchestra.server import ServerSettings
from tests.server.servers import OPEN, REPLY, TEXT, AnswerFunction, TestServer, project, serving

DOCUMENT = {"source": "tower.txt", "text": TEXT}
QUESTION: list[dict[str, Any]] = [{"role": "user", "content": "When was it finished?"}]
GIVEN = {"orchestra": {"inputs": {"documents": [DOCUMENT]}}}
"""The documents, beside the messages."""
TALKER = """\
schema: orchestra/v1
name: talker
description: Tells.
input: {text: str}
output: str
model: base
"""
TELL = """\
schema: orchestra/v1
name: tell
description: Tells with the conversation.
input: {text: str, conversation: {type: "list[Turn]", default: []}}
types:
  Turn: {type: object, properties: {role: {type: string}, content: {type: string}}, required: [role, content]}
nodes:
  say:
    agent: talker
    with: {text: "${input.text}"}
output: ${say}
"""
TWO_TEXTS = """\
schema: orchestra/v1
name: two
description: Takes two texts.
input: {first: str, second: str}
nodes:
  say:
    agent: talker
    with: {text: "${input.first}"}
output: ${say}
"""
SENTENCES = "It was finished in 1889. It is in Paris."


def answer(call: CallRequest) -> Any:
    """The answers of both agents."""
    return SENTENCES if call.name == "talker" else REPLY


@dataclass
class OpenAiServer:
    """A server, and the official client of it."""

    server: TestServer
    client: Any
    """An `AsyncOpenAI`; not typed, since replies have a field of ours."""

    async def key(self, tenant: str, *scopes: Any) -> Any:
        """A client with a key of a tenant."""
        headers = await self.server.key(tenant, *scopes)
        return self.client.with_options(api_key=headers["Authorization"].removeprefix("Bearer "))


def add_project(folder: Path) -> None:
    """Adds an agent that writes text, and its workflows."""
    project(folder)
    agent = folder / "agents" / "talker"
    agent.mkdir(exist_ok=True)
    (agent / "agent.yaml").write_text(TALKER)
    (agent / "prompt.md").write_text("{{ text }}\n")
    for name, text in (("tell", TELL), ("two", TWO_TEXTS)):
        (folder / "workflows" / f"{name}.yaml").write_text(text)


@asynccontextmanager
async def openai_serving(
    folder: Path, reply: AnswerFunction = answer, settings: ServerSettings = OPEN
) -> AsyncIterator[OpenAiServer]:
    """An application with the official client, without sockets."""
    add_project(folder)
    async with serving(folder, reply, settings) as server:
        transport = httpx2.ASGITransport(server.app, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport) as http:
            yield OpenAiServer(
                server, AsyncOpenAI(base_url="http://localhost/v1", api_key="none", http_client=http, max_retries=0)
            )

"""Clients of A2A for tests: the official client, and the messages it sends."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from a2a.client import Client, ClientConfig, create_client
from a2a.types import a2a_pb2 as pb
from google.protobuf.json_format import MessageToDict, ParseDict

from tests.server.servers import TestServer, listening


@asynccontextmanager
async def a2a_client(
    server: TestServer, headers: dict[str, str] | None = None, *, streaming: bool = False, **config: Any
) -> AsyncIterator[Client]:
    """The official client, which reads the card first."""
    async with listening(server.app) as url, httpx.AsyncClient(headers=headers, timeout=60) as http:
        yield await create_client(url, ClientConfig(streaming=streaming, httpx_client=http, **config))


def message(*parts: dict[str, Any], skill: str = "", **fields: Any) -> pb.SendMessageRequest:
    """A message of a user."""
    metadata = {"skill": skill} if skill else {}
    content = {
        "messageId": str(uuid.uuid4()), "role": "ROLE_USER", "parts": list(parts), "metadata": metadata, **fields,
    }  # fmt: skip
    request: pb.SendMessageRequest = ParseDict({"message": content}, pb.SendMessageRequest())
    return request


async def send(client: Client, request: pb.SendMessageRequest) -> pb.Task:
    """The task of a message that is not streamed."""
    (reply,) = [one async for one in client.send_message(request)]
    return reply.task


def state(task: pb.Task) -> str:
    """The name of a task's state."""
    name: str = pb.TaskState.Name(task.status.state)
    return name.removeprefix("TASK_STATE_").lower()


def data_of(task: pb.Task) -> dict[str, Any]:
    """The data of a task's artifact."""
    (artifact,) = task.artifacts
    found: dict[str, Any] = MessageToDict(artifact)["parts"][1]["data"]
    return found

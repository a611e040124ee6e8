"""Scripted model servers of other projects: what OpenAI, Ollama, llama.cpp and LM Studio list, accept and answer.

Sources: https://platform.openai.com/docs/api-reference, https://github.com/ollama/ollama/blob/main/docs/openai.md,
https://github.com/ggml-org/llama.cpp/tree/master/tools/server, https://lmstudio.ai/docs/app/api/endpoints/openai,
https://docs.vllm.ai/en/stable/features/tool_calling/.
"""

from __future__ import annotations

import asyncio
import json
import queue
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal, TypeAlias

from orchestra.testing.fake_vllm.http import Receive, Scope, Send, serving
from orchestra.testing.schema_samples import make_instance

Software: TypeAlias = Literal["openai", "ollama", "llama.cpp", "lm-studio", "vllm"]
Reply: TypeAlias = str | dict[str, Any]
"""The text of the assistant, or keys of its message such as `tool_calls`."""
Answer: TypeAlias = Callable[[Mapping[str, Any]], Reply]
"""Returns what the assistant answers to the body of a chat request."""
OWNERS: Mapping[Software, str] = {
    "openai": "system",
    "ollama": "library",
    "llama.cpp": "llamacpp",
    "lm-studio": "organization_owner",
    "vllm": "vllm",
}
REFUSALS: Mapping[Software, tuple[int, str]] = {
    "openai": (400, "Unsupported parameter: 'tools' is not supported with this model."),
    "ollama": (400, "registry.ollama.ai/library/gemma3:4b does not support tools"),
    "llama.cpp": (500, "tools param requires --jinja flag"),
    "lm-studio": (422, "Unprocessable Entity"),
    "vllm": (400, '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'),
}
"""How a server refuses `tools` that it or its model does not support."""
OPENAI_FIELDS = frozenset(
    {"model", "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "seed", "stop", "stream"}
    | {"stream_options", "response_format", "presence_penalty", "frequency_penalty", "logprobs", "top_logprobs"}
    | {"tools", "tool_choice", "parallel_tool_calls"}
)


def answer_schema(body: Mapping[str, Any]) -> str:
    """Answers with an instance of the requested JSON Schema; with `yes` without one."""
    schema = requested_schema(body)
    return "yes" if schema is None else json.dumps(make_instance(dict(schema), Random(0)))


def tool_call(name: str, arguments: Any) -> dict[str, Any]:
    """Returns a call of a function, as a message has it. Arguments that are no text are encoded as JSON."""
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return {"id": f"call_{name}", "type": "function", "function": {"name": name, "arguments": text}}


def tool_calls(*calls: dict[str, Any], content: str | None = None) -> dict[str, Any]:
    """Returns a message with calls of functions."""
    return {"role": "assistant", "content": content, "tool_calls": list(calls)}


def requested_schema(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The JSON Schema of a chat request, in `response_format` or in vLLM's `structured_outputs`."""
    wanted = body.get("response_format") or {}
    schema = (wanted.get("json_schema") or {}).get("schema") or (body.get("structured_outputs") or {}).get("json")
    return json.loads(schema) if isinstance(schema, str) else schema


@dataclass
class ModelServer:
    """An ASGI application that answers like one of these servers, and records the requests."""

    software: Software
    models: tuple[str, ...] = ("qwen3:4b",)
    adapters: Mapping[str, str] = field(default_factory=dict)
    """Adapter to its base, as vLLM lists them."""
    key: str = ""
    """The API key that the server requires."""
    answer: Answer = answer_schema
    lists_models: bool = True
    """Whether it answers `/v1/models`."""
    refuses_tools: bool = False
    fault: tuple[int, str] | None = None
    """Status and message with which it refuses every chat request."""
    chats: list[dict[str, Any]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.headers.append(headers)
        self.paths.append(scope["path"])
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body", False):
                break
        status, told = self._respond(scope["path"], headers, body)
        data = json.dumps(told).encode()
        listed = [(b"content-type", b"application/json"), (b"content-length", str(len(data)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": listed})
        await send({"type": "http.response.body", "body": data})

    def _respond(self, path: str, headers: Mapping[str, str], body: bytes) -> tuple[int, dict[str, Any]]:
        if self.key and headers.get("authorization") != f"Bearer {self.key}":
            return 401, _error("Incorrect API key provided", "invalid_api_key")
        if path == "/v1/models" and self.lists_models:
            return 200, {"object": "list", "data": self._listed}
        if path == "/api/version" and self.software == "ollama":
            return 200, {"version": "0.13.0"}
        if path == "/v1/chat/completions":
            return self._chat(json.loads(body))
        return 404, _error(f"Unknown request URL: {path}", "unknown_url")

    @property
    def _listed(self) -> list[dict[str, Any]]:
        owner = OWNERS[self.software]
        rows = [{"id": name, "object": "model", "owned_by": owner} for name in self.models]
        return [*rows, *({"id": name, "owned_by": owner, "parent": base} for name, base in self.adapters.items())]

    def _chat(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        self.chats.append(body)
        if self.software != "llama.cpp" and body["model"] not in (*self.models, *self.adapters):
            return 404, _error(f"The model `{body['model']}` does not exist", "model_not_found")
        if self.software == "openai" and (unknown := body.keys() - OPENAI_FIELDS):
            return 400, _error(f"Unrecognized request argument supplied: {sorted(unknown)[0]}", "unknown_parameter")
        refusal = self.fault or (REFUSALS[self.software] if self.refuses_tools and "tools" in body else None)
        if refusal is not None:
            return refusal[0], _error(refusal[1], "invalid_request_error")
        reply = self.answer(body)
        message = {"role": "assistant", "content": reply} if isinstance(reply, str) else reply
        finish = "tool_calls" if message.get("tool_calls") else "stop"
        name = {"openai": f"{body['model']}-2026-01-01", "llama.cpp": "model.gguf"}.get(self.software, body["model"])
        choice = {"index": 0, "message": message, "finish_reason": finish}
        usage = {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25}
        return 200, {"id": "c1", "object": "chat.completion", "model": name, "choices": [choice], "usage": usage}


def _error(message: str, code: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "code": code}}


@asynccontextmanager
async def serve(server: ModelServer) -> AsyncIterator[str]:
    """Serves on a free port of 127.0.0.1, and yields the address up to `/v1`."""
    async with serving(server) as port:
        yield f"http://127.0.0.1:{port}/v1"


@contextmanager
def serve_in_thread(server: ModelServer) -> Iterator[str]:
    """Serves on a thread of its own, for commands that run an event loop themselves; yields the address."""
    ready: queue.Queue[tuple[str, asyncio.AbstractEventLoop]] = queue.Queue()

    async def run() -> None:
        async with serve(server) as address:
            ready.put((address, asyncio.get_running_loop()))
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    address, loop = ready.get(timeout=60)
    try:
        yield address
    finally:
        loop.call_soon_threadsafe(lambda: [task.cancel() for task in asyncio.all_tasks(loop)])
        thread.join()

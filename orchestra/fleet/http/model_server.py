"""Requests to a model server: chat, token count, adapters, load.

Responses are typed. Failures are `RequestError` values.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import msgspec

from orchestra.agents.native_tools import ToolCall
from orchestra.core.labels import Label
from orchestra.core.protocols import TextCallback
from orchestra.fleet import vllm_metrics
from orchestra.fleet.config import AUTO, Dialect, Endpoint
from orchestra.fleet.http import openai_protocol
from orchestra.fleet.http.client import HttpRequest, HttpResponse
from orchestra.fleet.http.connection import BodyCallback
from orchestra.fleet.http.openai_protocol import ChatRequest, ChatStream, Completion, ListedModel
from orchestra.fleet.request_errors import RequestError
from orchestra.fleet.scheduling import NO_RUN, QueueRequest
from orchestra.fleet.secrets import StreamRedactor, contains_split_key, redact
from orchestra.fleet.sender import Deadline, Sender, SendResult, send_error, with_resends

LARGE_RESPONSE_BYTES = 1 << 16
"""Size of a response from which on it is searched for the key on a thread: half a megabyte may take a tenth of a
second.
"""


@dataclass(frozen=True, slots=True)
class ModelClient:
    """The client of the model servers of a fleet, on top of its sender."""

    sender: Sender

    async def chat(
        self,
        server: str,
        chat: ChatRequest,
        *,
        model: str = "",
        label: Label = "internal",
        seconds: float | Deadline | None = None,
        on_text: TextCallback | None = None,
        queue_request: QueueRequest = NO_RUN,
        once: bool = False,
    ) -> Completion | RequestError:
        """Requests a chat completion.

        Args:
            server: The name of the server.
            chat: The request.
            model: The name of an adapter; empty for the server's own model.
            label: The label of the data in the chat.
            seconds: The timeout in all, or a deadline.
            queue_request: The properties that decide the order in the queue.
            once: Whether to give up after one try, because the caller can use another server.
            on_text: Called with the text as it is generated, if `chat.stream` is set. A resent request starts from the
            beginning.
        """
        target = self.sender.targets[server]
        name = model or target.model
        dialect: Dialect = "openai" if target.dialect == AUTO else target.dialect
        field = target.max_tokens_field if isinstance(target, Endpoint) else "max_tokens"
        body = openai_protocol.chat_body(chat, name, dialect, field)
        request = HttpRequest("/v1/chat/completions", body, label, chat.stream, queue_request)
        if not chat.stream:
            send_result = await self.sender.send(server, request, seconds=seconds, once=once)
            if isinstance(send_result.result, HttpResponse):
                return await self._redact(
                    server,
                    _with_usage(
                        send_result,
                        send_result.result,
                        openai_protocol.read_completion(body, send_result.result.received, name, dialect),
                    ),
                )
            return await self._redact(server, with_resends(send_result, send_result.result))
        readers = _StreamReaders(name, dialect, on_text, self.sender.key(server))
        send_result = await self.sender.send(server, request, seconds=seconds, new_reader=readers.new_reader, once=once)
        if isinstance(send_result.result, HttpResponse):
            result = readers.result(body, send_result.result.received)
            return await self._redact(server, _with_usage(send_result, send_result.result, result))
        return await self._redact(server, with_resends(send_result, readers.with_usage(send_result.result)))

    async def count_tokens(
        self,
        server: str,
        messages: Sequence[Mapping[str, str]],
        *,
        label: Label = "internal",
        priority: int = 0,
        seconds: float = 10,
    ) -> int | RequestError:
        """Returns the number of tokens of a chat with the server's template and tokenizer (vLLM's `/tokenize`)."""
        model = self.sender.targets[server].model
        body = msgspec.json.encode({"model": model, "messages": list(messages), "add_generation_prompt": True})
        result = await self.sender.send(
            server,
            HttpRequest("/tokenize", body, label, queue_request=QueueRequest(priority=priority)),
            seconds=seconds,
        )
        if (fault := send_error(result)) is not None:
            return fault
        tokens = openai_protocol.read_tokens(self._body(result))
        return tokens if isinstance(tokens, RequestError) else len(tokens)

    async def load_adapter(self, server: str, name: str, folder: str) -> RequestError | None:
        """Loads an adapter from a folder on the server's machine.

        Returns None if it is loaded, also if it was before.
        """
        body = msgspec.json.encode({"lora_name": name, "lora_path": folder})
        fault = send_error(await self.sender.send(server, HttpRequest("/v1/load_lora_adapter", body), seconds=120))
        if fault is None or (fault.code == "F207" and "already" in fault.reason):
            return None
        return replace(
            fault,
            code="F212",
            reason=f"the adapter {name!r} cannot be loaded: {fault.reason}",
            retryable=fault.unreachable or fault.busy,
        )

    async def unload_adapter(self, server: str, name: str) -> RequestError | None:
        """Unloads an adapter. Returns None if it is not loaded any more. vLLM's engine keeps its slot filled until the
        slot is needed.
        """
        body = msgspec.json.encode({"lora_name": name})
        fault = send_error(await self.sender.send(server, HttpRequest("/v1/unload_lora_adapter", body), seconds=60))
        return None if fault is None or fault.code == "F212" else fault

    async def list_models(self, server: str, *, once: bool = False) -> tuple[ListedModel, ...] | RequestError:
        """Returns the models that a server lists; for vLLM also its adapters. `once`: give up after one try, because
        the caller can use another server.
        """
        result = await self.sender.send(server, HttpRequest("/v1/models"), seconds=10, once=once)
        return send_error(result) or openai_protocol.read_models(self._body(result))

    async def answers(self, server: str, path: str) -> bool:
        """Returns whether a server answers a GET of a path."""
        return send_error(await self.sender.send(server, HttpRequest(path), seconds=10, once=True)) is None

    async def read_load(self, server: str) -> vllm_metrics.ServerLoad | RequestError:
        """Returns the load from vLLM's `/metrics`."""
        result = await self.sender.send(server, HttpRequest("/metrics"), seconds=10)
        return send_error(result) or vllm_metrics.parse_metrics(self._body(result).decode("utf-8", "replace"))

    async def _redact(self, server: str, result: Completion | RequestError) -> Completion | RequestError:
        """Returns the result without the server's key.

        If the key is split within the response, its bytes are dropped.
        """
        if not (key := self.sender.key(server)):
            return result
        look = partial(contains_split_key, result.received, key)
        pieces = await asyncio.to_thread(look) if len(result.received) >= LARGE_RESPONSE_BYTES else look()
        if isinstance(result, RequestError):
            return replace(result, reason=redact(result.reason, key), received=b"" if pieces else result.received)
        text = redact(result.text, key)
        calls = tuple(
            [ToolCall(redact(tool_call.name, key), redact(tool_call.arguments, key)) for tool_call in result.tool_calls]
        )
        if (text, calls) == (result.text, result.tool_calls) and not pieces:
            return result
        return msgspec.structs.replace(result, text=text, tokens=(), tool_calls=calls, received=b"")

    def _body(self, result: SendResult) -> bytes:
        assert isinstance(result.result, HttpResponse)
        return result.result.received


class _StreamReaders:
    """The readers of a streamed response, one for each time that the request is sent. Only the last one counts."""

    def __init__(self, model: str, dialect: Dialect, on_text: TextCallback | None, key: str) -> None:
        self._model, self._dialect, self._on_text, self._key = model, dialect, on_text, key
        self._stream: ChatStream | None = None
        self._redactor: StreamRedactor | None = None

    def new_reader(self) -> BodyCallback:
        """Returns a reader that begins with the start of the response."""
        on_text = self._on_text or (lambda _: None)
        if self._on_text is not None and self._key:
            on_text = self._redactor = StreamRedactor(self._on_text, self._key)
        stream = self._stream = ChatStream(self._model, self._dialect, on_text)
        return lambda block: stream.feed(block) or stream.linger_seconds()

    def result(self, body: bytes, received: bytes) -> Completion | RequestError:
        """Returns the completion of a response that was read to its end."""
        assert self._stream is not None  # a response was read
        if self._redactor is not None:
            self._redactor.end()
        return self._stream.result(body, received)

    def with_usage(self, fault: RequestError) -> RequestError:
        """Returns a failure with the usage that the response reported before it."""
        return fault if self._stream is None else self._stream.with_usage(fault)


def _with_usage(
    send_result: SendResult, answer: HttpResponse, result: Completion | RequestError
) -> Completion | RequestError:
    """Returns the result with the usage of the request."""
    if isinstance(result, RequestError):
        return replace(result, sent=answer.sent, received=answer.received)
    usage = msgspec.structs.replace(result.usage, seconds=send_result.seconds, resends=send_result.resends)
    return msgspec.structs.replace(result, usage=usage)

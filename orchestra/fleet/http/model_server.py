"""What is asked of a server: a chat, how many tokens one is, its adapters, its load. Each answer is typed; each failure is a `Fault`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

import msgspec

from orchestra.core.labels import Label
from orchestra.fleet import vllm_metrics
from orchestra.fleet.config import Endpoint
from orchestra.fleet.http import openai_protocol
from orchestra.fleet.http.client import Answer, Request
from orchestra.fleet.http.connection import Block
from orchestra.fleet.http.openai_protocol import Chat, Completion, Stream
from orchestra.fleet.request_errors import Fault
from orchestra.fleet.scheduling import NOBODY, Turn
from orchestra.fleet.secrets import Live, hidden, said_in_pieces
from orchestra.fleet.sender import Deadline, Sender, Sent, again, failed

OnText: TypeAlias = Callable[[str], None]
HEAVY = 1 << 16
"""Bytes of an answer from which on it is looked through beside the loop: half a megabyte may take a tenth of a second."""


@dataclass(frozen=True, slots=True)
class Client:
    """Speaks to the servers of a fleet through its one sender."""

    sender: Sender

    async def chat(
        self,
        server: str,
        chat: Chat,
        *,
        model: str = "",
        label: Label = "internal",
        seconds: float | Deadline | None = None,
        on_text: OnText | None = None,
        turn: Turn = NOBODY,
        once: bool = False,
    ) -> Completion | Fault:
        """A chat completion. `model` names an adapter; the server's own model where it is empty. `turn` is for the line before the server.

        `once`: nothing is sent again, because there is another server to ask.

        `on_text` gets the text as it is written, if `chat.stream` is set; of a request that was sent again, from the start.
        """
        target = self.sender.config.servers[server]
        name, dialect = model or target.model, target.dialect
        field = target.max_tokens_field if isinstance(target, Endpoint) else "max_tokens"
        body = openai_protocol.chat_body(chat, name, dialect, field)
        request = Request("/v1/chat/completions", body, label, chat.stream, turn)
        if not chat.stream:
            sent = await self.sender.send(server, request, seconds=seconds, once=once)
            if isinstance(sent.result, Answer):
                return await self._hidden(
                    server, _told(sent, sent.result, openai_protocol.read_completion(body, sent.result.received, name, dialect))
                )
            return await self._hidden(server, again(sent, sent.result))
        streams: list[Stream] = []
        key = self.sender.key(server) if on_text is not None else ""
        live: list[Live] = []

        def fresh() -> Block:
            heard = on_text or (lambda _: None)
            if key:
                live.append(heard := Live(heard, key))
            stream = Stream(name, dialect, heard)
            streams.append(stream)
            return lambda block: stream.feed(block) or stream.lingers()

        sent = await self.sender.send(server, request, seconds=seconds, fresh=fresh, once=once)
        if isinstance(sent.result, Answer):
            if live:
                live[-1].end()
            return await self._hidden(server, _told(sent, sent.result, streams[-1].result(body, sent.result.received)))
        return await self._hidden(server, again(sent, streams[-1].billed(sent.result) if streams else sent.result))

    async def count(
        self, server: str, messages: Sequence[Mapping[str, str]], *, label: Label = "internal", priority: int = 0, seconds: float = 10
    ) -> int | Fault:
        """How many tokens a chat is, with the server's own template and tokenizer (vLLM's `/tokenize`)."""
        model = self.sender.config.servers[server].model
        body = msgspec.json.encode({"model": model, "messages": list(messages), "add_generation_prompt": True})
        sent = await self.sender.send(server, Request("/tokenize", body, label, turn=Turn(priority=priority)), seconds=seconds)
        if (fault := failed(sent)) is not None:
            return fault
        tokens = openai_protocol.read_tokens(self._received(sent))
        return tokens if isinstance(tokens, Fault) else len(tokens)

    async def load_adapter(self, server: str, name: str, folder: str) -> Fault | None:
        """Loads an adapter from a folder of the server's machine; None where it is loaded, also where it was before."""
        body = msgspec.json.encode({"lora_name": name, "lora_path": folder})
        fault = failed(await self.sender.send(server, Request("/v1/load_lora_adapter", body), seconds=120))
        if fault is None or (fault.code == "F207" and "already" in fault.reason):
            return None
        return replace(
            fault, code="F212", reason=f"the adapter {name!r} cannot be loaded: {fault.reason}", retryable=fault.lost or fault.busy
        )

    async def unload_adapter(self, server: str, name: str) -> Fault | None:
        """Unloads an adapter; None where it is gone, also where it was not there. vLLM's engine keeps its slot filled until it needs it."""
        body = msgspec.json.encode({"lora_name": name})
        fault = failed(await self.sender.send(server, Request("/v1/unload_lora_adapter", body), seconds=60))
        return None if fault is None or fault.code == "F212" else fault

    async def adapters(self, server: str, *, once: bool = False) -> list[str] | Fault:
        """The adapters that are loaded; `once` is for a caller that has another server to ask."""
        sent = await self.sender.send(server, Request("/v1/models"), seconds=10, once=once)
        return failed(sent) or vllm_metrics.adapters(self._received(sent), self.sender.config.servers[server].model)

    async def load(self, server: str) -> vllm_metrics.Load | Fault:
        """A reading of vLLM's `/metrics`."""
        sent = await self.sender.send(server, Request("/metrics"), seconds=10)
        return failed(sent) or vllm_metrics.read(self._received(sent).decode("utf-8", "replace"))

    async def _hidden(self, server: str, result: Completion | Fault) -> Completion | Fault:
        """The same without the server's key, which an answer may bring in pieces: then its bytes are not kept either."""
        if not (key := self.sender.key(server)):
            return result
        look = partial(said_in_pieces, result.received, key)
        pieces = await asyncio.to_thread(look) if len(result.received) >= HEAVY else look()
        if isinstance(result, Fault):
            return replace(result, reason=hidden(result.reason, key), received=b"" if pieces else result.received)
        if (text := hidden(result.text, key)) == result.text and not pieces:
            return result
        return msgspec.structs.replace(result, text=text, tokens=(), received=b"")

    def _received(self, sent: Sent) -> bytes:
        assert isinstance(sent.result, Answer)
        return sent.result.received


def _told(sent: Sent, answer: Answer, result: Completion | Fault) -> Completion | Fault:
    """What was read of an answer, with what it took to get it."""
    if isinstance(result, Fault):
        return replace(result, sent=answer.sent, received=answer.received)
    usage = msgspec.structs.replace(result.usage, seconds=sent.seconds, resends=sent.resends)
    return msgspec.structs.replace(result, usage=usage)

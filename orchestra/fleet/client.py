"""What can be asked of a server: chat, completion, scoring, tokens, adapters, load. Each answer is typed; each failure is a `Fault`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import msgspec

from orchestra.fleet import metrics, protocol
from orchestra.fleet.config import Endpoint
from orchestra.fleet.connection import Block
from orchestra.fleet.faults import Fault
from orchestra.fleet.order import NOBODY, Turn
from orchestra.fleet.protocol import Chat, Completion, Scores, Stream
from orchestra.fleet.send import Sender, Sent, again, failed
from orchestra.fleet.wire import Answer, Request
from orchestra.values.labels import Label

OnText: TypeAlias = Callable[[str], None]


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
        seconds: float | None = None,
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
        body = protocol.chat_body(chat, name, dialect, field)
        request = Request("/v1/chat/completions", body, label, chat.stream, turn)
        if not chat.stream:
            sent = await self.sender.send(server, request, seconds=seconds, once=once)
            if isinstance(sent.result, Answer):
                return _told(sent, sent.result, protocol.read_completion(body, sent.result.received, name, dialect))
            return again(sent, sent.result)
        streams: list[Stream] = []

        def fresh() -> Block:
            stream = Stream(name, dialect, on_text or (lambda _: None))
            streams.append(stream)
            return lambda block: stream.feed(block) or stream.lingers()

        sent = await self.sender.send(server, request, seconds=seconds, fresh=fresh, once=once)
        if isinstance(sent.result, Answer):
            return _told(sent, sent.result, streams[-1].result(body, sent.result.received))
        return again(sent, streams[-1].billed(sent.result) if streams else sent.result)

    async def complete(
        self,
        server: str,
        prompt: str,
        max_output: int,
        *,
        model: str = "",
        label: Label = "internal",
        seconds: float | None = None,
        **sampling: Any,
    ) -> Completion | Fault:
        """A plain completion of a prompt, with sampling and `structured_outputs` in vLLM's own words."""
        target = self.sender.config.servers[server]
        name = model or target.model
        body = msgspec.json.encode({"model": name, "prompt": prompt, "max_tokens": max_output, **sampling})
        sent = await self.sender.send(server, Request("/v1/completions", body, label), seconds=seconds)
        if isinstance(sent.result, Answer):
            return _told(sent, sent.result, protocol.read_completion(body, sent.result.received, name, target.dialect))
        return again(sent, sent.result)

    async def score(
        self,
        server: str,
        query: str,
        items: Sequence[str],
        labels: Sequence[int],
        *,
        model: str = "",
        label: Label = "internal",
        seconds: float | None = None,
    ) -> Scores | Fault:
        """By vLLM's `/generative_scoring`: for each item after the query, the probability of the first of the label tokens among them."""
        name = model or self.sender.config.servers[server].model
        body = msgspec.json.encode(
            {"model": name, "query": query, "items": list(items), "label_token_ids": list(labels), "apply_softmax": True}
        )
        sent = await self.sender.send(server, Request("/generative_scoring", body, label), seconds=seconds)
        if (fault := failed(sent)) is not None:
            return fault
        assert isinstance(sent.result, Answer)
        result = protocol.read_scores(body, sent.result.received, name, len(items))
        if isinstance(result, Fault):
            return replace(result, sent=body, received=sent.result.received)
        usage = msgspec.structs.replace(result.usage, seconds=sent.seconds, resends=sent.resends)
        return msgspec.structs.replace(result, usage=usage, sent=body, received=sent.result.received)

    async def tokenize(self, server: str, text: str, *, label: Label = "internal", special: bool = False) -> tuple[int, ...] | Fault:
        """The tokens of a text, by the server's own tokenizer; `special` adds those that a prompt begins with."""
        body = msgspec.json.encode({"model": self.sender.config.servers[server].model, "prompt": text, "add_special_tokens": special})
        sent = await self.sender.send(server, Request("/tokenize", body, label), seconds=30)
        return failed(sent) or protocol.read_tokens(self._received(sent))

    async def count(
        self, server: str, messages: Sequence[Mapping[str, str]], *, label: Label = "internal", priority: int = 0, seconds: float = 10
    ) -> int | Fault:
        """How many tokens a chat is, with the server's own template and tokenizer (vLLM's `/tokenize`)."""
        model = self.sender.config.servers[server].model
        body = msgspec.json.encode({"model": model, "messages": list(messages), "add_generation_prompt": True})
        sent = await self.sender.send(server, Request("/tokenize", body, label, turn=Turn(priority=priority)), seconds=seconds)
        if (fault := failed(sent)) is not None:
            return fault
        tokens = protocol.read_tokens(self._received(sent))
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
        return failed(sent) or metrics.adapters(self._received(sent), self.sender.config.servers[server].model)

    async def load(self, server: str) -> metrics.Load | Fault:
        """A reading of vLLM's `/metrics`."""
        sent = await self.sender.send(server, Request("/metrics"), seconds=10)
        return failed(sent) or metrics.read(self._received(sent).decode("utf-8", "replace"))

    async def version(self, server: str) -> Any | Fault:
        """What vLLM's `/version` says."""
        sent = await self.sender.send(server, Request("/version"), seconds=10)
        if (fault := failed(sent)) is not None:
            return fault
        try:
            return msgspec.json.decode(self._received(sent))
        except msgspec.MsgspecError as error:
            return Fault("F209", f"/version is no JSON: {error}", "check `endpoint:` of the fleet file")

    def _received(self, sent: Sent) -> bytes:
        assert isinstance(sent.result, Answer)
        return sent.result.received


def _told(sent: Sent, answer: Answer, result: Completion | Fault) -> Completion | Fault:
    """What was read of an answer, with what it took to get it."""
    if isinstance(result, Fault):
        return replace(result, sent=answer.sent, received=answer.received)
    usage = msgspec.structs.replace(result.usage, seconds=sent.seconds, resends=sent.resends)
    return msgspec.structs.replace(result, usage=usage)

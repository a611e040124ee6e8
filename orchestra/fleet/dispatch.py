"""The fleet behind the `Workers` door: a call to an agent becomes a request to the server that is best for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import msgspec

from orchestra.agent import output
from orchestra.agent.card import Card
from orchestra.agent.prompt import Constraining, Prompt, render
from orchestra.clock import SystemClock
from orchestra.doors import Call, Chunk, Clock, Done, Refused, Reply
from orchestra.errors import FleetError, InputError
from orchestra.events import NOTHING, Usage
from orchestra.fleet.adapters import Residency, check_slots
from orchestra.fleet.addresses import LocalAddresses, Mode
from orchestra.fleet.client import Client, OnText
from orchestra.fleet.config import Endpoint, FleetConfig, LocalServer, nearest
from orchestra.fleet.control import Supervision
from orchestra.fleet.progress import Report, silent
from orchestra.fleet.protocol import Chat, Completion
from orchestra.fleet.send import Sender
from orchestra.fleet.weights import Pantry
from orchestra.fleet.wire import Fault, Wire
from orchestra.values.labels import may_go

BEAT = 30.0
"""Seconds between heartbeats to the supervisor, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a fleet is used."""

    stream: bool = False
    """Whether texts come in chunks while they are written. They are unverified then."""
    constraint: Constraining = "evidence"
    """How hard outputs are held, where the server can."""
    tenant: str = ""
    """Keeps the prefix cache of one tenant from the others (vLLM's `cache_salt`)."""


class Fleet:
    """Servers, local and remote, behind the `Workers` door. `Fleet.open` makes one."""

    def __init__(
        self, sender: Sender, addresses: LocalAddresses, cards: Mapping[str, Card], clock: Clock, report: Report, options: Options
    ) -> None:
        self.config = sender.config
        self.client = Client(sender)
        self.cards = cards
        self.options = options
        self._sender, self._addresses, self._report = sender, addresses, report
        self._clock = clock
        self._adapters = Residency(self.client)
        self._starting: asyncio.Task[None] | None = None
        addresses.on_move = self._adapters.forget

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        config: FleetConfig,
        *,
        cards: Mapping[str, Card],
        mode: Mode = "start",
        progress: Report | None = None,
        clock: Clock | None = None,
        pantry: Pantry | None = None,
        options: Options = Options(),
    ) -> AsyncIterator[Fleet]:
        """A fleet for these cards. Nothing is started before the first call, or `ready()`.

        Leaving it closes its connections; the supervisor stays, and ends by itself when nobody wants it. Raises `InputError`
        F102 where a server has too few slots for the cards' adapters.
        """
        check_slots(config, cards.values())
        clock, pantry = clock or SystemClock(), pantry or Pantry.of()
        addresses = LocalAddresses(config, Supervision(config, pantry.folders), pantry, mode, clock)
        async with Wire(config.limits) as wire:
            fleet = cls(Sender(config, wire, addresses, clock), addresses, cards, clock, progress or silent, options)
            beat = asyncio.create_task(addresses.beat(min(BEAT, config.idle_stop / 3)))
            try:
                yield fleet
            finally:
                await _ended(beat, fleet._starting)

    async def ready(self) -> None:
        """Brings the local servers up, once, however many ask. Raises `FleetError`; the next call tries again."""
        task = self._starting
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            task = self._starting = asyncio.create_task(self._addresses.ready(self._report))
        if not task.done():
            await asyncio.shield(task)

    async def status(self) -> dict[str, Any]:
        """What `orchestra fleet status --json` prints: the supervisor's word on local servers, our own on endpoints."""
        local = await self._addresses.supervision.ask("status") if self.config.local and self._addresses.mode != "none" else None
        return {"running": local is not None, **(local or {"fleet": self.config.name, "servers": []}), "lines": self._lines()}

    def _lines(self) -> list[dict[str, Any]]:
        return [
            {
                "name": name,
                "in_flight": line.gate.inside,
                "waiting": line.gate.waiting,
                "limit": int(line.gate.limit),
                "breaker": line.breaker.state,
            }
            for name, line in self._sender.lines.items()
        ]

    async def run(self, call: Call) -> AsyncGenerator[Reply, None]:
        """Does one call to an agent whose kind is `model`."""
        card = self.cards.get(call.name)
        if card is None or card.kind != "model":
            yield _refused(Fault("F201", f"the fleet has no agent {call.name!r}{nearest(call.name, self.cards)}", retryable=False))
            return
        if not may_go(call.label, card.label):
            reason = f"data labelled {call.label!r} must not be seen by {card.name!r}, which is cleared for {card.label!r}"
            yield _refused(Fault("F202", reason, f"use another agent, or change the `label:` of {card.name}", retryable=False))
            return
        try:
            await self.ready()
            if not self.options.stream:
                yield await self._ask(call, card, None)
                return
        except (FleetError, InputError) as error:
            yield Refused(code=error.code, reason=error.message, hint=error.hint)
            return
        async with aclosing(self._streamed(call, card)) as replies:
            async for reply in replies:
                yield reply

    async def _streamed(self, call: Call, card: Card) -> AsyncGenerator[Reply, None]:
        pieces: asyncio.Queue[str | None] = asyncio.Queue()
        task = asyncio.create_task(self._ask(call, card, pieces.put_nowait))
        task.add_done_callback(lambda _: pieces.put_nowait(None))
        try:
            while (text := await pieces.get()) is not None:
                yield Chunk(text)
            try:
                yield task.result()
            except InputError as error:
                yield Refused(code=error.code, reason=error.message, hint=error.hint)
        finally:
            await _ended(task)

    async def _ask(self, call: Call, card: Card, on_text: OnText | None) -> Done | Refused:
        """Tries the servers of the card's model in order; the next one only where no model has seen the request."""
        began = self._clock.monotonic()
        seconds = self.config.limits.request_seconds if call.timeout is None else call.timeout
        if call.escalate:
            if self.config.escalate is None:
                hint = "write `escalate: NAME` into the fleet file, with a larger model under `models:`"
                return _refused(Fault("F220", f"the fleet {self.config.name!r} has no larger model", hint, retryable=False))
            # An adapter belongs to the model that it was trained on.
            card = card.model_copy(update={"model": self.config.escalate, "adapter": None})
        names = self.config.serving(card.model)
        if not names:
            hint = f"add it under `models:` of the fleet file{nearest(card.model, self.config.models)}"
            return _refused(Fault("F201", f"the fleet {self.config.name!r} has no model {card.model!r}", hint, retryable=False))
        cleared = [name for name in names if may_go(call.label, self.config.servers[name].label)]
        if not cleared:
            reason = f"data labelled {call.label!r} may go to no server of the model {card.model!r}"
            return _refused(
                Fault("F202", reason, "change the `label:` of a server in the fleet file, or use another fleet", retryable=False)
            )
        tried = 0.0
        for name in sorted(cleared, key=lambda name: self._cost(name, card)):
            result = await self._request(name, call, card, seconds - tried, on_text)
            tried = self._clock.monotonic() - began
            if isinstance(result, Completion) or result.seen or not result.retryable or tried >= seconds:
                break
        if isinstance(result, Fault):
            if result.code == "F205":
                await self._addresses.suspect(name)
            return _refused(result, name, tried)
        return _read(card, result, name)

    def _cost(self, name: str, card: Card) -> tuple[bool, bool, int]:
        """Least first: a server that answers, that has the adapter, that has least to do."""
        line = self._sender.lines[name]
        return line.breaker.state == "open", not self._adapters.holds(name, card), line.load

    async def _request(self, name: str, call: Call, card: Card, seconds: float, on_text: OnText | None) -> Completion | Fault:
        target = self.config.servers[name]
        chat = self._chat(
            render(card, call.inputs, evidence=call.evidence, feedback=call.feedback, constraint=self._held(target)), call, target
        )
        deadline = self._clock.monotonic() + seconds
        for again in (False, True):
            model = await self._adapters.ensure(name, card, self.config.servers)
            if isinstance(model, Fault):
                return model
            left = deadline - self._clock.monotonic()
            result = await self.client.chat(name, chat, model=model, label=call.label, seconds=left, on_text=on_text)
            if again or not (isinstance(result, Fault) and result.code == "F212" and model):
                break
            self._adapters.forget(name)  # the server has lost it, by a restart that we did not notice
        return result

    def _held(self, target: LocalServer | Endpoint) -> Constraining:
        """Grammars over the evidence need vLLM with llguidance; elsewhere the output's type alone holds it."""
        wanted = self.options.constraint
        return "schema" if wanted == "evidence" and target.structured_outputs != "guidance" else wanted

    def _chat(self, prompt: Prompt, call: Call, target: LocalServer | Endpoint) -> Chat:
        held = prompt.constraint
        most = prompt.max_output if call.max_output is None else min(call.max_output, prompt.max_output)
        ranked = isinstance(target, LocalServer) and target.scheduling == "priority"
        return Chat(
            messages=[{"role": message.role, "content": message.content} for message in prompt.messages],
            max_output=most,
            sampling=prompt.sampling.model_dump(exclude_none=True),
            stop=prompt.stop,
            constraint={held.kind: held.value} if held else None,
            schema=prompt.response_schema if held else None,
            priority=call.priority if ranked else None,
            cache_salt=self.options.tenant,
            stream=self.options.stream,
        )


async def _ended(*tasks: asyncio.Task[Any] | None) -> None:
    """Cancels tasks and waits until they are over; what they raise then is nobody's concern."""
    running = {task for task in tasks if task is not None}
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)


def _refused(fault: Fault, server: str = "", seconds: float = 0.0) -> Refused:
    usage = Usage(calls=1, seconds=seconds) if fault.sent else NOTHING
    return Refused(
        code=fault.code,
        reason=fault.reason,
        hint=fault.hint,
        retryable=fault.retryable,
        usage=usage,
        server=server,
        sent=fault.sent,
        received=fault.received,
    )


def _read(card: Card, found: Completion, server: str) -> Done | Refused:
    """The value of what a model wrote; a text of another type is refused, and another attempt may do better."""
    parsed = output.parse(card, found.text, finish=found.finish)
    done = Done(value=None, usage=found.usage, server=server, model=found.model, sent=found.sent, received=found.received)
    if isinstance(parsed, output.Parsed):
        return msgspec.structs.replace(done, value=parsed.value)
    return Refused(
        code=parsed.code,
        reason=parsed.reason,
        hint=parsed.hint,
        retryable=True,
        usage=done.usage,
        server=server,
        model=done.model,
        sent=done.sent,
        received=done.received,
    )

"""The fleet behind the `Workers` door: a call to an agent becomes a request to the server that is best for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from math import inf
from typing import Any

import msgspec

from orchestra.agents.card import Card
from orchestra.agents.output_parser import Parsed, Reader
from orchestra.agents.prompt import Constraining, Prompt
from orchestra.core.clock import SystemClock
from orchestra.core.errors import FleetError, InputError
from orchestra.core.events import NOTHING, Usage
from orchestra.core.protocols import Call, Chunk, Clock, Done, Measure, Refused, Reply
from orchestra.fleet.adapters import Residency, check_slots
from orchestra.fleet.base_models import Bases
from orchestra.fleet.call_estimates import Gauge
from orchestra.fleet.card_versions import current
from orchestra.fleet.config import Endpoint, FleetConfig, LocalServer
from orchestra.fleet.config_errors import meant
from orchestra.fleet.http.addresses import LocalAddresses, Mode
from orchestra.fleet.http.client import Wire
from orchestra.fleet.http.model_server import Client, OnText
from orchestra.fleet.http.openai_protocol import Chat, Completion
from orchestra.fleet.prefix_cache import Prefix, prefix
from orchestra.fleet.progress import Report, silent
from orchestra.fleet.readiness import Readiness, within
from orchestra.fleet.request_errors import Fault, traits
from orchestra.fleet.scheduling import Turn
from orchestra.fleet.sender import Deadline, Sender
from orchestra.fleet.server_selection import Choice, choose, held
from orchestra.fleet.status import FleetStatus, Heard, status
from orchestra.fleet.supervisor.client import Supervision
from orchestra.fleet.vllm_metrics import Load
from orchestra.fleet.weights.weights import Pantry

WARM = 0.7
"""The temperature of samples of an agent whose own is 0: that of self-consistency (Wang et al. 2022, https://arxiv.org/abs/2203.11171)."""
PROBE = 5.0
"""Seconds that an endpoint may take to say which models it has."""
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

    def __init__(self, sender: Sender, addresses: LocalAddresses, gauge: Gauge, clock: Clock, report: Report, options: Options) -> None:
        self.config = sender.config
        self.client = Client(sender)
        self.cards = gauge.cards
        self.options = options
        self._sender, self._addresses, self._report = sender, addresses, report
        self._clock, self._gauge = clock, gauge
        self._adapters, self._bases = Residency(self.client, gauge.pantry, addresses.spare_slots), Bases()
        self._looks: dict[str, tuple[float, Fault | None]] = {}
        """When an endpoint was last looked for, and what was found."""
        self._readiness = Readiness(sender.config, self._bring_up)
        addresses.on_move = self._adapters.forget

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        config: FleetConfig,
        *,
        cards: Mapping[str, Card],
        kept: Mapping[str, Card] | None = None,
        mode: Mode = "start",
        progress: Report | None = None,
        clock: Clock | None = None,
        pantry: Pantry | None = None,
        options: Options = Options(),
    ) -> AsyncIterator[Fleet]:
        """A fleet for these cards by name, and for those kept by digest. Nothing is started before the first call, or `ready()`.

        Leaving it closes its connections; the supervisor stays, and ends by itself when nobody wants it. Raises `InputError`
        F102 where a server has too few slots for the cards' adapters.
        """
        check_slots(config, cards.values())
        clock, pantry = clock or SystemClock(), pantry or Pantry.of()
        addresses = LocalAddresses(config, Supervision(config, pantry.folders), pantry, mode, clock)
        known = {} if kept is None else kept  # an empty one too is the caller's, and is filled later
        gauge = Gauge(config=config, cards=cards, kept=known, pantry=pantry, constraint=options.constraint, tenant=options.tenant)
        async with Wire(config.limits) as wire:
            report = progress or silent
            fleet = cls(Sender(config, wire, addresses, clock, report), addresses, gauge, clock, report, options)
            beat = asyncio.create_task(addresses.beat(min(BEAT, config.idle_stop / 3)))
            try:
                yield fleet
            finally:
                await _ended(beat, *fleet._readiness.starts)

    async def ready(self, models: Iterable[str] | None = None) -> None:
        """Brings local servers up, once, however many ask: all of them, or for each of some models one that answers for it, at least.

        Raises `FleetError`; the next call tries again.
        """
        for names in map(self.config.serving, models) if models is not None else ((name,) for name in self.config.local):
            await self._readiness.bring(names)

    async def reach(self, model: str) -> None:
        """Looks whether one of a model's servers is there, and would listen. Raises `FleetError` where none is."""
        fault: Fault | None = Fault.unseen("F201", f"the fleet {self.config.name!r} has no model {model!r}", "orchestra fleet status")
        for name in self.config.serving(model):
            if (fault := await self._away(name)) is None:
                return
        if fault is not None:
            raise FleetError(fault.code, fault.reason, hint=fault.hint)

    async def _away(self, name: str) -> Fault | None:
        """Why a server cannot be had now; None where it can. What was found holds for as long as a look may take."""
        target, now = self.config.servers[name], self._clock.monotonic
        if not isinstance(target, Endpoint):
            root = await self._addresses.root(name, 0.0)
            return root if isinstance(root, Fault) else None
        at, fault = self._looks.get(name, (-inf, None))
        if at + PROBE <= now():
            fault = await self._sender.probe(name, target, PROBE)
            self._looks[name] = now(), fault
        return fault

    async def _bring_up(self, name: str) -> None:
        target = self.config.servers[name]
        if isinstance(target, Endpoint):
            await self._sender.appear(name, target, target.starts_within or 0.0)
            return
        await self._addresses.ready(name, self._report)
        if self.config.order == "programs":
            load = await self.client.load(name)
            if isinstance(load, Load) and load.cache_tokens:
                self._sender.lines[name].gate.order.learn(load.cache_tokens)

    async def status(self) -> dict[str, Any]:
        """What `orchestra fleet status --json` prints: the supervisor's word on local servers, our own on endpoints."""
        local = await self._addresses.supervision.status() if self.config.local and self._addresses.mode != "none" else None
        told = msgspec.to_builtins(local) if local else {"fleet": self.config.name, "servers": []}
        return {"running": local is not None, **told, "lines": self._lines()}

    async def health(self, *, probe: bool = False) -> FleetStatus:
        """What is known of all servers; with `probe` each endpoint is asked for its models, for at most five seconds."""
        supervisor = silent = None
        if self.config.local and self._addresses.mode != "none":
            try:
                supervisor = await self._addresses.supervision.status()
            except FleetError as error:
                silent = Fault.of(error)
        ends = {name: end for name, end in self.config.servers.items() if isinstance(end, Endpoint)} if probe else {}
        asked = dict(zip(ends, await asyncio.gather(*(self._sender.probe(*end, PROBE) for end in ends.items())), strict=True))
        heard = Heard(lines=self._sender.lines, supervisor=supervisor, silent=silent, asked=asked)
        return status(self.config, heard, self._addresses.mode, self._clock.now(), self._clock.monotonic())

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
        """Does one call to an agent whose kind is `model`; with `Options.stream`, and where the call is read live, its text comes in
        chunks."""
        choice = self._choice(call)
        if isinstance(choice, Fault) or not (self.options.stream or call.live):
            yield await self.do(call)
            return
        try:
            call, choice = await self._readiness.reached(call, choice)
        except FleetError as error:
            yield _unready(error)
            return
        async with aclosing(self._streamed(call, choice)) as replies:
            async for reply in replies:
                yield reply

    async def do(self, call: Call) -> Done | Refused:
        """Does one call to an agent whose kind is `model`, without chunks."""
        choice = self._choice(call)
        if isinstance(choice, Fault):
            return _refused(choice)
        try:
            call, choice = await self._readiness.reached(call, choice)
            return await self._ask(call, choice, None)
        except FleetError as error:
            return _unready(error)
        except InputError as error:
            return Refused(code=error.code, reason=error.message, hint=error.hint)

    def measure(self, call: Call) -> Measure:
        """What a call may cost, and its memo key."""
        return self._gauge.measure(call)

    async def count(self, call: Call) -> int | None:
        """The tokens of a call's prompt, as the vLLM that would be asked first counts them; None where none can."""
        choice = self._choice(call)
        if isinstance(choice, Fault):
            return None
        try:
            call, choice = await self._readiness.reached(call, choice)
            prompt = self._rendered(call, choice.card, "none")
        except (FleetError, InputError):
            return None
        names = self._ordered(choice.servers, choice.card, call)
        name = next((name for name in names if self.config.servers[name].dialect == "vllm"), None)
        found = None if name is None else await self.client.count(name, _messages(prompt), label=call.label, priority=call.priority)
        return found if isinstance(found, int) else None

    async def load(self, card: Card) -> list[str]:
        """Loads a card's adapter into the local servers that are up; gives the names of those that have it."""
        wanted = [name for name in self.config.serving(card.model) if isinstance(self.config.servers[name], LocalServer)]
        try:
            names = await self._readiness.bring(wanted)
        except FleetError:
            return []
        loaded = [await self._named(name, card, once=False) for name in names]
        return [name for name, found in zip(names, loaded, strict=True) if not isinstance(found, Fault) and (found or card.adapter is None)]

    def _choice(self, call: Call) -> Choice | Fault:
        try:
            card = current(call, self.cards, self._gauge.kept)
        except InputError as error:
            return Fault.of(error)
        if card is None or card.kind != "model":
            return Fault.unseen("F201", f"the fleet has no agent {call.name!r}{meant(call.name, self.cards)}")
        return choose(self.config, call, card)

    async def _streamed(self, call: Call, choice: Choice) -> AsyncGenerator[Reply, None]:
        pieces: asyncio.Queue[str | None] = asyncio.Queue()
        task = asyncio.create_task(self._ask(call, choice, pieces.put_nowait))
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

    async def _ask(self, call: Call, choice: Choice, on_text: OnText | None) -> Done | Refused:
        began = self._clock.monotonic()
        if call.timeout is None:
            deadline = Deadline(self._clock, self.config.limits.request_seconds)
        else:
            deadline = Deadline(self._clock, within(call.timeout), total=True)
        name, result = await self._asked(call, choice, deadline, on_text)
        tried = self._clock.monotonic() - began
        if isinstance(result, Fault):
            if result.code == "F205" and not result.hurried:
                await self._addresses.suspect(name)
            return _refused(result, name, self._spent(result, call, name, tried))
        card = choice.card
        adapted = card.adapter is None or self._bases.adapted(card, self.config.servers[name])
        reader = self._gauge.cast.of(card).reader
        priced = msgspec.structs.replace(result, usage=_priced(result.usage, self.config.servers[name]))
        return _read(reader, priced, name, call.inputs, adapted)

    async def _asked(self, call: Call, choice: Choice, deadline: Deadline, on_text: OnText | None) -> tuple[str, Completion | Fault]:
        """The answer of the best server of the card's model, and its name; of another one only where no model has seen the request.

        Where there are several, each is asked once, then again after a pause: one that is busy or away keeps nobody from the others.
        """
        now, left, once = self._clock.monotonic, choice.servers, len(choice.servers) > 1
        patient = now() + self.config.patience  # with those of ours that restart
        told: tuple[str, Fault] | None = None
        tries = sends = 0
        again: dict[str, float] = {}
        """When each server may be asked again."""
        while True:
            pauses: dict[str, float] = {}
            for name in self._ordered(left, choice.card, call):
                wait = max(again.get(name, 0.0), self._sender.lines[name].busy_until) - now()
                if tries and wait > 0:
                    pauses[name] = wait
                    continue
                result = await self._request(name, call, choice.card, deadline, on_text, once)
                sends += not (isinstance(result, Fault) and result.code == "F216")  # then there was no address to send it to
                if isinstance(result, Completion) or result.seen or result.traits.of_the_call or deadline.left <= 0:
                    return name, _counted(result, sends)
                if told is None or result.retryable or not told[1].retryable:
                    told = name, result
                if not once or (result.code == "F216" and now() >= patient):
                    continue
                if (pause := self._sender.pause(name, result, tries)) is not None:
                    pauses[name], again[name] = pause, now() + pause
            left, tries = tuple(pauses), tries + 1
            if told is not None and min(pauses.values(), default=inf) >= deadline.left:
                return told[0], _counted(told[1], sends)
            await self._clock.sleep(min(pauses.values()))

    def _spent(self, fault: Fault, call: Call, server: str, seconds: float) -> Usage:
        """What a call has cost that gave no answer: one that cannot be used was paid for as well.

        Of one that never came whole nobody knows, and it is taken to have cost what was reserved: budgets hold without prices too.
        """
        target = self.config.servers[server]
        usage = fault.usage or Usage(calls=1)
        if fault.usage is None and fault.traits.paid and fault.seen:
            most = self.measure(call)
            tokens = most.prompt_tokens, most.max_output
            usage = Usage(prompt_tokens=tokens[0], output_tokens=tokens[1], calls=1, assumed=sum(tokens))
        return msgspec.structs.replace(_priced(usage, target), seconds=seconds) if fault.sent else NOTHING

    def _rendered(self, call: Call, card: Card, constraint: Constraining) -> Prompt:
        script = self._gauge.cast.of(card).script
        return script.render(call.inputs, evidence=call.evidence, feedback=call.feedback, constraint=constraint)

    def _ordered(self, servers: Sequence[str], card: Card, call: Call) -> Sequence[str]:
        """Servers of a choice, the best one first."""
        if len(servers) == 1:
            return servers
        begins = self._prefix(_messages(self._rendered(call, card, "none")), card.adapter or "")
        return sorted(servers, key=lambda name: self._cost(name, card, begins))

    def _cost(self, name: str, card: Card, begins: Prefix) -> tuple[bool, float, bool, int]:
        """Least first: a server that answers, is not busy, has the adapter, has least to do, a block of a prompt counted as a request."""
        line = self._sender.lines[name]
        fresh = len(begins) - line.gate.order.known(begins)
        busy = max(0.0, line.busy_until - self._clock.monotonic())
        return line.breaker.state == "open", busy, not self._adapters.holds(name, card), line.load + fresh

    async def _request(
        self, name: str, call: Call, card: Card, deadline: Deadline, on_text: OnText | None, once: bool
    ) -> Completion | Fault:
        target = self.config.servers[name]
        chat = self._chat(self._rendered(call, card, held(target, self.options.constraint)), call, card, target, live=on_text is not None)
        for again in (False, True):
            model = await self._named(name, card, once=once)
            if isinstance(model, Fault):
                return model
            turn = Turn(call.run, call.priority, self._prefix(chat.messages, card.adapter or ""))
            result = await self.client.chat(
                name, chat, model=model, label=call.label, seconds=deadline, on_text=on_text, turn=turn, once=once
            )
            if again or not (isinstance(result, Fault) and result.code == "F212" and model):
                break
            self._adapters.forget(name)  # the server has lost it, by a restart that we did not notice
        return result

    async def _named(self, name: str, card: Card, *, once: bool) -> str | Fault:
        """The model's name for a card's requests to a server; empty for the server's own model."""
        target = self.config.servers[name]
        if self._bases.adapted(card, target):
            return await self._adapters.ensure(name, card, self.config.servers, once=once)
        return self._bases.refused(card, name, target) or ""

    def _prefix(self, messages: Sequence[Mapping[str, str]], adapter: str) -> Prefix:
        return prefix(messages, f"{adapter} {self.options.tenant}") if self.config.order == "programs" else ()

    def _chat(self, prompt: Prompt, call: Call, card: Card, target: LocalServer | Endpoint, *, live: bool) -> Chat:
        constraint = prompt.constraint
        script = self._gauge.cast.of(card).script
        most = prompt.max_output if call.max_output is None else min(call.max_output, prompt.max_output)
        told = script.one_token and not self.options.stream and target.dialect == "vllm"
        if told and constraint is not None and constraint.kind == "choice":
            most = 1  # docs/concepts/verification.md has what that saves
        ranked = isinstance(target, LocalServer) and target.scheduling == "priority"
        return Chat(
            messages=_messages(prompt),
            max_output=most,
            sampling=_sampling(script.sampling, call.sample),
            stop=prompt.stop,
            constraint={constraint.kind: constraint.value} if constraint else None,
            schema=prompt.response_schema if constraint else None,
            priority=call.priority if ranked else None,
            cache_salt=self.options.tenant,
            stream=self.options.stream or (live and not told),  # to read a call live changes nothing of it
            weighed=script.has_sureness,
            continues=prompt.continues,
        )


def _sampling(own: Mapping[str, Any], sample: int) -> Mapping[str, Any]:
    """How tokens are drawn: as the card says; for one of several samples at a temperature above 0, each with a seed of its own."""
    if not sample:
        return own
    return {**own, "temperature": own.get("temperature") or WARM, "seed": (own.get("seed") or 0) + sample}


def _messages(prompt: Prompt) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in prompt.messages]


def _counted(result: Completion | Fault, sends: int) -> Completion | Fault:
    """What came of a request that was sent so often to several servers; where there is one, its sender has counted."""
    if sends <= 1:
        return result
    if isinstance(result, Fault):
        return replace(result, reason=f"{result.reason}, sent {sends} times")
    return msgspec.structs.replace(result, usage=msgspec.structs.replace(result.usage, resends=sends - 1))


async def _ended(*tasks: asyncio.Task[Any]) -> None:
    """Cancels tasks and waits until they are over; what they raise then is nobody's concern."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _priced(usage: Usage, target: LocalServer | Endpoint) -> Usage:
    """What tokens have cost, in money too."""
    if isinstance(target, LocalServer) or target.price is None:
        return usage
    return msgspec.structs.replace(usage, money=target.price.of(usage))


def _unready(error: FleetError) -> Refused:
    """No server of the call came up; one that was only not up in time may be at the next attempt."""
    return Refused(code=error.code, reason=error.message, hint=error.hint, retryable=traits(error.code).later)


def _refused(fault: Fault, server: str = "", usage: Usage = NOTHING) -> Refused:
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


def _read(reader: Reader, found: Completion, server: str, inputs: Mapping[str, Any], adapted: bool) -> Done | Refused:
    """The value of what a model wrote; a text of another type is refused, and another attempt may do better."""
    parsed = reader.parse(found.text, found.finish, found.tokens, inputs, adapted=adapted)
    if isinstance(parsed, Parsed):
        return Done(
            value=parsed.value,
            usage=found.usage,
            server=server,
            model=found.model,
            sent=found.sent,
            received=found.received,
            confidence=parsed.confidence,
        )
    return Refused(
        code=parsed.code,
        reason=parsed.reason,
        hint=parsed.hint,
        retryable=True,
        usage=found.usage,
        server=server,
        model=found.model,
        sent=found.sent,
        received=found.received,
    )

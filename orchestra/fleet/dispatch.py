"""The fleet as an implementation of `Workers`: sends the call of an agent to the best server of its model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from math import inf
from typing import Any

import msgspec

from orchestra.agents.card import Card
from orchestra.agents.native_tools import NativeTools
from orchestra.agents.output_parser import OutputParser, ParsedOutput
from orchestra.agents.prompt import ConstraintMode, Prompt
from orchestra.agents.tool_prompt import FUNCTIONS
from orchestra.core.clock import SystemClock
from orchestra.core.errors import FleetError, InputError
from orchestra.core.events import NO_USAGE, Usage
from orchestra.core.protocols import CallError, CallEstimate, CallRequest, CallResult, Clock, TextCallback
from orchestra.fleet.adapters import AdapterManager, check_slots
from orchestra.fleet.call_estimates import CallEstimator
from orchestra.fleet.card_versions import resolve_card
from orchestra.fleet.config import Endpoint, FleetConfig, LocalServer
from orchestra.fleet.config_errors import suggestion
from orchestra.fleet.endpoints import OLLAMA_VERSION, identify_software, resolve_endpoint
from orchestra.fleet.http.addresses import LocalAddresses, SupervisorMode
from orchestra.fleet.http.client import HttpClient
from orchestra.fleet.http.model_server import ModelClient
from orchestra.fleet.http.openai_protocol import ChatRequest, Completion
from orchestra.fleet.prefix_cache import Prefix, prefix_hashes
from orchestra.fleet.progress import Progress, ProgressCallback, ignore_progress
from orchestra.fleet.readiness import ServerReadiness, fleet_timeout
from orchestra.fleet.request_errors import RequestError, error_policy
from orchestra.fleet.scheduling import QueueRequest
from orchestra.fleet.sender import Deadline, Sender
from orchestra.fleet.server_selection import (
    ServerChoice,
    calls_functions_natively,
    choose_servers,
    supported_constraint,
)
from orchestra.fleet.status import FleetObservations, FleetStatus, fleet_status
from orchestra.fleet.supervisor.client import SupervisorClient
from orchestra.fleet.vllm_metrics import ServerLoad
from orchestra.fleet.weights.weights import ModelStore

SAMPLE_TEMPERATURE = 0.7
"""The temperature of samples of an agent with temperature 0, as in self-consistency (Wang et al. 2022,
https://arxiv.org/abs/2203.11171).
"""
PROBE_TIMEOUT = 5.0
"""Seconds that an endpoint may take to list its models."""
HEARTBEAT_INTERVAL = 30.0
"""Seconds between heartbeats to the supervisor, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetOptions:
    """Options of a fleet."""

    constraint: ConstraintMode = "evidence"
    """The strictest constraint on outputs, if the server supports it."""
    tenant: str = ""
    """Separates the prefix caches of tenants (vLLM's `cache_salt`)."""


BROKEN_CONNECTION = ("F203", "F206", "F217")
"""Codes of requests whose server may have ended."""


class Fleet:
    """Local servers and endpoints as an implementation of `Workers`. Create it with `Fleet.open`."""

    def __init__(
        self,
        sender: Sender,
        addresses: LocalAddresses,
        estimator: CallEstimator,
        clock: Clock,
        progress: ProgressCallback,
        options: FleetOptions,
    ) -> None:
        self.config = sender.config
        self.client = ModelClient(sender)
        self.cards = estimator.cards
        self.options = options
        self._sender, self._addresses, self._progress = sender, addresses, progress
        self._clock, self._estimator = clock, estimator
        self._adapters, self._adapter_bases = (
            AdapterManager(self.client, estimator.model_store, addresses.spare_slots, clock, progress),
            estimator.adapter_bases,
        )
        self._without_functions: set[str] = set()
        """Servers that refuse requests with functions, and accept the same question without them."""
        self._probe_results: dict[str, tuple[float, RequestError | None]] = {}
        """Server to the time of the last probe of an endpoint, and its error."""
        self._readiness = ServerReadiness(sender.config, self._bring_up, addresses.is_running)
        addresses.on_address_change = self._adapters.forget

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        config: FleetConfig,
        *,
        cards: Mapping[str, Card],
        cards_by_digest: Mapping[str, Card] | None = None,
        mode: SupervisorMode = "start",
        progress: ProgressCallback | None = None,
        clock: Clock | None = None,
        model_store: ModelStore | None = None,
        options: FleetOptions = FleetOptions(),
    ) -> AsyncIterator[Fleet]:
        """Opens a fleet. No server starts before the first call or `wait_until_ready()`.

        Closing it closes its connections. The supervisor keeps running, and exits when it has no client.

        Args:
            config: The configuration of the fleet.
            cards: Cards by name.
            cards_by_digest: Older cards by digest. The mapping may be filled later.
            mode: Whether to start a supervisor, to require a running one, or to use endpoints only.
            progress: Called with the progress of starts and downloads.
            clock: The clock; the system's clock by default.
            model_store: The model store; by default that of the environment.
            options: Further options.

        Raises:
            InputError: F102, a server has too few slots for the adapters of the cards.
        """
        check_slots(config, cards.values())
        clock, model_store = clock or SystemClock(), model_store or ModelStore.from_environment()
        addresses = LocalAddresses(config, SupervisorClient(config, model_store.folders), model_store, mode, clock)
        # an empty mapping is kept too, because the caller fills it later
        stored_cards = {} if cards_by_digest is None else cards_by_digest
        estimator = CallEstimator(
            config=config,
            cards=cards,
            cards_by_digest=stored_cards,
            model_store=model_store,
            constraint=options.constraint,
            tenant=options.tenant,
        )
        async with HttpClient(config.limits) as client:
            report = progress or ignore_progress
            fleet = cls(Sender(config, client, addresses, clock, report), addresses, estimator, clock, report, options)
            beat = asyncio.create_task(addresses.send_heartbeats(min(HEARTBEAT_INTERVAL, config.idle_stop / 3)))
            try:
                yield fleet
            finally:
                await _cancel_tasks(beat, *fleet._readiness.start_tasks)

    async def wait_until_ready(self, models: Iterable[str] | None = None) -> None:
        """Starts all local servers, or at least one server of each of the given models. Concurrent calls start a server
        once.

        Raises:
            FleetError: No server came up. The next call tries again.
        """
        for names in (
            map(self.config.servers_for, models)
            if models is not None
            else ((name,) for name in self.config.local_servers)
        ):
            await self._readiness.ensure_up(names)

    async def install_weights(self, model: str) -> None:
        """Fetches missing weights of the local servers of a model, without a start. Raises `FleetError`."""
        for name in self.config.servers_for(model):
            if name in self.config.local_servers:
                await self._addresses.install_weights(name, self._progress)

    async def check_reachable(self, model: str) -> None:
        """Checks that a server of the model can be reached. Raises `FleetError` if none can."""
        fault: RequestError | None = RequestError.not_reached(
            "F201", f"the fleet {self.config.name!r} has no model {model!r}", "orchestra fleet status"
        )
        for name in self.config.servers_for(model):
            if (fault := await self._unavailable_error(name)) is None:
                return
        if fault is not None:
            raise FleetError(fault.code, fault.reason, hint=fault.hint)

    async def _unavailable_error(self, name: str) -> RequestError | None:
        """Returns why a server is unavailable now, or None.

        The result of a probe is used for `PROBE_TIMEOUT` seconds.
        """
        target, now = self.config.servers[name], self._clock.monotonic
        if not isinstance(target, Endpoint):
            if self.config.start == "on_demand":
                try:
                    await self._readiness.ensure_up((name,))
                except FleetError as error:
                    return RequestError.from_error(error)
            root = await self._addresses.url(name, 0.0)
            return root if isinstance(root, RequestError) else None
        at, fault = self._probe_results.get(name, (-inf, None))
        if at + PROBE_TIMEOUT <= now():
            fault = await self._sender.probe(name, target, PROBE_TIMEOUT)
            self._probe_results[name] = now(), fault
        return fault

    async def _bring_up(self, name: str) -> None:
        target = self.config.servers[name]
        if isinstance(target, Endpoint):
            await self._sender.wait_for_endpoint(name, target, target.starts_within or 0.0)
            if not target.is_resolved:
                await self._resolve_endpoint(name, target)
            return
        await self._addresses.bring_up(name, self._progress)
        if self.config.order == "programs":
            load = await self.client.read_load(name)
            if isinstance(load, ServerLoad) and load.cache_tokens:
                self._sender.states[name].gate.scheduler.set_cache_size(load.cache_tokens)

    async def _resolve_endpoint(self, name: str, target: Endpoint) -> None:
        """Asks an endpoint with `auto` what it is. Raises `FleetError` if it does not answer or lacks the model."""
        models = await self.client.list_models(name)
        if isinstance(models, RequestError):
            raise FleetError(models.code, models.reason, hint=models.hint)
        software = identify_software(models)
        if not software and await self.client.answers(name, OLLAMA_VERSION):
            software = "Ollama"
        endpoint = resolve_endpoint(target, models, software)
        if isinstance(endpoint, RequestError):
            raise FleetError(endpoint.code, endpoint.reason, hint=endpoint.hint)
        self._sender.targets[name] = endpoint
        self._progress(Progress("ready", f"{name}: {endpoint.model} at {target.endpoint}, {software or 'OpenAI API'}"))

    async def status(self) -> dict[str, Any]:
        """Returns the JSON of `orchestra fleet status --json`: local servers as the supervisor reports them, and the
        requests of this process.
        """
        local = (
            await self._addresses.supervisor.status()
            if self.config.local_servers and self._addresses.mode != "none"
            else None
        )
        report = msgspec.to_builtins(local) if local else {"fleet": self.config.name, "servers": []}
        return {"running": local is not None, **report, "requests": self._server_states()}

    async def health(self, *, probe: bool = False) -> FleetStatus:
        """Returns the status of all servers.

        With `probe` each endpoint is queried for its models, within five seconds. That shows the model of an endpoint
        with `auto`.
        """
        supervisor = supervisor_error = None
        if self.config.local_servers and self._addresses.mode != "none":
            try:
                supervisor = await self._addresses.supervisor.status()
            except FleetError as error:
                supervisor_error = RequestError.from_error(error)
        targets = self._sender.targets
        endpoints = {name: end for name, end in targets.items() if isinstance(end, Endpoint)} if probe else {}
        faults = await asyncio.gather(*(self._probe(*endpoint) for endpoint in endpoints.items()))
        observations = FleetObservations(
            targets=targets,
            states=self._sender.states,
            supervisor=supervisor,
            supervisor_error=supervisor_error,
            probed=dict(zip(endpoints, faults, strict=True)),
        )
        return fleet_status(self.config, observations, self._addresses.mode, self._clock.now(), self._clock.monotonic())

    async def _probe(self, name: str, target: Endpoint) -> RequestError | None:
        """Returns why an endpoint cannot serve, or None. An endpoint with `auto` is asked what it is. All requests
        together take `PROBE_TIMEOUT` at most.
        """
        try:
            async with asyncio.timeout(PROBE_TIMEOUT):
                fault = await self._sender.probe(name, target, PROBE_TIMEOUT)
                if fault is None and not target.is_resolved:
                    await self._readiness.ensure_up((name,))
                return fault
        except FleetError as error:
            return RequestError.from_error(error)
        except TimeoutError:
            reason = f"{name} at {target.endpoint} did not answer within {PROBE_TIMEOUT:g} s"
            return RequestError("F205", reason, "orchestra doctor", reached_model=False)

    def _server_states(self) -> list[dict[str, Any]]:
        return [
            {
                "name": name,
                "in_flight": server_state.gate.in_flight,
                "waiting": server_state.gate.waiting,
                "limit": int(server_state.gate.limit),
                "breaker": server_state.breaker.state,
            }
            for name, server_state in self._sender.states.items()
        ]

    async def call(self, call: CallRequest, on_text: TextCallback | None = None) -> CallResult | CallError:
        """Runs a call to an agent of kind `model`. The response is streamed only with `on_text`."""
        choice = self._choose_servers(call)
        if isinstance(choice, RequestError):
            return _to_call_error(choice)
        try:
            call, choice = await self._readiness.wait_for_servers(call, choice)
            return await self._call_servers(call, choice, on_text)
        except FleetError as error:
            return _not_ready_error(error)
        except InputError as error:
            return CallError(code=error.code, reason=error.message, hint=error.hint)

    def estimate(self, call: CallRequest) -> CallEstimate:
        """Returns the bounds of a call's cost, and its memo key."""
        return self._estimator.estimate(call)

    async def count_tokens(self, call: CallRequest) -> int | None:
        """Returns the prompt tokens of a call as the first vLLM server of the choice counts them; None without one."""
        choice = self._choose_servers(call)
        if isinstance(choice, RequestError):
            return None
        try:
            call, choice = await self._readiness.wait_for_servers(call, choice)
            prompt = self._render(call, choice.card, "none")
        except (FleetError, InputError):
            return None
        names = self._rank_servers(choice.servers, choice.card, call)
        name = next((name for name in names if self._sender.targets[name].dialect == "vllm"), None)
        tokens = (
            None
            if name is None
            else await self.client.count_tokens(name, _messages(prompt), label=call.label, priority=call.priority)
        )
        return tokens if isinstance(tokens, int) else None

    async def load_adapter(self, card: Card) -> list[str]:
        """Loads a card's adapter into the running local servers, and returns the names of the servers that have it."""
        servers = [
            name for name in self.config.servers_for(card.model) if isinstance(self.config.servers[name], LocalServer)
        ]
        try:
            names = await self._readiness.ensure_up(servers)
        except FleetError:
            return []
        model_ids = [await self._resolve_model(name, card, once=False) for name in names]
        return [
            name
            for name, model in zip(names, model_ids, strict=True)
            if not isinstance(model, RequestError) and (model or card.adapter is None)
        ]

    def _choose_servers(self, call: CallRequest) -> ServerChoice | RequestError:
        try:
            card = resolve_card(call, self.cards, self._estimator.cards_by_digest)
        except InputError as error:
            return RequestError.from_error(error)
        if card is None or card.kind != "model":
            return RequestError.not_reached(
                "F201", f"the fleet has no agent {call.name!r}{suggestion(call.name, self.cards)}"
            )
        return choose_servers(self.config, call, card)

    async def _call_servers(
        self, call: CallRequest, choice: ServerChoice, on_text: TextCallback | None
    ) -> CallResult | CallError:
        start_time = self._clock.monotonic()
        if call.timeout is None:
            deadline = Deadline(self._clock, self.config.limits.request_seconds)
        else:
            deadline = Deadline(self._clock, fleet_timeout(call.timeout), total=True)
        name, result = await self._send_to_best(call, choice, deadline, on_text)
        elapsed = self._clock.monotonic() - start_time
        if isinstance(result, RequestError):
            if result.code == "F205" and not result.timed_out:
                await self._addresses.report_stall(name)
            if (
                result.code in BROKEN_CONNECTION
                and (error := await self._addresses.end_error(name, start_time)) is not None
            ):
                result = replace(result, reason=f"{result.reason}; {error.code}: {error.message}", hint=error.hint)
            return _to_call_error(result, name, self._failure_usage(result, call, name, elapsed))
        card = choice.card
        is_adapted = card.adapter is None or bool(result.adapter)
        reader = self._estimator.card_cache.get(card).reader
        priced_result = msgspec.structs.replace(result, usage=_with_cost(result.usage, self.config.servers[name]))
        return _parse_reply(reader, priced_result, name, call.inputs, is_adapted)

    async def _send_to_best(
        self, call: CallRequest, choice: ServerChoice, deadline: Deadline, on_text: TextCallback | None
    ) -> tuple[str, Completion | RequestError]:
        """Sends a call to the best server and returns its name and the result.

        Another server gets the call only if no model has received it. With several servers each is tried once, then
        again after a pause, so a busy or unavailable server does not block the others.
        """
        now, remaining_servers, once = self._clock.monotonic, choice.servers, len(choice.servers) > 1
        patient = now() + self.config.patience  # for local servers that restart
        reported_error: tuple[str, RequestError] | None = None
        tries = sends = 0
        again: dict[str, float] = {}
        """Server to the earliest time of its next try."""
        while True:
            pauses: dict[str, float] = {}
            for name in self._rank_servers(remaining_servers, choice.card, call):
                wait = max(again.get(name, 0.0), self._sender.states[name].busy_until) - now()
                if tries and wait > 0:
                    pauses[name] = wait
                    continue
                result = await self._send_request(name, call, choice.card, deadline, on_text, once)
                # F216: the server has no address yet, so nothing was sent
                sends += not (isinstance(result, RequestError) and result.code == "F216")
                if (
                    isinstance(result, Completion)
                    or result.reached_model
                    or result.policy.caused_by_call
                    or deadline.remaining <= 0
                ):
                    return name, _with_resends(result, sends)
                if reported_error is None or result.retryable or not reported_error[1].retryable:
                    reported_error = name, result
                if not once or (result.code == "F216" and now() >= patient):
                    continue
                if (pause := self._sender.resend_delay(name, result, tries)) is not None:
                    pauses[name], again[name] = pause, now() + pause
            remaining_servers, tries = tuple(pauses), tries + 1
            if reported_error is not None and min(pauses.values(), default=inf) >= deadline.remaining:
                return reported_error[0], _with_resends(reported_error[1], sends)
            await self._clock.sleep(min(pauses.values()))

    def _failure_usage(self, fault: RequestError, call: CallRequest, server: str, seconds: float) -> Usage:
        """Returns the usage of a failed call. An unusable response is billed too.

        If the response is incomplete its usage is unknown, and the reserved amount is used, so that budgets hold
        without prices.
        """
        target = self.config.servers[server]
        usage = fault.usage or Usage(calls=1)
        if fault.usage is None and fault.policy.billable and fault.reached_model:
            estimate = self.estimate(call)
            tokens = estimate.prompt_tokens, estimate.max_output
            usage = Usage(prompt_tokens=tokens[0], output_tokens=tokens[1], calls=1, estimated_tokens=sum(tokens))
        return msgspec.structs.replace(_with_cost(usage, target), seconds=seconds) if fault.sent else NO_USAGE

    def _render(self, call: CallRequest, card: Card, constraint: ConstraintMode) -> Prompt:
        script = self._estimator.card_cache.get(card).prompt
        return script.render(call.inputs, evidence=call.evidence, feedback=call.feedback, constraint=constraint)

    def _rank_servers(self, servers: Sequence[str], card: Card, call: CallRequest) -> Sequence[str]:
        """Returns the servers of a choice, the best first."""
        if len(servers) == 1:
            return servers
        begins = self._prompt_prefix(_messages(self._render(call, card, "none")), card.adapter or "")
        return sorted(servers, key=lambda name: self._rank_key(name, card, begins))

    def _rank_key(self, name: str, card: Card, prompt_prefix: Prefix) -> tuple[bool, float, bool, bool, int]:
        """Returns the sort key of a server: it answers, is not busy, has the base of the adapter and the adapter, and
        has least to do. A prompt block counts as a request.
        """
        server_state = self._sender.states[name]
        fresh = len(prompt_prefix) - server_state.gate.scheduler.cached_blocks(prompt_prefix)
        busy = max(0.0, server_state.busy_until - self._clock.monotonic())
        return (
            server_state.breaker.state == "open",
            busy,
            card.adapter is not None and not self._adapter_bases.uses_adapter(card, self._sender.targets[name]),
            not self._adapters.is_loaded(name, card),
            server_state.load + fresh,
        )

    async def _send_request(
        self, name: str, call: CallRequest, card: Card, deadline: Deadline, on_text: TextCallback | None, once: bool
    ) -> Completion | RequestError:
        """Sends a call to a server, with native functions if it supports them."""
        live, target = on_text is not None, self._sender.targets[name]
        chat, tools = self._build_function_chat(name, call, card, live=live)
        if chat is not None and tools is not None:
            functions = chat
            result = await self._send_chat(name, lambda _: functions, call, card, deadline, on_text, once)
            if isinstance(result, Completion):
                text = tools.write_lines(result.tool_calls, result.text)
                return msgspec.structs.replace(result, text=text, tool_calls=())
            if not _may_refuse_functions(result) or deadline.remaining <= 0:
                return result
        prepared_card, constraint = (
            self._estimator.card_cache.get(card),
            supported_constraint(target, self.options.constraint),
        )

        def build(adapter: str) -> ChatRequest:
            script = prepared_card.prompt if adapter else prepared_card.untuned_prompt
            prompt = script.render(call.inputs, evidence=call.evidence, feedback=call.feedback, constraint=constraint)
            return self._build_chat(prompt, call, card, target, live=live)

        result = await self._send_chat(name, build, call, card, deadline, on_text, once)
        if chat is not None and isinstance(result, Completion) and name not in self._without_functions:
            self._without_functions.add(name)
            message = f"{name} refuses requests with `tools`: its model is asked to write calls as text"
            self._progress(Progress("ready", message))
        return result

    def _build_function_chat(
        self, name: str, call: CallRequest, card: Card, *, live: bool
    ) -> tuple[ChatRequest | None, NativeTools | None]:
        """Returns the request with native functions, and what may be called; None if the server is asked for lines."""
        target, script = self._sender.targets[name], self._estimator.card_cache.get(card).function_prompt
        tools = NativeTools.decode(call.inputs.get(FUNCTIONS)) if script is not None else None
        if (
            script is None
            or tools is None
            or name in self._without_functions
            or not calls_functions_natively(target, card, self._adapter_bases)
        ):
            return None, None
        prompt = script.render(call.inputs, evidence=call.evidence, feedback=call.feedback, constraint="none")
        chat = self._build_chat(prompt, call, card, target, live=live)
        return msgspec.structs.replace(chat, tools=tools.definitions()), tools

    async def _send_chat(
        self,
        name: str,
        build: Callable[[str], ChatRequest],
        call: CallRequest,
        card: Card,
        deadline: Deadline,
        on_text: TextCallback | None,
        once: bool,
    ) -> Completion | RequestError:
        """Sends a chat request under the model name of the card's adapter.

        `build` returns the request for an adapter, or for the server's own model if its argument is empty. It is called
        for each try, because the server may have lost the adapter, and its own model may need another prompt.
        """
        for again in (False, True):
            model = await self._resolve_model(name, card, once=once)
            if isinstance(model, RequestError):
                return model
            chat = build(model)
            queue_request = QueueRequest(
                call.run, call.priority, self._prompt_prefix(chat.messages, card.adapter or "")
            )
            result = await self.client.chat(
                name,
                chat,
                model=model,
                label=call.label,
                seconds=deadline,
                on_text=on_text,
                queue_request=queue_request,
                once=once,
            )
            if again or not (isinstance(result, RequestError) and result.code == "F212" and model):
                break
            self._adapters.forget(name)  # the server restarted unnoticed and lost the adapter
        return msgspec.structs.replace(result, adapter=model) if isinstance(result, Completion) else result

    async def _resolve_model(self, name: str, card: Card, *, once: bool) -> str | RequestError:
        """Returns the model name for a card's requests to a server; empty for the server's own model."""
        target = self._sender.targets[name]
        if self._adapter_bases.uses_adapter(card, target):
            return await self._adapters.ensure(name, card, target, once=once)
        if card.adapter is not None and isinstance(target, Endpoint):
            self._adapters.report_unlisted(name, card)
        return self._adapter_bases.base_mismatch(card, name, target) or ""

    def _prompt_prefix(self, messages: Sequence[Mapping[str, str]], adapter: str) -> Prefix:
        return prefix_hashes(messages, f"{adapter} {self.options.tenant}") if self.config.order == "programs" else ()

    def _build_chat(
        self, prompt: Prompt, call: CallRequest, card: Card, target: LocalServer | Endpoint, *, live: bool
    ) -> ChatRequest:
        constraint = prompt.constraint
        script = self._estimator.card_cache.get(card).prompt
        max_output = prompt.max_output if call.max_output is None else min(call.max_output, prompt.max_output)
        one_token = script.one_token and target.dialect == "vllm"
        if one_token and constraint is not None and constraint.kind == "choice":
            max_output = 1  # the savings are in docs/concepts/verification.md
        has_priority = isinstance(target, LocalServer) and target.scheduling == "priority"
        return ChatRequest(
            messages=_messages(prompt),
            max_output=max_output,
            sampling=_sampling_settings(script.sampling, call.sample),
            stop=prompt.stop,
            constraint={constraint.kind: constraint.value} if constraint else None,
            schema=prompt.response_schema if constraint else None,
            priority=call.priority if has_priority else None,
            cache_salt=self.options.tenant,
            stream=live and not one_token,  # streaming a call does not change its result
            logprobs=script.has_confidence,
            continue_last=prompt.continues,
        )


def _may_refuse_functions(fault: RequestError) -> bool:
    """Whether a server may have refused a request because of its functions.

    Ollama answers 400 for a model without a template for tools, vLLM 400 without `--enable-auto-tool-choice`,
    OpenRouter 404, and llama.cpp 500 without `--jinja`. Whether they were the reason is clear if the server accepts
    the question without them.
    """
    return (fault.code == "F207" and fault.status in (400, 422)) or (
        fault.status in (404, 500, 501) and "tool" in fault.reason.lower()
    )


def _sampling_settings(sampling: Mapping[str, Any], sample: int) -> Mapping[str, Any]:
    """Returns the card's sampling. Each of several samples has a temperature above 0 and a seed of its own."""
    if not sample:
        return sampling
    return {
        **sampling,
        "temperature": sampling.get("temperature") or SAMPLE_TEMPERATURE,
        "seed": (sampling.get("seed") or 0) + sample,
    }


def _messages(prompt: Prompt) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in prompt.messages]


def _with_resends(result: Completion | RequestError, sends: int) -> Completion | RequestError:
    """Returns the result with the number of resends in its error, if several servers were tried; a single sender has
    counted them.
    """
    if sends <= 1:
        return result
    if isinstance(result, RequestError):
        return replace(result, reason=f"{result.reason}, sent {sends} times")
    return msgspec.structs.replace(result, usage=msgspec.structs.replace(result.usage, resends=sends - 1))


async def _cancel_tasks(*tasks: asyncio.Task[Any]) -> None:
    """Cancels tasks and waits until they have ended. Their exceptions are ignored."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _with_cost(usage: Usage, target: LocalServer | Endpoint) -> Usage:
    """Returns the usage with its cost in money."""
    if isinstance(target, LocalServer) or target.price is None:
        return usage
    return msgspec.structs.replace(usage, money=target.price.cost(usage))


def _not_ready_error(error: FleetError) -> CallError:
    """Returns the error of a call none of whose servers came up. A timeout of the start is retryable."""
    return CallError(
        code=error.code, reason=error.message, hint=error.hint, retryable=error_policy(error.code).retry_later
    )


def _to_call_error(fault: RequestError, server: str = "", usage: Usage = NO_USAGE) -> CallError:
    return CallError(
        code=fault.code,
        reason=fault.reason,
        hint=fault.hint,
        retryable=fault.retryable,
        usage=usage,
        server=server,
        sent=fault.sent,
        received=fault.received,
    )


def _parse_reply(
    reader: OutputParser, completion: Completion, server: str, inputs: Mapping[str, Any], is_adapted: bool
) -> CallResult | CallError:
    """Parses a model's text. A text of another type becomes an error that another attempt may correct."""
    parsed_reply = reader.parse(
        completion.text, completion.finish_reason, completion.tokens, inputs, with_adapter=is_adapted
    )
    if isinstance(parsed_reply, ParsedOutput):
        return CallResult(
            value=parsed_reply.value,
            usage=completion.usage,
            server=server,
            model=completion.model,
            sent=completion.sent,
            received=completion.received,
            confidence=parsed_reply.confidence,
        )
    return CallError(
        code=parsed_reply.code,
        reason=parsed_reply.reason,
        hint=parsed_reply.hint,
        retryable=True,
        usage=completion.usage,
        server=server,
        model=completion.model,
        sent=completion.sent,
        received=completion.received,
    )

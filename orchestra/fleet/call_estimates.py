"""Estimates a call to a model without a request: bounds of its cost, and the memo key of its answer."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from orchestra.agents.card import Card
from orchestra.agents.native_tools import NativeTools
from orchestra.agents.output_parser import OutputParser
from orchestra.agents.prompt import ChatMessage, CompiledPrompt, ConstraintMode, Prompt
from orchestra.agents.tool_prompt import FUNCTIONS, accepts_functions, function_call_prompt
from orchestra.core.errors import InputError
from orchestra.core.protocols import NO_ESTIMATE, CallEstimate, CallRequest
from orchestra.fleet.adapters import AdapterBases
from orchestra.fleet.card_versions import MEMO_VERSION, resolve_card
from orchestra.fleet.config import TEMPLATE_TOKENS, Endpoint, FleetConfig, LocalServer
from orchestra.fleet.model_digests import ModelDigests
from orchestra.fleet.request_errors import RequestError
from orchestra.fleet.server_selection import (
    ServerChoice,
    calls_functions_natively,
    choose_servers,
    supported_constraint,
)
from orchestra.fleet.weights.weights import ModelStore
from orchestra.schema.strict_json import canonical, digest


class PreparedCard:
    """A card with its compiled prompt and the parser of its answers."""

    __slots__ = ("function_prompt", "prompt", "reader", "untuned_prompt")

    def __init__(self, card: Card) -> None:
        """Raises `InputError` A007 if a prompt of the card cannot be rendered, A004 if a file cannot be read."""
        self.prompt, self.reader = CompiledPrompt(card), OutputParser(card)
        self.function_prompt = (
            CompiledPrompt(card.model_copy(update={"template": function_call_prompt(card.template)}))
            if accepts_functions(card.input_schema)
            else None
        )
        """The prompt for a server with native function calling, of an agent with tools that is requested for a line."""
        untuned_card = card.untuned_card
        self.untuned_prompt = self.prompt if untuned_card is None else CompiledPrompt(untuned_card)
        """The prompt for a model without the card's adapter."""


class CardCache:
    """Compiled prompts and parsers of cards, created on demand."""

    __slots__ = ("_cards",)

    def __init__(self) -> None:
        self._cards: dict[str, PreparedCard] = {}

    def get(self, card: Card) -> PreparedCard:
        """Returns the prepared card. The key is the card's digest, so a copy with another model or adapter shares it.

        Raises:
            InputError: A007.
        """
        part = self._cards.get(card.digest)
        if part is None:
            part = self._cards[card.digest] = PreparedCard(card)
        return part


FUNCTION_TOKENS = 512
"""Tokens that a chat template adds to the functions of a request, at most: Qwen's takes about 120."""
MESSAGE_TOKENS = 16
"""Tokens that a chat template adds to a message, at most: ChatML takes 5, Llama 3 takes 6."""
CONSTRAINT_VERSION = 1
"""Version of the translation of types and evidence into constraints. Increase it when the same input gives another
constraint.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallEstimator:
    """Estimates calls from the cards and the fleet's configuration."""

    config: FleetConfig
    cards: Mapping[str, Card]
    cards_by_digest: Mapping[str, Card] = field(default_factory=dict)
    model_store: ModelStore = field(default_factory=ModelStore.from_environment)
    constraint: ConstraintMode = "evidence"
    tenant: str = ""
    model_digests: ModelDigests = field(init=False)
    card_cache: CardCache = field(init=False, default_factory=CardCache)
    adapter_bases: AdapterBases = field(init=False, default_factory=AdapterBases)

    def __post_init__(self) -> None:
        object.__setattr__(self, "model_digests", ModelDigests(self.model_store))

    def estimate(self, call: CallRequest) -> CallEstimate:
        """Returns the bounds of a call and its memo key; `NO_ESTIMATE` if no model of the fleet answers it."""
        try:
            card = resolve_card(call, self.cards, self.cards_by_digest)
            if card is None or card.kind != "model":
                return NO_ESTIMATE
            # The grammar over the evidence takes a millisecond and follows from what is in the key, so it is not built
            # here.
            prompt = self.card_cache.get(card).prompt.render(
                call.inputs, evidence=call.evidence, feedback=call.feedback, constraint="none"
            )
        except InputError:
            return NO_ESTIMATE  # the call itself is refused with this error
        max_output = prompt.max_output if call.max_output is None else min(call.max_output, prompt.max_output)
        least, choice = min(card.min_output, max_output), choose_servers(self.config, call, card)
        if isinstance(choice, RequestError):
            return CallEstimate(
                prompt_tokens=max_prompt_tokens(prompt.messages, TEMPLATE_TOKENS),
                max_output=max_output,
                min_output=least,
            )
        template = max(self.config.servers[name].template_tokens for name in choice.servers)
        bound, memo = max_prompt_tokens(prompt.messages, template), self._memo_key(call, card, choice, prompt)
        if (untuned_prompt := self._untuned_prompt(call, card, choice)) is not None:
            bound = max(bound, max_prompt_tokens(untuned_prompt.messages, template))
        if self._may_call_functions(choice):
            bound = max(bound, self._max_function_tokens(call, card, template))
        price, unpriced_server = max_prices(self.config, choice.servers)
        return CallEstimate(
            prompt_tokens=bound,
            max_output=max_output,
            min_output=least,
            token_prices=price,
            unpriced_server=unpriced_server,
            memo_key=memo,
        )

    def _untuned_prompt(self, call: CallRequest, card: Card, choice: ServerChoice) -> Prompt | None:
        """Returns the prompt of a model without the card's adapter; None if no server of the choice may get it."""
        prepared_card = self.card_cache.get(card)
        targets = [self.config.servers[name] for name in choice.servers]
        if prepared_card.untuned_prompt is prepared_card.prompt or all(
            isinstance(target, LocalServer) and self.adapter_bases.uses_adapter(choice.card, target)
            for target in targets
        ):
            return None
        return prepared_card.untuned_prompt.render(
            call.inputs, evidence=call.evidence, feedback=call.feedback, constraint="none"
        )

    def _may_call_functions(self, choice: ServerChoice) -> bool:
        """Whether a server of the choice may be asked with native functions."""
        targets = (self.config.servers[name] for name in choice.servers)
        return any(calls_functions_natively(target, choice.card, self.adapter_bases) for target in targets)

    def _max_function_tokens(self, call: CallRequest, card: Card, template: int) -> int:
        """Returns the upper bound of the prompt tokens of a request with native functions; 0 if it has none."""
        tools, prompt = NativeTools.decode(call.inputs.get(FUNCTIONS)), self.card_cache.get(card).function_prompt
        if tools is None or prompt is None:
            return 0
        text = msgspec.json.encode(tools.definitions())
        messages = prompt.render(call.inputs, feedback=call.feedback, constraint="none").messages
        return max_prompt_tokens(messages, template) + 2 * len(text) + FUNCTION_TOKENS  # twice: templates indent JSON

    def _memo_key(self, call: CallRequest, card: Card, choice: ServerChoice, prompt: Prompt) -> str:
        """Returns the memo key; empty if a repeated call may get another answer. The key is the same for all servers of
        the choice.
        """
        if card.sampling.temperature > 0 and card.sampling.seed is None and not call.sample:
            return ""
        targets = {name: self.config.servers[name] for name in choice.servers}
        digests = {self.model_digests.server_digest(name, target, choice.card) for name, target in targets.items()}
        if "" in digests:
            return ""
        constraints: list[str] = sorted({supported_constraint(target, self.constraint) for target in targets.values()})
        constraints += ["functions"] if self._may_call_functions(choice) else []
        untuned_prompt = self._untuned_prompt(call, card, choice)
        constraints += [] if untuned_prompt is None else [message.content for message in untuned_prompt.messages]
        content = [
            [CONSTRAINT_VERSION, MEMO_VERSION],
            [call.kind, card.name, card.digest],
            call.inputs,
            [(message.role, message.content) for message in prompt.messages],
            [constraints, prompt.max_output, prompt.stop, prompt.sampling.model_dump()],
            sorted(digests),
            [(source.text, source.name) for source in call.evidence],
            call.feedback,
            [
                self.tenant,
                call.label,
                call.tier if call.tier > 1 else call.is_escalated,
                *([call.sample] if call.sample else []),
            ],  # an optional last item keeps the keys of earlier versions valid
        ]
        try:
            return digest(canonical(content))
        except UnicodeEncodeError:  # a lone surrogate in an input
            return ""


def max_prices(config: FleetConfig, names: Iterable[str]) -> tuple[tuple[float, float], str]:
    """Returns the highest prices of a prompt token and of an output token among the servers, and the name of one
    without a price.
    """
    prompt = output = 0.0
    unpriced_server = ""
    for name in names:
        server = config.servers[name]
        if isinstance(server, Endpoint):
            if server.price is not None:
                dearest = max(server.price.prompt, server.price.cached or 0.0)
                prompt, output = max(prompt, dearest / 1e6), max(output, server.price.output / 1e6)
            elif server.external:
                unpriced_server = name
    return (prompt, output), unpriced_server


def max_prompt_tokens(messages: Iterable[ChatMessage], template: int) -> int:
    """Returns an upper bound of the tokens of a chat: one per byte, `template` once, and `MESSAGE_TOKENS` per message.

    The bound holds for byte-level vocabularies. Tokenizers of the Qwen family normalize to NFC first, which can need
    more bytes than the text had.
    """
    return template + MESSAGE_TOKENS + sum(MESSAGE_TOKENS + _utf8_length(message.content) for message in messages)


def _utf8_length(text: str) -> int:
    if text.isascii():
        return len(text)
    size = len(text.encode("utf-8", "surrogatepass"))
    if unicodedata.is_normalized("NFC", text):
        return size
    return max(size, len(unicodedata.normalize("NFC", text).encode("utf-8", "surrogatepass")))

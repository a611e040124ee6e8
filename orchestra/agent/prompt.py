"""Prompts: what is sent to a model for one call: messages, the constraint on its output, and how it is sampled.

The order is stable (system, the template's fixed text, data, feedback), so that servers find their prefix again. Data is neutralised:
no chat-template token in it reaches a server as one, and no tag in it closes the section that it stands in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import msgspec

from orchestra.agent import template
from orchestra.agent.card import Card, Sampling
from orchestra.agent.grammar import NoQuote, bounded, decodable, evidence_grammar
from orchestra.agent.template import Role
from orchestra.doors import Source
from orchestra.errors import InputError
from orchestra.values.fields import QUOTE, mentions
from orchestra.values.text import fenced, neutral
from orchestra.values.types import Schema

Constraining: TypeAlias = Literal["evidence", "schema", "none"]
"""How hard an output is held: quotes over this call's evidence, its type alone, or not at all."""

CHARACTERS_A_TOKEN = 3
"""A cautious count for English prose, to bound free text so that its JSON can be closed within `max_output`."""
JSON_TOKENS_A_FIELD = 8
"""Tokens of a field's name, its quotes and its comma."""
FEEDBACK = "feedback"


class Message(msgspec.Struct, frozen=True):
    """One message of a chat."""

    role: Role
    content: str


class Constraint(msgspec.Struct, frozen=True):
    """What the output must be: `json` with a schema, or `grammar` with a Lark grammar for llguidance (vLLM's `structured_outputs`)."""

    kind: Literal["json", "grammar"]
    value: Any


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """One call to a model, ready to be sent."""

    messages: tuple[Message, ...]
    constraint: Constraint | None
    """None where the output is plain text, or is not held."""
    response_schema: Schema | None
    """For servers that know JSON Schema only; None for plain text."""
    max_output: int
    sampling: Sampling
    stop: tuple[str, ...] = ()


class Script:
    """A card made ready for its calls: what all of its prompts have in common is made once."""

    def __init__(self, card: Card) -> None:
        """Raises `InputError` A007 where no prompt of the card can be rendered."""
        self.card = card
        self.sampling = card.sampling.model_dump(exclude_none=True)
        """As servers take it. Not to be changed."""
        self._inputs = tuple(name for name in card.input_schema.get("properties", {}) if name != FEEDBACK)
        self._names = (*card.input_schema.get("properties", {}), FEEDBACK)
        self._messages = [(role, template.Template(text, card.name)) for role, text, _ in template.messages(card.template)]
        if not self._messages:
            raise InputError("A007", f"the prompt of {card.name!r} is empty", hint="write prompt.md")
        self._system = (Message("system", card.system.strip()),) if card.system else ()
        self._plain = is_plain_text(card.output_schema)
        self._quotes = not self._plain and mentions(card.output_schema, QUOTE)
        self._decodable = None if self._plain else decodable(card.output_schema)
        self._by_type = None if self._decodable is None else Constraint("json", bounded(self._decodable, _free_text(card)))

    def render(
        self,
        inputs: Mapping[str, Any],
        *,
        evidence: Sequence[Source] = (),
        feedback: Sequence[str] = (),
        constraint: Constraining = "evidence",
    ) -> Prompt:
        """The prompt for these inputs, as `render` gives it."""
        names = self._names
        safe = {name: _fenced(inputs.get(name), names) for name in self._inputs}
        said = [Message(role, neutral(text.render(safe)).strip()) for role, text in self._messages]
        if feedback:
            said[-1] = Message(said[-1].role, f"{said[-1].content}\n\n{_complaint(feedback, names)}")
        return Prompt(
            messages=(*self._system, *said),
            constraint=self._constraint(inputs, evidence, constraint),
            response_schema=self._decodable,
            max_output=self.card.max_output,
            sampling=self.card.sampling,
        )

    def _constraint(self, inputs: Mapping[str, Any], evidence: Sequence[Source], wanted: Constraining) -> Constraint | None:
        if wanted == "none" or self._plain:
            return None
        if wanted == "evidence" and self._quotes:
            texts = [source.text for source in quotable(self.card, inputs, evidence)]
            try:
                return Constraint("grammar", evidence_grammar(self.card.output_schema, texts, _free_text(self.card)))
            except NoQuote:  # the check of quotes decides then
                pass
        return self._by_type


def render(
    card: Card,
    inputs: Mapping[str, Any],
    *,
    evidence: Sequence[Source] = (),
    feedback: Sequence[str] = (),
    constraint: Constraining = "evidence",
) -> Prompt:
    """The prompt of a card for these inputs; who has more than one call for it keeps a `Script`.

    `evidence` is what fields of type `Quote` may quote; where it is empty, the card's `evidence` input, or all text of the inputs.
    `feedback` says why earlier attempts were not accepted. Raises `InputError` A007 where the prompt cannot be rendered.
    """
    return Script(card).render(inputs, evidence=evidence, feedback=feedback, constraint=constraint)


def is_plain_text(schema: Schema) -> bool:
    """Whether an output is a text and nothing more: it is taken as it is written, without JSON around it."""
    return schema.get("type") == "string" and not schema.keys() & {"enum", "const", "pattern", "format"}


def quotable(card: Card, inputs: Mapping[str, Any], evidence: Sequence[Source] = ()) -> tuple[Source, ...]:
    """What a call may quote: the evidence that came with it, else the card's `evidence` input, else every text of the inputs."""
    if evidence:
        return tuple(evidence)
    return tuple(sources(inputs.get(card.evidence) if card.evidence else list(inputs.values())))


def sources(value: Any) -> list[Source]:
    """The texts in a value: strings, and records with a `text`, which their `source` names."""
    match value:
        case str():
            return [Source(value)] if value else []
        case {"text": str(text), **rest}:
            return [Source(text, str(rest.get("source", "")))]
        case Mapping():
            return [source for item in value.values() for source in sources(item)]
        case list() | tuple():
            return [source for item in value for source in sources(item)]
        case _:
            return []


def _free_text(card: Card) -> int:
    """Characters that one text may have, so that all of them fit into `max_output` together with the JSON around them."""
    fields = max(1, len(card.output_schema.get("properties", {})))
    return max(32, (card.max_output - JSON_TOKENS_A_FIELD * fields) * CHARACTERS_A_TOKEN // fields)


def _fenced(value: Any, names: Sequence[str]) -> Any:
    match value:
        case str():
            return fenced(value, names)
        case Mapping():
            return {_fenced(key, names): _fenced(item, names) for key, item in value.items()}
        case list() | tuple():
            return [_fenced(item, names) for item in value]
        case _:
            return value


def _complaint(feedback: Sequence[str], names: Sequence[str]) -> str:
    said = "\n".join(f"- {neutral(fenced(reason, names))}" for reason in feedback)
    return f"<{FEEDBACK}>\nYour earlier answer was not accepted:\n{said}\n</{FEEDBACK}>"

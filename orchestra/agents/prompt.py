"""Prompts: what is sent to a model for one call: messages, the constraint on its output, and how it is sampled.

The order is stable (system, the template's fixed text, data, feedback), so that servers find their prefix again. Data is neutralised:
no chat-template token in it reaches a server as one, and no tag in it closes the section that it stands in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import msgspec

from orchestra.agents import function_calls, template
from orchestra.agents.card import Card
from orchestra.agents.card_file import Sampling
from orchestra.agents.card_types import is_plain_text
from orchestra.agents.computed_fields import ASKED
from orchestra.agents.evidence_grammar import NoQuote, bounded, decodable, evidence_grammar, free_text
from orchestra.agents.template import Role
from orchestra.core.errors import InputError
from orchestra.core.protocols import Source, sources
from orchestra.core.untrusted_text import fenced, neutral
from orchestra.schema.fields import QUOTE, mentions
from orchestra.schema.types import Schema

Constraining: TypeAlias = Literal["evidence", "schema", "none"]
"""How hard an output is held: quotes over this call's evidence, its type alone, or not at all."""

FEEDBACK = "feedback"
LEAST_WHOLE, MOST_WHOLE = -(1 << 127), (1 << 128) - 1
"""Whole numbers that templates write as they are; any other would be a float there, and a text is exact."""


class Message(msgspec.Struct, frozen=True):
    """One message of a chat."""

    role: Role
    content: str


class Constraint(msgspec.Struct, frozen=True):
    """What the output must be, in the words of vLLM's `structured_outputs`: `json` with a schema, `grammar` with a Lark grammar for
    llguidance, or, of a text that is written without JSON, `choice` or `regex`."""

    kind: Literal["json", "grammar", "choice", "regex"]
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
    continues: bool = False
    """Whether the last message is the beginning of the answer, and the model goes on with it."""


class Script:
    """A card made ready for its calls: what all of its prompts have in common is made once."""

    def __init__(self, card: Card) -> None:
        """Raises `InputError` A007 where no prompt of the card can be rendered."""
        self.card = card
        form = card.form
        self.has_sureness = card.has_sureness
        self.sampling = card.sampling.model_dump(exclude_none=True) | (ASKED if form.weighs else {})
        """As servers take it. Not to be changed."""
        fields: Mapping[str, Schema] = card.input_schema.get("properties", {})
        self._inputs = tuple(fields)
        self._left_out = card.contract.defaults
        """Values of inputs that a call leaves out."""
        self._names = tuple(dict.fromkeys([*fields, FEEDBACK]))
        """Of the sections that no text may close."""
        self._messages = [(role, template.Template(text, card.name)) for role, text, _ in template.messages(card.template)]
        if not self._messages:
            raise InputError("A007", f"the prompt of {card.name!r} is empty", hint="write prompt.md")
        self._system = template.Template(card.system, card.name) if card.system.strip() else None
        self._written = form.spelt
        self.one_token = form.one_token
        """Whether a text under `choice` may be cut after its first token."""
        self._free_text = free_text(self._written, card.max_output)
        self._plain = bool(form.alone) or is_plain_text(self._written)
        self._quotes = not self._plain and mentions(self._written, QUOTE)
        self._decodable = None if self._plain else decodable(self._written)
        self._by_type = (
            _of_text(self._written) if self._decodable is None else Constraint("json", bounded(self._decodable, self._free_text))
        )

    def render(
        self,
        inputs: Mapping[str, Any],
        *,
        evidence: Sequence[Source] = (),
        feedback: Sequence[str] = (),
        constraint: Constraining = "evidence",
    ) -> Prompt:
        """The prompt for these inputs.

        `evidence` is what fields of type `Quote` may quote; where it is empty, the card's `evidence` input, or all text of the inputs.
        `feedback` says why earlier attempts were not accepted. Raises `InputError` A007 where the prompt cannot be rendered.
        """
        names, inputs = self._names, {**self._left_out, **inputs}
        safe = {name: _fenced(inputs.get(name), names) for name in self._inputs}
        written = function_calls.narrowed(self._written, self.card.calls, inputs) if self.card.calls else self._written
        said = [_said(role, text, safe) for role, text in self._messages]
        begun = said.pop() if len(said) > 1 and said[-1].role == "assistant" else None
        if feedback:
            said[-1] = Message(said[-1].role, f"{said[-1].content}\n\n{_complaint(feedback, names)}")
        if begun is not None and begun.content:
            said.append(begun)
        first = _said("system", self._system, safe) if self._system is not None else None
        return Prompt(
            messages=(first, *said) if first is not None and first.content else tuple(said),
            constraint=self._constraint(written, inputs, evidence, constraint),
            response_schema=decodable(written) if self.card.calls else self._decodable,
            max_output=self.card.max_output,
            sampling=self.card.sampling,
            continues=begun is not None and bool(begun.content),
        )

    def _constraint(
        self, written: Schema, inputs: Mapping[str, Any], evidence: Sequence[Source], wanted: Constraining
    ) -> Constraint | None:
        if wanted == "none":
            return None
        if self.card.grammar is not None:
            held = inputs.get(self.card.grammar) if wanted == "evidence" else None
            return Constraint("grammar", str(held)) if held else None
        if wanted == "evidence" and (self._quotes or self.card.calls):
            texts = [source.text for source in quotable(self.card, inputs, evidence)]
            try:
                return Constraint("grammar", evidence_grammar(written, texts if self._quotes else (), self._free_text))
            except NoQuote:  # the check of quotes decides then
                pass
        return Constraint("json", bounded(decodable(written), self._free_text)) if self.card.calls else self._by_type


def quotable(card: Card, inputs: Mapping[str, Any], evidence: Sequence[Source] = ()) -> tuple[Source, ...]:
    """What a call may quote: the evidence that came with it, else the card's `evidence` input, else every text of the inputs."""
    if evidence:
        return tuple(evidence)
    return sources(inputs.get(card.evidence) if card.evidence else list(inputs.values()))


def _said(role: Role, text: template.Template, values: Mapping[str, Any]) -> Message:
    return Message(role, neutral(text.render(values)).strip())


def _of_text(schema: Schema) -> Constraint | None:
    """What holds a text that is written without JSON: its choices, its pattern, or nothing."""
    if choices := schema.get("enum"):
        return Constraint("choice", list(choices))
    if pattern := schema.get("pattern"):
        return Constraint("regex", _unanchored(str(pattern)))
    return None


def _unanchored(pattern: str) -> str:
    """A pattern without the signs for the beginning and the end of a text; a `$` that is escaped is none of them."""
    whole = pattern.removeprefix("^")
    body = whole.removesuffix("$")
    return whole if (len(body) - len(body.rstrip("\\"))) % 2 else body


def _fenced(value: Any, names: Sequence[str]) -> Any:
    match value:
        case str():
            return fenced(value, names)
        case Mapping():
            return {_fenced(key, names): _fenced(item, names) for key, item in value.items()}
        case list() | tuple():
            return [_fenced(item, names) for item in value]
        case int() if not LEAST_WHOLE <= value <= MOST_WHOLE:
            return str(value)
        case _:
            return value


def _complaint(feedback: Sequence[str], names: Sequence[str]) -> str:
    said = "\n".join(f"- {neutral(fenced(reason, names))}" for reason in feedback)
    return f"<{FEEDBACK}>\nYour earlier answer was not accepted:\n{said}\n</{FEEDBACK}>"

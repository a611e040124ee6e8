"""Prompts: the messages of one model call, the constraint on its output, and the sampling parameters.

The order is stable (system, fixed text of the template, data, feedback), so servers can reuse cached prefixes. Data is
neutralised: it cannot contain chat-template tokens, and no tag in it closes the section that contains it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import msgspec

from orchestra.agents import function_calls, template
from orchestra.agents.card import Card
from orchestra.agents.card_file import SamplingParameters
from orchestra.agents.card_types import is_plain_text
from orchestra.agents.computed_fields import LOGPROB_PARAMETERS
from orchestra.agents.evidence_grammar import (
    QuoteGrammarError,
    evidence_grammar,
    free_text_limit,
    limit_texts,
    strip_unknown_formats,
)
from orchestra.agents.template import Role
from orchestra.core.errors import InputError
from orchestra.core.protocols import EvidenceSource, collect_sources
from orchestra.core.untrusted_text import fence, neutralize
from orchestra.schema.fields import QUOTE_FORMAT, schema_has_format
from orchestra.schema.types import Schema

ConstraintMode: TypeAlias = Literal["evidence", "schema", "none"]
"""How the output is constrained: quotes from this call's evidence and its type, its type alone, or not at all."""

FEEDBACK = "feedback"
MIN_INTEGER, MAX_INTEGER = -(1 << 127), (1 << 128) - 1
"""Integers that templates render exactly. Others would become floats there, so they are passed as text."""


class ChatMessage(msgspec.Struct, frozen=True):
    """One message of a chat."""

    role: Role
    content: str


class Constraint(msgspec.Struct, frozen=True):
    """The constraint on an output, in terms of vLLM's `structured_outputs`.

    `json` has a schema and `grammar` a Lark grammar for llguidance. A text that is written without JSON has `choice` or
    `regex`.
    """

    kind: Literal["json", "grammar", "choice", "regex"]
    value: Any


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """One call to a model, ready to be sent."""

    messages: tuple[ChatMessage, ...]
    constraint: Constraint | None
    """None if the output is plain text or is not constrained."""
    response_schema: Schema | None
    """For servers that support only JSON Schema; None for plain text."""
    max_output: int
    sampling: SamplingParameters
    stop: tuple[str, ...] = ()
    continues: bool = False
    """Whether the last message is the beginning of the answer, which the model continues."""


class CompiledPrompt:
    """The parts of a card's prompts that are the same for all calls."""

    def __init__(self, card: Card) -> None:
        """Prepares the prompts of a card.

        Raises:
            InputError: A007 if the prompt cannot be rendered.
        """
        self.card = card
        form = card.output_form
        self.has_confidence = card.has_confidence
        self.sampling = card.sampling.model_dump(exclude_none=True) | (
            LOGPROB_PARAMETERS if form.needs_logprobs else {}
        )
        """In the format of requests. Must not be modified."""
        fields: Mapping[str, Schema] = card.input_schema.get("properties", {})
        self._input_names = tuple(fields)
        self._defaults = card.contract.defaults
        """Values of inputs that a call omits."""
        self._section_names = tuple(dict.fromkeys([*fields, FEEDBACK]))
        """Names of the sections that data must not close."""
        self._messages = [
            (role, template.Template(text, card.name)) for role, text, _ in template.split_messages(card.template)
        ]
        if not self._messages:
            raise InputError("A007", f"the prompt of {card.name!r} is empty", hint="write prompt.md")
        self._system = template.Template(card.system, card.name) if card.system.strip() else None
        self._text_schema = form.text_schema
        self.one_token = form.one_token
        """Whether a text under `choice` may be cut after its first token."""
        self._text_limit = free_text_limit(self._text_schema, card.max_output)
        self._is_text = bool(form.single_field) or is_plain_text(self._text_schema)
        self._has_quotes = not self._is_text and schema_has_format(self._text_schema, QUOTE_FORMAT)
        self._response_schema = None if self._is_text else strip_unknown_formats(self._text_schema)
        self._type_constraint = (
            _text_constraint(self._text_schema)
            if self._response_schema is None
            else Constraint("json", limit_texts(self._response_schema, self._text_limit))
        )

    def render(
        self,
        inputs: Mapping[str, Any],
        *,
        evidence: Sequence[EvidenceSource] = (),
        feedback: Sequence[str] = (),
        constraint: ConstraintMode = "evidence",
    ) -> Prompt:
        """Renders the prompt for these inputs.

        Args:
            evidence: The texts that fields of type `Quote` may quote. If empty, the card's `evidence` input, or all
            texts of
                the inputs.
            feedback: The reasons why earlier attempts were rejected.

        Raises:
            InputError: A007 if the prompt cannot be rendered.
        """
        names, inputs = self._section_names, {**self._defaults, **inputs}
        safe = {name: _fence_values(inputs.get(name), names) for name in self._input_names}
        narrowed_schema = (
            function_calls.narrow_output(self._text_schema, self.card.calls, inputs)
            if self.card.calls
            else self._text_schema
        )
        chat_messages = [_render_message(role, text, safe) for role, text in self._messages]
        reply_start = chat_messages.pop() if len(chat_messages) > 1 and chat_messages[-1].role == "assistant" else None
        if feedback:
            chat_messages[-1] = ChatMessage(
                chat_messages[-1].role, f"{chat_messages[-1].content}\n\n{_feedback_section(feedback, names)}"
            )
        if reply_start is not None and reply_start.content:
            chat_messages.append(reply_start)
        first = _render_message("system", self._system, safe) if self._system is not None else None
        return Prompt(
            messages=(first, *chat_messages) if first is not None and first.content else tuple(chat_messages),
            constraint=self._build_constraint(narrowed_schema, inputs, evidence, constraint),
            response_schema=strip_unknown_formats(narrowed_schema) if self.card.calls else self._response_schema,
            max_output=self.card.max_output,
            sampling=self.card.sampling,
            continues=reply_start is not None and bool(reply_start.content),
        )

    def _build_constraint(
        self, text_schema: Schema, inputs: Mapping[str, Any], evidence: Sequence[EvidenceSource], mode: ConstraintMode
    ) -> Constraint | None:
        if mode == "none":
            return None
        if self.card.grammar is not None:
            evidence_value = inputs.get(self.card.grammar) if mode == "evidence" else None
            return Constraint("grammar", str(evidence_value)) if evidence_value else None
        if mode == "evidence" and (self._has_quotes or self.card.calls):
            texts = [source.text for source in quote_sources(self.card, inputs, evidence)]
            try:
                return Constraint(
                    "grammar", evidence_grammar(text_schema, texts if self._has_quotes else (), self._text_limit)
                )
            except QuoteGrammarError:  # the check of quotes decides instead
                pass
        return (
            Constraint("json", limit_texts(strip_unknown_formats(text_schema), self._text_limit))
            if self.card.calls
            else self._type_constraint
        )


def quote_sources(
    card: Card, inputs: Mapping[str, Any], evidence: Sequence[EvidenceSource] = ()
) -> tuple[EvidenceSource, ...]:
    """Returns the texts that a call may quote: its evidence, else the card's `evidence` input, else all texts of the
    inputs.
    """
    if evidence:
        return tuple(evidence)
    return collect_sources(inputs.get(card.evidence) if card.evidence else list(inputs.values()))


def _render_message(role: Role, text: template.Template, values: Mapping[str, Any]) -> ChatMessage:
    return ChatMessage(role, neutralize(text.render(values)).strip())


def _text_constraint(schema: Schema) -> Constraint | None:
    """Returns the constraint on a text that is written without JSON: its choices, its pattern, or None."""
    if choices := schema.get("enum"):
        return Constraint("choice", list(choices))
    if pattern := schema.get("pattern"):
        return Constraint("regex", _strip_anchors(str(pattern)))
    return None


def _strip_anchors(pattern: str) -> str:
    """Removes the anchors `^` and `$` at the ends of a pattern. An escaped `$` is not an anchor."""
    stripped_pattern = pattern.removeprefix("^")
    body = stripped_pattern.removesuffix("$")
    return stripped_pattern if (len(body) - len(body.rstrip("\\"))) % 2 else body


def _fence_values(value: Any, names: Sequence[str]) -> Any:
    match value:
        case str():
            return fence(value, names)
        case Mapping():
            return {_fence_values(key, names): _fence_values(item, names) for key, item in value.items()}
        case list() | tuple():
            return [_fence_values(item, names) for item in value]
        case int() if not MIN_INTEGER <= value <= MAX_INTEGER:
            return str(value)
        case _:
            return value


def _feedback_section(feedback: Sequence[str], names: Sequence[str]) -> str:
    text = "\n".join(f"- {neutralize(fence(reason, names))}" for reason in feedback)
    return f"<{FEEDBACK}>\nYour earlier answer was not accepted:\n{text}\n</{FEEDBACK}>"

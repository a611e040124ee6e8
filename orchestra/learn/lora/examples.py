"""Examples: one row of an agent's task as tokens, by the code that serving uses, so the two cannot diverge.

The prompt is the result of `CompiledPrompt.render`, put through the model's own chat template. The label is the output
as the decoding grammar spells it (`orchestra.agents.evidence_grammar`): fields in the order of the type, `, ` and `: `
between the parts; then the token that ends a turn.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from orchestra.agents import function_calls
from orchestra.agents.card import Card
from orchestra.agents.card_types import is_plain_text
from orchestra.agents.output_parser import NO_INPUTS, OutputParser, ParsedOutput
from orchestra.agents.prompt import CompiledPrompt
from orchestra.core.errors import InputError
from orchestra.schema.types import Schema


class ChatTokenizer(Protocol):
    """The required methods of a tokenizer of transformers."""

    eos_token_id: int

    def apply_chat_template(
        self,
        conversation: list[dict[str, str]],
        *,
        tokenize: bool,
        add_generation_prompt: bool,
        continue_final_message: bool = False,
    ) -> str:
        """Returns the text of a conversation."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Returns the tokens of a text."""


@dataclass(frozen=True, slots=True)
class TokenExample:
    """Prompt tokens, and the label tokens that should follow."""

    prompt: tuple[int, ...]
    label: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.label)


class ExampleEncoder:
    """Encodes the rows of one card for one model."""

    def __init__(self, card: Card, tokenizer: ChatTokenizer) -> None:
        self._card, self._tokenizer = card, tokenizer
        self._script, self._reader = CompiledPrompt(card), OutputParser(card)

    def encode_row(self, inputs: Mapping[str, Any], output: Any) -> TokenExample:
        """Encodes a row.

        Raises:
            InputError: N110 if serving would not accept the output from the model.
        """
        return TokenExample(self.encode_prompt(inputs), self.encode_label(output, inputs))

    def encode_prompt(self, inputs: Mapping[str, Any]) -> tuple[int, ...]:
        """Returns the tokens that a server computes for a call with these inputs."""
        prompt = self._script.render(inputs, constraint="none")
        messages = [{"role": message.role, "content": message.content} for message in prompt.messages]
        text = self._tokenizer.apply_chat_template(
            messages,
            tokenize=False,
            add_generation_prompt=not prompt.continues,
            continue_final_message=prompt.continues,
        )
        return tuple(self._tokenizer.encode(text, add_special_tokens=False))

    def encode_label(self, output: Any, inputs: Mapping[str, Any] = NO_INPUTS) -> tuple[int, ...]:
        """Returns the label tokens: the output and the end of the turn.

        The output of an agent with a grammar may start with a line break, which parsing removes.

        Args:
            inputs: The inputs that the output belongs to.

        Raises:
            InputError: N110 if the output would be parsed as another output.
        """
        form, card = self._card.output_form, self._card
        schema = function_calls.narrow_output(form.schema, card.calls, inputs) if card.calls and inputs else form.schema
        text = str(output[form.single_field]) if form.single_field else serialize_output(output, schema)
        parsed_output = self._reader.parse_written(text, inputs=inputs or {})
        target_text = output.removeprefix("\n") if card.grammar is not None else output
        if not isinstance(parsed_output, ParsedOutput) or parsed_output.value != target_text:
            reason = (
                f"it is parsed as {parsed_output.value!r}"
                if isinstance(parsed_output, ParsedOutput)
                else parsed_output.reason
            )
            raise InputError(
                "N110", f"an output of {self._card.name} cannot be learnt: {reason}", hint="orchestra explain N110"
            )
        return (*self._tokenizer.encode(text, add_special_tokens=False), self._tokenizer.eos_token_id)


def serialize_output(output: Any, schema: Schema) -> str:
    """Returns an output in the form that the decoding grammar lets a model write."""
    if is_plain_text(schema):
        return str(output)
    return json.dumps(_order_fields(output, schema), ensure_ascii=False)


def _order_fields(value: Any, schema: Mapping[str, Any]) -> Any:
    """Returns the value with the fields of its records in the order of their type."""
    if isinstance(value, Mapping):
        properties: Mapping[str, Any] = _matching_branch(value, schema).get("properties", {})
        names = [name for name in properties if name in value] + [name for name in value if name not in properties]
        return {name: _order_fields(value[name], properties.get(name, {})) for name in names}
    if isinstance(value, list | tuple):
        items = schema.get("items")
        return [_order_fields(item, items if isinstance(items, Mapping) else {}) for item in value]
    return value


def _matching_branch(value: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the branch of a union of records that the constants of a record select."""
    for branch in schema.get("anyOf", ()):
        constants = {name: part["const"] for name, part in branch.get("properties", {}).items() if "const" in part}
        if constants and all(value.get(name) == constant for name, constant in constants.items()):
            nested_branch: Mapping[str, Any] = branch
            return nested_branch
    return schema

"""Parses a model's text as strict JSON and validates it against the output type. The text is treated as data only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec

from orchestra.agents import function_calls
from orchestra.agents.card import Card
from orchestra.agents.card_types import is_plain_text
from orchestra.agents.computed_fields import TokenAlternatives
from orchestra.agents.inference.logprob_confidence import text_probability
from orchestra.agents.prompt import FEEDBACK
from orchestra.core.untrusted_text import escape_invisible, restore, shorten, unfence
from orchestra.schema.strict_json import MAX_BYTES, StrictJsonError, parse_untrusted
from orchestra.schema.types import Validator

NO_INPUTS: Mapping[str, Any] = MappingProxyType({})
MAX_SHOWN = 120
"""Maximum characters of an invalid output that a message shows."""


class ParsedOutput(msgspec.Struct, frozen=True):
    """A valid output: plain JSON."""

    value: Any
    confidence: float | None = None
    """The model's confidence in [0, 1], or None if unknown."""


class InvalidOutput(msgspec.Struct, frozen=True):
    """An invalid output: a code (M001 to M004), the reason and a hint. Another attempt may succeed."""

    code: str
    reason: str
    hint: str = ""


class OutputParser:
    """Parses the outputs of one card. The output type is compiled once."""

    def __init__(self, card: Card) -> None:
        self._card, self._form = card, card.output_form
        self._is_text = is_plain_text(self._form.text_schema)
        self._has_confidence = card.has_confidence
        self._calibration = card.current_calibration
        self._written_validator: Validator | None = None
        self._output_validator: Validator | None = None

    def parse(
        self,
        text: str,
        finish_reason: str = "stop",
        tokens: Sequence[TokenAlternatives] = (),
        inputs: Mapping[str, Any] = NO_INPUTS,
        *,
        with_adapter: bool = True,
    ) -> ParsedOutput | InvalidOutput:
        """Parses and checks a model's text.

        If the card has a calibration, the most probable choice after it replaces the written one. A calibration belongs
        to an adapter, so it is not used without `with_adapter` (another base model wrote the text). An agent that calls
        functions may call only those in `inputs`.

        Args:
            finish_reason: Why the server stopped; `length` if the limit of tokens was reached. tokens: The tokens of
            the text, if they are known.

        Raises:
            InputError: A016 if `inputs` hold no valid functions.
        """
        result = self.parse_written(text, finish_reason, inputs)
        if isinstance(result, InvalidOutput):
            return result
        confidence = text_probability(text, tokens) if self._has_confidence else None
        if not self._form.rules:
            return ParsedOutput(result.value, confidence)
        probabilities = self._form.choice_probabilities(text, tokens) if self._form.needs_logprobs else None
        value = result.value
        if probabilities is not None and with_adapter and self._calibration is not None:
            probabilities = self._calibration.calibrate(probabilities, inputs)
            value = {**value, self._form.choice_field: max(probabilities, key=lambda choice: probabilities[choice])}
        confidence = self._form.confidence(value, probabilities, confidence)
        value = self._form.fill(value, probabilities)
        if self._output_validator is None:
            self._output_validator = Validator(self._card.output_schema)
        validation = self._validate(value, self._output_validator)
        return validation if isinstance(validation, InvalidOutput) else ParsedOutput(validation.value, confidence)

    def parse_written(
        self, text: str, finish_reason: str = "stop", inputs: Mapping[str, Any] = NO_INPUTS
    ) -> ParsedOutput | InvalidOutput:
        """Parses the written fields of a model's text, without computed fields."""
        card, alone = self._card, self._form.single_field
        if (
            finish_reason == "length"
            and (complete := self._form.choice_from_prefix(text) if card.grammar is None else _complete_lines(text))
            is not None
        ):
            text = complete
        elif finish_reason == "length" and (alone or not self._is_text or card.grammar is not None):
            reason = f"{card.name} was cut off after max_output tokens, in {_preview(text)}"
            return InvalidOutput("M003", reason, f"raise max_output ({card.max_output}) of the card, or ask for less")
        choices = self._form.choices if alone else ()
        choice = text if text in choices else text.strip()
        if not choice and choice not in choices:
            return InvalidOutput("M004", f"{card.name} wrote nothing", "try another sampling, or a larger model")
        if len(text) * 4 > MAX_BYTES and len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
            return InvalidOutput("M001", f"{card.name} wrote more than 1 MiB", "lower max_output")
        if self._is_text or alone:
            value: Any = choice
        else:
            try:
                value = parse_untrusted(text)
            except StrictJsonError as error:
                return InvalidOutput(
                    "M001",
                    f"{card.name} wrote no JSON ({error.args[0]}): {_preview(text)}",
                    "turn structured outputs on",
                )
        if "\u2060" in text or "\\u2060" in text:
            value = _restore_text(value, [*card.input_schema.get("properties", {}), FEEDBACK])
        if self._written_validator is None:
            self._written_validator = Validator(self._form.schema)
        result = self._validate({alone: value} if alone else value, self._written_validator)
        if isinstance(result, InvalidOutput) or not inputs or not card.calls:
            return result
        return self._validate(value, Validator(function_calls.narrow_output(self._form.schema, card.calls, inputs)))

    def _validate(self, value: Any, validator: Validator) -> ParsedOutput | InvalidOutput:
        if fault := validator.check(value):
            reason = f"{self._card.name} wrote another type: {escape_invisible(fault)}"
            return InvalidOutput("M002", reason, "turn structured outputs on, or correct the card's output")
        return ParsedOutput(value)


def _complete_lines(text: str) -> str | None:
    """Returns the complete lines of a truncated plan; None if there is only one line.

    The last line is dropped because it may be incomplete: `return s1` may have been `return s1, s2`.
    """
    return text[: text.rfind("\n")] if text.strip() != text[text.rfind("\n") + 1 :].strip() else None


def _restore_text(value: Any, names: list[str]) -> Any:
    """Restores the original spelling of data that `CompiledPrompt.render` neutralised and the model copied."""
    match value:
        case str():
            return unfence(restore(value), names) if "\u2060" in value else value
        case dict():
            restored_value = {key: _restore_text(key, names) for key in value}
            apart = len(set(restored_value.values())) == len(restored_value)
            return {restored_value[key] if apart else key: _restore_text(item, names) for key, item in value.items()}
        case list():
            return [_restore_text(item, names) for item in value]
        case _:
            return value


def _preview(text: str) -> str:
    return repr(escape_invisible(shorten(text, MAX_SHOWN), keep=""))[1:-1].replace("\\\\", "\\")

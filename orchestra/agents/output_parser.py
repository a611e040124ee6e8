"""Outputs: what a model wrote, read strictly as JSON and held against its type. The text is data, and never anything else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec

from orchestra.agents import function_calls
from orchestra.agents.card import Card
from orchestra.agents.card_types import is_plain_text
from orchestra.agents.computed_fields import Written
from orchestra.agents.inference.logprob_confidence import sureness
from orchestra.agents.prompt import FEEDBACK
from orchestra.core.untrusted_text import original, shortened, unfenced, visible
from orchestra.schema.strict_json import MAX_BYTES, NotStrictJSON, parse_untrusted
from orchestra.schema.types import Validator

NO_INPUTS: Mapping[str, Any] = MappingProxyType({})
SHOWN = 120
"""Characters of a wrong output that a message shows."""


class Parsed(msgspec.Struct, frozen=True):
    """An output of its type: plain JSON."""

    value: Any
    confidence: float | None = None
    """How sure the model is of it, in [0, 1]; None where that is not known."""


class Unreadable(msgspec.Struct, frozen=True):
    """An output that is not of its type: a code (M001 to M004), why, and what could help. Another attempt may do better."""

    code: str
    reason: str
    hint: str = ""


class Reader:
    """Reads what models write for one card; its type is made ready once."""

    def __init__(self, card: Card) -> None:
        self._card, self._form = card, card.form
        self._plain = is_plain_text(self._form.spelt)
        self._has_sureness = card.has_sureness
        self._calibration = card.calibrated
        self._written: Validator | None = None
        self._whole: Validator | None = None

    def parse(
        self,
        text: str,
        finish: str = "stop",
        tokens: Sequence[Written] = (),
        inputs: Mapping[str, Any] = NO_INPUTS,
        *,
        adapted: bool = True,
    ) -> Parsed | Unreadable:
        """The value of a model's text; `finish` is why the server stopped (`length` where it ran out of tokens), `tokens` are what the text
        is made of, where they are known.

        Where the card has a calibration, the likeliest choice after it stands in the place of the one that was written; not where it was
        not `adapted`, which is to say that another base wrote without the adapter that the calibration is of. An agent that
        calls functions is held to those in `inputs`; raises `InputError` A016 where these are none.
        """
        written = self.written(text, finish, inputs)
        if isinstance(written, Unreadable):
            return written
        sure = sureness(text, tokens) if self._has_sureness else None
        if not self._form.rules:
            return Parsed(written.value, sure)
        odds = self._form.odds(text, tokens) if self._form.weighs else None
        value = written.value
        if odds is not None and adapted and self._calibration is not None:
            odds = self._calibration.corrected(odds, inputs)
            value = {**value, self._form.chosen: max(odds, key=lambda choice: odds[choice])}
        sure = self._form.sure(value, odds, sure)
        value = self._form.filled(value, odds)
        if self._whole is None:
            self._whole = Validator(self._card.output_schema)
        found = self._checked(value, self._whole)
        return found if isinstance(found, Unreadable) else Parsed(found.value, sure)

    def written(self, text: str, finish: str = "stop", inputs: Mapping[str, Any] = NO_INPUTS) -> Parsed | Unreadable:
        """What a model wrote, without the fields that are computed."""
        card, alone = self._card, self._form.alone
        if finish == "length" and (whole := self._form.begun(text) if card.grammar is None else _whole_lines(text)) is not None:
            text = whole
        elif finish == "length" and (alone or not self._plain or card.grammar is not None):
            reason = f"{card.name} was cut off after max_output tokens, in {_shown(text)}"
            return Unreadable("M003", reason, f"raise max_output ({card.max_output}) of the card, or ask for less")
        choices = self._form.choices if alone else ()
        said = text if text in choices else text.strip()
        if not said and said not in choices:
            return Unreadable("M004", f"{card.name} wrote nothing", "try another sampling, or a larger model")
        if len(text) * 4 > MAX_BYTES and len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
            return Unreadable("M001", f"{card.name} wrote more than 1 MiB", "lower max_output")
        if self._plain or alone:
            value: Any = said
        else:
            try:
                value = parse_untrusted(text)
            except NotStrictJSON as error:
                return Unreadable("M001", f"{card.name} wrote no JSON ({error.args[0]}): {_shown(text)}", "turn structured outputs on")
        if "\u2060" in text or "\\u2060" in text:
            value = _restored(value, [*card.input_schema.get("properties", {}), FEEDBACK])
        if self._written is None:
            self._written = Validator(self._form.schema)
        found = self._checked({alone: value} if alone else value, self._written)
        if isinstance(found, Unreadable) or not inputs or not card.calls:
            return found
        return self._checked(value, Validator(function_calls.narrowed(self._form.schema, card.calls, inputs)))

    def _checked(self, value: Any, validator: Validator) -> Parsed | Unreadable:
        if fault := validator.check(value):
            reason = f"{self._card.name} wrote another type: {visible(fault)}"
            return Unreadable("M002", reason, "turn structured outputs on, or mend the card's output")
        return Parsed(value)


def _whole_lines(text: str) -> str | None:
    """The lines of a plan that was cut off, without the last one, which may have gone on: `return s1` may have been `return s1, s2`. None
    where there is but one."""
    return text[: text.rfind("\n")] if text.strip() != text[text.rfind("\n") + 1 :].strip() else None


def _restored(value: Any, names: list[str]) -> Any:
    """The value with the data's own spelling: what `Script.render` neutralised, and the model copied, is turned back."""
    match value:
        case str():
            return unfenced(original(value), names) if "\u2060" in value else value
        case dict():
            own = {key: _restored(key, names) for key in value}
            apart = len(set(own.values())) == len(own)
            return {own[key] if apart else key: _restored(item, names) for key, item in value.items()}
        case list():
            return [_restored(item, names) for item in value]
        case _:
            return value


def _shown(text: str) -> str:
    return repr(visible(shortened(text, SHOWN), keep=""))[1:-1].replace("\\\\", "\\")

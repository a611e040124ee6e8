"""Outputs: what a model wrote, read strictly as JSON and held against its type. The text is data, and never anything else."""

from __future__ import annotations

from typing import Any

import msgspec

from orchestra.agent.card import Card
from orchestra.agent.prompt import FEEDBACK, is_plain_text
from orchestra.values.json import MAX_BYTES, NotStrictJSON, parse_untrusted
from orchestra.values.text import original, unfenced, visible
from orchestra.values.types import Validator

SHOWN = 120
"""Characters of a wrong output that a message shows."""


class Parsed(msgspec.Struct, frozen=True):
    """An output of its type: plain JSON."""

    value: Any


class Unreadable(msgspec.Struct, frozen=True):
    """An output that is not of its type: a code (M001 to M004), why, and what could help. Another attempt may do better."""

    code: str
    reason: str
    hint: str = ""


class Reader:
    """Reads what models write for one card; its type is made ready once."""

    def __init__(self, card: Card) -> None:
        self._card, self._plain = card, is_plain_text(card.output_schema)
        self._validator: Validator | None = None

    def parse(self, text: str, finish: str = "stop") -> Parsed | Unreadable:
        """The value of a model's text, as `parse` gives it."""
        card = self._card
        if finish == "length" and not self._plain:
            reason = f"{card.name} was cut off after max_output tokens, in {_shown(text)}"
            return Unreadable("M003", reason, f"raise max_output ({card.max_output}) of the card, or ask for less")
        stripped = text.strip()
        if not stripped:
            return Unreadable("M004", f"{card.name} wrote nothing", "try another sampling, or a larger model")
        if len(text) * 4 > MAX_BYTES and len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
            return Unreadable("M001", f"{card.name} wrote more than 1 MiB", "lower max_output")
        if self._plain:
            value: Any = stripped
        else:
            try:
                value = parse_untrusted(text)
            except NotStrictJSON as error:
                return Unreadable("M001", f"{card.name} wrote no JSON ({error.args[0]}): {_shown(text)}", "turn structured outputs on")
        if "\u2060" in text or "\\u2060" in text:
            value = _restored(value, [*card.input_schema.get("properties", {}), FEEDBACK])
        if self._validator is None:
            self._validator = Validator(card.output_schema)
        if fault := self._validator.check(value):
            return Unreadable(
                "M002", f"{card.name} wrote another type: {visible(fault)}", "turn structured outputs on, or mend the card's output"
            )
        return Parsed(value)


def parse(card: Card, text: str, *, finish: str = "stop") -> Parsed | Unreadable:
    """The value of a model's text; `finish` is why the server stopped (`length` where it ran out of tokens).

    Who reads more than one text for a card keeps a `Reader`.
    """
    return Reader(card).parse(text, finish)


def _restored(value: Any, names: list[str]) -> Any:
    """The value with the data's own spelling: what `render` neutralised, and the model copied, is turned back."""
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
    cut = text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
    return repr(visible(cut, keep=""))[1:-1].replace("\\\\", "\\")

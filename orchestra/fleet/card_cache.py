"""Cards made ready for their calls: each once, for all calls that it will get."""

from __future__ import annotations

from orchestra.agents.card import Card
from orchestra.agents.output_parser import Reader
from orchestra.agents.prompt import Script


class Part:
    """One card made ready: what is said for it, and how its answers are read."""

    __slots__ = ("reader", "script")

    def __init__(self, card: Card) -> None:
        """Raises `InputError` A007 where no prompt of the card can be rendered."""
        self.script, self.reader = Script(card), Reader(card)


class Cast:
    """The cards that were asked for, made ready."""

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        self._parts: dict[str, Part] = {}

    def of(self, card: Card) -> Part:
        """The card made ready; a card with another model or adapter is the same one here. Raises `InputError` A007."""
        part = self._parts.get(card.digest)
        if part is None:
            part = self._parts[card.digest] = Part(card)
        return part

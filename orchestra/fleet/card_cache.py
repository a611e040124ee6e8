"""Cards made ready for their calls: each once, for all calls that it will get."""

from __future__ import annotations

from orchestra.agents.card import Card
from orchestra.agents.output_parser import OutputParser
from orchestra.agents.prompt import CompiledPrompt


class PreparedCard:
    """One card made ready: what is said for it, and how its answers are read."""

    __slots__ = ("prompt", "reader")

    def __init__(self, card: Card) -> None:
        """Raises `InputError` A007 where no prompt of the card can be rendered."""
        self.prompt, self.reader = CompiledPrompt(card), OutputParser(card)


class CardCache:
    """The cards that were asked for, made ready."""

    __slots__ = ("_cards",)

    def __init__(self) -> None:
        self._cards: dict[str, PreparedCard] = {}

    def get(self, card: Card) -> PreparedCard:
        """The card made ready; a card with another model or adapter is the same one here. Raises `InputError` A007."""
        part = self._cards.get(card.digest)
        if part is None:
            part = self._cards[card.digest] = PreparedCard(card)
        return part

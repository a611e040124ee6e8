"""What a data set and an agent must have in common."""

from __future__ import annotations

import msgspec

from orchestra.agent.card import Card
from orchestra.values.json import digest


def contract_digest(card: Card) -> str:
    """Of an agent's types of input and output, the order of fields included: a data set is for one of them."""
    return digest(msgspec.json.encode([card.input_schema, card.output_schema]))

"""What a data set and an agent must have in common, and what an adapter is trained through."""

from __future__ import annotations

import msgspec

from orchestra.agent.card import Card
from orchestra.values.json import digest


def contract_digest(card: Card) -> str:
    """Of an agent's types of input and output, the order of fields included: a data set is for one of them."""
    return digest(msgspec.json.encode([card.input_schema, card.output_schema]))


def skill_digest(card: Card) -> str:
    """Of all that an agent's prompts and outputs follow from: an adapter that was trained through another skill is not this agent's."""
    return digest(msgspec.json.encode([card.input_schema, card.output_schema, card.system, card.template, card.evidence]))

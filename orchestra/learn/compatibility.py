"""What a data set and an agent must have in common, and what an adapter is trained through."""

from __future__ import annotations

import msgspec

from orchestra.agents.card import Card
from orchestra.core.errors import InputError
from orchestra.learn.data.dataset import DatasetManifest
from orchestra.schema.strict_json import digest


def contract_digest(card: Card) -> str:
    """Of an agent's types of input and output, the order of fields included: a data set is for one of them."""
    return digest(msgspec.json.encode([card.input_schema, card.output_form.schema]))


def skill_digest(card: Card) -> str:
    """Of all that an agent's prompts and outputs follow from: an adapter that was trained through another skill is not this agent's."""
    called = [card.calls] if card.calls else []  # cards of before keep theirs
    return digest(msgspec.json.encode([card.input_schema, card.output_form.schema, card.system, card.template, card.evidence, *called]))


def check_trainable(card: Card) -> Card:
    """The card, of an agent that can learn. Raises `InputError` N105 for an ensemble, whose members do."""
    if card.kind == "ensemble":
        reason = f"{card.name} is an ensemble, and learns nothing itself: its members are {', '.join(card.members)}"
        raise InputError("N105", reason, hint=f"name one of its members, such as {card.members[0]}")
    return card


def check_contract(card: Card, data: DatasetManifest) -> None:
    """Raises `InputError` N103 for a data set that was made for other types than the agent has."""
    if data.contract != contract_digest(card):
        reason = f"{data.name} was made for {data.agent} with other inputs or outputs than {card.name} has now"
        raise InputError("N103", reason, hint="make it again: orchestra learn data")

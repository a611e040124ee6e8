"""Compatibility of data sets, agents and adapters, as digests."""

from __future__ import annotations

import msgspec

from orchestra.agents.card import Card
from orchestra.core.errors import InputError
from orchestra.learn.data.dataset import DatasetManifest
from orchestra.schema.strict_json import digest


def contract_digest(card: Card) -> str:
    """Returns the digest of an agent's input and output types, including field order. A data set belongs to one
    contract.
    """
    return digest(msgspec.json.encode([card.input_schema, card.output_form.schema]))


def skill_digest(card: Card) -> str:
    """Returns the digest of all that determines an agent's prompts and outputs. An adapter belongs to one skill."""
    call_fields = [card.calls] if card.calls else []  # omitted if empty, so the digests of older cards stay valid
    return digest(
        msgspec.json.encode(
            [card.input_schema, card.output_form.schema, card.system, card.template, card.evidence, *call_fields]
        )
    )


def check_trainable(card: Card) -> Card:
    """Returns the card if its agent can be trained.

    Raises:
        InputError: N105 if the agent is an ensemble; its members can be trained.
    """
    if card.kind == "ensemble":
        reason = f"{card.name} is an ensemble and cannot be trained: its members are {', '.join(card.members)}"
        raise InputError("N105", reason, hint=f"name one of its members, such as {card.members[0]}")
    return card


def check_contract(card: Card, data: DatasetManifest) -> None:
    """Compares a data set with an agent.

    Raises:
        InputError: N103 if the data set was made for other types than the agent has.
    """
    if data.contract != contract_digest(card):
        reason = f"{data.name} was made for {data.agent} with other inputs or outputs than {card.name} has now"
        raise InputError("N103", reason, hint="make it again: orchestra learn data")

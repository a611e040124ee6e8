"""Ensembles: agents of the same types that answer a call together (`orchestra.agents.ensemble_voting`)."""

from __future__ import annotations

from collections.abc import Mapping

from orchestra.agents.card import Card, invalid_stored_card
from orchestra.core.errors import InputError
from orchestra.core.labels import is_allowed
from orchestra.core.suggestions import closest_match
from orchestra.schema.json_schema import format_field, format_type, strip_annotations
from orchestra.schema.types import Schema


def join_members(card: Card, cards: Mapping[str, Card]) -> Card:
    """Returns an ensemble with its members from `cards`. Any other card is returned unchanged.

    Raises:
        InputError: A019 if a member does not exist, A024 if an agent cannot be a member.
    """
    if card.kind != "ensemble" or card.member_cards:
        return card
    parts: list[Card] = []
    for number, name in enumerate(card.members):
        if (part := cards.get(name)) is None:
            near = closest_match(name, cards)
            hint = f"did you mean {near!r}?" if near else "orchestra agents list"
            raise InputError(
                "A019",
                f"members: there is no agent {name!r} with a card",
                location=card.locate("members", number),
                hint=hint,
            )
        if (reason := _membership_error(card, part)) is not None:
            message, location = (
                f"members: {name} cannot be one of {card.name}: {reason}",
                card.locate("members", number),
            )
            raise InputError("A024", message, location=location, hint="orchestra explain A024")
        parts.append(part)
    return card.with_members(parts)


def check_members(card: Card) -> Card:
    """Checks the members of a card restored from a run.

    Raises:
        InputError: A012 if the members cannot form the ensemble.
    """
    for part in card.member_cards:
        if (reason := _membership_error(card, part)) is not None:
            raise invalid_stored_card(f"{part.name} cannot be one of its members: {reason}", card.name)
    return card


def _membership_error(card: Card, part: Card) -> str | None:
    if part.kind in ("ensemble", "python"):
        return f"an agent of kind {part.kind} has no confidence"
    if part.tools or part.agents:
        return "it uses tools, and each of its calls is a step of its node"
    if not is_allowed(card.label, part.label):
        return f"it may see data up to {part.label}, and the ensemble up to {card.label}"
    for side, own_schema, member_schema in (
        ("input", card.input_schema, part.input_schema),
        ("output", card.output_schema, part.output_schema),
    ):
        if strip_annotations(own_schema) != strip_annotations(member_schema):
            return f"its {side} is {_describe_type(member_schema)}, and the ensemble's {_describe_type(own_schema)}"
    return None


def _describe_type(schema: Schema) -> str:
    fields = schema.get("properties", {})
    if not fields:
        return format_type(schema)
    return "{" + ", ".join(f"{name}: {format_field(schema, name)}" for name in fields) + "}"

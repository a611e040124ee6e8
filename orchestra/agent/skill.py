"""What an agent of kind `encoder` does. Its card alone tells, by what it takes and gives; its training and its arrays follow from that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

from orchestra.agent import committee, deduction, slots, spans, tables
from orchestra.agent.card import Card
from orchestra.agent.layout import EncoderLayout

Skill: TypeAlias = Literal["tables", "spans", "slots", "deduction", "committee"]
"""It reads tables, points at words, fills slots, deduces sums, or tells a label; the module of that name does it."""
FORMATS: Final[Mapping[Skill, str]] = {
    "tables": tables.FORMAT,
    "spans": spans.FORMAT,
    "slots": slots.FORMAT,
    "deduction": deduction.FORMAT,
    "committee": committee.FORMAT,
}
"""What `model.json` says that its arrays are."""
LAYOUTS: Final[Mapping[Skill, type[EncoderLayout]]] = {
    "tables": tables.Layout,
    "spans": spans.Layout,
    "slots": slots.Layout,
    "deduction": deduction.Layout,
    "committee": committee.Layout,
}
"""What `model.json` says of them."""


def skill(card: Card) -> Skill:
    """The skill of an agent."""
    if tables.of_tables(card):
        return "tables"
    if spans.points(card):
        return "spans"
    if slots.fills_slots(card):
        return "slots"
    return "deduction" if deduction.deduces(card) else "committee"

"""What an agent of kind `encoder` does. Its card alone tells, by what it takes and gives; its training and its arrays follow from that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

from orchestra.agents.card import Card
from orchestra.agents.inference import slot_filling, span_extraction, text_classifier
from orchestra.agents.inference.model_file import EncoderLayout
from orchestra.agents.inference.tables import reader
from orchestra.agents.inference.word_problems import solver

Skill: TypeAlias = Literal["tables", "spans", "slots", "deduction", "committee"]
"""It reads tables, points at words, fills slots, deduces sums, or tells a label; the module of that name does it."""
FORMATS: Final[Mapping[Skill, str]] = {
    "tables": reader.FORMAT,
    "spans": span_extraction.FORMAT,
    "slots": slot_filling.FORMAT,
    "deduction": solver.FORMAT,
    "committee": text_classifier.FORMAT,
}
"""What `model.json` says that its arrays are."""
LAYOUTS: Final[Mapping[Skill, type[EncoderLayout]]] = {
    "tables": reader.Layout,
    "spans": span_extraction.Layout,
    "slots": slot_filling.Layout,
    "deduction": solver.Layout,
    "committee": text_classifier.Layout,
}
"""What `model.json` says of them."""


def skill(card: Card) -> Skill:
    """The skill of an agent."""
    if reader.of_tables(card):
        return "tables"
    if span_extraction.points(card):
        return "spans"
    if slot_filling.fills_slots(card):
        return "slots"
    return "deduction" if solver.deduces(card) else "committee"

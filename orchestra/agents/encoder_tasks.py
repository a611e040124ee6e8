"""What an agent of kind `encoder` does. Its card alone tells, by what it takes and gives; its training and its arrays
follow from that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

from orchestra.agents.card import Card
from orchestra.agents.inference import slot_filling, span_extraction, text_classifier
from orchestra.agents.inference.model_file import EncoderModelConfig
from orchestra.agents.inference.tables import reader
from orchestra.agents.inference.word_problems import solver

EncoderTask: TypeAlias = Literal["tables", "spans", "slots", "deduction", "committee"]
"""It reads tables, points at words, fills slots, deduces sums, or tells a label; the module of that name does it."""
TASK_FORMATS: Final[Mapping[EncoderTask, str]] = {
    "tables": reader.FORMAT,
    "spans": span_extraction.FORMAT,
    "slots": slot_filling.FORMAT,
    "deduction": solver.FORMAT,
    "committee": text_classifier.FORMAT,
}
"""What `model.json` says that its arrays are."""
TASK_CONFIGS: Final[Mapping[EncoderTask, type[EncoderModelConfig]]] = {
    "tables": reader.TableReaderConfig,
    "spans": span_extraction.SpanExtractionConfig,
    "slots": slot_filling.SlotFillingConfig,
    "deduction": solver.WordProblemConfig,
    "committee": text_classifier.TextClassifierConfig,
}
"""What `model.json` says of them."""


def encoder_task(card: Card) -> EncoderTask:
    """The skill of an agent."""
    if reader.reads_tables(card):
        return "tables"
    if span_extraction.extracts_spans(card):
        return "spans"
    if slot_filling.fills_slots(card):
        return "slots"
    return "deduction" if solver.solves_word_problems(card) else "committee"

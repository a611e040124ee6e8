"""Tasks of agents of kind `encoder`. The types of a card determine the task; training and arrays depend on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

from orchestra.agents.card import Card
from orchestra.agents.inference import similarity, slot_filling, span_extraction, span_ranking, text_classifier
from orchestra.agents.inference.model_file import EncoderModelConfig
from orchestra.agents.inference.tables import reader
from orchestra.agents.inference.word_problems import solver

EncoderTask: TypeAlias = Literal["tables", "spans", "span ranking", "similarity", "slots", "deduction", "committee"]
"""Reads tables, selects one span or ranks several, compares texts, fills slots, computes sums, or predicts a label with
several classifiers.
"""
TASK_FORMATS: Final[Mapping[EncoderTask, str]] = {
    "tables": reader.FORMAT,
    "spans": span_extraction.FORMAT,
    "span ranking": span_ranking.FORMAT,
    "similarity": similarity.FORMAT,
    "slots": slot_filling.FORMAT,
    "deduction": solver.FORMAT,
    "committee": text_classifier.FORMAT,
}
"""The array formats in `model.json`."""
TASK_CONFIGS: Final[Mapping[EncoderTask, type[EncoderModelConfig]]] = {
    "tables": reader.TableReaderConfig,
    "spans": span_extraction.SpanExtractionConfig,
    "span ranking": span_ranking.SpanRankingConfig,
    "similarity": similarity.SimilarityConfig,
    "slots": slot_filling.SlotFillingConfig,
    "deduction": solver.WordProblemConfig,
    "committee": text_classifier.TextClassifierConfig,
}
"""The configurations in `model.json`."""


def encoder_task(card: Card) -> EncoderTask:
    """Returns the task of an agent."""
    if reader.reads_tables(card):
        return "tables"
    if span_extraction.extracts_spans(card):
        return "spans"
    if span_ranking.ranks_spans(card):
        return "span ranking"
    if similarity.compares_texts(card):
        return "similarity"
    if slot_filling.fills_slots(card):
        return "slots"
    return "deduction" if solver.solves_word_problems(card) else "committee"

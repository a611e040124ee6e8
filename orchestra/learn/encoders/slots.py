"""Training of slot taggers: from texts with the positions of their slots to the files of a card of kind `encoder`.

The base is frozen except for adapters on the linear layers of its blocks, and a head gives each word a label
(`orchestra.agents.inference.slot_filling`). The loss of a text is the negative log-likelihood of the labels of its
words. The tune split determines the temperature and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from orchestra.agents.inference.crf_tagger import OUTSIDE, slot_labels
from orchestra.agents.inference.slot_filling import FORMAT, SlotFiller, SlotFillingConfig, SlotInput
from orchestra.agents.inference.span_extraction import Window
from orchestra.core.errors import InputError
from orchestra.learn.compatibility import check_contract
from orchestra.learn.crf import TaggerFields
from orchestra.learn.data.dataset import DatasetRow
from orchestra.learn.encoders.training import (
    MIN_TUNE_ROWS,
    TEMPERATURES,
    HeadTraining,
    TrainedEncoder,
    TrainingExamples,
    maximize_likelihood,
    member_arrays,
)

if TYPE_CHECKING:
    from torch import Tensor

    from orchestra.agents.inference.encoder import Encoder
    from orchestra.learn.encoders.member import TrainingStep
    from orchestra.learn.encoders.tuned import FrozenEncoder, TokenHeadEncoder
    from orchestra.learn.encoders.warm_start import WarmStart

ARRAYS_FILE = "slots.npz"
EPOCHS = 5
"""Default number of epochs."""
TOKENS = 256
"""Tokens of a window."""
BATCH_TOKENS = 1_000
"""Tokens of a batch: texts with slots are short, and larger batches would give too few steps."""
HEAD_RATE = 4.0
"""Factor of the head's learning rate relative to the adapters': the head starts from random weights."""


@dataclass(frozen=True, slots=True)
class SlotExample:
    """A window of a text, the first token of each of its words, and the index of each word's label."""

    window: Window
    positions: tuple[int, ...]
    labels: tuple[int, ...]


def run(training: HeadTraining, on_step: Callable[[TrainingStep], None], *, fresh: bool = False) -> TrainedEncoder:
    """Trains, or resumes a killed training from its last checkpoint.

    Raises:
        InputError: N103 if the data set has other types; N104 if it has no rows; N150 if no row has a slot; N151 if the
        card has no text input; N140 if a checkpoint belongs to another training.
    """
    places = TaggerFields.from_card(training.card)
    check_contract(training.card, training.data.manifest)
    labels = _slot_labels(training.build_examples(lambda row: row), places)
    reader, frozen_encoder = training.load_base(fresh=fresh)
    overlap = min(SlotFillingConfig.model_fields["overlap"].default, training.tokens // 4)
    fields = {"input": places.input, "hint": places.hint, "output": places.output, "labels": labels, "overlap": overlap}
    layout = training.base_config(FORMAT, ARRAYS_FILE, fields)
    draft = SlotFillingConfig.model_validate({**layout, "sha256": "0" * 64})
    examples = [
        example for row in training.build_examples(lambda row: slot_examples(row, reader, draft)) for example in row
    ]
    arrays = member_arrays(_train_member(training, frozen_encoder, examples, labels, on_step))
    fitted_settings, figures = _fit_temperature(SlotFiller(draft, arrays, reader), training.data.rows["tune"])
    return training.build_files(layout | fitted_settings, arrays, figures)


def _adapt_warm_start(warm_start: WarmStart, labels: Sequence[str]) -> WarmStart:
    """Returns the warm start with the labels of these rows: known labels continue, new ones start from zero."""
    return (
        warm_start if warm_start.adapters_only else replace(warm_start, outputs=warm_start.labels).with_outputs(labels)
    )


def _slot_labels(rows: Sequence[DatasetRow], places: TaggerFields) -> list[str]:
    """Returns the labels of the rows. Raises `InputError` N150 if no row has a slot."""
    slots = sorted({name for row in rows for name in row.output[places.output]})
    if not slots:
        raise InputError(
            "N150",
            "no row has a slot",
            hint='{"input": {"text": "for 8"}, "output": {"slots": {"people": {...}}}}',
        )
    return [OUTSIDE, *(f"{part}-{name}" for name in slots for part in "BI")]


def slot_examples(row: DatasetRow, encoder: Encoder, config: SlotFillingConfig) -> list[SlotExample] | None:
    """Returns the windows of a row; None if a slot begins or ends inside a word, or if there are no words."""
    text = SlotInput.from_inputs(encoder, config, row.input)
    labels = slot_labels(text.words, row.output[config.output])
    if labels is None:
        return None
    positions = [
        (at, config.labels.index(label)) for at, label in zip(text.first_tokens, labels, strict=True) if at is not None
    ]
    examples = []
    for begins, window in text.windows:
        inside = [(at - begins, label) for at, label in positions if 0 <= at - begins < len(window.offsets)]
        examples.append(
            SlotExample(window, tuple(window.start + at for at, _ in inside), tuple(label for _, label in inside))
        )
    return [example for example in examples if example.positions] or None


def _train_member(
    training: HeadTraining,
    base: FrozenEncoder,
    examples: Sequence[SlotExample],
    labels: Sequence[str],
    on_step: Callable[[TrainingStep], None],
) -> TokenHeadEncoder:
    """Trains a tagger on the examples."""
    from orchestra.learn.encoders.tuned import TokenHeadEncoder

    member = TokenHeadEncoder(base, training.hyperparameters(base, HEAD_RATE), len(labels))
    facts = (
        FORMAT,
        list(labels),
        member.hyperparameters,
        BATCH_TOKENS,
        [(example.window.tokens, example.positions, example.labels) for example in examples],
    )
    lesson = TrainingExamples(
        lambda batch: _loss(member, [examples[at] for at in batch]),
        [len(example.window.tokens) for example in examples],
        facts,
        BATCH_TOKENS,
    )
    warm_start = (
        None if training.warm_start is None else _adapt_warm_start(training.warm_start.for_format(FORMAT), labels)
    )
    return training.train_member(member, lesson, warm_start, on_step)


def _loss(member: TokenHeadEncoder, readings: Sequence[SlotExample]) -> Tensor:
    """Returns the negative log-likelihood of the labels of a text's words, averaged over the texts."""
    import torch
    from torch.nn import functional

    from orchestra.learn.encoders.tuned import pad_tokens

    tokens, mask = pad_tokens([example.window.tokens for example in readings])
    rows = torch.tensor([row for row, example in enumerate(readings) for _ in example.positions])
    at = torch.tensor([place for example in readings for place in example.positions])
    targets = torch.tensor([label for example in readings for label in example.labels])
    logits = member.logits(member.base.embed_tokens(tokens), mask)[rows, at]
    return functional.cross_entropy(logits, targets, reduction="sum") / len(readings)


def _fit_temperature(reader: SlotFiller, rows: Sequence[DatasetRow]) -> tuple[dict[str, float], dict[str, float]]:
    """Returns the temperature with the best likelihood, and the share of rows of the tune split whose slots are all
    correct; the default temperature and nothing for few rows.
    """
    layout, readings = reader.config, []
    for row in rows if len(rows) >= MIN_TUNE_ROWS else ():
        text = SlotInput.from_inputs(reader.encoder, layout, row.input)
        labels = slot_labels(text.words, row.output[layout.output])
        if text.words and labels is not None:
            readings.append((labels, reader.word_logits(text)))
    if not readings:
        return {"heat": 1.0}, {}

    def predictions(heat: float) -> list[tuple[bool, float]]:
        reader.config = layout.model_copy(update={"heat": heat})
        decoded_readings = [(labels, *reader.decode(scores)) for labels, scores in readings]
        return [(labels == expected_labels, sure) for labels, expected_labels, sure in decoded_readings]

    heat = maximize_likelihood(TEMPERATURES, predictions)
    return {"heat": heat}, {"all slots": sum(is_right for is_right, _ in predictions(heat)) / len(readings)}

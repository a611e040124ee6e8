"""Training of classifiers on a user's data set: a committee of one member and a linear classifier; for pairs of texts,
one member with all blocks tuned.

It takes minutes on two cores for ten thousand short texts. Committees of several members are slightly better and as
many times slower, in training and in serving; those of the package were trained by `bench/train_intents.py`.
"""

from __future__ import annotations

import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from orchestra.core.errors import InputError
from orchestra.fleet.weights.encoders import describe_base
from orchestra.learn.compatibility import check_contract
from orchestra.learn.data.dataset import DatasetRow
from orchestra.learn.encoders.classifier import ClassifierFields, CommitteeRows, CommitteeSettings, train_committee
from orchestra.learn.encoders.texts import LabelledText, normalize_text
from orchestra.learn.encoders.training import EncoderTraining, TrainedEncoder

if TYPE_CHECKING:
    from orchestra.learn.encoders.member import TrainingStep

PACKAGES = ("torch", "safetensors", "sklearn", "tokenizers", "threadpoolctl")
MANY_LABELS = 100
"""From this number of labels on, the linear classifier has fewer features: it has one weight for each label and
feature.
"""
PAIR_EPOCHS, PAIR_TOKENS = 3, 512
"""Default number of epochs over pairs, and the maximal number of tokens of a pair."""
LEARNING_RATE, WARM_START_LEARNING_RATE = 5e-4, 2e-4
"""Peak learning rate if all blocks are tuned, from the base and from a warm start."""
ALL_BLOCKS = 1_000
"""More blocks than any encoder has."""
MIN_TEXTS_PER_LABEL = 2
"""Minimal number of texts of a label: one for training and one held out for the weights."""


@dataclass(frozen=True, kw_only=True)
class ClassifierTraining(EncoderTraining):
    """The training of a classifier."""

    epochs: int | None = None
    minutes: float | None = None
    learning_rate: float | None = None
    """Peak learning rate; None for the default of the task."""

    @property
    def settings(self) -> tuple[object, ...]:
        """Settings that determine the result, beside the card, the rows and the base."""
        return (
            self.epochs,
            self.minutes,
            self.seed,
            self.start_digest,
            *(() if self.learning_rate is None else (self.learning_rate,)),
        )

    @property
    def checkpoint_path(self) -> Path:
        """The checkpoint of the only member."""
        return self.checkpoint_folder / "member-0.safetensors"


def run(
    training: ClassifierTraining, on_step: Callable[[TrainingStep], None], *, fresh: bool = False
) -> TrainedEncoder:
    """Trains, or resumes a killed training from its last checkpoint.

    Raises:
        InputError: N103 if the data set has other types; N104 if it has no rows or only one label; N141 if the card has
        no labels; N123 if the warm start does not fit; N143 if a label has too few texts; N144 if the out-of-scope
        number does not determine the out-of-scope label.
    """
    card, data = training.card, training.data
    check_contract(card, data.manifest)
    rows = data.rows["train"]
    if not rows:
        raise InputError(
            "N104", f"{data.manifest.name} has no rows in the train split", hint="use more rows, or other split shares"
        )
    number = next(
        (
            name
            for name, schema in card.output_form.schema.get("properties", {}).items()
            if schema.get("type") == "number"
        ),
        "",
    )
    card_fields = ClassifierFields.from_card(card, number)
    output = card_fields.output
    labelled_texts = [
        LabelledText(
            str(row.input[card_fields.text]),
            str(row.output[output]),
            str(row.input[card_fields.paired_text]) if card_fields.paired_text else "",
        )
        for row in rows
    ]
    _check_texts(labelled_texts, output)
    outside = _find_out_of_scope_label(rows, output, number) if number else ""
    if fresh:
        shutil.rmtree(training.checkpoint_folder, ignore_errors=True)
    base = (training.base, describe_base(card.model, training.base))
    warm_start = training.warm_start
    if warm_start is not None and not card_fields.paired_text:
        reason = f"{card.name} classifies texts, and its classifier over n-grams is trained on all rows at once"
        raise InputError("N123", reason, hint="leave out --start, and add the earlier rows")
    plan = (
        replace(_pair_settings(training), warm_start=warm_start)
        if card_fields.paired_text
        else _text_settings(training, labelled_texts, outside)
    )
    return train_committee(
        card,
        CommitteeRows(labelled_texts, (training.source,)),
        base,
        plan,
        training.checkpoint_folder,
        lambda _, step: on_step(step),
    )


def _text_settings(training: ClassifierTraining, rows: Sequence[LabelledText], outside: str) -> CommitteeSettings:
    from orchestra.learn.encoders.tuned import EncoderHyperparameters
    from orchestra.learn.linear import MANY_LABELS_HYPERPARAMETERS, ClassifierHyperparameters

    encoder_hyperparameters = EncoderHyperparameters()
    hyperparameters = EncoderHyperparameters(
        epochs=training.epochs or encoder_hyperparameters.epochs,
        learning_rate=training.learning_rate or encoder_hyperparameters.learning_rate,
        seed=training.seed,
    )
    fit = MANY_LABELS_HYPERPARAMETERS if len({row.label for row in rows}) > MANY_LABELS else ClassifierHyperparameters()
    return CommitteeSettings(hyperparameters, fit, members=1, minutes=training.minutes, out_of_scope_label=outside)


def _pair_settings(training: ClassifierTraining) -> CommitteeSettings:
    """Returns the settings for pairs: all blocks are tuned, because the last blocks alone do not learn relations of two
    texts.
    """
    from orchestra.learn.encoders.tuned import EncoderHyperparameters

    rate = training.learning_rate or (LEARNING_RATE if training.start is None else WARM_START_LEARNING_RATE)
    hyperparameters = EncoderHyperparameters(
        epochs=training.epochs or PAIR_EPOCHS,
        learning_rate=rate,
        rank=16,
        blocks=ALL_BLOCKS,
        batch_size=16,
        seed=training.seed,
    )
    return CommitteeSettings(hyperparameters, None, members=1, minutes=training.minutes, tokens=PAIR_TOKENS)


def _check_texts(rows: Sequence[LabelledText], output: str) -> None:
    texts: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        texts[row.label].add(normalize_text(row.text))
    if len(texts) < MIN_TEXTS_PER_LABEL:
        raise InputError("N104", f"all training rows have the same {output}", hint="use rows with at least two labels")
    if rare_labels := sorted(label for label, label_texts in texts.items() if len(label_texts) < MIN_TEXTS_PER_LABEL):
        rest = f" and {len(rare_labels) - 3} more" if len(rare_labels) > 3 else ""
        raise InputError(
            "N143",
            f"only one training text has the label {', '.join(map(repr, rare_labels[:3]))}{rest}",
            hint="at least two texts",
        )


def _find_out_of_scope_label(rows: Sequence[DatasetRow], output: str, number: str) -> str:
    """Returns the out-of-scope label: that of the texts whose number is 1."""
    counts = Counter(str(row.output[output]) for row in rows if row.output[number] > 0.5)
    inside = {str(row.output[output]) for row in rows if row.output[number] <= 0.5}
    if len(counts) != 1 or inside & counts.keys():
        reason = f"{number} is 1 for {', '.join(map(repr, counts)) or 'no label'}"
        raise InputError(
            "N144", f"{reason}; it must be 1 for one label, and 0 for all others", hint="orchestra explain N144"
        )
    return next(iter(counts))

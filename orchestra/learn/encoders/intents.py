"""Intents: an agent of kind `encoder`, trained on a user's data set: a committee of one member and a linear classifier; or, of pairs of
texts, one member alone, all of whose blocks are tuned.

Minutes on two cores for ten thousand short texts. Committees of several members are a little better and as many times slower, to train and
to serve; those of the package were trained by `bench/train_intents.py`.
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
"""Labels from which on the linear classifier gets fewer features: its weights are a number for each of them."""
PAIR_EPOCHS, PAIR_TOKENS = 3, 512
"""Passes over pairs where nothing is said, and the tokens of one that are read at most."""
LEARNING_RATE, WARM_START_LEARNING_RATE = 5e-4, 2e-4
"""The highest learning rate where all blocks are tuned, from the start and from what was learnt before."""
ALL_BLOCKS = 1_000
"""Blocks of an encoder, however many it has."""
MIN_TEXTS_PER_LABEL = 2
"""Texts that a label needs: one is learnt, and one is left out to settle what the parts count."""


@dataclass(frozen=True, kw_only=True)
class ClassifierTraining(EncoderTraining):
    """Of what tells labels."""

    epochs: int | None = None
    minutes: float | None = None
    learning_rate: float | None = None
    """The highest learning rate; None for that which fits what is learnt."""

    @property
    def settings(self) -> tuple[object, ...]:
        """What the result follows from, beside the card, the rows and the base."""
        return self.epochs, self.minutes, self.seed, self.start_digest, *(() if self.learning_rate is None else (self.learning_rate,))

    @property
    def checkpoint_path(self) -> Path:
        """Where its checkpoint is kept: that of the only member."""
        return self.checkpoint_folder / "member-0.safetensors"


def run(training: ClassifierTraining, on_step: Callable[[TrainingStep], None], *, fresh: bool = False) -> TrainedEncoder:
    """Trains, or goes on after the last checkpoint of a training that was killed.

    Raises `InputError` N103 for a data set of other types, N104 for one without rows or with one label, N141 for a card that tells no
    labels, N123 for a start that does not fit, N143 for a label with too few texts, N144 where the number does not say which label is
    that of texts with none of the others.
    """
    card, data = training.card, training.data
    check_contract(card, data.manifest)
    rows = data.rows["train"]
    if not rows:
        raise InputError("N104", f"{data.manifest.name} has no rows to train on", hint="more rows, or other shares of the parts")
    number = next((name for name, schema in card.output_form.schema.get("properties", {}).items() if schema.get("type") == "number"), "")
    face = ClassifierFields.from_card(card, number)
    output = face.output
    labelled = [
        LabelledText(str(row.input[face.text]), str(row.output[output]), str(row.input[face.paired_text]) if face.paired_text else "")
        for row in rows
    ]
    _check_texts(labelled, output)
    outside = _find_out_of_scope_label(rows, output, number) if number else ""
    if fresh:
        shutil.rmtree(training.checkpoint_folder, ignore_errors=True)
    base = (training.base, describe_base(card.model, training.base))
    begun = training.warm_start
    if begun is not None and not face.paired_text:
        reason = f"{card.name} tells labels of texts, and its classifier over n-grams learns from all rows at once"
        raise InputError("N123", reason, hint="leave --start out, and give it the rows of before too")
    plan = replace(_pair_settings(training), begun=begun) if face.paired_text else _text_settings(training, labelled, outside)
    return train_committee(
        card, CommitteeRows(labelled, (training.source,)), base, plan, training.checkpoint_folder, lambda _, step: on_step(step)
    )


def _text_settings(training: ClassifierTraining, rows: Sequence[LabelledText], outside: str) -> CommitteeSettings:
    from orchestra.learn.encoders.tuned import EncoderHyperparameters
    from orchestra.learn.linear import MANY_LABELS_HYPERPARAMETERS, ClassifierHyperparameters

    own = EncoderHyperparameters()
    pace = EncoderHyperparameters(
        epochs=training.epochs or own.epochs, learning_rate=training.learning_rate or own.learning_rate, seed=training.seed
    )
    fit = MANY_LABELS_HYPERPARAMETERS if len({row.label for row in rows}) > MANY_LABELS else ClassifierHyperparameters()
    return CommitteeSettings(pace, fit, members=1, minutes=training.minutes, out_of_scope_label=outside)


def _pair_settings(training: ClassifierTraining) -> CommitteeSettings:
    """How pairs are learnt: what one text says of another is not in a few last blocks."""
    from orchestra.learn.encoders.tuned import EncoderHyperparameters

    rate = training.learning_rate or (LEARNING_RATE if training.start is None else WARM_START_LEARNING_RATE)
    pace = EncoderHyperparameters(
        epochs=training.epochs or PAIR_EPOCHS, learning_rate=rate, rank=16, blocks=ALL_BLOCKS, batch_size=16, seed=training.seed
    )
    return CommitteeSettings(pace, None, members=1, minutes=training.minutes, tokens=PAIR_TOKENS)


def _check_texts(rows: Sequence[LabelledText], output: str) -> None:
    texts: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        texts[row.label].add(normalize_text(row.text))
    if len(texts) < MIN_TEXTS_PER_LABEL:
        raise InputError("N104", f"all rows to train on have the same {output}", hint="rows of at least two labels")
    if few := sorted(label for label, said in texts.items() if len(said) < MIN_TEXTS_PER_LABEL):
        rest = f" and {len(few) - 3} more" if len(few) > 3 else ""
        raise InputError(
            "N143", f"one text alone to train on has the label {', '.join(map(repr, few[:3]))}{rest}", hint="at least two texts"
        )


def _find_out_of_scope_label(rows: Sequence[DatasetRow], output: str, number: str) -> str:
    """The label of texts that have none of the others: those whose number is 1."""
    found = Counter(str(row.output[output]) for row in rows if row.output[number] > 0.5)
    inside = {str(row.output[output]) for row in rows if row.output[number] <= 0.5}
    if len(found) != 1 or inside & found.keys():
        said = f"{number} is 1 for {', '.join(map(repr, found)) or 'no label'}"
        raise InputError("N144", f"{said}; it must be 1 for one label, and 0 for all others", hint="orchestra explain N144")
    return next(iter(found))

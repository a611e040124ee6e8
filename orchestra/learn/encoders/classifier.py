"""Training of committees of classifiers: from labelled texts, or pairs of texts, to the files of a card of kind
`encoder`.

Each member is the base with its own adapters and leaves out one fold of the rows. The predictions on these held-out
folds determine the weights of the members and of the linear classifier, and the calibration of the out-of-scope
probability.
"""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestra.agents.card import Card
from orchestra.agents.inference.array_files import pack_arrays
from orchestra.agents.inference.model_file import BaseEncoder, TrainingSource
from orchestra.agents.inference.text_classifier import FORMAT, MIN_PROBABILITY, OutOfScopeLabel, log_softmax, sha256_hex
from orchestra.core.errors import InputError
from orchestra.learn.encoders.texts import LabelledText, assign_folds
from orchestra.learn.encoders.texts import labelled_texts_digest as rows_digest
from orchestra.learn.encoders.training import TrainedEncoder

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from orchestra.agents.inference.encoder import Encoder
    from orchestra.learn.encoders.member import TrainingStep
    from orchestra.learn.encoders.tuned import EncoderHyperparameters, FrozenEncoder
    from orchestra.learn.encoders.warm_start import WarmStart
    from orchestra.learn.linear import ClassifierHyperparameters

ARRAYS_FILE, LINEAR_FILE, LINEAR_ARRAYS_FILE = "adapters.npz", "linear.json", "linear.npz"
MAX_EPOCHS = 20
"""Maximal number of epochs of a member, for any time budget."""
TIMED_BATCHES = 4
"""Number of batches that are timed to estimate the duration of an epoch."""
EPOCHS_FILE = "epochs.json"
"""The number of epochs that a time budget became, stored beside the checkpoints: a resumed training keeps it."""


@dataclass(frozen=True, slots=True)
class CommitteeSettings:
    """Settings of a committee."""

    hyperparameters: EncoderHyperparameters
    linear_hyperparameters: ClassifierHyperparameters | None
    """Hyperparameters of the linear classifier; None for pairs of texts."""
    members: int = 2
    minutes: float | None = None
    """Approximate time budget of the complete training; it determines the number of epochs."""
    tokens: int = 64
    """Maximal number of tokens of a text."""
    warm_start: WarmStart | None = None
    """The weights that the only member starts from; None for the base."""
    out_of_scope_label: str = ""
    """The label of out-of-scope texts; empty if every text has a label."""
    out_of_scope_repeats: int = 5
    """How often a member sees each out-of-scope text in an epoch."""
    out_of_scope_share: float = 0.15
    """The assumed share of out-of-scope texts in the calibration."""


@dataclass(frozen=True, slots=True)
class CommitteeRows:
    """Training rows: rows of the agent's own task, and additional texts of other sources."""

    own_rows: Sequence[LabelledText]
    sources: tuple[TrainingSource, ...]
    other_rows: Sequence[LabelledText] = ()

    @classmethod
    def from_sources(
        cls, own: tuple[str, str, Sequence[LabelledText]], *others: tuple[str, str, Sequence[LabelledText]]
    ) -> CommitteeRows:
        """Builds the rows, with the names and licences of their sources."""
        sources = tuple(
            TrainingSource(name=name, licence=licence, rows=len(rows), digest=rows_digest(rows))
            for name, licence, rows in (own, *others)
        )
        return cls(own[2], sources, [row for _, _, rows in others for row in rows])


@dataclass(frozen=True, slots=True)
class HeldOutPredictions:
    """Log-probabilities of the parts on the rows that each member left out, (rows, labels)."""

    rows: Sequence[LabelledText]
    members: NDArray[Any]
    linear: NDArray[Any]
    targets: NDArray[Any]
    """The indices of the correct labels."""


@dataclass(frozen=True, slots=True)
class CommitteeWeights:
    """The weights of the parts, and the metrics on held-out rows."""

    member_share: float
    linear_share: float
    slope: float
    bias: float
    accuracy: Mapping[str, float]


def train_committee(
    card: Card,
    rows: CommitteeRows,
    base: tuple[Path, BaseEncoder],
    settings: CommitteeSettings,
    checkpoint_folder: Path,
    on_step: Callable[[int, TrainingStep], None],
) -> TrainedEncoder:
    """Trains a committee.

    Args:
        base: The folder of the encoder and its entry in the card.
        checkpoint_folder: The folder for checkpoints.
        on_step: Called with the number of the member and its step.

    Raises:
        InputError: N141 if the card has no labels; N142 if a label is not in the card; N123 if the warm start does not
        fit; N140 if a checkpoint belongs to another training.
    """
    from orchestra.learn.linear import fit_classifier

    card_fields = ClassifierFields.from_card(card, settings.out_of_scope_label)
    labels = _check_labels(card, card_fields.output, rows)
    if settings.warm_start is not None and list(settings.warm_start.labels) != labels:
        reason = (
            f"the labels of {settings.warm_start.folder} are {', '.join(settings.warm_start.labels) or 'unknown'}, "
            f"and the rows have {', '.join(labels)}"
        )
        raise InputError("N123", reason, hint="use rows with exactly its labels")
    arrays, predictions = _train_members(rows, labels, base[0], settings, checkpoint_folder, on_step)
    files: dict[str, bytes] = {}
    classifier: Callable[[str], NDArray[Any]] | None = None
    if settings.linear_hyperparameters is not None:
        fold = dict(zip(rows.own_rows, assign_folds(rows.own_rows), strict=True))
        training_rows = [row for row in rows.own_rows if fold[row] >= settings.members]
        classifier = fit_classifier(
            [*training_rows, *rows.other_rows],
            (card_fields.text, card_fields.output),
            settings.linear_hyperparameters,
            LINEAR_ARRAYS_FILE,
        ).classifier.probabilities
        linear = fit_classifier(
            [*rows.own_rows, *rows.other_rows],
            (card_fields.text, card_fields.output),
            settings.linear_hyperparameters,
            LINEAR_ARRAYS_FILE,
        )
        files = {LINEAR_ARRAYS_FILE: linear.arrays, LINEAR_FILE: linear.config_json.encode()}
    weights = fit_shares(held_out_predictions(predictions, labels, classifier), labels, settings)
    outside = (
        OutOfScopeLabel(
            label=settings.out_of_scope_label,
            output=card_fields.out_of_scope_output,
            slope=weights.slope,
            bias=weights.bias,
        )
        if settings.out_of_scope_label
        else None
    )
    layout: dict[str, Any] = {
        "format": FORMAT,
        "input": card_fields.text,
        **({"beside": card_fields.paired_text} if card_fields.paired_text else {}),
        "output": card_fields.output,
        "outside": None if outside is None else outside.model_dump(),
        "base": base[1].model_dump(),
        "tokens": settings.tokens,
        "members": settings.members,
        "share": weights.member_share,
        "linear": {"file": LINEAR_FILE, "sha256": sha256_hex(files[LINEAR_FILE]), "share": weights.linear_share}
        if files
        else None,
        "data": [
            source.model_dump()
            for source in (*(settings.warm_start.sources if settings.warm_start else ()), *rows.sources)
        ],
        "labels": labels,
        "arrays": ARRAYS_FILE,
    }
    text, data = pack_arrays(layout, arrays)
    return TrainedEncoder(files | {ARRAYS_FILE: data, card.data: text.encode()}, weights.accuracy)


@dataclass(frozen=True, slots=True)
class ClassifierFields:
    """The fields of a card that a classifier reads and writes."""

    text: str
    """The input."""
    paired_text: str
    """The second input of a pair; empty for single texts."""
    output: str
    """The label."""
    out_of_scope_output: str
    """The out-of-scope probability; empty if every text has a label."""

    @classmethod
    def from_card(cls, card: Card, out_of_scope_label: str) -> ClassifierFields:
        """Returns the fields of a card.

        Raises:
            InputError: N141 if the card has other fields.
        """
        inputs, outputs = list(card.input_schema.get("properties", {})), card.output_form.schema.get("properties", {})
        of_labels = [name for name in outputs if _enum_values(card, outputs[name])]
        numbers = [name for name in outputs if outputs[name].get("type") == "number"]
        fits = len(of_labels) == 1 and len(outputs) == 1 + len(numbers) and len(numbers) == bool(out_of_scope_label)
        fits = fits and not (
            out_of_scope_label and (card.computed or card.calibration)
        )  # the out-of-scope label has its own calibration
        if fits and (len(inputs) == 1 or (len(inputs) == 2 and not out_of_scope_label)):
            return cls(
                inputs[0], inputs[1] if len(inputs) == 2 else "", of_labels[0], numbers[0] if out_of_scope_label else ""
            )
        requirement = (
            "one field of an enum, and one number for the out-of-scope probability"
            if out_of_scope_label
            else "one field, of an enum"
        )
        raise InputError(
            "N141",
            f"{card.name} has no labels of texts",
            hint=f"one input{'' if out_of_scope_label else ', or two'}; in the output {requirement}",
        )


def _enum_values(card: Card, schema: Mapping[str, Any]) -> list[str]:
    if "$ref" in schema:
        schema = card.output_schema.get("$defs", {}).get(str(schema["$ref"]).rpartition("/")[2], {})
    return list(schema.get("enum", ()))


def _check_labels(card: Card, output: str, rows: CommitteeRows) -> list[str]:
    known_labels = set(_enum_values(card, card.output_schema["properties"][output]))
    labels = sorted({row.label for row in rows.own_rows})
    for label in (*labels, *(row.label for row in rows.other_rows)):
        if label not in known_labels:
            raise InputError(
                "N142", f"{label!r} is not a label of {card.name}", hint="add it to the enum, or leave the rows out"
            )
    return labels


def _train_members(
    rows: CommitteeRows,
    labels: list[str],
    folder: Path,
    settings: CommitteeSettings,
    checkpoint_folder: Path,
    on_step: Callable[[int, TrainingStep], None],
) -> tuple[dict[str, NDArray[Any]], list[tuple[LabelledText, NDArray[Any]]]]:
    """Returns the arrays of all members, and each member's predictions on its held-out rows."""
    import numpy as np
    import torch

    from orchestra.agents.inference.encoder import Encoder
    from orchestra.learn.encoders import tuned
    from orchestra.learn.encoders.member import embed_texts, train_member

    start = time.monotonic()
    reader, frozen_encoder, number = (
        Encoder.load(folder),
        tuned.FrozenEncoder.load(folder),
        {label: index for index, label in enumerate(labels)},
    )
    texts, blocks = (
        [*rows.own_rows, *rows.other_rows],
        min(settings.hyperparameters.blocks, frozen_encoder.shape.layers),
    )
    states = frozen_encoder.lower_block_states([_encode_row(reader, row, settings) for row in texts], blocks)
    pace = replace(settings.hyperparameters, blocks=blocks)
    if settings.minutes is not None:
        pace = replace(
            pace,
            epochs=_epochs_within_budget(
                frozen_encoder, states, [number[row.label] for row in texts], pace, settings, checkpoint_folder, start
            ),
        )
    fold = [*assign_folds(rows.own_rows), *assign_folds(rows.other_rows)]
    members: list[dict[str, torch.Tensor]] = []
    predictions: list[tuple[LabelledText, NDArray[Any]]] = []
    for index in range(settings.members):
        indexes = [at for at in range(len(texts)) if fold[at] != index]
        indexes += [
            at for at in indexes if at < len(rows.own_rows) and texts[at].label == settings.out_of_scope_label
        ] * (settings.out_of_scope_repeats - 1)
        targets = [number[texts[at].label] for at in indexes]
        tuning = replace(pace, seed=pace.seed + index)
        checkpoint = checkpoint_folder / f"member-{index}.safetensors"
        report = partial(on_step, index)
        inputs = [states[at] for at in indexes]
        member = train_member(
            frozen_encoder, inputs, targets, len(labels), tuning, checkpoint, report, settings.warm_start
        )
        rest = [at for at in range(len(rows.own_rows)) if fold[at] == index]
        with torch.no_grad():
            logits = member.logits(embed_texts(member, [states[at] for at in rest]))
        predictions += zip([texts[at] for at in rest], logits.log_softmax(1).numpy(), strict=True)
        members.append(member.arrays())
    arrays = {
        name: torch.stack([tensors[name] for tensors in members]).numpy().astype(np.float16) for name in members[0]
    }
    return arrays | {"sharpness": arrays["sharpness"].astype(np.float32)}, predictions


def _encode_row(reader: Encoder, row: LabelledText, settings: CommitteeSettings) -> list[int]:
    """Encodes a text; without a linear classifier, a pair."""
    return (
        reader.truncate_pair(row.text, row.paired_text, settings.tokens)
        if settings.linear_hyperparameters is None
        else reader.tokenize(row.text, settings.tokens)
    )


def _epochs_within_budget(
    frozen_encoder: FrozenEncoder,
    states: Sequence[Tensor],
    labels: Sequence[int],
    hyperparameters: EncoderHyperparameters,
    settings: CommitteeSettings,
    checkpoint_folder: Path,
    started_at: float,
) -> int:
    """Returns the number of epochs that fit into the time budget, from the time of some batches. The first result is
    stored.
    """
    from orchestra.learn.encoders.member import train_member

    assert settings.minutes is not None
    path = checkpoint_folder / EPOCHS_FILE
    if path.is_file():
        return int(json.loads(path.read_bytes()))
    sample_indexes = range(min(len(states), TIMED_BATCHES * hyperparameters.batch_size))
    targets = {label: index for index, label in enumerate(dict.fromkeys(labels[at] for at in sample_indexes))}
    with tempfile.TemporaryDirectory() as place:
        start = time.monotonic()
        once, ignore_step = replace(hyperparameters, epochs=1), (lambda step: None)
        train_member(
            frozen_encoder,
            [states[at] for at in sample_indexes],
            [targets[labels[at]] for at in sample_indexes],
            len(targets),
            once,
            Path(place) / "m",
            ignore_step,
        )
    now = time.monotonic()
    epoch = max(1e-9, (now - start) * len(states) / len(sample_indexes)) * settings.members
    epoch_count = min(MAX_EPOCHS, max(1, int((settings.minutes * 60 - (now - started_at)) / epoch)))
    checkpoint_folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(epoch_count))
    return epoch_count


def held_out_predictions(
    held: Sequence[tuple[LabelledText, NDArray[Any]]], labels: list[str], linear: Callable[[str], NDArray[Any]] | None
) -> HeldOutPredictions:
    """Returns the predictions of the members and the linear classifier side by side; without a classifier, uniform
    ones.
    """
    import numpy as np

    rows, members = [row for row, _ in held], np.stack([voice for _, voice in held])
    linear_predictions = (
        np.zeros_like(members)
        if linear is None
        else np.log(np.maximum(np.stack([linear(row.text) for row in rows]), MIN_PROBABILITY))
    )
    return HeldOutPredictions(rows, members, linear_predictions, np.array([labels.index(row.label) for row in rows]))


SHARE_GRID = tuple(round(0.1 * step, 1) for step in range(21))
"""Candidate weights of a part."""


def fit_shares(held: HeldOutPredictions, labels: list[str], settings: CommitteeSettings) -> CommitteeWeights:
    """Returns the weights with the least log loss on held-out rows, and the calibration of the out-of-scope label."""
    import numpy as np

    def loss(shares: tuple[float, float]) -> float:
        log_probabilities = log_softmax(shares[0] * held.members + shares[1] * held.linear)
        return -float(log_probabilities[np.arange(len(held.targets)), held.targets].mean())

    share, linear = min(
        (
            (a, b)
            for a in SHARE_GRID[1:]
            for b in (SHARE_GRID if settings.linear_hyperparameters is not None else SHARE_GRID[:1])
        ),
        key=loss,
    )
    combined_scores = log_softmax(share * held.members + linear * held.linear)
    slope, bias = (
        _fit_calibration(combined_scores, held, labels, settings) if settings.out_of_scope_label else (1.0, 0.0)
    )
    inside = (
        held.targets != labels.index(settings.out_of_scope_label)
        if settings.out_of_scope_label
        else np.ones(len(held.targets), dtype=bool)
    )
    parts = (
        {"members": held.members, "linear": held.linear, "committee": combined_scores}
        if settings.linear_hyperparameters is not None
        else {"members": held.members}
    )
    right = {
        name: float((log_probabilities.argmax(axis=1) == held.targets)[inside].mean())
        for name, log_probabilities in parts.items()
    }
    return CommitteeWeights(share, linear, slope, bias, right)


def _fit_calibration(
    log_probabilities: NDArray[Any], predictions: HeldOutPredictions, labels: list[str], settings: CommitteeSettings
) -> tuple[float, float]:
    """Fits slope and bias on the log-odds of the out-of-scope label."""
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    at = labels.index(settings.out_of_scope_label)
    outside = predictions.targets == at
    chances = np.clip(np.exp(log_probabilities[:, at].astype(np.float64)), MIN_PROBABILITY, 1 - MIN_PROBABILITY)
    odds = np.log(chances) - np.log1p(-chances)
    weight = np.where(
        outside, settings.out_of_scope_share / outside.mean(), (1 - settings.out_of_scope_share) / (1 - outside.mean())
    )
    model = LogisticRegression(C=math.inf).fit(odds[:, None], outside, weight)
    return float(model.coef_[0, 0]), float(model.intercept_[0])

"""Training of taggers and linear classifiers: seconds on one core, deterministic files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestra.agents.card import Card
from orchestra.agents.inference.linear import predicts_number
from orchestra.core.errors import InputError
from orchestra.learn.compatibility import check_contract
from orchestra.learn.data.dataset import Dataset, DatasetRow
from orchestra.learn.evaluation.cascade import threshold_for_share
from orchestra.schema.strict_json import canonical

ARRAYS_FILE = "weights.npz"
THRESHOLD_SHARES = (0.1, 0.2, 0.3, 0.5)
"""Shares of the tune split whose thresholds are reported."""


@dataclass(frozen=True, slots=True)
class ShareThreshold:
    """A threshold on an agent's numbers, measured on held-out rows."""

    share: float
    threshold: float
    """At most that share of the numbers is larger."""
    mean_target: float
    """Mean expected value of the rows above the threshold; NaN if there are none."""


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """The files of a trained agent, and the number of its training rows."""

    config_json: str
    arrays: bytes
    rows: int
    left_out: int = 0
    """Number of rows that training cannot use."""
    shares: Sequence[ShareThreshold] = ()
    """For an agent with a number as output: thresholds from the tune split; empty if the split is empty."""

    def write(self, folder: Path, config_name: str = "model.json") -> None:
        """Writes the files into a folder; the file that names the arrays is written last."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ARRAYS_FILE).write_bytes(self.arrays)
        (folder / config_name).write_text(self.config_json, "utf-8")


def train(card: Card, data: Dataset) -> TrainedModel:
    """Trains an agent of kind `tagger` or `sklearn` on the training split of a data set.

    Raises:
        InputError: N103 if the data set has other types; N104 if it has no rows; N105 if the agent has another kind, or
        if labels are lists, records or fractions; N101 if a package is missing.
    """
    check_contract(card, data.manifest)
    rows = data.rows["train"]
    if not rows:
        raise InputError(
            "N104", f"{data.manifest.name} has no rows in the train split", hint="use more rows, or other split shares"
        )
    match card.kind:
        case "tagger":
            from orchestra.learn.crf import TaggerFields
            from orchestra.learn.crf import train as tagged

            trained_tagger = tagged(rows, TaggerFields.from_card(card))
            return TrainedModel(
                trained_tagger.config_json, trained_tagger.arrays, trained_tagger.rows, trained_tagger.left_out
            )
        case "sklearn":
            return _train_linear(card, rows, data.rows["tune"])
        case _:
            raise InputError(
                "N105",
                f"{card.name} is of kind {card.kind}, and this kind cannot be trained",
                hint="orchestra explain N105",
            )


def _train_linear(card: Card, rows: Sequence[DatasetRow], tune: Sequence[DatasetRow]) -> TrainedModel:
    inputs: dict[str, Any] = card.input_schema.get("properties", {})
    outputs: dict[str, Any] = card.output_schema.get("properties", {})
    if len(inputs) != 1 or len(outputs) != 1:
        hint = "input: {text: str}, output: {intent: Intent}"
        raise InputError(
            "N105", f"{card.name} is not a classifier: a classifier has one input and one output field", hint=hint
        )
    try:
        from orchestra.learn.linear import ClassifierHyperparameters, fit_classifier, fit_regressor
    except ImportError as error:
        raise InputError(
            "N101", "training a classifier needs scikit-learn", hint="pip install 'orchestra-slm[learn]'"
        ) from error
    from orchestra.learn.encoders.texts import LabelledText

    (text,), (label,) = inputs, outputs
    names = [
        str(float(row.output[label])) if predicts_number(card) else _label_name(card, row.output[label]) for row in rows
    ]
    if len(set(names)) < 2:
        raise InputError(
            "N104", f"all training rows have the same {label}", hint="use rows with at least two labels, or numbers"
        )
    if predicts_number(card):
        number = fit_regressor(
            [(str(row.input[text]), float(row.output[label])) for row in rows], (text, label), ARRAYS_FILE
        )
        predictions = [
            (number.regressor.predict_number(str(row.input[text])), float(row.output[label])) for row in tune
        ]
        return TrainedModel(number.config_json, number.arrays, len(rows), shares=share_thresholds(predictions))
    labelled_texts = [LabelledText(str(row.input[text]), name) for row, name in zip(rows, names, strict=True)]
    fitted_classifier = fit_classifier(
        labelled_texts,
        (text, label),
        ClassifierHyperparameters(),
        ARRAYS_FILE,
        {name: row.output[label] for row, name in zip(rows, names, strict=True)},
    )
    return TrainedModel(fitted_classifier.config_json, fitted_classifier.arrays, len(rows))


def _label_name(card: Card, value: Any) -> str:
    """Returns the internal name of a label: a text is kept; numbers, booleans and null are their JSON after a NUL, so 1
    and "1" are different labels.

    Raises:
        InputError: N105 if the value cannot be a label.
    """
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, int):
        return f"\0{canonical(value).decode()}"
    text = canonical(value).decode()[:40]
    raise InputError(
        "N105",
        f"{card.name} is not a classifier: {text} cannot be a label",
        hint="labels are texts, whole numbers, true, false and null",
    )


def share_thresholds(rows: Sequence[tuple[float, float]]) -> list[ShareThreshold]:
    """Returns the thresholds for `THRESHOLD_SHARES`; empty if there are no rows.

    Args:
        rows: Pairs of the agent's number and the expected value.
    """
    thresholds = []
    for share in THRESHOLD_SHARES if rows else ():
        above = threshold_for_share([number for number, _ in rows], share)
        targets = [target for number, target in rows if number > above]
        thresholds.append(ShareThreshold(share, above, sum(targets) / len(targets) if targets else math.nan))
    return thresholds

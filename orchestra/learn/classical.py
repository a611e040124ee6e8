"""Training of agents that run in this process: taggers and linear classifiers. Seconds on one core, and the same files every time."""

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
"""Shares of the tune part whose thresholds are told."""


@dataclass(frozen=True, slots=True)
class ShareThreshold:
    """What of an agent's numbers lies above a threshold, on rows that it was not trained on."""

    share: float
    threshold: float
    """The threshold: at most that share of the numbers is larger."""
    mean_target: float
    """The mean of what was expected of those; NaN where there are none."""


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """The files of an agent that was trained, and how many rows it was trained on."""

    config_json: str
    arrays: bytes
    rows: int
    left_out: int = 0
    """Rows that cannot be learnt from."""
    shares: Sequence[ShareThreshold] = ()
    """Of an agent that gives a number: its thresholds, by the tune part; none where that is empty."""

    def write(self, folder: Path, config_name: str = "model.json") -> None:
        """Puts the files into a folder; what names the arrays comes after them."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ARRAYS_FILE).write_bytes(self.arrays)
        (folder / config_name).write_text(self.config_json, "utf-8")


def train(card: Card, data: Dataset) -> TrainedModel:
    """An agent of kind `tagger` or `sklearn`, trained on the training part of a data set.

    Raises `InputError` N103 for a data set of other types, N104 for one without rows, N105 for an agent of another kind and for labels
    that are lists, records or fractions, N101 where a package is missing.
    """
    check_contract(card, data.manifest)
    rows = data.rows["train"]
    if not rows:
        raise InputError("N104", f"{data.manifest.name} has no rows to train on", hint="more rows, or other shares of the parts")
    match card.kind:
        case "tagger":
            from orchestra.learn.crf import TaggerFields
            from orchestra.learn.crf import train as tagged

            made = tagged(rows, TaggerFields.from_card(card))
            return TrainedModel(made.config_json, made.arrays, made.rows, made.left_out)
        case "sklearn":
            return _train_linear(card, rows, data.rows["tune"])
        case _:
            raise InputError("N105", f"{card.name} is of kind {card.kind}, and is not trained here", hint="orchestra explain N105")


def _train_linear(card: Card, rows: Sequence[DatasetRow], tune: Sequence[DatasetRow]) -> TrainedModel:
    inputs: dict[str, Any] = card.input_schema.get("properties", {})
    outputs: dict[str, Any] = card.output_schema.get("properties", {})
    if len(inputs) != 1 or len(outputs) != 1:
        hint = "input: {text: str}, output: {intent: Intent}"
        raise InputError("N105", f"{card.name} is no classifier: it needs one input and one field of its output", hint=hint)
    try:
        from orchestra.learn.linear import ClassifierHyperparameters, fit_classifier, fit_regressor
    except ImportError as error:
        raise InputError("N101", "training a classifier needs scikit-learn", hint="pip install 'orchestra-slm[learn]'") from error
    from orchestra.learn.encoders.texts import LabelledText

    (text,), (label,) = inputs, outputs
    names = [str(float(row.output[label])) if predicts_number(card) else _label_name(card, row.output[label]) for row in rows]
    if len(set(names)) < 2:
        raise InputError("N104", f"all rows to train on have the same {label}", hint="rows of at least two labels, or numbers")
    if predicts_number(card):
        number = fit_regressor([(str(row.input[text]), float(row.output[label])) for row in rows], (text, label), ARRAYS_FILE)
        held = [(number.regressor.predict_number(str(row.input[text])), float(row.output[label])) for row in tune]
        return TrainedModel(number.config_json, number.arrays, len(rows), shares=share_thresholds(held))
    labelled = [LabelledText(str(row.input[text]), name) for row, name in zip(rows, names, strict=True)]
    made = fit_classifier(
        labelled,
        (text, label),
        ClassifierHyperparameters(),
        ARRAYS_FILE,
        {name: row.output[label] for row, name in zip(rows, names, strict=True)},
    )
    return TrainedModel(made.config_json, made.arrays, len(rows))


def _label_name(card: Card, value: Any) -> str:
    """What a label is called while it is learnt: a text as it is, a number, a truth value and null by their JSON behind a NUL, so that 1
    and "1" are two labels. Raises `InputError` N105 for what is no label."""
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, int):
        return f"\0{canonical(value).decode()}"
    said = canonical(value).decode()[:40]
    raise InputError(
        "N105", f"{card.name} is no classifier: {said} is no label", hint="labels are texts, whole numbers, true, false and null"
    )


def share_thresholds(rows: Sequence[tuple[float, float]]) -> list[ShareThreshold]:
    """The thresholds of `THRESHOLD_SHARES` on rows, each its number and what was expected; none of no rows."""
    found = []
    for share in THRESHOLD_SHARES if rows else ():
        above = threshold_for_share([number for number, _ in rows], share)
        taken = [wanted for number, wanted in rows if number > above]
        found.append(ShareThreshold(share, above, sum(taken) / len(taken) if taken else math.nan))
    return found

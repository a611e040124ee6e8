"""Training of agents that run in this process: taggers and linear classifiers. Seconds on one core, and the same files every time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestra.agent.card import Card
from orchestra.errors import InputError
from orchestra.learn.contract import contract_digest
from orchestra.learn.dataset import DataSet, Row

ARRAYS = "weights.npz"


@dataclass(frozen=True, slots=True)
class Trained:
    """The files of an agent that was trained, and how many rows it was trained on."""

    layout: str
    arrays: bytes
    rows: int
    left_out: int = 0
    """Rows that cannot be learnt from."""

    def write(self, folder: Path, layout: str = "model.json") -> None:
        """Puts the files into a folder; what names the arrays comes after them."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ARRAYS).write_bytes(self.arrays)
        (folder / layout).write_text(self.layout, "utf-8")


def train(card: Card, data: DataSet) -> Trained:
    """An agent of kind `tagger` or `sklearn`, trained on the training part of a data set.

    Raises `InputError` N103 for a data set of other types, N104 for one without rows, N105 for an agent of another kind, N101 where a
    package is missing.
    """
    if data.manifest.contract != contract_digest(card):
        reason = f"{data.manifest.name} was made for {data.manifest.agent} with other inputs or outputs than {card.name} has now"
        raise InputError("N103", reason, hint="make it again: orchestra learn data")
    rows = data.rows["train"]
    if not rows:
        raise InputError("N104", f"{data.manifest.name} has no rows to train on", hint="more rows, or other shares of the parts")
    match card.kind:
        case "tagger":
            from orchestra.learn.tagging import Places
            from orchestra.learn.tagging import train as tagged

            made = tagged(rows, Places.of(card))
            return Trained(made.layout, made.arrays, made.rows, made.left_out)
        case "sklearn":
            return _classifier(card, rows)
        case _:
            raise InputError("N105", f"{card.name} is of kind {card.kind}, and is not trained here", hint="orchestra explain N105")


def _classifier(card: Card, rows: Sequence[Row]) -> Trained:
    inputs: dict[str, Any] = card.input_schema.get("properties", {})
    outputs: dict[str, Any] = card.output_schema.get("properties", {})
    if len(inputs) != 1 or len(outputs) != 1:
        hint = "input: {text: str}, output: {intent: Intent}"
        raise InputError("N105", f"{card.name} is no classifier: it needs one input and one field of its output", hint=hint)
    try:
        from orchestra.learn.linear import Fit, fitted
    except ImportError as error:
        raise InputError("N101", "training a classifier needs scikit-learn", hint="pip install 'orchestra-slm[learn]'") from error
    from orchestra.learn.texts import Labelled

    (text,), (label,) = inputs, outputs
    labelled = [Labelled(str(row.input[text]), str(row.output[label])) for row in rows]
    if len({row.label for row in labelled}) < 2:
        raise InputError("N104", f"all rows to train on have the same {label}", hint="rows of at least two labels")
    made = fitted(labelled, (text, label), Fit(), ARRAYS)
    return Trained(made.layout, made.arrays, len(rows))

"""Training records of encoders: provenance beside the arrays, and the loss curve.

An adapter has the same in its `manifest.json`. For encoders it is a separate file, because `model.json` is read at
every call.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from orchestra.agents.inference.model_file import EncoderSummary
from orchestra.core.atomic_files import write_file
from orchestra.fleet.weights.download import file_sha256
from orchestra.learn import loss_curve
from orchestra.learn.compatibility import contract_digest
from orchestra.learn.encoders.member import read_losses
from orchestra.learn.encoders.training import EncoderTraining
from orchestra.learn.lora.checkpoint import TrainingPoint
from orchestra.learn.lora_adapter import package_versions
from orchestra.learn.promotion.promotion import CURVE_FILE, TRAINING_FILE

RECORDED_PACKAGES = ("torch", "safetensors", "tokenizers", "scikit-learn", "numpy")
"""Packages that influence the result."""
MAX_CURVE_POINTS = 60
"""Maximal number of points of a curve."""


class LossPoint(msgspec.Struct, frozen=True):
    """A point of the curve."""

    step: int
    train: float
    """Mean loss since the previous point."""


class EncoderTrainingRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The provenance of an encoder's arrays."""

    format: str = "orchestra/encoder-training/v1"
    agent: str
    contract: str
    """Digest of the types that it was trained for."""
    sha256: str
    """Digest of `model.json`, which has the digests of base and arrays: a record beside another file is ignored."""
    base: str
    rank: int
    targets: str
    data: str
    """Name and digest of the data set."""
    licence: str
    """Licence of the data set; the arrays inherit it."""
    command: str
    start: str
    """Digest of the arrays that the training started from; empty if it started from the base alone."""
    versions: dict[str, str]
    steps: int
    curve: tuple[LossPoint, ...]


def write_training_record(training: EncoderTraining, folder: Path, command: str) -> EncoderTrainingRecord:
    """Writes the record of a training and its loss curve into the folder of its result."""
    card, manifest = training.card, training.data.manifest
    outline = EncoderSummary.model_validate_json((folder / card.data).read_bytes())
    with np.load(folder / outline.arrays) as arrays:
        downs = {name: arrays[name].shape for name in arrays.files if name.startswith("down.")}
    blocks = sorted({int(name.split(".layer.")[1].split(".")[0]) for name in downs})
    losses = read_losses(training.checkpoint_path)
    looks = _loss_points(losses)
    training_record = EncoderTrainingRecord(
        agent=card.name,
        contract=contract_digest(card),
        sha256=file_sha256(folder / card.data),
        base=card.model,
        rank=min((shape[-2] for shape in downs.values()), default=0),
        targets=f"all-linear, blocks {blocks[0]} to {blocks[-1]}" if blocks else "",
        data=f"{manifest.name} {manifest.digest}",
        licence=manifest.licence,
        command=command,
        start=training.start_digest,
        versions=package_versions(RECORDED_PACKAGES),
        steps=len(losses),
        curve=tuple(looks),
    )
    write_file(folder / TRAINING_FILE, msgspec.json.format(msgspec.json.encode(training_record), indent=2) + b"\n")
    points = [TrainingPoint(look.step, 0.0, look.train, math.nan, 0.0) for look in looks]
    write_file(folder / CURVE_FILE, loss_curve.render_svg(points, 0).encode())
    return training_record


def _loss_points(losses: Sequence[float]) -> list[LossPoint]:
    """Returns the mean losses of equal parts of a training, without steps of versions that did not store their loss."""
    size = max(1, math.ceil(len(losses) / MAX_CURVE_POINTS))
    points = []
    for start in range(0, len(losses), size):
        finite_losses = [loss for loss in itertools.islice(losses, start, start + size) if not math.isnan(loss)]
        if finite_losses:
            points.append(LossPoint(min(start + size, len(losses)), round(sum(finite_losses) / len(finite_losses), 5)))
    return points

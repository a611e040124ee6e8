"""Records of encoders' trainings: what is said beside the arrays of what they were made of, and the curve of their loss.

An adapter's `manifest.json_rule` says the same of it. Here it is a file of its own, for `model.json_rule` is read at every call.
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
"""Packages that a result depends on."""
MAX_CURVE_POINTS = 60
"""Points of a curve at most."""


class LossPoint(msgspec.Struct, frozen=True):
    """A point of the curve."""

    step: int
    train: float
    """Loss, the mean since the point before."""


class EncoderTrainingRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What an encoder's arrays are, and what they were made of."""

    format: str = "orchestra/encoder-training/v1"
    agent: str
    contract: str
    """Digest of the types that it was trained for."""
    sha256: str
    """Of `model.json_rule`, which has those of base and arrays: a record beside another one is none of it."""
    base: str
    rank: int
    targets: str
    data: str
    """Name and digest of the data set."""
    licence: str
    """Of the data, which the arrays inherit."""
    command: str
    start: str
    """Digest of the arrays that it went on from; empty for one that began with the base alone."""
    versions: dict[str, str]
    steps: int
    curve: tuple[LossPoint, ...]


def write_training_record(training: EncoderTraining, folder: Path, command: str) -> EncoderTrainingRecord:
    """Writes what a training was into the folder that it left, and the picture of its loss."""
    card, manifest = training.card, training.data.manifest
    outline = EncoderSummary.model_validate_json((folder / card.data).read_bytes())
    with np.load(folder / outline.arrays) as arrays:
        downs = {name: arrays[name].shape for name in arrays.files if name.startswith("down.")}
    blocks = sorted({int(name.split(".layer.")[1].split(".")[0]) for name in downs})
    losses = read_losses(training.checkpoint_path)
    looks = _loss_points(losses)
    made = EncoderTrainingRecord(
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
    write_file(folder / TRAINING_FILE, msgspec.json.format(msgspec.json.encode(made), indent=2) + b"\n")
    points = [TrainingPoint(look.step, 0.0, look.train, math.nan, 0.0) for look in looks]
    write_file(folder / CURVE_FILE, loss_curve.render_svg(points, 0).encode())
    return made


def _loss_points(losses: Sequence[float]) -> list[LossPoint]:
    """The means of equal pieces of a training; without the steps of which nobody knows the loss, that an earlier version took."""
    size = max(1, math.ceil(len(losses) / MAX_CURVE_POINTS))
    found = []
    for start in range(0, len(losses), size):
        known = [loss for loss in itertools.islice(losses, start, start + size) if not math.isnan(loss)]
        if known:
            found.append(LossPoint(min(start + size, len(losses)), round(sum(known) / len(known), 5)))
    return found

"""Checkpoints: the complete state of a training, for an identical result after a resume. Safetensors and JSON; never a
pickle.

A checkpoint is a folder that is renamed into place when it is complete; the previous one stays until then.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from orchestra.core.atomic_files import recover_folder, replace_folder, write_file
from orchestra.core.errors import InputError
from orchestra.schema.strict_json import JsonDecodingError, decode_json

if TYPE_CHECKING:
    import torch

STATE_FILE, WEIGHTS_FILE, MOMENTS_FILE, BEST_FILE = (
    "state.json",
    "weights.safetensors",
    "moments.safetensors",
    "best.safetensors",
)
CHECKPOINT_FOLDER = "checkpoint"


class TrainingPoint(msgspec.Struct, frozen=True):
    """A point of the loss curve."""

    step: int
    epoch: float
    train: float
    """Mean training loss per label token since the previous point."""
    tune: float
    """The same loss on the tune split."""
    exact: float
    """Share of tune rows for which every label token has the highest probability."""


class TrainingState(msgspec.Struct, kw_only=True):
    """The progress of a training."""

    plan_digest: str
    """Digest of everything that determines the result: data, card, base, settings."""
    step: int = 0
    epoch: int = 0
    batch: int = 0
    """Number of completed batches of the epoch."""
    total_steps: int = 0
    """Total number of steps; 0 until a time budget is converted into steps."""
    seconds: float = 0.0
    tokens_seen: int = 0
    """Number of processed tokens."""
    loss_sum: float = 0.0
    loss_count: int = 0
    best_step: int = 0
    points: list[TrainingPoint] = []
    stopped_early: bool = False


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """The checkpoint of one training, in its cache folder."""

    folder: Path

    def save(self, state: TrainingState, weights: dict[str, torch.Tensor], moments: dict[str, torch.Tensor]) -> None:
        """Replaces the checkpoint; `best.safetensors` is carried over."""
        from safetensors.torch import save_file

        partial = self.folder / f".{CHECKPOINT_FOLDER}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        save_file({name: value.detach().cpu().contiguous() for name, value in weights.items()}, partial / WEIGHTS_FILE)
        save_file({name: value.detach().cpu().contiguous() for name, value in moments.items()}, partial / MOMENTS_FILE)
        (partial / STATE_FILE).write_bytes(msgspec.json.encode(state))
        replace_folder(partial, self.folder / CHECKPOINT_FOLDER)

    def load(self, plan_digest: str) -> tuple[TrainingState, dict[str, torch.Tensor], dict[str, torch.Tensor]] | None:
        """Returns the last checkpoint; None if there is none.

        Raises:
            InputError: N120 if it cannot be read, or belongs to another training.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        folder = recover_folder(self.folder / CHECKPOINT_FOLDER)
        if not (folder / STATE_FILE).is_file():
            return None
        try:
            state = decode_json((folder / STATE_FILE).read_bytes(), TrainingState)
            weights, moments = load_file(folder / WEIGHTS_FILE), load_file(folder / MOMENTS_FILE)
        except (OSError, JsonDecodingError, SafetensorError) as error:
            raise InputError(
                "N120", f"the checkpoint in {folder} cannot be read: {error}", hint="start again with --fresh"
            ) from error
        if state.plan_digest != plan_digest:
            raise InputError(
                "N120", f"the checkpoint in {folder} belongs to another training", hint="start again with --fresh"
            )
        return state, weights, moments

    def save_best(self, weights: dict[str, torch.Tensor]) -> None:
        """Stores the weights with the best result on the tune split so far."""
        from safetensors.torch import save

        self.folder.mkdir(parents=True, exist_ok=True)
        write_file(
            self.folder / BEST_FILE, save({name: value.detach().cpu().contiguous() for name, value in weights.items()})
        )

    def load_best(self) -> dict[str, torch.Tensor]:
        """Returns the stored best weights."""
        from safetensors.torch import load_file

        state: dict[str, torch.Tensor] = load_file(self.folder / BEST_FILE)
        return state

    def clear(self) -> None:
        """Deletes the checkpoint."""
        shutil.rmtree(self.folder, ignore_errors=True)

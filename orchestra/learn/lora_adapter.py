"""Adapter folders: bfloat16 safetensors, the configuration for peft, and a manifest with the provenance."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from orchestra.core.atomic_files import replace_folder
from orchestra.core.errors import InputError
from orchestra.fleet.adapters import adapter_digest
from orchestra.fleet.weights.adapter_checks import CONFIG, WEIGHTS
from orchestra.fleet.weights.download import file_sha256
from orchestra.fleet.weights.safetensors import check_folder
from orchestra.learn import loss_curve
from orchestra.learn.lora.checkpoint import TrainingPoint
from orchestra.learn.lora.model import AdapterShape, Learner
from orchestra.learn.promotion.promotion import CURVE_FILE, MAX_BYTES, PROVENANCE_FILE

if TYPE_CHECKING:
    import torch

MANIFEST_FILE = "manifest.json"
ADAPTER_FILES = (WEIGHTS, CONFIG, MANIFEST_FILE, CURVE_FILE, PROVENANCE_FILE)


class AdapterTrainingRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The manifest of an adapter: its files and its provenance."""

    format: str = "orchestra/adapter/v1"
    agent: str
    skill: str
    """Digest of the types and the prompt that it was trained for (`compatibility.skill_digest`)."""
    sha256: str
    """Digest of the weights file."""
    base: str
    bases: tuple[str, ...]
    """Digests of the folders of base weights that it was measured on."""
    rank: int
    alpha: int
    targets: str
    data: str
    """Name and digest of the data set."""
    licence: str
    """Licence of the data set; the adapter inherits it."""
    command: str
    teacher: str = ""
    """The teacher of the distillation: name, digest, temperature and share; empty without one."""
    start: str = ""
    """Digest of the adapter that the training started from; empty if it started from the base alone."""
    versions: dict[str, str]
    steps: int
    seconds: float
    tokens: int
    best_step: int
    curve: tuple[TrainingPoint, ...]


@dataclass(frozen=True, slots=True)
class StartingAdapter:
    """An existing adapter that a training starts from."""

    folder: Path
    digest: str

    @classmethod
    def from_folder(cls, folder: Path, shape: AdapterShape) -> StartingAdapter:
        """Reads the adapter in a folder.

        Raises:
            InputError: N123 if the folder has no adapter, or one of another shape.
            FleetError: F007 if the adapter is not safe to load.
        """
        if not all(os.path.isfile(folder / file) for file in (WEIGHTS, CONFIG)):
            raise InputError("N123", f"{folder} is not an adapter", hint=f"a folder with {WEIGHTS} and {CONFIG}")
        check_folder(folder)
        config = json.loads((folder / CONFIG).read_bytes())
        rank, alpha = (config.get(key) if isinstance(config, dict) else None for key in ("r", "lora_alpha"))
        if (rank, alpha) != (shape.rank, shape.alpha):
            expected = f"rank {shape.rank} and alpha {shape.alpha}"
            raise InputError(
                "N123",
                f"{folder} has rank {rank} and alpha {alpha}, and {expected} were requested",
                hint=f"--rank {rank}",
            )
        return cls(folder, adapter_digest(folder))

    def load_into(self, learner: Learner) -> None:
        """Loads the weights into a learner.

        Raises:
            InputError: N123 if the weights belong to another model or to other layers.
        """
        from safetensors.torch import load_file

        weights, master_weights = load_file(self.folder / WEIGHTS), learner.master_weights
        if strange := sorted(
            name
            for name in {*weights, *master_weights}
            if _tensor_shape(weights, name) != _tensor_shape(master_weights, name)
        ):
            reason = (
                f"{self.folder} is an adapter of another model, or of other layers: "
                f"{strange[0]} and {len(strange) - 1} more differ"
            )
            raise InputError("N123", reason, hint="orchestra explain N123")
        learner.load_weights(weights)


def _tensor_shape(weights: Mapping[str, torch.Tensor], name: str) -> tuple[int, ...] | None:
    return tuple(weights[name].shape) if name in weights else None


def check_output_folder(folder: Path) -> None:
    """Checks that writing an adapter replaces nothing but an adapter.

    Raises:
        InputError: N107 if the folder has other files.
    """
    try:
        strange = sorted(path.name for path in folder.iterdir() if path.name not in ADAPTER_FILES)
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(
            "N107", f"--out cannot be {folder}: {error.strerror}", hint="name a folder that does not exist yet"
        ) from error
    if strange:
        hint = "name a folder that does not exist yet"
        raise InputError(
            "N107", f"--out cannot be {folder}: it has {strange[0]}, which is not part of an adapter", hint=hint
        )


def write(
    folder: Path, weights: dict[str, torch.Tensor], settings: Any, record: AdapterTrainingRecord
) -> AdapterTrainingRecord:
    """Writes an adapter folder atomically and returns its manifest with the digest.

    Raises:
        InputError: N130 if the adapter has more than 10 MB; N107 if the folder has other files.
        FleetError: F007 if the fleet would refuse to load it.
    """
    import torch
    from safetensors.torch import save_file

    check_output_folder(folder)
    folder = folder.resolve()
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_file(
        {name: value.detach().to("cpu", torch.bfloat16).contiguous() for name, value in weights.items()},
        partial / WEIGHTS,
    )
    (partial / WEIGHTS).chmod(0o644)  # safetensors creates it readable by the owner only
    if (size := (partial / WEIGHTS).stat().st_size) > MAX_BYTES:
        shutil.rmtree(partial)
        raise InputError(
            "N130", f"the adapter has {size / 1e6:.1f} MB; at most {MAX_BYTES / 1e6:.0f} MB", hint="a smaller --rank"
        )
    fields = settings.to_dict()
    config = {
        key: sorted(value) if isinstance(value, set) else value
        for key, value in fields.items()
        if key not in ("auto_mapping",)
    }
    config |= {"base_model_name_or_path": record.base, "inference_mode": True}
    (partial / CONFIG).write_bytes(msgspec.json.format(msgspec.json.encode(config, enc_hook=str), indent=2) + b"\n")
    training_record = msgspec.structs.replace(record, sha256=file_sha256(partial / WEIGHTS))
    (partial / MANIFEST_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(training_record), indent=2) + b"\n")
    (partial / CURVE_FILE).write_text(loss_curve.render_svg(record.curve, record.best_step), "utf-8")
    check_folder(partial)
    replace_folder(partial, folder)
    return training_record


def package_versions(names: Iterable[str] = ("torch", "transformers", "peft", "safetensors")) -> dict[str, str]:
    """Returns the versions of the installed packages that influence the result."""
    versions = {}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions

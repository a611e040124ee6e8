"""Distillation: a student learns from the probabilities that a teacher gives every token at the places of labels.

Hinton, Vinyals and Dean 2015, *Distilling the Knowledge in a Neural Network* (https://arxiv.org/abs/1503.02531). The teacher reads the very
tokens that the student reads, packed the same, so both must have one tokenizer. It is asked anew in every epoch: nothing of the size of a
vocabulary is stored, and a training that goes on finds the same teacher.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestra.core.errors import InputError
from orchestra.fleet.adapters import adapter_digest
from orchestra.fleet.weights.adapter_checks import CONFIG
from orchestra.fleet.weights.adapter_checks import WEIGHTS as ADAPTER_WEIGHTS
from orchestra.fleet.weights.safetensors import check_folder
from orchestra.fleet.weights.weights import verify_weights
from orchestra.learn.lora.base_model import BatchTensors, label_logits, load_base
from orchestra.schema.strict_json import canonical, digest

if TYPE_CHECKING:
    import torch

TOKENIZER = "tokenizer.json"
_TOKENIZATION_PARTS = ("normalizer", "pre_tokenizer", "model", "added_tokens")
"""The parts of a tokenizer's file that decide which tokens a text becomes; the rest pads, cuts and decodes."""


@dataclass(frozen=True, slots=True)
class DistillationSettings:
    """Which teacher, and how much it counts."""

    name: str
    folder: Path
    """Of the teacher's weights."""
    digest: str
    """Of the weights, and of the adapter on them."""
    adapter: Path | None = None
    temperature: float = 2.0
    share: float = 0.5
    """What the teacher's probabilities count; the labels count the rest."""

    @classmethod
    def from_folder(
        cls, name: str, folder: Path, adapter: Path | None, temperature: float, share: float
    ) -> DistillationSettings:
        """The distillation from weights in a folder. Raises `InputError` N122 for a folder without them, `FleetError` F007."""
        if not os.path.isfile(folder / "config.json"):
            raise InputError(
                "N122",
                f"{folder} has no weights of a model",
                hint="name a folder of safetensors, or a model of the fleet",
            )
        mark = verify_weights(folder).digest
        if adapter is not None:
            if not all(os.path.isfile(adapter / file) for file in (ADAPTER_WEIGHTS, CONFIG)):
                raise InputError(
                    "N122", f"{adapter} is no adapter", hint=f"a folder with {ADAPTER_WEIGHTS} and {CONFIG}"
                )
            check_folder(adapter)
            mark = digest(f"{mark} {adapter_digest(adapter)}".encode())
        return cls(name, folder, mark, adapter, temperature, share)

    def __str__(self) -> str:
        return f"{self.name} {self.digest}, temperature {self.temperature:g}, share {self.share:g}"

    @property
    def plan_facts(self) -> tuple[str, float, float]:
        """What the result follows from."""
        return self.digest, self.temperature, self.share


def check_tokenizers(student: Path, teacher: Path) -> None:
    """Raises `InputError` N121 where a text becomes other tokens for the teacher than for the student."""
    if (mine := tokenizer_digest(student)) != (theirs := tokenizer_digest(teacher)):
        reason = f"the teacher in {teacher} has another tokenizer than {student}: {theirs} and {mine}"
        raise InputError("N121", reason, hint="let it answer instead: orchestra learn data --teacher NAME")


def tokenizer_digest(folder: Path) -> str:
    """The digest of what decides which tokens a text becomes. Raises `InputError` N121 where the folder does not say it."""
    try:
        told = json.loads((folder / TOKENIZER).read_bytes())
        return digest(canonical({part: told.get(part) for part in _TOKENIZATION_PARTS}))
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(
            "N121", f"{folder / TOKENIZER} cannot be read: {error}", hint="orchestra explain N121"
        ) from error


class SoftTeacher:
    """A teacher's model, frozen, and the loss of a student who listens to it."""

    def __init__(self, model: Any, temperature: float, share: float) -> None:
        """`model` is a causal language model of transformers."""
        self._model, self._temperature, self._share = model.eval().requires_grad_(False), temperature, share

    @classmethod
    def load(cls, settings: DistillationSettings, device: str) -> SoftTeacher:
        """The teacher of a folder, its adapter merged into it. Raises `InputError` N122 for an adapter of another model."""

        model = load_base(settings.folder)
        if settings.adapter is not None:
            from peft import PeftModel

            try:
                model = PeftModel.from_pretrained(model, str(settings.adapter)).merge_and_unload()
            except (RuntimeError, ValueError) as error:
                raise InputError(
                    "N122", f"{settings.adapter} does not fit {settings.name}: {error}", hint="orchestra explain N122"
                ) from error
        return cls(model.to(device), settings.temperature, settings.share)

    def loss(self, logits: torch.Tensor, batch: BatchTensors) -> torch.Tensor:
        """The sum over a batch's label tokens of the student's loss, whose scores these are (tokens, vocabulary).

        The cross-entropy of the labels, mixed with the divergence of the student from the teacher, both softened by the temperature; its
        square keeps the gradients of both parts alike (Hinton et al., section 2). Weights padded to more tokens than there are count none.
        """
        import torch
        from torch.nn import functional

        labels = functional.cross_entropy(logits, batch.labels, reduction="sum")
        with torch.no_grad():
            theirs = label_logits(self._model, batch)
        most = min(logits.shape[-1], theirs.shape[-1])
        mine, wanted = (functional.log_softmax(one[:, :most] / self._temperature, -1) for one in (logits, theirs))
        divergence = functional.kl_div(mine, wanted, reduction="sum", log_target=True) * self._temperature**2
        mixed: torch.Tensor = (1 - self._share) * labels + self._share * divergence
        return mixed

"""Distillation: a student learns from a teacher's token probabilities at the label positions.

Hinton, Vinyals and Dean 2015, *Distilling the Knowledge in a Neural Network* (https://arxiv.org/abs/1503.02531). The
teacher reads the same token ids as the student, in the same packs, so both need the same tokenizer. The teacher is
evaluated again in every epoch: nothing of the size of a vocabulary is stored, and a resumed training has the same
teacher.
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
"""The parts of a tokenizer file that determine the tokens of a text; the others concern padding, truncation and
decoding.
"""


@dataclass(frozen=True, slots=True)
class DistillationSettings:
    """The teacher and its weight in the loss."""

    name: str
    folder: Path
    """The folder of the teacher's weights."""
    digest: str
    """Digest of the weights, and of the adapter on them."""
    adapter: Path | None = None
    temperature: float = 2.0
    share: float = 0.5
    """Weight of the teacher's probabilities in the loss; the labels have the remaining weight."""

    @classmethod
    def from_folder(
        cls, name: str, folder: Path, adapter: Path | None, temperature: float, share: float
    ) -> DistillationSettings:
        """Builds the settings for weights in a folder.

        Raises:
            InputError: N122 if the folder has no weights.
            FleetError: F007 if the weights or the adapter are not safe to load.
        """
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
                    "N122", f"{adapter} is not an adapter", hint=f"a folder with {ADAPTER_WEIGHTS} and {CONFIG}"
                )
            check_folder(adapter)
            mark = digest(f"{mark} {adapter_digest(adapter)}".encode())
        return cls(name, folder, mark, adapter, temperature, share)

    def __str__(self) -> str:
        return f"{self.name} {self.digest}, temperature {self.temperature:g}, share {self.share:g}"

    @property
    def plan_facts(self) -> tuple[str, float, float]:
        """Returns the facts that determine the result."""
        return self.digest, self.temperature, self.share


def check_tokenizers(student: Path, teacher: Path) -> None:
    """Raises `InputError` N121 if the tokenizers of teacher and student differ."""
    if (student_digest := tokenizer_digest(student)) != (teacher_digest := tokenizer_digest(teacher)):
        reason = f"the teacher in {teacher} has another tokenizer than {student}: {teacher_digest} and {student_digest}"
        raise InputError("N121", reason, hint="use its answers instead: orchestra learn data --teacher NAME")


def tokenizer_digest(folder: Path) -> str:
    """Returns the digest of the parts of a tokenizer that determine the tokens of a text.

    Raises:
        InputError: N121 if the folder has no readable tokenizer.
    """
    try:
        content = json.loads((folder / TOKENIZER).read_bytes())
        return digest(canonical({part: content.get(part) for part in _TOKENIZATION_PARTS}))
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(
            "N121", f"{folder / TOKENIZER} cannot be read: {error}", hint="orchestra explain N121"
        ) from error


class SoftTeacher:
    """A frozen teacher model, and the student's loss with it."""

    def __init__(self, model: Any, temperature: float, share: float) -> None:
        """Wraps `model`, a causal language model of transformers."""
        self._model, self._temperature, self._share = model.eval().requires_grad_(False), temperature, share

    @classmethod
    def load(cls, settings: DistillationSettings, device: str) -> SoftTeacher:
        """Loads the teacher of a folder, with its adapter merged.

        Raises:
            InputError: N122 if the adapter belongs to another model.
        """

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
        """Returns the summed loss over a batch's label tokens for the student's `logits`, (tokens, vocabulary).

        It is the cross-entropy of the labels mixed with the Kullback-Leibler divergence of the student from the
        teacher. Both distributions of the divergence are softened by the temperature. The factor of its
        square keeps the gradients of both parts at the same scale (Hinton et al., section 2). Padding of a vocabulary
        is ignored.
        """
        import torch
        from torch.nn import functional

        labels = functional.cross_entropy(logits, batch.labels, reduction="sum")
        with torch.no_grad():
            teacher_logits = label_logits(self._model, batch)
        vocabulary_size = min(logits.shape[-1], teacher_logits.shape[-1])
        student_log, teacher_log = (
            functional.log_softmax(side_logits[:, :vocabulary_size] / self._temperature, -1)
            for side_logits in (logits, teacher_logits)
        )
        divergence = (
            functional.kl_div(student_log, teacher_log, reduction="sum", log_target=True) * self._temperature**2
        )
        mixed_loss: torch.Tensor = (1 - self._share) * labels + self._share * divergence
        return mixed_loss

"""The model under training: frozen base weights, and a LoRA with float32 master weights.

The base and the computing copy of the LoRA are bfloat16. On a CPU without instructions for bfloat16 they are float32,
as in serving there, which is many times as fast. Hu et al. 2021, *LoRA: Low-Rank Adaptation of Large Language Models*
(https://arxiv.org/abs/2106.09685); mixed precision after Micikevicius et al. 2017 (https://arxiv.org/abs/1710.03740).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from orchestra.core.errors import InputError
from orchestra.learn.batching import Batch
from orchestra.learn.lora.base_model import BatchTensors, batch_tensors, label_logits
from orchestra.learn.lora.distillation import SoftTeacher
from orchestra.learn.numerics import pick_dtype

if TYPE_CHECKING:
    import torch

TargetLayers: TypeAlias = Literal["all-linear", "attention", "query-value"]
TARGET_LAYERS: dict[TargetLayers, tuple[str, ...]] = {
    "all-linear": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    "attention": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "query-value": ("q_proj", "v_proj"),
}
"""The layers with a LoRA, by the names that Llama, Qwen, Gemma, Mistral and SmolLM share."""
Device: TypeAlias = Literal["auto", "cpu", "cuda"]
DEVICES: tuple[Device, ...] = ("auto", "cpu", "cuda")
PACKAGES = ("torch", "transformers", "peft", "safetensors")


@dataclass(frozen=True, slots=True)
class AdapterShape:
    """The size and the layers of an adapter."""

    rank: int = 16
    alpha: int = 32
    targets: TargetLayers = "all-linear"


def check_packages(packages: Sequence[str] = PACKAGES) -> None:
    """Checks that packages for training are installed.

    Raises:
        InputError: N101 if one is missing.
    """
    if missing := [name for name in packages if importlib.util.find_spec(name) is None]:
        raise InputError(
            "N101",
            f"training needs {', '.join(missing)}",
            hint="pip install 'orchestra-slm[cpu,learn]', or [gpu,learn]",
        )


class Learner:
    """A base model with a LoRA: losses and gradients of batches, and the weights as named tensors."""

    def __init__(
        self,
        base: Any,
        shape: AdapterShape,
        seed: int,
        device: str,
        precision: torch.dtype | None = None,
        teacher: SoftTeacher | None = None,
    ) -> None:
        """Adds a LoRA to a base model.

        Args:
            base: A causal language model of transformers. It is modified and owned by the learner.
            teacher: If given, it computes the losses.
            precision: The data type to compute in; the fastest of the device by default.

        Raises:
            InputError: N102 if the model lacks the layers of the shape.
        """
        import torch
        from peft import LoraConfig, get_peft_model
        from peft.tuners.lora import Linear

        torch.manual_seed(seed)
        layers = [
            name
            for name in TARGET_LAYERS[shape.targets]
            if any(path.endswith(f".{name}") for path, _ in base.named_modules())
        ]
        if not layers:
            raise InputError(
                "N102",
                f"{type(base).__name__} has no layers {', '.join(TARGET_LAYERS[shape.targets])}",
                hint="orchestra explain N102",
            )
        self.lora_config = LoraConfig(
            r=shape.rank, lora_alpha=shape.alpha, target_modules=layers, lora_dropout=0.0, task_type="CAUSAL_LM"
        )
        self.device, self._teacher = torch.device(device), teacher
        self._peft_model = get_peft_model(base, self.lora_config).to(self.device, precision or pick_dtype(device))
        for layer in self._peft_model.modules():
            if isinstance(layer, Linear):
                layer.forward = partial(_fused_lora_forward, layer)  # type: ignore[method-assign]  # of this layer, not of its class
        self._model: Any = self._peft_model.get_base_model()
        self._compute_weights = {
            _parameter_name(name): value for name, value in self._peft_model.named_parameters() if value.requires_grad
        }
        self.master_weights = {
            name: torch.nn.Parameter(value.detach().float()) for name, value in self._compute_weights.items()
        }
        """The trained weights, by the names of peft and vLLM."""

    def accumulate_gradient(self, batch: Batch) -> float:
        """Adds the gradient of a batch's mean loss per label token to the master weights; returns that loss."""
        tensors = batch_tensors(batch, self.device)
        loss = self._loss(label_logits(self._model, tensors), tensors) / len(tensors.labels)
        loss.backward()
        for name, copy in self._compute_weights.items():
            if copy.grad is not None:
                master = self.master_weights[name]
                master.grad = copy.grad.float() if master.grad is None else master.grad + copy.grad.float()
                copy.grad = None
        return float(loss.detach())

    def evaluate(self, batch: Batch) -> tuple[float, int, int, int]:
        """Returns the summed loss over a batch's label tokens, their number, the number of examples, and the number of
        examples for which every label token has the highest probability.
        """
        import torch

        with torch.no_grad():
            tensors = batch_tensors(batch, self.device)
            scores = label_logits(self._model, tensors)
            loss = self._loss(scores, tensors)
            wrong = torch.zeros(int(tensors.example_indices[-1]) + 1, device=self.device).index_add_(
                0, tensors.example_indices, (scores.argmax(-1) != tensors.labels).float()
            )
        return float(loss), len(tensors.labels), len(wrong), int((wrong == 0).sum())

    def _loss(self, scores: torch.Tensor, tensors: BatchTensors) -> torch.Tensor:
        """Returns the summed loss over the label tokens."""
        if self._teacher is not None:
            return self._teacher.loss(scores, tensors)
        import torch

        loss: torch.Tensor = torch.nn.functional.cross_entropy(scores, tensors.labels, reduction="sum")
        return loss

    def sync_weights(self) -> None:
        """Copies the master weights, rounded, to the computing copy."""
        import torch

        with torch.no_grad():
            for name, copy in self._compute_weights.items():
                copy.copy_(self.master_weights[name])

    def load_weights(self, weights: dict[str, torch.Tensor]) -> None:
        """Replaces the master weights."""
        import torch

        with torch.no_grad():
            for name, master in self.master_weights.items():
                master.copy_(weights[name])
        self.sync_weights()


def _fused_lora_forward(layer: Any, inputs: torch.Tensor) -> torch.Tensor:
    """Computes peft's layer with the scale and the sum inside one matrix product; separately they take a quarter of the
    time on a CPU.
    """
    import torch

    down, up, scale = layer.lora_A["default"].weight, layer.lora_B["default"].weight, layer.scaling["default"]
    flat = inputs.flatten(0, -2)
    base_output = torch.nn.functional.linear(flat, layer.base_layer.weight, layer.base_layer.bias)
    output: torch.Tensor = torch.addmm(base_output, flat @ down.T, up.T, alpha=scale)
    return output.reshape(*inputs.shape[:-1], -1)


def pick_device(wanted: Device) -> str:
    """Returns `cpu` or `cuda`; `auto` selects a GPU if there is one."""
    import torch

    return wanted if wanted != "auto" else "cuda" if torch.cuda.is_available() else "cpu"


def _parameter_name(name: str) -> str:
    """Returns a parameter's name in peft's file: without the name of the active adapter."""
    return name.replace(".default.", ".")

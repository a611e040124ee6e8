"""Training of one member: epochs of length-bucketed batches, determined by the seed and the epoch number.

A checkpoint is written after each epoch and every two minutes (safetensors, never a pickle). A killed training resumes
from the last one, with an identical result on the same machine with the same number of threads and the same code.
"""

from __future__ import annotations

import hashlib
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch.nn import functional

from orchestra.core.atomic_files import write_file
from orchestra.core.errors import InputError
from orchestra.learn.encoders.tuned import (
    AdaptedEncoder,
    EncoderHyperparameters,
    FrozenEncoder,
    PrototypeEncoder,
    pad_states,
)
from orchestra.learn.numerics import check_finite

if TYPE_CHECKING:
    from torch import Tensor

    from orchestra.learn.encoders.warm_start import WarmStart

BUCKET_BATCHES = 16
"""Number of batches whose texts are sorted by length together."""
MAX_ATTENTION_PAIRS = 1 << 21
"""Maximal number of token pairs of an attention call without gradients, so that long texts need no more memory than
short ones: 128 texts of 128 tokens.
"""
TEXTS_PER_PROTOTYPE = 20
"""Number of texts of a label whose mean initialises its prototype."""
WARMUP_SHARE, WEIGHT_DECAY, MAX_GRADIENT_NORM = 0.06, 0.01, 1.0
"""Share of warm-up steps; weight decay of the adapters; maximal gradient norm."""
SAVE_SECONDS = 120.0
"""Seconds between two checkpoints of an epoch."""
LOSSES_KEY = "losses"
"""The array of a checkpoint with the loss of each step."""
RANDOM_STATE_KEY = "chance"
"""The array of a checkpoint with the state of the random generator of dropout."""


@dataclass(frozen=True, slots=True)
class TrainingStep:
    """The progress of a training, reported after each step."""

    step: int
    total_steps: int
    loss: float
    seconds_left: float
    """Estimated seconds left, from the mean step time of this process."""


StepCallback: TypeAlias = Callable[[TrainingStep], None]
TextStates: TypeAlias = "Sequence[Tensor]"
"""For each text, the states below the tuned blocks."""


def train_member(
    base: FrozenEncoder,
    texts: TextStates,
    labels: Sequence[int],
    count: int,
    hyperparameters: EncoderHyperparameters,
    checkpoint: Path,
    on_step: StepCallback,
    warm_start: WarmStart | None = None,
) -> PrototypeEncoder:
    """Trains a member on the first `count` labels, from `warm_start` if it is given."""
    member = PrototypeEncoder(base, count, hyperparameters)
    targets = torch.tensor(labels)

    def loss(batch: Sequence[int]) -> Tensor:
        return functional.cross_entropy(
            member.logits(member.embed(*pad_states([texts[row] for row in batch]))), targets[list(batch)]
        )

    plan = _plan_digest(texts, labels, count, hyperparameters) + (warm_start.sha256 if warm_start else "")
    run = EpochTrainer(loss, lambda seed: _bucketed_batches(texts, hyperparameters.batch_size, seed), plan, checkpoint)
    run.train(
        member,
        lambda: (
            _initialize_prototypes(member, texts, targets, count)
            if warm_start is None
            else warm_start.load_into(member)
        ),
        on_step,
    )
    return member


@dataclass(frozen=True, slots=True)
class EpochTrainer:
    """The rows of a training and its checkpoint."""

    loss: Callable[[Sequence[int]], Tensor]
    """Returns the loss of a batch of row indices."""
    batches: Callable[[int], Sequence[Sequence[int]]]
    """Returns the batches of an epoch for its seed."""
    plan_digest: str
    """Digest of everything that determines the result, except the tuned blocks of the base."""
    checkpoint: Path

    def train(self, member: AdaptedEncoder, initialize: Callable[[], None], on_step: StepCallback) -> None:
        """Trains a member to the end, from its last checkpoint; `initialize` sets up a member without a checkpoint.

        Raises:
            InputError: N140 if the checkpoint belongs to another training; N124 if the loss is not finite.
        """
        pace, optimizer = member.hyperparameters, _build_optimizer(member)
        seeds = [pace.seed * 1000 + epoch for epoch in range(pace.epochs)]
        order = [(seed, at, batch) for seed in seeds for at, batch in enumerate(self.batches(seed))]
        first, losses = _restore_checkpoint(member, optimizer, self.checkpoint, self.plan_digest)
        if first == 0:
            initialize()
        member.training = True
        start_time = saved_at = time.monotonic()
        for step_count, (seed, at, batch) in enumerate(order[first:], first + 1):
            if at == 0:
                torch.manual_seed(seed)
            share = min(
                1.0,
                step_count / (WARMUP_SHARE * len(order)),
                (len(order) - step_count) / ((1 - WARMUP_SHARE) * len(order)),
            )
            losses.append(self._step(member, optimizer, batch, pace.learning_rate * share, step_count))
            seconds_left = (time.monotonic() - start_time) / (step_count - first) * (len(order) - step_count)
            on_step(TrainingStep(step_count, len(order), losses[-1], seconds_left))
            if step_count == len(order) or order[step_count][1] == 0 or time.monotonic() - saved_at >= SAVE_SECONDS:
                _save_checkpoint(member, optimizer, self.checkpoint, self.plan_digest, losses)
                saved_at = time.monotonic()
        member.training = False

    def _step(
        self, member: AdaptedEncoder, optimizer: torch.optim.AdamW, batch: Sequence[int], rate: float, step: int
    ) -> float:
        """Trains on a batch and returns its loss. Raises `InputError` N124 if the loss is not finite."""
        for group in optimizer.param_groups:
            group["lr"] = rate * group["share"]
        loss = self.loss(batch)
        loss_value = check_finite(loss.item(), step)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(member.parameters.values(), MAX_GRADIENT_NORM)
        optimizer.step()
        return loss_value


@torch.no_grad()
def embed_texts(member: PrototypeEncoder, texts: TextStates, batch_size: int = 128) -> Tensor:
    """Returns the embeddings of texts."""
    vectors = torch.zeros(len(texts), member.base.shape.hidden_size)
    remaining_indexes = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    while remaining_indexes:
        max_texts = 1
        while (
            max_texts < min(batch_size, len(remaining_indexes))
            and (max_texts + 1) * len(texts[remaining_indexes[max_texts]]) ** 2 <= MAX_ATTENTION_PAIRS
        ):
            max_texts += 1
        batch, remaining_indexes = remaining_indexes[:max_texts], remaining_indexes[max_texts:]
        vectors[batch] = member.embed(*pad_states([texts[row] for row in batch]))
    return vectors


@torch.no_grad()
def _initialize_prototypes(member: PrototypeEncoder, texts: TextStates, labels: Tensor, count: int) -> None:
    """Initialises the prototype of each label with the mean embedding of some of its texts in the base."""
    rows = [row for label in range(count) for row in (labels == label).nonzero()[:TEXTS_PER_PROTOTYPE, 0].tolist()]
    vectors = functional.normalize(embed_texts(member, [texts[row] for row in rows]), dim=1)
    member.parameters["prototypes"].copy_(
        functional.normalize(torch.zeros(count, vectors.shape[1]).index_add_(0, labels[rows], vectors), dim=1)
    )


def _bucketed_batches(texts: TextStates, size: int, seed: int) -> list[list[int]]:
    """Returns batches of rows with texts of similar length, in random order."""
    chance = random.Random(seed)  # noqa: S311 - an order, not a secret
    order = list(range(len(texts)))
    chance.shuffle(order)
    batches: list[list[int]] = []
    for start in range(0, len(order), size * BUCKET_BATCHES):
        near = sorted(order[start : start + size * BUCKET_BATCHES], key=lambda row: len(texts[row]))
        batches += [near[at : at + size] for at in range(0, len(near), size)]
    chance.shuffle(batches)
    return batches


def _build_optimizer(member: AdaptedEncoder) -> torch.optim.AdamW:
    pace = member.hyperparameters
    adapters = [array for name, array in member.parameters.items() if name.startswith(("down.", "up."))]
    head = [array for name, array in member.parameters.items() if not name.startswith(("down.", "up."))]
    groups = [
        {"params": adapters, "weight_decay": WEIGHT_DECAY, "share": 1.0},
        {"params": head, "weight_decay": 0.0, "share": pace.head_rate_factor},
    ]
    return torch.optim.AdamW(groups, lr=pace.learning_rate, betas=(0.9, 0.98), fused=True)


def _plan_digest(texts: TextStates, labels: Sequence[int], count: int, hyperparameters: EncoderHyperparameters) -> str:
    """Returns the digest of everything that determines the result, except the tuned blocks of the base."""
    mark = hashlib.sha256(repr((list(labels), count, hyperparameters)).encode())
    for text in texts:
        mark.update(text.contiguous().view(torch.uint8).numpy().data)
    return mark.hexdigest()


def read_losses(checkpoint: Path) -> list[float]:
    """Returns the loss of each step from a checkpoint; NaN for steps of versions that did not store it."""
    from safetensors import safe_open

    with safe_open(checkpoint, "pt") as file:
        if LOSSES_KEY in file.keys():  # noqa: SIM118 - not a mapping
            return [float(loss) for loss in file.get_tensor(LOSSES_KEY)]
        return [math.nan] * int(file.metadata()["steps"])


def _save_checkpoint(
    member: AdaptedEncoder, optimizer: torch.optim.AdamW, path: Path, plan_digest: str, losses: Sequence[float]
) -> None:
    from safetensors.torch import save

    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {f"learnt.{name}": array.detach() for name, array in member.parameters.items()} | {
        RANDOM_STATE_KEY: torch.get_rng_state()
    }
    arrays[LOSSES_KEY] = torch.tensor(losses)
    for name, array in member.parameters.items():
        for key, value in optimizer.state[array].items():
            arrays[f"{key}.{name}"] = value.detach()
    write_file(path, save(arrays, {"plan": plan_digest, "steps": str(len(losses))}))


def _restore_checkpoint(
    member: AdaptedEncoder, optimizer: torch.optim.AdamW, path: Path, plan_digest: str
) -> tuple[int, list[float]]:
    """Restores the last checkpoint; returns the number of completed steps and their losses."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return 0, []
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
            if metadata["plan"] != plan_digest:
                raise InputError("N140", f"the checkpoint {path} belongs to another training", hint="remove it")
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        steps, chance = int(metadata["steps"]), arrays[RANDOM_STATE_KEY]
    except (SafetensorError, KeyError) as error:
        raise InputError("N140", f"the checkpoint {path} cannot be read: {error}", hint="remove it") from error
    with torch.no_grad():
        for name, array in member.parameters.items():
            array.copy_(arrays[f"learnt.{name}"])
            if f"step.{name}" in arrays:  # no batch so far may have used the parameter
                optimizer.state[array] = {key: arrays[f"{key}.{name}"] for key in ("step", "exp_avg", "exp_avg_sq")}
    torch.set_rng_state(chance)
    return steps, arrays[LOSSES_KEY].tolist() if LOSSES_KEY in arrays else [math.nan] * steps

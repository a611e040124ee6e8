"""A member of a committee, trained: epochs of length-bucketed batches, each of which follows from the seed and its own number.

After each epoch, and every two minutes, a checkpoint is written (safetensors, never a pickle); a training that was killed goes on after the
last one to the very same result on the same machine with as many threads and the same code.
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
"""Batches among whose texts those of like length are sought."""
MAX_ATTENTION_PAIRS = 1 << 21
"""Pairs of tokens that attention sees at once where nothing is learnt, so that long texts take no more memory than short ones: of 128 texts
of 128 tokens."""
TEXTS_PER_PROTOTYPE = 20
"""Texts of a label whose mean is its first direction."""
WARMUP_SHARE, WEIGHT_DECAY, MAX_GRADIENT_NORM = 0.06, 0.01, 1.0
"""Share of the steps in which the rate rises; weight decay of the adapters; the longest gradient."""
SAVE_SECONDS = 120.0
"""Between two checkpoints of an epoch."""
LOSSES_KEY = "losses"
"""The array of a checkpoint that has the loss of each step so far."""
RANDOM_STATE_KEY = "chance"
"""The array of a checkpoint that has the state of the generator that dropout draws from."""


@dataclass(frozen=True, slots=True)
class TrainingStep:
    """Where a training stands, told after each step."""

    step: int
    total_steps: int
    loss: float
    seconds_left: float
    """Seconds, by the mean of the steps that were taken since it began, or went on."""


StepCallback: TypeAlias = Callable[[TrainingStep], None]
TextStates: TypeAlias = "Sequence[Tensor]"
"""Of each text, what the blocks below the tuned ones give."""


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
    """Trains a member on the `count` labels of these texts, from `warm_start` if it is given."""
    member = PrototypeEncoder(base, count, hyperparameters)
    wanted = torch.tensor(labels)

    def loss(batch: Sequence[int]) -> Tensor:
        return functional.cross_entropy(
            member.logits(member.embed(*pad_states([texts[row] for row in batch]))), wanted[list(batch)]
        )

    plan = _plan_digest(texts, labels, count, hyperparameters) + (warm_start.sha256 if warm_start else "")
    run = EpochTrainer(loss, lambda seed: _bucketed_batches(texts, hyperparameters.batch_size, seed), plan, checkpoint)
    run.train(
        member,
        lambda: (
            _initialize_prototypes(member, texts, wanted, count) if warm_start is None else warm_start.load_into(member)
        ),
        on_step,
    )
    return member


@dataclass(frozen=True, slots=True)
class EpochTrainer:
    """Passes over rows: what they are, and where they are kept."""

    loss: Callable[[Sequence[int]], Tensor]
    """Of the rows of a batch."""
    batches: Callable[[int], Sequence[Sequence[int]]]
    """Of an epoch, by its seed."""
    plan_digest: str
    """The digest of everything that the result follows from, but the blocks of the base that are tuned."""
    checkpoint: Path

    def train(self, member: AdaptedEncoder, initialize: Callable[[], None], on_step: StepCallback) -> None:
        """Trains a member to the end, from its last checkpoint on; `initialize` sets up one that has none. Raises `InputError` N140 for a
        checkpoint of another training, N124 where the loss is no number."""
        pace, optimizer = member.hyperparameters, _build_optimizer(member)
        seeds = [pace.seed * 1000 + epoch for epoch in range(pace.epochs)]
        order = [(seed, at, batch) for seed in seeds for at, batch in enumerate(self.batches(seed))]
        first, losses = _restore_checkpoint(member, optimizer, self.checkpoint, self.plan_digest)
        if first == 0:
            initialize()
        member.training = True
        began = saved = time.monotonic()
        for done, (seed, at, batch) in enumerate(order[first:], first + 1):
            if at == 0:
                torch.manual_seed(seed)
            share = min(
                1.0, done / (WARMUP_SHARE * len(order)), (len(order) - done) / ((1 - WARMUP_SHARE) * len(order))
            )
            losses.append(self._step(member, optimizer, batch, pace.learning_rate * share, done))
            left = (time.monotonic() - began) / (done - first) * (len(order) - done)
            on_step(TrainingStep(done, len(order), losses[-1], left))
            if done == len(order) or order[done][1] == 0 or time.monotonic() - saved >= SAVE_SECONDS:
                _save_checkpoint(member, optimizer, self.checkpoint, self.plan_digest, losses)
                saved = time.monotonic()
        member.training = False

    def _step(
        self, member: AdaptedEncoder, optimizer: torch.optim.AdamW, batch: Sequence[int], rate: float, done: int
    ) -> float:
        """The loss of a batch, which the member has learnt from. Raises `InputError` N124 where it is no number."""
        for group in optimizer.param_groups:
            group["lr"] = rate * group["share"]
        loss = self.loss(batch)
        lost = check_finite(loss.item(), done)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(member.parameters.values(), MAX_GRADIENT_NORM)
        optimizer.step()
        return lost


@torch.no_grad()
def embed_texts(member: PrototypeEncoder, texts: TextStates, batch_size: int = 128) -> Tensor:
    """The vectors of texts."""
    given = torch.zeros(len(texts), member.base.shape.hidden_size)
    left = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    while left:
        most = 1
        while most < min(batch_size, len(left)) and (most + 1) * len(texts[left[most]]) ** 2 <= MAX_ATTENTION_PAIRS:
            most += 1
        batch, left = left[:most], left[most:]
        given[batch] = member.embed(*pad_states([texts[row] for row in batch]))
    return given


@torch.no_grad()
def _initialize_prototypes(member: PrototypeEncoder, texts: TextStates, labels: Tensor, count: int) -> None:
    """The first direction of a label: the mean of some of its texts as the base has them."""
    rows = [row for label in range(count) for row in (labels == label).nonzero()[:TEXTS_PER_PROTOTYPE, 0].tolist()]
    vectors = functional.normalize(embed_texts(member, [texts[row] for row in rows]), dim=1)
    member.parameters["prototypes"].copy_(
        functional.normalize(torch.zeros(count, vectors.shape[1]).index_add_(0, labels[rows], vectors), dim=1)
    )


def _bucketed_batches(texts: TextStates, size: int, seed: int) -> list[list[int]]:
    """Rows of texts of like length, in random order."""
    chance = random.Random(seed)  # noqa: S311 - an order, not a secret
    order = list(range(len(texts)))
    chance.shuffle(order)
    made: list[list[int]] = []
    for start in range(0, len(order), size * BUCKET_BATCHES):
        near = sorted(order[start : start + size * BUCKET_BATCHES], key=lambda row: len(texts[row]))
        made += [near[at : at + size] for at in range(0, len(near), size)]
    chance.shuffle(made)
    return made


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
    """The digest of everything that the result follows from, but the tuned blocks of the base."""
    mark = hashlib.sha256(repr((list(labels), count, hyperparameters)).encode())
    for text in texts:
        mark.update(text.contiguous().view(torch.uint8).numpy().data)
    return mark.hexdigest()


def read_losses(checkpoint: Path) -> list[float]:
    """The loss of each step of a training, as its checkpoint has it; NaN for those that versions before took."""
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
    """Takes up the last checkpoint; the number of steps that are done, and their losses."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return 0, []
    try:
        with safe_open(path, "pt") as file:
            said = file.metadata()
            if said["plan"] != plan_digest:
                raise InputError("N140", f"the checkpoint {path} is of another training", hint="remove it")
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        steps, chance = int(said["steps"]), arrays[RANDOM_STATE_KEY]
    except (SafetensorError, KeyError) as error:
        raise InputError("N140", f"the checkpoint {path} cannot be read: {error}", hint="remove it") from error
    with torch.no_grad():
        for name, array in member.parameters.items():
            array.copy_(arrays[f"learnt.{name}"])
            if f"step.{name}" in arrays:  # no batch so far may have had to do with it
                optimizer.state[array] = {key: arrays[f"{key}.{name}"] for key in ("step", "exp_avg", "exp_avg_sq")}
    torch.set_rng_state(chance)
    return steps, arrays[LOSSES_KEY].tolist() if LOSSES_KEY in arrays else [math.nan] * steps

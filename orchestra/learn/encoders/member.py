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
from orchestra.learn.encoders.tuned import Adapted, Frozen, Pace, Tuned, padded
from orchestra.learn.lora.divergence import finite

if TYPE_CHECKING:
    from torch import Tensor

    from orchestra.learn.encoders.warm_start import Begun

POOL = 16
"""Batches among whose texts those of like length are sought."""
ATTENDED = 1 << 21
"""Pairs of tokens that attention sees at once where nothing is learnt, so that long texts take no more memory than short ones: of 128 texts
of 128 tokens."""
PER_LABEL = 20
"""Texts of a label whose mean is its first direction."""
WARMING, DECAY, LONGEST = 0.06, 0.01, 1.0
"""Share of the steps in which the rate rises; weight decay of the adapters; the longest gradient."""
SAVE_SECONDS = 120.0
"""Between two checkpoints of an epoch."""
LOSSES = "losses"
"""The array of a checkpoint that has the loss of each step so far."""
CHANCE = "chance"
"""The array of a checkpoint that has the state of the generator that dropout draws from."""


@dataclass(frozen=True, slots=True)
class Step:
    """Where a training stands, told after each step."""

    done: int
    total: int
    loss: float
    left: float
    """Seconds, by the mean of the steps that were taken since it began, or went on."""


Told: TypeAlias = Callable[[Step], None]
Texts: TypeAlias = "Sequence[Tensor]"
"""Of each text, what the blocks below the tuned ones give."""


def trained(
    base: Frozen, texts: Texts, labels: Sequence[int], count: int, pace: Pace, checkpoint: Path, told: Told, begun: Begun | None = None
) -> Tuned:
    """A member that has learnt the labels, of which there are `count`, of these texts; `begun` is what it goes on from."""
    member = Tuned(base, count, pace)
    wanted = torch.tensor(labels)

    def loss(batch: Sequence[int]) -> Tensor:
        return functional.cross_entropy(member.logits(member.embed(*padded([texts[row] for row in batch]))), wanted[list(batch)])

    plan = _plan(texts, labels, count, pace) + (begun.sha256 if begun else "")
    run = Epochs(loss, lambda seed: _batches(texts, pace.batch, seed), plan, checkpoint)
    run.through(member, lambda: _begin(member, texts, wanted, count) if begun is None else begun.give(member), told)
    return member


@dataclass(frozen=True, slots=True)
class Epochs:
    """Passes over rows: what they are, and where they are kept."""

    loss: Callable[[Sequence[int]], Tensor]
    """Of the rows of a batch."""
    batches: Callable[[int], Sequence[Sequence[int]]]
    """Of an epoch, by its seed."""
    plan: str
    """The digest of everything that the result follows from, but the blocks of the base that are tuned."""
    checkpoint: Path

    def through(self, member: Adapted, begin: Callable[[], None], told: Told) -> None:
        """Trains a member to the end, from its last checkpoint on; `begin` sets up one that has none. Raises `InputError` N140 for a
        checkpoint of another training, N124 where the loss is no number."""
        pace, optimizer = member.pace, _optimizer(member)
        seeds = [pace.seed * 1000 + epoch for epoch in range(pace.epochs)]
        order = [(seed, at, batch) for seed in seeds for at, batch in enumerate(self.batches(seed))]
        first, losses = _resumed(member, optimizer, self.checkpoint, self.plan)
        if first == 0:
            begin()
        member.training = True
        began = saved = time.monotonic()
        for done, (seed, at, batch) in enumerate(order[first:], first + 1):
            if at == 0:
                torch.manual_seed(seed)
            share = min(1.0, done / (WARMING * len(order)), (len(order) - done) / ((1 - WARMING) * len(order)))
            losses.append(self._step(member, optimizer, batch, pace.rate * share, done))
            left = (time.monotonic() - began) / (done - first) * (len(order) - done)
            told(Step(done, len(order), losses[-1], left))
            if done == len(order) or order[done][1] == 0 or time.monotonic() - saved >= SAVE_SECONDS:
                _save(member, optimizer, self.checkpoint, self.plan, losses)
                saved = time.monotonic()
        member.training = False

    def _step(self, member: Adapted, optimizer: torch.optim.AdamW, batch: Sequence[int], rate: float, done: int) -> float:
        """The loss of a batch, which the member has learnt from. Raises `InputError` N124 where it is no number."""
        for group in optimizer.param_groups:
            group["lr"] = rate * group["share"]
        loss = self.loss(batch)
        lost = finite(loss.item(), done)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(member.learnt.values(), LONGEST)
        optimizer.step()
        return lost


@torch.no_grad()
def embedded(member: Tuned, texts: Texts, size: int = 128) -> Tensor:
    """The vectors of texts."""
    given = torch.zeros(len(texts), member.base.shape.width)
    left = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    while left:
        most = 1
        while most < min(size, len(left)) and (most + 1) * len(texts[left[most]]) ** 2 <= ATTENDED:
            most += 1
        batch, left = left[:most], left[most:]
        given[batch] = member.embed(*padded([texts[row] for row in batch]))
    return given


@torch.no_grad()
def _begin(member: Tuned, texts: Texts, labels: Tensor, count: int) -> None:
    """The first direction of a label: the mean of some of its texts as the base has them."""
    rows = [row for label in range(count) for row in (labels == label).nonzero()[:PER_LABEL, 0].tolist()]
    vectors = functional.normalize(embedded(member, [texts[row] for row in rows]), dim=1)
    member.learnt["prototypes"].copy_(
        functional.normalize(torch.zeros(count, vectors.shape[1]).index_add_(0, labels[rows], vectors), dim=1)
    )


def _batches(texts: Texts, size: int, seed: int) -> list[list[int]]:
    """Rows of texts of like length, in random order."""
    chance = random.Random(seed)  # noqa: S311 - an order, not a secret
    order = list(range(len(texts)))
    chance.shuffle(order)
    made: list[list[int]] = []
    for start in range(0, len(order), size * POOL):
        near = sorted(order[start : start + size * POOL], key=lambda row: len(texts[row]))
        made += [near[at : at + size] for at in range(0, len(near), size)]
    chance.shuffle(made)
    return made


def _optimizer(member: Adapted) -> torch.optim.AdamW:
    pace = member.pace
    adapters = [array for name, array in member.learnt.items() if name.startswith(("down.", "up."))]
    head = [array for name, array in member.learnt.items() if not name.startswith(("down.", "up."))]
    groups = [{"params": adapters, "weight_decay": DECAY, "share": 1.0}, {"params": head, "weight_decay": 0.0, "share": pace.head}]
    return torch.optim.AdamW(groups, lr=pace.rate, betas=(0.9, 0.98), fused=True)


def _plan(texts: Texts, labels: Sequence[int], count: int, pace: Pace) -> str:
    """The digest of everything that the result follows from, but the tuned blocks of the base."""
    mark = hashlib.sha256(repr((list(labels), count, pace)).encode())
    for text in texts:
        mark.update(text.contiguous().view(torch.uint8).numpy().data)
    return mark.hexdigest()


def losses_of(checkpoint: Path) -> list[float]:
    """The loss of each step of a training, as its checkpoint has it; NaN for those that versions before took."""
    from safetensors import safe_open

    with safe_open(checkpoint, "pt") as file:
        if LOSSES in file.keys():  # noqa: SIM118 - not a mapping
            return [float(loss) for loss in file.get_tensor(LOSSES)]
        return [math.nan] * int(file.metadata()["steps"])


def _save(member: Adapted, optimizer: torch.optim.AdamW, path: Path, plan: str, losses: Sequence[float]) -> None:
    from safetensors.torch import save

    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {f"learnt.{name}": array.detach() for name, array in member.learnt.items()} | {CHANCE: torch.get_rng_state()}
    arrays[LOSSES] = torch.tensor(losses)
    for name, array in member.learnt.items():
        for key, value in optimizer.state[array].items():
            arrays[f"{key}.{name}"] = value.detach()
    write_file(path, save(arrays, {"plan": plan, "steps": str(len(losses))}))


def _resumed(member: Adapted, optimizer: torch.optim.AdamW, path: Path, plan: str) -> tuple[int, list[float]]:
    """Takes up the last checkpoint; the number of steps that are done, and their losses."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return 0, []
    try:
        with safe_open(path, "pt") as file:
            said = file.metadata()
            if said["plan"] != plan:
                raise InputError("N140", f"the checkpoint {path} is of another training", hint="remove it")
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        steps, chance = int(said["steps"]), arrays[CHANCE]
    except (SafetensorError, KeyError) as error:
        raise InputError("N140", f"the checkpoint {path} cannot be read: {error}", hint="remove it") from error
    with torch.no_grad():
        for name, array in member.learnt.items():
            array.copy_(arrays[f"learnt.{name}"])
            if f"step.{name}" in arrays:  # no batch so far may have had to do with it
                optimizer.state[array] = {key: arrays[f"{key}.{name}"] for key in ("step", "exp_avg", "exp_avg_sq")}
    torch.set_rng_state(chance)
    return steps, arrays[LOSSES].tolist() if LOSSES in arrays else [math.nan] * steps

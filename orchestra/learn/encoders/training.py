"""Trainings of encoders: what is trained, on what, and for how long; where their checkpoints are kept, and what they leave.

Readers with a head of their own (`spans`, `slots`, `tables`, `deduction`) differ in what an example is, in its loss and in what the rows to
tune on settle. The rest is here.
"""

from __future__ import annotations

import hashlib
import math
import random
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from orchestra.agents.card import Card
from orchestra.agents.inference.array_files import pack_arrays
from orchestra.agents.inference.model_file import TrainingSource
from orchestra.core.errors import InputError
from orchestra.fleet.weights.encoders import describe_base
from orchestra.learn.compatibility import contract_digest
from orchestra.learn.data.dataset import Dataset, DatasetRow
from orchestra.learn.encoders.warm_start import WarmStart
from orchestra.schema.strict_json import digest

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from orchestra.agents.inference.encoder import Encoder
    from orchestra.learn.encoders.member import TrainingStep
    from orchestra.learn.encoders.tuned import AdaptedEncoder, EncoderHyperparameters, FrozenEncoder

E = TypeVar("E")
A = TypeVar("A", bound="AdaptedEncoder")
PACKAGES = ("torch", "safetensors", "tokenizers", "threadpoolctl")
LEARNING_RATE = 5e-4
"""The highest learning rate of an encoder with a head of its own."""
BATCH_TOKENS = 2_500
"""Tokens of a batch, those that fill up its rows among them."""
BUCKET_ROWS = 200
"""Rows among which those of like length are sought."""
MIN_TUNE_ROWS = 30
"""Rows to tune on from which on they settle anything."""
TEMPERATURES = tuple(2 ** (step / 4) for step in range(-4, 13))
"""What is tried as what logits are divided by."""
PROBABILITY_POWERS = tuple(1 / heat for heat in TEMPERATURES)
"""What is tried as the power of a probability."""


@dataclass(frozen=True, slots=True)
class TrainedEncoder:
    """An encoder that was trained: its files, the one that names the others last, and how much it has right, by what was counted."""

    files: Mapping[str, bytes]
    metrics: Mapping[str, float]

    def write(self, folder: Path) -> None:
        """Puts the files into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in self.files.items():
            (folder / name).write_bytes(content)


@dataclass(frozen=True, kw_only=True)
class EncoderTraining:
    """What is trained, and on what."""

    card: Card
    data: Dataset
    base: Path
    """The folder of the encoder that the card names."""
    cache: Path
    """Where checkpoints are kept."""
    seed: int = 0
    start: Path | None = None
    """The folder of an encoder that it goes on from; None for the base alone."""

    @cached_property
    def warm_start(self) -> WarmStart | None:
        """What it goes on from. Raises `InputError` A003, A004, A011 or N123 for what does not fit."""
        return None if self.start is None else WarmStart.from_folder(self.card, self.start, describe_base(self.card.model, self.base))

    @property
    def start_digest(self) -> str:
        """The digest of what it goes on from; empty for the base alone."""
        return self.warm_start.sha256 if self.warm_start else ""

    @property
    def settings(self) -> tuple[object, ...]:
        """What the result follows from, beside the card, the rows and the base."""
        raise NotImplementedError

    @property
    def source(self) -> TrainingSource:
        """What a card says of the rows that it is trained on: the data set, by its version."""
        manifest = self.data.manifest
        return TrainingSource(name=manifest.name, licence=manifest.licence, rows=len(self.data.rows["train"]), digest=manifest.digest)

    @property
    def checkpoint_path(self) -> Path:
        """Where its checkpoint is kept."""
        return self.checkpoint_folder / "member.safetensors"

    @property
    def checkpoint_folder(self) -> Path:
        """Where its checkpoints are kept."""
        base = sorted(describe_base(self.card.model, self.base).sha256.items())
        facts = (contract_digest(self.card), self.data.manifest.digest, base, *self.settings)
        return self.cache / "learn" / self.card.name / digest(msgspec.json.encode(facts))[:12]


@dataclass(frozen=True, slots=True)
class TrainingExamples:
    """Examples to learn from, by their numbers."""

    loss: Callable[[Sequence[int]], Tensor]
    """Of some of them."""
    lengths: Sequence[int]
    """Tokens of each."""
    facts: tuple[object, ...]
    """What the result follows from, beside what the training goes on from."""
    batch_tokens: int = BATCH_TOKENS
    """Tokens of a batch."""


@dataclass(frozen=True, kw_only=True)
class HeadTraining(EncoderTraining):
    """Of an encoder with a head of its own: all of its blocks are tuned."""

    epochs: int
    learning_rate: float = LEARNING_RATE
    rank: int = 16
    tokens: int
    """Those that are read at once."""

    @property
    def settings(self) -> tuple[object, ...]:
        """What the result follows from, beside the card, the rows and the base."""
        return ((self.epochs, self.learning_rate, self.rank, self.seed, self.tokens, self.start_digest),)

    @property
    def sources(self) -> tuple[TrainingSource, ...]:
        """What a card says of the rows that it is trained on, and was before."""
        return (*(self.warm_start.sources if self.warm_start else ()), self.source)

    def base_config(self, format: str, arrays: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """What `model.json_rule` says before anything is settled: the `fields` of its kind of agent, and what is said of all."""
        base = describe_base(self.card.model, self.base).model_dump()
        data = [source.model_dump() for source in self.sources]
        return {"format": format, **fields, "base": base, "tokens": self.tokens, "data": data, "arrays": arrays}

    def load_base(self, *, fresh: bool) -> tuple[Encoder, FrozenEncoder]:
        """The base, to read with and to train; what an earlier training left is forgotten where it is to begin `fresh`."""
        from orchestra.agents.inference.encoder import Encoder
        from orchestra.learn.encoders.tuned import FrozenEncoder

        if fresh:
            shutil.rmtree(self.checkpoint_folder, ignore_errors=True)
        return Encoder.load(self.base), FrozenEncoder.load(self.base)

    def build_examples(self, build: Callable[[DatasetRow], E | None]) -> list[E]:
        """What is made of the rows to train on, but of those of which nothing is. Raises `InputError` N104 where nothing is left."""
        found = [one for row in self.data.rows["train"] if (one := build(row)) is not None]
        if not found:
            raise InputError("N104", f"{self.data.manifest.name} has no rows to train on", hint="more rows, or other shares of the parts")
        return found

    def hyperparameters(self, base: FrozenEncoder, head_rate_factor: float = 1.0) -> EncoderHyperparameters:
        """How it is trained: all blocks of the base, and its head so many times as fast."""
        from orchestra.learn.encoders.tuned import EncoderHyperparameters

        return EncoderHyperparameters(
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            head_rate_factor=head_rate_factor,
            rank=self.rank,
            blocks=base.shape.layers,
            seed=self.seed,
        )

    def train_member(
        self, member: A, examples: TrainingExamples, warm_start: WarmStart | None, on_step: Callable[[TrainingStep], None]
    ) -> A:
        """A member that has learnt its lesson; `begun` is what it goes on from. Raises `InputError` N140 for a checkpoint of another
        training."""
        from orchestra.learn.encoders.member import EpochTrainer

        plan = hashlib.sha256(repr(examples.facts).encode()).hexdigest() + self.start_digest
        run = EpochTrainer(
            examples.loss, lambda seed: bucketed_batches(examples.lengths, seed, examples.batch_tokens), plan, self.checkpoint_path
        )
        run.train(member, lambda: None if warm_start is None else warm_start.load_into(member), on_step)
        return member

    def build_files(self, config: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], figures: Mapping[str, float]) -> TrainedEncoder:
        """What the card's folder gets."""
        text, content = pack_arrays(config, arrays)
        return TrainedEncoder({config["arrays"]: content, self.card.data: text.encode()}, figures)


def bucketed_batches(lengths: Sequence[int], seed: int, batch_tokens: int = BATCH_TOKENS) -> list[list[int]]:
    """Rows of like length, so many that a batch has `most` tokens, in random order."""
    chance = random.Random(seed)  # noqa: S311 - an order, not a secret
    order = list(range(len(lengths)))
    chance.shuffle(order)
    made: list[list[int]] = []
    for start in range(0, len(order), BUCKET_ROWS):
        batch: list[int] = []
        for row in sorted(order[start : start + BUCKET_ROWS], key=lambda row: lengths[row]):
            if batch and (len(batch) + 1) * lengths[row] > batch_tokens:
                made.append(batch)
                batch = []
            batch.append(row)
        made.append(batch)
    chance.shuffle(made)
    return made


def member_arrays(member: AdaptedEncoder) -> dict[str, NDArray[Any]]:
    """What a member has learnt, as a card's arrays have it."""
    import numpy as np

    halves = ("down.", "up.")
    return {
        name: np.asarray(array[None] if name.startswith(halves) else array, dtype=np.float16) for name, array in member.arrays().items()
    }


def maximize_likelihood(candidates: Sequence[float], predictions: Callable[[float], Iterable[tuple[bool, float]]]) -> float:
    """What makes answers likeliest of all that is tried: whether each is right, and how sure the reader `said` that it is."""
    return min(candidates, key=lambda one: -sum(math.log(max(sure if right else 1 - sure, 1e-6)) for right, sure in predictions(one)))

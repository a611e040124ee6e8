"""The training of encoders: settings, checkpoints and results.

Encoders with their own head (`spans`, `slots`, `tables`, `word_problems`) differ in their examples, in their loss and
in what the tune split determines. This module has what they share.
"""

from __future__ import annotations

import hashlib
import math
import random
import shutil
from abc import ABC, abstractmethod
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
"""Peak learning rate of an encoder with its own head."""
BATCH_TOKENS = 2_500
"""Tokens of a batch, including padding."""
BUCKET_ROWS = 200
"""Number of rows that are sorted by length together."""
MIN_TUNE_ROWS = 30
"""Minimal number of tune rows to determine a setting."""
TEMPERATURES = tuple(2 ** (step / 4) for step in range(-4, 13))
"""Candidate temperatures."""
PROBABILITY_POWERS = tuple(1 / heat for heat in TEMPERATURES)
"""Candidate exponents of a probability."""


@dataclass(frozen=True, slots=True)
class TrainedEncoder:
    """A trained encoder: its files (the file that names the others is last), its accuracy, and what the accuracy
    counts.
    """

    files: Mapping[str, bytes]
    metrics: Mapping[str, float]

    def write(self, folder: Path) -> None:
        """Writes the files into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in self.files.items():
            (folder / name).write_bytes(content)


@dataclass(frozen=True, kw_only=True)
class EncoderTraining(ABC):
    """A training: what is trained, and on what."""

    card: Card
    data: Dataset
    base: Path
    """The folder of the card's base encoder."""
    cache: Path
    """The folder for checkpoints."""
    seed: int = 0
    start: Path | None = None
    """The folder of the encoder that the training starts from; None for the base alone."""

    @cached_property
    def warm_start(self) -> WarmStart | None:
        """The weights that the training starts from.

        Raises:
            InputError: A003, A004, A011 or N123 if they do not fit.
        """
        return (
            None
            if self.start is None
            else WarmStart.from_folder(self.card, self.start, describe_base(self.card.model, self.base))
        )

    @property
    def start_digest(self) -> str:
        """Digest of the weights that the training starts from; empty for the base alone."""
        return self.warm_start.sha256 if self.warm_start else ""

    @property
    @abstractmethod
    def settings(self) -> tuple[object, ...]:
        """Settings that determine the result, beside the card, the rows and the base."""

    @property
    def source(self) -> TrainingSource:
        """The training source in the card: the data set by its version."""
        manifest = self.data.manifest
        return TrainingSource(
            name=manifest.name, licence=manifest.licence, rows=len(self.data.rows["train"]), digest=manifest.digest
        )

    @property
    def checkpoint_path(self) -> Path:
        """The file of the checkpoint."""
        return self.checkpoint_folder / "member.safetensors"

    @property
    def checkpoint_folder(self) -> Path:
        """The folder of the checkpoints."""
        base = sorted(describe_base(self.card.model, self.base).sha256.items())
        facts = (contract_digest(self.card), self.data.manifest.digest, base, *self.settings)
        return self.cache / "learn" / self.card.name / digest(msgspec.json.encode(facts))[:12]


@dataclass(frozen=True, slots=True)
class TrainingExamples:
    """Training examples, by index."""

    loss: Callable[[Sequence[int]], Tensor]
    """Returns the loss of some examples."""
    lengths: Sequence[int]
    """Number of tokens of each example."""
    facts: tuple[object, ...]
    """Facts that determine the result, beside the warm start."""
    batch_tokens: int = BATCH_TOKENS
    """Tokens of a batch."""


@dataclass(frozen=True, kw_only=True)
class HeadTraining(EncoderTraining):
    """The training of an encoder with its own head: all blocks are tuned."""

    epochs: int
    learning_rate: float = LEARNING_RATE
    rank: int = 16
    tokens: int
    """Tokens of a window."""

    @property
    def settings(self) -> tuple[object, ...]:
        """Settings that determine the result, beside the card, the rows and the base."""
        return ((self.epochs, self.learning_rate, self.rank, self.seed, self.tokens, self.start_digest),)

    @property
    def sources(self) -> tuple[TrainingSource, ...]:
        """The training sources in the card, including earlier ones."""
        return (*(self.warm_start.sources if self.warm_start else ()), self.source)

    def base_config(self, format: str, arrays: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Returns `model.json` before any setting is determined: the common fields, and the `fields` of the kind of
        agent.
        """
        base = describe_base(self.card.model, self.base).model_dump()
        data = [source.model_dump() for source in self.sources]
        return {"format": format, **fields, "base": base, "tokens": self.tokens, "data": data, "arrays": arrays}

    def load_base(self, *, fresh: bool) -> tuple[Encoder, FrozenEncoder]:
        """Loads the base for inference and for training; `fresh` removes the checkpoints of an earlier training."""
        from orchestra.agents.inference.encoder import Encoder
        from orchestra.learn.encoders.tuned import FrozenEncoder

        if fresh:
            shutil.rmtree(self.checkpoint_folder, ignore_errors=True)
        return Encoder.load(self.base), FrozenEncoder.load(self.base)

    def build_examples(self, build: Callable[[DatasetRow], E | None]) -> list[E]:
        """Builds the examples of the training split; rows without an example are left out.

        Raises:
            InputError: N104 if no example is left.
        """
        examples = [example for row in self.data.rows["train"] if (example := build(row)) is not None]
        if not examples:
            raise InputError(
                "N104",
                f"{self.data.manifest.name} has no rows in the train split",
                hint="use more rows, or other split shares",
            )
        return examples

    def hyperparameters(self, base: FrozenEncoder, head_rate_factor: float = 1.0) -> EncoderHyperparameters:
        """Returns the hyperparameters: all blocks of the base are tuned, and the head's learning rate has a factor."""
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
        self,
        member: A,
        examples: TrainingExamples,
        warm_start: WarmStart | None,
        on_step: Callable[[TrainingStep], None],
    ) -> A:
        """Trains a member, from `warm_start` if it is given.

        Raises:
            InputError: N140 if a checkpoint belongs to another training.
        """
        from orchestra.learn.encoders.member import EpochTrainer

        plan = hashlib.sha256(repr(examples.facts).encode()).hexdigest() + self.start_digest
        run = EpochTrainer(
            examples.loss,
            lambda seed: bucketed_batches(examples.lengths, seed, examples.batch_tokens),
            plan,
            self.checkpoint_path,
        )
        run.train(member, lambda: None if warm_start is None else warm_start.load_into(member), on_step)
        return member

    def build_files(
        self, config: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], figures: Mapping[str, float]
    ) -> TrainedEncoder:
        """Returns the files for the folder of the card."""
        text, content = pack_arrays(config, arrays)
        return TrainedEncoder({config["arrays"]: content, self.card.data: text.encode()}, figures)


def bucketed_batches(lengths: Sequence[int], seed: int, batch_tokens: int = BATCH_TOKENS) -> list[list[int]]:
    """Returns batches of rows of similar length, at most `batch_tokens` tokens each, in random order."""
    chance = random.Random(seed)  # noqa: S311 - an order, not a secret
    order = list(range(len(lengths)))
    chance.shuffle(order)
    batches: list[list[int]] = []
    for start in range(0, len(order), BUCKET_ROWS):
        batch: list[int] = []
        for row in sorted(order[start : start + BUCKET_ROWS], key=lambda row: lengths[row]):
            if batch and (len(batch) + 1) * lengths[row] > batch_tokens:
                batches.append(batch)
                batch = []
            batch.append(row)
        batches.append(batch)
    chance.shuffle(batches)
    return batches


def member_arrays(member: AdaptedEncoder) -> dict[str, NDArray[Any]]:
    """Returns what a member has learnt, as arrays of a card."""
    import numpy as np

    halves = ("down.", "up.")
    return {
        name: np.asarray(array[None] if name.startswith(halves) else array, dtype=np.float16)
        for name, array in member.arrays().items()
    }


def maximize_likelihood(
    candidates: Sequence[float], predictions: Callable[[float], Iterable[tuple[bool, float]]]
) -> float:
    """Returns the candidate with the highest likelihood; `predictions` gives (correct, probability) of each answer."""
    return min(
        candidates,
        key=lambda candidate: (
            -sum(math.log(max(sure if right else 1 - sure, 1e-6)) for right, sure in predictions(candidate))
        ),
    )

"""Training of an adapter from a card, a data set and a base model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import msgspec

from orchestra.agents.card import Card
from orchestra.core.errors import InputError
from orchestra.learn import lora_adapter
from orchestra.learn.batching import Batcher
from orchestra.learn.compatibility import check_contract, skill_digest
from orchestra.learn.data.dataset import Dataset, DatasetRow
from orchestra.learn.lora.base_model import load_base, load_tokenizer
from orchestra.learn.lora.checkpoint import Checkpoints
from orchestra.learn.lora.distillation import DistillationSettings, SoftTeacher, check_tokenizers
from orchestra.learn.lora.examples import ExampleEncoder, TokenExample
from orchestra.learn.lora.loop import BEST_RULE, TrainingHyperparameters, TrainingProgress, train
from orchestra.learn.lora.model import (
    AdapterShape,
    Device,
    Learner,
    check_packages,
    pick_device,
)
from orchestra.schema.strict_json import digest


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterTraining:
    """The inputs and settings of a training."""

    card: Card
    data: Dataset
    base: Path
    """The folder of the base model's weights."""
    base_name: str
    base_digest: str
    cache: Path
    """The folder for checkpoints."""
    shape: AdapterShape = field(default_factory=AdapterShape)
    hyperparameters: TrainingHyperparameters = field(default_factory=TrainingHyperparameters)
    batch_tokens: int = 1400
    """Tokens of a batch."""
    max_example_tokens: int = 2048
    """Maximal number of tokens of an example; longer ones are left out."""
    device: Device = "auto"
    command: str = ""
    teacher: DistillationSettings | None = None
    """The teacher whose probabilities are learnt beside the labels."""
    start: lora_adapter.StartingAdapter | None = None
    """The adapter that the training starts from; None for the base alone."""

    @property
    def plan_digest(self) -> str:
        """Digest of everything that determines the result."""
        limits = (self.batch_tokens, self.max_example_tokens)
        facts = (
            skill_digest(self.card),
            self.data.manifest.digest,
            self.base_digest,
            asdict(self.shape),
            asdict(self.hyperparameters),
            limits,
            BEST_RULE,
        )
        teacher_fields = () if self.teacher is None else (self.teacher.plan_facts,)
        start_fields = () if self.start is None else (f"start {self.start.digest}",)
        return digest(msgspec.json.encode((*facts, *teacher_fields, *start_fields)))

    @property
    def checkpoint_folder(self) -> Path:
        """The folder of the checkpoint."""
        return self.cache / "learn" / self.card.name / self.plan_digest[:12]


@dataclass(frozen=True, slots=True)
class PreparedExamples:
    """The examples of a training, and the number of rows that were too long."""

    train: Sequence[TokenExample]
    tune: Sequence[TokenExample]
    too_long: int


def prepare_examples(training: AdapterTraining) -> PreparedExamples:
    """Encodes the examples of a training.

    Raises:
        InputError: N103 if the data set has other types; N104 if it has no rows for training or tuning; N121 if the
        teacher has another tokenizer.
    """
    card, data = training.card, training.data
    if card.kind != "model":
        raise InputError("N105", f"{card.name} is a classical agent, and has no adapter", hint="orchestra explain N105")
    check_contract(card, data.manifest)
    if training.teacher is not None:
        check_tokenizers(training.base, training.teacher.folder)
    maker = ExampleEncoder(card, load_tokenizer(training.base))

    def encoded(rows: Sequence[DatasetRow]) -> tuple[list[TokenExample], int]:
        all_examples = [maker.encode_row(row.input, row.output) for row in rows]
        short_examples = [example for example in all_examples if len(example) <= training.max_example_tokens]
        return short_examples, len(all_examples) - len(short_examples)

    (first, long), (tune_examples, omitted_count) = encoded(data.rows["train"]), encoded(data.rows["tune"])
    for name, examples in (("train", first), ("tune", tune_examples)):
        if not examples:
            raise InputError(
                "N104",
                f"{data.manifest.name} has no rows in the {name} split",
                hint="use more rows, or other split shares",
            )
    return PreparedExamples(first, tune_examples, long + omitted_count)


def train_adapter(
    training: AdapterTraining,
    prepared: PreparedExamples,
    out: Path,
    on_step: Callable[[TrainingProgress], None],
    *,
    fresh: bool = False,
    on_phase: Callable[[str], None] = lambda phase: None,
) -> lora_adapter.AdapterTrainingRecord:
    """Trains, or resumes a killed training; writes the adapter to `out`.

    Args:
        training: The inputs and settings.
        prepared: The examples.
        out: The folder of the adapter.
        on_step: Called after each step.
        fresh: Whether to ignore a checkpoint.
        on_phase: Called with what begins, before the first step.
    """
    check_packages()
    checkpoints = Checkpoints(training.checkpoint_folder)
    if fresh:
        checkpoints.clear()
    on_phase(f"loading the base {training.base_name}")
    device = pick_device(training.device)
    teacher = SoftTeacher.load(training.teacher, device) if training.teacher is not None else None
    learner = Learner(load_base(training.base), training.shape, training.hyperparameters.seed, device, teacher=teacher)
    if training.start is not None:
        training.start.load_into(learner)
    batches, tune_batcher = (
        Batcher.from_examples(examples, training.batch_tokens) for examples in (prepared.train, prepared.tune)
    )
    on_phase(f"training on {device}, in batches of at most {training.batch_tokens:,} tokens")
    state = train(learner, batches, tune_batcher, training.hyperparameters, training.plan_digest, checkpoints, on_step)
    data = training.data.manifest
    training_record = lora_adapter.AdapterTrainingRecord(
        agent=training.card.name,
        skill=skill_digest(training.card),
        sha256="",
        base=training.base_name,
        bases=(training.base_digest,),
        rank=training.shape.rank,
        alpha=training.shape.alpha,
        targets=training.shape.targets,
        data=f"{data.name} {data.digest}",
        licence=data.licence,
        command=training.command,
        teacher=str(training.teacher or ""),
        start="" if training.start is None else training.start.digest,
        versions=lora_adapter.package_versions(),
        steps=state.step,
        seconds=round(state.seconds, 1),
        tokens=state.tokens_seen,
        best_step=state.best_step,
        curve=tuple(state.points),
    )
    return lora_adapter.write(out, learner.master_weights, learner.lora_config, training_record)

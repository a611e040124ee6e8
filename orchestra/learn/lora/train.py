"""Training an agent: its card, a data set and a base model become an adapter."""

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
from orchestra.learn.data.dataset import DataSet, Row
from orchestra.learn.lora.checkpoint import Checkpoints
from orchestra.learn.lora.distillation import Distillation, SoftTeacher, check_tokenizers
from orchestra.learn.lora.examples import Example, ExampleMaker
from orchestra.learn.lora.loop import BEST_RULE, Course, Tick, train
from orchestra.learn.lora.model import Device, Learner, Shape, available, load_base, load_tokenizer, pick_device
from orchestra.schema.strict_json import digest


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterTraining:
    """What is trained, on what, and how."""

    card: Card
    data: DataSet
    base: Path
    """The folder of the base model's weights."""
    base_name: str
    base_digest: str
    cache: Path
    """Where checkpoints are kept."""
    shape: Shape = field(default_factory=Shape)
    course: Course = field(default_factory=Course)
    most: int = 1400
    """Tokens of a batch."""
    longest: int = 2048
    """Tokens of an example at most; longer ones are left out."""
    device: Device = "auto"
    command: str = ""
    teacher: Distillation | None = None
    """Whose probabilities are learnt beside the labels."""
    start: lora_adapter.Start | None = None
    """The adapter that it goes on from; without it from the base alone."""

    @property
    def plan(self) -> str:
        """The digest of everything that the result follows from."""
        limits = (self.most, self.longest)
        facts = (
            skill_digest(self.card),
            self.data.manifest.digest,
            self.base_digest,
            asdict(self.shape),
            asdict(self.course),
            limits,
            BEST_RULE,
        )
        taught = () if self.teacher is None else (self.teacher.facts,)
        begun = () if self.start is None else (f"start {self.start.digest}",)
        return digest(msgspec.json.encode((*facts, *taught, *begun)))

    @property
    def folder(self) -> Path:
        """Where its checkpoint is kept."""
        return self.cache / "learn" / self.card.name / self.plan[:12]


@dataclass(frozen=True, slots=True)
class Prepared:
    """The examples of a training, and how many rows were too long for it."""

    train: Sequence[Example]
    tune: Sequence[Example]
    long: int


def prepare(training: AdapterTraining) -> Prepared:
    """The examples.

    Raises `InputError` N103 for a data set of another type, N104 for one without rows to train or to tune on, N121 for a teacher
    with another tokenizer.
    """
    card, data = training.card, training.data
    if card.kind != "model":
        raise InputError("N105", f"{card.name} is a classical agent, and has no adapter", hint="orchestra explain N105")
    check_contract(card, data.manifest)
    if training.teacher is not None:
        check_tokenizers(training.base, training.teacher.folder)
    maker = ExampleMaker(card, load_tokenizer(training.base))

    def encoded(rows: Sequence[Row]) -> tuple[list[Example], int]:
        every = [maker.example(row.input, row.output) for row in rows]
        kept = [example for example in every if len(example) <= training.longest]
        return kept, len(every) - len(kept)

    (first, long), (held, more) = encoded(data.rows["train"]), encoded(data.rows["tune"])
    for name, examples in (("train", first), ("tune", held)):
        if not examples:
            raise InputError("N104", f"{data.manifest.name} has no rows to {name} on", hint="more rows, or other shares of the parts")
    return Prepared(first, held, long + more)


def run(
    training: AdapterTraining, prepared: Prepared, out: Path, tell: Callable[[Tick], None], *, fresh: bool = False
) -> lora_adapter.Made:
    """Trains, or goes on where a killed training stopped; writes the adapter to `out`."""
    available()
    kept = Checkpoints(training.folder)
    if fresh:
        kept.clear()
    device = pick_device(training.device)
    teacher = SoftTeacher.load(training.teacher, device) if training.teacher is not None else None
    learner = Learner(load_base(training.base), training.shape, training.course.seed, device, teacher=teacher)
    if training.start is not None:
        training.start.give(learner)
    batches, held = (Batcher.of(examples, training.most) for examples in (prepared.train, prepared.tune))
    state = train(learner, batches, held, training.course, training.plan, kept, tell)
    data = training.data.manifest
    made = lora_adapter.Made(
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
        versions=lora_adapter.versions(),
        steps=state.step,
        seconds=round(state.seconds, 1),
        tokens=state.seen,
        best_step=state.best_step,
        curve=tuple(state.points),
    )
    return lora_adapter.write(out, learner.masters, learner.settings, made)

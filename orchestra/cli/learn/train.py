"""What `orchestra learn train` does: an adapter, an encoder or a few arrays made of a data set, and how far that is."""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, TypeVar

from orchestra.agents.card import Card
from orchestra.agents.encoder_tasks import skill
from orchestra.app.project import Project
from orchestra.cli.context import settings
from orchestra.cli.output import note, say, seconds
from orchestra.cli.output_files import check_writable, writing
from orchestra.core.errors import InputError
from orchestra.fleet.config import FleetConfig, LocalServer, read
from orchestra.fleet.supervisor.folders import Folders
from orchestra.fleet.weights.weights import Pantry, absent, find, verify
from orchestra.learn.compatibility import learning
from orchestra.learn.data import provenance
from orchestra.learn.data.dataset import DataSet
from orchestra.learn.data.provenance import LearntFrom
from orchestra.learn.encoders.member import Step
from orchestra.learn.lora.distillation import Distillation
from orchestra.learn.lora.loop import Course, Tick
from orchestra.learn.lora.model import DEVICES, TARGETS, Device, Shape, available
from orchestra.learn.lora.train import AdapterTraining, prepare, run
from orchestra.learn.lora_adapter import Start, check_room
from orchestra.learn.training_lock import alone

if TYPE_CHECKING:
    from orchestra.cli.learn.commands import Training
    from orchestra.learn.encoders.intents import LabelTraining
    from orchestra.learn.encoders.training import HeadTraining

EVERY = 10.0
"""Seconds between two lines of a training."""
TAKEN: Mapping[str, tuple[str, ...]] = {
    "sklearn": (),
    "tagger": (),
    "encoder": ("minutes", "epochs", "rate", "seed", "start", "fresh"),
}
"""What else than rows and a folder a training takes, by the agent's kind; of a language model's adapter everything."""
ADAPTER_RATE = 6e-4
"""The highest learning rate of an adapter."""
Choice = TypeVar("Choice", bound=str)


@dataclass(frozen=True, slots=True)
class _Manner:
    """How an adapter is trained."""

    shape: Shape
    course: Course
    device: Device

    @classmethod
    def of(cls, asked: Training) -> _Manner:
        """As options say. Raises `InputError` N107."""
        if asked.minutes is not None and asked.epochs is not None:
            raise _option("--minutes and --epochs", "both", ("one of them",))
        shape = Shape(asked.rank, 2 * asked.rank, _chosen("--targets", asked.targets, TARGETS))
        course = Course(
            epochs=3.0 if asked.minutes is None and asked.epochs is None else asked.epochs,
            minutes=asked.minutes,
            rate=ADAPTER_RATE if asked.rate is None else asked.rate,
            decay=_chosen("--decay", asked.decay, ("linear", "cosine", "none")),
            seed=asked.seed,
            patience=asked.patience,
            tune_every=asked.tune_every,
        )
        return cls(shape, course, _chosen("--device", asked.device, DEVICES))


def train(asked: Training, said: Iterable[str]) -> None:
    """Trains an agent; `said` are the options that were given. Raises `InputError` N107 for those that are not for such an agent."""
    manner = _Manner.of(asked)
    card = learning(Project.load(settings()).registry.card(asked.agent))
    _check_about(card, said)
    target = asked.out or asked.data / f"{asked.agent}-{'adapter' if card.kind == 'model' else 'trained'}"
    check_writable(target, "--out", folder=True)
    if card.kind == "encoder":
        _train_encoder(card, asked, target)
    elif card.kind == "model":
        _train_adapter(card, asked, manner, target)
    else:
        _train_here(card, asked.data, target)


def _check_about(card: Card, said: Iterable[str]) -> None:
    """Refuses options that a training of such an agent does not have. Raises `InputError` N107."""
    if (taken := TAKEN.get(card.kind)) is None:
        return
    for name in said:
        if name not in ("agent", "data", "out", *taken):
            option = f"--{name.replace('_', '-')}"
            hint = f"leave it out; {', '.join(f'--{one}' for one in taken)}" if taken else "leave it out"
            raise _refused(f"{option} is not for {card.name}, of kind {card.kind}", hint)


def _train_adapter(card: Card, asked: Training, manner: _Manner, target: Path) -> None:
    available()
    check_room(target)
    base_name, folder = _base(card)
    taught = _teacher(asked)
    training = AdapterTraining(
        card=card,
        data=DataSet.load(asked.data),
        base=folder,
        base_name=base_name,
        base_digest=verify(folder).digest,
        cache=Folders.of().cache,
        shape=manner.shape,
        course=manner.course,
        most=asked.batch,
        longest=asked.longest,
        device=manner.device,
        command=_command(asked, manner, taught),
        teacher=taught,
        start=Start.of(asked.start, manner.shape) if asked.start is not None else None,
    )
    before = _before(card, asked)
    prepared = prepare(training)
    note(f"{len(prepared.train):,} rows to train on, {len(prepared.tune):,} to tune on; {prepared.long:,} are too long and left out")
    note(f"checkpoints: {training.folder}")
    with alone(training.folder):
        made = run(training, prepared, target, Teller(), fresh=asked.fresh)
    with writing(target, "--out"):
        provenance.record(card, training.data, target, before)
    kept = next(point for point in made.curve if point.step == made.best_step)
    say(f"{target}: loss on the tune part {kept.tune:.4f}, {kept.exact:.3f} of its rows exact (step {made.best_step} of {made.steps})")


def _command(asked: Training, manner: _Manner, taught: Distillation | None) -> str:
    """The command that makes the same adapter of the same data set; it names no folder of this machine."""
    course, shape = manner.course, manner.shape
    ends = f"--epochs {course.epochs:g}" if course.epochs is not None else f"--minutes {course.minutes:g}"
    looks = f"--patience {course.patience} --tune-every {course.tune_every:g}"
    steps = f"--rate {course.rate:g} --decay {course.decay} --seed {course.seed} {looks} --batch {asked.batch} --longest {asked.longest}"
    command = f"orchestra learn train {asked.agent} --data DATA {ends} --rank {shape.rank} --targets {shape.targets} {steps}"
    if taught is not None:
        adapter = " --teacher-adapter ADAPTER" if taught.adapter is not None else ""
        command += f" --teacher {taught.name}{adapter} --temperature {taught.temperature:g} --share {taught.share:g}"
    return command + (" --start ADAPTER" if asked.start is not None else "")


def _train_encoder(card: Card, asked: Training, out: Path) -> None:
    from orchestra.learn.encoders import intents, record
    from orchestra.learn.encoders.training import PACKAGES

    course = _course(card)
    available(intents.PACKAGES if course is None else PACKAGES)
    if course is not None and asked.minutes is not None:
        reason = f"{card.name} tells no labels: its training ends after epochs, not after minutes"
        raise InputError("N107", reason, hint="--epochs 3 instead of --minutes")
    rows, base = DataSet.load(asked.data), _encoder(card.model)
    before = _before(card, asked)
    training = _labels(card, rows, base, asked) if course is None else _head(course, card, rows, base, asked)
    with alone(training.folder):
        made = (intents if course is None else course).run(training, _telling(), fresh=asked.fresh)
    with writing(out, "--out"):
        made.write(out)
        provenance.record(card, rows, out, before)
        record.record(training, out, _encoders_command(asked, training))
    shares = ", ".join(f"{name} {value:.3f}" for name, value in made.figures.items())
    judged = "on the texts that were left out" if course is None else "of the tune part"
    say(f"{out}: right {judged}: {shares or 'not known'}; orchestra learn promote {card.name} {out} --data {asked.data}")


def _labels(card: Card, rows: DataSet, base: Path, asked: Training) -> LabelTraining:
    """How an encoder that tells labels is trained."""
    from orchestra.learn.encoders import intents

    return intents.LabelTraining(
        card=card,
        data=rows,
        base=base,
        cache=Folders.of().cache,
        epochs=_passes(asked),
        minutes=asked.minutes,
        rate=asked.rate,
        seed=asked.seed,
        start=asked.start,
    )


def _head(course: ModuleType, card: Card, rows: DataSet, base: Path, asked: Training) -> HeadTraining:
    """How an encoder with one head is trained, which `course` does."""
    from orchestra.learn.encoders.training import RATE, HeadTraining

    return HeadTraining(
        card=card,
        data=rows,
        base=base,
        cache=Folders.of().cache,
        epochs=_passes(asked) or course.EPOCHS,
        rate=RATE if asked.rate is None else asked.rate,
        seed=asked.seed,
        tokens=course.TOKENS,
        start=asked.start,
    )


def _encoders_command(asked: Training, training: LabelTraining | HeadTraining) -> str:
    """The command that makes the same encoder of the same data set, but for a budget of minutes; it names no folder of this machine."""
    ends = f" --minutes {asked.minutes:g}" if asked.minutes is not None else f" --epochs {training.epochs}" if training.epochs else ""
    rate = f" --rate {training.rate:g}" if training.rate is not None else ""
    start = " --start ENCODER" if asked.start is not None else ""
    return f"orchestra learn train {asked.agent} --data DATA{ends}{rate} --seed {asked.seed}{start}"


def _passes(asked: Training) -> int | None:
    """Whole passes over the rows; None for the training's own."""
    return max(1, round(asked.epochs)) if asked.epochs is not None else None


def _before(card: Card, asked: Training) -> LearntFrom | None:
    """What that has learnt from which a training goes on."""
    return provenance.read(card, asked.start) if asked.start is not None else None


def _encoder(model: str) -> Path:
    """The folder of an encoder's weights, which are fetched where they are not here."""
    from orchestra.cli.progress import Waiting
    from orchestra.fleet.weights.encoders import Encoders

    waiting = Waiting()
    try:
        return asyncio.run(Encoders(Pantry.of(hub=settings().hub or None), waiting).folder(model))
    finally:
        waiting.close()


def _course(card: Card) -> ModuleType | None:
    """What trains an encoder that is no committee; None for one that is."""
    from orchestra.learn.encoders import slots, spans, tables, word_problems

    return {"tables": tables, "spans": spans, "slots": slots, "deduction": word_problems}.get(skill(card))


def _train_here(card: Card, data: Path, out: Path) -> None:
    from orchestra.learn import classical

    rows = DataSet.load(data)
    made = classical.train(card, rows)
    with writing(out, "--out"):
        made.write(out, card.data)
        provenance.record(card, rows, out)
    left = f", {made.left_out:,} left out" if made.left_out else ""
    say(f"{out}: trained on {made.rows:,} rows{left}; orchestra learn promote {card.name} {out} --data {data}")
    for one in made.shares:
        say(f"  {one.share:.0%} of the tune part is above {one.above:.4f}; what was expected of it is {one.mean:.3f} on average")


def _base(card: Card) -> tuple[str, Path]:
    """The name and the folder of the weights that stand behind a card's model in the fleet."""
    return _weights(_fleet(), card.model)


def _fleet() -> FleetConfig:
    chosen = settings()
    return read(chosen.find_resource("configs", chosen.fleet))


def _weights(config: FleetConfig, model: str) -> tuple[str, Path]:
    """The name and the folder of a model's weights. Raises `InputError` N106, `FleetError` F003 where they are not here."""
    for name in config.serving(model):
        server = config.servers[name]
        if isinstance(server, LocalServer):
            if (folder := find(server.weights, Pantry.of())) is None:
                raise absent(server.weights)
            return server.model, folder
    raise InputError("N106", f"no server of this fleet that serves {model!r} has its weights here", hint="orchestra explain N106")


def _teacher(asked: Training) -> Distillation | None:
    """The teacher of a training: a model of the fleet whose weights are here, or a folder of weights."""
    named, adapter = asked.teacher, asked.teacher_adapter
    if not named:
        if adapter is not None:
            raise _option("--teacher-adapter", "without a --teacher", ("--teacher MODEL too",))
        return None
    config = _fleet()
    name, folder = _weights(config, named) if named in config.models else (Path(named).name, Path(named))
    return Distillation.of(name, folder, adapter, asked.temperature, asked.share)


def _chosen(option: str, given: str, known: Iterable[Choice]) -> Choice:
    for choice in known:
        if choice == given:
            return choice
    raise _option(option, given, known)


def _option(option: str, given: str, known: Iterable[str]) -> InputError:
    return _refused(f"{option} cannot be {given}", f"take {', '.join(known)}")


def _refused(reason: str, hint: str) -> InputError:
    return InputError("N107", reason, hint=hint)


class Teller:
    """Says how a training goes: a line every ten seconds, and one for each look at the tune part."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic, self._said = monotonic, -math.inf

    def __call__(self, tick: Tick) -> None:
        self.line(told(tick), now=tick.point is not None)

    def line(self, text: str, *, now: bool = False) -> None:
        """Says a line, where the last one is long enough ago or where it is to be said `now`."""
        at = self._monotonic()
        if now or at - self._said >= EVERY:
            self._said = at
            print(text, file=sys.stderr, flush=True)


def _telling() -> Callable[[Step], None]:
    """Tells a step of an encoder's training."""
    teller = Teller()

    def tell(step: Step) -> None:
        line = f"step {step.done}/{step.total}, loss {step.loss:.3f}, {seconds(step.left)} left"
        teller.line(line, now=step.done == step.total)

    return tell


def told(tick: Tick) -> str:
    """A line about a step."""
    steps = f"{tick.step}/{tick.steps}" if tick.steps else str(tick.step)
    left = "" if math.isnan(tick.left) else f", {seconds(max(0.0, tick.left))} left"
    line = f"step {steps}, epoch {tick.epoch:.2f}, loss {tick.loss:.3f}, {tick.rate:.0f} tokens/s{left}"
    return f"{line} | tune: loss {tick.point.tune:.4f}, exact {tick.point.exact:.3f}" if tick.point is not None else line

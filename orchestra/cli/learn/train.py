"""`orchestra learn train`: trains an adapter, an encoder or the arrays of a tagger or classifier, and reports
progress.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, TypeVar

from orchestra.agents.card import Card
from orchestra.agents.encoder_tasks import encoder_task
from orchestra.app.project import Project
from orchestra.cli.context import load_settings
from orchestra.cli.output import check_writable, print_note, print_text, writing_output
from orchestra.core.errors import InputError
from orchestra.core.quantities import format_duration
from orchestra.fleet.base_models import refuse_quantized
from orchestra.fleet.config import FleetConfig, LocalServer, configured_fleet
from orchestra.fleet.supervisor.folders import Folders
from orchestra.fleet.weights.weights import ModelStore, find_weights, missing_error, verify_weights
from orchestra.learn.compatibility import check_trainable
from orchestra.learn.data import provenance
from orchestra.learn.data.dataset import Dataset
from orchestra.learn.data.provenance import TrainingProvenance
from orchestra.learn.lora.distillation import DistillationSettings
from orchestra.learn.lora.loop import TrainingHyperparameters, TrainingProgress
from orchestra.learn.lora.model import DEVICES, TARGET_LAYERS, AdapterShape, Device, check_packages
from orchestra.learn.lora.train import AdapterTraining, prepare_examples, train_adapter
from orchestra.learn.lora_adapter import AdapterTrainingRecord, StartingAdapter, check_output_folder
from orchestra.learn.training_lock import lock_training

if TYPE_CHECKING:
    from orchestra.cli.learn.arguments import TrainArguments
    from orchestra.learn.encoders.intents import ClassifierTraining
    from orchestra.learn.encoders.member import TrainingStep
    from orchestra.learn.encoders.training import HeadTraining

REPORT_SECONDS = 10.0
"""Seconds between two progress lines."""
SUPPORTED_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "sklearn": (),
    "tagger": (),
    "encoder": ("minutes", "epochs", "rate", "seed", "start", "fresh"),
}
"""The supported options by kind of agent, besides data and output; language models support all."""
HEAD_TASKS = ("tables", "spans", "slots", "deduction")
"""The tasks of encoders with their own head; other encoders predict labels."""
ADAPTER_RATE = 6e-4
"""The default maximum learning rate of an adapter."""
Choice = TypeVar("Choice", bound=str)


@dataclass(frozen=True, slots=True)
class _AdapterSettings:
    """How an adapter is trained."""

    shape: AdapterShape
    hyperparameters: TrainingHyperparameters
    device: Device

    @classmethod
    def from_arguments(cls, arguments: TrainArguments) -> _AdapterSettings:
        """From the arguments. Raises `InputError` N107."""
        if arguments.minutes is not None and arguments.epochs is not None:
            raise _invalid_option("--minutes and --epochs", "both", ("one of them",))
        shape = AdapterShape(
            arguments.rank, 2 * arguments.rank, _validate_choice("--targets", arguments.targets, TARGET_LAYERS)
        )
        course = TrainingHyperparameters(
            epochs=3.0 if arguments.minutes is None and arguments.epochs is None else arguments.epochs,
            minutes=arguments.minutes,
            learning_rate=ADAPTER_RATE if arguments.rate is None else arguments.rate,
            decay=_validate_choice("--decay", arguments.decay, ("linear", "cosine", "none")),
            seed=arguments.seed,
            patience=arguments.patience,
            tune_every=arguments.tune_every,
        )
        return cls(shape, course, _validate_choice("--device", arguments.device, DEVICES))


def train(arguments: TrainArguments, given_options: Iterable[str]) -> None:
    """Trains an agent. `given_options` are the options on the command line. Raises `InputError` N107 for unsupported
    ones.
    """
    adapter_settings = _AdapterSettings.from_arguments(arguments)
    card = check_trainable(Project.load(load_settings(fleet=arguments.fleet)).registry.card(arguments.agent))
    _check_supported(card, given_options)
    target = arguments.out or arguments.data / f"{arguments.agent}-{'adapter' if card.kind == 'model' else 'trained'}"
    check_writable(target, "--out", folder=True)
    if card.kind == "encoder":
        _train_encoder(card, arguments, target)
    elif card.kind == "model":
        _train_adapter(card, arguments, adapter_settings, target)
    else:
        _train_classical(card, arguments.data, target)


def _check_supported(card: Card, given_options: Iterable[str]) -> None:
    """Raises `InputError` N107 for options that do not apply to this kind of agent."""
    if (supported_options := SUPPORTED_OPTIONS.get(card.kind)) is None:
        return
    for name in given_options:
        if name not in ("agent", "data", "out", *supported_options):
            option = f"--{name.replace('_', '-')}"
            hint = (
                f"leave it out; {', '.join(f'--{supported_option}' for supported_option in supported_options)}"
                if supported_options
                else "leave it out"
            )
            raise _refusal(f"{option} does not apply to {card.name}, of kind {card.kind}", hint)


def _train_adapter(card: Card, arguments: TrainArguments, adapter_settings: _AdapterSettings, target: Path) -> None:
    check_packages()
    check_output_folder(target)
    reporter = TrainingReporter()
    with reporter.repeating():
        training_record, training, before = _run_adapter_training(card, arguments, adapter_settings, target, reporter)
    with writing_output(target, "--out"):
        provenance.write_provenance(card, training.data, target, before)
    training_point = next(point for point in training_record.curve if point.step == training_record.best_step)
    print_note(_trained_amount(training_record, arguments.minutes))
    print_text(
        f"{target}: loss on the tune part {training_point.tune:.4f}, {training_point.exact:.3f} of its rows "
        "exact (step "
        f"{training_record.best_step} of {training_record.steps})"
    )


def _run_adapter_training(
    card: Card, arguments: TrainArguments, adapter_settings: _AdapterSettings, target: Path, reporter: TrainingReporter
) -> tuple[AdapterTrainingRecord, AdapterTraining, TrainingProvenance | None]:
    """Reads the inputs and trains. Returns the record, the training and the provenance of the starting weights."""
    reporter.phase("looking for the weights of the base")
    base_name, folder = _base_weights(card, arguments.fleet)
    distillation_settings = _load_teacher(arguments)
    reporter.phase(f"reading the rows of {arguments.data}")
    data = Dataset.load(arguments.data)
    reporter.phase(f"checking the weights in {folder}")
    training = AdapterTraining(
        card=card,
        data=data,
        base=folder,
        base_name=base_name,
        base_digest=verify_weights(folder).digest,
        cache=Folders.from_environment().cache,
        shape=adapter_settings.shape,
        hyperparameters=adapter_settings.hyperparameters,
        batch_tokens=arguments.batch,
        max_example_tokens=arguments.longest,
        device=adapter_settings.device,
        command=_adapter_command(arguments, adapter_settings, distillation_settings),
        teacher=distillation_settings,
        start=StartingAdapter.from_folder(arguments.start, adapter_settings.shape)
        if arguments.start is not None
        else None,
    )
    before = _initial_provenance(card, arguments)
    reporter.phase("splitting the rows into tokens")
    prepared_examples = prepare_examples(training)
    print_note(
        f"{len(prepared_examples.train):,} rows to train on, {len(prepared_examples.tune):,} to tune on; "
        f"{prepared_examples.too_long:,} are too long and were left out"
    )
    print_note(f"checkpoints: {training.checkpoint_folder}")
    with lock_training(training.checkpoint_folder):
        training_record = train_adapter(
            training, prepared_examples, target, reporter, fresh=arguments.fresh, on_phase=reporter.phase
        )
    return training_record, training, before


def _trained_amount(training_record: AdapterTrainingRecord, minutes: float | None) -> str:
    """Says how much was trained, and whether the time limit ended it before each row was seen once."""
    epochs = training_record.curve[-1].epoch
    text = (
        f"trained {training_record.steps:,} steps, {epochs:.2f} epochs, {training_record.tokens:,} tokens in "
        f"{format_duration(training_record.seconds)}"
    )
    if minutes is not None and epochs < 1:
        text += "; --minutes ended it before each row was seen once: give it more"
    return text


def _adapter_command(
    arguments: TrainArguments, adapter_settings: _AdapterSettings, distillation: DistillationSettings | None
) -> str:
    """The command that reproduces the adapter from the same dataset; without paths of this machine."""
    course, shape = adapter_settings.hyperparameters, adapter_settings.shape
    ends = f"--epochs {course.epochs:g}" if course.epochs is not None else f"--minutes {course.minutes:g}"
    looks = f"--patience {course.patience} --tune-every {course.tune_every:g}"
    steps = (
        f"--rate {course.learning_rate:g} --decay {course.decay} --seed {course.seed} {looks} --batch "
        f"{arguments.batch} --longest {arguments.longest}"
    )
    command = (
        f"orchestra learn train {arguments.agent} --data DATA {ends} --rank {shape.rank} --targets "
        f"{shape.targets} {steps}"
    )
    if distillation is not None:
        adapter = " --teacher-adapter ADAPTER" if distillation.adapter is not None else ""
        command += (
            f" --teacher {distillation.name}{adapter} --temperature {distillation.temperature:g} --share "
            f"{distillation.share:g}"
        )
    return command + (" --start ADAPTER" if arguments.start is not None else "")


def _train_encoder(card: Card, arguments: TrainArguments, out: Path) -> None:
    from orchestra.learn.encoders import intents
    from orchestra.learn.encoders.training import PACKAGES

    check_packages(PACKAGES if encoder_task(card) in HEAD_TASKS else intents.PACKAGES)
    from orchestra.learn.encoders import record  # After the check: it imports PyTorch, as do the training modules.

    course = _trainer_module(card)
    if course is not None and arguments.minutes is not None:
        reason = f"{card.name} predicts no labels: its training is limited by epochs, not by minutes"
        raise InputError("N107", reason, hint="--epochs 3 instead of --minutes")
    print_note(f"reading the rows of {arguments.data}")
    rows, base = Dataset.load(arguments.data), _encoder_weights(card.model)
    before = _initial_provenance(card, arguments)
    training = (
        _label_training(card, rows, base, arguments)
        if course is None
        else _head_training(course, card, rows, base, arguments)
    )
    with lock_training(training.checkpoint_folder):
        training_result = (intents if course is None else course).run(training, _step_reporter(), fresh=arguments.fresh)
    with writing_output(out, "--out"):
        training_result.write(out)
        provenance.write_provenance(card, rows, out, before)
        record.write_training_record(training, out, _encoder_command(arguments, training))
    shares = ", ".join(f"{name} {value:.3f}" for name, value in training_result.metrics.items())
    basis = "on the texts that were left out" if course is None else "of the tune part"
    print_text(
        f"{out}: right {basis}: {shares or 'not known'}; orchestra learn promote {card.name} {out} "
        f"--data {arguments.data}"
    )


def _label_training(card: Card, rows: Dataset, base: Path, arguments: TrainArguments) -> ClassifierTraining:
    """The training of an encoder that predicts labels."""
    from orchestra.learn.encoders import intents

    return intents.ClassifierTraining(
        card=card,
        data=rows,
        base=base,
        cache=Folders.from_environment().cache,
        epochs=_whole_epochs(arguments),
        minutes=arguments.minutes,
        learning_rate=arguments.rate,
        seed=arguments.seed,
        start=arguments.start,
    )


def _head_training(
    trainer: ModuleType, card: Card, rows: Dataset, base: Path, arguments: TrainArguments
) -> HeadTraining:
    """The training of an encoder with one head."""
    from orchestra.learn.encoders.training import LEARNING_RATE, HeadTraining

    return HeadTraining(
        card=card,
        data=rows,
        base=base,
        cache=Folders.from_environment().cache,
        epochs=_whole_epochs(arguments) or trainer.EPOCHS,
        learning_rate=LEARNING_RATE if arguments.rate is None else arguments.rate,
        seed=arguments.seed,
        tokens=trainer.TOKENS,
        start=arguments.start,
    )


def _encoder_command(arguments: TrainArguments, training: ClassifierTraining | HeadTraining) -> str:
    """The command that reproduces the encoder from the same dataset, except with --minutes; without paths of this
    machine.
    """
    ends = (
        f" --minutes {arguments.minutes:g}"
        if arguments.minutes is not None
        else f" --epochs {training.epochs}"
        if training.epochs
        else ""
    )
    rate = f" --rate {training.learning_rate:g}" if training.learning_rate is not None else ""
    start = " --start ENCODER" if arguments.start is not None else ""
    return f"orchestra learn train {arguments.agent} --data DATA{ends}{rate} --seed {arguments.seed}{start}"


def _whole_epochs(arguments: TrainArguments) -> int | None:
    """Whole epochs; None for the default of the training."""
    return max(1, round(arguments.epochs)) if arguments.epochs is not None else None


def _initial_provenance(card: Card, arguments: TrainArguments) -> TrainingProvenance | None:
    """The provenance of the starting weights."""
    return provenance.read_provenance(card, arguments.start) if arguments.start is not None else None


def _encoder_weights(model: str) -> Path:
    """The folder of an encoder's weights, downloaded if missing."""
    from orchestra.cli.output import StatusLine
    from orchestra.fleet.weights.encoders import EncoderStore

    status_line = StatusLine()
    try:
        return asyncio.run(
            EncoderStore(ModelStore.from_environment(hub=load_settings().hub or None), status_line).folder(model)
        )
    finally:
        status_line.close()


def _trainer_module(card: Card) -> ModuleType | None:
    """The training module of an encoder with one head; None for a label encoder."""
    from orchestra.learn.encoders import slots, spans, tables, word_problems

    return {"tables": tables, "spans": spans, "slots": slots, "deduction": word_problems}.get(encoder_task(card))


def _train_classical(card: Card, data: Path, out: Path) -> None:
    from orchestra.learn import classical

    rows = Dataset.load(data)
    model = classical.train(card, rows)
    with writing_output(out, "--out"):
        model.write(out, card.data)
        provenance.write_provenance(card, rows, out)
    omission_text = f", {model.left_out:,} left out" if model.left_out else ""
    print_text(
        f"{out}: trained on {model.rows:,} rows{omission_text}; orchestra learn promote {card.name} {out} --data {data}"
    )
    for share in model.shares:
        print_text(
            f"  {share.share:.0%} of the tune part is above {share.threshold:.4f}; its mean target is "
            f"{share.mean_target:.3f}"
        )


def _base_weights(card: Card, fleet: str | None) -> tuple[str, Path]:
    """The name and the folder of the weights behind a card's model in the fleet."""
    return _find_weights(configured_fleet(load_settings(fleet=fleet)), card.model)


def _find_weights(config: FleetConfig, model: str) -> tuple[str, Path]:
    """The name and the folder of a model's weights. Raises `InputError` N106, or N108 for quantized weights;
    `FleetError` F003 if they are missing.
    """
    for name in config.servers_for(model):
        server = config.servers[name]
        if isinstance(server, LocalServer):
            if (folder := find_weights(server.weights, ModelStore.from_environment())) is None:
                raise missing_error(server.weights)
            refuse_quantized(folder)
            return server.model, folder
    raise InputError(
        "N106",
        f"no server of this fleet that serves {model!r} has its weights here",
        hint="--fleet NAME, for a fleet with a local server, as `orchestra fleet add` writes it",
    )


def _load_teacher(arguments: TrainArguments) -> DistillationSettings | None:
    """The teacher: a model of the fleet with local weights, or a folder of weights."""
    teacher_name, adapter = arguments.teacher, arguments.teacher_adapter
    if not teacher_name:
        if adapter is not None:
            raise _invalid_option("--teacher-adapter", "without a --teacher", ("--teacher MODEL too",))
        return None
    config = configured_fleet(load_settings(fleet=arguments.fleet))
    name, folder = (
        _find_weights(config, teacher_name)
        if teacher_name in config.models
        else (Path(teacher_name).name, Path(teacher_name))
    )
    return DistillationSettings.from_folder(name, folder, adapter, arguments.temperature, arguments.share)


def _validate_choice(option: str, value: str, choices: Iterable[Choice]) -> Choice:
    for choice in choices:
        if choice == value:
            return choice
    raise _invalid_option(option, value, choices)


def _invalid_option(option: str, value: str, choices: Iterable[str]) -> InputError:
    return _refusal(f"{option} cannot be {value}", f"take {', '.join(choices)}")


def _refusal(reason: str, hint: str) -> InputError:
    return InputError("N107", reason, hint=hint)


class TrainingReporter:
    """Reports training: a line for each phase, every ten seconds, and for each evaluation on the tune split.

    Within `repeating` a phase or a step that takes longer is reported too, so that a slow machine is not silent.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic, self._last_report = monotonic, -math.inf
        self._current, self._began = "", monotonic()
        self._has_steps = False
        self._lock = threading.Lock()

    def __call__(self, tick: TrainingProgress) -> None:
        self.report(format_tick(tick), now=tick.point is not None or not self._has_steps)
        self._has_steps = True
        self._current, self._began = f"after step {tick.step}: the next step or an evaluation", self._monotonic()

    def phase(self, text: str) -> None:
        """Prints what begins."""
        self.report(text, now=True)
        self._current, self._began = text, self._monotonic()

    def report(self, text: str, *, now: bool = False) -> None:
        """Prints a line if the last one is old enough, or `now`."""
        with self._lock:
            at = self._monotonic()
            if now or at - self._last_report >= REPORT_SECONDS:
                self._last_report = at
                print(text, file=sys.stderr, flush=True)

    def repeat(self) -> None:
        """Prints that the current phase or step continues, if the last line is old enough."""
        if self._current:
            self.report(f"{self._current}: at work for {format_duration(self._monotonic() - self._began)}")

    @contextlib.contextmanager
    def repeating(self) -> Iterator[None]:
        """Calls `repeat` from a thread until the context ends. A step releases the interpreter's lock."""
        end_event = threading.Event()

        def run() -> None:
            while not end_event.wait(REPORT_SECONDS / 10):
                self.repeat()

        thread = threading.Thread(target=run, name="training progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            end_event.set()
            thread.join()


def _step_reporter() -> Callable[[TrainingStep], None]:
    """Returns a reporter of an encoder's training steps."""
    teller = TrainingReporter()

    def report_step(step: TrainingStep) -> None:
        line = f"step {step.step}/{step.total_steps}, loss {step.loss:.3f}, {format_duration(step.seconds_left)} left"
        teller.report(line, now=step.step == step.total_steps)

    return report_step


def format_tick(tick: TrainingProgress) -> str:
    """The progress line of a step."""
    steps = f"{tick.step}/{tick.total_steps}" if tick.total_steps else str(tick.step)
    remaining_text = "" if math.isnan(tick.seconds_left) else f", {format_duration(max(0.0, tick.seconds_left))} left"
    line = (
        f"step {steps}, epoch {tick.epoch:.2f}, loss {tick.loss:.3f}, {tick.tokens_per_second:.0f} "
        f"tokens/s{remaining_text}"
    )
    return (
        f"{line} | tune: loss {tick.point.tune:.4f}, exact {tick.point.exact:.3f}" if tick.point is not None else line
    )

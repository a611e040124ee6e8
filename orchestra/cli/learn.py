"""`orchestra learn`: from rows of an agent's work to an adapter that does it better."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, NamedTuple, TypeVar

import typer

from orchestra.cli import evaluating
from orchestra.cli.failure import Verb
from orchestra.cli.opening import given, opener, settings
from orchestra.cli.results import check_writable, writing
from orchestra.cli.screen import note, say, seconds

if TYPE_CHECKING:
    from orchestra.agent.card import Card
    from orchestra.errors import InputError
    from orchestra.fleet.config import FleetConfig
    from orchestra.learn.distillation import Distillation
    from orchestra.learn.loop import Course, Tick
    from orchestra.learn.member import Step
    from orchestra.learn.model import Shape

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
AgentName = Annotated[str, typer.Argument(help="An agent's name.", show_default=False)]


def register(app: typer.Typer) -> None:
    """Adds the verbs."""
    learn = typer.Typer(no_args_is_help=True, help="Specialists: data, training, evaluation, promotion.")
    learn.command("data", cls=Verb)(data)
    learn.command("train", cls=Verb)(train)
    evaluating.register(learn)
    app.add_typer(learn, name="learn", rich_help_panel="Make it better")


def data(
    context: typer.Context,
    agent: AgentName,
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder of the data set.", show_default=False)],
    files: Annotated[list[Path] | None, typer.Argument(help="JSON lines or CSV with inputs and outputs.", show_default=False)] = None,
    licence: Annotated[str, typer.Option(help="What may be done with the rows. Needed.", show_default=False)] = "",
    name: Annotated[str, typer.Option(help="Its name.", show_default="as the folder")] = "",
    column: Annotated[list[str] | None, typer.Option("--column", help="FIELD=COLUMN, where the names differ.", show_default=False)] = None,
    group: Annotated[
        str, typer.Option(help="The column, or input, that says what belongs together.", show_default="the agent's evidence")
    ] = "",
    tune: Annotated[float, typer.Option(help="Share of the groups to stop early by.")] = 0.1,
    test: Annotated[float, typer.Option(help="Share of the groups to report on.")] = 0.1,
    runs: Annotated[bool, typer.Option("--runs", help="Take what the agent was asked in your runs, as the journal has it.")] = False,
    since: Annotated[str | None, typer.Option(metavar="AGE", help="Of --runs, those of the last 12h, 30d, 2w.", show_default=False)] = None,
    workflow: Annotated[str, typer.Option(metavar="NAME", help="Of --runs, those of this workflow or agent.", show_default=False)] = "",
    escalated: Annotated[
        str,
        typer.Option(metavar="AGENT", help="Of --runs: learn which calls of this agent needed the larger model.", show_default=False),
    ] = "",
    teacher: Annotated[
        str,
        typer.Option(metavar="NAME", help="An agent, or a model of the fleet, that answers what has no output.", show_default=False),
    ] = "",
    without: Annotated[
        list[Path] | None, typer.Option("--without", metavar="SET", help="Leave out what a data set's test part asks.", show_default=False)
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Write over another data set that stands in the folder.")] = False,
    concurrency: evaluating.Concurrency = None,
    fleet: evaluating.Fleet = None,
) -> None:
    """Make a versioned data set: types checked, duplicates left out, whole groups in one part.

    Of files; with --runs, of the accepted answers of the agent in your runs, and of the answers that persons, the larger model or
    another agent gave where its own was withheld or failed. A --teacher is asked what is still open: the inputs of files, whose
    outputs are not read then, and those of failed calls. What the checks accept of its answers is kept.
    """
    from orchestra.cli.collecting import Collecting, collect, told
    from orchestra.cli.moments import age
    from orchestra.cli.signals import carry_out
    from orchestra.learn.sources import Columns
    from orchestra.learn.splits import Shares

    asked = Collecting(
        agent,
        tuple(files or ()),
        out,
        licence,
        name or out.name,
        Columns.of(column or (), group),
        Shares(tune, test),
        runs=runs,
        seconds=age(since, "--since") if since is not None else None,
        workflow=workflow,
        teacher=teacher,
        escalated=escalated,
        without=tuple(without or ()),
        replace=replace,
    )
    check_writable(out, "--out", folder=True)
    chosen = settings(fleet=fleet, concurrency=concurrency)
    made = carry_out(lambda _: collect(opener(context), chosen, asked))
    with writing(out, "--out"):
        made.data.write(out)
    told(out, made)


def train(
    context: typer.Context,
    agent: AgentName,
    data: Annotated[Path, typer.Option("--data", help="The folder of a data set.", show_default=False)],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Where the adapter goes.", show_default="in DATA")] = None,
    minutes: Annotated[float | None, typer.Option(min=0.01, help="Train for about so long.", show_default=False)] = None,
    epochs: Annotated[
        float | None, typer.Option(min=0.01, help="Passes over the rows.", show_default="3, an encoder's 6 or 3, without --minutes")
    ] = None,
    rank: Annotated[int, typer.Option(min=1, max=256, help="Rank of the LoRA.")] = 16,
    targets: Annotated[str, typer.Option(help="Layers: all-linear, attention or query-value.")] = "all-linear",
    rate: Annotated[
        float | None, typer.Option(min=1e-7, max=1, help="The highest learning rate.", show_default="0.0006, an encoder's own")
    ] = None,
    decay: Annotated[str, typer.Option(help="How it falls: linear, cosine or none.")] = "linear",
    seed: Annotated[int, typer.Option(help="Seed of the first weights and of the order of rows.")] = 0,
    patience: Annotated[int, typer.Option(min=1, help="Looks at the tune part, of which none is better, after which it ends.")] = 4,
    tune_every: Annotated[float, typer.Option(min=0.01, help="Epochs between two such looks.")] = 0.5,
    batch: Annotated[int, typer.Option(min=64, help="Tokens of a batch.")] = 1400,
    longest: Annotated[int, typer.Option(min=16, help="Tokens of a row at most; longer ones are left out.")] = 2048,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto.")] = "auto",
    start: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="What is trained already, to go on from.", show_default="the base alone")
    ] = None,
    teacher: Annotated[
        str,
        typer.Option(metavar="MODEL|FOLDER", help="A model with the same tokenizer: learn its probabilities too.", show_default=False),
    ] = "",
    teacher_adapter: Annotated[Path | None, typer.Option(metavar="FOLDER", help="The teacher's adapter.", show_default=False)] = None,
    temperature: Annotated[float, typer.Option(min=0.1, max=100, help="What teacher and student are softened by.")] = 2.0,
    share: Annotated[float, typer.Option(min=0, max=1, help="What the teacher counts; the labels count the rest.")] = 0.5,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget a training that was killed, and begin again.")] = False,
) -> None:
    """Train an agent on a data set: an adapter for a language model; a sentence encoder that tells labels, or points at words or at
    cells of tables; the arrays of a tagger or a classifier, in seconds.

    A training of an adapter or an encoder that was killed goes on where it stopped: give the same command. With --teacher an adapter
    learns from the probabilities of a larger model, and from the labels; with --start it goes on from an adapter that is there, or an
    encoder from one that was trained. An encoder takes --minutes or --epochs, --rate, --seed, --start and --fresh; the other options are
    about adapters.
    """
    from orchestra.fleet.folders import Folders
    from orchestra.fleet.weights import verify
    from orchestra.learn.adapter import Start, check_room
    from orchestra.learn.alone import alone
    from orchestra.learn.dataset import DataSet
    from orchestra.learn.learnt_from import read, record
    from orchestra.learn.loop import Course
    from orchestra.learn.model import DEVICES, TARGETS, Shape, available
    from orchestra.learn.train import AdapterTraining, prepare, run

    if minutes is not None and epochs is not None:
        raise _option("--minutes and --epochs", "both", ("one of them",))
    shape = Shape(rank, 2 * rank, _chosen("--targets", targets, TARGETS))
    course = Course(
        epochs=3.0 if minutes is None and epochs is None else epochs,
        minutes=minutes,
        rate=ADAPTER_RATE if rate is None else rate,
        decay=_chosen("--decay", decay, ("linear", "cosine", "none")),
        seed=seed,
        patience=patience,
        tune_every=tune_every,
    )
    where = _chosen("--device", device, DEVICES)
    card = _card(agent)
    _check_about(context, card)
    target = out or data / f"{agent}-{'adapter' if card.kind == 'model' else 'trained'}"
    check_writable(target, "--out", folder=True)
    if card.kind == "encoder":
        _train_encoder(card, data, target, Ends(epochs, minutes, seed, fresh, start, rate))
        return
    if card.kind != "model":
        _train_here(card, data, target)
        return
    available()
    check_room(target)
    base_name, folder = _base(card)
    taught = _teacher(teacher, teacher_adapter, temperature, share)
    training = AdapterTraining(
        card=card,
        data=DataSet.load(data),
        base=folder,
        base_name=base_name,
        base_digest=verify(folder).digest,
        cache=Folders.of().cache,
        shape=shape,
        course=course,
        most=batch,
        longest=longest,
        device=where,
        command=_command(agent, course, shape, batch, longest, taught) + (" --start ADAPTER" if start is not None else ""),
        teacher=taught,
        start=Start.of(start, shape) if start is not None else None,
    )
    before = read(card, start) if start is not None else None
    prepared = prepare(training)
    note(f"{len(prepared.train):,} rows to train on, {len(prepared.tune):,} to tune on; {prepared.long:,} are too long and left out")
    note(f"checkpoints: {training.folder}")
    with alone(training.folder):
        made = run(training, prepared, target, Teller(), fresh=fresh)
    with writing(target, "--out"):
        record(card, training.data, target, before)
    kept = next(point for point in made.curve if point.step == made.best_step)
    say(f"{target}: loss on the tune part {kept.tune:.4f}, {kept.exact:.3f} of its rows exact (step {made.best_step} of {made.steps})")


def _check_about(context: typer.Context, card: Card) -> None:
    """Refuses options that a training of such an agent does not have. Raises `InputError` N107."""
    if (taken := TAKEN.get(card.kind)) is None:
        return
    for name in given(context):
        if name not in ("agent", "data", "out", *taken):
            option = f"--{name.replace('_', '-')}"
            hint = f"leave it out; {', '.join(f'--{one}' for one in taken)}" if taken else "leave it out"
            raise _refused(f"{option} is not for {card.name}, of kind {card.kind}", hint)


class Ends(NamedTuple):
    """When a training of an encoder ends, whether it begins again, with what, and how fast it learns."""

    epochs: float | None
    minutes: float | None
    seed: int
    fresh: bool
    start: Path | None
    rate: float | None


def _train_encoder(card: Card, data: Path, out: Path, ends: Ends) -> None:
    import asyncio

    from orchestra.cli.progress import Waiting
    from orchestra.errors import InputError
    from orchestra.fleet.encoders import Encoders
    from orchestra.fleet.folders import Folders
    from orchestra.fleet.weights import Pantry
    from orchestra.learn import intents
    from orchestra.learn.alone import alone
    from orchestra.learn.dataset import DataSet
    from orchestra.learn.learnt_from import read, record
    from orchestra.learn.model import available
    from orchestra.learn.training import PACKAGES, RATE, HeadTraining

    course = _course(card)
    available(intents.PACKAGES if course is None else PACKAGES)
    if course is not None and ends.minutes is not None:
        reason = f"{card.name} tells no labels: its training ends after epochs, not after minutes"
        raise InputError("N107", reason, hint="--epochs 3 instead of --minutes")
    rows, waiting = DataSet.load(data), Waiting()
    try:
        base = asyncio.run(Encoders(Pantry.of(hub=settings().hub or None), waiting).folder(card.model))
    finally:
        waiting.close()
    epochs = max(1, round(ends.epochs)) if ends.epochs is not None else None
    cache, teller = Folders.of().cache, Teller()

    def tell(step: Step) -> None:
        teller.line(f"step {step.done}/{step.total}, loss {step.loss:.3f}")

    first = ends.start
    before = read(card, first) if first is not None else None
    if course is not None:
        passes, most = epochs or course.EPOCHS, course.TOKENS
        rate = RATE if ends.rate is None else ends.rate
        lesson = HeadTraining(
            card=card, data=rows, base=base, cache=cache, epochs=passes, rate=rate, seed=ends.seed, tokens=most, start=first
        )
        with alone(lesson.folder):
            made, judged = course.run(lesson, tell, fresh=ends.fresh), "of the tune part"
    else:
        within = ends.minutes
        training = intents.LabelTraining(
            card=card, data=rows, base=base, cache=cache, epochs=epochs, minutes=within, rate=ends.rate, seed=ends.seed, start=first
        )
        with alone(training.folder):
            made, judged = intents.run(training, tell, fresh=ends.fresh), "on the texts that were left out"
    with writing(out, "--out"):
        made.write(out)
        record(card, rows, out, before)
    shares = ", ".join(f"{name} {value:.3f}" for name, value in made.figures.items())
    say(f"{out}: right {judged}: {shares or 'not known'}; orchestra learn promote {card.name} {out} --data {data}")


def _course(card: Card) -> ModuleType | None:
    """What trains an encoder that is no committee; None for one that is."""
    from orchestra.agent.skill import skill
    from orchestra.learn import deduction, slots, spans, tables

    return {"tables": tables, "spans": spans, "slots": slots, "deduction": deduction}.get(skill(card))


def _train_here(card: Card, data: Path, out: Path) -> None:
    from orchestra.learn.dataset import DataSet
    from orchestra.learn.here import train
    from orchestra.learn.learnt_from import record

    rows = DataSet.load(data)
    made = train(card, rows)
    with writing(out, "--out"):
        made.write(out, card.data)
        record(card, rows, out)
    left = f", {made.left_out:,} left out" if made.left_out else ""
    say(f"{out}: trained on {made.rows:,} rows{left}; orchestra learn promote {card.name} {out} --data {data}")
    for one in made.shares:
        say(f"  {one.share:.0%} of the tune part is above {one.above:.4f}; what was expected of it is {one.mean:.3f} on average")


def _command(agent: str, course: Course, shape: Shape, batch: int, longest: int, taught: Distillation | None) -> str:
    """The command that makes the same adapter of the same data set; it names no folder of this machine."""
    ends = f"--epochs {course.epochs:g}" if course.epochs is not None else f"--minutes {course.minutes:g}"
    looks = f"--patience {course.patience} --tune-every {course.tune_every:g}"
    steps = f"--rate {course.rate:g} --decay {course.decay} --seed {course.seed} {looks} --batch {batch} --longest {longest}"
    command = f"orchestra learn train {agent} --data DATA {ends} --rank {shape.rank} --targets {shape.targets} {steps}"
    if taught is None:
        return command
    adapter = " --teacher-adapter ADAPTER" if taught.adapter is not None else ""
    return f"{command} --teacher {taught.name}{adapter} --temperature {taught.temperature:g} --share {taught.share:g}"


def _card(agent: str) -> Card:
    from orchestra.learn.contract import learning
    from orchestra.project import Project

    return learning(Project.load(settings()).registry.card(agent))


def _base(card: Card) -> tuple[str, Path]:
    """The name and the folder of the weights that stand behind a card's model in the fleet."""
    return _weights(_fleet(), card.model)


def _fleet() -> FleetConfig:
    from orchestra.fleet.config import read

    here = settings()
    return read(here.find_resource("configs", here.fleet))


def _weights(config: FleetConfig, model: str) -> tuple[str, Path]:
    """The name and the folder of a model's weights. Raises `InputError` N106, `FleetError` F003 where they are not here."""
    from orchestra.errors import InputError
    from orchestra.fleet.config import LocalServer
    from orchestra.fleet.weights import Pantry, absent, find

    for name in config.serving(model):
        server = config.servers[name]
        if isinstance(server, LocalServer):
            if (folder := find(server.weights, Pantry.of())) is None:
                raise absent(server.weights)
            return server.model, folder
    raise InputError("N106", f"no server of this fleet that serves {model!r} has its weights here", hint="orchestra explain N106")


def _teacher(named: str, adapter: Path | None, temperature: float, share: float) -> Distillation | None:
    """The teacher of a training: a model of the fleet whose weights are here, or a folder of weights."""
    from orchestra.learn.distillation import Distillation

    if not named:
        if adapter is not None:
            raise _option("--teacher-adapter", "without a --teacher", ("--teacher MODEL too",))
        return None
    config = _fleet()
    name, folder = _weights(config, named) if named in config.models else (Path(named).name, Path(named))
    return Distillation.of(name, folder, adapter, temperature, share)


def _chosen(option: str, given: str, known: Iterable[Choice]) -> Choice:
    for choice in known:
        if choice == given:
            return choice
    raise _option(option, given, known)


def _option(option: str, given: str, known: Iterable[str]) -> InputError:
    return _refused(f"{option} cannot be {given}", f"take {', '.join(known)}")


def _refused(reason: str, hint: str) -> InputError:
    from orchestra.errors import InputError

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


def told(tick: Tick) -> str:
    """A line about a step."""
    steps = f"{tick.step}/{tick.steps}" if tick.steps else str(tick.step)
    left = "" if math.isnan(tick.left) else f", {seconds(max(0.0, tick.left))} left"
    line = f"step {steps}, epoch {tick.epoch:.2f}, loss {tick.loss:.3f}, {tick.rate:.0f} tokens/s{left}"
    return f"{line} | tune: loss {tick.point.tune:.4f}, exact {tick.point.exact:.3f}" if tick.point is not None else line

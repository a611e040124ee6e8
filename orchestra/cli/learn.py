"""`orchestra learn`: from rows of an agent's work to an adapter that does it better."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from orchestra.cli import evaluating
from orchestra.cli.failure import Verb
from orchestra.cli.opening import settings
from orchestra.cli.screen import note, say, seconds

if TYPE_CHECKING:
    from orchestra.agent.card import Card
    from orchestra.errors import InputError
    from orchestra.learn.loop import Course, Tick
    from orchestra.learn.model import Shape

EVERY = 10.0
"""Seconds between two lines of a training."""
Choice = TypeVar("Choice", bound=str)
Agent = Annotated[str, typer.Argument(help="An agent's name.", show_default=False)]


def register(app: typer.Typer) -> None:
    """Adds the verbs."""
    learn = typer.Typer(no_args_is_help=True, help="Specialists: data, training, evaluation, promotion.")
    learn.command("data", cls=Verb)(data)
    learn.command("train", cls=Verb)(train)
    evaluating.register(learn)
    app.add_typer(learn, name="learn", rich_help_panel="Make it better")


def data(
    agent: Agent,
    files: Annotated[list[Path], typer.Argument(help="JSON lines or CSV with inputs and outputs.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder of the data set.", show_default=False)],
    licence: Annotated[str, typer.Option(help="What may be done with the rows. Needed.", show_default=False)] = "",
    name: Annotated[str, typer.Option(help="Its name.", show_default="as the folder")] = "",
    column: Annotated[list[str] | None, typer.Option("--column", help="FIELD=COLUMN, where the names differ.", show_default=False)] = None,
    group: Annotated[str, typer.Option(help="The column that says what belongs together.", show_default="the agent's evidence")] = "",
    tune: Annotated[float, typer.Option(help="Share of the groups to stop early by.")] = 0.1,
    test: Annotated[float, typer.Option(help="Share of the groups to report on.")] = 0.1,
) -> None:
    """Make a versioned data set: types checked, duplicates left out, whole groups in one part."""
    from orchestra.learn.contract import contract_digest
    from orchestra.learn.dataset import DataSet, Origin
    from orchestra.learn.duplicates import distinct
    from orchestra.learn.sources import Columns, read
    from orchestra.learn.splits import Shares, split
    from orchestra.values.json import digest

    card, shares, columns = _card(agent), Shares(tune, test), Columns.of(column or (), group)
    label = name or out.name
    if not licence.strip():
        DataSet.made(label, agent, "", licence, (), {})
    read_files = [(path, read(path, card, columns)) for path in files]
    kept = distinct(row for _, rows in read_files for row in rows)
    origins = [
        Origin(path.name, licence, digest(path.read_bytes()), f"columns {dict(columns.named)}", len(rows)) for path, rows in read_files
    ]
    left = {"the same": kept.same, "the same in another spelling": kept.near, "the same with another output": kept.contradicting}
    made = DataSet.made(label, agent, contract_digest(card), licence, origins, split(kept.rows, shares), left)
    made.write(out)
    say(f"{out}: {label} {made.manifest.digest}, {licence}")
    for part, record in made.manifest.parts.items():
        say(f"  {part:<5}  {record.rows:,} rows in {record.groups:,} groups")
    for reason, count in left.items():
        if count:
            say(f"  left out: {count:,} rows, {reason}")


def train(
    agent: Agent,
    data: Annotated[Path, typer.Option("--data", help="The folder of a data set.", show_default=False)],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Where the adapter goes.", show_default="in DATA")] = None,
    minutes: Annotated[float | None, typer.Option(min=0.01, help="Train for about so long.", show_default=False)] = None,
    epochs: Annotated[float | None, typer.Option(min=0.01, help="Passes over the rows.", show_default="3, without --minutes")] = None,
    rank: Annotated[int, typer.Option(min=1, max=256, help="Rank of the LoRA.")] = 16,
    targets: Annotated[str, typer.Option(help="Layers: all-linear, attention or query-value.")] = "all-linear",
    rate: Annotated[float, typer.Option(min=1e-7, max=1, help="The highest learning rate.")] = 6e-4,
    decay: Annotated[str, typer.Option(help="How it falls: linear, cosine or none.")] = "linear",
    seed: Annotated[int, typer.Option(help="Seed of the first weights and of the order of rows.")] = 0,
    patience: Annotated[int, typer.Option(min=1, help="Looks at the tune part without a better loss after which it ends.")] = 4,
    tune_every: Annotated[float, typer.Option(min=0.01, help="Epochs between two such looks.")] = 0.5,
    batch: Annotated[int, typer.Option(min=64, help="Tokens of a batch.")] = 1400,
    longest: Annotated[int, typer.Option(min=16, help="Tokens of a row at most; longer ones are left out.")] = 2048,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto.")] = "auto",
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget a training that was killed, and begin again.")] = False,
) -> None:
    """Train an agent on a data set: an adapter for a language model; the arrays of a tagger or a classifier, which takes seconds.

    A training of an adapter that was killed goes on where it stopped: give the same command.
    """
    from orchestra.fleet.folders import Folders
    from orchestra.fleet.weights import verify
    from orchestra.learn.dataset import DataSet
    from orchestra.learn.loop import Course
    from orchestra.learn.model import DEVICES, TARGETS, Shape, available
    from orchestra.learn.train import Training, prepare, run

    if minutes is not None and epochs is not None:
        raise _option("--minutes and --epochs", "both", ("one of them",))
    shape = Shape(rank, 2 * rank, _chosen("--targets", targets, TARGETS))
    course = Course(
        epochs=3.0 if minutes is None and epochs is None else epochs,
        minutes=minutes,
        rate=rate,
        decay=_chosen("--decay", decay, ("linear", "cosine", "none")),
        seed=seed,
        patience=patience,
        tune_every=tune_every,
    )
    where = _chosen("--device", device, DEVICES)
    card = _card(agent)
    if card.kind != "model":
        _train_here(card, data, out or data / f"{agent}-trained")
        return
    available()
    base_name, folder = _base(card)
    training = Training(
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
        command=_command(agent, course, shape, batch, longest),
    )
    prepared = prepare(training)
    note(f"{len(prepared.train):,} rows to train on, {len(prepared.tune):,} to tune on; {prepared.long:,} are too long and left out")
    note(f"checkpoints: {training.folder}")
    target = out or data / f"{agent}-adapter"
    made = run(training, prepared, target, Teller(), fresh=fresh)
    best = min(made.curve, key=lambda point: point.tune)
    say(f"{target}: loss on the tune part {best.tune:.4f}, {best.exact:.3f} of its rows exact (step {made.best_step} of {made.steps})")


def _train_here(card: Card, data: Path, out: Path) -> None:
    from orchestra.learn.dataset import DataSet
    from orchestra.learn.here import train

    made = train(card, DataSet.load(data))
    made.write(out, card.data)
    left = f", {made.left_out:,} left out" if made.left_out else ""
    say(f"{out}: trained on {made.rows:,} rows{left}; orchestra learn promote {card.name} {out} --data {data}")


def _command(agent: str, course: Course, shape: Shape, batch: int, longest: int) -> str:
    """The command that makes the same adapter of the same data set; it names no folder of this machine."""
    ends = f"--epochs {course.epochs:g}" if course.epochs is not None else f"--minutes {course.minutes:g}"
    looks = f"--patience {course.patience} --tune-every {course.tune_every:g}"
    steps = f"--rate {course.rate:g} --decay {course.decay} --seed {course.seed} {looks} --batch {batch} --longest {longest}"
    return f"orchestra learn train {agent} --data DATA {ends} --rank {shape.rank} --targets {shape.targets} {steps}"


def _card(agent: str) -> Card:
    from orchestra.project import Project

    return Project.load(settings()).registry.card(agent)


def _base(card: Card) -> tuple[str, Path]:
    """The name and the folder of the weights that stand behind a card's model in the fleet."""
    from orchestra.errors import InputError
    from orchestra.fleet.config import LocalServer, read
    from orchestra.fleet.weights import Pantry, absent, find

    here = settings()
    config = read(here.find_resource("configs", here.fleet))
    for name in config.serving(card.model):
        server = config.servers[name]
        if isinstance(server, LocalServer):
            if (folder := find(server.weights, Pantry.of())) is None:
                raise absent(server.weights)
            return server.model, folder
    raise InputError("N106", f"no server of this fleet that serves {card.model!r} has its weights here", hint="orchestra explain N106")


def _chosen(option: str, given: str, known: Iterable[Choice]) -> Choice:
    for choice in known:
        if choice == given:
            return choice
    raise _option(option, given, known)


def _option(option: str, given: str, known: Iterable[str]) -> InputError:
    from orchestra.errors import InputError

    return InputError("N107", f"{option} cannot be {given}", hint=f"take {', '.join(known)}")


class Teller:
    """Says how a training goes: a line every ten seconds, and one for each look at the tune part."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic, self._said = monotonic, -math.inf

    def __call__(self, tick: Tick) -> None:
        now = self._monotonic()
        if tick.point is None and now - self._said < EVERY:
            return
        self._said = now
        print(told(tick), file=sys.stderr, flush=True)


def told(tick: Tick) -> str:
    """A line about a step."""
    steps = f"{tick.step}/{tick.steps}" if tick.steps else str(tick.step)
    left = "" if math.isnan(tick.left) else f", {seconds(max(0.0, tick.left))} left"
    line = f"step {steps}, epoch {tick.epoch:.2f}, loss {tick.loss:.3f}, {tick.rate:.0f} tokens/s{left}"
    return f"{line} | tune: loss {tick.point.tune:.4f}, exact {tick.point.exact:.3f}" if tick.point is not None else line

"""`orchestra learn`: from rows of an agent's work to an adapter that does it better."""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestra.cli import evaluating
from orchestra.cli.failure import Verb
from orchestra.cli.opening import settings
from orchestra.cli.screen import say, seconds

if TYPE_CHECKING:
    from orchestra.learn.loop import Tick

EVERY = 10.0
"""Seconds between two lines where stderr is no terminal."""


def register(app: typer.Typer) -> None:
    """Adds the verbs."""
    learn = typer.Typer(no_args_is_help=True, help="Specialists: data, training, evaluation, promotion.")
    learn.command("train", cls=Verb)(train)
    evaluating.register(learn)
    app.add_typer(learn, name="learn", rich_help_panel="Make it better")


def train(
    agent: Annotated[str, typer.Argument(help="An agent's name.", show_default=False)],
    data: Annotated[Path, typer.Option("--data", help="The folder of a data set.", show_default=False)],
    out: Annotated[Path | None, typer.Option("--out", help="Where the adapter goes.", show_default="beside the data set")] = None,
    minutes: Annotated[float | None, typer.Option(min=0.1, help="Train for about so long.", show_default=False)] = None,
    epochs: Annotated[float | None, typer.Option(min=0.01, help="Train for so many passes over the rows.", show_default=False)] = None,
    rank: Annotated[int, typer.Option(min=1, max=256, help="Rank of the LoRA.")] = 16,
    targets: Annotated[str, typer.Option(help="Layers: all-linear, attention or query-value.")] = "all-linear",
    rate: Annotated[float, typer.Option(min=1e-7, max=1, help="The highest learning rate.")] = 6e-4,
    decay: Annotated[str, typer.Option(help="How it falls: linear, cosine or none.")] = "linear",
    seed: Annotated[int, typer.Option(help="Seed of the first weights and of the order of rows.")] = 0,
    patience: Annotated[int, typer.Option(min=1, help="Looks at the tune part without a better loss after which it ends.")] = 4,
    tune_every: Annotated[float, typer.Option(min=0.01, help="Epochs between two such looks.")] = 0.5,
    batch: Annotated[int, typer.Option(min=64, help="Tokens of a batch.")] = 1400,
    longest: Annotated[int, typer.Option(min=64, help="Tokens of a row at most; longer ones are left out.")] = 2048,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto.")] = "auto",
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget a training that was killed, and begin again.")] = False,
) -> None:
    """Train an agent's adapter on a data set. A training that was killed goes on where it stopped: give the same command."""
    from orchestra.fleet.folders import Folders
    from orchestra.fleet.weights import verify
    from orchestra.learn import train as work
    from orchestra.learn.dataset import DataSet
    from orchestra.learn.loop import Course
    from orchestra.learn.model import Shape, available
    from orchestra.project import Project

    available()
    if minutes is None and epochs is None:
        epochs = 3.0
    project = Project.load(settings())
    card = project.registry.card(agent)
    name, folder = base_of(card.model)
    verified = verify(folder)
    training = work.Training(
        card=card,
        data=DataSet.load(data),
        base=folder,
        base_name=name,
        base_digest=verified.digest,
        cache=Folders.of().cache,
        shape=Shape(rank, 2 * rank, targets),  # type: ignore[arg-type]  # checked by the shape
        course=Course(
            epochs=epochs, minutes=minutes, rate=rate, decay=decay, seed=seed, patience=patience, tune_every=tune_every  # type: ignore[arg-type]
        ),
        most=batch,
        longest=longest,
        device=device,
        command=" ".join(["orchestra", *sys.argv[1:]]),
    )
    prepared = work.prepare(training)
    say(f"{len(prepared.train):,} rows to train on, {len(prepared.tune):,} to tune on; {prepared.long} are too long and left out")
    say(f"checkpoints: {training.folder}")
    target = out or data / f"{agent}-adapter"
    made = work.run(training, prepared, target, Teller(), fresh=fresh)
    best = min(made.curve, key=lambda point: point.tune)
    say(f"{target}: loss on the tune part {best.tune:.4f}, {best.exact:.3f} of its rows exact (at step {made.best_step} of {made.steps})")


def base_of(model: str) -> tuple[str, Path]:
    """The name and the folder of the weights that stand behind a card's model in the fleet."""
    from orchestra.errors import InputError
    from orchestra.fleet.config import LocalServer, read
    from orchestra.fleet.weights import Pantry, absent, find

    here = settings()
    config = read(here.find_resource("configs", here.fleet))
    for name in config.serving(model):
        server = config.servers[name]
        if isinstance(server, LocalServer):
            if (folder := find(server.weights, Pantry.of())) is None:
                raise absent(server.weights)
            return server.model, folder
    raise InputError("N106", f"no server of this fleet that serves {model!r} has its weights here", hint="orchestra explain N106")


class Teller:
    """Says how a training goes: a line every ten seconds, and one for each look at the tune part."""

    def __init__(self) -> None:
        self._said = -math.inf

    def __call__(self, tick: Tick) -> None:
        now = time.monotonic()
        if tick.point is None and now - self._said < EVERY:
            return
        self._said = now
        steps = f"{tick.step}/{tick.steps}" if tick.steps else str(tick.step)
        left = "" if math.isnan(tick.left) else f", {seconds(tick.left)} left"
        line = f"step {steps}, epoch {tick.epoch:.2f}, loss {tick.loss:.3f}, {tick.rate:.0f} tokens/s{left}"
        if tick.point is not None:
            line += f" | tune: loss {tick.point.tune:.4f}, exact {tick.point.exact:.3f}"
        print(line, file=sys.stderr, flush=True)

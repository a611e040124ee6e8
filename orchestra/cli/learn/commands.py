"""`orchestra learn`: from rows of an agent's work to an adapter that does it better."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestra.cli.context import get_opener, given_parameters, load_settings
from orchestra.cli.learn import evaluate_commands
from orchestra.cli.options import ConcurrencyOption, FleetOption
from orchestra.cli.output_files import check_writable, writing_output
from orchestra.cli.typer_adapter import add_command

if TYPE_CHECKING:
    from orchestra.cli.learn.data import DatasetSpec

AgentArgument = Annotated[str, typer.Argument(help="An agent's name.", show_default=False)]


@dataclass(frozen=True, slots=True)
class DatasetArguments:
    """What a data set is to be made of, as it was typed."""

    agent: AgentArgument
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder of the data set.", show_default=False)]
    files: Annotated[
        list[Path] | None, typer.Argument(help="JSON lines or CSV with inputs and outputs.", show_default=False)
    ] = None
    licence: Annotated[str, typer.Option(help="What may be done with the rows. Needed.", show_default=False)] = ""
    name: Annotated[str, typer.Option(help="Its name.", show_default="as the folder")] = ""
    column: Annotated[
        list[str] | None, typer.Option("--column", help="FIELD=COLUMN, where the names differ.", show_default=False)
    ] = None
    means: Annotated[
        list[str] | None,
        typer.Option(
            "--means",
            metavar="FIELD:VALUE=VALUE",
            help="What a value of the rows means; * is all others.",
            show_default=False,
        ),
    ] = None
    group: Annotated[
        str,
        typer.Option(
            help="The column, or input, that says what belongs together.", show_default="the agent's evidence"
        ),
    ] = ""
    tune: Annotated[float, typer.Option(help="Share of the groups to stop early by.")] = 0.1
    test: Annotated[float, typer.Option(help="Share of the groups to report on.")] = 0.1
    runs: Annotated[
        bool, typer.Option("--runs", help="Take what the agent was asked in your runs, as the journal has it.")
    ] = False
    since: Annotated[
        str | None, typer.Option(metavar="AGE", help="Of --runs, those of the last 12h, 30d, 2w.", show_default=False)
    ] = None
    workflow: Annotated[
        str, typer.Option(metavar="NAME", help="Of --runs, those of this workflow or agent.", show_default=False)
    ] = ""
    escalated: Annotated[
        str,
        typer.Option(
            metavar="AGENT",
            help="Of --runs: learn which calls of this agent needed the larger model.",
            show_default=False,
        ),
    ] = ""
    teacher: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="An agent, or a model of the fleet, that answers what has no output.",
            show_default=False,
        ),
    ] = ""
    without: Annotated[
        list[Path] | None,
        typer.Option(
            "--without", metavar="SET", help="Leave out what a data set's test part asks.", show_default=False
        ),
    ] = None
    replace: Annotated[
        bool, typer.Option("--replace", help="Write over another data set that stands in the folder.")
    ] = False
    concurrency: ConcurrencyOption = None
    fleet: FleetOption = None

    @property
    def spec(self) -> DatasetSpec:
        """What is to be collected. Raises `InputError` for columns, shares and ages that are none."""
        from orchestra.cli.learn.data import DatasetSpec
        from orchestra.cli.timestamps import parse_age
        from orchestra.learn.data.dataset import SplitShares
        from orchestra.learn.data.sources import ColumnMapping

        return DatasetSpec(
            self.agent,
            tuple(self.files or ()),
            self.out,
            self.licence,
            self.name or self.out.name,
            ColumnMapping.parse(self.column or (), self.group, self.means or ()),
            SplitShares(self.tune, self.test),
            runs=self.runs,
            max_age=parse_age(self.since, "--since") if self.since is not None else None,
            workflow=self.workflow,
            teacher=self.teacher,
            escalated=self.escalated,
            excluded_sets=tuple(self.without or ()),
            replace=self.replace,
        )


@dataclass(frozen=True, slots=True)
class TrainArguments:
    """Which agent is to be trained, on what, and how."""

    agent: AgentArgument
    data: Annotated[Path, typer.Option("--data", help="The folder of a data set.", show_default=False)]
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Where the adapter goes.", show_default="in DATA")] = (
        None
    )
    minutes: Annotated[float | None, typer.Option(min=0.01, help="Train for about so long.", show_default=False)] = None
    epochs: Annotated[
        float | None,
        typer.Option(min=0.01, help="Passes over the rows.", show_default="3, an encoder's 6 or 3, without --minutes"),
    ] = None
    rank: Annotated[int, typer.Option(min=1, max=256, help="Rank of the LoRA.")] = 16
    targets: Annotated[str, typer.Option(help="Layers: all-linear, attention or query-value.")] = "all-linear"
    rate: Annotated[
        float | None,
        typer.Option(min=1e-7, max=1, help="The highest learning rate.", show_default="0.0006, an encoder's own"),
    ] = None
    decay: Annotated[str, typer.Option(help="How it falls: linear, cosine or none.")] = "linear"
    seed: Annotated[int, typer.Option(help="Seed of the first weights and of the order of rows.")] = 0
    patience: Annotated[
        int, typer.Option(min=1, help="Looks at the tune part, of which none is better, after which it ends.")
    ] = 4
    tune_every: Annotated[float, typer.Option(min=0.01, help="Epochs between two such looks.")] = 0.5
    batch: Annotated[int, typer.Option(min=64, help="Tokens of a batch.")] = 1400
    longest: Annotated[int, typer.Option(min=16, help="Tokens of a row at most; longer ones are left out.")] = 2048
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto.")] = "auto"
    start: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="What is trained already, to go on from.", show_default="the base alone"),
    ] = None
    teacher: Annotated[
        str,
        typer.Option(
            metavar="MODEL|FOLDER",
            help="A model with the same tokenizer: learn its probabilities too.",
            show_default=False,
        ),
    ] = ""
    teacher_adapter: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="The teacher's adapter.", show_default=False)
    ] = None
    temperature: Annotated[float, typer.Option(min=0.1, max=100, help="What teacher and student are softened by.")] = (
        2.0
    )
    share: Annotated[float, typer.Option(min=0, max=1, help="What the teacher counts; the labels count the rest.")] = (
        0.5
    )
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget a training that was killed, and begin again.")] = False


def register(app: typer.Typer) -> None:
    """Adds the verbs."""
    learn = typer.Typer(no_args_is_help=True, help="Specialists: data, training, evaluation, promotion.")
    add_command(learn, data)
    add_command(learn, train)
    evaluate_commands.register(learn)
    app.add_typer(learn, name="learn", rich_help_panel="Make it better")


def data(context: typer.Context, arguments: DatasetArguments) -> None:
    """Make a versioned data set: types checked, duplicates left out, whole groups in one part.

    Of files; with --runs, of the accepted answers of the agent in your runs, and of the answers that persons, the larger model or
    another agent gave where its own was withheld or failed. A --teacher is asked what is still open: the inputs of files, whose
    outputs are not read then, and those of failed calls. What the checks accept of its answers is kept.
    """
    from orchestra.cli.learn.data import build_dataset, report_dataset
    from orchestra.cli.signals import run_with_signals

    wanted = arguments.spec
    check_writable(arguments.out, "--out", folder=True)
    chosen = load_settings(fleet=arguments.fleet, concurrency=arguments.concurrency)
    made = run_with_signals(lambda _: build_dataset(get_opener(context), chosen, wanted))
    with writing_output(arguments.out, "--out"):
        made.data.write(arguments.out)
    report_dataset(arguments.out, made)


def train(context: typer.Context, arguments: TrainArguments) -> None:
    """Train an agent on a data set: an adapter for a language model; a sentence encoder that tells labels, or points at words or at
    cells of tables; the arrays of a tagger or a classifier, in seconds.

    A training of an adapter or an encoder that was killed goes on where it stopped: give the same command. With --teacher an adapter
    learns from the probabilities of a larger model, and from the labels; with --start it goes on from an adapter that is there, or an
    encoder from one that was trained. An encoder takes --minutes or --epochs, --rate, --seed, --start and --fresh; the other options are
    about adapters.
    """
    from orchestra.cli.learn import train as train_module

    train_module.train(arguments, given_parameters(context))

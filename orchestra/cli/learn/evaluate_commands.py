"""`orchestra learn evaluate`, `promote`, `rollback`, `calibrate`, `combine`: what an agent is worth, who takes its place, how sure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from orchestra.cli.context import get_opener, load_settings
from orchestra.cli.options import (
    ChecksOption,
    ConcurrencyOption,
    EvaluationOption,
    FleetOption,
    JsonOption,
    MaxRowsOption,
    MetricOption,
    split_names,
)
from orchestra.cli.output import make_console, make_table, print_json, print_note, print_text
from orchestra.cli.output_files import check_writable, writing_output
from orchestra.cli.typer_adapter import add_command
from orchestra.core.untrusted_text import escape_invisible, pluralize

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestra.cli.learn.evaluate import ComparisonResult, ComparisonSpec
    from orchestra.core.settings import Settings
    from orchestra.learn.data.dataset import Split
    from orchestra.learn.evaluation.classification import ClassificationReport

DataOption = Annotated[
    Path,
    typer.Option(
        "--data",
        "-d",
        help="A data set's folder; rows {id, input, expected}: .jsonl, .jsonl.gz, .csv; or the folder that evaluation.yaml names files of.",
        show_default=False,
    ),
]
AgentArgument = Annotated[str, typer.Argument(help="An agent with a card.", show_default=False)]


class HeldOutPart(StrEnum):
    """Parts that nothing was trained on; an enum, for Typer takes no list of literals."""

    TUNE = "tune"
    TEST = "test"


@dataclass(frozen=True, slots=True)
class MeasurementArguments:
    """By which rows an agent is measured."""

    rows: Annotated[
        int | None,
        typer.Option(
            "--rows",
            min=0,
            help="At most so many rows, drawn by the seed; 0 for all.",
            show_default="as evaluation.yaml, or all",
        ),
    ] = None
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed", help="Of the rows drawn, and of the intervals.", show_default="as evaluation.yaml, or 0"
        ),
    ] = None
    evaluation: EvaluationOption = ""
    no_checks: Annotated[
        bool, typer.Option("--no-checks", help="Measure what it writes, without the checks of its card.")
    ] = False


@dataclass(frozen=True, slots=True)
class ServingArguments:
    """Who serves the agent, and how what came of it is printed."""

    concurrency: ConcurrencyOption = None
    fleet: FleetOption = None
    as_json: JsonOption = False

    @property
    def settings(self) -> Settings:
        """The settings with these on top."""
        return load_settings(fleet=self.fleet, concurrency=self.concurrency)


@dataclass(frozen=True, slots=True)
class EvaluateArguments:
    """Which agent is to be measured, on what, and what must come of it, as it was typed."""

    agent: AgentArgument
    data: DataOption
    part: Annotated[Literal["train", "tune", "test"], typer.Option(help="Of a data set.")] = "test"
    train: Annotated[
        Path | None, typer.Option(help="Rows that floors are made of; a data set brings its own.", show_default=False)
    ] = None
    candidate: Annotated[
        Path | None, typer.Option(help="An adapter to hold beside the agent's own.", show_default=False)
    ] = None
    untuned: Annotated[bool, typer.Option(help="Ask the base model without an adapter too.")] = True
    members: Annotated[bool, typer.Option(help="Ask an ensemble's members alone too.")] = True
    require: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="Such as 'EM >= 0.65'; exits with 1 if missed.", show_default=False),
    ] = None
    junit: Annotated[
        Path | None,
        typer.Option(help="Write what is required and whether it is met, for a CI service.", show_default=False),
    ] = None
    predictions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write each row's answer as a line of JSON, and whether it is right.",
            show_default=False,
        ),
    ] = None
    classes: Annotated[
        bool, typer.Option("--classes", help="Precision, recall and F1 of each label that it tells.")
    ] = False

    def to_spec(self, measurement: MeasurementArguments) -> ComparisonSpec:
        """What is to be compared."""
        from orchestra.cli.learn.evaluate import ComparisonSpec

        return ComparisonSpec(
            self.agent,
            self.data,
            self.part,
            self.train,
            self.candidate,
            self.untuned,
            measurement.rows,
            measurement.seed,
            measurement.no_checks,
            tuple(self.require or ()),
            measurement.evaluation,
            self.classes,
            self.predictions is not None,
            self.members,
        )


@dataclass(frozen=True, slots=True)
class PromoteArguments:
    """Which adapter is to take an agent's place, and by which rows, as it was typed."""

    agent: AgentArgument
    candidate: Annotated[
        Path, typer.Argument(help="The adapter's folder, as orchestra learn train leaves it.", show_default=False)
    ]
    data: DataOption
    part: Annotated[Literal["tune", "test"], typer.Option(help="Of a data set.")] = "test"
    force: Annotated[
        bool, typer.Option("--force", help="Take it even where it is not surely better, or knows the rows.")
    ] = False

    def to_spec(self, measurement: MeasurementArguments) -> ComparisonSpec:
        """What is to be compared."""
        from orchestra.cli.learn.evaluate import ComparisonSpec

        return ComparisonSpec(
            self.agent,
            self.data,
            self.part,
            None,
            self.candidate,
            untuned=False,
            rows=measurement.rows,
            seed=measurement.seed,
            no_checks=measurement.no_checks,
            evaluation=measurement.evaluation,
        )


@dataclass(frozen=True, slots=True)
class CalibrateArguments:
    """Whose probabilities are to be set right, and by what, as it was typed."""

    agent: AgentArgument
    data: Annotated[Path, typer.Option("--data", "-d", help="The folder of a data set.", show_default=False)]
    part: Annotated[
        list[HeldOutPart] | None, typer.Option(help="Whose rows are asked; may be given twice.", show_default="tune")
    ] = None
    words: Annotated[
        str,
        typer.Option(
            metavar="CLAIM,EVIDENCE", help="Two inputs whose common words vote beside the model.", show_default=False
        ),
    ] = ""
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The file.", show_default="as the card says")] = None

    @property
    def parts(self) -> list[Split]:
        """The parts whose rows are asked."""
        return ["test" if one is HeldOutPart.TEST else "tune" for one in self.part or [HeldOutPart.TUNE]]

    @property
    def overlap_inputs(self) -> tuple[str, str] | None:
        """The inputs whose words vote."""
        claim, _, evidence = self.words.partition(",")
        return (claim.strip(), evidence.strip()) if self.words else None


@dataclass(frozen=True, slots=True)
class CombineArguments:
    """What is to be combined, and on what."""

    agent: AgentArgument
    data: DataOption
    checks: ChecksOption = ""
    unlabelled: Annotated[
        bool, typer.Option("--unlabelled", help="Weigh checks by each other, where nobody says what is right.")
    ] = False
    predictions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help='Recorded answers {"id", "output", "score"}: the agent is not asked.',
            show_default=False,
        ),
    ] = None
    metric: MetricOption = ""
    evaluation: EvaluationOption = ""
    rows: MaxRowsOption = 0
    seed: Annotated[int, typer.Option("--seed", help="Of the rows drawn, and of the folds.")] = 0
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The file.", show_default="combination.json in the agent's folder"),
    ] = None

    @property
    def check_names(self) -> tuple[str, ...]:
        """The node's checks."""
        return split_names(self.checks)


def register(learn: typer.Typer) -> None:
    """Adds the verbs."""
    add_command(learn, evaluate)
    add_command(learn, promote)
    add_command(learn, rollback)
    add_command(learn, calibrate)
    add_command(learn, combine)


def evaluate(
    context: typer.Context, arguments: EvaluateArguments, measurement: MeasurementArguments, serving: ServingArguments
) -> None:
    """Measure an agent through the served model, beside floors without a model and its untuned base.

    Exits with 0, with 1 where a requirement is missed or no server can be had, 2 for bad input.
    """
    from orchestra.cli.learn.evaluate import compare
    from orchestra.cli.signals import run_with_signals
    from orchestra.core.errors import OrchestraError
    from orchestra.learn.evaluation.gates import junit_error_report

    chosen = serving.settings
    for file, option in ((arguments.junit, "--junit"), (arguments.predictions, "--predictions")):
        if file is not None:
            check_writable(file, option)
    try:
        compared = run_with_signals(lambda _: compare(get_opener(context), chosen, arguments.to_spec(measurement)))
    except OrchestraError as error:
        _write_file(arguments.junit, "--junit", partial(junit_error_report, arguments.agent, error))
        raise
    _write_file(arguments.predictions, "--predictions", compared.to_json_lines)
    if serving.as_json:
        print_json(compared.as_data())
    else:
        _show_comparison(compared)
    _write_file(arguments.junit, "--junit", compared.to_junit)
    for missed in compared.missed_requirements:
        print_note(f"missed: {missed}, and it is {compared.judged_figures[missed.metric]}")
    if compared.missed_requirements:
        raise typer.Exit(1)


def _write_file(file: Path | None, option: str, content: Callable[[], bytes]) -> None:
    if file is not None:
        with writing_output(file, option):
            file.write_bytes(content())


def _show_comparison(compared: ComparisonResult) -> None:
    report = compared.report
    print_text(f"{report.agent} on {report.test}: {report.rows} rows\n")
    print_text(report.markdown())
    if compared.classes is not None:
        _show_classes(compared.classes)
    for known in compared.training_overlap:
        print_text(f"\n{known}: what it says of these holds for no others")


def _show_classes(found: ClassificationReport) -> None:
    def figure(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    rows = [
        (escape_invisible(one.label), figure(one.precision), figure(one.recall), f"{one.f1:.3f}", f"{one.support:,}")
        for one in found.labels
    ]
    print_text()
    make_console().print(make_table((found.field, "precision", "recall", "F1", "support"), rows, right=(1, 2, 3, 4)))
    for expected, told, count in found.confusions:
        print_text(escape_invisible(f"{expected} told as {told}: {pluralize(count, 'row')}"))


def promote(
    context: typer.Context, arguments: PromoteArguments, measurement: MeasurementArguments, serving: ServingArguments
) -> None:
    """Give an agent a new adapter, if it is surely better than what it has, on rows that neither was trained on.

    A paired test on the first metric of evaluation.yaml decides; the more candidates these rows have judged, the surer it must be.
    A fleet that runs loads the adapter at once; calls under way end with the old one. Exits with 0 where it was taken, 1 where it
    was not, 2 for bad input.
    """
    from orchestra.cli.learn.promote import run_promotion
    from orchestra.cli.signals import run_with_signals

    chosen = serving.settings
    result = run_with_signals(
        lambda _: run_promotion(get_opener(context), chosen, arguments.to_spec(measurement), force=arguments.force)
    )
    if serving.as_json:
        print_json(result.as_data())
    else:
        print_text(f"{arguments.agent} on {result.report.test}: {result.report.rows} rows\n")
        print_text(f"{result.report.markdown()}\n")
        print_text(f"The candidate is {result.judgement}.")
        print_text(result.message)
    if not result.promoted:
        raise typer.Exit(1)


def rollback(
    context: typer.Context, agent: AgentArgument, fleet: FleetOption = None, as_json: JsonOption = False
) -> None:
    """Give an agent back what it had before its last promotion."""
    from orchestra.cli.learn.promote import run_rollback
    from orchestra.cli.signals import run_with_signals

    line = run_with_signals(lambda _: run_rollback(get_opener(context), load_settings(fleet=fleet), agent))
    if as_json:
        print_json(line)
    else:
        has = f"the adapter {line.new_digest[:12]}" if line.new_digest else "no adapter"
        print_text(f"{agent} has {has} again, in place of {line.previous_digest[:12] or 'none'}")


def calibrate(context: typer.Context, arguments: CalibrateArguments, serving: ServingArguments) -> None:
    """Set the probabilities of an agent's choices right, by what they were worth on rows that it was not trained on."""
    from orchestra.cli.learn.calibrate import run_calibration
    from orchestra.cli.signals import run_with_signals

    chosen = serving.settings
    done = run_with_signals(lambda _: run_calibration(get_opener(context), chosen, arguments))
    made = done.calibration
    if serving.as_json:
        print_json(
            {
                "file": str(done.file),
                "rows": made.rows,
                "asked": done.rows_asked,
                "model": made.trust.model,
                "words": made.trust.wording,
            }
        )
    else:
        print_text(f"{done.file}: fitted on {made.rows:,} of {done.rows_asked:,} rows")
        print_text(
            f"  the model's vote counts {made.trust.model:.2f}"
            + (f", the words' {made.trust.wording:.2f}" if arguments.overlap_inputs else "")
        )


def combine(context: typer.Context, arguments: CombineArguments, serving: ServingArguments) -> None:
    """Make one score of several checks, each weighed by what it was worth on rows of the agent; `score: combined` takes it.

    It takes 300 rows whose right answers are known; with --unlabelled 300 rows and three checks. What each check brings is printed.
    """
    from orchestra.cli.learn.combine import run_combination, show, show_data
    from orchestra.cli.signals import run_with_signals

    chosen = serving.settings
    made = run_with_signals(lambda _: run_combination(get_opener(context), chosen, arguments))
    (show_data if serving.as_json else show)(arguments, made)

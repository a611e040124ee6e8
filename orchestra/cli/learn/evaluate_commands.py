"""`orchestra learn evaluate`, `promote`, `rollback`, `calibrate`, `combine`: what an agent is worth, who takes its place, how sure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from orchestra.cli.context import opener, settings
from orchestra.cli.options import AsJson, Checks, Concurrency, Drawn, Evaluation, Fleet, Metric, named
from orchestra.cli.output import console, note, print_json, say, table
from orchestra.cli.output_files import check_writable, writing
from orchestra.cli.typer_adapter import add
from orchestra.core.untrusted_text import counted, visible

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestra.cli.learn.evaluate import Compared, Comparison
    from orchestra.core.settings import Settings
    from orchestra.learn.data.dataset import Part
    from orchestra.learn.evaluation.classification import Classes

Data = Annotated[
    Path,
    typer.Option(
        "--data",
        "-d",
        help="A data set's folder; rows {id, input, expected}: .jsonl, .jsonl.gz, .csv; or the folder that evaluation.yaml names files of.",
        show_default=False,
    ),
]
AgentName = Annotated[str, typer.Argument(help="An agent with a card.", show_default=False)]


class HeldOut(StrEnum):
    """Parts that nothing was trained on; an enum, for Typer takes no list of literals."""

    TUNE = "tune"
    TEST = "test"


@dataclass(frozen=True, slots=True)
class Measured:
    """By which rows an agent is measured."""

    rows: Annotated[
        int | None,
        typer.Option(
            "--rows", min=0, help="At most so many rows, drawn by the seed; 0 for all.", show_default="as evaluation.yaml, or all"
        ),
    ] = None
    seed: Annotated[
        int | None, typer.Option("--seed", help="Of the rows drawn, and of the intervals.", show_default="as evaluation.yaml, or 0")
    ] = None
    evaluation: Evaluation = ""
    no_checks: Annotated[bool, typer.Option("--no-checks", help="Measure what it writes, without the checks of its card.")] = False


@dataclass(frozen=True, slots=True)
class Served:
    """Who serves the agent, and how what came of it is printed."""

    concurrency: Concurrency = None
    fleet: Fleet = None
    as_json: AsJson = False

    @property
    def chosen(self) -> Settings:
        """The settings with these on top."""
        return settings(fleet=self.fleet, concurrency=self.concurrency)


@dataclass(frozen=True, slots=True)
class Evaluating:
    """Which agent is to be measured, on what, and what must come of it, as it was typed."""

    agent: AgentName
    data: Data
    part: Annotated[Literal["train", "tune", "test"], typer.Option(help="Of a data set.")] = "test"
    train: Annotated[Path | None, typer.Option(help="Rows that floors are made of; a data set brings its own.", show_default=False)] = None
    candidate: Annotated[Path | None, typer.Option(help="An adapter to hold beside the agent's own.", show_default=False)] = None
    untuned: Annotated[bool, typer.Option(help="Ask the base model without an adapter too.")] = True
    members: Annotated[bool, typer.Option(help="Ask an ensemble's members alone too.")] = True
    require: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="Such as 'EM >= 0.65'; exits with 1 if missed.", show_default=False),
    ] = None
    junit: Annotated[
        Path | None, typer.Option(help="Write what is required and whether it is met, for a CI service.", show_default=False)
    ] = None
    predictions: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write each row's answer as a line of JSON, and whether it is right.", show_default=False),
    ] = None
    classes: Annotated[bool, typer.Option("--classes", help="Precision, recall and F1 of each label that it tells.")] = False

    def comparison(self, by: Measured) -> Comparison:
        """What is to be compared."""
        from orchestra.cli.learn.evaluate import Comparison

        return Comparison(
            self.agent,
            self.data,
            self.part,
            self.train,
            self.candidate,
            self.untuned,
            by.rows,
            by.seed,
            by.no_checks,
            tuple(self.require or ()),
            by.evaluation,
            self.classes,
            self.predictions is not None,
            self.members,
        )


@dataclass(frozen=True, slots=True)
class Promoting:
    """Which adapter is to take an agent's place, and by which rows, as it was typed."""

    agent: AgentName
    candidate: Annotated[Path, typer.Argument(help="The adapter's folder, as orchestra learn train leaves it.", show_default=False)]
    data: Data
    part: Annotated[Literal["tune", "test"], typer.Option(help="Of a data set.")] = "test"
    force: Annotated[bool, typer.Option("--force", help="Take it even where it is not surely better, or knows the rows.")] = False

    def comparison(self, by: Measured) -> Comparison:
        """What is to be compared."""
        from orchestra.cli.learn.evaluate import Comparison

        return Comparison(
            self.agent,
            self.data,
            self.part,
            None,
            self.candidate,
            untuned=False,
            rows=by.rows,
            seed=by.seed,
            no_checks=by.no_checks,
            evaluation=by.evaluation,
        )


@dataclass(frozen=True, slots=True)
class Calibrating:
    """Whose probabilities are to be set right, and by what, as it was typed."""

    agent: AgentName
    data: Annotated[Path, typer.Option("--data", "-d", help="The folder of a data set.", show_default=False)]
    part: Annotated[list[HeldOut] | None, typer.Option(help="Whose rows are asked; may be given twice.", show_default="tune")] = None
    words: Annotated[
        str, typer.Option(metavar="CLAIM,EVIDENCE", help="Two inputs whose common words vote beside the model.", show_default=False)
    ] = ""
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The file.", show_default="as the card says")] = None

    @property
    def parts(self) -> list[Part]:
        """The parts whose rows are asked."""
        return ["test" if one is HeldOut.TEST else "tune" for one in self.part or [HeldOut.TUNE]]

    @property
    def pair(self) -> tuple[str, str] | None:
        """The inputs whose words vote."""
        claim, _, evidence = self.words.partition(",")
        return (claim.strip(), evidence.strip()) if self.words else None


@dataclass(frozen=True, slots=True)
class Combining:
    """What is to be combined, and on what."""

    agent: AgentName
    data: Data
    checks: Checks = ""
    unlabelled: Annotated[bool, typer.Option("--unlabelled", help="Weigh checks by each other, where nobody says what is right.")] = False
    predictions: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help='Recorded answers {"id", "output", "score"}: the agent is not asked.', show_default=False),
    ] = None
    metric: Metric = ""
    evaluation: Evaluation = ""
    rows: Drawn = 0
    seed: Annotated[int, typer.Option("--seed", help="Of the rows drawn, and of the folds.")] = 0
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The file.", show_default="combination.json in the agent's folder")] = None

    @property
    def named(self) -> tuple[str, ...]:
        """The node's checks."""
        return named(self.checks)


def register(learn: typer.Typer) -> None:
    """Adds the verbs."""
    add(learn, evaluate)
    add(learn, promote)
    add(learn, rollback)
    add(learn, calibrate)
    add(learn, combine)


def evaluate(context: typer.Context, asked: Evaluating, by: Measured, served: Served) -> None:
    """Measure an agent through the served model, beside floors without a model and its untuned base.

    Exits with 0, with 1 where a requirement is missed or no server can be had, 2 for bad input.
    """
    from orchestra.cli.learn.evaluate import compare
    from orchestra.cli.signals import carry_out
    from orchestra.core.errors import OrchestraError
    from orchestra.learn.evaluation.gates import unmeasured

    chosen = served.chosen
    for file, option in ((asked.junit, "--junit"), (asked.predictions, "--predictions")):
        if file is not None:
            check_writable(file, option)
    try:
        compared = carry_out(lambda _: compare(opener(context), chosen, asked.comparison(by)))
    except OrchestraError as error:
        _write(asked.junit, "--junit", partial(unmeasured, asked.agent, error))
        raise
    _write(asked.predictions, "--predictions", compared.lines)
    if served.as_json:
        print_json(compared.data())
    else:
        _show(compared)
    _write(asked.junit, "--junit", compared.junit)
    for missed in compared.missed:
        note(f"missed: {missed}, and it is {compared.judged[missed.metric]}")
    if compared.missed:
        raise typer.Exit(1)


def _write(file: Path | None, option: str, content: Callable[[], bytes]) -> None:
    if file is not None:
        with writing(file, option):
            file.write_bytes(content())


def _show(compared: Compared) -> None:
    report = compared.report
    say(f"{report.agent} on {report.test}: {report.rows} rows\n")
    say(report.markdown())
    if compared.classes is not None:
        _show_classes(compared.classes)
    for known in compared.known:
        say(f"\n{known}: what it says of these holds for no others")


def _show_classes(found: Classes) -> None:
    def figure(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    rows = [(visible(one.label), figure(one.precision), figure(one.recall), f"{one.f1:.3f}", f"{one.support:,}") for one in found.classes]
    say()
    console().print(table((found.field, "precision", "recall", "F1", "support"), rows, right=(1, 2, 3, 4)))
    for expected, told, count in found.confusions:
        say(visible(f"{expected} told as {told}: {counted(count, 'row')}"))


def promote(context: typer.Context, asked: Promoting, by: Measured, served: Served) -> None:
    """Give an agent a new adapter, if it is surely better than what it has, on rows that neither was trained on.

    A paired test on the first metric of evaluation.yaml decides; the more candidates these rows have judged, the surer it must be.
    A fleet that runs loads the adapter at once; calls under way end with the old one. Exits with 0 where it was taken, 1 where it
    was not, 2 for bad input.
    """
    from orchestra.cli.learn.promote import promoted
    from orchestra.cli.signals import carry_out

    chosen = served.chosen
    result = carry_out(lambda _: promoted(opener(context), chosen, asked.comparison(by), force=asked.force))
    if served.as_json:
        print_json(result.data())
    else:
        say(f"{asked.agent} on {result.report.test}: {result.report.rows} rows\n")
        say(f"{result.report.markdown()}\n")
        say(f"The candidate is {result.judgement}.")
        say(result.said)
    if not result.taken:
        raise typer.Exit(1)


def rollback(context: typer.Context, agent: AgentName, fleet: Fleet = None, as_json: AsJson = False) -> None:
    """Give an agent back what it had before its last promotion."""
    from orchestra.cli.learn.promote import rolled_back
    from orchestra.cli.signals import carry_out

    line = carry_out(lambda _: rolled_back(opener(context), settings(fleet=fleet), agent))
    if as_json:
        print_json(line)
    else:
        has = f"the adapter {line.taken[:12]}" if line.taken else "no adapter"
        say(f"{agent} has {has} again, in place of {line.given_up[:12] or 'none'}")


def calibrate(context: typer.Context, asked: Calibrating, served: Served) -> None:
    """Set the probabilities of an agent's choices right, by what they were worth on rows that it was not trained on."""
    from orchestra.cli.learn.calibrate import calibrated
    from orchestra.cli.signals import carry_out

    chosen = served.chosen
    done = carry_out(lambda _: calibrated(opener(context), chosen, asked))
    made = done.calibration
    if served.as_json:
        print_json({"file": str(done.file), "rows": made.rows, "asked": done.asked, "model": made.trust.model, "words": made.trust.wording})
    else:
        say(f"{done.file}: fitted on {made.rows:,} of {done.asked:,} rows")
        say(f"  the model's vote counts {made.trust.model:.2f}" + (f", the words' {made.trust.wording:.2f}" if asked.pair else ""))


def combine(context: typer.Context, asked: Combining, served: Served) -> None:
    """Make one score of several checks, each weighed by what it was worth on rows of the agent; `score: combined` takes it.

    It takes 300 rows whose right answers are known; with --unlabelled 300 rows and three checks. What each check brings is printed.
    """
    from orchestra.cli.learn.combine import combined, show, show_data
    from orchestra.cli.signals import carry_out

    chosen = served.chosen
    made = carry_out(lambda _: combined(opener(context), chosen, asked))
    (show_data if served.as_json else show)(asked, made)

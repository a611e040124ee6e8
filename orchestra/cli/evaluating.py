"""`orchestra learn evaluate`, `promote`, `rollback`, `calibrate`, `combine`: what an agent is worth, who takes its place, how sure."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from orchestra.cli.failure import Verb
from orchestra.cli.opening import opener, settings
from orchestra.cli.results import check_writable, writing
from orchestra.cli.screen import console, note, print_json, say, table
from orchestra.values.text import counted, visible

if TYPE_CHECKING:
    from orchestra.learn.classes import Classes
    from orchestra.learn.dataset import Part

Data = Annotated[
    Path,
    typer.Option(
        "--data",
        "-d",
        help="A data set's folder; rows {id, input, expected}: .jsonl, .jsonl.gz, .csv; or the folder that evaluation.yaml names files of.",
        show_default=False,
    ),
]
Rows = Annotated[
    int | None,
    typer.Option("--rows", min=0, help="At most so many rows, drawn by the seed; 0 for all.", show_default="as evaluation.yaml, or all"),
]
Seed = Annotated[
    int | None, typer.Option("--seed", help="Of the rows drawn, and of the intervals.", show_default="as evaluation.yaml, or 0")
]
Evaluation = Annotated[str, typer.Option("--evaluation", help="One of evaluation.yaml.", show_default="the first")]
Concurrency = Annotated[int | None, typer.Option("--concurrency", "-c", min=1, help="Rows at once.", show_default="as configured")]
Fleet = Annotated[str | None, typer.Option(help="A name in configs/, or a path.", show_default="as configured")]
NoChecks = Annotated[bool, typer.Option("--no-checks", help="Measure what it writes, without the checks of its card.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
AgentName = Annotated[str, typer.Argument(help="An agent with a card.", show_default=False)]


class HeldOut(StrEnum):
    """Parts that nothing was trained on; an enum, for Typer takes no list of literals."""

    TUNE = "tune"
    TEST = "test"


def register(learn: typer.Typer) -> None:
    """Adds the verbs."""
    for add in (_evaluate, _promote, _rollback, _calibrate, _combine):
        add(learn)


def _evaluate(learn: typer.Typer) -> None:
    @learn.command("evaluate", cls=Verb)
    def evaluate(
        context: typer.Context,
        agent: AgentName,
        data: Data,
        part: Annotated[Literal["train", "tune", "test"], typer.Option(help="Of a data set.")] = "test",
        train: Annotated[
            Path | None, typer.Option(help="Rows that floors are made of; a data set brings its own.", show_default=False)
        ] = None,
        candidate: Annotated[Path | None, typer.Option(help="An adapter to hold beside the agent's own.", show_default=False)] = None,
        untuned: Annotated[bool, typer.Option(help="Ask the base model without an adapter too.")] = True,
        require: Annotated[
            list[str] | None,
            typer.Option(metavar="TEXT", help="Such as 'EM >= 0.65'; exits with 1 if missed.", show_default=False),
        ] = None,
        junit: Annotated[
            Path | None, typer.Option(help="Write what is required and whether it is met, for a CI service.", show_default=False)
        ] = None,
        predictions: Annotated[
            Path | None,
            typer.Option(metavar="FILE", help="Write each row's answer as a line of JSON, and whether it is right.", show_default=False),
        ] = None,
        classes: Annotated[bool, typer.Option("--classes", help="Precision, recall and F1 of each label that it tells.")] = False,
        rows: Rows = None,
        seed: Seed = None,
        evaluation: Evaluation = "",
        no_checks: NoChecks = False,
        concurrency: Concurrency = None,
        fleet: Fleet = None,
        as_json: AsJson = False,
    ) -> None:
        """Measure an agent through the served model, beside floors without a model and its untuned base.

        Exits with 0, with 1 where a requirement is missed or no server can be had, 2 for bad input.
        """
        from orchestra.cli.comparison import Comparison, compare
        from orchestra.cli.signals import carry_out
        from orchestra.errors import OrchestraError
        from orchestra.learn.requirements import unmeasured

        wanted = tuple(require or ())
        said = predictions is not None
        asked = Comparison(agent, data, part, train, candidate, untuned, rows, seed, no_checks, wanted, evaluation, classes, said)
        chosen = settings(fleet=fleet, concurrency=concurrency)
        if junit is not None:
            check_writable(junit, "--junit")
        if predictions is not None:
            check_writable(predictions, "--predictions")
        try:
            compared = carry_out(lambda _: compare(opener(context), chosen, asked))
        except OrchestraError as error:
            if junit is not None:
                with writing(junit, "--junit"):
                    junit.write_bytes(unmeasured(agent, error))
            raise
        if predictions is not None:
            with writing(predictions, "--predictions"):
                predictions.write_bytes(compared.lines())
        if as_json:
            print_json(compared.data())
        else:
            say(f"{agent} on {compared.report.test}: {compared.report.rows} rows\n")
            say(compared.report.markdown())
            if compared.classes is not None:
                _show_classes(compared.classes)
            for known in compared.known:
                say(f"\n{known}: what it says of these holds for no others")
        if junit is not None:
            with writing(junit, "--junit"):
                junit.write_bytes(compared.junit())
        for missed in compared.missed:
            note(f"missed: {missed}, and it is {compared.judged[missed.metric]}")
        if compared.missed:
            raise typer.Exit(1)


def _show_classes(found: Classes) -> None:
    def figure(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    rows = [(visible(one.label), figure(one.precision), figure(one.recall), f"{one.f1:.3f}", f"{one.support:,}") for one in found.classes]
    say()
    console().print(table((found.field, "precision", "recall", "F1", "support"), rows, right=(1, 2, 3, 4)))
    for expected, told, count in found.confusions:
        say(visible(f"{expected} told as {told}: {counted(count, 'row')}"))


def _promote(learn: typer.Typer) -> None:
    @learn.command("promote", cls=Verb)
    def promote(
        context: typer.Context,
        agent: AgentName,
        candidate: Annotated[Path, typer.Argument(help="The adapter's folder, as orchestra learn train leaves it.", show_default=False)],
        data: Data,
        part: Annotated[Literal["tune", "test"], typer.Option(help="Of a data set.")] = "test",
        force: Annotated[bool, typer.Option("--force", help="Take it even where it is not surely better, or knows the rows.")] = False,
        rows: Rows = None,
        seed: Seed = None,
        evaluation: Evaluation = "",
        no_checks: NoChecks = False,
        concurrency: Concurrency = None,
        fleet: Fleet = None,
        as_json: AsJson = False,
    ) -> None:
        """Give an agent a new adapter, if it is surely better than what it has, on rows that neither was trained on.

        A paired test on the first metric of evaluation.yaml decides. A fleet that runs loads the adapter at once; calls under way
        end with the old one. Exits with 0 where it was taken, 1 where it was not, 2 for bad input.
        """
        from orchestra.cli.comparison import Comparison
        from orchestra.cli.promoting import promoted
        from orchestra.cli.signals import carry_out

        asked = Comparison(
            agent, data, part, None, candidate, untuned=False, rows=rows, seed=seed, no_checks=no_checks, evaluation=evaluation
        )
        chosen = settings(fleet=fleet, concurrency=concurrency)
        result = carry_out(lambda _: promoted(opener(context), chosen, asked, force=force))
        if as_json:
            print_json(result.data())
        else:
            say(f"{agent} on {result.report.test}: {result.report.rows} rows\n")
            say(f"{result.report.markdown()}\n")
            say(f"The candidate is {result.judgement}.")
            say(result.said)
        if not result.taken:
            raise typer.Exit(1)


def _rollback(learn: typer.Typer) -> None:
    @learn.command("rollback", cls=Verb)
    def rollback(context: typer.Context, agent: AgentName, fleet: Fleet = None, as_json: AsJson = False) -> None:
        """Give an agent back what it had before its last promotion."""
        from orchestra.cli.promoting import rolled_back
        from orchestra.cli.signals import carry_out

        line = carry_out(lambda _: rolled_back(opener(context), settings(fleet=fleet), agent))
        if as_json:
            print_json(line)
        else:
            has = f"the adapter {line.taken[:12]}" if line.taken else "no adapter"
            say(f"{agent} has {has} again, in place of {line.given_up[:12] or 'none'}")


def _calibrate(learn: typer.Typer) -> None:
    @learn.command("calibrate", cls=Verb)
    def calibrate(
        context: typer.Context,
        agent: AgentName,
        data: Annotated[Path, typer.Option("--data", "-d", help="The folder of a data set.", show_default=False)],
        part: Annotated[list[HeldOut] | None, typer.Option(help="Whose rows are asked; may be given twice.", show_default="tune")] = None,
        words: Annotated[
            str, typer.Option(metavar="CLAIM,EVIDENCE", help="Two inputs whose common words vote beside the model.", show_default=False)
        ] = "",
        out: Annotated[Path | None, typer.Option("--out", "-o", help="The file.", show_default="as the card says")] = None,
        concurrency: Concurrency = None,
        fleet: Fleet = None,
        as_json: AsJson = False,
    ) -> None:
        """Set the probabilities of an agent's choices right, by what they were worth on rows that it was not trained on."""
        from orchestra.cli.calibrating import calibrated
        from orchestra.cli.signals import carry_out

        claim, _, evidence = words.partition(",")
        pair = (claim.strip(), evidence.strip()) if words else None
        parts: list[Part] = ["test" if one is HeldOut.TEST else "tune" for one in part or [HeldOut.TUNE]]
        chosen = settings(fleet=fleet, concurrency=concurrency)
        done = carry_out(lambda _: calibrated(opener(context), chosen, agent, data, parts, pair, out))
        made = done.calibration
        if as_json:
            print_json(
                {"file": str(done.file), "rows": made.rows, "asked": done.asked, "model": made.trust.model, "words": made.trust.wording}
            )
        else:
            say(f"{done.file}: fitted on {made.rows:,} of {done.asked:,} rows")
            say(f"  the model's vote counts {made.trust.model:.2f}" + (f", the words' {made.trust.wording:.2f}" if pair else ""))


def _combine(learn: typer.Typer) -> None:
    @learn.command("combine", cls=Verb)
    def combine(
        context: typer.Context,
        agent: AgentName,
        data: Data,
        checks: Annotated[
            str, typer.Option(metavar="A,B", help="The node's checks.", show_default="the card's, or how sure the agent is")
        ] = "",
        unlabelled: Annotated[
            bool, typer.Option("--unlabelled", help="Weigh checks by each other, where nobody says what is right.")
        ] = False,
        predictions: Annotated[
            Path | None,
            typer.Option(metavar="FILE", help='Recorded answers {"id", "output", "score"}: the agent is not asked.', show_default=False),
        ] = None,
        metric: Annotated[
            str, typer.Option(help="What tells right from wrong.", show_default="the first of evaluation.yaml that does")
        ] = "",
        evaluation: Evaluation = "",
        rows: Annotated[int, typer.Option("--rows", min=0, help="At most so many rows, drawn by the seed; 0 for all.")] = 0,
        seed: Annotated[int, typer.Option("--seed", help="Of the rows drawn, and of the folds.")] = 0,
        out: Annotated[
            Path | None, typer.Option("--out", "-o", help="The file.", show_default="combination.json in the agent's folder")
        ] = None,
        concurrency: Concurrency = None,
        fleet: Fleet = None,
        as_json: AsJson = False,
    ) -> None:
        """Make one score of several checks, each weighed by what it was worth on rows of the agent; `score: combined` takes it.

        It takes 300 rows whose right answers are known; with --unlabelled 300 rows and three checks. What each check brings is printed.
        """
        from orchestra.cli.combining import Combining, combined, show, show_data
        from orchestra.cli.signals import carry_out

        named = tuple(name.strip() for name in checks.split(",") if name.strip())
        asked = Combining(agent, data, named, unlabelled, predictions, metric, evaluation, rows, seed, out)
        made = carry_out(lambda _: combined(opener(context), settings(fleet=fleet, concurrency=concurrency), asked))
        (show_data if as_json else show)(asked, made)

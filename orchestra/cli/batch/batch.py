"""`orchestra batch`: many rows through one workflow or one agent, in order, taken up again where it stopped."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from orchestra.cli.context import get_opener, load_settings
from orchestra.cli.options import AcceptOption, FleetOption, TagsOption
from orchestra.cli.output import print_json, print_note
from orchestra.cli.typer_adapter import add_command
from orchestra.core.errors import InputError


@dataclass(frozen=True, slots=True)
class BatchArguments:
    """Which rows are to be run, by whom, and where their results go, as it was typed."""

    name: Annotated[str, typer.Argument(help="A workflow or an agent; or a workflow's file.", show_default=False)]
    source: Annotated[
        Path,
        typer.Option(
            "--input", "-i", help='Rows {"id", "input"}: .jsonl, .jsonl.gz; or .csv, of inputs.', show_default=False
        ),
    ]
    target: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="Results in the rows' order; goes on by the ids in it.", show_default=False
        ),
    ]
    concurrency: Annotated[
        int | None,
        typer.Option("--concurrency", "-c", min=1, max=10_000, help="Rows at once.", show_default="as configured"),
    ] = None
    checks: Annotated[
        list[str] | None,
        typer.Option(help="Of an agent: its checks, instead of those of its card.", show_default=False),
    ] = None
    no_checks: Annotated[bool, typer.Option("--no-checks", help="Of an agent: accept every output of its type.")] = (
        False
    )
    constraint: Annotated[
        Literal["evidence", "schema", "none"] | None,
        typer.Option(help="What models decode over.", show_default="as configured"),
    ] = None
    budget: Annotated[
        list[str] | None,
        typer.Option(metavar="LIMITS", help="Of each row: tokens=2000,seconds=60; other limits of the workflow stay."),
    ] = None
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Do rows that failed before once more; effects are not repeated.")
    ] = False
    tags: TagsOption = None
    accept: AcceptOption = ""
    fleet: FleetOption = None
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False

    @property
    def check_names(self) -> tuple[str, ...] | None:
        """The checks; None for those of the card. Raises `InputError` C010 where there shall be some and none."""
        if self.checks and self.no_checks:
            raise InputError("C010", "--checks and --no-checks exclude each other", hint="give one of them")
        if not self.checks:
            return () if self.no_checks else None
        return tuple(check.strip() for given in self.checks for check in given.split(","))


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    add_command(app, batch, panel="Run")


def batch(context: typer.Context, arguments: BatchArguments) -> None:
    """Run a workflow or an agent on many rows. Given again, it goes on where it stopped.

    Stopped by a signal, a crash or a full disk, it repeats nothing: the newest run of a row speaks, whichever command has begun it. Rows
    whose runs had ended are only written next time, and of a call with lasting effects that was cut off a person is asked. Where nobody
    knows what a row has done, its result is the error C059. Rows whose lines are taken out of the output, or that is deleted, are done
    anew, with all that they do in the world.

    What went wrong with a row stands in its result; a row that asks a person ends as `waiting`, with its run, and gets what the run
    came to when the batch is given again after somebody answered. Exits with 0 when all
    are written, 1 if not one of them succeeded or no server can be had, 2 for bad input, 130 interrupted, 143 terminated.
    """
    from dataclasses import asdict

    from orchestra.cli.batch.driver import BatchJob, run_batch
    from orchestra.cli.batch.rows import rereadable_file
    from orchestra.cli.budget_option import parse_accept, parse_budget
    from orchestra.cli.signals import run_with_signals
    from orchestra.core.tags import parse_tags

    checks = arguments.check_names
    chosen = load_settings(fleet=arguments.fleet, concurrency=arguments.concurrency, constraint=arguments.constraint)
    limits, tags, accept = (
        parse_budget(arguments.budget or ()),
        parse_tags(arguments.tags or ()),
        parse_accept(arguments.accept),
    )
    with rereadable_file(arguments.source) as file:
        job = BatchJob(
            arguments.name,
            file,
            arguments.target,
            chosen.concurrency,
            limits,
            checks,
            str(arguments.source),
            arguments.retry_failed,
            tags,
            accept,
        )
        summary = run_with_signals(lambda _: run_batch(get_opener(context), chosen, job))
    if arguments.as_json:
        print_json(asdict(summary))
    else:
        print_note(f"{arguments.target}: {summary}")
    if summary.failed and not (summary.done or summary.abstained):
        raise typer.Exit(1)

"""`orchestra batch`: many rows through one workflow or one agent, in order, taken up again where it stopped."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from orchestra.cli.context import get_opener, load_settings
from orchestra.cli.options import (
    AcceptOption,
    BudgetOption,
    FleetOption,
    JsonOption,
    LiveOption,
    StreamOption,
    TagsOption,
)
from orchestra.cli.output import print_json, print_note
from orchestra.cli.typer_adapter import add_command, exit_with
from orchestra.core.errors import InputError

if TYPE_CHECKING:
    from orchestra.cli.run.plan import AskRequest


@dataclass(frozen=True, slots=True)
class RunArguments:
    """What is to be run, and how it is to be shown, as it was typed."""

    name: Annotated[
        str,
        typer.Argument(
            help="The name of a workflow, an agent or a tool; or the file of a workflow.", show_default=False
        ),
    ]
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            "-i",
            metavar="KEY=VALUE",
            help="An input: key=value, key=@file, key=@folder, @all.json, or - for JSON on stdin.",
        ),
    ] = None
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the inputs and print the planned calls; nothing is started.")
    ] = False
    budget: BudgetOption = None
    fleet: FleetOption = None
    key: Annotated[
        str, typer.Option(help="An idempotency key: a second run with the same key shows the first result.")
    ] = ""
    memo: Annotated[
        bool,
        typer.Option("--memo", help="Reuse results of equal pure calls of earlier runs."),
    ] = False
    tags: TagsOption = None
    accept: AcceptOption = ""
    as_json: JsonOption = False
    stream: StreamOption = False
    live: LiveOption = False


def run(context: typer.Context, arguments: RunArguments) -> None:
    """Run a workflow, an agent or a tool; print the answer, what it rests on, and what it took.

    A question to a person is asked right here on a terminal; elsewhere the run waits, and the command that answers is printed.
    Ctrl-C cancels the run, a second one leaves at once; SIGTERM lets go of it: `orchestra runs resume` goes on.

    Exits with 0 done, 1 failed, 2 bad input, 3 abstained, 4 over budget, 5 waits for a person, 130 interrupted, 143 terminated.
    """
    from orchestra.cli.options import parse_accept, parse_budget
    from orchestra.cli.run import run as run_module
    from orchestra.cli.run.watch import DisplayOptions
    from orchestra.cli.signals import run_with_signals
    from orchestra.core.tags import parse_tags

    limits, display = (
        parse_budget(arguments.budget or ()),
        DisplayOptions.from_flags(as_json=arguments.as_json, stream=arguments.stream, live=arguments.live),
    )
    request = run_module.RunSpec(
        arguments.name,
        arguments.inputs or (),
        limits,
        arguments.key,
        arguments.memo,
        display,
        parse_tags(arguments.tags or ()),
        parse_accept(arguments.accept),
    )
    chosen = load_settings(fleet=arguments.fleet)
    if arguments.dry_run:
        run_module.dry_run(chosen, request)
        return
    exit_with(run_with_signals(partial(run_module.run, get_opener(context), chosen, request)))


MAX_WIDTH = 100
"""Elements of a list that a step of a plan may go through at most."""


@dataclass(frozen=True, slots=True)
class PlannerArguments:
    """A request, and how it is planned, as it was typed."""

    request: Annotated[str, typer.Argument(metavar="REQUEST", help="The request, in your words.", show_default=False)]
    documents: Annotated[
        list[Path] | None,
        typer.Option(
            "--documents",
            "-d",
            metavar="PATH",
            help="A folder of .txt and .md files, or one such file.",
            show_default=False,
        ),
    ] = None
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            "-i",
            metavar="KEY=VALUE",
            help="An additional value: text, JSON, key=@file.txt or key=@file.json.",
        ),
    ] = None
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only",
            metavar="NAME",
            help="An agent, tool or workflow that the plan may use.",
            show_default="all without effects",
        ),
    ] = None
    router: Annotated[str, typer.Option(metavar="AGENT", help="The agent that writes the plan.")] = "router"
    steps: Annotated[int, typer.Option(min=1, max=100, help="The maximum number of steps of the plan.")] = 8
    repairs: Annotated[int, typer.Option(min=0, max=10, help="How often the router may correct a rejected line.")] = 2
    one_shot: Annotated[
        bool, typer.Option("--one-shot", help="Let the router write the whole plan at once instead of line by line.")
    ] = False
    allow_literals: Annotated[
        bool,
        typer.Option(
            "--allow-literals",
            help="Allow texts in the plan that are not part of the request, also for calls with effects.",
        ),
    ] = False
    no_grounding: Annotated[
        bool,
        typer.Option(
            "--no-grounding",
            help="Allow a plan whose first step reads none of the given values.",
        ),
    ] = False
    partial: Annotated[
        bool,
        typer.Option("--partial", help="Plan the feasible part, even if the router finds no suitable capability."),
    ] = False
    cache: Annotated[bool, typer.Option("--cache/--no-cache", help="Reuse a plan that served a similar request.")] = (
        True
    )
    larger: Annotated[
        str | None, typer.Option(metavar="AGENT", help="The agent that plans after the last repair has failed.")
    ] = None
    votes: Annotated[
        int, typer.Option(min=1, max=16, help="The number of sampled plans; the majority plan is used.")
    ] = 1

    def to_request(self, replans: int = 0, *, confirm: bool = True) -> AskRequest:
        """What is to be planned. Raises `InputError` C010, C013 or C014 for values that cannot be read, R022 for an empty request."""
        from orchestra.app.planning import PlanOptions, require_request
        from orchestra.cli.run.plan import AskRequest, keys_from_files, read_values
        from orchestra.workflows.model import PlanLimits

        options = PlanOptions(
            only=tuple(self.only or ()),
            router=self.router,
            limits=PlanLimits(steps=self.steps, width=MAX_WIDTH),
            repairs=self.repairs,
            stepwise=not self.one_shot,
            copied=not self.allow_literals,
            literals=self.allow_literals,
            confirm=confirm,
            grounded=not self.no_grounding,
            anyway=self.partial,
            cache=self.cache,
            larger=self.larger,
            votes=self.votes,
            replans=replans,
            hearsay=keys_from_files(self.inputs or ()),
        )
        return AskRequest(require_request(self.request), read_values(self.documents or (), self.inputs or ()), options)


@dataclass(frozen=True, slots=True)
class AskArguments(PlannerArguments):
    """A request that is carried out, and how that is shown."""

    replans: Annotated[
        int, typer.Option(min=0, max=10, help="How often a plan with a failed step may be replaced.")
    ] = 0
    budget: Annotated[
        list[str] | None,
        typer.Option(metavar="LIMITS", help="Limits of the run, including planning: tokens=20000,seconds=60."),
    ] = None
    tags: TagsOption = None
    yes: Annotated[bool, typer.Option("--yes", help="Make calls with effects without asking for approval.")] = False
    explain: Annotated[
        bool, typer.Option("--explain", help="Show the actual cost of each step beside its upper bound.")
    ] = False
    fleet: FleetOption = None
    as_json: JsonOption = False
    live: LiveOption = False


@dataclass(frozen=True, slots=True)
class PlanArguments(PlannerArguments):
    """A request that is only planned, and how the plan is shown."""

    save: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the plan as a workflow file.", show_default=False)
    ] = None
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False
    fleet: FleetOption = None
    as_json: JsonOption = False


def ask(context: typer.Context, arguments: AskArguments) -> None:
    """Answer a request: the router plans which agents and tools to use, and the plan runs while it is being written.

    A plan uses only what has no effects, unless --only names it; calls with effects are made after a person has said yes to them, or
    with --yes. Its lines stand on stderr, each as it is accepted; the answer, with what it rests on, on stdout.

    Exits as `orchestra run` does, and with 3 where the router gave no plan.
    """
    from orchestra.cli.options import parse_budget
    from orchestra.cli.run import plan as plan_module
    from orchestra.cli.run.watch import DisplayOptions
    from orchestra.cli.signals import run_with_signals
    from orchestra.core.tags import parse_tags

    display = DisplayOptions.from_flags(as_json=arguments.as_json, stream=False, live=arguments.live)
    wanted = arguments.to_request(arguments.replans, confirm=not arguments.yes)
    chosen = load_settings(fleet=arguments.fleet)
    wanted = replace(
        wanted,
        budget=parse_budget(arguments.budget or ()),
        explain=arguments.explain,
        tags=parse_tags(arguments.tags or ()),
    )
    exit_with(run_with_signals(partial(plan_module.run_request, get_opener(context), chosen, wanted, display)))


def plan(context: typer.Context, arguments: PlanArguments) -> None:
    """Show how a request would be answered: the plan, and what it may cost at most. Only the router is asked; nothing else runs.

    Exits with 3 where the router gave no plan, and with 1 where a step of it would be refused.
    """
    from orchestra.cli.run import plan as plan_module
    from orchestra.cli.signals import run_with_signals

    wanted = replace(arguments.to_request(), save=arguments.save)
    if arguments.save is not None and not arguments.force:
        plan_module.refuse_existing(arguments.save)
    exit_with(
        run_with_signals(
            partial(
                plan_module.plan_request,
                get_opener(context),
                load_settings(fleet=arguments.fleet),
                wanted,
                arguments.as_json,
            )
        )
    )


@dataclass(frozen=True, slots=True)
class BatchArguments:
    """Which rows are to be run, by whom, and where their results go, as it was typed."""

    name: Annotated[
        str, typer.Argument(help="The name of a workflow or an agent; or the file of a workflow.", show_default=False)
    ]
    source: Annotated[
        Path,
        typer.Option(
            "--input", "-i", help='The rows {"id", "input"} as .jsonl or .jsonl.gz; or inputs as .csv.', show_default=False
        ),
    ]
    target: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="The result file, in the order of the rows; its ids tell which rows are done.",
            show_default=False,
        ),
    ]
    concurrency: Annotated[
        int | None,
        typer.Option(
            "--concurrency",
            "-c",
            min=1,
            max=10_000,
            help="The number of concurrent rows.",
            show_default="as configured",
        ),
    ] = None
    checks: Annotated[
        list[str] | None,
        typer.Option(help="For an agent: checks that replace those of its card.", show_default=False),
    ] = None
    no_checks: Annotated[
        bool, typer.Option("--no-checks", help="For an agent: accept every output of the right type.")
    ] = False
    constraint: Annotated[
        Literal["evidence", "schema", "none"] | None,
        typer.Option(help="The constraint of decoding.", show_default="as configured"),
    ] = None
    budget: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LIMITS", help="Limits of each row: tokens=2000,seconds=60; they override those of the workflow."
        ),
    ] = None
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Retry failed rows; effects are not repeated.")
    ] = False
    tags: TagsOption = None
    accept: AcceptOption = ""
    fleet: FleetOption = None
    as_json: JsonOption = False

    @property
    def check_names(self) -> tuple[str, ...] | None:
        """The checks; None for those of the card. Raises `InputError` C010 where there shall be some and none."""
        if self.checks and self.no_checks:
            raise InputError("C010", "--checks and --no-checks exclude each other", hint="give one of them")
        if not self.checks:
            return () if self.no_checks else None
        return tuple(check.strip() for given in self.checks for check in given.split(","))


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

    from orchestra.cli.options import parse_accept, parse_budget
    from orchestra.cli.run.batch import BatchJob, run_batch
    from orchestra.cli.run.batch_rows import rereadable_file
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


def register(app: typer.Typer) -> None:
    """Adds `run`, `ask`, `plan` and `batch`."""
    add_command(app, run, panel="Run")
    add_command(app, ask, panel="Run")
    add_command(app, plan, panel="Run")
    add_command(app, batch, panel="Run")

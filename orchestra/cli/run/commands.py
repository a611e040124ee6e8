"""The commands `run`, `ask`, `chat`, `plan` and `batch`: their arguments and their registration."""

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
    EndpointOption,
    FleetOption,
    JsonOption,
    LiveOption,
    ModelOption,
    StreamOption,
    TagsOption,
)
from orchestra.cli.output import print_json, print_note
from orchestra.cli.typer_adapter import add_command, exit_with
from orchestra.core.errors import InputError

if TYPE_CHECKING:
    from orchestra.cli.run.plan import AskRequest


OnlyOption = Annotated[
    list[str] | None,
    typer.Option(
        "--only",
        metavar="NAME",
        help="An agent, tool or workflow that a plan may use.",
        show_default="all without effects",
    ),
]


@dataclass(frozen=True, slots=True)
class RunArguments:
    """The arguments of `orchestra run`."""

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
    endpoint: EndpointOption = None
    model: ModelOption = None
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
    """Run a workflow, an agent or a tool; print the result, its evidence and its cost.

    At a terminal, questions to a person are asked directly. Elsewhere the run waits, and the command that answers is
    printed. Ctrl-C cancels the run, and a second one exits at once. SIGTERM releases the run; `orchestra runs resume`
    continues it.

    Exits with 0 done, 1 failed, 2 bad input, 3 abstained, 4 over budget, 5 waits for a person, 130 interrupted, 143
    terminated.
    """
    from orchestra.cli.options import parse_accept, parse_budget
    from orchestra.cli.run import run as run_module
    from orchestra.cli.run.watch import DisplayOptions
    from orchestra.cli.signals import run_with_signals
    from orchestra.core.tags import parse_tags
    from orchestra.engine.request import RunOptions, RunRequest

    options = RunOptions(
        idempotency_key=arguments.key,
        budget=parse_budget(arguments.budget or ()),
        memo=arguments.memo,
        live=arguments.live,
        tags=parse_tags(arguments.tags or ()),
        accept=parse_accept(arguments.accept),
    )
    request, inputs = RunRequest(workflow=arguments.name, options=options), arguments.inputs or ()
    display = DisplayOptions.from_flags(as_json=arguments.as_json, stream=arguments.stream, live=arguments.live)
    settings = load_settings(fleet=arguments.fleet, endpoint=arguments.endpoint, model=arguments.model)
    if arguments.dry_run:
        run_module.dry_run(settings, request, inputs, as_json=display.as_json)
        return
    exit_with(run_with_signals(partial(run_module.run, get_opener(context), settings, request, inputs, display)))


MAX_WIDTH = 100
"""The maximum number of list elements that one step of a plan may process."""


@dataclass(frozen=True, slots=True)
class PlannerArguments:
    """A request and the options of its planning."""

    request: Annotated[str, typer.Argument(metavar="REQUEST", help="The request, in your words.", show_default=False)]
    documents: Annotated[
        list[Path] | None,
        typer.Option(
            "--documents",
            "-d",
            metavar="PATH",
            help="A folder or a file: text, PDF, DOCX, XLSX, PPTX, HTML, EML, CSV, JSON, SQLite, DuckDB.",
            show_default=False,
        ),
    ] = None
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            "-i",
            metavar="KEY=VALUE",
            help="An additional value: text, JSON, key=@file.txt, key=@file.json or table=@file.csv.",
        ),
    ] = None
    only: OnlyOption = None
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
    no_rules: Annotated[bool, typer.Option("--no-rules", help="Let the router plan requests of a known kind, too.")] = (
        False
    )
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
        """Returns the planning request. Raises `InputError` C010, C013 or C014 for unreadable values, R022 for an empty
        request.
        """
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
            rules=not self.no_rules,
            cache=self.cache,
            larger=self.larger,
            votes=self.votes,
            replans=replans,
            hearsay=keys_from_files(self.inputs or ()),
        )
        request = require_request(self.request)
        request_values = read_values(self.documents or (), self.inputs or (), request)
        return AskRequest(request, request_values.values, options, unread=request_values.unread)


@dataclass(frozen=True, slots=True)
class AskArguments(PlannerArguments):
    """The arguments of `orchestra ask`."""

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
    endpoint: EndpointOption = None
    model: ModelOption = None
    as_json: JsonOption = False
    live: LiveOption = False


@dataclass(frozen=True, slots=True)
class PlanArguments(PlannerArguments):
    """The arguments of `orchestra plan`."""

    budget: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LIMITS", help="Limits of the planning; a plan keeps to the calls: calls=10,tokens=20000."
        ),
    ] = None
    save: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the plan as a workflow file.", show_default=False)
    ] = None
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False
    fleet: FleetOption = None
    endpoint: EndpointOption = None
    model: ModelOption = None
    as_json: JsonOption = False


def ask(context: typer.Context, arguments: AskArguments) -> None:
    """Answer a request: the router plans which agents and tools to call, and the plan runs while it is written.

    A plan uses only capabilities without effects, unless --only names others. Calls with effects need the approval of a
    person, or --yes. Accepted lines of the plan are printed to stderr, the answer with its evidence to stdout.

    Exits as `orchestra run` does, and with 3 if the router gave no plan.
    """
    from orchestra.cli.options import parse_budget
    from orchestra.cli.run import plan as plan_module
    from orchestra.cli.run.watch import DisplayOptions
    from orchestra.cli.signals import run_with_signals
    from orchestra.core.tags import parse_tags

    display = DisplayOptions.from_flags(as_json=arguments.as_json, stream=False, live=arguments.live)
    ask_request = arguments.to_request(arguments.replans, confirm=not arguments.yes)
    settings = load_settings(fleet=arguments.fleet, endpoint=arguments.endpoint, model=arguments.model)
    ask_request = replace(
        ask_request,
        budget=parse_budget(arguments.budget or ()),
        explain=arguments.explain,
        tags=parse_tags(arguments.tags or ()),
    )
    exit_with(run_with_signals(partial(plan_module.run_request, get_opener(context), settings, ask_request, display)))


@dataclass(frozen=True, slots=True)
class ChatArguments:
    """The arguments of `orchestra chat`."""

    thread: Annotated[
        str,
        typer.Option("--thread", metavar="ID", help="The thread: a new one, or one to continue.", show_default="new"),
    ] = ""
    documents: Annotated[
        list[Path] | None,
        typer.Option("--documents", "-d", metavar="PATH", help="A folder or a file, as for `ask`.", show_default=False),
    ] = None
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", "-i", metavar="KEY=VALUE", help="An additional value, as for `ask`."),
    ] = None
    only: OnlyOption = None
    no_rules: Annotated[bool, typer.Option("--no-rules", help="Let the router plan requests of a known kind, too.")] = (
        False
    )
    budget: Annotated[
        list[str] | None,
        typer.Option(metavar="LIMITS", help="Limits of the whole thread: tokens=20000,seconds=60,calls=100."),
    ] = None
    tags: TagsOption = None
    fleet: FleetOption = None
    endpoint: EndpointOption = None
    model: ModelOption = None
    live: LiveOption = False


def chat(context: typer.Context, arguments: ChatArguments) -> None:
    """Answer requests in a conversation: a follow-up such as `and in Q2?` continues an earlier request.

    A line is a request. A follow-up becomes a full request, which is shown. Each turn is a run with the tag
    `orchestra.thread`. Ctrl-C cancels the present turn, Ctrl-D or /quit leaves; `--thread ID` continues later.

    Exits with 0 at a terminal; over standard input as the last turn does, with 3 if its meaning was not clear.
    """
    from orchestra.app.planning import PlanOptions
    from orchestra.cli.options import parse_budget
    from orchestra.cli.run import chat as chat_module
    from orchestra.cli.run.plan import keys_from_files
    from orchestra.cli.run.watch import DisplayOptions
    from orchestra.cli.signals import run_with_signals
    from orchestra.core.tags import parse_tags
    from orchestra.workflows.model import PlanLimits

    options = PlanOptions(
        only=tuple(arguments.only or ()),
        limits=PlanLimits(steps=8, width=MAX_WIDTH),
        rules=not arguments.no_rules,
        hearsay=keys_from_files(arguments.inputs or ()),
    )
    request = chat_module.ChatRequest(
        options,
        arguments.thread,
        tuple(arguments.documents or ()),
        tuple(arguments.inputs or ()),
        parse_budget(arguments.budget or ()),
        parse_tags(arguments.tags or ()),
    )
    settings = load_settings(fleet=arguments.fleet, endpoint=arguments.endpoint, model=arguments.model)
    display = DisplayOptions(live=arguments.live)
    exit_with(run_with_signals(partial(chat_module.chat, get_opener(context), settings, request, display)))


def plan(context: typer.Context, arguments: PlanArguments) -> None:
    """Show the plan for a request and its maximum cost. Only the router is called; nothing else runs.

    The planning is a run: `orchestra runs show` lists its calls, and `orchestra runs resume` continues it.

    Exits with 3 if the router gave no plan, with 1 if one of its steps would be refused, and with 4 if the budget is
    exhausted.
    """
    from orchestra.cli.options import parse_budget
    from orchestra.cli.run import plan as plan_module
    from orchestra.cli.signals import run_with_signals

    ask_request = replace(arguments.to_request(), save=arguments.save, budget=parse_budget(arguments.budget or ()))
    if arguments.save is not None and not arguments.force:
        plan_module.refuse_existing(arguments.save)
    exit_with(
        run_with_signals(
            partial(
                plan_module.plan_request,
                get_opener(context),
                load_settings(fleet=arguments.fleet, endpoint=arguments.endpoint, model=arguments.model),
                ask_request,
                arguments.as_json,
            )
        )
    )


@dataclass(frozen=True, slots=True)
class BatchArguments:
    """The arguments of `orchestra batch`."""

    name: Annotated[
        str, typer.Argument(help="The name of a workflow or an agent; or the file of a workflow.", show_default=False)
    ]
    source: Annotated[
        Path,
        typer.Option(
            "--input",
            "-i",
            help='The rows {"id", "input"} as .jsonl or .jsonl.gz; or inputs as .csv.',
            show_default=False,
        ),
    ]
    target: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="The result file, in the order of the rows, as .jsonl; or as .csv with the input columns.",
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
    endpoint: EndpointOption = None
    model: ModelOption = None
    as_json: JsonOption = False

    @property
    def check_names(self) -> tuple[str, ...] | None:
        """The checks; None for those of the card. Raises `InputError` C010 for --checks with --no-checks."""
        if self.checks and self.no_checks:
            raise InputError("C010", "--checks and --no-checks exclude each other", hint="use one of them")
        if not self.checks:
            return () if self.no_checks else None
        return tuple(check.strip() for check_name in self.checks for check in check_name.split(","))


def batch(context: typer.Context, arguments: BatchArguments) -> None:
    """Run a workflow or an agent on many rows. The same command resumes an interrupted batch.

    After a signal, a crash or a full disk, no work is repeated: the newest run of a row counts, whichever command
    started it. Results of ended runs are written next time. For an interrupted call with lasting effects, a person is
    asked. If it is unknown what a row has done, its result is the error C059. Rows whose output lines or output file
    were deleted run again, with all their effects.

    The error of a row is part of its result. A row that asks a person ends as `waiting`, and gets its result when the
    batch is started again after the answer. Exits with 0 if all rows are written, 1 if no row succeeded or no server is
    available, 2 for bad input, 130 interrupted, 143 terminated.
    """
    from dataclasses import asdict

    from orchestra.cli.options import parse_accept, parse_budget
    from orchestra.cli.run.batch import BatchJob, run_batch
    from orchestra.cli.run.batch_rows import rereadable_file
    from orchestra.cli.signals import run_with_signals
    from orchestra.core.tags import parse_tags

    checks = arguments.check_names
    settings = load_settings(
        fleet=arguments.fleet,
        endpoint=arguments.endpoint,
        model=arguments.model,
        concurrency=arguments.concurrency,
        constraint=arguments.constraint,
    )
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
            settings.concurrency,
            limits,
            checks,
            str(arguments.source),
            arguments.retry_failed,
            tags,
            accept,
        )
        summary = run_with_signals(lambda _: run_batch(get_opener(context), settings, job))
    if arguments.as_json:
        print_json(asdict(summary))
    else:
        print_note(f"{arguments.target}: {summary}")
    if summary.failed and not (summary.done or summary.abstained):
        raise typer.Exit(1)


def register(app: typer.Typer) -> None:
    """Adds `run`, `ask`, `chat`, `plan` and `batch`."""
    add_command(app, run, panel="Run")
    add_command(app, ask, panel="Run")
    add_command(app, chat, panel="Run")
    add_command(app, plan, panel="Run")
    add_command(app, batch, panel="Run")

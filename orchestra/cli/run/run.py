"""`orchestra run`: one workflow, agent or tool, from inputs to an answer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated

import typer

from orchestra.cli.context import get_opener, load_settings
from orchestra.cli.options import AcceptOption, BudgetOption, FleetOption, LiveOption, StreamOption, TagsOption
from orchestra.cli.typer_adapter import add_command, exit_with


@dataclass(frozen=True, slots=True)
class RunArguments:
    """What is to be run, and how it is to be shown, as it was typed."""

    name: Annotated[
        str, typer.Argument(help="A workflow, an agent or a tool; or a workflow's file.", show_default=False)
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
        bool, typer.Option("--dry-run", help="Check everything and print the plan of calls; start nothing.")
    ] = False
    budget: BudgetOption = None
    fleet: FleetOption = None
    key: Annotated[str, typer.Option(help="Run at most once under this key; a second time shows the first result.")] = (
        ""
    )
    memo: Annotated[
        bool,
        typer.Option("--memo", help="Answer calls that any run has made before, and that are pure, from the memo."),
    ] = False
    tags: TagsOption = None
    accept: AcceptOption = ""
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False
    stream: StreamOption = False
    live: LiveOption = False


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    add_command(app, run, panel="Run")


def run(context: typer.Context, arguments: RunArguments) -> None:
    """Run a workflow, an agent or a tool; print the answer, what it rests on, and what it took.

    A question to a person is asked right here on a terminal; elsewhere the run waits, and the command that answers is printed.
    Ctrl-C cancels the run, a second one leaves at once; SIGTERM lets go of it: `orchestra runs resume` goes on.

    Exits with 0 done, 1 failed, 2 bad input, 3 abstained, 4 over budget, 5 waits for a person, 130 interrupted, 143 terminated.
    """
    from orchestra.cli import running
    from orchestra.cli.budget_option import parse_accept, parse_budget
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
    settings = load_settings(fleet=arguments.fleet)
    if arguments.dry_run:
        running.dry_run(settings, request, inputs, as_json=display.as_json)
        return
    exit_with(run_with_signals(partial(running.run, get_opener(context), settings, request, inputs, display)))

"""`orchestra run`: one workflow, agent or tool, from inputs to an answer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated

import typer

from orchestra.cli.context import opener, settings
from orchestra.cli.options import AcceptedBy, Budget, Fleet, Live, Stream, Tagged
from orchestra.cli.typer_adapter import add, leave


@dataclass(frozen=True, slots=True)
class Running:
    """What is to be run, and how it is to be shown, as it was typed."""

    name: Annotated[str, typer.Argument(help="A workflow, an agent or a tool; or a workflow's file.", show_default=False)]
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input", "-i", metavar="KEY=VALUE", help="An input: key=value, key=@file, key=@folder, @all.json, or - for JSON on stdin."
        ),
    ] = None
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything and print the plan of calls; start nothing.")] = False
    budget: Budget = None
    fleet: Fleet = None
    key: Annotated[str, typer.Option(help="Run at most once under this key; a second time shows the first result.")] = ""
    memo: Annotated[
        bool,
        typer.Option("--memo", help="Answer calls that any run has made before, and that are pure, from the memo."),
    ] = False
    tags: Tagged = None
    accept: AcceptedBy = ""
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False
    stream: Stream = False
    live: Live = False


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    add(app, run, panel="Run")


def run(context: typer.Context, asked: Running) -> None:
    """Run a workflow, an agent or a tool; print the answer, what it rests on, and what it took.

    A question to a person is asked right here on a terminal; elsewhere the run waits, and the command that answers is printed.
    Ctrl-C cancels the run, a second one leaves at once; SIGTERM lets go of it: `orchestra runs resume` goes on.

    Exits with 0 done, 1 failed, 2 bad input, 3 abstained, 4 over budget, 5 waits for a person, 130 interrupted, 143 terminated.
    """
    from orchestra.cli import running
    from orchestra.cli.budget_option import accepted_by, read_budget
    from orchestra.cli.run.watch import Manner
    from orchestra.cli.signals import carry_out
    from orchestra.core.tags import typed

    limits, manner = read_budget(asked.budget or ()), Manner.of(as_json=asked.as_json, stream=asked.stream, live=asked.live)
    request = running.Request(
        asked.name, asked.inputs or (), limits, asked.key, asked.memo, manner, typed(asked.tags or ()), accepted_by(asked.accept)
    )
    chosen = settings(fleet=asked.fleet)
    if asked.dry_run:
        running.dry_run(chosen, request)
        return
    leave(carry_out(partial(running.run, opener(context), chosen, request)))

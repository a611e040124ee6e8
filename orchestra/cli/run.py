"""`orchestra run`: one workflow, agent or tool, from inputs to an answer."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestra.cli.failure import STATUS_CODES, Verb
from orchestra.cli.opening import Opener, opener, settings
from orchestra.cli.screen import console, print_json, say, table

if TYPE_CHECKING:
    from orchestra.app import Run
    from orchestra.cli.progress import Waiting
    from orchestra.config import Settings
    from orchestra.events import Event
    from orchestra.project import Project
    from orchestra.result import Result
    from orchestra.workflow.nodes import Budget
    from orchestra.workflow.program import Program


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be run, and how it is to be shown."""

    name: str
    inputs: Sequence[str]
    budget: Budget | None
    key: str
    as_json: bool
    stream: bool


def register(app: typer.Typer) -> None:
    """Adds the verb."""

    @app.command(cls=Verb, rich_help_panel="Run")
    def run(
        context: typer.Context,
        name: Annotated[str, typer.Argument(help="A workflow, an agent or a tool; or a workflow's file.", show_default=False)],
        inputs: Annotated[
            list[str] | None,
            typer.Option(
                "--input", "-i", metavar="KEY=VALUE", help="An input: key=value, key=@file, key=@folder, @all.json, or - for JSON on stdin."
            ),
        ] = None,
        dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything and print the plan of calls; start nothing.")] = False,
        budget: Annotated[list[str] | None, typer.Option(metavar="LIMITS", help="Such as tokens=20000,seconds=60.")] = None,
        fleet: Annotated[str | None, typer.Option(help="A name in configs/, or a path.", show_default="as configured")] = None,
        key: Annotated[str, typer.Option(help="Run at most once under this key; a second time shows the first result.")] = "",
        as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
        stream: Annotated[bool, typer.Option("--stream", help="Print each event as it happens, a JSON object a line.")] = False,
    ) -> None:
        """Run a workflow, an agent or a tool; print the answer, what it rests on, and what it took.

        Exits with 0 done, 1 failed, 2 bad input, 3 abstained, 4 over budget, 130 interrupted.
        """
        from orchestra.cli.limits import read_budget

        request = Request(name, inputs or (), read_budget(budget or ()), key, as_json, stream)
        chosen = settings(fleet=fleet)
        if dry_run:
            _dry_run(chosen, request)
            return
        status = asyncio.run(_run(opener(context), chosen, request))
        if code := STATUS_CODES[status]:
            raise typer.Exit(code)


async def _run(open_: Opener, chosen: Settings, request: Request) -> str:
    """Runs it and shows what came of it; gives the status."""
    from orchestra.cli.progress import Waiting

    waiting = Waiting()
    try:
        async with open_(chosen, fleet="start", progress=waiting) as orchestra:
            step = orchestra.find(request.name)
            given = read_given(request.inputs, orchestra.program(step))
            run = await orchestra.options(idempotency_key=request.key, budget=request.budget).start(step, **given)
            result, events = await _watched(run, request, waiting)
    finally:
        waiting.close()
    if request.as_json:
        from orchestra.cli.answer import result_data

        print_json(result_data(result))
    elif not request.stream:
        from orchestra.cli.answer import show_result

        show_result(result, events)
    return result.status


async def _watched(run: Run[Any], request: Request, waiting: Waiting) -> tuple[Result[Any], list[Event]]:
    """The result and the events. Being interrupted cancels the run, which then says so in its journal."""
    from orchestra.events import NodeFinished, encode

    events: list[Event] = []
    try:
        async for event in run.events():
            events.append(event)
            if request.stream:
                sys.stdout.write(encode(event).decode() + "\n")
                sys.stdout.flush()
            elif isinstance(event, NodeFinished):
                waiting.line(f"{event.node} is done")
        return await run.wait(), events
    except asyncio.CancelledError:
        run.cancel("the command line")
        await run.wait()
        raise
    finally:
        waiting.close()


def read_given(inputs: Sequence[str], program: Program) -> dict[str, Any]:
    """The inputs of a program from the command line, checked. Raises `InputError`."""
    from orchestra.cli.inputs import read_inputs
    from orchestra.inputs import bound

    return bound(program, (), read_inputs(inputs, {name: field.schema for name, field in program.inputs.items()}))


def _dry_run(chosen: Settings, request: Request) -> None:
    from orchestra.cli.plan import plan, total
    from orchestra.project import Project

    project = Project.load(chosen)
    program = project.program(project.find(request.name))
    given = read_given(request.inputs, program)
    rows = plan(program, given, contexts(project))
    budget = request.budget or program.budget
    calls, written, tokens = total(rows, budget.tokens if budget else None)
    if request.as_json:
        nodes = [
            {"node": row.node, "asks": row.asks, "calls": row.calls, "output_tokens": row.output_tokens, "tokens": row.tokens}
            for row in rows
        ]
        print_json({"workflow": program.name, "nodes": nodes, "calls": calls, "output_tokens": written, "tokens": tokens})
        return
    say(f"{program.name}: inputs are right; nothing was started. At most:\n", style="bold")
    shown = [
        (
            row.node,
            row.asks,
            str(row.elements),
            str(row.attempts),
            str(row.calls),
            str(row.output_tokens or ""),
            "?" if row.tokens is None else str(row.tokens or ""),
        )
        for row in rows
    ]
    console().print(table(("node", "asks", "elements", "attempts", "calls", "tokens out", "tokens in all"), shown, right=(2, 3, 4, 5, 6)))
    bound = f", bounded by the budget of {budget.tokens}" if budget and budget.tokens and tokens == budget.tokens else ""
    say(f"\nin all {calls} calls, {written} tokens written, {'?' if tokens is None else tokens} tokens read and written{bound}")


def contexts(project: Project) -> dict[str, int]:
    """The tokens that prompt and output of one call share, by agent, where the fleet's file says so."""
    from orchestra.fleet.config import read

    fleet = read(project.settings.find_resource("configs", project.settings.fleet))
    found: dict[str, int] = {}
    for name, card in project.registry.cards.items():
        lengths = [fleet.servers[server].max_model_len for server in fleet.serving(card.model)]
        if lengths and all(lengths):
            found[name] = max(length for length in lengths if length)
    return found

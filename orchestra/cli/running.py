"""What `orchestra run` does: a request carried out and shown, or only planned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from orchestra.cli.inputs import read_inputs
from orchestra.cli.opening import Opener
from orchestra.cli.plan import plan, total
from orchestra.cli.progress import Waiting
from orchestra.cli.screen import console, print_json, say, table
from orchestra.cli.signals import Stop
from orchestra.cli.watching import Manner, Watch
from orchestra.config import Settings
from orchestra.fleet.config import read
from orchestra.inputs import bound
from orchestra.project import Project
from orchestra.workflow.nodes import Budget
from orchestra.workflow.program import Program


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be run, and how it is to be shown."""

    name: str
    inputs: Sequence[str]
    budget: Budget | None
    key: str
    memo: bool
    manner: Manner


async def run(open_: Opener, chosen: Settings, request: Request, stop: Stop) -> int:
    """Runs it and shows what came of it; gives the exit code."""
    waiting = Waiting()
    try:
        async with open_(chosen, fleet="start", progress=waiting) as orchestra:
            step = orchestra.find(request.name)
            given = read_given(request.inputs, orchestra.program(step))
            told = orchestra.options(idempotency_key=request.key, budget=request.budget, memo=request.memo or None)
            run = await told.start(step, **given)
            ending = await Watch(orchestra, run, stop, waiting, request.manner).ending()
    finally:
        waiting.close()
    ending.show(request.manner)
    return ending.code


def read_given(inputs: Sequence[str], program: Program) -> dict[str, Any]:
    """The inputs of a program from the command line, checked. Raises `InputError`."""
    return bound(program, (), read_inputs(inputs, {name: field.schema for name, field in program.inputs.items()}))


def dry_run(chosen: Settings, request: Request) -> None:
    """Checks everything and prints the plan of calls. Raises `InputError`."""
    project = Project.load(chosen)
    program = project.program(project.find(request.name))
    given = read_given(request.inputs, program)
    rows = plan(program, given, contexts(project))
    budget = request.budget or program.budget
    calls, written, tokens = total(rows, budget.tokens if budget else None)
    if request.manner.as_json:
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
    within = f", bounded by the budget of {budget.tokens}" if budget and budget.tokens and tokens == budget.tokens else ""
    say(f"\nin all {calls} calls, {written} tokens written, {'?' if tokens is None else tokens} tokens read and written{within}")


def contexts(project: Project) -> dict[str, int]:
    """The tokens that prompt and output of one call share, by agent, where the fleet's file says so."""
    fleet = read(project.settings.find_resource("configs", project.settings.fleet))
    found: dict[str, int] = {}
    for name, card in project.registry.cards.items():
        lengths = [fleet.servers[server].max_model_len for server in fleet.serving(card.model)]
        if lengths and all(lengths):
            found[name] = max(length for length in lengths if length)
    return found

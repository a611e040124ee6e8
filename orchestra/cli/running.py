"""What `orchestra run` does: a request carried out and shown, or only planned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from orchestra.app.inputs import bound
from orchestra.cli.context import Opener, serving
from orchestra.cli.inputs import read_inputs
from orchestra.cli.output import print_json, say
from orchestra.cli.progress import Waiting
from orchestra.cli.run.watch import Manner, Watch
from orchestra.cli.signals import Stop
from orchestra.core.settings import Settings
from orchestra.core.tags import Tags
from orchestra.workflows.model import Budget
from orchestra.workflows.program import Program
from orchestra.workflows.python.acceptance import Accept


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be run, and how it is to be shown."""

    name: str
    inputs: Sequence[str]
    budget: Budget | None
    key: str
    memo: bool
    manner: Manner
    tags: Tags
    accept: Accept | None = None


async def run(open_: Opener, chosen: Settings, request: Request, stop: Stop) -> int:
    """Runs it and shows what came of it; gives the exit code."""
    waiting = Waiting()
    async with serving(open_, chosen, waiting) as orchestra:
        step = orchestra.find(request.name)
        orchestra = orchestra.options(accept=request.accept)
        given = read_given(request.inputs, orchestra.program(step))
        told = orchestra.options(idempotency_key=request.key, budget=request.budget, memo=request.memo or None, live=request.manner.live)
        run = await told.options(tags=request.tags).start(step, **given)
        ending = await Watch(orchestra, run, stop, waiting, request.manner).ending()
    ending.show(request.manner)
    return ending.code


def read_given(inputs: Sequence[str], program: Program) -> dict[str, Any]:
    """The inputs of a program from the command line, checked. Raises `InputError`."""
    return bound(program, (), read_inputs(inputs, {name: field.schema for name, field in program.inputs.items()}))


def dry_run(chosen: Settings, request: Request) -> None:
    """Checks everything and prints the plan of calls. Raises `InputError`."""
    from orchestra.app.project import Project
    from orchestra.cli.run.explain import data, explain, show

    project = Project.load(chosen)
    program = project.program(project.find(request.name), request.accept)
    given = read_given(request.inputs, program)
    explanation = explain(project, program, given, budget=request.budget)
    if request.manner.as_json:
        print_json({"workflow": program.name, **data(explanation)})
        return
    say(f"{program.name}: inputs are right; nothing was started. At most:\n", style="bold")
    show(explanation)

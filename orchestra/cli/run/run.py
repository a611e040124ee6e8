"""`orchestra run`: runs a workflow and shows the result, or shows the planned calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from orchestra.app.inputs import bind_arguments
from orchestra.cli.context import Opener, open_orchestra
from orchestra.cli.inputs import read_inputs
from orchestra.cli.output import StatusLine, print_json, print_text
from orchestra.cli.run.watch import DisplayOptions, RunWatcher
from orchestra.cli.signals import StopSignal
from orchestra.core.settings import Settings
from orchestra.core.tags import Tags
from orchestra.workflows.model import Budget
from orchestra.workflows.program import Program
from orchestra.workflows.python.checks import AcceptThreshold


@dataclass(frozen=True, slots=True)
class RunSpec:
    """What is run, and how the run is shown."""

    name: str
    inputs: Sequence[str]
    budget: Budget | None
    key: str
    memo: bool
    display: DisplayOptions
    tags: Tags
    accept: AcceptThreshold | None = None


async def run(open_: Opener, settings: Settings, request: RunSpec, stop: StopSignal) -> int:
    """Runs it, shows the result and returns the exit code."""
    waiting = StatusLine()
    async with open_orchestra(open_, settings, waiting) as orchestra:
        step = orchestra.find(request.name)
        orchestra = orchestra.options(accept=request.accept)
        given = read_program_inputs(request.inputs, orchestra.program(step))
        told = orchestra.options(
            idempotency_key=request.key, budget=request.budget, memo=request.memo or None, live=request.display.live
        )
        run = await told.options(tags=request.tags).start(step, **given)
        ending = await RunWatcher(orchestra, run, stop, waiting, request.display).wait_for_end()
    ending.show(request.display)
    return ending.exit_code


def read_program_inputs(inputs: Sequence[str], program: Program) -> dict[str, Any]:
    """Parses and checks the inputs of a program. Raises `InputError`."""
    return bind_arguments(
        program, (), read_inputs(inputs, {name: field.schema for name, field in program.inputs.items()})
    )


def dry_run(settings: Settings, request: RunSpec) -> None:
    """Checks the inputs and prints the planned calls. Raises `InputError`."""
    from orchestra.app.project import Project
    from orchestra.cli.run.explain import as_data, explain, show_explanation

    project = Project.load(settings)
    program = project.program(project.find(request.name), request.accept)
    given = read_program_inputs(request.inputs, program)
    explanation = explain(project, program, given, budget=request.budget)
    if request.display.as_json:
        print_json({"workflow": program.name, **as_data(explanation)})
        return
    print_text(f"{program.name}: the inputs are valid; nothing was started. At most:\n", style="bold")
    show_explanation(explanation)

"""`orchestra run`: runs a workflow and shows the result, or shows the planned calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import structs

from orchestra.app.inputs import bind_arguments
from orchestra.cli.context import Opener, open_orchestra
from orchestra.cli.inputs import read_inputs
from orchestra.cli.output import StatusLine, print_json, print_text
from orchestra.cli.run.watch import DisplayOptions, RunWatcher
from orchestra.cli.signals import StopSignal
from orchestra.core.settings import Settings
from orchestra.engine.request import RunRequest
from orchestra.workflows.program import Program


async def run(
    open_: Opener,
    settings: Settings,
    request: RunRequest,
    inputs: Sequence[str],
    display: DisplayOptions,
    stop: StopSignal,
) -> int:
    """Runs a request and shows its result.

    Args:
        request: What to run; its inputs are still empty.
        inputs: The inputs as they were typed.

    Returns:
        The exit code.
    """
    status_line = StatusLine()
    async with open_orchestra(open_, settings, status_line) as orchestra:
        step = orchestra.find(str(request.workflow))
        program = orchestra.options(accept=request.options.accept).program(step)
        started_run = await orchestra.start_request(
            structs.replace(request, workflow=step, inputs=read_program_inputs(inputs, program))
        )
        run_end = await RunWatcher(orchestra, started_run, stop, status_line, display).wait_for_end()
    run_end.show(display)
    return run_end.exit_code


def read_program_inputs(inputs: Sequence[str], program: Program) -> dict[str, Any]:
    """Parses and checks the inputs of a program. Raises `InputError`."""
    return bind_arguments(
        program, (), read_inputs(inputs, {name: field.schema for name, field in program.inputs.items()})
    )


def dry_run(settings: Settings, request: RunRequest, inputs: Sequence[str], *, as_json: bool) -> None:
    """Checks a request and prints the calls that its run may make. Raises `InputError`."""
    from orchestra.app.project import Project
    from orchestra.cli.run.explain import as_data, explain, show_explanation

    project = Project.load(settings)
    program = project.program(project.find(str(request.workflow)), request.options.accept)
    explanation = explain(project, program, read_program_inputs(inputs, program), budget=request.options.budget)
    if as_json:
        print_json({"workflow": program.name, **as_data(explanation)})
        return
    print_text(f"{program.name}: the inputs are valid; nothing was started. At most:\n", style="bold")
    show_explanation(explanation)

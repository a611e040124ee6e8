"""Locations of nodes in a workflow function, for errors that only the compiler finds.

A function becomes a graph without a file, so the compiler reports parts of the graph: `nodes.first.first_of.1`. The
author sees the line of the call instead.
"""

from __future__ import annotations

from orchestra.core.errors import InputError, InputErrors
from orchestra.workflows.compile.diagnostics import WorkflowPart
from orchestra.workflows.python.errors import CodeLocation, location_of
from orchestra.workflows.python.scopes import NodeLines
from orchestra.workflows.python.steps import Workflow

_HINTS = {"L120": ".options(fallback=lambda: ...) at the call that may withhold, or a plain value as the last option"}
"""Hints for Python, which replace those for files."""


def with_source_line(error: InputError, flow: Workflow[..., object]) -> InputError:
    """Returns an error located at the line of its workflow function, or of a function that it calls, instead of a part
    of the graph.

    Returns the error unchanged if no function contains that part.
    """
    if isinstance(error, InputErrors):
        return InputErrors([with_source_line(item_error, flow) for item_error in error.errors])
    part = error.location
    while isinstance(part, WorkflowPart) and part.called is not None:
        workflows = (
            step
            for step in flow.steps
            if isinstance(step, Workflow) and step.name == part.called.workflow and step.node_lines
        )
        if (inner := next(workflows, None)) is None:
            break
        flow, part = inner, part.called
    location = _location_of(part.path, flow.node_lines) if isinstance(part, WorkflowPart) else None
    if location is None:
        return error
    return InputError(
        error.code,
        error.message,
        location=location_of(location),
        hint=_HINTS.get(error.code, error.hint),
        why=error.why,
    )


def _location_of(path: tuple[str | int, ...], lines: NodeLines) -> CodeLocation | None:
    """Returns the location of the innermost node on the path that has one."""
    code_location = None
    for above, step in zip(("", *path), path, strict=False):
        if above == "nodes" and isinstance(step, str) and (line := lines.get(step)) is not None:
            code_location, lines = line.location or code_location, line.inner
    return code_location

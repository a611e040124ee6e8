"""Lines: where the nodes of a workflow function were written, for faults that only the compiler finds.

A function becomes a graph without a file, so the compiler tells its faults by parts of the graph: `nodes.first.first_of.1`. Whoever wrote
the function is shown the line of the call instead.
"""

from __future__ import annotations

from orchestra.core.errors import InputError, InputErrors
from orchestra.workflows.compile.diagnostics import Part
from orchestra.workflows.python.errors import Spot, place_of
from orchestra.workflows.python.scopes import Lines
from orchestra.workflows.python.steps import Workflow

_HINTS = {"L120": ".options(fallback=lambda: ...) at the call that may withhold, or a plain value as the last option"}
"""What Python authors write instead, where the compiler says it in the words of a file."""


def at_its_line(error: InputError, flow: Workflow[..., object]) -> InputError:
    """A fault of a workflow with the line of its function in the place of a part of the graph, or with that of a function that it calls.
    The fault itself, where no function has that part."""
    if isinstance(error, InputErrors):
        return InputErrors([at_its_line(one, flow) for one in error.errors])
    part = error.place
    while isinstance(part, Part) and part.called is not None:
        called = (one for one in flow.steps if isinstance(one, Workflow) and one.name == part.called.workflow and one.lines)
        if (inner := next(called, None)) is None:
            break
        flow, part = inner, part.called
    spot = _spot(part.path, flow.lines) if isinstance(part, Part) else None
    if spot is None:
        return error
    return InputError(error.code, error.message, place=place_of(spot), hint=_HINTS.get(error.code, error.hint), why=error.why)


def _spot(path: tuple[str | int, ...], lines: Lines) -> Spot | None:
    """Of the innermost node on the way to a part that has a line."""
    found = None
    for above, step in zip(("", *path), path, strict=False):
        if above == "nodes" and isinstance(step, str) and (line := lines.get(step)) is not None:
            found, lines = line.spot or found, line.inner
    return found

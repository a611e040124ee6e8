"""A workflow as people look at it: its graph, drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestra.workflows.program import Program


@dataclass(frozen=True, repr=False)
class WorkflowView:
    """A compiled workflow. It shows its graph: as text at a console, as SVG in a notebook."""

    program: Program

    def __repr__(self) -> str:
        from orchestra.workflows.drawing import draw

        return draw(self.program).rstrip("\n")

    def _repr_html_(self) -> str:
        from orchestra.app.html.render import render_workflow

        return render_workflow(self.program)

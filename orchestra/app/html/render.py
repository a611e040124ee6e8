"""Renders the templates: a run as a page, and runs, results and workflows as outputs of a notebook cell."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files

from minijinja import Environment, Markup

from orchestra.app.html.content import CELL, PAGE, RunContent
from orchestra.core.untrusted_text import escape_invisible, shorten
from orchestra.workflows.drawing import signature
from orchestra.workflows.program import Program
from orchestra.workflows.svg_drawing import draw_svg


@dataclass(frozen=True, slots=True)
class StudioParts:
    """The parts of a page that shows a run in the studio: a style sheet, a script, its policy, and its data."""

    style: str
    script: str
    policy: str
    """The content security policy of the page."""
    record: str
    """The record of the run as JSON, escaped for a `script` element."""


def render_page(content: RunContent, studio: StudioParts) -> str:
    """Returns the page of a run: the studio, and without JavaScript a plain page."""
    parts = {"style": studio.style, "script": studio.script, "record": studio.record}
    return _environment().render_template(
        "page.html",
        studio={name: Markup(text) for name, text in parts.items()} | {"policy": studio.policy},
        **content.values(PAGE),
    )


def render_result(content: RunContent) -> str:
    """Returns a result for a notebook cell: the answer, its evidence with the verdicts, and the cost."""
    return _environment().render_template("result.html", **content.values(CELL))


def render_run(content: RunContent) -> str:
    """Returns a run for a notebook cell: its timeline, and its answer with the evidence."""
    return _environment().render_template("run.html", **content.values(CELL))


def render_workflow(program: Program) -> str:
    """Returns a workflow for a notebook cell: its graph as SVG."""
    description = program.graph.description if program.graph is not None else ""
    return _environment().render_template(
        "workflow.html",
        name=escape_invisible(program.name, keep=""),
        description=escape_invisible(shorten(" ".join(description.split()), CELL.text), keep=""),
        signature=shorten(signature(program), CELL.text),
        drawing=Markup(draw_svg(program)),
    )


def _environment() -> Environment:
    folder = files("orchestra.app.html")
    return Environment(
        loader=lambda name: folder.joinpath(name).read_text("utf-8"),
        auto_escape_callback=lambda _: True,
        undefined_behavior="strict",
        trim_blocks=True,
        lstrip_blocks=True,
    )

"""`orchestra validate` and `orchestra graph`: files checked to the last reference, and drawn; nothing is started."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestra.cli.failure import Verb, as_data, parts, report
from orchestra.cli.opening import settings
from orchestra.cli.screen import print_json, say, width_of
from orchestra.errors import InputError, OrchestraError
from orchestra.values.text import visible

if TYPE_CHECKING:
    from orchestra.agent.card import Card
    from orchestra.config import Settings

DRAWN = 100
"""Columns of a drawing where nobody looks at a terminal."""
_FLEET = re.compile(r"^schema:\s*['\"]?orchestra/fleet/", re.MULTILINE)


@dataclass(slots=True)
class Checked:
    """What is to be said of one file."""

    name: str
    says: str = ""
    warnings: list[str] = field(default_factory=list)
    errors: list[OrchestraError] = field(default_factory=list)


def register(app: typer.Typer) -> None:
    """Adds the verbs."""

    @app.command(cls=Verb, rich_help_panel="Begin")
    def validate(
        names: Annotated[list[str], typer.Argument(help="Workflows by name; or files of workflows, fleets, agents.", show_default=False)],
        as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    ) -> None:
        """Check workflows, fleets and agents: every name, type and reference. Exits with 2 where something is wrong."""
        chosen = settings()
        found = [check(chosen, name) for name in names]
        if as_json:
            print_json([_data(one) for one in found])
        else:
            _tell(found)
        if any(one.errors for one in found):
            raise typer.Exit(2)

    @app.command(cls=Verb, rich_help_panel="Begin")
    def graph(
        name: Annotated[str, typer.Argument(help="A workflow's name or file.", show_default=False)],
        mermaid: Annotated[bool, typer.Option("--mermaid", help="Print mermaid, for Markdown.")] = False,
    ) -> None:
        """Draw a workflow."""
        from orchestra.project import Project
        from orchestra.workflow.drawing import draw
        from orchestra.workflow.drawing import mermaid as chart

        project = Project.load(settings())
        program = project.program(project.find(name))
        drawn = chart(program) if mermaid else draw(program, width_of(sys.stdout, DRAWN))
        sys.stdout.write(visible(drawn).rstrip("\n") + "\n")


def check(chosen: Settings, name: str) -> Checked:
    """What is right or wrong with a workflow, a fleet's file, or an agent's folder."""
    found = Checked(name)
    try:
        _check(chosen, name, found)
    except OrchestraError as error:
        found.errors += parts(error)
    return found


def _check(chosen: Settings, name: str, found: Checked) -> None:
    path = Path(name)
    card = path if path.name == "agent.yaml" else path / "agent.yaml"
    if os.path.isfile(card):
        from orchestra.agent.card import Card

        loaded = Card.load(card.parent)
        found.says = f"the agent {loaded.name!r}"
        if loaded.forms is not None or loaded.members:
            _check_named(chosen, loaded)
    elif os.path.isfile(path) and _FLEET.search(_beginning(path)):
        from orchestra.fleet.config import read

        fleet = read(path)
        found.says = f"the fleet {fleet.name!r}, {len(fleet.servers)} server{'s' * (len(fleet.servers) != 1)}"
    else:
        from orchestra.project import Project

        project = Project.load(chosen)
        program = project.program(project.find(name))
        found.says = f"the workflow {program.name!r}, {len(program.nodes)} node{'s' * (len(program.nodes) != 1)}"
        found.warnings += program.warnings


def _beginning(path: Path) -> str:
    """As much of a file as one of a workflow has at most. Raises `InputError` C014."""
    try:
        with path.open("rb") as file:
            return file.read(1 << 20).decode("utf-8-sig", "replace")
    except OSError as error:
        raise InputError("C014", f"{path} cannot be read: {error.strerror}") from error


def _check_named(chosen: Settings, card: Card) -> None:
    """What an agent with tools may call is there, and what an ensemble asks. Raises `InputError` A019, A020 or A024."""
    from orchestra.project import Project
    from orchestra.workflow.steps import Agent

    project = Project.load(chosen)
    project.program(Agent.carded(card))


def _data(one: Checked) -> dict[str, Any]:
    return {"name": one.name, "valid": not one.errors, "errors": [as_data(error) for error in one.errors], "warnings": one.warnings}


def _tell(found: list[Checked]) -> None:
    for one in found:
        for error in one.errors:
            print(report(error) + "\n", file=sys.stderr)
        for warning in one.warnings:
            print(visible(f"warning: {warning}"), file=sys.stderr)
        if not one.errors:
            say(f"ok  {one.name}: {one.says}")
    faults = sum(len(one.errors) for one in found)
    if faults:
        code = next(error.code for one in found for error in one.errors)
        print(f"{faults} fault{'s' * (faults != 1)}; orchestra explain {code} says more", file=sys.stderr)

"""`orchestra validate` and `orchestra graph`: files checked to the last reference, and drawn; nothing is started."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestra.cli.context import settings_to_inspect
from orchestra.cli.exit_codes import as_data, parts, report
from orchestra.cli.options import AsJson
from orchestra.cli.output import print_json, say, width_of
from orchestra.cli.typer_adapter import add
from orchestra.core.errors import InputError, OrchestraError
from orchestra.core.untrusted_text import counted, visible

if TYPE_CHECKING:
    from orchestra.app.project import Project
    from orchestra.core.settings import Settings
    from orchestra.schema.types import Schema

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
    add(app, validate, panel="Begin")
    add(app, graph, panel="Begin")


def validate(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Workflows by name; or files of workflows, fleets, agents. All of the project where none is named."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check workflows, fleets and agents: every name, type and reference. Exits with 2 where something is wrong."""
    checks = Checks(settings_to_inspect())
    found = [checks.one(name) for name in names] if names else checks.all()
    if error := checks.left_out:
        found.insert(0, Checked("modules", errors=[error]))
    if as_json:
        print_json([_data(one) for one in found])
    else:
        _tell(found)
    if any(one.errors for one in found):
        raise typer.Exit(2)


def graph(
    name: Annotated[str, typer.Argument(help="A workflow's name or file.", show_default=False)],
    mermaid: Annotated[bool, typer.Option("--mermaid", help="Print mermaid, for Markdown.")] = False,
) -> None:
    """Draw a workflow."""
    from orchestra.app.project import Project
    from orchestra.cli.trust import notice
    from orchestra.workflows.drawing import draw
    from orchestra.workflows.drawing import mermaid as chart

    chosen = settings_to_inspect()
    notice(chosen)
    project = Project.load(chosen)
    program = project.program(project.find(name))
    drawn = chart(program) if mermaid else draw(program, width_of(sys.stdout, DRAWN))
    sys.stdout.write(visible(drawn).rstrip("\n") + "\n")


class Checks:
    """What is right or wrong with the parts of a project, which is read once."""

    def __init__(self, chosen: Settings) -> None:
        self._chosen = chosen

    @cached_property
    def _loaded(self) -> Project | InputError:
        """The project; or the fault of its modules, which are not imported again to find it once more."""
        from orchestra.app.project import Project

        try:
            return Project.load(self._chosen)
        except InputError as error:
            return error

    @property
    def left_out(self) -> InputError | None:
        """Why the modules were not imported, where the project was read and is not trusted."""
        return self._chosen.untrusted("modules") if "_loaded" in vars(self) else None

    @property
    def _project(self) -> Project:
        if isinstance(self._loaded, InputError):
            raise self._loaded
        return self._loaded

    @cached_property
    def _models(self) -> Mapping[str, Schema] | None:
        """What a card may name; of a project whose modules have a fault, what every project knows."""
        try:
            return self._project.registry.models
        except InputError:
            return None

    def one(self, name: str) -> Checked:
        """A workflow by name or file, a fleet's file, or an agent's folder."""
        path, found = Path(name), Checked(name)
        card = path if path.name == "agent.yaml" else path / "agent.yaml"
        with _collecting(found):
            self._chosen.check_path(card.parent if os.path.isfile(card) else path)
            if os.path.isfile(card):
                self._agent(card.parent, found)
            elif os.path.isfile(path) and _FLEET.search(_beginning(path)):
                _fleet(path, found)
            else:
                self._workflow(name, found)
        return found

    def all(self) -> list[Checked]:
        """Everything of the project's own: fleets, agents, workflows, also those of its modules. Raises `InputError` C004 where it has
        nothing."""
        found: list[Checked] = []
        fleet = Checked(f"the fleet of {self._chosen.sources['fleet']}")
        with _collecting(fleet):
            self._chosen.find_resource("configs", self._chosen.fleet)
        if fleet.errors:
            found.append(fleet)
        for path in self._chosen.own("configs"):
            found.append(Checked(_named(path)))
            with _collecting(found[-1]):
                self._chosen.check_path(path)
                _fleet(path, found[-1])
        modules = Checked("modules")
        with _collecting(modules):
            found += [self.one(_named(path)) for path in self._chosen.own("agents")]
            told = {str(error) for one in found for error in one.errors}
            for name, error in self._project.registry.broken.items():
                if new := [part for part in parts(error) if str(part) not in told]:  # such as a name that two have
                    found.append(Checked(name, errors=[*new]))
            names = {*self._project.workflow_names()} - {*self._chosen.resources("workflows")}
            found += [self.one(name) for name in (*map(_named, self._chosen.own("workflows")), *sorted(names))]
        if modules.errors:
            found.insert(0, modules)
        if not found:
            raise InputError("C004", "there is nothing of your own to check here", hint="go to the project's folder, or name files")
        return found

    def _agent(self, folder: Path, found: Checked) -> None:
        """A card; of one with tools that what it may call is there, and of an ensemble what it asks."""
        from orchestra.agents.card import Card
        from orchestra.app.project import Project
        from orchestra.workflows.python.steps import Agent

        loaded = Card.load(folder, self._models)
        found.says = f"the agent {loaded.name!r}"
        if (loaded.forms is not None or loaded.members) and self._project:
            Project.load(self._chosen).program(Agent.carded(loaded))  # one that comes to know this card

    def _workflow(self, name: str, found: Checked) -> None:
        program = self._project.program(self._project.find(name))
        found.says = f"the workflow {program.name!r}, {counted(len(program.nodes), 'node')}"
        found.warnings += program.warnings


@contextmanager
def _collecting(found: Checked) -> Iterator[None]:
    try:
        yield
    except OrchestraError as error:
        found.errors += parts(error)


def _fleet(path: Path, found: Checked) -> None:
    from orchestra.fleet.config import read
    from orchestra.fleet.secrets import lacking

    fleet = read(path)
    found.says = f"the fleet {fleet.name!r}, {counted(len(fleet.servers), 'server')}"
    lacked = ((name, lacking(server)) for name, server in fleet.servers.items())
    found.warnings += [f"{path}: {name}: {error.message}; calls fail by that here" for name, error in lacked if error]


def _named(path: Path) -> str:
    """A file as one would type it here, and never as a name."""
    here = os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
    return here if os.sep in here else f".{os.sep}{here}"


def _beginning(path: Path) -> str:
    """As much of a file as one of a workflow has at most. Raises `InputError` C014."""
    try:
        with path.open("rb") as file:
            return file.read(1 << 20).decode("utf-8-sig", "replace")
    except OSError as error:
        raise InputError("C014", f"{path} cannot be read: {error.strerror}") from error


def _data(one: Checked) -> dict[str, Any]:
    return {"name": one.name, "valid": not one.errors, "errors": [as_data(error) for error in one.errors], "warnings": one.warnings}


def _tell(found: list[Checked]) -> None:
    told: list[OrchestraError] = []
    for one in found:
        new = [error for error in one.errors if report(error) not in map(report, told)]  # a card is read for each workflow that has it
        for error in new:
            print(report(error) + "\n", file=sys.stderr)
        if one.errors and not new:
            print(visible(f"{one.name}: not checked, for what is told above\n"), file=sys.stderr)
        told += new
        for warning in one.warnings:
            print(visible(f"warning: {warning}"), file=sys.stderr)
        if not one.errors:
            say(f"ok  {one.name}: {one.says}")
    if told:
        print(f"{counted(len(told), 'fault')}; orchestra explain {told[0].code} says more", file=sys.stderr)

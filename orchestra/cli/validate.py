"""The commands `validate`, `graph`, `explain` and `schema`, which start no run and no server."""

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

from orchestra.cli.context import load_settings_to_inspect
from orchestra.cli.file_schemas import FileKind, format_schema, write_schemas
from orchestra.cli.options import JsonOption
from orchestra.cli.output import print_json, print_text, terminal_width
from orchestra.cli.typer_adapter import add_command, error_data, format_error, split_error
from orchestra.core.errors import InputError, OrchestraError
from orchestra.core.untrusted_text import escape_invisible, pluralize

if TYPE_CHECKING:
    from orchestra.app.project import Project
    from orchestra.core.settings import Settings
    from orchestra.schema.types import Schema

MAX_NODES_DRAWN = 100
"""The width of a drawing in columns if stdout is not a terminal."""
_FLEET_SCHEMA = re.compile(r"^schema:\s*['\"]?orchestra/fleet/", re.MULTILINE)


@dataclass(slots=True)
class FileReport:
    """The result for one file."""

    name: str
    summary: str = ""
    warnings: list[str] = field(default_factory=list)
    errors: list[OrchestraError] = field(default_factory=list)


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    add_command(app, validate, panel="Start")
    add_command(app, graph, panel="Start")
    add_command(app, explain, panel="Reference")
    add_command(app, schema, panel="Reference")


def validate(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="Names of workflows, or files of workflows, fleets and agents. The whole project by default."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check workflows, fleets and agents: all names, types and references. Exits with 2 if there are errors."""
    checks = ProjectValidator(load_settings_to_inspect())
    file_reports = [checks.validate_one(name) for name in names] if names else checks.validate_all()
    if error := checks.trust_error:
        file_reports.insert(0, FileReport("modules", errors=[error]))
    if as_json:
        print_json([_report_data(file_report) for file_report in file_reports])
    else:
        _print_reports(file_reports)
    if any(file_report.errors for file_report in file_reports):
        raise typer.Exit(2)


def graph(
    name: Annotated[str, typer.Argument(help="The name or the file of a workflow.", show_default=False)],
    mermaid: Annotated[bool, typer.Option("--mermaid", help="Print a Mermaid diagram.")] = False,
) -> None:
    """Draw the graph of a workflow."""
    from orchestra.app.project import Project
    from orchestra.cli.context import print_trust_notice
    from orchestra.workflows.drawing import draw
    from orchestra.workflows.drawing import mermaid as chart

    settings = load_settings_to_inspect()
    print_trust_notice(settings)
    project = Project.load(settings)
    program = project.program(project.find(name))
    drawing = chart(program) if mermaid else draw(program, terminal_width(sys.stdout, MAX_NODES_DRAWN))
    sys.stdout.write(escape_invisible(drawing).rstrip("\n") + "\n")


class ProjectValidator:
    """Validates the parts of a project, which is loaded once."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @cached_property
    def _load_result(self) -> Project | InputError:
        """The project, or the error of its modules, which are imported only once."""
        from orchestra.app.project import Project

        try:
            return Project.load(self._settings)
        except InputError as error:
            return error

    @property
    def trust_error(self) -> InputError | None:
        """Why the modules were not imported, if the loaded project is untrusted."""
        return self._settings.trust_error("modules") if "_load_result" in vars(self) else None

    @property
    def _project(self) -> Project:
        if isinstance(self._load_result, InputError):
            raise self._load_result
        return self._load_result

    @cached_property
    def _card_models(self) -> Mapping[str, Schema] | None:
        """The models that a card may use; None, for the built-in ones, if the modules have an error."""
        try:
            return self._project.registry.models
        except InputError:
            return None

    def validate_one(self, name: str) -> FileReport:
        """Validates a workflow by name or file, a fleet file or an agent folder."""
        path, file_report = Path(name), FileReport(name)
        card = path if path.name == "agent.yaml" else path / "agent.yaml"
        with _collect_errors(file_report):
            self._settings.check_path(card.parent if os.path.isfile(card) else path)
            if os.path.isfile(card):
                self._validate_agent(card.parent, file_report)
            elif os.path.isfile(path) and _FLEET_SCHEMA.search(_read_beginning(path)):
                _validate_fleet(path, file_report)
            else:
                self._validate_workflow(name, file_report)
        return file_report

    def validate_all(self) -> list[FileReport]:
        """Validates all fleets, agents and workflows of the project, including those of its modules. Raises
        `InputError` C004 without any.
        """
        from orchestra.fleet.config import endpoint_fleet

        file_reports: list[FileReport] = []
        fleet = FileReport(f"the fleet of {self._settings.sources['fleet']}")
        with _collect_errors(fleet):
            if self._settings.endpoint:
                endpoint_fleet(self._settings.endpoint, self._settings.model)
            else:
                self._settings.find_resource("configs", self._settings.fleet)
        if fleet.errors:
            file_reports.append(fleet)
        for path in self._settings.own_resources("configs"):
            file_reports.append(FileReport(_display_path(path)))
            with _collect_errors(file_reports[-1]):
                self._settings.check_path(path)
                _validate_fleet(path, file_reports[-1])
        modules = FileReport("modules")
        with _collect_errors(modules):
            file_reports += [self.validate_one(_display_path(path)) for path in self._settings.own_resources("agents")]
            known_errors = {str(error) for file_report in file_reports for error in file_report.errors}
            for name, error in self._project.registry.broken.items():
                if new := [
                    part for part in split_error(error) if str(part) not in known_errors
                ]:  # such as a duplicate name
                    file_reports.append(FileReport(name, errors=[*new]))
            names = {*self._project.workflow_names()} - {*self._settings.resources("workflows")}
            file_reports += [
                self.validate_one(name)
                for name in (*map(_display_path, self._settings.own_resources("workflows")), *sorted(names))
            ]
        if modules.errors:
            file_reports.insert(0, modules)
        if not file_reports:
            raise InputError(
                "C004", "this project has no files to validate", hint="change to the project folder, or name files"
            )
        return file_reports

    def _validate_agent(self, folder: Path, report: FileReport) -> None:
        """Validates a card, the tools that it may call and the members of an ensemble."""
        from orchestra.agents.card import Card
        from orchestra.app.project import Project
        from orchestra.workflows.python.steps import Agent

        card = Card.load(folder, self._card_models)
        report.summary = f"the agent {card.name!r}"
        if (card.tool_use_cards is not None or card.members) and self._project:
            Project.load(self._settings).program(Agent.from_card(card))  # a new project, which finds this card

    def _validate_workflow(self, name: str, report: FileReport) -> None:
        program = self._project.program(self._project.find(name))
        report.summary = f"the workflow {program.name!r}, {pluralize(len(program.nodes), 'node')}"
        report.warnings += program.warnings


@contextmanager
def _collect_errors(report: FileReport) -> Iterator[None]:
    try:
        yield
    except OrchestraError as error:
        report.errors += split_error(error)


def _validate_fleet(path: Path, report: FileReport) -> None:
    from orchestra.fleet.config import read_config
    from orchestra.fleet.secrets import missing_key_error

    fleet = read_config(path)
    report.summary = f"the fleet {fleet.name!r}, {pluralize(len(fleet.servers), 'server')}"
    missing_keys = ((name, missing_key_error(server)) for name, server in fleet.servers.items())
    report.warnings += [
        f"{path}: {name}: {error.message}; calls to it fail here" for name, error in missing_keys if error
    ]


def _display_path(path: Path) -> str:
    """A path relative to the current folder that cannot be taken for a name."""
    displayed_path = os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
    return displayed_path if os.sep in displayed_path else f".{os.sep}{displayed_path}"


def _read_beginning(path: Path) -> str:
    """The beginning of a file, up to the maximum size of a workflow. Raises `InputError` C014."""
    try:
        with path.open("rb") as file:
            return file.read(1 << 20).decode("utf-8-sig", "replace")
    except OSError as error:
        raise InputError("C014", f"{path} cannot be read: {error.strerror}") from error


def _report_data(report: FileReport) -> dict[str, Any]:
    return {
        "name": report.name,
        "valid": not report.errors,
        "errors": [error_data(error) for error in report.errors],
        "warnings": report.warnings,
    }


def _print_reports(reports: list[FileReport]) -> None:
    printed_errors: list[OrchestraError] = []
    for report in reports:
        new = [
            error for error in report.errors if format_error(error) not in map(format_error, printed_errors)
        ]  # a card is read once for each workflow that uses it
        for error in new:
            print(format_error(error) + "\n", file=sys.stderr)
        if report.errors and not new:
            print(escape_invisible(f"{report.name}: not validated because of the errors above\n"), file=sys.stderr)
        printed_errors += new
        for warning in report.warnings:
            print(escape_invisible(f"warning: {warning}"), file=sys.stderr)
        if not report.errors:
            print_text(f"ok  {report.name}: {report.summary}")
    if printed_errors:
        print(
            f"{pluralize(len(printed_errors), 'fault')}; for details: orchestra explain {printed_errors[0].code}",
            file=sys.stderr,
        )


def explain(
    code: Annotated[
        str, typer.Argument(help="An error code such as L003. Without it, all codes are listed.", show_default=False)
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Explain an error code: its meaning, an example and how to fix it."""
    from orchestra.core import error_help as explaining

    explanations = [explaining.explain(code)] if code else list(explaining.load_explanations().values())
    if as_json:
        print_json(
            [
                {"code": explanation.code, "title": explanation.title, "text": explanation.text.strip()}
                for explanation in explanations
            ]
        )
    elif code:
        print_text(str(explanations[0]).rstrip())
    else:
        for explanation in explanations:
            print_text(f"{explanation.code}  {explanation.title}")


def schema(
    what: Annotated[FileKind, typer.Argument(help="The kind of file.")] = "workflow",
    write: Annotated[
        bool, typer.Option("--write", help="Write the schemas of all kinds into .orchestra/schemas of the project.")
    ] = False,
) -> None:
    """Print the JSON Schema of a kind of file, for editors. With --write, renew the copies that editors read.

    Files of `orchestra init` name their schema in a line `# yaml-language-server: $schema=...`.
    """
    if not write:
        sys.stdout.write(format_schema(what))
        return
    project = load_settings_to_inspect().project or Path()
    try:
        for path in write_schemas(project):
            print_text(f"  {path}")
    except OSError as error:
        raise OrchestraError(
            "C023",
            f"{error.filename or project} cannot be written: {error.strerror}",
            hint="free some disk space, or make the folder writable",
        ) from error

"""The form of all commands: module functions with few parameters, whose arguments are one dataclass."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.main import get_command
from typer.testing import CliRunner

import orchestra.cli
from orchestra.cli.main import build_app
from orchestra.cli.typer_adapter import OrchestraGroup, add_command
from orchestra.core.errors import InputError

ROOM = Path(orchestra.cli.__file__).parent
SCREEN = 60
"""The maximum number of lines of a function."""
PARAMETERS = 5
"""The maximum number of parameters of a command, without the context."""


@dataclass(frozen=True, slots=True)
class Greeting:
    """A greeting."""

    name: Annotated[str, typer.Argument(help="Whom.")]
    loud: Annotated[bool, typer.Option("--loud", help="In capitals.")] = False
    as_json: Annotated[bool, typer.Option("--json")] = False


def greet(context: typer.Context, asked: Greeting, times: Annotated[int, typer.Option(min=1)] = 1) -> None:
    """Say hello."""
    if asked.name == "unknown":
        raise InputError("C010", "no such person", hint="give another name")
    assert context.get_parameter_source("loud") is not None
    said = f"hello {asked.name}"
    for _ in range(times):
        typer.echo(said.upper() if asked.loud else said)


@pytest.fixture
def app() -> typer.Typer:
    """A group with one command."""
    made = typer.Typer()
    made.callback()(lambda: None)
    add_command(made, greet, panel="Words")
    return made


def commands() -> Iterator[tuple[str, ast.FunctionDef]]:
    """The functions registered as commands, with their locations."""
    for path in sorted(ROOM.rglob("*.py")):
        tree = ast.parse(path.read_text())
        functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
        for node in ast.walk(tree):
            match node:
                case ast.Call(func=ast.Name(id="add_command"), args=[_, ast.Name(id=name), *_]) if name in functions:
                    yield f"{path.stem}.{name}", functions[name]


def test_dataclass_fields_are_options(app: typer.Typer) -> None:
    said = CliRunner().invoke(app, ["greet", "Ada", "--loud", "--times", "2"])
    assert (said.exit_code, said.output) == (0, "HELLO ADA\nHELLO ADA\n")


def test_dataclass_fields_are_in_the_help(app: typer.Typer) -> None:
    said = CliRunner().invoke(app, ["greet", "--help"], env={"COLUMNS": "100"}).output
    assert all(word in said for word in ("Say hello.", "Whom.", "--loud", "In capitals.", "--times"))
    assert "asked" not in said


def test_group_help_has_a_section_for_each_panel() -> None:
    group = typer.Typer(cls=OrchestraGroup, rich_markup_mode=None)
    summary = "Say hello to a person whom the caller knows by name, and to everybody else in the same room."
    for name, panel in (("meet", "Start"), ("part", "End"), ("greet", "Start")):

        def command() -> None:
            pass

        command.__doc__ = f"{summary}\n\nMore."
        add_command(group, command, name, panel=panel)
    lines = CliRunner().invoke(group, ["--help"]).output.split()
    words = [word for word in lines if word in ("Start:", "meet", "greet", "End:", "part")]
    assert words == ["Start:", "meet", "greet", "End:", "part"]
    assert " ".join(lines).count(summary) == 3
    assert "More." not in lines


def test_command_exits_with_the_code_of_its_error(app: typer.Typer) -> None:
    said = CliRunner().invoke(app, ["greet", "unknown", "--json"])
    assert said.exit_code == 2
    assert '"C010"' in said.output


def test_every_command_is_a_function_of_its_module() -> None:
    def names(app: object, *words: str) -> Iterator[str]:
        for name, one in getattr(app, "commands", {}).items():
            yield from names(one, *words, name) if hasattr(one, "commands") else [" ".join((*words, name))]

    assert len(dict(commands())) == len(list(names(get_command(build_app()))))


def test_no_command_takes_more_than_five_parameters() -> None:
    counts = {place: [own.arg for own in (*node.args.args, *node.args.kwonlyargs)] for place, node in commands()}
    assert {place: names for place, names in counts.items() if len(set(names) - {"context"}) > PARAMETERS} == {}


def test_no_function_is_longer_than_sixty_lines() -> None:
    long = {
        f"{path.stem}.{node.name}": size
        for path in sorted(ROOM.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (size := (node.end_lineno or 0) - node.lineno + 1) > SCREEN
    }
    assert long == {}

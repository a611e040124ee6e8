"""The form that all commands have: functions of a module, with few parameters; what was asked is one value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from orchestra.cli.commands import add
from orchestra.errors import InputError


@dataclass(frozen=True, slots=True)
class Greeting:
    """What is to be greeted, and how."""

    name: Annotated[str, typer.Argument(help="Whom.")]
    loud: Annotated[bool, typer.Option("--loud", help="In capitals.")] = False
    as_json: Annotated[bool, typer.Option("--json")] = False


def greet(context: typer.Context, asked: Greeting, times: Annotated[int, typer.Option(min=1)] = 1) -> None:
    """Say hello."""
    if asked.name == "nobody":
        raise InputError("C010", "nobody is there", hint="name somebody")
    assert context.get_parameter_source("loud") is not None
    said = f"hello {asked.name}"
    for _ in range(times):
        typer.echo(said.upper() if asked.loud else said)


@pytest.fixture
def app() -> typer.Typer:
    """One group with one command."""
    made = typer.Typer()
    made.callback()(lambda: None)
    add(made, greet, panel="Words")
    return made


def test_a_command_reads_the_fields_of_what_it_is_asked_as_options(app: typer.Typer) -> None:
    said = CliRunner().invoke(app, ["greet", "Ada", "--loud", "--times", "2"])
    assert (said.exit_code, said.output) == (0, "HELLO ADA\nHELLO ADA\n")


def test_a_command_shows_the_fields_of_what_it_is_asked_in_its_help(app: typer.Typer) -> None:
    said = CliRunner().invoke(app, ["greet", "--help"], env={"COLUMNS": "100"}).output
    assert all(word in said for word in ("Say hello.", "Whom.", "--loud", "In capitals.", "--times"))
    assert "asked" not in said


def test_a_command_ends_with_the_exit_code_of_its_error(app: typer.Typer) -> None:
    said = CliRunner().invoke(app, ["greet", "nobody", "--json"])
    assert said.exit_code == 2
    assert '"C010"' in said.output

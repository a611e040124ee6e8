"""The command line's entry: all verbs under one name."""

from __future__ import annotations

import sys
from io import TextIOWrapper
from typing import Annotated

import typer

from orchestra.cli import (
    agents,
    ask,
    batch,
    certifying,
    checking,
    doctor,
    fleet,
    judging,
    learn,
    project,
    reference,
    run,
    runs,
    tooling,
    whatif,
)
from orchestra.cli.opening import Opener


def build_app(opener: Opener | None = None) -> typer.Typer:
    """The command line; `opener` stands in for `Orchestra.open`, so that tests run it on a simulated fleet."""
    app = typer.Typer(
        name="orchestra",
        help="Small specialised language models that work as one dependable system.",
        epilog="New here? orchestra init hello",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback()
    def root(
        context: typer.Context,
        version: Annotated[bool, typer.Option("--version", help="Print the version and leave.", callback=_version, is_eager=True)] = False,
    ) -> None:
        context.obj = opener

    for room in (project, checking, run, ask, batch, judging, runs, whatif, agents, tooling, reference, fleet, learn, certifying, doctor):
        room.register(app)
    return app


def main() -> None:
    """`orchestra` in the shell."""
    if isinstance(sys.stdout, TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # a box or an accent that the terminal cannot show is no reason to fail
    build_app()(prog_name="orchestra")


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            typer.echo(f"orchestra {version('orchestra-slm')}")
        except PackageNotFoundError:
            typer.echo("orchestra (from its source tree, not installed)")
        raise typer.Exit

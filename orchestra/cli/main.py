"""The entry point of the command line: builds the Typer application and runs it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from io import TextIOWrapper
from typing import Annotated

import typer

from orchestra.cli.context import Opener
from orchestra.cli.typer_adapter import OrchestraGroup

COMMAND_MODULES: Mapping[str, str] = {
    "init": "init",
    "demo": "demo",
    "config": "init",
    "trust": "init",
    "validate": "validate",
    "graph": "validate",
    "run": "run.commands",
    "ask": "run.commands",
    "chat": "run.commands",
    "plan": "run.commands",
    "batch": "run.commands",
    "index": "index",
    "check": "check",
    "serve": "serve",
    "mcp": "mcp",
    "runs": "runs.commands",
    "whatif": "runs.whatif",
    "agents": "agents",
    "tools": "agents",
    "explain": "validate",
    "schema": "validate",
    "fleet": "fleet",
    "learn": "learn.commands",
    "certify": "learn.commands",
    "doctor": "doctor",
}
"""The module of each command."""
PANELS = ("Start", "Run", "Inspect runs", "Improve", "Reference", "Operate")
"""The groups of commands, in the order of `orchestra --help`."""
VERSION_FLAG = "--version"


def build_app(opener: Opener | None = None, first: str = "") -> typer.Typer:
    """Returns the Typer application.

    Args:
        opener: Replaces `Orchestra.open`, so that tests run the command line on a simulated fleet.
        first: The first word of the command line, if known. Only the module of that command is imported, and none for
        `--version`: importing every command would take longer than most commands run.
    """
    app = typer.Typer(
        name="orchestra",
        help="Run small specialised language models as one dependable system.",
        epilog="New here? orchestra init hello",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        cls=OrchestraGroup,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )

    @app.callback()
    def root(
        context: typer.Context,
        version: Annotated[
            bool,
            typer.Option(VERSION_FLAG, help="Print the version and exit.", callback=_print_version, is_eager=True),
        ] = False,
    ) -> None:
        context.obj = opener

    modules = dict.fromkeys(COMMAND_MODULES.values()) if first != VERSION_FLAG else {}
    for module in [COMMAND_MODULES[first]] if first in COMMAND_MODULES else modules:
        import_module(f"orchestra.cli.{module}").register(app)
    app.registered_commands.sort(key=lambda command: PANELS.index(str(command.rich_help_panel)))
    return app


def main() -> None:
    """The console script `orchestra`."""
    if isinstance(sys.stdout, TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # a character that the terminal cannot show is not an error
    try:
        build_app(first="".join(sys.argv[1:2]))(prog_name="orchestra")
    except SystemExit as end:
        if end.code in (130, 143):  # ended by a signal
            from orchestra.cli.signals import exit_process

            exit_process(end.code)
        raise


def _print_version(value: bool) -> None:
    if value:
        from importlib.metadata import PackageNotFoundError, version

        try:
            typer.echo(f"orchestra {version('orchestra-slm')}")
        except PackageNotFoundError:
            typer.echo("orchestra (from its source tree, not installed)")
        raise typer.Exit

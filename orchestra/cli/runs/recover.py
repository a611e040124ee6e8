"""`orchestra runs recover`: go on with a journal that has lost commits."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestra.cli.options import JsonOption
from orchestra.cli.typer_adapter import add_command


def register(runs: typer.Typer) -> None:
    """Adds the verb."""
    add_command(runs, recover, panel="Keep")


def recover(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN...", help="Runs that may go on after a loss, once you have looked at each.", show_default=False
        ),
    ] = None,
    sure: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Accept that the journal's file has lost commits (J025), and go on with what it has.

    Runs without an end may have lost their last events: they are listed, and none goes on (J026) until it is named here.
    """
    import asyncio

    from orchestra.cli.runs import recovery

    if runs:
        asyncio.run(recovery.confirm_runs(runs, as_json=as_json))
    else:
        asyncio.run(recovery.accept_commit_loss(confirmed=sure, as_json=as_json))

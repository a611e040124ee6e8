"""`orchestra doctor`: shows what this machine has and lacks, each with what to type."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestra.cli.context import load_settings_to_inspect
from orchestra.cli.options import JsonOption
from orchestra.cli.output import make_console, print_json, print_text
from orchestra.cli.typer_adapter import add_command
from orchestra.core.untrusted_text import pluralize

STATE_MARKS = {"ok": ("ok", "green"), "warning": ("!!", "yellow"), "problem": ("NO", "red")}


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    add_command(app, doctor, panel="Look after it")


def doctor(
    deep: Annotated[bool, typer.Option("--deep", help="Also import vLLM, which takes ten seconds or more.")] = False,
    fleet: Annotated[str | None, typer.Option(help="The fleet to look at: a name in configs/, or a path.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Look at this machine: what is there, what is missing, and what to type."""
    from rich.text import Text

    from orchestra.cli.doctor_checks import run_checks

    screen = make_console()
    told: list[dict[str, str]] = []
    for finding in run_checks(load_settings_to_inspect(fleet=fleet), deep=deep):
        told.append(
            {"subject": finding.subject, "state": finding.state, "message": finding.message, "remedy": finding.remedy}
        )
        if as_json:
            continue
        mark, colour = STATE_MARKS[finding.state]
        screen.print(Text.assemble((f"{mark}  ", colour), (f"{finding.subject:<12}", "bold"), finding.message))
        if finding.remedy:
            screen.print(Text.assemble(" " * 16, ("$ ", "dim"), finding.remedy))
    problems = sum(entry["state"] == "problem" for entry in told)
    if as_json:
        print_json({"findings": told, "problems": problems})
    else:
        print_text(
            f"\n{pluralize(problems, 'problem')} to mend, from the top"
            if problems
            else "\nEverything that is needed is there."
        )
    if problems:
        raise typer.Exit(1)

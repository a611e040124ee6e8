"""`orchestra doctor`: shows what this machine has and lacks, each with what to type."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestra.cli.context import settings_to_inspect
from orchestra.cli.options import AsJson
from orchestra.cli.output import console, print_json, say
from orchestra.cli.typer_adapter import add
from orchestra.core.untrusted_text import counted

MARKS = {"ok": ("ok", "green"), "warning": ("!!", "yellow"), "problem": ("NO", "red")}


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    add(app, doctor, panel="Look after it")


def doctor(
    deep: Annotated[bool, typer.Option("--deep", help="Also import vLLM, which takes ten seconds or more.")] = False,
    fleet: Annotated[str | None, typer.Option(help="The fleet to look at: a name in configs/, or a path.")] = None,
    as_json: AsJson = False,
) -> None:
    """Look at this machine: what is there, what is missing, and what to type."""
    from rich.text import Text

    from orchestra.cli.doctor_checks import findings

    screen = console()
    told: list[dict[str, str]] = []
    for finding in findings(settings_to_inspect(fleet=fleet), deep=deep):
        told.append({"what": finding.what, "state": finding.state, "says": finding.says, "type": finding.type})
        if as_json:
            continue
        mark, colour = MARKS[finding.state]
        screen.print(Text.assemble((f"{mark}  ", colour), (f"{finding.what:<12}", "bold"), finding.says))
        if finding.type:
            screen.print(Text.assemble(" " * 16, ("$ ", "dim"), finding.type))
    problems = sum(entry["state"] == "problem" for entry in told)
    if as_json:
        print_json({"findings": told, "problems": problems})
    else:
        say(f"\n{counted(problems, 'problem')} to mend, from the top" if problems else "\nEverything that is needed is there.")
    if problems:
        raise typer.Exit(1)

"""`orchestra whatif`: recorded runs gone through again with another agent, and what would have come of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from orchestra.cli.context import Opener, get_opener, load_settings
from orchestra.cli.options import FleetOption, JsonOption
from orchestra.cli.typer_adapter import add_command
from orchestra.core.errors import InputError, OrchestraError
from orchestra.core.settings import looks_like_path

if TYPE_CHECKING:
    from orchestra.app.orchestra import Orchestra
    from orchestra.cli.runs.contrast import WhatIfReport
    from orchestra.cli.runs.variants import AgentVariant
    from orchestra.core.protocols import Journal
    from orchestra.core.settings import Settings
    from orchestra.learn.certification.audit import AuditPeriod

MAX_CONCURRENT_RUNS = 4
"""Runs that are gone through at once."""


@dataclass(frozen=True, slots=True)
class WhatIfArguments:
    """Which runs are gone through, with whom, and how that is printed."""

    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="RUNS", help="Ids, the beginnings of some, or `last`.", show_default=False),
    ] = None
    agent: Annotated[
        list[str] | None,
        typer.Option(
            "--agent",
            metavar="NAME[@OTHER]",
            help="Who is asked otherwise: as it is today; or another agent, a folder, an adapter, a prompt's file, model:NAME.",
            show_default="the whole workflow as it is today",
        ),
    ] = None
    last: Annotated[int, typer.Option("--last", "-n", min=0, metavar="N", help="The latest N runs.")] = 0
    workflow: Annotated[
        str,
        typer.Option(
            metavar="NAME|FILE", help="Of --last, those of this workflow; or its file of today.", show_default=False
        ),
    ] = ""
    since: Annotated[
        str | None,
        typer.Option(
            metavar="WHEN", help="Of --last, those since 12h, 30d, yesterday, 2026-11-24.", show_default=False
        ),
    ] = None
    fleet: FleetOption = None
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown, for a pull request.")] = False
    as_json: JsonOption = False


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    add_command(app, whatif, panel="Look back")


def whatif(context: typer.Context, arguments: WhatIfArguments) -> None:
    """Go through recorded runs again with something otherwise: which answers, what is accepted, and the cost, then and now.

    Only what changed is asked; everything else is recalled from the record. Nothing is recorded, no tool with effects is called,
    no person is asked: where a run would do that with other inputs, it stops, and that is said.

    Exits with 0 where all answers are the same, 1 where some are not or a run stops, 2 for bad input.
    """
    from orchestra.cli.certify.audit import parse_period
    from orchestra.cli.output import print_json
    from orchestra.cli.runs.contrast import as_data, as_markdown, show_report
    from orchestra.cli.signals import run_with_signals

    since = parse_period(arguments.since, None).run_filter
    _check_arguments(arguments)
    found = run_with_signals(
        lambda _: run_whatif(get_opener(context), load_settings(fleet=arguments.fleet), arguments, since)
    )
    if arguments.as_json:
        print_json(as_data(found))
    elif arguments.markdown:
        typer.echo(as_markdown(found))
    else:
        show_report(found)
    if not found.is_unchanged:
        raise typer.Exit(1)


def _check_arguments(arguments: WhatIfArguments) -> None:
    """Raises `InputError` C042 where it is not clear which runs are meant, C010 for two ways to print them."""
    if bool(arguments.runs) == bool(arguments.last):
        raise InputError(
            "C042", "which runs?", hint="orchestra whatif last, or orchestra whatif --last 20 --workflow NAME"
        )
    if arguments.runs and ((arguments.workflow and not looks_like_path(arguments.workflow)) or arguments.since):
        said = f"{'--since' if arguments.since else '--workflow'} is for --last, and these runs are named"
        raise InputError("C042", said, hint="orchestra whatif --last 20 --workflow NAME --since 30d")
    if arguments.markdown and arguments.as_json:
        raise InputError("C010", "--markdown and --json exclude each other", hint="give one of them")


async def run_whatif(
    open_: Opener, settings: Settings, arguments: WhatIfArguments, run_filter: AuditPeriod
) -> WhatIfReport:
    """Goes through the runs. Raises `InputError` where there is none, or where none of them can be gone through."""
    import asyncio

    from orchestra.app.whatif import WhatifResult
    from orchestra.cli.progress import StatusLine
    from orchestra.cli.runs.contrast import UnreplayableRun, WhatIfReport
    from orchestra.cli.runs.resume import open_recorded_orchestra
    from orchestra.cli.runs.variants import parse_variant

    waiting = StatusLine()
    async with open_recorded_orchestra(
        open_, arguments.runs[0] if arguments.runs else "last", waiting, settings
    ) as orchestra:
        variants = [parse_variant(orchestra.registry, text) for text in arguments.agent or ()]
        _refuse_duplicates(variants)
        instead = {one.agent: one.replacement for one in variants} if variants else None
        file = arguments.workflow if looks_like_path(arguments.workflow) else ""
        runs = await _select_runs(orchestra, arguments, run_filter, variants)
        line = asyncio.Semaphore(MAX_CONCURRENT_RUNS)

        async def one(run: str) -> WhatifResult | UnreplayableRun:
            async with line:
                try:
                    return await orchestra.whatif(run, instead, workflow=file)
                except OrchestraError as error:
                    return UnreplayableRun(run, error)

        found = await asyncio.gather(*(one(run) for run in runs))
    lost = [one for one in found if isinstance(one, UnreplayableRun)]
    if len(lost) == len(found):
        raise lost[0].error
    return WhatIfReport(
        tuple((one.agent, one.option_text) for one in variants),
        [one for one in found if isinstance(one, WhatifResult)],
        lost,
    )


def _refuse_duplicates(variants: Sequence[AgentVariant]) -> None:
    """Raises `InputError` C041 where two variants are of one agent."""
    names = [one.agent for one in variants]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError("C041", f"two variants of {twice!r}", hint="go through the runs once for each")


async def _select_runs(
    orchestra: Orchestra, arguments: WhatIfArguments, run_filter: AuditPeriod, variants: Sequence[AgentVariant]
) -> list[str]:
    """The ids of the runs that are meant. Raises `InputError` C018 and C042."""
    from orchestra.cli.runs.find import find_run
    from orchestra.core.protocols import NO_LIMIT

    journal = orchestra.journal
    if arguments.runs:
        named = list(dict.fromkeys([await find_run(journal, name) for name in arguments.runs]))
        for run in named:
            if await _is_evaluation(journal, run):
                said = f"run {run} is one of an evaluation, which puts checks of its own on its agent: no workflow of today has them"
                raise InputError("C042", said, hint="orchestra whatif --last 1")
        return named
    found: list[str] = []
    name = orchestra.find(arguments.workflow).name if looks_like_path(arguments.workflow) else arguments.workflow
    for summary in await journal.list_runs(NO_LIMIT):
        if len(found) == arguments.last:
            break
        meant = name in ("", summary.workflow) and run_filter.contains(summary) and summary.finished is not None
        if meant and await _uses_agent(journal, summary.run, variants):
            found.append(summary.run)
    if not found:
        raise InputError("C042", "no run is meant that has ended", hint="orchestra runs list")
    return found


async def _is_evaluation(journal: Journal, run: str) -> bool:
    """Whether a run is one of an evaluation, and so no work of the user's."""
    from orchestra.core.events import RunStarted

    first = next(iter(await journal.read(run)), None)
    return isinstance(first, RunStarted) and bool(first.options.get("purpose"))


async def _uses_agent(journal: Journal, run: str, variants: Sequence[AgentVariant]) -> bool:
    """Whether a run knows one of the agents that are to be others."""
    from orchestra.app.snapshot_store import CARD, CONTRACT
    from orchestra.core.events import RunStarted

    first = next(iter(await journal.read(run)), None)
    if not isinstance(first, RunStarted) or first.options.get("purpose"):
        return False
    return not variants or any(
        {f"{CARD}/{one.agent}", f"{CONTRACT}/agent/{one.agent}"} & first.versions.keys() for one in variants
    )

"""`orchestra whatif`: recorded runs gone through again with another agent, and what would have come of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from orchestra.cli.context import Opener, opener, settings
from orchestra.cli.options import AsJson, Fleet
from orchestra.cli.typer_adapter import add
from orchestra.core.errors import InputError, OrchestraError
from orchestra.core.settings import looks_like_path

if TYPE_CHECKING:
    from orchestra.app.orchestra import Orchestra
    from orchestra.cli.runs.contrast import Contrast
    from orchestra.cli.runs.variants import Variant
    from orchestra.core.protocols import Journal
    from orchestra.core.settings import Settings
    from orchestra.learn.certification.audit import Wanted

AT_ONCE = 4
"""Runs that are gone through at once."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which runs are gone through, with whom, and how that is printed."""

    runs: Annotated[
        list[str] | None, typer.Argument(metavar="RUNS", help="Ids, the beginnings of some, or `last`.", show_default=False)
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
        str, typer.Option(metavar="NAME|FILE", help="Of --last, those of this workflow; or its file of today.", show_default=False)
    ] = ""
    since: Annotated[
        str | None, typer.Option(metavar="WHEN", help="Of --last, those since 12h, 30d, yesterday, 2026-11-24.", show_default=False)
    ] = None
    fleet: Fleet = None
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown, for a pull request.")] = False
    as_json: AsJson = False


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    add(app, whatif, panel="Look back")


def whatif(context: typer.Context, asked: Chosen) -> None:
    """Go through recorded runs again with something otherwise: which answers, what is accepted, and the cost, then and now.

    Only what changed is asked; everything else is recalled from the record. Nothing is recorded, no tool with effects is called,
    no person is asked: where a run would do that with other inputs, it stops, and that is said.

    Exits with 0 where all answers are the same, 1 where some are not or a run stops, 2 for bad input.
    """
    from orchestra.cli.certify.audit import period
    from orchestra.cli.output import print_json
    from orchestra.cli.runs.contrast import as_markdown, data, show
    from orchestra.cli.signals import carry_out

    since = period(asked.since, None).wanted
    _coherent(asked)
    found = carry_out(lambda _: contrasted(opener(context), settings(fleet=asked.fleet), asked, since))
    if asked.as_json:
        print_json(data(found))
    elif asked.markdown:
        typer.echo(as_markdown(found))
    else:
        show(found)
    if not found.same:
        raise typer.Exit(1)


def _coherent(asked: Chosen) -> None:
    """Raises `InputError` C042 where it is not clear which runs are meant, C010 for two ways to print them."""
    if bool(asked.runs) == bool(asked.last):
        raise InputError("C042", "which runs?", hint="orchestra whatif last, or orchestra whatif --last 20 --workflow NAME")
    if asked.runs and ((asked.workflow and not looks_like_path(asked.workflow)) or asked.since):
        said = f"{'--since' if asked.since else '--workflow'} is for --last, and these runs are named"
        raise InputError("C042", said, hint="orchestra whatif --last 20 --workflow NAME --since 30d")
    if asked.markdown and asked.as_json:
        raise InputError("C010", "--markdown and --json exclude each other", hint="give one of them")


async def contrasted(open_: Opener, chosen: Settings, asked: Chosen, since: Wanted) -> Contrast:
    """Goes through the runs. Raises `InputError` where there is none, or where none of them can be gone through."""
    import asyncio

    from orchestra.app.whatif import Rehearsal
    from orchestra.cli.progress import Waiting
    from orchestra.cli.runs.contrast import Contrast, Lost
    from orchestra.cli.runs.resume import opened
    from orchestra.cli.runs.variants import variant

    waiting = Waiting()
    async with opened(open_, asked.runs[0] if asked.runs else "last", waiting, chosen) as orchestra:
        variants = [variant(orchestra.registry, text) for text in asked.agent or ()]
        _apart(variants)
        instead = {one.agent: one.other for one in variants} if variants else None
        file = asked.workflow if looks_like_path(asked.workflow) else ""
        runs = await _runs(orchestra, asked, since, variants)
        line = asyncio.Semaphore(AT_ONCE)

        async def one(run: str) -> Rehearsal | Lost:
            async with line:
                try:
                    return await orchestra.whatif(run, instead, workflow=file)
                except OrchestraError as error:
                    return Lost(run, error)

        found = await asyncio.gather(*(one(run) for run in runs))
    lost = [one for one in found if isinstance(one, Lost)]
    if len(lost) == len(found):
        raise lost[0].error
    return Contrast(tuple((one.agent, one.said) for one in variants), [one for one in found if isinstance(one, Rehearsal)], lost)


def _apart(variants: Sequence[Variant]) -> None:
    """Raises `InputError` C041 where two variants are of one agent."""
    names = [one.agent for one in variants]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError("C041", f"two variants of {twice!r}", hint="go through the runs once for each")


async def _runs(orchestra: Orchestra, asked: Chosen, since: Wanted, variants: Sequence[Variant]) -> list[str]:
    """The ids of the runs that are meant. Raises `InputError` C018 and C042."""
    from orchestra.cli.runs.find import find_run
    from orchestra.core.protocols import EVERY

    journal = orchestra.journal
    if asked.runs:
        named = list(dict.fromkeys([await find_run(journal, name) for name in asked.runs]))
        for run in named:
            if await _is_evaluation(journal, run):
                said = f"run {run} is one of an evaluation, which puts checks of its own on its agent: no workflow of today has them"
                raise InputError("C042", said, hint="orchestra whatif --last 1")
        return named
    found: list[str] = []
    name = orchestra.find(asked.workflow).name if looks_like_path(asked.workflow) else asked.workflow
    for summary in await journal.runs(EVERY):
        if len(found) == asked.last:
            break
        meant = name in ("", summary.workflow) and since.has(summary) and summary.finished is not None
        if meant and await _asked(journal, summary.run, variants):
            found.append(summary.run)
    if not found:
        raise InputError("C042", "no run is meant that has ended", hint="orchestra runs list")
    return found


async def _is_evaluation(journal: Journal, run: str) -> bool:
    """Whether a run is one of an evaluation, and so no work of the user's."""
    from orchestra.core.events import RunStarted

    first = next(iter(await journal.read(run)), None)
    return isinstance(first, RunStarted) and bool(first.options.get("purpose"))


async def _asked(journal: Journal, run: str, variants: Sequence[Variant]) -> bool:
    """Whether a run knows one of the agents that are to be others."""
    from orchestra.app.snapshot_store import CARD, CONTRACT
    from orchestra.core.events import RunStarted

    first = next(iter(await journal.read(run)), None)
    if not isinstance(first, RunStarted) or first.options.get("purpose"):
        return False
    return not variants or any({f"{CARD}/{one.agent}", f"{CONTRACT}/agent/{one.agent}"} & first.versions.keys() for one in variants)

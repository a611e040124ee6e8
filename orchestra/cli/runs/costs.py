"""`orchestra runs costs`: sums the cost of runs, as a table, JSON or CSV."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isfinite
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestra.cli.context import load_settings_to_inspect
from orchestra.cli.csv_writer import to_csv
from orchestra.cli.options import JsonOption, SinceOption, TagFilterOption, UntilOption, parse_period
from orchestra.cli.output import make_console, print_json, print_note, print_table, print_text
from orchestra.cli.typer_adapter import add_command
from orchestra.core.errors import InputError
from orchestra.core.quantities import format_duration, format_money
from orchestra.core.untrusted_text import escape_invisible, pluralize

if TYPE_CHECKING:
    from orchestra.app.costs import CostKey, CostReport, CostRow, CostTotal
    from orchestra.fleet.config import Endpoint, LocalServer

MAX_NOTES = 5
MIN_NAME_WIDTH = 14
"""The minimum width of a name on a narrow terminal."""
OPTIONAL_COLUMNS = ("recalled", "time", "runs")
"""Columns omitted on a narrow terminal, in this order."""
COLUMN_GAP = 2
HEADINGS: Mapping[CostKey, str] = {"agent": "agent or tool"}


async def show_costs(arguments: CostArguments) -> None:
    """Prints the cost of runs. Raises `InputError` C010 for an invalid time, C043 for an unknown key, E040 for an
    invalid tag.
    """
    from orchestra.app.costs import cost_keys, costs, fleet_servers
    from orchestra.cli.runs.find import open_existing_journal
    from orchestra.core.tags import parse_tags
    from orchestra.journal.memory import MemoryJournal

    since, until = map(_to_datetime, parse_period(arguments.since, arguments.until))
    tags = parse_tags(arguments.tags or ())
    settings = load_settings_to_inspect()
    unknown = ""
    try:
        fleet = fleet_servers(settings)
    except InputError as error:
        unknown, fleet = error.message, {}
    by = cost_keys(part.strip() for part in arguments.by.split(","))
    async with open_existing_journal() as journal:
        cost_report = await costs(
            journal or MemoryJournal(), fleet, by, since=since, until=until, workflow=arguments.workflow, tags=tags
        )
    if unknown and cost_report.total.unpriced:
        print_note(f"no prices are known: {unknown}")
    if arguments.as_json:
        print_json(as_data(cost_report, arguments.limit))
    elif arguments.as_csv:
        _print_csv(cost_report, arguments.limit)
    elif cost_report.total.runs or cost_report.unreadable:
        _show_table(cost_report, arguments.limit)
        for line in _notes(cost_report, fleet):
            print_text(escape_invisible(line), style="dim")
    else:
        print_text(
            "no matching runs"
            if journal is not None and (since or until or arguments.workflow or tags)
            else "no runs yet; start one with: orchestra run NAME"
        )


def _to_datetime(at: float) -> datetime | None:
    return datetime.fromtimestamp(at, UTC) if isfinite(at) else None


def as_data(found: CostReport, max_rows: int | None = None) -> dict[str, Any]:
    """Costs as JSON values. Money is null if a price is unknown."""
    return {
        "by": found.group_by,
        "rows": [{**row.group, **_cost_data(row.cost)} for row in _top_rows(found, max_rows)],
        "total": _cost_data(found.total),
        "unfinished": found.unfinished,
        "saved": {
            "plans": found.reused_plans,
            "calls": found.saved_usage.calls,
            "prompt_tokens": found.saved_usage.prompt_tokens,
            "output_tokens": found.saved_usage.output_tokens,
        },
        "unread": found.unreadable,
    }


def _top_rows(cost_report: CostReport, max_rows: int | None) -> Sequence[CostRow]:
    """The shown rows: the most expensive ones, or the latest days and months."""
    return (
        cost_report.rows[-max_rows:]
        if max_rows and cost_report.group_by[0] in ("day", "month")
        else cost_report.rows[:max_rows]
    )


def _cost_data(cost: CostTotal) -> dict[str, Any]:
    usage = cost.usage
    return {
        "runs": cost.runs,
        "calls": usage.calls,
        "recalled": cost.reused,
        "open": cost.open,
        "prompt_tokens": usage.prompt_tokens,
        "cached_tokens": usage.cached_tokens,
        "output_tokens": usage.output_tokens,
        "assumed_tokens": usage.estimated_tokens,
        "seconds": usage.seconds,
        "money": cost.money,
        "unpriced": cost.unpriced,
    }


def _print_csv(cost_report: CostReport, max_rows: int | None) -> None:
    """Prints one row for each group, without a total, which spreadsheets compute."""
    from orchestra.app.costs import CostTotal

    rows = [
        (*row.group.values(), *{**_cost_data(row.cost), "unpriced": sum(row.cost.unpriced.values())}.values())
        for row in _top_rows(cost_report, max_rows)
    ]
    print_text(to_csv([(*cost_report.group_by, *_cost_data(CostTotal())), *rows]).rstrip("\n"))
    for unreadable_run in cost_report.unreadable:
        print_note(f"left out: run {unreadable_run.run}, {unreadable_run.code}: {unreadable_run.reason}")


def _show_table(cost_report: CostReport, max_rows: int | None) -> None:
    """Prints a table and its total. Optional columns are omitted on a narrow terminal."""
    from orchestra.core.tags import TAG_PREFIX

    cost_rows = _top_rows(cost_report, max_rows)
    column_names = {"runs", "calls", "tokens in", "out", "time"}
    column_names |= {"recalled"} if cost_report.total.reused else set()
    column_names |= {"money"} if cost_report.total.usage.money > 0 or cost_report.total.unpriced else set()
    rows = [
        (
            [row.group[key] or f"no {key.removeprefix(TAG_PREFIX)}" for key in cost_report.group_by],
            _format_figures(row.cost),
        )
        for row in cost_rows
    ]
    rows.append((["total"], _format_figures(cost_report.total)))
    headings = [HEADINGS.get(key, key.removeprefix(TAG_PREFIX)) for key in cost_report.group_by]
    figures = [name for name in rows[-1][1] if name in column_names]
    screen = make_console()
    while not _fits(headings, figures, rows, screen.width) and (
        least := next((name for name in OPTIONAL_COLUMNS if name in figures), "")
    ):
        figures.remove(least)
    cells = [(*names, *[""] * (len(headings) - len(names)), *(of[name] for name in figures)) for names, of in rows]
    print_table((*headings, *figures), cells, right=range(len(headings), len(headings) + len(figures)))
    if len(cost_rows) < len(cost_report.rows):
        print_text(
            f"and {pluralize(len(cost_report.rows) - len(cost_rows), 'row')} more, included in the total", style="dim"
        )
    if column_names - set(figures):
        print_text(
            "a wider terminal also shows "
            f"{', '.join(name for name in OPTIONAL_COLUMNS if name in column_names - set(figures))}",
            style="dim",
        )


def _fits(
    headings: Sequence[str], figures: Sequence[str], rows: Sequence[tuple[list[str], Mapping[str, str]]], width: int
) -> bool:
    """True if a line has space for all figures beside folded names, so that no number is broken."""
    from orchestra.journal.costs import TIME_KEYS

    widths = [max(len(name), *(len(of[name]) for _, of in rows)) for name in figures]
    widths += [len("2026-11-28") if heading in TIME_KEYS else MIN_NAME_WIDTH for heading in headings]
    return sum(widths) + COLUMN_GAP * (len(widths) - 1) <= width


def _format_figures(cost: CostTotal) -> dict[str, str]:
    """Formats the figures, by heading."""
    usage = cost.usage
    about = "~" if usage.estimated_tokens else ""
    return {
        "runs": f"{cost.runs:,}",
        "calls": f"{usage.calls:,}",
        "recalled": f"{cost.reused:,}",
        "tokens in": f"{about}{usage.prompt_tokens:,}",
        "out": f"{about}{usage.output_tokens:,}",
        "time": format_duration(usage.seconds),
        "money": "?"
        if cost.money is None
        else f"{format_money(cost.money)}+"
        if cost.unpriced
        else format_money(cost.money),
    }


def _notes(cost_report: CostReport, fleet: Mapping[str, LocalServer | Endpoint]) -> Iterator[str]:
    """Notes on what the figures leave out."""
    total = cost_report.total
    for server, calls in sorted(total.unpriced.items(), key=lambda item: (-item[1], item[0])):
        yield f"not in the money: {pluralize(calls, 'call')} on {server}, {_missing_price_reason(fleet.get(server))}"
    if total.usage.estimated_tokens:
        yield (
            f"~ with {pluralize(total.usage.estimated_tokens, 'token')} not counted by a server: an upper "
            "bound for interrupted answers"
        )
    if total.reused:
        yield f"{pluralize(total.reused, 'answer')} recalled from other runs, at no cost"
    if cost_report.reused_plans:
        usage = cost_report.saved_usage
        tokens = usage.prompt_tokens + usage.output_tokens
        yield (
            f"{pluralize(cost_report.reused_plans, 'plan')} served again: {pluralize(usage.calls, 'call')} and "
            f"{tokens:,} tokens saved"
        )
    if cost_report.unfinished:
        yield f"{pluralize(cost_report.unfinished, 'run')} without an end, with their cost so far"
    if total.open:
        yield f"{pluralize(total.open, 'call')} active or interrupted: the cost is unknown"
    for unreadable_run in cost_report.unreadable[:MAX_NOTES]:
        yield f"left out: run {unreadable_run.run}, {unreadable_run.code}: {unreadable_run.reason}"
    if len(cost_report.unreadable) > MAX_NOTES:
        yield f"left out: {len(cost_report.unreadable) - MAX_NOTES} more unreadable runs; --json lists them"


def _missing_price_reason(server: LocalServer | Endpoint | None) -> str:
    from orchestra.fleet.config import Endpoint

    match server:
        case None:
            return "which is in no fleet file"
        case Endpoint(price=None):
            return "which has no `price:` in the fleet file"
        case _:
            return "which had no `price:` then"


@dataclass(frozen=True, slots=True)
class CostArguments:
    """The arguments of `orchestra runs costs`."""

    by: Annotated[
        str,
        typer.Option(
            metavar="KEYS",
            help="workflow, agent, model, server, day, month, label, status, purpose, run or tag:NAME; or "
            "several: day,agent.",
        ),
    ] = "workflow"
    since: SinceOption = None
    until: UntilOption = None
    tags: TagFilterOption = None
    workflow: Annotated[
        str, typer.Option(metavar="NAME", help="Only runs of this workflow or agent.", show_default=False)
    ] = ""
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit",
            "-n",
            min=1,
            help="The maximum number of rows: the most expensive ones, or the latest days.",
            show_default="all",
        ),
    ] = None
    as_json: JsonOption = False
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV for spreadsheets.")] = False


def register(runs: typer.Typer) -> None:
    """Adds `orchestra runs costs`."""
    add_command(runs, costs_command, "costs", panel="Inspect")


def costs_command(arguments: CostArguments) -> None:
    """Sum the cost of runs: calls, tokens, time, and money where prices are known.

    The whole cost of a run counts on the day of its start. Calls of unknown price are not counted as free.
    """
    import asyncio

    if arguments.as_json and arguments.as_csv:
        raise InputError("C010", "--json and --csv exclude each other", hint="use one of them")
    asyncio.run(show_costs(arguments))

"""What `orchestra runs costs` does: what runs took, summed up, as a table, as JSON or as CSV."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from math import isfinite
from typing import TYPE_CHECKING, Any

from orchestra.app.costs import Cost, CostRow, Costs, Key, costs, keys, servers
from orchestra.cli.context import settings_to_inspect
from orchestra.cli.csv_text import csv_text
from orchestra.cli.output import console, money, note, print_json, say, seconds, table
from orchestra.cli.runs.find import opened_journal
from orchestra.cli.timestamps import period
from orchestra.core.errors import InputError
from orchestra.core.tags import PREFIX, typed
from orchestra.core.untrusted_text import counted, visible
from orchestra.fleet.config import Endpoint, LocalServer
from orchestra.journal.costs import TIMES
from orchestra.journal.memory import MemoryJournal

if TYPE_CHECKING:
    from orchestra.cli.runs.commands import Costing

MAX_NOTES = 5
NARROW = 14
"""Characters of a narrow terminal that a name has at least."""
LEAST = ("recalled", "time", "runs")
"""What a narrow terminal goes without, in this order."""
GAP = 2
HEADINGS: Mapping[Key, str] = {"agent": "agent or tool"}


async def show_costs(asked: Costing) -> None:
    """Prints what runs took. Raises `InputError` C010 for no moment, C043 for what costs are not summed up by, E040 for what is no tag."""
    since, until = map(_moment, period(asked.since, asked.until))
    tags = typed(asked.tags or ())
    chosen = settings_to_inspect()
    unknown = ""
    try:
        fleet = servers(chosen)
    except InputError as error:
        unknown, fleet = error.message, {}
    by = keys(part.strip() for part in asked.by.split(","))
    async with opened_journal() as journal:
        found = await costs(journal or MemoryJournal(), fleet, by, since=since, until=until, workflow=asked.workflow, tags=tags)
    if unknown and found.total.unpriced:
        note(f"no prices are known: {unknown}")
    if asked.as_json:
        print_json(data(found, asked.limit))
    elif asked.as_csv:
        _print_csv(found, asked.limit)
    elif found.total.runs or found.unread:
        _show(found, asked.limit)
        for line in _notes(found, fleet):
            say(visible(line), style="dim")
    else:
        say(
            "no such runs"
            if journal is not None and (since or until or asked.workflow or tags)
            else "no runs yet; begin with: orchestra run NAME"
        )


def _moment(at: float) -> datetime | None:
    return datetime.fromtimestamp(at, UTC) if isfinite(at) else None


def data(found: Costs, most: int | None = None) -> dict[str, Any]:
    """Costs as one JSON object. Money is null where no price is known of what costs money."""
    return {
        "by": found.by,
        "rows": [{**row.of, **_figures(row.cost)} for row in _first(found, most)],
        "total": _figures(found.total),
        "unfinished": found.unfinished,
        "saved": {
            "plans": found.plans,
            "calls": found.saved.calls,
            "prompt_tokens": found.saved.prompt_tokens,
            "output_tokens": found.saved.output_tokens,
        },
        "unread": found.unread,
    }


def _first(found: Costs, most: int | None) -> Sequence[CostRow]:
    """The rows that are shown: the dearest, or of days and months the latest."""
    return found.rows[-most:] if most and found.by[0] in ("day", "month") else found.rows[:most]


def _figures(cost: Cost) -> dict[str, Any]:
    usage = cost.usage
    return {
        "runs": cost.runs,
        "calls": usage.calls,
        "recalled": cost.recalled,
        "open": cost.open,
        "prompt_tokens": usage.prompt_tokens,
        "cached_tokens": usage.cached_tokens,
        "output_tokens": usage.output_tokens,
        "assumed_tokens": usage.assumed,
        "seconds": usage.seconds,
        "money": cost.money,
        "unpriced": cost.unpriced,
    }


def _print_csv(found: Costs, most: int | None) -> None:
    """Prints a row for each kind, and no total: whoever adds a column up has it."""
    rows = [
        (*row.of.values(), *{**_figures(row.cost), "unpriced": sum(row.cost.unpriced.values())}.values()) for row in _first(found, most)
    ]
    say(csv_text([(*found.by, *_figures(Cost())), *rows]).rstrip("\n"))
    for left in found.unread:
        note(f"left out: run {left.run}, {left.code}: {left.reason}")


def _show(found: Costs, most: int | None) -> None:
    """Prints a table, and below it the total. A terminal that is too narrow for all columns goes without the least of them."""
    shown = _first(found, most)
    wanted = {"runs", "calls", "tokens in", "out", "time"}
    wanted |= {"recalled"} if found.total.recalled else set()
    wanted |= {"money"} if found.total.usage.money > 0 or found.total.unpriced else set()
    rows = [([row.of[key] or f"no {key.removeprefix(PREFIX)}" for key in found.by], _figures_of(row.cost)) for row in shown]
    rows.append((["total"], _figures_of(found.total)))
    headings = [HEADINGS.get(key, key.removeprefix(PREFIX)) for key in found.by]
    figures = [name for name in rows[-1][1] if name in wanted]
    screen = console()
    while not _fit(headings, figures, rows, screen.width) and (least := next((name for name in LEAST if name in figures), "")):
        figures.remove(least)
    cells = [(*names, *[""] * (len(headings) - len(names)), *(of[name] for name in figures)) for names, of in rows]
    screen.print(table((*headings, *figures), cells, right=range(len(headings), len(headings) + len(figures))))
    if len(shown) < len(found.rows):
        say(f"and {counted(len(found.rows) - len(shown), 'row')} more, which are in the total", style="dim")
    if wanted - set(figures):
        say(f"a wider terminal shows {', '.join(name for name in LEAST if name in wanted - set(figures))} as well", style="dim")


def _fit(headings: Sequence[str], figures: Sequence[str], rows: Sequence[tuple[list[str], Mapping[str, str]]], width: int) -> bool:
    """Whether a line has room for the figures beside names that fold: no number is wider than a name is then, so none is broken."""
    widths = [max(len(name), *(len(of[name]) for _, of in rows)) for name in figures]
    widths += [len("2026-11-28") if heading in TIMES else NARROW for heading in headings]
    return sum(widths) + GAP * (len(widths) - 1) <= width


def _figures_of(cost: Cost) -> dict[str, str]:
    """As people read them, by their headings."""
    usage = cost.usage
    about = "~" if usage.assumed else ""
    return {
        "runs": f"{cost.runs:,}",
        "calls": f"{usage.calls:,}",
        "recalled": f"{cost.recalled:,}",
        "tokens in": f"{about}{usage.prompt_tokens:,}",
        "out": f"{about}{usage.output_tokens:,}",
        "time": seconds(usage.seconds),
        "money": "?" if cost.money is None else f"{money(cost.money)}+" if cost.unpriced else money(cost.money),
    }


def _notes(found: Costs, fleet: Mapping[str, LocalServer | Endpoint]) -> Iterator[str]:
    """What the figures do not say."""
    total = found.total
    for server, calls in sorted(total.unpriced.items(), key=lambda one: (-one[1], one[0])):
        yield f"not in the money: {counted(calls, 'call')} on {server}, {_why(fleet.get(server))}"
    if total.usage.assumed:
        yield f"~ with {counted(total.usage.assumed, 'token')} that no server counted: as many as answers that broke off may have cost"
    if total.recalled:
        yield f"{counted(total.recalled, 'answer')} recalled from other runs, at no cost"
    if found.plans:
        saved = found.saved
        tokens = saved.prompt_tokens + saved.output_tokens
        yield f"{counted(found.plans, 'plan')} served again: {counted(saved.calls, 'call')} and {tokens:,} tokens saved"
    if found.unfinished:
        yield f"{counted(found.unfinished, 'run')} without an end, with what was spent so far"
    if total.open:
        yield f"{counted(total.open, 'call')} under way or cut off: what {'it' if total.open == 1 else 'they'} took is not known"
    for left in found.unread[:MAX_NOTES]:
        yield f"left out: run {left.run}, {left.code}: {left.reason}"
    if len(found.unread) > MAX_NOTES:
        yield f"left out: {len(found.unread) - MAX_NOTES} runs more that cannot be read; --json names them"


def _why(server: LocalServer | Endpoint | None) -> str:
    match server:
        case None:
            return "which no fleet file has"
        case Endpoint(price=None):
            return "which has no `price:` in the fleet file"
        case _:
            return "which had no `price:` then"

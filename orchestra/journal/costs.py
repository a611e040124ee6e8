"""Costs: what many runs took, summed up by what they have in common. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeAlias

from orchestra.core.events import NOTHING, Event, Usage
from orchestra.core.protocols import CallUsage, RunUsage
from orchestra.core.tags import PREFIX
from orchestra.journal.usage import usage_of

Key: TypeAlias = str
"""What costs are summed up by: one of `KEYS`, or `tag:NAME`. `agent` is whoever was asked, a tool too; `day` and `month` are those in which
the run began, here."""
KEYS: tuple[Key, ...] = ("workflow", "agent", "model", "server", "day", "month", "label", "status", "purpose", "run")
OF_CALLS = ("agent", "model", "server")
TIMES = ("day", "month")


@dataclass(slots=True)
class Cost:
    """What some runs took, or some of their calls."""

    runs: int = 0
    usage: Usage = NOTHING
    """Of the calls that went out; seconds are those of the calls, which may have been under way side by side."""
    recalled: int = 0
    """Answers that another run had been given: no call went out, and they cost nothing."""
    open: int = 0
    """Calls that have no end on record, because they are under way or were cut off: what they took is not known."""
    unpriced: dict[str, int] = field(default_factory=dict)
    """By server: calls that may have cost money, and nobody knows how much. They are in `usage`, without money."""

    @property
    def money(self) -> float | None:
        """In the currency of the fleet's prices; None where the price of none of the calls that cost money is known."""
        return None if self.unpriced and not self.usage.money else self.usage.money


@dataclass(frozen=True, slots=True)
class CostRow:
    """What the runs, or the calls, of one kind took: `of` has its name by each key, in the order of `Costs.by`."""

    of: dict[str, str]
    cost: Cost


@dataclass(frozen=True, slots=True)
class Unread:
    """A run that is left out, because it cannot be read."""

    run: str
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class Costs:
    """What runs took, by what was asked for; the dearest first, days and months in their order."""

    by: tuple[Key, ...]
    rows: tuple[CostRow, ...]
    total: Cost
    """Of all runs. A run that asked several agents counts in the row of each, and once here."""
    unfinished: int = 0
    """Runs without an end: they count with what they took so far."""
    plans: int = 0
    """Plans that nobody was asked for, because they had served before."""
    saved: Usage = NOTHING
    """What these plans had cost when they were made."""
    unread: tuple[Unread, ...] = ()


@dataclass(slots=True)
class _Row(Cost):
    last: str = ""
    """The run that was counted last."""


class Counting:
    """Sums up runs, one after the other. It holds a row for each kind, and no run."""

    def __init__(self, by: Sequence[Key], unpriced: Callable[[str, Usage], str]) -> None:
        """`unpriced` names the server of calls that cost money of which nobody knows how much, by their server and their usage; empty for
        all others."""
        self._by, self._unpriced = tuple(by), unpriced
        self._of_calls = any(key in OF_CALLS for key in by)
        self._rows: dict[tuple[str, ...], _Row] = {}
        self._total = _Row()
        self._unfinished = self._plans = 0
        self._saved = NOTHING
        self._unread: list[Unread] = []

    def leave_out(self, run: str, code: str, reason: str) -> None:
        """Notes a run that cannot be read."""
        self._unread.append(Unread(run, code, reason))

    def add(self, run: str, events: Sequence[Event], standing: str = "") -> None:
        """Counts a run, as far as it has come; `standing` is the status of one without an end, where that is known."""
        self.count(run, usage_of(events), standing)

    def count(self, run: str, used: RunUsage | None, standing: str = "") -> None:
        """Counts what a run used, as `add` does; None where its first event is missing."""
        if used is None:
            self.leave_out(run, "J013", "it does not begin with its beginning")
            return
        self._unfinished += not used.status
        shared = {key: _of_run(key, run, used, standing or "running") for key in self._by if key not in OF_CALLS}
        self._total.runs += 1
        if not self._of_calls:
            self._row(tuple(shared.values()), run)
        for calls in used.calls:
            unpriced = self._unpriced(calls.server, calls.usage)
            for row in (self._row(self._key(shared, calls), run), self._total):
                row.usage += calls.usage
                row.recalled += calls.recalled
                row.open += calls.open
                if unpriced:
                    row.unpriced[unpriced] = row.unpriced.get(unpriced, 0) + calls.finished
        self._plans += used.plans
        self._saved += used.saved

    def costs(self) -> Costs:
        """What was counted so far."""
        found = {key: CostRow(dict(zip(self._by, key, strict=True)), _cost(row)) for key, row in self._rows.items()}
        sums: dict[tuple[str, ...], tuple[float, ...]] = {}
        for key, row in found.items():
            for end in range(1, len(key) + 1):
                sums[key[:end]] = tuple(map(sum, zip(sums.get(key[:end], (0.0, 0, 0.0)), _dear(row.cost.usage), strict=True)))

        def place(key: tuple[str, ...]) -> list[tuple[list[float], str]]:
            """By each part of the key: times in their order, all else by what it took together."""
            parts = enumerate(zip(self._by, key, strict=True), 1)
            return [([] if by in TIMES else [-part for part in sums[key[:end]]], name) for end, (by, name) in parts]

        rows = tuple(found[key] for key in sorted(found, key=place))
        return Costs(self._by, rows, _cost(self._total), self._unfinished, self._plans, self._saved, tuple(self._unread))

    def _row(self, key: tuple[str, ...], run: str) -> _Row:
        if (row := self._rows.get(key)) is None:
            row = self._rows[key] = _Row()
        if row.last != run:
            row.last, row.runs = run, row.runs + 1
        return row

    def _key(self, shared: dict[Key, str], calls: CallUsage) -> tuple[str, ...]:
        if not self._of_calls:
            return tuple(shared.values())
        own = {"agent": calls.agent, "model": calls.model, "server": calls.server}
        return tuple(own[key] if key in OF_CALLS else shared[key] for key in self._by)


def _cost(row: _Row) -> Cost:
    return Cost(row.runs, row.usage, row.recalled, row.open, row.unpriced)


def _dear(usage: Usage) -> tuple[float, ...]:
    return usage.money, usage.prompt_tokens + usage.output_tokens, usage.seconds


def _of_run(key: Key, run: str, used: RunUsage, standing: str) -> str:
    match key:
        case "workflow":
            return used.workflow
        case "label":
            return used.label
        case "status":
            return used.status or standing
        case "purpose":
            return used.purpose
        case "day" | "month":
            return _date(used.started)[: len("2026-11") if key == "month" else None]
        case "run":
            return run
        case _:
            return used.tags.get(key.removeprefix(PREFIX), "")


def _date(at: float) -> str:
    """The day of a time, here; the number itself where it is no time, for a journal may be damaged."""
    try:
        return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d")
    except (ValueError, OverflowError, OSError):
        return f"{at:g}"

"""Costs: what many runs took, summed up by what they have in common. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeAlias

from orchestra.core.events import NO_USAGE, Event, Usage
from orchestra.core.protocols import CallUsage, RunUsage
from orchestra.core.tags import TAG_PREFIX
from orchestra.journal.usage import usage_of

CostKey: TypeAlias = str
"""The key that costs are grouped by: one of `COST_KEYS`, or `tag:NAME`. `agent` is the agent or tool of the call; `day` and `month` are
those of the start of the run, in local time."""
COST_KEYS: tuple[CostKey, ...] = (
    "workflow",
    "agent",
    "model",
    "server",
    "day",
    "month",
    "label",
    "status",
    "purpose",
    "run",
)
CALL_KEYS = ("agent", "model", "server")
TIME_KEYS = ("day", "month")


@dataclass(slots=True)
class CostTotal:
    """What some runs took, or some of their calls."""

    runs: int = 0
    usage: Usage = NO_USAGE
    """Of the calls that went out; seconds are those of the calls, which may have been under way side by side."""
    reused: int = 0
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
    """What the runs, or the calls, of one kind took: `group` has its name by each key, in the order of `CostReport.by`."""

    group: dict[str, str]
    cost: CostTotal


@dataclass(frozen=True, slots=True)
class UnreadableRun:
    """A run that is left out, because it cannot be read."""

    run: str
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class CostReport:
    """What runs took, by what was asked for; the dearest first, days and months in their order."""

    group_by: tuple[CostKey, ...]
    rows: tuple[CostRow, ...]
    total: CostTotal
    """Of all runs. A run that asked several agents counts in the row of each, and once here."""
    unfinished: int = 0
    """Runs without an end: they count with what they took so far."""
    reused_plans: int = 0
    """Plans that nobody was asked for, because they had served before."""
    saved_usage: Usage = NO_USAGE
    """What these plans had cost when they were made."""
    unreadable: tuple[UnreadableRun, ...] = ()


@dataclass(slots=True)
class _CostAccumulator(CostTotal):
    last_run: str = ""
    """The run that was counted last."""


class CostCounter:
    """Sums up runs, one after the other. It holds a row for each kind, and no run."""

    def __init__(self, group_by: Sequence[CostKey], unpriced_server: Callable[[str, Usage], str]) -> None:
        """`unpriced` names the server of calls that cost money of which nobody knows how much, by their server and their usage; empty for
        all others."""
        self._group_by, self._unpriced_server = tuple(group_by), unpriced_server
        self._by_call = any(key in CALL_KEYS for key in group_by)
        self._rows: dict[tuple[str, ...], _CostAccumulator] = {}
        self._total = _CostAccumulator()
        self._unfinished = self._reused_plans = 0
        self._saved_usage = NO_USAGE
        self._unreadable: list[UnreadableRun] = []

    def skip_run(self, run: str, code: str, reason: str) -> None:
        """Notes a run that cannot be read."""
        self._unreadable.append(UnreadableRun(run, code, reason))

    def add_events(self, run: str, events: Sequence[Event], status: str = "") -> None:
        """Counts a run, as far as it has come; `status` is the status of one without an end, where that is known."""
        self.add_usage(run, usage_of(events), status)

    def add_usage(self, run: str, usage: RunUsage | None, status: str = "") -> None:
        """Counts what a run used, as `add_events` does; None where its first event is missing."""
        if usage is None:
            self.skip_run(run, "J013", "it does not begin with its beginning")
            return
        self._unfinished += not usage.status
        shared = {
            key: _run_group(key, run, usage, status or "running") for key in self._group_by if key not in CALL_KEYS
        }
        self._total.runs += 1
        if not self._by_call:
            self._row(tuple(shared.values()), run)
        for calls in usage.calls:
            unpriced = self._unpriced_server(calls.server, calls.usage)
            for row in (self._row(self._key(shared, calls), run), self._total):
                row.usage += calls.usage
                row.reused += calls.reused
                row.open += calls.open
                if unpriced:
                    row.unpriced[unpriced] = row.unpriced.get(unpriced, 0) + calls.finished
        self._reused_plans += usage.reused_plans
        self._saved_usage += usage.saved_usage

    def report(self) -> CostReport:
        """What was counted so far."""
        found = {
            key: CostRow(dict(zip(self._group_by, key, strict=True)), _cost_total(row))
            for key, row in self._rows.items()
        }
        sums: dict[tuple[str, ...], tuple[float, ...]] = {}
        for key, row in found.items():
            for end in range(1, len(key) + 1):
                sums[key[:end]] = tuple(
                    map(sum, zip(sums.get(key[:end], (0.0, 0, 0.0)), _cost_order(row.cost.usage), strict=True))
                )

        def place(key: tuple[str, ...]) -> list[tuple[list[float], str]]:
            """By each part of the key: times in their order, all else by what it took together."""
            parts = enumerate(zip(self._group_by, key, strict=True), 1)
            return [([] if by in TIME_KEYS else [-part for part in sums[key[:end]]], name) for end, (by, name) in parts]

        rows = tuple(found[key] for key in sorted(found, key=place))
        return CostReport(
            self._group_by,
            rows,
            _cost_total(self._total),
            self._unfinished,
            self._reused_plans,
            self._saved_usage,
            tuple(self._unreadable),
        )

    def _row(self, key: tuple[str, ...], run: str) -> _CostAccumulator:
        if (row := self._rows.get(key)) is None:
            row = self._rows[key] = _CostAccumulator()
        if row.last_run != run:
            row.last_run, row.runs = run, row.runs + 1
        return row

    def _key(self, shared: dict[CostKey, str], calls: CallUsage) -> tuple[str, ...]:
        if not self._by_call:
            return tuple(shared.values())
        own = {"agent": calls.agent, "model": calls.model, "server": calls.server}
        return tuple(own[key] if key in CALL_KEYS else shared[key] for key in self._group_by)


def _cost_total(row: _CostAccumulator) -> CostTotal:
    return CostTotal(row.runs, row.usage, row.reused, row.open, row.unpriced)


def _cost_order(usage: Usage) -> tuple[float, ...]:
    return usage.money, usage.prompt_tokens + usage.output_tokens, usage.seconds


def _run_group(key: CostKey, run: str, usage: RunUsage, status: str) -> str:
    match key:
        case "workflow":
            return usage.workflow
        case "label":
            return usage.label
        case "status":
            return usage.status or status
        case "purpose":
            return usage.purpose
        case "day" | "month":
            return _date(usage.started)[: len("2026-11") if key == "month" else None]
        case "run":
            return run
        case _:
            return usage.tags.get(key.removeprefix(TAG_PREFIX), "")


def _date(at: float) -> str:
    """The day of a time, here; the number itself where it is no time, for a journal may be damaged."""
    try:
        return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d")
    except (ValueError, OverflowError, OSError):
        return f"{at:g}"

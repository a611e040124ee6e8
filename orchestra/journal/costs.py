"""Costs of many runs, grouped by common properties. Pure."""

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
"""The key that costs are grouped by: one of `COST_KEYS`, or `tag:NAME`. `agent` is the agent or tool of the call; `day`
and `month` are those of the start of the run, in local time.
"""
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
    """Costs of some runs, or of some of their calls."""

    runs: int = 0
    usage: Usage = NO_USAGE
    """Usage of the calls that were made; seconds are summed over calls, which may have run in parallel."""
    reused: int = 0
    """Answers reused from other runs, at no cost."""
    open: int = 0
    """Calls without an end, because they are open or were interrupted; their usage is unknown."""
    unpriced: dict[str, int] = field(default_factory=dict)
    """Number of calls by server that may have cost money at an unknown price. They are in `usage`, without money."""

    @property
    def money(self) -> float | None:
        """In the currency of the fleet's prices; None if no price of a call that costs money is known."""
        return None if self.unpriced and not self.usage.money else self.usage.money


@dataclass(frozen=True, slots=True)
class CostRow:
    """Costs of one group of runs or calls. `group` has its name for each key, in the order of `CostReport.by`."""

    group: dict[str, str]
    cost: CostTotal


@dataclass(frozen=True, slots=True)
class UnreadableRun:
    """A run that is left out because it cannot be read."""

    run: str
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class CostReport:
    """Costs of runs by group: the most expensive first, days and months in order."""

    group_by: tuple[CostKey, ...]
    rows: tuple[CostRow, ...]
    total: CostTotal
    """Total of all runs. A run that called several agents counts in the row of each, and once here."""
    unfinished: int = 0
    """Runs without an end, included with their usage so far."""
    reused_plans: int = 0
    """Number of reused plans."""
    saved_usage: Usage = NO_USAGE
    """Cost of these plans when they were made."""
    unreadable: tuple[UnreadableRun, ...] = ()


@dataclass(slots=True)
class _CostAccumulator(CostTotal):
    last_run: str = ""
    """The last run that was counted."""


class CostCounter:
    """Sums up runs one by one. It holds one row per group, and no runs."""

    def __init__(self, group_by: Sequence[CostKey], unpriced_server: Callable[[str, Usage], str]) -> None:
        """`unpriced` returns the server of a call that costs money at an unknown price, given its server and usage;
        empty for all other calls.
        """
        self._group_by, self._unpriced_server = tuple(group_by), unpriced_server
        self._by_call = any(key in CALL_KEYS for key in group_by)
        self._rows: dict[tuple[str, ...], _CostAccumulator] = {}
        self._total = _CostAccumulator()
        self._unfinished = self._reused_plans = 0
        self._saved_usage = NO_USAGE
        self._unreadable: list[UnreadableRun] = []

    def skip_run(self, run: str, code: str, reason: str) -> None:
        """Records a run that cannot be read."""
        self._unreadable.append(UnreadableRun(run, code, reason))

    def add_events(self, run: str, events: Sequence[Event], status: str = "") -> None:
        """Counts a run so far. `status` is the status of a run without an end, if known."""
        self.add_usage(run, usage_of(events), status)

    def add_usage(self, run: str, usage: RunUsage | None, status: str = "") -> None:
        """Counts the usage of a run; None if its first event is missing."""
        if usage is None:
            self.skip_run(run, "J013", "its first event is missing")
            return
        self._unfinished += not usage.status
        groups = {
            key: _run_group(key, run, usage, status or "running") for key in self._group_by if key not in CALL_KEYS
        }
        self._total.runs += 1
        if not self._by_call:
            self._row(tuple(groups.values()), run)
        for calls in usage.calls:
            unpriced_server = self._unpriced_server(calls.server, calls.usage)
            for row in (self._row(self._key(groups, calls), run), self._total):
                row.usage += calls.usage
                row.reused += calls.reused
                row.open += calls.open
                if unpriced_server:
                    row.unpriced[unpriced_server] = row.unpriced.get(unpriced_server, 0) + calls.finished
        self._reused_plans += usage.reused_plans
        self._saved_usage += usage.saved_usage

    def report(self) -> CostReport:
        """Returns the costs counted so far."""
        cost_rows = {
            key: CostRow(dict(zip(self._group_by, key, strict=True)), _cost_total(row))
            for key, row in self._rows.items()
        }
        sums: dict[tuple[str, ...], tuple[float, ...]] = {}
        for key, row in cost_rows.items():
            for end in range(1, len(key) + 1):
                sums[key[:end]] = tuple(
                    map(sum, zip(sums.get(key[:end], (0.0, 0, 0.0)), _cost_order(row.cost.usage), strict=True))
                )

        def sort_key(key: tuple[str, ...]) -> list[tuple[list[float], str]]:
            """Sort key: times in their order, other groups by their total."""
            parts = enumerate(zip(self._group_by, key, strict=True), 1)
            return [([] if by in TIME_KEYS else [-part for part in sums[key[:end]]], name) for end, (by, name) in parts]

        rows = tuple(cost_rows[key] for key in sorted(cost_rows, key=sort_key))
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

    def _key(self, groups: dict[CostKey, str], calls: CallUsage) -> tuple[str, ...]:
        if not self._by_call:
            return tuple(groups.values())
        call_groups = {"agent": calls.agent, "model": calls.model, "server": calls.server}
        return tuple(call_groups[key] if key in CALL_KEYS else groups[key] for key in self._group_by)


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
    """Returns the local date of a time; the number itself if it is not a valid time, as in a damaged journal."""
    try:
        return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d")
    except (ValueError, OverflowError, OSError):
        return f"{at:g}"

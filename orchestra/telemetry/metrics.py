"""Counters of the runs of this process, from their events, for Prometheus.

Labels are names of workflows, agents, tools, checks, models and error codes: never ids, inputs, tags or tenants. Each
label has at most `MAX_VALUES` values; further ones are counted as `other`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from orchestra.core.events import (
    AttemptFinished,
    AttemptStarted,
    Event,
    NodeFinished,
    OutputJudged,
    QuestionAnswered,
    QuestionAsked,
    RetryPlanned,
    RunFinished,
    RunResumed,
    RunStarted,
    Verdict,
)
from orchestra.core.outcomes import outcome_kind

MAX_VALUES: Final = 100
"""Maximum number of values of one label."""
OTHER: Final = "other"
MAX_RUNS: Final = 10_000
"""Maximum number of runs without an end whose names are kept; the oldest are dropped first."""
RUN_SECONDS: Final = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
"""Upper bounds of the buckets of `orchestra_run_seconds`."""
BUDGET_SHARES: Final = (0.25, 0.5, 0.75, 0.9, 1.0)
"""Upper bounds of the buckets of `orchestra_run_budget_used_ratio`."""
BUDGET_RESOURCES: Final = ("tokens", "calls", "seconds", "money")


@dataclass(frozen=True, slots=True, eq=False)  # compared by identity: its hash is taken for each event
class Family:
    """The name, the help text and the labels of a metric. Prometheus appends `_total` to the name of a counter."""

    name: str
    help: str
    labels: tuple[str, ...] = ()


RUNS_STARTED = Family("orchestra_runs_started", "Runs that this process began.", ("workflow",))
RUNS_RESUMED = Family("orchestra_runs_resumed", "Runs that this process took over or continued.", ("workflow",))
RUNS_FINISHED = Family(
    "orchestra_runs_finished",
    "Runs that ended in this process: done, failed, abstained, budget or cancelled.",
    ("workflow", "status"),
)
NODES_FINISHED = Family(
    "orchestra_nodes_finished", "Nodes that ended: value, skipped, abstained or failed.", ("workflow", "outcome")
)
CALLS = Family("orchestra_calls", "Attempts of agents and tools: ok, error or reused.", ("name", "result"))
CALL_ERRORS = Family("orchestra_call_errors", "Attempts that failed, by error code.", ("code",))
CALL_SECONDS = Family("orchestra_call_seconds", "Seconds that calls took.", ("name",))
RETRIES = Family("orchestra_retries", "Attempts that were planned after a failure or a rejection.")
ESCALATIONS = Family("orchestra_escalations", "Calls of larger models, by tier from 1.", ("tier",))
TOKENS = Family(
    "orchestra_tokens",
    "Tokens as the servers counted them: prompt (cached ones included), cached and output.",
    ("model", "kind"),
)
MONEY = Family("orchestra_money", "Cost in the currency of the fleet's prices.", ("model",))
RESENDS = Family("orchestra_resends", "Requests that were sent again because no model had received them.")
VERDICTS = Family("orchestra_verdicts", "Results of checks: pass, fail or unknown.", ("check", "outcome"))
JUDGEMENTS = Family("orchestra_judgements", "Values that were judged, by acceptance.", ("workflow", "accepted"))
QUESTIONS = Family("orchestra_questions", "Questions to persons: asked, answered or declined.", ("event",))
COUNTERS: Final = (
    RUNS_STARTED,
    RUNS_RESUMED,
    RUNS_FINISHED,
    NODES_FINISHED,
    CALLS,
    CALL_ERRORS,
    CALL_SECONDS,
    RETRIES,
    ESCALATIONS,
    TOKENS,
    MONEY,
    RESENDS,
    VERDICTS,
    JUDGEMENTS,
    QUESTIONS,
)
RUN_DURATION = Family("orchestra_run_seconds", "Seconds from the start of a run to its end.", ("workflow",))
BUDGET_USED = Family(
    "orchestra_run_budget_used_ratio", "Used share of the budget of a run at its end, by resource.", ("resource",)
)
HISTOGRAMS: Final = ((RUN_DURATION, RUN_SECONDS), (BUDGET_USED, BUDGET_SHARES))


@dataclass(slots=True)
class Histogram:
    """Observations of one series."""

    bounds: Sequence[float]
    counts: list[int]
    """Observations per bucket; the last one is above all bounds."""
    total: float = 0.0

    def add(self, value: float) -> None:
        """Adds an observation."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def cumulative(self) -> Iterator[tuple[str, int]]:
        """Yields the upper bound of each bucket, and the number of observations up to it."""
        count = 0
        for bound, increment in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            count += increment
            yield bound, count


@dataclass(slots=True)
class _Run:
    workflow: str
    started: float
    budget: Mapping[str, float] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    """Agents and tools of calls in progress, by node."""


class RunMetrics:
    """Counts the events of all runs of an `Orchestra`: `orchestra.observe(metrics.observe, metrics.restore)`."""

    def __init__(self) -> None:
        self.counters: dict[Family, dict[tuple[str, ...], float]] = {family: {} for family in COUNTERS}
        self.histograms: dict[Family, dict[tuple[str, ...], Histogram]] = {family: {} for family, _ in HISTOGRAMS}
        self._bounds = dict(HISTOGRAMS)
        self._values: dict[tuple[Family, str], set[str]] = {}
        self._runs: dict[str, _Run] = {}

    def restore(self, run: str, events: Sequence[Event]) -> None:
        """Reads the first event of a run that is about to be resumed. It is not counted again."""
        if isinstance(first := events[0], RunStarted) and run not in self._runs:
            self._add_run(first)

    def observe(self, run: str, event: Event) -> None:
        """Counts an event of a run."""
        if isinstance(event, RunStarted):
            self._add_run(event)
            self._count(RUNS_STARTED, event.workflow)
            return
        observed_run = self._runs.get(run)
        workflow = OTHER if observed_run is None else observed_run.workflow
        match event:
            case RunResumed():
                self._count(RUNS_RESUMED, workflow)
            case AttemptStarted():
                if observed_run is not None:
                    observed_run.names[event.node] = event.name
                if event.escalated:
                    self._count(ESCALATIONS, str(event.tier or 1))
            case AttemptFinished():
                self._count_call(event, workflow, observed_run)
            case OutputJudged():
                self._count(JUDGEMENTS, workflow, "yes" if event.accepted else "no")
                self._count_verdicts(event.verdicts)
            case RetryPlanned():
                self._count(RETRIES)
            case NodeFinished(outcome=outcome):
                self._count(NODES_FINISHED, workflow, outcome_kind(outcome))
            case QuestionAsked():
                self._count(QUESTIONS, "asked")
            case QuestionAnswered():
                self._count(QUESTIONS, "declined" if event.decline_reason else "answered")
            case RunFinished():
                self._finish_run(event, observed_run, workflow)
                self._runs.pop(run, None)
            case _:
                pass

    def _add_run(self, start_event: RunStarted) -> None:
        option = start_event.options.get("budget")
        limits = option if isinstance(option, Mapping) else {}
        budget = {
            name: float(limits[name])
            for name in BUDGET_RESOURCES
            if isinstance(limits.get(name), int | float) and limits[name] > 0
        }
        self._runs[start_event.run] = _Run(start_event.workflow, start_event.at, budget)
        if len(self._runs) > MAX_RUNS:
            del self._runs[next(iter(self._runs))]

    def _count_call(self, event: AttemptFinished, workflow: str, run: _Run | None) -> None:
        call_name = run.names.pop(event.node, "") if run is not None else ""
        name = event.name or call_name or OTHER
        usage = event.usage
        self._count(CALLS, name, "reused" if event.reused_from else "error" if event.error else "ok")
        self._count(CALL_SECONDS, name, amount=usage.seconds)
        self._count(RESENDS, amount=usage.resends)
        if event.error:
            self._count(CALL_ERRORS, event.error)
        if usage.prompt_tokens or usage.output_tokens:
            model = event.model or OTHER
            self._count(TOKENS, model, "prompt", amount=usage.prompt_tokens)
            self._count(TOKENS, model, "cached", amount=usage.cached_tokens)
            self._count(TOKENS, model, "output", amount=usage.output_tokens)
            self._count(MONEY, model, amount=usage.money)
        if event.final:
            self._count(NODES_FINISHED, workflow, "value")

    def _count_verdicts(self, verdicts: Sequence[Verdict]) -> None:
        for verdict in verdicts:
            self._count(VERDICTS, verdict.check, verdict.outcome)
            self._count_verdicts(verdict.parts)

    def _finish_run(self, event: RunFinished, run: _Run | None, workflow: str) -> None:
        self._count(RUNS_FINISHED, workflow, event.status)
        if run is None:
            return
        seconds = max(0.0, event.at - run.started)
        self._observe_value(RUN_DURATION, seconds, workflow)
        amounts = {
            "tokens": event.usage.prompt_tokens + event.usage.output_tokens,
            "calls": event.usage.calls,
            "seconds": seconds,
            "money": event.usage.money,
        }
        for resource, limit in run.budget.items():
            self._observe_value(BUDGET_USED, amounts[resource] / limit, resource)

    def _count(self, family: Family, *values: str, amount: float = 1) -> None:
        series = self.counters[family]
        if (before := series.get(values)) is not None:  # These values are within their limits.
            series[values] = before + amount
            return
        key = self._bounded(family, values)
        series[key] = series.get(key, 0) + amount

    def _observe_value(self, family: Family, value: float, *values: str) -> None:
        key, bounds = self._bounded(family, values), self._bounds[family]
        series = self.histograms[family]
        if key not in series:
            series[key] = Histogram(bounds, [0] * (len(bounds) + 1))
        series[key].add(value)

    def _bounded(self, family: Family, values: tuple[str, ...]) -> tuple[str, ...]:
        """Returns the values of the labels, with `other` for those beyond the limit."""
        bounded_values = []
        for label, value in zip(family.labels, values, strict=True):
            label_values = self._values.setdefault((family, label), set())
            if value not in label_values and len(label_values) >= MAX_VALUES:
                value = OTHER
            label_values.add(value)
            bounded_values.append(value)
        return tuple(bounded_values)

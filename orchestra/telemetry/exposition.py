"""The text of `/metrics` for Prometheus. The only module that imports `prometheus_client`, of the extra `server`.

Gauges are read when the text is requested: what the engine does, how long a write to the journal takes, and what is
known of the servers. The text has no data of a run and no names of tenants. It shows the load of the whole
installation, so a server gives it to administrators only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from orchestra.core.errors import OrchestraError
from orchestra.core.protocols import Journal
from orchestra.engine.engine import EngineActivity
from orchestra.fleet.status import FleetStatus
from orchestra.telemetry.metrics import COUNTERS, HISTOGRAMS, RunMetrics

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
JOURNAL_TIMEOUT: Final = 2.0
"""Seconds after which a write to the journal counts as failed."""
SERVER_STATES: Final = ("ready", "unknown", "idle", "starting", "restarting", "stopped", "failed")


Series: TypeAlias = Mapping[tuple[str, ...], float]
"""Values by the values of the labels."""


class MetricsSource(Protocol):
    """An open `Orchestra`, as the metrics read it."""

    @property
    def journal(self) -> Journal:
        """The journal of its runs."""

    def activity(self) -> EngineActivity:
        """Returns what its engine does now."""

    async def fleet_status(self, *, probe: bool = False) -> FleetStatus:
        """Returns the status of its servers."""


@dataclass(frozen=True, slots=True)
class Gauge:
    """A further metric, such as the budgets of a server's tenants: its series by the values of the labels."""

    name: str
    help: str
    labels: tuple[str, ...]
    series: Series


@dataclass(frozen=True, slots=True)
class Readings:
    """What was read for one text."""

    activity: EngineActivity
    fleet: FleetStatus
    journal_lag: float
    """Seconds until a write to the journal was durable."""
    journal_up: bool
    gauges: tuple[Gauge, ...] = ()


async def render_metrics(metrics: RunMetrics, source: MetricsSource, gauges: Iterable[Gauge] = ()) -> bytes:
    """Returns the text of `/metrics`, of the content type `CONTENT_TYPE`. The journal delays it by `JOURNAL_TIMEOUT` at
    most.

    Args:
        metrics: The counters; `source` has been observed with them.
        source: The open `Orchestra`.
        gauges: Further gauges of the server. Their labels must not name tenants.
    """
    lag, up = await _measure_journal(source.journal)
    readings = Readings(source.activity(), await source.fleet_status(), lag, up, tuple(gauges))
    registry = CollectorRegistry()
    registry.register(_RunCollector(metrics, readings))
    text: bytes = generate_latest(registry)
    return text


async def _measure_journal(journal: Journal) -> tuple[float, bool]:
    loop = asyncio.get_running_loop()
    start_time = loop.time()
    try:
        async with asyncio.timeout(JOURNAL_TIMEOUT):
            await journal.check_writable()
    except (OrchestraError, TimeoutError):
        return loop.time() - start_time, False
    return loop.time() - start_time, True


class _RunCollector(Collector):
    def __init__(self, metrics: RunMetrics, readings: Readings) -> None:
        self._metrics, self._readings = metrics, readings

    def describe(self) -> list[Metric]:
        """Returns nothing, so that registering does not collect."""
        return []

    def collect(self) -> Iterable[Metric]:
        """Yields all metrics."""
        for family in COUNTERS:
            counter = CounterMetricFamily(family.name, family.help, labels=family.labels)
            for labels, value in self._metrics.counters[family].items():
                counter.add_metric(labels, value)
            yield counter
        for family, _ in HISTOGRAMS:
            histogram = HistogramMetricFamily(family.name, family.help, labels=family.labels)
            for labels, series in self._metrics.histograms[family].items():
                histogram.add_metric(labels, list(series.cumulative()), sum_value=series.total)
            yield histogram
        yield from _activity_gauges(self._readings)
        yield from _fleet_gauges(self._readings.fleet)
        for gauge in self._readings.gauges:
            yield _gauge(gauge.name, gauge.help, gauge.series, *gauge.labels)


def _activity_gauges(readings: Readings) -> Iterable[Metric]:
    activity = readings.activity
    states: Series = {("running",): activity.running, ("waiting",): activity.waiting, ("followed",): activity.followed}
    yield _gauge(
        "orchestra_runs",
        "Runs in this process: running, waiting for a person, or followed because another process has them.",
        states,
        "state",
    )
    yield _gauge(
        "orchestra_engine_calls",
        "Calls of this process: in progress, or queued for a task.",
        {("in_progress",): activity.calls, ("queued",): activity.queued_calls},
        "state",
    )
    yield _gauge("orchestra_journal_up", "Whether the journal can be written.", {(): readings.journal_up})
    yield _gauge(
        "orchestra_journal_lag_seconds",
        "Seconds until a write to the journal was durable, measured for this text.",
        {(): readings.journal_lag},
    )


def _fleet_gauges(fleet: FleetStatus) -> Iterable[Metric]:
    servers = fleet.servers
    yield _gauge(
        "orchestra_fleet_server_state",
        "The state of a model server: 1 for the present one.",
        {(server.name, state): server.state == state for server in servers for state in SERVER_STATES},
        "server",
        "state",
    )
    for name, help_text in (
        ("in_flight", "Requests in progress at a model server."),
        ("waiting", "Requests of this process in the queue of a model server."),
        ("limit", "Maximum number of requests in progress at a model server."),
    ):
        yield _gauge(
            f"orchestra_fleet_{name}",
            help_text,
            {(server.name,): getattr(server, name) for server in servers},
            "server",
        )
    yield _gauge(
        "orchestra_fleet_breaker_open",
        "Whether requests to a model server pause after several failures.",
        {(server.name,): server.breaker == "open" for server in servers},
        "server",
    )
    yield _gauge(
        "orchestra_fleet_missing_models",
        "Models without a server that can serve.",
        {(): len(fleet.missing)},
    )


def _gauge(name: str, help_text: str, series: Series, *labels: str) -> Metric:
    gauge = GaugeMetricFamily(name, help_text, labels=labels)
    for values, value in series.items():
        gauge.add_metric(values, float(value))
    return gauge

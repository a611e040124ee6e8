"""Harness for tests of traces: an engine with simulated workers and virtual time, whose spans stay in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from orchestra.agents.contract import Catalog
from orchestra.core.labels import Label
from orchestra.engine.engine import Engine
from orchestra.engine.request import RunRequest
from orchestra.engine.run import Execution
from orchestra.journal.memory import MemoryJournal, MemoryStore
from orchestra.telemetry.otlp import OtlpSink
from orchestra.telemetry.tracing import RunTracer
from orchestra.testing import SimulatedWorkers, VirtualClock, run_simulated
from orchestra.workflows.program import Program
from tests.engine.stage import ANSWERS, CATALOG, program

VERSIONS = {
    **{f"card/{name}": f"digest-of-{name}" for name in (*CATALOG.agents, "entailment")},
    **{f"contract/tool/{name}": "0" * 32 for name in CATALOG.tools},
}
START = 1767225600.0
"""The start of virtual time."""


class Process:
    """One process: an engine, its tracer, and the spans that it exported."""

    def __init__(
        self, clock: VirtualClock, workers: SimulatedWorkers, store: MemoryStore, content: Label | None = None
    ) -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = RunTracer(OtlpSink(provider, "1.0"), content)
        self.journal = MemoryJournal(store)
        self.engine = Engine(clock, self.journal, workers, observe=self.tracer.observe, tracer=self.tracer)

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        return self.exporter.get_finished_spans()

    def start(self, compiled: Program, inputs: Mapping[str, Any], **request: Any) -> Execution:
        return self.engine.start(
            compiled,
            RunRequest(inputs=inputs, graph="0" * 32, versions=VERSIONS, **request),
        )


@dataclass
class Traced:
    """A run that has ended, and its spans."""

    spans: Sequence[ReadableSpan]
    workers: SimulatedWorkers

    def of(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name == name]

    @property
    def outline(self) -> str:
        return outline(self.spans)


def trace_run(
    text: str,
    inputs: Mapping[str, Any] | None = None,
    answers: Mapping[str, Any] | None = None,
    *,
    content: Label | None = None,
    request: Mapping[str, Any] | None = None,
    catalog: Catalog = CATALOG,
    **simulation: Any,
) -> Traced:
    """Runs a workflow to its end in virtual time."""

    async def scene(clock: VirtualClock) -> Traced:
        workers = SimulatedWorkers({**ANSWERS, **(answers or {})}, clock=clock, **{"latency": 0.5, **simulation})
        process = Process(clock, workers, MemoryStore(), content)
        await process.start(program(text, catalog), inputs or {}, **(request or {})).wait()
        await process.engine.close()
        return Traced(process.spans, workers)

    return run_simulated(scene, 0)


def outline(spans: Sequence[ReadableSpan]) -> str:
    """Returns the spans as a tree: times in seconds, name, place, what is remarkable, and the events."""
    inner: dict[int | None, list[ReadableSpan]] = {}
    known = {span.context.span_id for span in spans}
    for span in spans:
        above = span.parent.span_id if span.parent is not None and span.parent.span_id in known else None
        inner.setdefault(above, []).append(span)

    def lines(above: int | None, depth: int) -> list[str]:
        found = []
        for span in sorted(inner.get(above, []), key=lambda span: (span.start_time, place(span), span.name)):
            found.append(f"{'  ' * depth}{span_line(span)}")
            found += [
                f"{'  ' * depth}  * {event.name.removeprefix('gen_ai.').removeprefix('orchestra.')} {words(event)}"
                for event in span.events
            ]
            found += lines(span.context.span_id, depth + 1)
        return found

    return "\n".join(line.rstrip() for line in lines(None, 0))


def place(span: ReadableSpan) -> str:
    return str((span.attributes or {}).get("orchestra.node.path", ""))


def span_line(span: ReadableSpan) -> str:
    said = dict(span.attributes or {})
    begin, end = (round((at or 0) / 1e9 - START, 3) for at in (span.start_time, span.end_time))
    shown = [f"{begin:g}-{end:g}", span.name, place(span)]
    if said.get("orchestra.attempt", 1) != 1 and not span.name.startswith("chat"):
        shown.append(f"attempt {said['orchestra.attempt']}")
    for name in ("run.status", "tier", "accepted", "plan.lines", "outcome", "question.outcome", "run.resumptions"):
        value = said.get(f"orchestra.{name}")
        if value is False or value not in (None, 0, "value"):
            shown.append(f"{name}={value}")
    if "error.type" in said:
        shown.append(f"{said['error.type']}!")
    return " ".join(word for word in shown if word)


def words(event: Any) -> str:
    said = dict(event.attributes)
    named = ("gen_ai.evaluation.name", "gen_ai.evaluation.score.label", "orchestra.node.path", "orchestra.attempt")
    return " ".join(str(said[name]) for name in named if name in said)

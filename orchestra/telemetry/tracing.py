"""The tracer of an engine: it folds the events of all runs into spans, and sets the position of each call in its trace.

A run that another process started, or that was dropped from memory, is folded from its journal without export: its
earlier spans were exported by the process that made them. Ids are the same in both, so the trace has no gap.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from orchestra.core.event_logging import CALL_TRACE, CALLER_TRACE
from orchestra.core.events import AttemptFinished, Event, RunFinished, RunStarted
from orchestra.core.labels import Label, is_allowed
from orchestra.core.protocols import CallError, CallRequest, CallResult
from orchestra.telemetry.spans import NO_EXCHANGE, Exchange, RunSpans, Span
from orchestra.telemetry.trace_context import TraceContext

MAX_RUNS = 10_000
"""Maximum number of runs in memory; the oldest are dropped first, and folded again when they are resumed."""


class SpanSink(Protocol):
    """Exports spans (`orchestra.telemetry.otlp.OtlpSink`)."""

    def emit(self, span: Span) -> None:
        """Queues a span. It neither blocks nor raises."""

    def is_sampled(self, trace_id: int, caller: TraceContext | None, name: str) -> bool:
        """Returns whether a trace is recorded."""

    def active(self) -> TraceContext | None:
        """Returns the active span of the host; None if there is none."""

    def activate(self, context: TraceContext) -> None:
        """Makes a span the active one of this task, for the instrumentation of other libraries."""


@dataclass(slots=True)
class _TracedRun:
    spans: RunSpans
    sampled: bool


class RunTracer:
    """Implements `orchestra.engine.run_context.Tracer`."""

    def __init__(self, sink: SpanSink, content: Label | None = None) -> None:
        """`content` is the strictest label of runs whose content is exported; None for no content."""
        self._sink, self._content = sink, content
        self._runs: OrderedDict[str, _TracedRun] = OrderedDict()
        self._exchanges: dict[tuple[str, str], Exchange] = {}
        """The bytes of calls whose `AttemptFinished` comes next, by run and node."""

    def caller(self) -> str:
        """Returns the `traceparent` of the code that starts a run: the active span of the host, else what the host has
        set; empty for none.
        """
        active = self._sink.active()
        return active.format() if active is not None else CALLER_TRACE.get()

    def trace_id(self, run: str) -> str:
        """Returns the trace id of a run in memory, as hexadecimal digits; empty for another run."""
        traced_run = self._runs.get(run)
        return f"{traced_run.spans.trace_id:032x}" if traced_run is not None else ""

    def restore(self, run: str, events: Sequence[Event]) -> None:
        """Folds the events of a run that is about to be resumed, without export."""
        traced_run = self._runs.get(run)
        if (traced_run is not None and traced_run.spans.last_seq == events[-1].seq) or not isinstance(
            events[0], RunStarted
        ):
            return
        new_run = self._add(events[0])
        for event in events[1:]:
            new_run.spans.apply(event)

    def observe(self, run: str, event: Event) -> None:
        """Applies an event of a run, and exports the spans that it ends."""
        if isinstance(event, RunStarted):
            self._add(event)
            return
        traced_run = self._runs.get(run)
        if traced_run is None:
            return
        exchange = NO_EXCHANGE
        if isinstance(event, AttemptFinished):
            exchange = self._exchanges.pop((run, event.node), NO_EXCHANGE)
        spans = traced_run.spans.apply(event, exchange)
        if traced_run.sampled:
            for span in spans:
                self._sink.emit(span)

    def forget_ended(self, run: str, event: Event) -> None:
        """Drops a run with its last event. It comes after the log, whose line of that event has the trace id."""
        if isinstance(event, RunFinished):
            self._forget(run)

    def enter_call(self, call: CallRequest) -> None:
        """Sets the position of this task in the trace, for a call that it makes now."""
        traced_run = self._runs.get(call.run)
        if traced_run is None:
            CALL_TRACE.set("")
            return
        attempt = traced_run.spans.attempt_context(call.node, call.attempt, sampled=traced_run.sampled)
        request = traced_run.spans.request_context(call.node, call.attempt, sampled=traced_run.sampled)
        CALL_TRACE.set((request if call.kind == "agent" else attempt).format())
        CALLER_TRACE.set(attempt.format())
        self._sink.activate(attempt)

    def leave_call(self, call: CallRequest, reply: CallResult | CallError) -> None:
        """Keeps the bytes of a call for its span."""
        if call.run in self._runs and (reply.sent or reply.received):
            self._exchanges[call.run, call.node] = Exchange(reply.sent, reply.received)

    def _add(self, start_event: RunStarted) -> _TracedRun:
        content = self._content is not None and is_allowed(start_event.label, self._content)
        spans = RunSpans(start_event, content=content)
        is_sampled = self._sink.is_sampled(spans.trace_id, spans.caller, spans.name)
        traced_run = self._runs[start_event.run] = _TracedRun(spans, is_sampled)
        self._runs.move_to_end(start_event.run)
        if len(self._runs) > MAX_RUNS:
            self._forget(next(iter(self._runs)))
        return traced_run

    def _forget(self, run: str) -> None:
        self._runs.pop(run, None)
        for key in [key for key in self._exchanges if key[0] == run]:
            del self._exchanges[key]

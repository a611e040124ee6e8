"""Export of spans with the OpenTelemetry SDK. The only module that imports it; the extra `otel` installs it.

The SDK reads the standard variables: `OTEL_EXPORTER_OTLP_*` for address, headers and certificates,
`OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_TRACES_SAMPLER` and `OTEL_BSP_*`. A thread sends the spans. If
the collector cannot be reached, spans are dropped and runs continue.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import Event as OtelEvent
from opentelemetry.sdk.trace import ReadableSpan, Tracer, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from orchestra.telemetry import conventions
from orchestra.telemetry.spans import Span
from orchestra.telemetry.trace_context import TraceContext

SCOPE = "orchestra"
TRACES_PATH = "/v1/traces"
CLOSE_SECONDS = 3.0
"""Maximum time for the last spans at the end."""


class OtlpSink:
    """Exports spans through a tracer provider of the SDK. Another provider gets none."""

    def __init__(self, provider: trace.TracerProvider, version: str = "", exporter: SpanExporter | None = None) -> None:
        """`exporter` is closed at the end, together with its provider; None if the provider belongs to the host."""
        tracer = provider.get_tracer(SCOPE, version, schema_url=conventions.SCHEMA_URL)
        self._tracer = tracer if isinstance(tracer, Tracer) else None
        self._provider, self._exporter = provider, exporter
        self._scope = InstrumentationScope(SCOPE, version, conventions.SCHEMA_URL)

    @classmethod
    def open(cls, address: str, version: str) -> OtlpSink:
        """Opens a sink with a provider of its own.

        Args:
            address: The base address of the collector, such as `http://127.0.0.1:4318`; empty for that of the standard
            variables.
            version: The version of Orchestra.
        """
        exporter = OTLPSpanExporter(endpoint=f"{address.rstrip('/')}{TRACES_PATH}" if address else None)
        sdk_resource = Resource({SERVICE_NAME: SCOPE, **({SERVICE_VERSION: version} if version else {})})
        resource = Resource.create().merge(sdk_resource).merge(OTELResourceDetector().detect())
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(exporter))
        return cls(provider, version, exporter)

    @classmethod
    def of_host(cls, version: str) -> OtlpSink:
        """Returns a sink that uses the tracer provider of the program."""
        return cls(trace.get_tracer_provider(), version)

    async def close(self) -> None:
        """Sends the last spans, for at most `CLOSE_SECONDS`: a collector without an answer must not delay the end."""
        provider, exporter = self._provider, self._exporter
        if exporter is None or not isinstance(provider, TracerProvider):
            return
        loop, event = asyncio.get_running_loop(), asyncio.Event()

        def shut_down() -> None:
            provider.shutdown()
            with suppress(RuntimeError):  # The loop was closed meanwhile.
                loop.call_soon_threadsafe(event.set)

        threading.Thread(target=shut_down, name="orchestra-traces", daemon=True).start()
        try:
            await asyncio.wait_for(event.wait(), CLOSE_SECONDS)
        except TimeoutError:
            exporter.shutdown()

    def emit(self, span: Span) -> None:
        """Queues a span for the processors of the provider."""
        if self._tracer is None:  # `OTEL_SDK_DISABLED`
            return
        trace_flags = TraceFlags(TraceFlags.SAMPLED)
        status = Status(StatusCode.ERROR, span.reason or span.error) if span.error else Status(StatusCode.UNSET)
        self._tracer.span_processor.on_end(
            ReadableSpan(
                name=_text(span.name),
                context=SpanContext(span.trace_id, span.span_id, is_remote=False, trace_flags=trace_flags),
                parent=_span_context(span.parent) if span.parent is not None else None,
                resource=self._tracer.resource,
                attributes=_attributes(span.attributes),
                events=[
                    OtelEvent(event.name, _attributes(event.attributes), _nanoseconds(event.at))
                    for event in span.events
                ],
                kind=SpanKind.CLIENT if span.is_request else SpanKind.INTERNAL,
                status=status,
                start_time=_nanoseconds(span.start),
                end_time=_nanoseconds(span.end),
                instrumentation_scope=self._scope,
            )
        )

    def is_sampled(self, trace_id: int, caller: TraceContext | None, name: str) -> bool:
        """Returns whether the sampler of the provider records a trace."""
        if self._tracer is None:
            return False
        parent = None
        if caller is not None:
            parent = trace.set_span_in_context(NonRecordingSpan(_span_context(caller)), otel_context.Context())
        return self._tracer.sampler.should_sample(parent, trace_id, name).decision is Decision.RECORD_AND_SAMPLE

    def active(self) -> TraceContext | None:
        """Returns the active span of the host; None if there is none."""
        span = trace.get_current_span().get_span_context()
        return TraceContext(span.trace_id, span.span_id, span.trace_flags.sampled) if span.is_valid else None

    def activate(self, context: TraceContext) -> None:
        """Makes a span the active one of this task. The task is the engine's, so nothing needs to be restored."""
        otel_context.attach(trace.set_span_in_context(NonRecordingSpan(_span_context(context))))


def _span_context(context: TraceContext) -> SpanContext:
    flags = TraceFlags(TraceFlags.SAMPLED if context.sampled else TraceFlags.DEFAULT)
    return SpanContext(context.trace_id, context.span_id, is_remote=True, trace_flags=flags)


def _nanoseconds(at: float) -> int:
    return round(at * 1e9)


def _attributes(attributes: dict[str, Any]) -> dict[str, Any]:
    return {name: _text(value) if isinstance(value, str) else value for name, value in attributes.items()}


def _text(text: str) -> str:
    """Returns a text that can be encoded: a lone surrogate would lose the whole batch."""
    return text.encode("utf-8", "backslashreplace").decode()

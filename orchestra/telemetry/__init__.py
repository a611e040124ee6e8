"""What operators see of runs: traces for OpenTelemetry and metrics for Prometheus, both derived from journal events.

Nothing here is imported unless tracing is configured or metrics are requested. `opentelemetry` is imported by `otlp`
only, `prometheus_client` by `exposition` only.
"""

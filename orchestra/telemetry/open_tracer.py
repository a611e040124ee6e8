"""Opens the tracer that the settings ask for."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from orchestra.core.errors import InputError
from orchestra.core.event_logging import log_info
from orchestra.core.settings import Settings
from orchestra.telemetry.tracing import RunTracer

DISTRIBUTION = "orchestra-slm"
MODULES = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")
"""What the extra `otel` installs."""


@asynccontextmanager
async def open_tracer(settings: Settings) -> AsyncGenerator[RunTracer | None]:
    """Opens a tracer. At the end its last spans are sent. None if only variables of OpenTelemetry ask for one, which a
    cluster may set for all programs, and the SDK is not installed.

    Raises:
        InputError: C065: the SDK is not installed.
    """
    if not _is_installed():
        hint = "pip install 'orchestra-slm[otel]'"
        if settings.sources.get("otlp", "").startswith("OTEL_"):
            log_info(settings.log, "traces are off", form=settings.log_as, why="no OpenTelemetry SDK", hint=hint)
            yield None
            return
        raise InputError("C065", f"otlp = {settings.otlp!r} needs the OpenTelemetry SDK", hint=hint)
    from orchestra.telemetry.otlp import OtlpSink

    content = None if settings.otlp_content == "off" else settings.otlp_content
    if settings.otlp == "host":
        yield RunTracer(OtlpSink.of_host(package_version()), content)
        return
    sink = OtlpSink.open("" if settings.otlp == "environment" else settings.otlp, package_version())
    try:
        yield RunTracer(sink, content)
    finally:
        await sink.close()


def package_version() -> str:
    """Returns the version of Orchestra; empty in a source tree that is not installed."""
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return ""


def _is_installed() -> bool:
    return find_spec("opentelemetry") is not None and all(map(find_spec, MODULES))

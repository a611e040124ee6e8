"""Logging of run events for operators: lines on stderr, or the logging of the host service.

No global state is configured, so the host keeps its own logging and structlog configuration. Prompts, inputs and
outputs are never logged, because they may be restricted; the journal holds them. The reason of a failure may quote them
and is logged only with `log_reasons`.

Lines of a run are logged in the context in which the run started. Values bound with `structlog.contextvars`, such as a
request id, and values that a log filter reads from a context variable, are therefore in each line. So is `trace_id`, if
the caller of the run has a trace or traces are exported.
"""

from __future__ import annotations

import contextvars
import logging
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol, TextIO, TypeAlias

from orchestra.core.errors import OrchestraError
from orchestra.core.events import (
    AttemptFinished,
    CancelRequested,
    Event,
    OutputJudged,
    RetryPlanned,
    RunFinished,
    RunResumed,
    RunStarted,
)
from orchestra.core.outcomes import AbstainedOutcome, FailedOutcome

LogLevel: TypeAlias = Literal["debug", "info", "warning", "error", "off"]
LogFormat: TypeAlias = Literal["text", "json", "logging", "structlog"]
"""Output of log lines: text or JSON on stderr, or the logging or structlog of the host."""
Observer: TypeAlias = Callable[[str, Event], None]
"""Receives each event of a run with the run's id."""
HistoryObserver: TypeAlias = Callable[[str, Sequence[Event]], None]
"""Receives the id and the events so far of a run that is continued."""
LogFields: TypeAlias = dict[str, Any]
LogFunction: TypeAlias = Callable[[str, str, LogFields], None]
"""Logs a line: level, message and fields."""
LOGGER_NAME = "orchestra"
"""Name of the logger for the logging or structlog of the host."""
LEVELS = logging.getLevelNamesMapping()
CALLER_TRACE: contextvars.ContextVar[str] = contextvars.ContextVar("orchestra_caller_trace", default="")
"""The W3C `traceparent` of the code that starts runs; a server sets it to that of the request. Empty for none."""
CALL_TRACE: contextvars.ContextVar[str] = contextvars.ContextVar("orchestra_call_trace", default="")
"""The `traceparent` that a call sends to a model server; empty unless traces are exported."""
_TRACE_ID = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-")
MAX_CONTEXTS = 10_000
"""Maximum number of kept contexts of runs without an end; the oldest are dropped first."""
_RECORD_ATTRIBUTES = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
"""Standard attributes of a log record of Python's logging."""


class TraceObserver(Protocol):
    """A tracer of runs (`orchestra.telemetry.tracing.RunTracer`)."""

    def observe(self, run: str, event: Event) -> None:
        """Gets each event of a run."""

    def forget_ended(self, run: str, event: Event) -> None:
        """Drops a run with its last event."""

    def trace_id(self, run: str) -> str:
        """Returns the trace id of a run as hexadecimal digits; empty if it is unknown."""


def combine_observers(*observers: Observer | None) -> Observer | None:
    """Returns an observer that calls these in order; None if there is none."""
    present = [observer for observer in observers if observer is not None]
    if len(present) < 2:
        return present[0] if present else None

    def observe_all(run: str, event: Event) -> None:
        for observer in present:
            observer(run, event)

    return observe_all


def create_observer(
    level: LogLevel,
    stream: TextIO | None = None,
    *,
    form: LogFormat = "text",
    reasons: bool = False,
    tracer: TraceObserver | None = None,
) -> Observer | None:
    """Returns an observer that logs events from this level on, and passes them to a tracer; None without both.

    Args:
        level: The lowest level.
        stream: Receives the lines; stderr by default.
        form: The format of the lines.
        reasons: Whether reasons of failures are logged.
        tracer: Follows the runs for traces; None if traces are not exported.
    """
    log = None if level == "off" else _create_event_log(_create_log(level, stream, form), reasons, tracer)
    # The tracer drops a run after its last line, which has the trace id.
    return log if tracer is None else combine_observers(tracer.observe, log, tracer.forget_ended)


def _create_event_log(log: LogFunction, reasons: bool, tracer: TraceObserver | None) -> Observer:
    contexts: dict[str, contextvars.Context] = {}
    begins: dict[str, float] = {}
    traces: dict[str, str] = {}
    """Trace ids of callers, by run."""

    def log_event(run: str, event: Event) -> None:
        """Logs one event in the context of its run."""
        if isinstance(event, RunStarted) or (isinstance(event, RunResumed) and run not in contexts):
            contexts[run] = contextvars.copy_context()
            if len(contexts) > MAX_CONTEXTS:
                forget(next(iter(contexts)))
        if isinstance(event, RunStarted):
            begins[run] = event.at
            if trace_id := _caller_trace_id(event):
                traces[run] = trace_id
        if (line := _event_line(event, reasons=reasons)) is not None:
            level, message, fields = line
            context = contexts.get(run)
            known_trace = traces.get(run, "") if tracer is None else tracer.trace_id(run)
            fields = {"run": run, **({"trace_id": known_trace} if known_trace else {}), **fields}
            if isinstance(event, RunFinished) and run in begins:
                fields["seconds"] = round(event.at - begins[run], 3)
            log(level, message, fields) if context is None else context.run(log, level, message, fields)
        if isinstance(event, RunFinished):
            forget(run)

    def forget(run: str) -> None:
        for table in (contexts, begins, traces):
            table.pop(run, None)

    return log_event


def _caller_trace_id(start_event: RunStarted) -> str:
    """Returns the trace id of the caller of a run; empty if it has none."""
    traceparent = start_event.options.get("trace")
    match = _TRACE_ID.match(traceparent) if isinstance(traceparent, str) else None
    return match[1] if match is not None else ""


def create_line_logger(
    level: LogLevel, stream: TextIO | None = None, *, form: LogFormat = "text"
) -> Callable[[str, str], None] | None:
    """Returns a function that logs the stderr lines of a tool server, by the server's name; None for `off`."""
    if level == "off":
        return None
    log = _create_log(level, stream, form)

    def log_line(server: str, line: str) -> None:
        log("info", "tool server", {"server": server, "line": line})

    return log_line


def log_info(level: LogLevel, message: str, *, form: LogFormat = "text", **fields: str) -> None:
    """Logs a line that belongs to no run, at level `info`."""
    if level != "off":
        _create_log(level, None, form)("info", message, dict(fields))


def create_fault_logger(
    level: LogLevel, stream: TextIO | None = None, *, form: LogFormat = "text"
) -> Callable[[OrchestraError | None], None]:
    """Returns a function that logs a fault of the journal, or its end for None."""
    log = _create_log(level, stream, form) if level != "off" else None

    def log_fault(fault: OrchestraError | None) -> None:
        if log is not None and fault is not None:
            log(
                "error",
                "journal failed",
                {"code": fault.code, "reason": fault.message, "why": fault.why, "hint": fault.hint},
            )
        elif log is not None:
            log("warning", "journal works again", {})

    return log_fault


def _create_log(lowest: LogLevel, stream: TextIO | None, form: LogFormat) -> LogFunction:
    """Returns a log function that drops lines below a level."""
    least = LEVELS[lowest.upper()]
    write = _write_to_logging if form == "logging" else _structlog_writer(form, stream)

    def log(level: str, message: str, fields: LogFields) -> None:
        if LEVELS[level.upper()] >= least:
            write(level, message, fields)

    return log


def _write_to_logging(level: str, message: str, fields: LogFields) -> None:
    """Logs to Python's logging. The fields are in the message, and also attributes of the record for formatters."""
    from structlog.contextvars import get_contextvars

    logger, number = logging.getLogger(LOGGER_NAME), LEVELS[level.upper()]
    if logger.isEnabledFor(number):
        fields |= {name: value for name, value in get_contextvars().items() if name not in fields}
        message = " ".join([message, *(f"{name}={value}" for name, value in fields.items())])
        logger.log(
            number,
            "%s",
            message,
            extra={f"{name}_" if name in _RECORD_ATTRIBUTES else name: value for name, value in fields.items()},
        )


def _structlog_writer(form: Literal["text", "json", "structlog"], stream: TextIO | None) -> LogFunction:
    """Returns a log function for structlog: configured by the host, or with our own renderers."""
    # importing it takes a sixth of the time of `from orchestra import Orchestra`, and logging is off by default
    import structlog

    if form == "structlog":
        logger: Any = structlog.get_logger(LOGGER_NAME)
    else:
        last: Any = structlog.processors.KeyValueRenderer(
            key_order=["timestamp", "level", "event", "run"], drop_missing=True
        )
        logger = structlog.wrap_logger(
            structlog.WriteLogger(stream or sys.stderr),
            processors=[
                structlog.contextvars.merge_contextvars,
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.JSONRenderer() if form == "json" else last,
            ],
            wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
            cache_logger_on_first_use=True,
        )

    def write(level: str, message: str, fields: LogFields) -> None:
        getattr(logger, level)(message, **fields)

    return write


def _event_line(event: Event, *, reasons: bool) -> tuple[str, str, LogFields] | None:
    """Returns level, message and fields of an event; None if it is not logged."""
    match event:
        case RunStarted(workflow=workflow):
            return "info", "run started", {"workflow": workflow}
        case RunResumed(by=by):
            return "info", "run resumed", {"by": by}
        case AttemptFinished(error=str(code)) if code:
            fields = {"node": event.node, "attempt": event.attempt, "code": code, "server": event.server}
            return (
                "warning",
                "attempt failed",
                {**fields, **_location_fields(event), **_reason_fields(event.reason, reasons=reasons)},
            )
        case AttemptFinished():
            tokens = event.usage.prompt_tokens + event.usage.output_tokens
            fields = {
                "node": event.node,
                "attempt": event.attempt,
                "seconds": round(event.usage.seconds, 3),
                "tokens": tokens,
            }
            return "debug", "attempt done", fields
        case OutputJudged(accepted=False):
            checks = [verdict.check for verdict in event.verdicts if verdict.outcome != "pass"]
            fields = {"node": event.node, "attempt": event.attempt, "checks": checks}
            return "info", "not accepted", {**fields, **_reason_fields(event.reason, reasons=reasons)}
        case RetryPlanned():
            return "info", "retry planned", {"node": event.node, "attempt": event.attempt, "due": event.due}
        case CancelRequested(by=by):
            return "info", "cancel requested", {"by": by}
        case RunFinished(status=status):
            tokens = event.usage.prompt_tokens + event.usage.output_tokens
            money = {"money": event.usage.money} if event.usage.money else {}
            fields = {
                "status": status,
                "calls": event.usage.calls,
                "tokens": tokens,
                **money,
                **_outcome_fields(event, reasons=reasons),
            }
            return "info" if status in ("done", "abstained") else "warning", "run finished", fields
        case _:
            return None


def _location_fields(event: AttemptFinished) -> LogFields:
    """Returns the innermost frame of a tool's own code."""
    return {"at": event.frames[-1]} if event.frames else {}


def _reason_fields(reason: str, *, reasons: bool) -> LogFields:
    return {"reason": reason} if reasons and reason else {}


def _outcome_fields(event: RunFinished, *, reasons: bool) -> LogFields:
    """Returns why a run has no output: the error code and the node that failed first."""
    match event.outcome:
        case FailedOutcome(code, reason, node):
            return {"code": code, **({"node": node} if node else {}), **_reason_fields(reason, reasons=reasons)}
        case AbstainedOutcome(reason, node):
            return {**({"node": node} if node else {}), **_reason_fields(reason, reasons=reasons)}
        case _:
            return {}

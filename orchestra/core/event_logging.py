"""The log: what a run's events say to an operator, as lines on stderr, or through the logging that the service has.

Nothing global is configured, so the host keeps its own logging and its own structlog. Prompts, inputs and outputs are never logged, for
they may be restricted: the journal has them. The reason of a failure may quote them, and is logged where `log_reasons` says so.

Lines of a run are logged in the context that began it: what `structlog.contextvars` bound there, such as the id of a request, stands in
each, and so does what a filter of one's own reads from a context variable.
"""

from __future__ import annotations

import contextvars
import logging
import sys
from collections.abc import Callable
from typing import Any, Literal, TextIO, TypeAlias

from orchestra.core.errors import OrchestraError
from orchestra.core.events import AttemptFinished, CancelRequested, Event, Judged, Resumed, RetryPlanned, RunFinished, RunStarted
from orchestra.core.outcomes import Abstained, Failed

Level: TypeAlias = Literal["debug", "info", "warning", "error", "off"]
Form: TypeAlias = Literal["text", "json", "logging", "structlog"]
"""How lines are logged: as text or JSON on stderr, or through the host's logging or structlog."""
Observer: TypeAlias = Callable[[str, Event], None]
"""Hears of each event of a run, by the run's id."""
Fields: TypeAlias = dict[str, Any]
Log: TypeAlias = Callable[[str, str, Fields], None]
"""Logs a line: its level, what happened, and more of it."""
NAME = "orchestra"
"""Of the logger, where lines go through the host's logging or structlog."""
LEVELS = logging.getLevelNamesMapping()
KEPT = 10_000
"""Contexts of runs without an end that are kept; those of the oldest go first."""
_RECORD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
"""What a record of Python's logging has itself."""


def observer(level: Level, stream: TextIO | None = None, *, form: Form = "text", reasons: bool = False) -> Observer | None:
    """What logs the events of runs from this level on, with the reasons of failures where they are wanted; None for `off`."""
    if level == "off":
        return None
    log = _log(level, stream, form)
    contexts: dict[str, contextvars.Context] = {}
    begins: dict[str, float] = {}

    def observe(run: str, event: Event) -> None:
        if isinstance(event, RunStarted) or (isinstance(event, Resumed) and run not in contexts):
            contexts[run] = contextvars.copy_context()
            if len(contexts) > KEPT:
                begins.pop(oldest := next(iter(contexts)), None)
                contexts.pop(oldest)
        if isinstance(event, RunStarted):
            begins[run] = event.at
        if (line := _line(event, reasons=reasons)) is not None:
            level, said, fields = line
            context = contexts.get(run)
            fields = {"run": run, **fields}
            if isinstance(event, RunFinished) and run in begins:
                fields["seconds"] = round(event.at - begins[run], 3)
            log(level, said, fields) if context is None else context.run(log, level, said, fields)
        if isinstance(event, RunFinished):
            contexts.pop(run, None)
            begins.pop(run, None)

    return observe


def listener(level: Level, stream: TextIO | None = None, *, form: Form = "text") -> Callable[[str, str], None] | None:
    """What logs the lines that a tool server writes to its standard error, by the server's name; None for `off`."""
    if level == "off":
        return None
    log = _log(level, stream, form)

    def hear(server: str, line: str) -> None:
        log("info", "tool server", {"server": server, "line": line})

    return hear


def note(level: Level, said: str, *, form: Form = "text", **fields: str) -> None:
    """Logs a line that belongs to no run, as `info`."""
    if level != "off":
        _log(level, None, form)("info", said, dict(fields))


def alarm(level: Level, stream: TextIO | None = None, *, form: Form = "text") -> Callable[[OrchestraError | None], None]:
    """What logs that the journal failed, and with None that it works again."""
    log = _log(level, stream, form) if level != "off" else None

    def hear(fault: OrchestraError | None) -> None:
        if log is not None and fault is not None:
            log("error", "journal failed", {"code": fault.code, "reason": fault.message, "why": fault.why, "hint": fault.hint})
        elif log is not None:
            log("warning", "journal works again", {})

    return hear


def _log(lowest: Level, stream: TextIO | None, form: Form) -> Log:
    """Logs lines from a level on."""
    least = LEVELS[lowest.upper()]
    write = _logging if form == "logging" else _structlog(form, stream)

    def log(level: str, said: str, fields: Fields) -> None:
        if LEVELS[level.upper()] >= least:
            write(level, said, fields)

    return log


def _logging(level: str, said: str, fields: Fields) -> None:
    """Through Python's logging: the fields stand in the message, for people, and are attributes of the record, for formatters."""
    from structlog.contextvars import get_contextvars

    logger, number = logging.getLogger(NAME), LEVELS[level.upper()]
    if logger.isEnabledFor(number):
        fields |= {name: value for name, value in get_contextvars().items() if name not in fields}
        message = " ".join([said, *(f"{name}={value}" for name, value in fields.items())])
        logger.log(number, "%s", message, extra={f"{name}_" if name in _RECORD else name: value for name, value in fields.items()})


def _structlog(form: Literal["text", "json", "structlog"], stream: TextIO | None) -> Log:
    """Through structlog: as the host has configured it, or as lines of our own."""
    import structlog  # a sixth of what `from orchestra import Orchestra` would take, and logs are off unless somebody wants them

    if form == "structlog":
        logger: Any = structlog.get_logger(NAME)
    else:
        last: Any = structlog.processors.KeyValueRenderer(key_order=["timestamp", "level", "event", "run"], drop_missing=True)
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

    def write(level: str, said: str, fields: Fields) -> None:
        getattr(logger, level)(said, **fields)

    return write


def _line(event: Event, *, reasons: bool) -> tuple[str, str, Fields] | None:
    """What is logged of an event: the level, what happened, and more of it; None for nothing."""
    match event:
        case RunStarted(workflow=workflow):
            return "info", "run started", {"workflow": workflow}
        case Resumed(by=by):
            return "info", "run resumed", {"by": by}
        case AttemptFinished(error=str(code)) if code:
            fields = {"node": event.node, "attempt": event.attempt, "code": code, "server": event.server}
            return "warning", "attempt failed", {**fields, **_place(event), **_why(event.reason, reasons=reasons)}
        case AttemptFinished():
            tokens = event.usage.prompt_tokens + event.usage.output_tokens
            fields = {"node": event.node, "attempt": event.attempt, "seconds": round(event.usage.seconds, 3), "tokens": tokens}
            return "debug", "attempt done", fields
        case Judged(accepted=False):
            checks = [verdict.check for verdict in event.verdicts if verdict.outcome != "pass"]
            fields = {"node": event.node, "attempt": event.attempt, "checks": checks}
            return "info", "not accepted", {**fields, **_why(event.reason, reasons=reasons)}
        case RetryPlanned():
            return "info", "retry planned", {"node": event.node, "attempt": event.attempt, "due": event.due}
        case CancelRequested(by=by):
            return "info", "cancel requested", {"by": by}
        case RunFinished(status=status):
            tokens = event.usage.prompt_tokens + event.usage.output_tokens
            money = {"money": event.usage.money} if event.usage.money else {}
            fields = {"status": status, "calls": event.usage.calls, "tokens": tokens, **money, **_end(event, reasons=reasons)}
            return "info" if status in ("done", "abstained") else "warning", "run finished", fields
        case _:
            return None


def _place(event: AttemptFinished) -> Fields:
    """Where a tool's own code raised: the last of its lines."""
    return {"at": event.frames[-1]} if event.frames else {}


def _why(reason: str, *, reasons: bool) -> Fields:
    return {"reason": reason} if reasons and reason else {}


def _end(event: RunFinished, *, reasons: bool) -> Fields:
    """Why a run has no output: its code, and the node where that began."""
    match event.outcome:
        case Failed(code, reason, node):
            return {"code": code, **({"node": node} if node else {}), **_why(reason, reasons=reasons)}
        case Abstained(reason, node):
            return {**({"node": node} if node else {}), **_why(reason, reasons=reasons)}
        case _:
            return {}

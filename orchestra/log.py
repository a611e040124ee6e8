"""The log: what a run's events say to an operator, as structured lines on stderr.

Nothing global is configured, so the host keeps its own structlog; prompts, inputs and outputs are never logged, for they may be
restricted: the journal has them.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any, Literal, TextIO, TypeAlias

from orchestra.events import AttemptFinished, CancelRequested, Event, Judged, RetryPlanned, RunFinished, RunStarted

Level: TypeAlias = Literal["debug", "info", "warning", "error", "off"]
Observer: TypeAlias = Callable[[str, Event], None]
"""Hears of each event of a run, by the run's id."""


def observer(level: Level, stream: TextIO | None = None) -> Observer | None:
    """What logs the events of runs from this level on; None for `off`."""
    if level == "off":
        return None
    log = _logger(level, stream)

    def observe(run: str, event: Event) -> None:
        _tell(log, run, event)

    return observe


def listener(level: Level, stream: TextIO | None = None) -> Callable[[str, str], None] | None:
    """What logs the lines that a tool server writes to its standard error, by the server's name; None for `off`."""
    if level == "off":
        return None
    log = _logger(level, stream)

    def hear(server: str, line: str) -> None:
        log.info("tool server", server=server, line=line)

    return hear


def note(level: Level, event: str, **told: str) -> None:
    """Logs a line that belongs to no run, as `info`."""
    if level != "off":
        _logger(level, None).info(event, **told)


def _logger(level: Level, stream: TextIO | None) -> Any:
    import structlog  # a sixth of what `from orchestra import Orchestra` would take, and logs are off unless somebody wants them

    return structlog.wrap_logger(
        structlog.WriteLogger(stream or sys.stderr),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.KeyValueRenderer(key_order=["timestamp", "level", "event", "run"], drop_missing=True),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        cache_logger_on_first_use=True,
    )


def _tell(log: Any, run: str, event: Event) -> None:
    match event:
        case RunStarted(workflow=workflow):
            log.info("run started", run=run, workflow=workflow)
        case AttemptFinished(error=str(code)) if code:
            log.warning("attempt failed", run=run, node=event.node, attempt=event.attempt, code=code, server=event.server)
        case AttemptFinished():
            tokens = event.usage.prompt_tokens + event.usage.output_tokens
            log.debug("attempt done", run=run, node=event.node, attempt=event.attempt, seconds=round(event.usage.seconds, 3), tokens=tokens)
        case Judged(accepted=False):
            checks = [verdict.check for verdict in event.verdicts if verdict.outcome != "pass"]
            log.info("not accepted", run=run, node=event.node, attempt=event.attempt, checks=checks)
        case RetryPlanned():
            log.info("retry planned", run=run, node=event.node, attempt=event.attempt, due=event.due)
        case CancelRequested(by=by):
            log.info("cancel requested", run=run, by=by)
        case RunFinished(status=status):
            tokens = event.usage.prompt_tokens + event.usage.output_tokens
            level = log.info if status in ("done", "abstained") else log.warning
            level("run finished", run=run, status=status, calls=event.usage.calls, tokens=tokens)
        case _:
            pass

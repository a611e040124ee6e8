"""The verdict on a run, from the verdicts on its nodes. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeAlias

from orchestra.core.events import Event, OutputJudged

RunVerdict: TypeAlias = Literal["fail", "unknown", "pass", "none"]
"""The worst verdict on the last attempt of any node; `none` if nothing was checked."""


def run_verdict(events: Iterable[Event]) -> RunVerdict:
    """Returns the verdict on the run with these events."""
    latest = {event.node: event.verdicts for event in events if isinstance(event, OutputJudged)}
    outcomes = {verdict.outcome for verdicts in latest.values() for verdict in verdicts}
    if "fail" in outcomes:
        return "fail"
    if "unknown" in outcomes:
        return "unknown"
    return "pass" if outcomes else "none"

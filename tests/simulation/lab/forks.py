"""Checks of forks and memos: values that a run took from an earlier run are compared with that run's recorded
answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestra.core.events import AttemptFinished, Event, RunStarted
from orchestra.core.labels import is_allowed
from orchestra.core.protocols import CallRequest, CallResult
from orchestra.engine.replay import replay
from orchestra.schema.strict_json import canonical
from orchestra.workflows.program import Program
from tests.simulation.lab.answers import RunRecord
from tests.simulation.lab.observer import ObservedCall
from tests.simulation.lab.oracle import Oracle


@dataclass(frozen=True, slots=True)
class RelatedRun:
    """A run that existed before the audited one."""

    run: str
    program: Program
    events: Sequence[Event]
    forked: bool = True
    """Whether the later run is to be its fork."""
    informed_processes: Mapping[int, int] = field(default_factory=dict)
    """Processes of the later run that had read this run's answers (`ObservedCall.process`), to the last event that they
    had read.
    """
    calls: Sequence[ObservedCall] = ()
    """Its observed calls: a process whose events are lost may have stored memos."""


def check_descent(
    recorded: RunRecord, oracle: Oracle, relative: RelatedRun | None, seen: Sequence[ObservedCall]
) -> list[str]:
    """I2: no call that the parent has answered; I5: no recalled value without an answer; I9: a fork keeps the label."""
    recalled = [
        event for event in recorded.attempts.values() if event.reused_from and event.reused_from != recorded.run
    ]
    if relative is None:
        return [
            f"I5 attempt {event.attempt} of {event.node} has the answer of an unrelated run, {event.reused_from}"
            for event in recalled
        ]
    older = RunRecord.from_events(relative.events)
    known = _answers_by_call(older, Oracle(relative.program, older).evaluate(), pure=relative.forked)
    given = {canonical(event.value) for event in older.attempts.values() if event.memo_key and not event.error}
    given |= {canonical(one.reply.value) for one in relative.calls if isinstance(one.reply, CallResult)}
    found: list[str] = []
    for event in recalled:
        call = oracle.calls.get((event.node, event.attempt))
        values = [one.value for one in known.get(_call_identity(call), ())] if call is not None else []
        if event.value not in values and not (event.memo_key and canonical(event.value) in given):
            found.append(
                f"I5 attempt {event.attempt} of {event.node} has an answer "
                f"that {relative.run} did not get for that call"
            )
    first = recorded.events[0]
    if relative.forked and relative.events and isinstance(first, RunStarted):
        if first.parent and not is_allowed(older.label, first.label):
            found.append(f"I9 a fork of a run with label {older.label} has label {first.label}")
        # The current engine cannot derive answers that depended on the rest of a budget, so no run can take them over.
        followed = replay(relative.program, relative.events).event_count if first.parent else 0
        for one in seen:
            heard = min(relative.informed_processes.get(one.process, 0), followed)
            if first.parent and any(event.seq <= heard for event in known.get(_call_identity(one.call), ())):
                found.append(
                    f"I2 attempt {one.call.attempt} of {one.call.node} was made although the parent had the answer"
                )
    return found


def _answers_by_call(recorded: RunRecord, oracle: Oracle, *, pure: bool) -> dict[bytes, list[AttemptFinished]]:
    """Returns the answers of a run by call."""
    found: dict[bytes, list[AttemptFinished]] = {}
    for (path, number), event in recorded.attempts.items():
        call, place = oracle.calls.get((path, number)), oracle.places.get(path)
        if call is None or place is None or event.error:
            continue
        contract = place.node.contract
        if not pure or (contract is not None and contract.effect == "pure"):
            found.setdefault(_call_identity(call), []).append(event)
    return found


def _call_identity(call: CallRequest | None) -> bytes:
    """Returns the identity of a call; empty if it has none."""
    if call is None:
        return b""
    said: list[Any] = [
        call.name,
        call.version,
        call.inputs,
        call.evidence,
        call.feedback,
        call.tier,
        call.label,
        call.sample,
    ]
    return canonical(said)

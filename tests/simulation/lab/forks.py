"""Descent: what a run has from one that was there before, by a fork or by the memo, held against what that one was really answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestra.core.events import AttemptFinished, Event, RunStarted
from orchestra.core.labels import may_go
from orchestra.core.protocols import Call, Done
from orchestra.engine.replay import replay
from orchestra.schema.strict_json import canonical
from orchestra.workflows.program import Program
from tests.simulation.lab.answers import Recorded
from tests.simulation.lab.observer import Observed
from tests.simulation.lab.oracle import Oracle


@dataclass(frozen=True, slots=True)
class Relative:
    """A run that was there before the one that is audited."""

    run: str
    program: Program
    events: Sequence[Event]
    forked: bool = True
    """Whether the younger one is to be its fork."""
    heirs: Mapping[int, int] = field(default_factory=dict)
    """The processes of the younger run that knew what this one was answered (`Observed.process`), and up to which event."""
    seen: Sequence[Observed] = ()
    """The calls that the world saw of it: answers may be remembered of a process whose events are lost."""


def descent(book: Recorded, oracle: Oracle, relative: Relative | None, seen: Sequence[Observed]) -> list[str]:
    """I2: no call for what the parent was answered; I5: nothing is recalled that nobody was answered; I9: a fork keeps the label."""
    recalled = [event for event in book.attempts.values() if event.recalled and event.recalled != book.run]
    if relative is None:
        return [f"I5 attempt {event.attempt} of {event.node} has the answer of a stranger, {event.recalled}" for event in recalled]
    older = Recorded.of(relative.events)
    known = _answered(older, Oracle(relative.program, older).consult(), pure=relative.forked)
    given = {canonical(event.value) for event in older.attempts.values() if event.memo and not event.error}
    given |= {canonical(one.reply.value) for one in relative.seen if isinstance(one.reply, Done)}
    found: list[str] = []
    for event in recalled:
        call = oracle.calls.get((event.node, event.attempt))
        values = [one.value for one in known.get(_same(call), ())] if call is not None else []
        if event.value not in values and not (event.memo and canonical(event.value) in given):
            found.append(f"I5 attempt {event.attempt} of {event.node} has an answer that {relative.run} was not given to that call")
    first = book.events[0]
    if relative.forked and relative.events and isinstance(first, RunStarted):
        if first.parent and not may_go(older.label, first.label):
            found.append(f"I9 a fork of a run that is {older.label} says {first.label}")
        # What today's engine does not follow of the parent, because it hung on what a budget had left, nobody can take over.
        followed = replay(relative.program, relative.events).events if first.parent else 0
        for one in seen:
            heard = min(relative.heirs.get(one.process, 0), followed)
            if first.parent and any(event.seq <= heard for event in known.get(_same(one.call), ())):
                found.append(f"I2 attempt {one.call.attempt} of {one.call.node} was made though the parent was answered")
    return found


def _answered(book: Recorded, oracle: Oracle, *, pure: bool) -> dict[bytes, list[AttemptFinished]]:
    """The answers of a run by what was asked."""
    found: dict[bytes, list[AttemptFinished]] = {}
    for (path, number), event in book.attempts.items():
        call, place = oracle.calls.get((path, number)), oracle.places.get(path)
        if call is None or place is None or event.error:
            continue
        contract = place.node.contract
        if not pure or (contract is not None and contract.effect == "pure"):
            found.setdefault(_same(call), []).append(event)
    return found


def _same(call: Call | None) -> bytes:
    """What makes two calls the same; empty for none."""
    if call is None:
        return b""
    said: list[Any] = [call.name, call.version, call.inputs, call.evidence, call.feedback, call.tier, call.label, call.sample]
    return canonical(said)

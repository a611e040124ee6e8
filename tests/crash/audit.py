"""The audit of a point: the files on disk are compared with the acknowledged events and the effects in the world."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec

from orchestra.core.errors import OrchestraError
from orchestra.core.events import (
    AttemptFinished,
    AttemptStarted,
    CancelRequested,
    Event,
    NodeFinished,
    QuestionAnswered,
    RunFinished,
    RunResumed,
    encode,
)
from orchestra.core.outcomes import ValueOutcome
from orchestra.core.protocols import Journal, OutboxMessage, RunSummary
from orchestra.engine.replay import replay
from orchestra.schema.strict_json import digest
from tests.crash.child import Acknowledged, Kept, Scene
from tests.crash.stage import CALLED, PROGRAMS, Entry, lines, stored

MOVED = {"sent": "d", "last": "f", "wired/inner": "h"}
"""Nodes of `effects` that must happen once, with the part of the output that shows them."""
OUTPUTS: dict[str, dict[str, Any]] = {
    "everything": {"a": "<BETA and 3>", "b": "xxx", "c": "alpha", "d": "beta", "e": "none", "f": "beta"},
    "effects": {
        "a": "saved one",
        "b": ["paid one", "paid two", "paid three"],
        "c": "booked saved one",
        "d": "sent two",
        "e": "booked yes",
        "f": "sent booked yes",
        "g": "paid 2",
        "h": "sent three",
    },
    "brief": {"a": ["<alpha>", "<beta>", "<gamma>"], "b": "booked alpha"},
}
"""Outputs of the workflows in runs without a kill."""
MESSAGES = {"effects": {"booked": "booked saved one", "note": "booked yes"}, "brief": {"booked": "booked alpha"}}
"""Outbox messages of the workflows, by node."""


class Told(msgspec.Struct):
    """All records of a point after its end."""

    runs: dict[str, tuple[str, list[Event]]]
    """Workflow name and events by run id."""
    acknowledged: list[Acknowledged]
    world: list[Entry]
    outbox: list[OutboxMessage]
    summaries: list[RunSummary] = []
    blobs: frozenset[str] = frozenset()
    deleted: list[str] = []
    """Deleted runs; `runs` has their former contents."""
    rest: list[str] = []
    """Remaining data of the deleted runs."""


async def gather(scene: Scene) -> Told:
    """Reads all records. Raises `JournalError` if sequence numbers or the hash chain are wrong."""
    folder = Path(scene.folder)
    told = Told({}, lines(folder / "acknowledged", Acknowledged), lines(folder / "world", Entry), [])
    found = set[str]()
    async with scene.place.opened() as journal:
        kept: dict[str, Kept] = {}
        for one in lines(folder / "kept", Kept):
            kept.setdefault(one.run, one)  # a process that retried may have found the messages delivered
        for run, name in scene.runs.items():
            events = await journal.read(run)
            if name == "brief":
                told.deleted.append(run)
                told.rest += await _rest(journal, run)
                told.runs[run] = name, kept[run].events if run in kept else []
                continue
            told.runs[run] = name, events
            named = {
                blob
                for event in events
                if isinstance(event, AttemptFinished)
                for blob in (event.sent, event.received)
                if blob
            }
            found |= {blob for blob in named if await journal.get_blob(blob) is not None}
        told.outbox = [message for message in await journal.outbox(limit=1_000_000) if message.run in scene.runs]
        told.summaries = [summary for summary in await journal.list_runs(1_000_000) if summary.run in scene.runs]
    told.outbox += [message for one in kept.values() for message in one.messages]
    told.blobs = frozenset(found)
    return told


async def _rest(journal: Journal, run: str) -> list[str]:
    """Returns the remaining data of a deleted run."""
    found = {
        "events": await journal.read(run),
        "letters": await journal.inbox(run),
        "its name": await journal.find_runs(run),
        "messages": [message for message in await journal.outbox(limit=1_000_000) if message.run == run],
        "its graph": await journal.get_blob(digest(stored(run, "brief"))),
    }
    return [f"{what} of {run}" for what, there in found.items() if there]


async def audit(scene: Scene) -> list[str]:
    """Returns a description of every violation of a point."""
    try:
        told = await gather(scene)
    except OrchestraError as error:
        return [f"the journal cannot be read: {error.code} {error.message}"]
    return [*violations(told), *(f"left behind: {name}" for name in scene.place.left())]


def violations(told: Told) -> list[str]:
    """Returns a description of every violation in the gathered records."""
    found = [f"{run}: {fault}" for run in told.runs for fault in _violations(told, run)]
    return [*found, *(f"deleted, and still there: {what}" for what in told.rest)]


def _violations(told: Told, run: str) -> Iterator[str]:
    name, events = told.runs[run]
    births = [(float(entry.what.split()[1]), entry.child) for entry in told.world if entry.what.startswith("born")]
    ages = {event.seq: births[bisect_right(births, (event.at, len(births))) - 1][1] for event in events}
    begun = [entry for entry in told.world if entry.run == run and entry.what == "begin"]
    yield from _lost(told, run, events)
    yield from _repeated(events, ages, begun)
    yield from _effects(told, run, events, ages, begun)
    yield from _cancelled(events, ages, begun) if name == "stopped" else _ending(name, events)
    yield from _story(name, events)
    if run in told.deleted:
        return
    status = "cancelled" if name == "stopped" else "done"
    if [(summary.status, summary.nodes) for summary in told.summaries if summary.run == run] != [
        (status, _ended(events))
    ]:
        yield "its row is not what its events say"


def _lost(told: Told, run: str, events: Sequence[Event]) -> Iterator[str]:
    """No event acknowledged as durable is lost, and no blob that it names."""
    digests = {event.seq: digest(encode(event)) for event in events}
    for seen in told.acknowledged:
        if seen.run == run and digests.get(seen.seq) != seen.digest:
            yield f"event {seen.seq} was acknowledged, and is {'another' if seen.seq in digests else 'not there'}"
    for event in events:
        if isinstance(event, AttemptFinished) and run not in told.deleted:
            yield from (
                f"blob {blob} of event {event.seq} is lost"
                for blob in (event.sent, event.received)
                if blob and blob not in told.blobs
            )


def _repeated(events: Sequence[Event], ages: dict[int, int], begun: Sequence[Entry]) -> Iterator[str]:
    """No call is repeated in a process that could read its end, nor within one process."""
    attempts: dict[tuple[str, int], int] = {}
    nodes: dict[str, int] = {}
    for event in events:
        if isinstance(event, AttemptFinished):
            attempts[event.node, event.attempt] = ages[event.seq]
        if isinstance(event, NodeFinished) or (isinstance(event, AttemptFinished) and event.final):
            nodes[event.node] = ages[event.seq]
    for entry in begun:
        if (
            min(attempts.get((entry.node, entry.attempt), entry.child), nodes.get(entry.node, entry.child))
            < entry.child
        ):
            yield f"{entry.node} was called again, attempt {entry.attempt}, by process {entry.child}"
    for (node, attempt, child), times in Counter((entry.node, entry.attempt, entry.child) for entry in begun).items():
        if times > 1:
            yield f"{node} was called {times} times as attempt {attempt} by process {child}"


def _effects(
    told: Told, run: str, events: Sequence[Event], ages: dict[int, int], begun: Sequence[Entry]
) -> Iterator[str]:
    """Effects as declared: journaled before they happen in the world; once; under one key; with one message."""
    started = {(event.node, event.attempt, ages[event.seq]) for event in events if isinstance(event, AttemptStarted)}
    again = Counter(event.node for event in events if isinstance(event, QuestionAnswered) and event.value == "again")
    keys: dict[str, set[str]] = defaultdict(set)
    for entry in begun:
        keys[entry.node].add(entry.key)
        if entry.name in CALLED and (entry.node, entry.attempt, entry.child) not in started:
            yield (
                f"{entry.node} had its effect before the journal knew of attempt {entry.attempt}, process {entry.child}"
            )
    for node, times in Counter(entry.node for entry in begun if CALLED.get(entry.name) == "once").items():
        if times > 1 + again[node]:
            yield f"{node} must happen once and was called {times} times; {again[node]} times somebody said `again`"
    if any(len(found) != 1 or "" in found for found in keys.values()) or len(set.union(set(), *keys.values())) != len(
        keys
    ):
        yield "calls of a node have several keys, or calls of several nodes one"
    done = {entry.node for entry in told.world if entry.run == run and entry.what == "done"}
    for event in events:
        if isinstance(event, AttemptFinished) and not event.error and not event.reused_from and event.node not in done:
            yield f"{event.node} has a value and was never done"
    wanted = MESSAGES.get(told.runs[run][0], {})
    if sorted((message.node, message.value) for message in told.outbox if message.run == run) != sorted(wanted.items()):
        yield "the outbox has not exactly one message a node"


def _ending(name: str, events: Sequence[Event]) -> Iterator[str]:
    """The output equals the output of an undisturbed run, except for answers of persons about calls in doubt."""
    last = events[-1] if events else None
    if not isinstance(last, RunFinished) or last.status != "done" or not isinstance(last.outcome, ValueOutcome):
        yield f"it did not end well: {last}"
        return
    given_up = {
        MOVED[event.node]: "unsent" for event in events if isinstance(event, QuestionAnswered) and event.value == "fail"
    }
    if last.outcome.value != OUTPUTS[name] | given_up:
        yield f"its output is {last.outcome.value}"
    used = [event.usage for event in events if isinstance(event, AttemptFinished)]
    if (last.usage.calls, last.usage.prompt_tokens) != (
        sum(use.calls for use in used),
        sum(use.prompt_tokens for use in used),
    ):
        yield "its usage is not the sum of its calls'"


def _cancelled(events: Sequence[Event], ages: dict[int, int], begun: Sequence[Entry]) -> Iterator[str]:
    """The run ended because of a cancellation; the cancellation was processed once, and no later process made a
    call.
    """
    asked = [event for event in events if isinstance(event, CancelRequested)]
    last = events[-1] if events else None
    if not isinstance(last, RunFinished) or last.status != "cancelled":
        yield f"it was to be cancelled, and was not: {last}"
        return
    if [event.message_number for event in asked] != [1]:
        yield f"its letter was opened as {[event.message_number for event in asked]}"
    elif any(entry.child > ages[asked[0].seq] for entry in begun):
        yield "something was called in a process that could know that it was cancelled"


def _story(name: str, events: Sequence[Event]) -> Iterator[str]:
    """One consistent run: the current engine makes the same decisions, each node has one outcome, and lease epochs
    increase.
    """
    found = replay(PROGRAMS[name], events)
    if found.first_difference is not None:
        yield f"replay differs at event {found.first_difference.seq}: {found.reason}"
    epochs = [1, *(event.epoch for event in events if isinstance(event, RunResumed))]
    if any(later <= earlier for earlier, later in pairwise(epochs)):
        yield f"lease epochs do not rise: {epochs}"
    if len(
        {event.node for event in events if isinstance(event, NodeFinished | AttemptFinished) and _ends(event)}
    ) != _ended(events):
        yield "a node has several outcomes"


def _ends(event: Event) -> bool:
    return isinstance(event, NodeFinished) or (isinstance(event, AttemptFinished) and event.final)


def _ended(events: Sequence[Event]) -> int:
    return sum(_ends(event) for event in events)

"""Rows: what a batch of appends becomes before it goes to Postgres. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from orchestra.core.events import Answered, AttemptFinished, Event, NodeFinished, RunFinished, RunStarted, TurnStarted, encode
from orchestra.core.outcomes import Value
from orchestra.core.protocols import RunSummary
from orchestra.journal.hash_chain import link
from orchestra.journal.large_values import LARGE
from orchestra.journal.run_index import Entries
from orchestra.journal.sqlite.encoding import is_text
from orchestra.journal.summary import Tally, message, named
from orchestra.journal.usage import COUNTED, UsageFold, write_usage
from orchestra.schema.strict_json import digest

MAX_ID = 1000
"""Bytes of a run's id at most: an index holds it."""


@dataclass(slots=True)
class Tail:
    """The end of one run's log, as the next batch continues it: its row so far, its greatest `seq`, the last link of its chain."""

    tally: Tally
    last: int
    chain: bytes
    fold: UsageFold | None = None
    """What the run used; None of one that was taken over: it is summed up when it is asked for."""


@dataclass(slots=True)
class Growth:
    """What a batch does to one run's row: from event `before` to event `last`."""

    epoch: int
    before: int
    last: int
    chain: bytes
    summary: bytes
    started: float
    ended: bool


@dataclass(slots=True)
class Batch:
    """What goes to disk in one transaction."""

    runs: dict[str, Growth] = field(default_factory=dict)
    events: list[tuple[str, int, bytes, bytes, str | None, int | None]] = field(default_factory=list)
    """Run, seq, body, chain; and where its value is kept apart, the value's digest and its place in the body."""
    blobs: dict[str, bytes] = field(default_factory=dict)
    named: set[tuple[str, str]] = field(default_factory=set)
    """Which run names which blob."""
    memo: dict[bytes, tuple[str, bytes]] = field(default_factory=dict)
    messages: list[tuple[str, bytes, bytes, bool]] = field(default_factory=list)
    """Run, key, body, and whether it was delivered."""
    entries: Entries = field(default_factory=Entries)
    size: int = 0
    """Bytes, roughly."""

    def grow(self, run: str, epoch: int, tail: Tail, events: Sequence[Event], bodies: Sequence[bytes], delivered: Collection[str]) -> None:
        """Takes a run's next events in, and moves its tail on."""
        before = self.runs[run].before if run in self.runs else tail.last
        fold = tail.fold
        for event, body in zip(events, bodies, strict=True):
            tail.tally.add(event)
            kind = type(event)
            if fold is not None and kind in COUNTED:
                fold.add(event)
            if kind is RunStarted or kind is TurnStarted or (isinstance(event, AttemptFinished) and event.recalled):
                self.entries.add(run, event)
            tail.chain = link(tail.chain, body)
            tail.last = event.seq
            self.size += len(body)
            self.events.append((run, event.seq, *self._short(run, event, body, tail.chain)))
            self.named.update((run, name) for name in named([event]))
            if (found := message(0, run, event)) is not None:
                self.messages.append((run, key(found.key), msgspec.json.encode(found), found.node in delivered))
        tally = tail.tally
        if fold is not None and tally.status != "running" and (used := fold.result()) is not None:
            self.entries.usages.append((run, tail.last, tail.chain, write_usage(used)))
        self.runs[run] = Growth(
            epoch, before, tail.last, tail.chain, msgspec.json.encode(tally.summary()), tally.started, tally.status != "running"
        )

    def _short(self, run: str, event: Event, body: bytes, chain: bytes) -> tuple[bytes, bytes, str | None, int | None]:
        """A row without its value where it is big. The value's bytes are cut out, and put back when it is read: nothing changes."""
        if len(body) > LARGE and (value := _value(event)) is not None:
            data = encode(value)
            at = body.find(data)
            if len(data) > LARGE // 2 and at >= 0:
                name = digest(data)
                self.blobs[name] = data
                self.named.add((run, name))
                return body[:at] + body[at + len(data) :], chain, name, at
        return body, chain, None, None


def whole(body: bytes, at: int | None, data: bytes) -> bytes:
    """An event's bytes, with the value put back that was kept apart."""
    return body if at is None else body[:at] + data + body[at:]


def turned(rows: Iterable[tuple[Any, ...]], width: int) -> list[list[Any]]:
    """Rows as columns, `width` of them also where there is no row."""
    return [list(column) for column in zip(*rows, strict=True)] or [[] for _ in range(width)]


def usable(text: str) -> bool:
    """Whether Postgres can keep a text, and an index can hold it."""
    return "\0" not in text and is_text(text) and len(text.encode()) <= MAX_ID


def key(text: str) -> bytes:
    """A text of any length and any characters, as a key: its SHA-256."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def read_summary(data: bytes) -> RunSummary:
    """A run's row. Raises `msgspec.DecodeError`."""
    return msgspec.json.decode(data, type=RunSummary)


def tally_of(summary: RunSummary) -> Tally:
    """A run's row, to be folded on."""
    return Tally(summary.run, summary.workflow, summary.status, summary.started, summary.finished, summary.nodes, summary.usage)


def _value(event: Event) -> Any:
    match event:
        case RunStarted():
            return event.inputs
        case AttemptFinished() | Answered():
            return event.value
        case NodeFinished() | RunFinished() if isinstance(event.outcome, Value):
            return event.outcome.value
        case _:
            return None

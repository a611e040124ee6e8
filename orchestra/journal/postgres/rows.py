"""Conversion of a batch of appends to rows of Postgres. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from orchestra.core.events import (
    AttemptFinished,
    Event,
    NodeFinished,
    QuestionAnswered,
    RunFinished,
    RunStarted,
    TurnStarted,
    encode,
)
from orchestra.core.outcomes import ValueOutcome
from orchestra.core.protocols import RunSummary
from orchestra.journal.encoding import LARGE_EVENT_BYTES, is_encodable
from orchestra.journal.hash_chain import next_hash
from orchestra.journal.summary import IndexEntries, SummaryFold, blob_digests, outbox_message
from orchestra.journal.usage import COUNTED_EVENTS, UsageFold, encode_usage
from orchestra.schema.strict_json import digest

MAX_ID_BYTES = 1000
"""Maximum size of a run's id in bytes, because an index holds it."""


@dataclass(slots=True)
class LogTail:
    """The end of one run's log: its summary, its greatest `seq`, and the last hash. The next batch continues it."""

    summary_fold: SummaryFold
    last_seq: int
    chain: bytes
    usage_fold: UsageFold | None = None
    """Usage of the run; None for a run that was taken over: it is computed on demand."""


@dataclass(slots=True)
class RunRowUpdate:
    """Changes of a batch to one run's row: from event `previous_seq` to event `last_seq`."""

    epoch: int
    previous_seq: int
    last_seq: int
    chain: bytes
    summary: bytes
    started: float
    is_ended: bool


@dataclass(slots=True)
class PostgresBatch:
    """Content of one transaction."""

    runs: dict[str, RunRowUpdate] = field(default_factory=dict)
    events: list[tuple[str, int, bytes, bytes, str | None, int | None]] = field(default_factory=list)
    """Run, seq, body, chain; for a separate value, its digest and its position in the body."""
    blobs: dict[str, bytes] = field(default_factory=dict)
    blob_uses: set[tuple[str, str]] = field(default_factory=set)
    """Runs and the blobs that they use."""
    memos: dict[bytes, tuple[str, bytes]] = field(default_factory=dict)
    messages: list[tuple[str, bytes, bytes, bool]] = field(default_factory=list)
    """Run, key, body, and whether it was delivered."""
    entries: IndexEntries = field(default_factory=IndexEntries)
    size: int = 0
    """Approximate size in bytes."""

    def add_events(
        self,
        run: str,
        epoch: int,
        tail: LogTail,
        events: Sequence[Event],
        bodies: Sequence[bytes],
        delivered: Collection[str],
    ) -> None:
        """Adds the next events of a run and advances its tail."""
        before = self.runs[run].previous_seq if run in self.runs else tail.last_seq
        fold = tail.usage_fold
        for event, body in zip(events, bodies, strict=True):
            tail.summary_fold.add(event)
            kind = type(event)
            if fold is not None and kind in COUNTED_EVENTS:
                fold.add(event)
            if kind is RunStarted or kind is TurnStarted or (isinstance(event, AttemptFinished) and event.reused_from):
                self.entries.add(run, event)
            tail.chain = next_hash(tail.chain, body)
            tail.last_seq = event.seq
            self.size += len(body)
            self.events.append((run, event.seq, *self._split_body(run, event, body, tail.chain)))
            self.blob_uses.update((run, name) for name in blob_digests([event]))
            if (message := outbox_message(0, run, event)) is not None:
                self.messages.append(
                    (run, hash_key(message.key), msgspec.json.encode(message), message.node in delivered)
                )
        tally = tail.summary_fold
        if fold is not None and tally.status != "running" and (run_usage := fold.result()) is not None:
            self.entries.usages.append((run, tail.last_seq, tail.chain, encode_usage(run_usage)))
        self.runs[run] = RunRowUpdate(
            epoch,
            before,
            tail.last_seq,
            tail.chain,
            msgspec.json.encode(tally.summary()),
            tally.started,
            tally.status != "running",
        )

    def _split_body(
        self, run: str, event: Event, body: bytes, chain: bytes
    ) -> tuple[bytes, bytes, str | None, int | None]:
        """Returns a row without its value if the value is large. The value's bytes are cut out and put back on reading,
        so the event's bytes do not change.
        """
        if len(body) > LARGE_EVENT_BYTES and (value := _event_value(event)) is not None:
            data = encode(value)
            at = body.find(data)
            if len(data) > LARGE_EVENT_BYTES // 2 and at >= 0:
                name = digest(data)
                self.blobs[name] = data
                self.blob_uses.add((run, name))
                return body[:at] + body[at + len(data) :], chain, name, at
        return body, chain, None, None


def restore_body(body: bytes, at: int | None, data: bytes) -> bytes:
    """Returns an event's bytes with its separate value put back."""
    return body if at is None else body[:at] + data + body[at:]


def to_columns(rows: Iterable[tuple[Any, ...]], width: int) -> list[list[Any]]:
    """Transposes rows to `width` columns, which are empty without rows."""
    return [list(column) for column in zip(*rows, strict=True)] or [[] for _ in range(width)]


def is_storable(text: str) -> bool:
    """Returns whether Postgres can store a text, and an index can hold it."""
    return "\0" not in text and is_encodable(text) and len(text.encode()) <= MAX_ID_BYTES


def hash_key(text: str) -> bytes:
    """Returns the SHA-256 of a text of any length and with any characters, as a key."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def decode_summary(data: bytes) -> RunSummary:
    """Decodes a run's summary. Raises `msgspec.DecodeError`."""
    return msgspec.json.decode(data, type=RunSummary)


def summary_fold_of(summary: RunSummary) -> SummaryFold:
    """Returns a fold that continues a summary."""
    return SummaryFold(
        summary.run, summary.workflow, summary.status, summary.started, summary.finished, summary.nodes, summary.usage
    )


def _event_value(event: Event) -> Any:
    match event:
        case RunStarted():
            return event.inputs
        case AttemptFinished() | QuestionAnswered():
            return event.value
        case NodeFinished() | RunFinished() if isinstance(event.outcome, ValueOutcome):
            return event.outcome.value
        case _:
            return None

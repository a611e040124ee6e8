"""The record of a run: all that a page shows of it, as one JSON document.

It has the events, the workflows with their graphs, the claims of the output with their evidence, and the certificates.
A page computes nodes, times and costs from the events, so that a live page and a saved one are the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from orchestra.app.claims.claims import OutputClaim
from orchestra.app.run_detail import RecordedRun, sent_and_received
from orchestra.app.snapshot_store import CARD
from orchestra.core.events import RunStarted, encode
from orchestra.core.protocols import Journal
from orchestra.journal.history import usage_by_tier
from orchestra.schema.strict_json import JsonDecodingError, decode_json

FORMAT: Final = "orchestra/run-record/v1"
MAX_BLOB_BYTES = 200_000
"""Bytes of one prompt or response in a saved record."""
MAX_BLOBS_BYTES = 8_000_000
"""Bytes of all prompts and responses in a saved record."""


class BlobText(msgspec.Struct, frozen=True):
    """The bytes that a model was sent or answered, as text; bytes that are no UTF-8 are escaped."""

    text: str
    size: int
    """The number of bytes, also if the text is cut."""


class NodeCertificate(msgspec.Struct, frozen=True):
    """The guarantee of a node's value, and the figures of its certificate; None if it is missing or unreadable."""

    node: str
    guarantee: str
    summary: dict[str, Any] | None


class RunRecord(msgspec.Struct, frozen=True):
    """A run as recorded."""

    format: str
    run: str
    workflow: str
    status: str
    """As in `RunView`."""
    seq: int
    """The number of the last event."""
    label: str
    tags: dict[str, str]
    confidence: float | None
    holder: str
    """The process that holds the run; empty if none does."""
    open_questions: tuple[int, ...]
    """Numbers of the events with the open questions to persons."""
    workflows: dict[str, Any]
    """The stored workflows by name; that of the run has an empty name."""
    cards: dict[str, Any]
    """The stored agent cards by name."""
    claims: tuple[OutputClaim, ...]
    dropped: tuple[OutputClaim, ...]
    certificates: tuple[NodeCertificate, ...]
    tiers: tuple[Any, ...]
    events: tuple[msgspec.Raw, ...]
    blobs: dict[str, BlobText] | None = None
    """Prompts and responses by digest; None if they are fetched one by one."""
    blobs_left_out: int = 0
    """Prompts and responses that are left out, because they are too large together."""


async def read_run_record(journal: Journal, run: str, now: float, *, with_blobs: bool = False) -> RunRecord:
    """Returns the record of a run, without changing it. Raises `InputError` E020 for an unknown run."""
    recorded_run = await RecordedRun.read(journal, run, now)
    first, events, history = recorded_run.started, recorded_run.events, recorded_run.history
    blobs, left_out = await _read_blobs(journal, sent_and_received(history.rows)) if with_blobs else (None, 0)
    return RunRecord(
        format=FORMAT,
        run=run,
        workflow=first.workflow,
        status=recorded_run.status,
        seq=events[-1].seq,
        label=first.label,
        tags=dict(first.tags),
        confidence=recorded_run.confidence,
        holder=recorded_run.holder,
        open_questions=tuple(question.seq for question in recorded_run.questions),
        workflows={name.partition("/")[2]: _parse(data) for name, data in recorded_run.workflows.items() if data},
        cards=await _read_cards(journal, first),
        claims=recorded_run.claims,
        dropped=recorded_run.dropped,
        certificates=tuple(
            NodeCertificate(guarantee.node, guarantee.guarantee, guarantee.certificate)
            for guarantee in recorded_run.guarantees()
        ),
        tiers=tuple(usage_by_tier(history)),
        events=tuple(msgspec.Raw(encode(event)) for event in events),
        blobs=blobs,
        blobs_left_out=left_out,
    )


def encode_record(record: RunRecord) -> bytes:
    """Returns the record as JSON."""
    return msgspec.json.encode(record)


async def _read_blobs(journal: Journal, digests: Iterable[str]) -> tuple[dict[str, BlobText], int]:
    blob_texts, room, left_out = dict[str, BlobText](), MAX_BLOBS_BYTES, 0
    for digest in digests:
        data = await journal.get_blob(digest) if room > 0 else None
        if data is None:
            left_out += 1
            continue
        excerpt = data[: min(MAX_BLOB_BYTES, room)]
        room -= len(excerpt)
        blob_texts[digest] = BlobText(excerpt.decode("utf-8", "backslashreplace"), len(data))
    return blob_texts, left_out


async def _read_cards(journal: Journal, start_event: RunStarted) -> dict[str, Any]:
    cards = dict[str, Any]()
    for name, digest in start_event.versions.items():
        kind, _, agent = name.partition("/")
        if kind == CARD and (data := await journal.get_blob(digest)) is not None:
            cards[agent] = _parse(data)
    return cards


def _parse(data: bytes) -> Any:
    """The value of a stored document; None if it is damaged."""
    try:
        return decode_json(data, dict)
    except JsonDecodingError:
        return None


class PromptDifference(msgspec.Struct, frozen=True, kw_only=True):
    """An agent with different prompts in two runs."""

    agent: str
    before: str
    after: str


async def prompt_differences(journal: Journal, one: RunStarted, other: RunStarted) -> tuple[PromptDifference, ...]:
    """Returns the agents of two runs whose stored prompts differ."""
    before, after = [await _stored_prompts(journal, start_event) for start_event in (one, other)]
    return tuple(
        PromptDifference(agent=name, before=before[name], after=after[name])
        for name in sorted(before.keys() & after.keys())
        if before[name] != after[name]
    )


async def _stored_prompts(journal: Journal, start_event: RunStarted) -> dict[str, str]:
    cards = await _read_cards(journal, start_event)
    return {name: str(card["prompt"]) for name, card in cards.items() if isinstance(card, dict) and card.get("prompt")}

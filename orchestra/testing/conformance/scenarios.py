"""Events, assertions and helpers of the conformance tests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeAlias

from orchestra.core.events import (
    AttemptFinished,
    AttemptStarted,
    CancelRequested,
    Event,
    InboxMessageRejected,
    MapExpanded,
    NodeFinished,
    OutputJudged,
    Override,
    OverrideSource,
    QuestionAnswered,
    QuestionAsked,
    RetryPlanned,
    RunFinished,
    RunResumed,
    RunStarted,
    TokensCounted,
    TurnStarted,
    Usage,
    Verdict,
)
from orchestra.core.outcomes import AbstainedOutcome, Evidence, FailedOutcome, SkippedOutcome, ValueOutcome
from orchestra.core.protocols import Journal
from orchestra.journal.errors import JournalError

OpenJournal: TypeAlias = Callable[[], AbstractAsyncContextManager[Journal]]
"""Opens the journal under test; the same one each time."""

USAGE = Usage(prompt_tokens=30, output_tokens=5, calls=1, seconds=0.5)


def run_started(run: str, at: float = 1.0, **more: Any) -> RunStarted:
    """Returns the first event of a run."""
    start_fields: dict[str, Any] = {"workflow": "staged", "graph": "0" * 32, "inputs": {"question": "Wer war’s?"}}
    return RunStarted(seq=1, at=at, run=run, **start_fields | more)


def node_events(first: int, count: int = 1) -> list[Event]:
    """Returns `count` events numbered from `first`, each with the outcome of a node."""
    return [
        NodeFinished(seq=seq, at=float(seq), node=f"n{seq}", outcome=ValueOutcome(value=f"v{seq}"))
        for seq in range(first, first + count)
    ]


def run_finished(seq: int, at: float = 9.0) -> RunFinished:
    """Returns the last event of a run."""
    return RunFinished(seq=seq, at=at, status="done", outcome=ValueOutcome(value="x"), usage=USAGE)


def outbox_event(seq: int, node: str, value: Any = "hello") -> AttemptFinished:
    """Returns a finished attempt whose value is an outbox message."""
    return AttemptFinished(
        seq=seq, at=float(seq), node=node, attempt=1, name="mail", value=value, final=True, outbox=True
    )


def all_event_kinds(run: str) -> list[Event]:
    """Returns a run with an event of each kind, each with all its fields."""
    evidence = (Evidence(check="quote", quote="in 1889", source="a", start=3, end=10, field="items[0].quote"),)
    verdict = Verdict(
        check="quote", outcome="pass", score=0.9, reason="it is there", deterministic=False, evidence=evidence
    )
    outcomes = (
        ValueOutcome(value={"x": [1, 2.5, None, True]}, score=0.93, evidence=evidence),
        SkippedOutcome(reason="if", origin="a"),
        AbstainedOutcome(reason="unsure", origin="b", score=0.2),
        FailedOutcome(code="M001", reason="no JSON", origin="c", hint="again"),
    )
    overrides = {"x": Override(value={"y": [None]}, source=OverrideSource(by="ann"), question_digest="6" * 32)}
    kinds: list[Callable[[int], Event]] = [
        lambda seq: run_started(
            run,
            label="restricted",
            versions={"reader": "1" * 32},
            parent="r0",
            options={"budget": {"tokens": 9}},
            overrides=overrides,
        ),
        lambda seq: RunResumed(seq=seq, at=1.5, epoch=2, by="host:1", idle_seconds=3.5),
        lambda seq: MapExpanded(seq=seq, at=1.5, node="each", count=3),
        lambda seq: TurnStarted(seq=seq, at=1.5, node="loop", turn=2),
        lambda seq: AttemptStarted(
            seq=seq, at=1e-9, node="a[0]#2/b", attempt=1, name="reader", escalated=True, reserved=7
        ),
        lambda seq: AttemptFinished(
            seq=seq,
            at=1.7e9,
            node="a",
            attempt=2,
            name="reader",
            value="ß\n\0\U0001f980",
            usage=USAGE,
            memo_key="m",
            confidence=0.5,
            server="s1",
            model="m",
            sent="2" * 32,
            received="3" * 32,
            final=True,
            reused_from="r0",
        ),
        lambda seq: AttemptFinished(
            seq=seq,
            at=2.0,
            node="b",
            attempt=1,
            error="T001",
            reason="no",
            hint="try",
            retryable=True,
            permanent=True,
            frames=("t.py:1 in f",),
        ),
        lambda seq: OutputJudged(
            seq=seq, at=2.0, node="a", attempt=2, verdicts=(verdict,), accepted=True, score=0.9, reason="fine"
        ),
        lambda seq: RetryPlanned(seq=seq, at=2.0, node="b", attempt=2, due=1234567.875, reason="again"),
        lambda seq: QuestionAsked(
            seq=seq,
            at=3.0,
            node="q",
            question="Well?",
            schema={"type": "string"},
            question_digest="4" * 32,
            options=("y", "n"),
        ),
        lambda seq: QuestionAnswered(seq=seq, at=3.0, node="q", value="y", by="ann", message_number=1),
        lambda seq: QuestionAsked(
            seq=seq,
            at=3.0,
            node="d",
            question="Again?",
            schema={},
            question_digest="5" * 32,
            kind="effect",
            result_schema={"type": "null"},
        ),
        lambda seq: QuestionAnswered(
            seq=seq, at=3.0, node="d", value=None, by="ann", message_number=2, call_happened=True
        ),
        lambda seq: NodeFinished(
            seq=seq,
            at=3.0,
            node="d",
            outcome=ValueOutcome(value=None),
            overridden_by=OverrideSource(by="ann", run="r0"),
        ),
        lambda seq: InboxMessageRejected(seq=seq, at=3.0, message_number=2, reason="no such question", node="q"),
        lambda seq: TokensCounted(seq=seq, at=3.0, node="a", prompt_tokens=12),
        *(
            lambda seq, outcome=outcome: NodeFinished(seq=seq, at=4.0, node=f"n{seq}", outcome=outcome)
            for outcome in outcomes
        ),
        lambda seq: CancelRequested(seq=seq, at=5.0, by="ann", message_number=3),
        lambda seq: RunFinished(seq=seq, at=6.0, status="cancelled", outcome=outcomes[2], usage=USAGE),
    ]
    return [make(seq) for seq, make in enumerate(kinds, 1)]


def assert_equal(what: str, seen: object, wanted: object) -> None:
    """Raises `AssertionError` if the two differ."""
    if seen != wanted:
        raise AssertionError(f"{what}: {_shorten(seen)}, expected {_shorten(wanted)}")


def assert_true(what: str, holds: bool) -> None:
    """Raises `AssertionError` if the condition is false."""
    if not holds:
        raise AssertionError(f"not so: {what}")


async def error_code(action: Awaitable[object]) -> str:
    """Returns the code of the `JournalError` of an action; empty if it succeeds."""
    try:
        await action
    except JournalError as error:
        return error.code
    return ""


async def append_durably(journal: Journal, run: str, events: Sequence[Event]) -> None:
    """Appends events and waits until they are durable. Either may raise an error."""
    journal.append(run, events)
    if events:
        await journal.wait_durable(run, events[-1].seq)


async def assert_refused(what: str, action: Awaitable[object], *codes: str) -> None:
    """Raises `AssertionError` if an action is not refused with one of the codes."""
    code = await error_code(action)
    if code not in codes:
        raise AssertionError(f"{what}: {code or 'was not refused'}, expected {' or '.join(codes)}")


async def status_of(journal: Journal, run: str) -> str:
    """Returns a run's status in the list; empty if it is not listed."""
    before = await journal.summary(run)
    run_summary = next((summary for summary in await journal.list_runs(1000) if summary.run == run), None)
    after = await journal.summary(run)
    if run_summary != before:  # the run may have continued meanwhile, and its process may have died
        assert_equal("the row of one run", after, run_summary)
    return run_summary.status if run_summary is not None else ""


def _shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) < 600 else f"{text[:400]} … {text[-100:]}"

"""What the laws of a journal write, and how they look at it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeAlias

from orchestra.core.events import (
    Answered,
    Asked,
    AttemptFinished,
    AttemptStarted,
    CancelRequested,
    Event,
    Expanded,
    Given,
    GivenValue,
    Judged,
    LetterRefused,
    Measured,
    NodeFinished,
    Resumed,
    RetryPlanned,
    RunFinished,
    RunStarted,
    TurnStarted,
    Usage,
    Verdict,
)
from orchestra.core.outcomes import Abstained, Evidence, Failed, Skipped, Value
from orchestra.core.protocols import Journal
from orchestra.journal.errors import JournalError

Open: TypeAlias = Callable[[], AbstractAsyncContextManager[Journal]]
"""Opens the store: the same one each time."""

SPENT = Usage(prompt_tokens=30, output_tokens=5, calls=1, seconds=0.5)


def begun(run: str, at: float = 1.0, **more: Any) -> RunStarted:
    """The first event of a run."""
    given: dict[str, Any] = {"workflow": "staged", "graph": "0" * 32, "inputs": {"question": "Wer war’s?"}}
    return RunStarted(seq=1, at=at, run=run, **given | more)


def middle(first: int, count: int = 1) -> list[Event]:
    """Events numbered from `first`, each a node's outcome."""
    return [NodeFinished(seq=seq, at=float(seq), node=f"n{seq}", outcome=Value(value=f"v{seq}")) for seq in range(first, first + count)]


def ended(seq: int, at: float = 9.0) -> RunFinished:
    """The last event of a run."""
    return RunFinished(seq=seq, at=at, status="done", outcome=Value(value="x"), usage=SPENT)


def sent(seq: int, node: str, value: Any = "hello") -> AttemptFinished:
    """An answer that is a message for the outbox."""
    return AttemptFinished(seq=seq, at=float(seq), node=node, attempt=1, name="mail", value=value, settled=True, outbox=True)


def every_kind(run: str) -> list[Event]:
    """A run with an event of each kind, each with all it may carry."""
    evidence = (Evidence(check="quote", quote="in 1889", source="a", start=3, end=10, field="items[0].quote"),)
    verdict = Verdict(check="quote", outcome="pass", score=0.9, reason="it is there", deterministic=False, evidence=evidence)
    outcomes = (
        Value(value={"x": [1, 2.5, None, True]}, score=0.93, evidence=evidence),
        Skipped(reason="if", by="a"),
        Abstained(reason="unsure", by="b", score=0.2),
        Failed(code="M001", reason="no JSON", by="c", hint="again"),
    )
    given = {"x": GivenValue(value={"y": [None]}, given=Given(by="ann"), shown="6" * 32)}
    kinds: list[Callable[[int], Event]] = [
        lambda seq: begun(
            run, label="restricted", versions={"reader": "1" * 32}, parent="r0", options={"budget": {"tokens": 9}}, given=given
        ),
        lambda seq: Resumed(seq=seq, at=1.5, epoch=2, by="host:1", away=3.5),
        lambda seq: Expanded(seq=seq, at=1.5, node="each", count=3),
        lambda seq: TurnStarted(seq=seq, at=1.5, node="loop", turn=2),
        lambda seq: AttemptStarted(seq=seq, at=1e-9, node="a[0]#2/b", attempt=1, name="reader", escalated=True, reserved=7),
        lambda seq: AttemptFinished(
            seq=seq,
            at=1.7e9,
            node="a",
            attempt=2,
            name="reader",
            value="ß\n\0\U0001f980",
            usage=SPENT,
            memo="m",
            confidence=0.5,
            server="s1",
            model="m",
            sent="2" * 32,
            received="3" * 32,
            settled=True,
            recalled="r0",
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
            lasting=True,
            frames=("t.py:1 in f",),
        ),
        lambda seq: Judged(seq=seq, at=2.0, node="a", attempt=2, verdicts=(verdict,), accepted=True, score=0.9, reason="fine"),
        lambda seq: RetryPlanned(seq=seq, at=2.0, node="b", attempt=2, due=1234567.875, reason="again"),
        lambda seq: Asked(seq=seq, at=3.0, node="q", question="Well?", schema={"type": "string"}, shown="4" * 32, options=("y", "n")),
        lambda seq: Answered(seq=seq, at=3.0, node="q", value="y", by="ann", letter=1),
        lambda seq: Asked(seq=seq, at=3.0, node="d", question="Again?", schema={}, shown="5" * 32, about="effect", gives={"type": "null"}),
        lambda seq: Answered(seq=seq, at=3.0, node="d", value=None, by="ann", letter=2, gave=True),
        lambda seq: NodeFinished(seq=seq, at=3.0, node="d", outcome=Value(value=None), given=Given(by="ann", run="r0")),
        lambda seq: LetterRefused(seq=seq, at=3.0, letter=2, reason="nobody asked", node="q"),
        lambda seq: Measured(seq=seq, at=3.0, node="a", prompt_tokens=12),
        *(lambda seq, outcome=outcome: NodeFinished(seq=seq, at=4.0, node=f"n{seq}", outcome=outcome) for outcome in outcomes),
        lambda seq: CancelRequested(seq=seq, at=5.0, by="ann", letter=3),
        lambda seq: RunFinished(seq=seq, at=6.0, status="cancelled", outcome=outcomes[2], usage=SPENT),
    ]
    return [make(seq) for seq, make in enumerate(kinds, 1)]


def same(what: str, seen: object, wanted: object) -> None:
    """Raises `AssertionError` where the two differ."""
    if seen != wanted:
        raise AssertionError(f"{what}: {_shown(seen)}, but it should be {_shown(wanted)}")


def true(what: str, holds: bool) -> None:
    """Raises `AssertionError` where it does not hold."""
    if not holds:
        raise AssertionError(f"not so: {what}")


async def code_of(doing: Awaitable[object]) -> str:
    """The code of the `JournalError` that an action ends in; empty where it ends well."""
    try:
        await doing
    except JournalError as error:
        return error.code
    return ""


async def write(journal: Journal, run: str, events: Sequence[Event]) -> None:
    """Appends, and waits for the disk: a refusal may come at either."""
    journal.append(run, events)
    if events:
        await journal.durable(run, events[-1].seq)


async def refused(what: str, doing: Awaitable[object], *codes: str) -> None:
    """Raises `AssertionError` where an action is not refused with one of the codes."""
    code = await code_of(doing)
    if code not in codes:
        raise AssertionError(f"{what}: {code or 'was not refused'}, but it should be {' or '.join(codes)}")


async def status_of(journal: Journal, run: str) -> str:
    """A run's status in the list; empty where it is not listed."""
    before = await journal.summary(run)
    found = next((summary for summary in await journal.runs(1000) if summary.run == run), None)
    after = await journal.summary(run)
    if found != before:  # it may have gone on meanwhile, and its process may have died
        same("the row of one run", after, found)
    return found.status if found is not None else ""


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) < 600 else f"{text[:400]} … {text[-100:]}"

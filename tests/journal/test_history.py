"""The history of a run, for display."""

from __future__ import annotations

from typing import TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.core.events import (
    AttemptFinished,
    AttemptStarted,
    CancelRequested,
    Event,
    InboxMessageRejected,
    MapExpanded,
    NodeFinished,
    OutputJudged,
    PlanDraft,
    QuestionAnswered,
    QuestionAsked,
    RetryPlanned,
    RunFinished,
    RunResumed,
    RunStarted,
    TurnStarted,
    Usage,
    Verdict,
)
from orchestra.core.outcomes import AbstainedOutcome, FailedOutcome, Outcome, SkippedOutcome, ValueOutcome
from orchestra.journal.history import History
from tests.journal.stories import whole

Fact: TypeAlias = tuple[type[Event], dict[str, object]]

COST = Usage(prompt_tokens=10, output_tokens=2, calls=1)


def numbered(*makers: Fact) -> list[Event]:
    """Events, numbered and timed one second apart, after a run's first."""
    start = RunStarted(seq=1, at=100.0, run="r1", workflow="staged", graph="g", inputs={})
    return [start, *(kind(seq=seq, at=99.0 + seq, **fields) for seq, (kind, fields) in enumerate(makers, 2))]  # type: ignore[arg-type]  # fields of that kind


def call(node: str, attempt: int = 1, **result: object) -> list[Fact]:
    return [
        (AttemptStarted, {"node": node, "attempt": attempt, "name": "reader"}),
        (AttemptFinished, {"node": node, "attempt": attempt, "usage": COST, **result}),
    ]


def done(node: str, outcome: Outcome | None = None) -> Fact:
    return NodeFinished, {"node": node, "outcome": outcome or ValueOutcome(value=1)}


def test_history_of_plain_run() -> None:
    history = History.of(whole("r1", at=10.0))
    assert (history.run, history.workflow, history.status, history.started, history.seconds) == (
        "r1",
        "staged",
        "done",
        10.0,
        3.0,
    )
    (row,) = history.rows
    assert (row.path, row.kind, row.name, row.status, row.seconds, row.depth) == (
        "a",
        "call",
        "reader",
        "value",
        1.0,
        0,
    )
    assert row.usage == history.usage
    assert row.attempts[0].seconds == 1.0


def test_history_rows_are_in_start_order() -> None:
    history = History.of(numbered(*call("late")[:1], *call("a"), done("a"), *call("late")[1:], done("late")))
    assert [row.path for row in history.rows] == ["late", "a"]


def test_history_elements_are_nested_and_usage_is_summed() -> None:
    history = History.of(
        numbered(
            (MapExpanded, {"node": "x", "count": 2}),
            *call("x[0]")[:1],
            *call("x[1]"),
            done("x[1]"),
            *call("x[0]")[1:],
            done("x[0]"),
            done("x"),
        )
    )
    assert [(row.path, row.depth, row.kind) for row in history.rows] == [
        ("x", 0, "each"),
        ("x[0]", 1, "call"),
        ("x[1]", 1, "call"),
    ]
    assert history.rows[0].elements == 2
    assert history.rows[0].usage == COST + COST
    assert history.usage == COST + COST


def test_history_turns_and_blocks_are_nested() -> None:
    turns: list[Fact] = []
    for turn in (1, 2):
        turns += [(TurnStarted, {"node": "l", "turn": turn}), *call(f"l#{turn}/draft"), done(f"l#{turn}/draft")]
    history = History.of(numbered(*turns, done("l")))
    assert [(row.path, row.depth, row.kind, row.status) for row in history.rows] == [
        ("l", 0, "loop", "value"),
        ("l#1", 1, "turn", "value"),
        ("l#1/draft", 2, "call", "value"),
        ("l#2", 1, "turn", "value"),
        ("l#2/draft", 2, "call", "value"),
    ]


def test_history_call_body_has_no_turns() -> None:
    history = History.of(
        numbered((TurnStarted, {"node": "c", "turn": 1}), *call("c/draft"), done("c/draft"), done("c"))
    )
    assert [(row.path, row.kind) for row in history.rows] == [("c", "block"), ("c/draft", "call")]


def test_history_external_events_and_open_questions() -> None:
    asked = {"question": "Well?", "schema": {}, "question_digest": "d"}
    facts: list[Fact] = [
        (QuestionAsked, {"node": "a", **asked}),
        (QuestionAsked, {"node": "b", **asked}),
        (InboxMessageRejected, {"message_number": 1, "reason": "the question is not open"}),
        (RunResumed, {"epoch": 2, "by": "ada"}),
        (QuestionAnswered, {"node": "a", "value": "yes", "message_number": 2}),
    ]
    history = History.of(numbered(*facts))
    assert [type(event) for event in history.external_events] == [InboxMessageRejected, RunResumed, QuestionAnswered]
    assert [event.node for event in history.open_questions] == ["b"]


def test_history_finished_node_has_no_open_questions() -> None:
    asked = {"question": "Well?", "schema": {}, "question_digest": "d"}
    failed = FailedOutcome(code="E034", reason="all elements are needed", origin="got")
    facts: list[Fact] = [
        (MapExpanded, {"node": "got", "count": 3}),
        (QuestionAsked, {"node": "got[0]/sure", **asked}),
        (QuestionAsked, {"node": "got[2]/inner#1/sure", **asked}),
        (QuestionAsked, {"node": "gotten", **asked}),
        done("got[1]/made", failed),
        done("got[1]", failed),
    ]
    before, after = History.of(numbered(*facts)), History.of(numbered(*facts, done("got", failed)))
    assert [event.node for event in before.open_questions] == ["got[0]/sure", "got[2]/inner#1/sure", "gotten"]
    assert [event.node for event in after.open_questions] == ["gotten"]
    assert after.is_waiting
    assert not any(row.unanswered_reason for row in after.rows)


def test_history_replaced_plan_has_no_open_questions() -> None:
    asked = {"question": "Well?", "schema": {}, "question_digest": "d"}
    facts: list[Fact] = [
        (TurnStarted, {"node": "solve", "turn": 1, "draft": PlanDraft(graph={}, version=1)}),
        (QuestionAsked, {"node": "solve@1/s1", **asked}),
        (TurnStarted, {"node": "solve", "turn": 2, "draft": PlanDraft(graph={}, version=1)}),
        (TurnStarted, {"node": "solve", "turn": 3, "draft": PlanDraft(graph={}, version=2)}),
        (QuestionAsked, {"node": "solve@2/s1", **asked}),
    ]
    assert [event.node for event in History.of(numbered(*facts[:3])).open_questions] == ["solve@1/s1"]
    assert [event.node for event in History.of(numbered(*facts)).open_questions] == ["solve@2/s1"]


def test_history_attempt_has_source_of_reused_answer() -> None:
    history = History.of(numbered(*call("a", reused_from="older")))
    assert [tried.reused_from for tried in history.rows[0].attempts] == ["older"]


def test_history_attempts_have_verdicts() -> None:
    verdict = Verdict(check="quote", outcome="fail", score=0.0, reason="not in the text")
    history = History.of(
        numbered(
            *call("a", value="wrong", sent="s1", received="r1", server="one", model="smol"),
            (
                OutputJudged,
                {
                    "node": "a",
                    "attempt": 1,
                    "verdicts": (verdict,),
                    "accepted": False,
                    "score": 0.1,
                    "reason": "quote: fail",
                },
            ),
            (RetryPlanned, {"node": "a", "attempt": 2, "due": 300.0}),
            *call("a", 2, value="right"),
            (OutputJudged, {"node": "a", "attempt": 2, "verdicts": (), "accepted": True, "score": 0.9}),
            done("a"),
        )
    )
    first, second = history.rows[0].attempts
    assert (first.accepted, first.rejection_reason, first.score, first.verdicts) == (
        False,
        "quote: fail",
        0.1,
        (verdict,),
    )
    assert (first.sent, first.received, first.server, first.model, first.value) == ("s1", "r1", "one", "smol", "wrong")
    assert (second.number, second.accepted, second.rejection_reason, second.value) == (2, True, "", "right")


@pytest.mark.parametrize(
    ("outcome", "status", "error"),
    [
        (ValueOutcome(value=1), "value", ""),
        (SkippedOutcome(reason="`when` was false"), "skipped", "`when` was false"),
        (AbstainedOutcome(reason="quote: fail"), "abstained", "quote: fail"),
        (FailedOutcome(code="E009", reason="wrong type"), "failed", "E009: wrong type"),
    ],
)
def test_history_outcomes_have_status_and_error(outcome: Outcome, status: str, error: str) -> None:
    (row,) = History.of(numbered(done("a", outcome))).rows
    assert (row.status, row.error) == (status, error)


def test_history_of_running_run() -> None:
    history = History.of(
        numbered(
            *call("busy")[:1],
            *call("again", error="F203", reason="refused"),
            (RetryPlanned, {"node": "again", "attempt": 2, "due": 9.0}),
        )
    )
    busy, again = history.rows
    assert (history.status, history.finished, busy.status, busy.seconds, busy.attempts[0].seconds) == (
        "running",
        None,
        "running",
        None,
        None,
    )
    assert (again.status, again.error) == ("waiting", "F203: refused")


def test_history_of_cancelled_run() -> None:
    end = (RunFinished, {"status": "cancelled", "outcome": FailedOutcome(code="E008", reason="cancelled")})
    history = History.of(numbered(*call("a")[:1], (CancelRequested, {"by": "me"}), end))
    assert (history.status, history.cancelled_by, history.rows[0].status) == ("cancelled", "me", "interrupted")


@given(st.integers(0, 5))
def test_history_of_any_prefix_is_valid(length: int) -> None:
    history = History.of(whole("r1")[:length])
    assert history.status == ("done" if length == 5 else "running")
    assert len(history.rows) == (1 if length >= 2 else 0)

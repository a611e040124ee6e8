"""A person declines to answer: the node is withheld with the reason, or uses its fallback; journaled, resumed,
replayed, audited.
"""

from __future__ import annotations

from typing import Any

import pytest

from orchestra.core.events import Event, InboxMessageRejected, QuestionAnswered, QuestionAsked
from orchestra.core.outcomes import AbstainedOutcome, ValueOutcome
from orchestra.core.protocols import InboxMessage
from orchestra.engine.replay import replay
from orchestra.journal.history import History
from orchestra.testing import VirtualClock, run_simulated
from tests.engine.durable import Theatre
from tests.engine.stage import program
from tests.engine.test_tiers import BAD, TEXT, flow
from tests.simulation.lab.invariants import AuditCase, audit

ASK = """
input: {text: str}
output: ${said}
nodes:
  said: {ask: "Is ${input.text} right?", options: ["yes", "no"]MORE}
"""
CHOICE = """
input: {text: str}
output: ${found}
nodes:
  said: {ask: "What is ${input.text}?"}
  found: {first_of: ["${said}", "unknown"]}
"""
WHY = "I was not there"


def declined(text: str, *, crash: bool = False, by: str = "ada", value: Any = None) -> tuple[Any, list[Event]]:
    """Runs a workflow whose only question is declined; the journal is audited and replayed."""
    compiled = program(text)

    async def scene(clock: VirtualClock) -> tuple[Any, list[Event]]:
        theatre = Theatre(clock, {"reader": BAD})
        run = theatre.start(compiled, {"text": TEXT})
        assert await run.wait_until_blocked() is None
        (question,) = run.questions
        if crash:
            await theatre.crash()
        await clock.sleep(86_400)
        letter = InboxMessage(
            kind="answer",
            node=question.node,
            value=value,
            by=by,
            question_digest=question.question_digest,
            decline_reason=WHY,
        )
        await theatre.journal.send(run.id, letter)
        if crash:
            run = await theatre.engine.resume(compiled, run.id)
        finished = await run.wait()
        await theatre.engine.close()
        return finished.outcome, list(await theatre.journal.read(run.id))

    outcome, events = run_simulated(scene)
    assert audit(AuditCase(compiled, events)) == []
    found = replay(compiled, events)
    assert (found.first_difference, found.reason) == (None, "")
    return outcome, events


@pytest.mark.parametrize("crash", [False, True])
def test_decline_withholds_with_reason(crash: bool) -> None:
    outcome, events = declined(ASK.replace("MORE", ""), crash=crash)
    assert outcome == AbstainedOutcome(f"ada declined to answer: {WHY}", "said")
    (answered,) = (event for event in events if isinstance(event, QuestionAnswered))
    assert (answered.value, answered.decline_reason, answered.by) == (None, WHY, "ada")


def test_decline_without_name() -> None:
    assert declined(ASK.replace("MORE", ""), by="")[0] == AbstainedOutcome(
        f"a person declined to answer: {WHY}", "said"
    )


def test_decline_extra_fields_are_no_answer() -> None:
    outcome, events = declined(ASK.replace("MORE", ""), value="yes")
    assert isinstance(outcome, AbstainedOutcome)
    assert [event.value for event in events if isinstance(event, QuestionAnswered)] == [None]


def test_decline_uses_fallback() -> None:
    assert declined(ASK.replace("MORE", ', fallback: "no"'))[0] == ValueOutcome("no")


def test_decline_takes_next_arm() -> None:
    assert declined(CHOICE)[0] == ValueOutcome("unknown")


@pytest.mark.parametrize("crash", [False, True])
def test_decline_of_review_withholds_value(crash: bool) -> None:
    outcome, events = declined(flow("ask"), crash=crash)
    assert isinstance(outcome, AbstainedOutcome)
    assert outcome.reason.startswith("quote: ")
    assert outcome.reason.endswith(f"; ada declined to answer: {WHY}")
    assert (outcome.origin, outcome.score) == ("reading", 0.0)
    (row,) = History.of(events).rows
    assert row.correction is None  # no other value was given
    assert any(isinstance(one, QuestionAnswered) and one.decline_reason for one in History.of(events).external_events)


def test_decline_bound_to_shown_value() -> None:
    async def scene(clock: VirtualClock) -> list[Event]:
        theatre = Theatre(clock, {})
        run = theatre.start(program(ASK.replace("MORE", "")), {"text": TEXT})
        assert await run.wait_until_blocked() is None
        await theatre.journal.send(
            run.id, InboxMessage(kind="answer", node="said", question_digest="another", decline_reason=WHY)
        )
        await clock.sleep(60)
        assert await run.wait_until_blocked() is None
        await theatre.engine.close()
        return list(await theatre.journal.read(run.id))

    assert [event.reason for event in run_simulated(scene) if isinstance(event, InboxMessageRejected)] == [
        "the question has changed since it was shown"
    ]


def test_call_in_doubt_cannot_be_declined() -> None:
    asked = QuestionAsked(
        seq=1,
        at=0.0,
        node="a",
        question="again?",
        schema={},
        question_digest="s",
        options=("again", "fail"),
        kind="effect",
    )

    async def scene(clock: VirtualClock) -> str:
        return Theatre(clock, {}).engine.rejection_reason(
            asked, InboxMessage(kind="answer", node="a", question_digest="s", decline_reason=WHY)
        )

    assert run_simulated(scene) == "the answer must be one of: again or fail"

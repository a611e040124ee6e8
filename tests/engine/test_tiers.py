"""Tiers: several larger models in sequence, without those that the label forbids, and finally a person."""

from __future__ import annotations

from typing import Any

import pytest

from orchestra.core.events import AttemptFinished, AttemptStarted, OutputJudged, QuestionAnswered, QuestionAsked
from orchestra.core.outcomes import AbstainedOutcome, FailedOutcome, ValueOutcome
from orchestra.core.protocols import CallError, CallRequest, InboxMessage
from orchestra.engine.replay import replay
from orchestra.journal.history import History, usage_by_tier
from orchestra.testing import VirtualClock, run_simulated
from tests.engine.durable import Theatre
from tests.engine.stage import Played, play, program
from tests.simulation.lab.invariants import AuditCase, audit

FLOW = """
input: {text: str}
output: ${reading}
nodes:
  reading:
    agent: reader
    with: {question: when, context: "${input.text}"}
    checks: [quote]
    against: ${input.text}
    otherwise: [OTHERWISE]
"""
EACH = """
input: {texts: "list[str]"}
output: ${readings.values.map(r, r.answer)}
nodes:
  readings:
    agent: reader
    each: ${input.texts}
    as: text
    with: {question: when, context: "${text}"}
    checks: [quote]
    against: ${text}
    otherwise: [escalate, ask]
"""
VERIFIED = """
input: {text: str}
output: ${checked}
nodes:
  reading: {agent: reader, with: {question: when, context: "${input.text}"}}
  checked: {verify: "${reading}", checks: [quote], against: "${input.text}", otherwise: [ask]}
"""
TEXT = "The tower was completed in 1889."
GOOD = {"answer": "1889", "quote": "completed in 1889"}
BAD = {"answer": "1890", "quote": "completed in 1890"}
PERSONAL = {"answer": "1889", "quote": "as everybody knows"}
TIERS = ("large", "outside", "largest")
FORBIDDEN = CallError(code="F202", reason="data labelled 'restricted' may go to no server of the model 'outside'")


def flow(otherwise: str) -> str:
    return FLOW.replace("OTHERWISE", otherwise)


def climbed(otherwise: str, by_tier: dict[int, Any], tiers: tuple[str, ...] = TIERS) -> Played:
    """Runs a reading whose answers depend on the tier, then audits and replays its journal."""
    text = flow(otherwise)
    played = play(text, {"text": TEXT}, {"reader": lambda call: by_tier.get(call.tier, BAD)}, tiers=tiers)
    assert audit(AuditCase(program(text), played.events)) == []
    assert replay(program(text), played.events).reason == ""
    return played


def asked(played: Played) -> list[int]:
    return [call.tier for call in played.workers.calls]


def test_tiers_next_model_after_refusal() -> None:
    played = climbed("escalate", {3: GOOD})
    assert isinstance(played.outcome, ValueOutcome)
    assert (played.outcome.value, asked(played)) == (GOOD, [0, 1, 2, 3])
    assert [(one.attempt, one.escalated, one.tier) for one in played.of(AttemptStarted)] == [
        (1, False, 0),
        (2, True, 0),
        (3, True, 2),
        (4, True, 3),
    ]
    assert len(played.of(OutputJudged)) == 4


def test_tiers_end_with_first_accepted_value() -> None:
    assert asked(climbed("retry, escalate", {1: GOOD})) == [0, 0, 1]


def test_tiers_model_forbidden_by_label_skipped() -> None:
    played = climbed("escalate", {2: FORBIDDEN, 3: GOOD})
    assert isinstance(played.outcome, ValueOutcome)
    assert asked(played) == [0, 1, 2, 3]
    assert [one.reason for one in played.of(AttemptFinished) if one.error] == [FORBIDDEN.reason]


def test_tiers_abstention_lists_asked_and_skipped_models() -> None:
    outcome = climbed("escalate", {2: FORBIDDEN, 3: CallError(code="F203", reason="it is gone")}).outcome
    assert isinstance(outcome, AbstainedOutcome)
    assert outcome.reason.endswith(
        f"; its own model, then large (asked), outside (passed over: {FORBIDDEN.reason}), largest (F203: it is gone)"
    )
    assert outcome.reason.startswith("quote: ")
    assert outcome.score is not None


def test_tiers_end_if_fleet_lost_models() -> None:
    assert asked(climbed("escalate", {2: CallError(code="F220", reason="no still larger model")})) == [0, 1, 2]


@pytest.mark.parametrize("tiers", [(), ("large",)])
def test_tiers_single_larger_model_called_once(tiers: tuple[str, ...]) -> None:
    played = climbed("escalate", {}, tiers)
    assert isinstance(played.outcome, AbstainedOutcome)
    assert asked(played) == [0, 1]


def test_tiers_direct_larger_model_refused_goes_to_next() -> None:
    text = flow("retry, escalate").replace("    checks", "    escalate: ${size(input.text) > 3}\n    checks")
    played = play(text, {"text": TEXT}, {"reader": lambda call: GOOD if call.tier == 2 else BAD}, tiers=TIERS)
    assert asked(played) == [1, 2]
    assert audit(AuditCase(program(text), played.events)) == []


def waits(
    text: str, inputs: dict[str, Any], reader: Any, letters: list[tuple[str, Any]], *, crash: bool = False
) -> tuple[Any, list[Any]]:
    """Runs a workflow that waits a week for a person, and audits it; after a crash another process resumes it."""
    compiled = program(text)

    async def scene(clock: VirtualClock) -> tuple[Any, list[Any]]:
        theatre = Theatre(clock, {"reader": reader})
        run = theatre.start(compiled, inputs, tiers=("large",))
        assert await run.wait_until_blocked() is None
        if crash:
            await theatre.crash()
        await clock.sleep(7 * 86_400)
        for node, value in letters:
            (question,) = [one for one in run.questions if one.node == node]
            letter = InboxMessage(
                kind="answer", node=node, value=value, by="ada", question_digest=question.question_digest
            )
            assert theatre.engine.rejection_reason(question, letter) == ""
            await theatre.journal.send(run.id, letter)
        if crash:
            run = await theatre.engine.resume(compiled, run.id)
        finished = await run.wait()
        events = list(await run.history())
        await theatre.engine.close()
        assert audit(AuditCase(compiled, events)) == []
        assert replay(compiled, events).reason == ""
        return finished.outcome, events

    return run_simulated(scene)


def bad(call: CallRequest) -> Any:
    return {**BAD, "answer": f"189{call.tier}"}


@pytest.mark.parametrize("crash", [False, True])
def test_tiers_person_corrects_value_last(crash: bool) -> None:
    text = flow("escalate, ask, abstain").replace("    checks", "    timeout: 5\n    checks")
    outcome, events = waits(text, {"text": TEXT}, bad, [("reading", PERSONAL)], crash=crash)
    assert outcome == ValueOutcome(PERSONAL), "the value is kept unchanged, without a check"
    (question,) = [event for event in events if isinstance(event, QuestionAsked)]
    assert (question.kind, question.schema["title"]) == ("acceptance", "Reading")
    assert question.withheld is not None
    assert question.withheld.value["answer"] == "1891", "the last that was not accepted"
    assert [(one.check, one.outcome) for one in question.withheld.verdicts] == [("quote", "fail")]
    assert [one.text for one in question.withheld.evidence] == [TEXT]
    assert question.withheld.tiers == "its own model, then large (asked)"
    (answer,) = [event for event in events if isinstance(event, QuestionAnswered)]
    assert (answer.by, answer.value) == ("ada", PERSONAL)
    row = History.of(events).row("reading")
    assert row is not None
    assert row.correction == answer
    assert [(one.name, one.calls, one.accepted) for one in usage_by_tier(History.of(events))] == [
        ("its own model", 1, 0),
        ("large", 1, 0),
        ("a person", 1, 1),
    ]


def test_answer_of_other_type_refused() -> None:
    async def scene(clock: VirtualClock) -> None:
        theatre = Theatre(clock, {"reader": BAD})
        run = theatre.start(program(flow("ask")), {"text": TEXT})
        assert await run.wait_until_blocked() is None
        (question,) = run.questions
        assert "quote" in theatre.engine.rejection_reason(
            question, InboxMessage(kind="answer", value={"answer": "1889"}, question_digest=question.question_digest)
        )
        assert "has changed" in theatre.engine.rejection_reason(
            question, InboxMessage(kind="answer", value=GOOD, question_digest="another")
        )
        await theatre.engine.close()

    run_simulated(scene)


def test_tiers_person_sees_last_existing_value() -> None:
    def reader(call: CallRequest) -> Any:
        return FORBIDDEN if call.tier else BAD

    _, events = waits(flow("escalate, ask"), {"text": TEXT}, reader, [("reading", GOOD)])
    (question,) = [event for event in events if isinstance(event, QuestionAsked)]
    assert question.withheld is not None
    assert question.withheld.value == BAD
    assert "passed over" in question.withheld.tiers


def test_tiers_question_per_element() -> None:
    def reader(call: CallRequest) -> Any:
        return {
            "answer": call.inputs["context"],
            "quote": call.inputs["context"] if call.inputs["context"] == "b" else "x",
        }

    letters = [(f"readings[{index}]", {"answer": f"person {index}", "quote": ""}) for index in (2, 0)]
    outcome, _ = waits(EACH, {"texts": ["a", "b", "c"]}, reader, letters)
    assert outcome == ValueOutcome(["person 0", "b", "person 2"])


def test_tiers_verify_may_ask_person() -> None:
    outcome, events = waits(VERIFIED, {"text": TEXT}, BAD, [("checked", GOOD)])
    assert outcome == ValueOutcome(GOOD)
    assert usage_by_tier(History.of(events))[-1].name == "a person"


def test_tiers_long_evidence_cut_in_question() -> None:
    _, events = waits(flow("ask"), {"text": "word " * 5_000}, BAD, [("reading", GOOD)])
    (question,) = [event for event in events if isinstance(event, QuestionAsked)]
    assert question.withheld is not None
    assert [len(one.text) for one in question.withheld.evidence] == [4_001]


def test_tiers_failure_not_shown_to_person() -> None:
    outcome = play(flow("escalate, ask"), {"text": TEXT}, {"reader": CallError(code="F300", reason="it broke")}).outcome
    assert isinstance(outcome, FailedOutcome)


def test_tiers_kept_after_crash() -> None:
    compiled = program(flow("escalate"))

    async def scene(clock: VirtualClock) -> None:
        theatre = Theatre(clock, {"reader": lambda call: GOOD if call.tier == 3 else BAD}, latency=10.0)
        run = theatre.start(compiled, {"text": TEXT}, tiers=TIERS)
        await clock.sleep(25)  # the second of them is in progress
        await theatre.crash()
        run = await theatre.engine.resume(compiled, run.id)
        finished = await run.wait()
        evidence = History.of(await run.history()).rows[0].outcome.evidence  # type: ignore[union-attr]
        assert finished.outcome == ValueOutcome(GOOD, 1.0, evidence)
        assert [call.tier for call in theatre.workers.calls] == [0, 1, 2, 2, 3]
        await theatre.engine.close()

    run_simulated(scene)


def test_tiers_of_run_start_used_after_resume() -> None:
    """A run keeps the tiers of its start: they are in its first event."""
    played = climbed("escalate", {}, ("one", "two"))
    assert played.events[0].tiers == ("one", "two")  # type: ignore[union-attr]

"""`escalate: ${condition}`: the larger model at the first attempt, the recorded reason, and calls without a larger
model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from orchestra.core.errors import InputErrors
from orchestra.core.events import AttemptStarted
from orchestra.core.outcomes import AbstainedOutcome, FailedOutcome, ValueOutcome
from orchestra.core.protocols import CallError, CallRequest, CallResult, TextCallback
from orchestra.engine.engine import Engine
from orchestra.engine.replay import replay
from orchestra.testing import SimulatedWorkers, VirtualClock, run_simulated
from tests.engine.durable import Theatre
from tests.engine.stage import Played, play, program
from tests.simulation.lab.invariants import AuditCase, audit

FLOW = """
input: {text: str}
output: ${reply}
nodes:
  length: {tool: split, with: {text: "${input.text}"}}
  reply: {agent: writer, with: {text: "${input.text}"}, escalate: "${size(length) > 2}"MORE}
"""
CHECKED = FLOW.replace("agent: writer", "agent: reader").replace(
    'with: {text: "${input.text}"}, escalate',
    'with: {question: when, context: "${input.text}"}, checks: [quote], against: "${input.text}", escalate',
)
TIER: dict[str, Any] = {"writer": lambda call: "large" if call.is_escalated else "small"}
LONG = "a b c"


def answered(flow: str, text: str, answers: dict[str, Any] | None = None, **options: Any) -> Played:
    """Runs a workflow, then audits and replays its journal."""
    played = play(flow.replace("MORE", ""), {"text": text}, answers or TIER, **options)
    compiled = program(flow.replace("MORE", ""))
    assert audit(AuditCase(compiled, played.events)) == []
    found = replay(compiled, played.events)
    assert (found.first_difference, found.reason) == (None, "")
    return played


def asked(played: Played) -> list[tuple[int, bool]]:
    return [(call.attempt, call.is_escalated) for call in played.workers.calls if call.node == "reply"]


@pytest.mark.parametrize(("text", "answer", "at_once"), [(LONG, "large", True), ("a b", "small", False)])
def test_routing_condition_selects_model_of_first_attempt(text: str, answer: str, at_once: bool) -> None:
    played = answered(FLOW, text)
    assert isinstance(played.outcome, ValueOutcome)
    assert (played.outcome.value, asked(played)) == (answer, [(1, at_once)])


@pytest.mark.parametrize(
    ("text", "said"), [(LONG, 'true, with length = ["a","b","c"]'), ("a b", 'false, with length = ["a","b"]')]
)
def test_routing_choice_and_reason_journaled(text: str, said: str) -> None:
    (begun,) = answered(FLOW, text).of(AttemptStarted, "reply")
    assert (begun.escalated, begun.escalation_reason) == (said.startswith("true"), f"size(length) > 2 is {said}")


def test_routing_reason_quote_cut() -> None:
    (begun,) = answered(FLOW, "word " * 5000).of(AttemptStarted, "reply")
    assert len(begun.escalation_reason) < 300


@pytest.mark.parametrize("code", ["F202", "F220"])
def test_routing_missing_larger_model_uses_own(code: str) -> None:
    def writer(call: Any) -> Any:
        return CallError(code=code, reason="not cleared", hint="") if call.is_escalated else "small"

    played = answered(FLOW, LONG, {"writer": writer})
    assert isinstance(played.outcome, ValueOutcome)
    assert (played.outcome.value, asked(played)) == ("small", [(1, True), (2, False)])


class AtOnce(SimulatedWorkers):
    """Answers in the same turn, so that the journal may omit the start of a call."""

    said: Mapping[int, CallResult | CallError]

    async def call(self, call: CallRequest, on_text: TextCallback | None = None) -> CallResult | CallError:
        self.calls.append(call)
        return CallResult(value=["a", "b", "c"]) if call.kind == "tool" else self.said[call.attempt]


@pytest.mark.parametrize("interrupted", [False, True])
def test_routing_own_model_kept_for_retries(interrupted: bool) -> None:
    compiled = program(FLOW.replace("MORE", ", retry: {attempts: 3, wait: [10, 10]}"))

    async def scene(clock: VirtualClock) -> None:
        theatre = Theatre(clock)
        theatre.workers = workers = AtOnce({}, clock=clock)
        workers.said = {
            1: CallError(code="F220", reason="none"),
            2: CallError(code="F203", reason="gone", retryable=True),
            3: CallResult(value="small"),
        }
        theatre.engine = Engine(clock, theatre.journal, workers)
        run = theatre.start(compiled, {"text": LONG})
        if interrupted:
            await clock.sleep(5)
            await theatre.crash()
            run = await theatre.engine.resume(compiled, run.id)
        assert (await run.wait()).outcome == ValueOutcome("small")
        assert [call.is_escalated for call in workers.calls if call.node == "reply"] == [True, False, False]
        await theatre.engine.close()

    run_simulated(scene)


def test_routing_other_errors_of_larger_model_fail_node() -> None:
    played = answered(FLOW, LONG, {"writer": lambda call: CallError(code="F300", reason="it broke", hint="")})
    assert isinstance(played.outcome, FailedOutcome)
    assert (played.outcome.code, asked(played)) == ("F300", [(1, True)])


def test_routing_larger_model_judged_once() -> None:
    flow = CHECKED.replace("MORE", ", otherwise: [retry, escalate, abstain]")
    played = answered(flow, "built in 1889, without a source")
    assert isinstance(played.outcome, AbstainedOutcome)
    assert asked(played) == [(1, True)]


def test_routing_short_input_escalated_after_verdict() -> None:
    flow = CHECKED.replace("MORE", ", otherwise: [escalate]")
    assert asked(answered(flow, "in 1889")) == [(1, False), (2, True)]


def test_routing_transport_error_retries_same_model() -> None:
    def writer(call: Any) -> Any:
        return CallError(code="F300", reason="busy", hint="", retryable=True) if call.attempt == 1 else "large"

    played = answered(FLOW, LONG, {"writer": writer})
    assert asked(played) == [(1, True), (2, True)]


def test_each_element_has_own_model_choice() -> None:
    flow = """
input: {text: str}
output: ${replies.values}
nodes:
  words: {tool: split, with: {text: "${input.text}"}}
  replies: {agent: writer, each: "${words}", as: word, with: {text: "${word}"}, escalate: "${size(word) > 3}"}
"""
    played = answered(flow, "iron a tower")
    assert isinstance(played.outcome, ValueOutcome)
    assert played.outcome.value == ["large", "small", "large"]


def test_routing_choice_made_once_while_budget_waits() -> None:
    played = answered(FLOW.replace("output:", "budget: {tokens: 4000}\noutput:"), LONG)
    assert [begun.escalation_reason for begun in played.of(AttemptStarted, "reply")] == [
        'size(length) > 2 is true, with length = ["a","b","c"]'
    ]


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ("${length}", "L114"),
        ("yes", "L114"),
        ("${true}", "L118"),
        ("${missing > 1}", "L051"),
        ("${size(length) >}", "L05"),
    ],
)
def test_routing_invalid_condition_refused_at_line(given: str, code: str) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - one error, or several
        program(FLOW.replace("MORE", "").replace("${size(length) > 2}", given))
    faults = caught.value.errors if isinstance(caught.value, InputErrors) else [caught.value]
    assert any(str(getattr(fault, "code", "")).startswith(code) for fault in faults)

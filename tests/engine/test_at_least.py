"""`at_least`: a list that requires all or a number of its elements fails as soon as this is impossible."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestra.core.events import AttemptStarted, MapExpanded, NodeFinished, QuestionAsked, RunFinished, RunResumed
from orchestra.core.outcomes import FailedOutcome, ValueOutcome
from orchestra.core.protocols import CallError, CallRequest
from orchestra.engine.replay import replay
from orchestra.journal.history import History
from tests.engine.durable import resumed
from tests.engine.stage import Played, play, program
from tests.simulation.lab.invariants import AuditCase, audit

EACH = """
input: {text: str}
output: ${n}
nodes:
  words: {tool: split, with: {text: "${input.text}"}}
  loud: {agent: writer, each: "${words}", as: word, with: {text: "${word}"}, %s}
  n: {tool: count, with: {items: "${loud.values}"}}
"""


def fails(*words: str) -> dict[str, Any]:
    """A writer that fails on these words; other answers take a second each."""

    def answer(call: CallRequest) -> Any:
        return CallError(code="F207", reason="no") if call.inputs["text"] in words else "<>"

    return {"writer": answer}


def slow(call: CallRequest, chance: Any) -> float:
    """The answer about `b` takes a second, every other answer ten."""
    return 0.0 if call.kind == "tool" else 1.0 if call.inputs["text"] == "b" else 10.0


def why(played: Played) -> str:
    """Returns the reason of a failed run."""
    assert isinstance(played.outcome, FailedOutcome)
    return played.outcome.reason


def sound(text: str, played: Played) -> None:
    assert audit(AuditCase(program(text), played.events)) == []
    assert replay(program(text), played.events).reason == ""


@pytest.mark.parametrize(
    ("at_least", "lost", "value"),
    [
        ("all", "", 4),
        ("all", "b", None),
        (3, "b", 3),
        (3, "bc", None),
        (4, "d", None),
        (1, "abc", 1),
        (1, "abcd", None),
    ],
)
def test_at_least_list_complete_or_failed(at_least: str | int, lost: str, value: int | None) -> None:
    text = EACH % f"at_least: {at_least}"
    played = play(text, {"text": "a b c d"}, fails(*lost), latency=(0.5, 2.0))
    if value is not None:
        assert played.outcome == ValueOutcome(value)
    else:
        assert isinstance(played.outcome, FailedOutcome)
        assert (played.outcome.code, played.outcome.origin) == ("E034", "loud")
    sound(text, played)


def test_at_least_failure_names_elements_and_reasons() -> None:
    played = play(EACH % "at_least: 3", {"text": "a b c d"}, fails("a", "c"), latency=1.0)
    assert isinstance(played.outcome, FailedOutcome)
    assert played.outcome.reason == (
        "3 of 4 elements are needed, and 2 cannot be had: loud[0] failed (F207: no); loud[2] failed (F207: no)"
    )
    played = play(EACH % "at_least: all", {"text": "a b c d"}, fails("c"), latency=1.0)
    assert isinstance(played.outcome, FailedOutcome)
    assert played.outcome.reason == "all elements are needed, and 1 cannot be had: loud[2] failed (F207: no)"


def test_at_least_failure_cancels_other_elements() -> None:
    text = EACH % "at_least: all, concurrency: 2"
    played = play(text, {"text": "a b c d e f"}, fails("b"), latency=slow)
    assert played.finished.at - played.events[0].at == 1.0
    assert [call.node for call in played.workers.calls if call.kind == "agent"] == ["loud[0]", "loud[1]"]
    assert [call.node for call in played.workers.cancelled] == ["loud[0]"]
    assert {event.node for event in played.of(NodeFinished)} == {"loud[1]", "loud", "n"}
    sound(text, played)


def test_at_least_short_list_starts_nothing() -> None:
    played = play(EACH % "at_least: 3", {"text": "a b"})
    assert played.outcome == FailedOutcome(
        "E034", "2 elements, and 3 are needed", "loud", "lower `at_least`, or pass more elements to loud"
    )
    assert not played.of(MapExpanded)
    assert [why(play(EACH % f"at_least: {least}", {"text": said})) for least, said in ((2, "a"), (1, ""))] == [
        "1 element, and 2 are needed",
        "0 elements, and 1 is needed",
    ]
    lost = [why(play(EACH % "at_least: 1", {"text": said}, fails("a", "b"), latency=1.0)) for said in ("a", "a b")]
    assert [reason.partition(",")[0] for reason in lost] == ["1 of 1 element is needed", "1 of 2 elements is needed"]
    assert play(EACH % "at_least: all", {"text": ""}).outcome == ValueOutcome(0)
    assert isinstance(play(EACH % "at_least: 1", {"text": ""}).outcome, FailedOutcome)


def test_at_least_counts_after_retries() -> None:
    def answer(call: CallRequest) -> Any:
        return (
            CallError(code="F204", reason="busy", retryable=True)
            if call.inputs["text"] == "b" and call.attempt < 3
            else "<>"
        )

    text = EACH % "at_least: all, retry: 3"
    played = play(text, {"text": "a b c"}, {"writer": answer}, latency=1.0)
    assert played.outcome == ValueOutcome(3)
    played = play(EACH % "at_least: all, retry: 2", {"text": "a b c"}, {"writer": answer}, latency=1.0)
    assert isinstance(played.outcome, FailedOutcome)
    assert "loud[1] failed (F204: busy)" in played.outcome.reason


def test_at_least_fallback_counts_as_value() -> None:
    played = play(EACH % "at_least: all, fallback: none", {"text": "a b c"}, fails("b"), latency=1.0)
    assert played.outcome == ValueOutcome(3)


def test_at_least_skipped_element_not_counted() -> None:
    when = "when: \"${word != 'b'}\""
    assert play(EACH % f"at_least: all, {when}", {"text": "a b c"}).outcome == ValueOutcome(2)
    assert play(EACH % f"at_least: 2, {when}", {"text": "a b c"}).outcome == ValueOutcome(2)
    played = play(EACH % f"at_least: 3, {when}", {"text": "a b c"})
    assert isinstance(played.outcome, FailedOutcome)
    assert "loud[1] was skipped" in played.outcome.reason


WITHHELD = """
input: {texts: "list[str]"}
output: ${found.values}
nodes:
  found:
    each: ${input.texts}
    as: text
    agent: reader
    with: {question: When?, context: "${text}"}
    checks: [quote]
    against: ${text}
    otherwise: [%s]
    at_least: %s
"""
TEXTS = {"texts": ["It was completed in 1889.", "It stands.", "It was completed in 1889, they say."]}


def test_at_least_withheld_element_is_missing() -> None:
    played = play(WITHHELD % ("abstain", "all"), TEXTS)
    assert isinstance(played.outcome, FailedOutcome)
    assert "found[1] was withheld (" in played.outcome.reason
    played = play(WITHHELD % ("abstain", 2), TEXTS)
    assert isinstance(played.outcome, ValueOutcome)
    assert len(played.outcome.value) == 2


NESTED = """
input: {rows: "list[list[str]]"}
output: ${outer.values}
nodes:
  outer:
    each: ${input.rows}
    as: row
    at_least: %s
    call:
      nodes:
        inner: {agent: writer, each: "${row}", as: word, at_least: all, with: {text: "${word}"}}
      output: ${inner.values}
"""
ROWS = {"rows": [["a", "b"], ["c"], ["d", "e"]]}


def test_at_least_failed_inner_list_is_missing() -> None:
    played = play(NESTED % 2, ROWS, fails("b"), latency=slow)
    assert played.outcome == ValueOutcome([["<>"], ["<>", "<>"]])
    assert [call.node for call in played.workers.cancelled] == ["outer[0]/inner[0]"]
    sound(NESTED % 2, played)
    played = play(NESTED % "all", ROWS, fails("b"), latency=slow)
    assert isinstance(played.outcome, FailedOutcome)
    assert played.outcome.reason.startswith(
        "all elements are needed, and 1 cannot be had: outer[0] failed (E034: all elements are needed"
    )
    assert "outer[0]/inner[1] failed (F207: no)" in played.outcome.reason
    assert len(played.workers.cancelled) == 4
    assert played.finished.at - played.events[0].at == 1.0
    sound(NESTED % "all", played)


def test_at_least_failed_list_closes_question() -> None:
    text = """
input: {words: "list[str]"}
output: {said: "${said}"}
nodes:
  all:
    each: ${input.words}
    as: word
    at_least: all
    call:
      nodes:
        sure: {ask: "Is ${word} right?", when: "${word == 'a'}"}
        made: {agent: writer, when: "${word != 'a'}", with: {text: "${word}"}}
        either: {first_of: ["${sure}", "${made}"]}
      output: ${either}
  said: {first_of: ["${string(size(all.values))}", "not all"]}
"""
    played = play(text, {"words": ["a", "b", "c"]}, fails("b"), latency=slow)
    assert played.outcome == ValueOutcome({"said": "not all"})
    assert [event.node for event in played.of(QuestionAsked)] == ["all[0]/sure"]
    assert History.of(played.events[:-1]).open_questions == ()
    sound(text, played)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10**6), cut=st.floats(0, 1), at_least=st.sampled_from(["all", 2, 4]), width=st.integers(1, 3)
)
def test_resume_at_any_event_gives_same_end(seed: int, cut: float, at_least: str | int, width: int) -> None:
    text = EACH % f"at_least: {at_least}, concurrency: {width}"
    compiled = program(text)
    answers = {
        "split": lambda call: call.inputs["text"].split(),
        "count": lambda call: len(call.inputs["items"]),
        **fails("b", "d"),
    }
    played: Any = play(text, {"text": "a b c d e"}, answers, seed=seed, latency=(0.1, 2.0))
    before = list(played.events[: max(1, int(cut * (len(played.events) - 1)))])

    finished, events, _ = resumed(compiled, before, answers, latency=(0.1, 2.0), seed=seed)
    assert finished.status == played.finished.status
    assert isinstance(events[len(before)], RunResumed)
    assert audit(AuditCase(compiled, events)) == []
    assert replay(compiled, events).reason == ""


def test_at_least_failed_list_asks_nothing_on_effect_in_doubt() -> None:
    text = """
input: {words: "list[str]"}
output: ${sent.values}
nodes:
  sent: {tool: send, each: "${input.words}", as: word, at_least: all, with: {text: "${word}"}}
"""
    compiled = program(text)

    def sends(call: CallRequest) -> Any:
        return CallError(code="T003", reason="no") if call.inputs["text"] == "b" else "sent"

    def takes(call: CallRequest, chance: Any) -> float:
        return 1.0 if call.inputs["text"] == "b" else 10.0

    played: Any = play(text, {"words": ["a", "b"]}, {"send": sends}, latency=takes)
    assert isinstance(played.outcome, FailedOutcome)
    failed = next(event for event in played.of(NodeFinished, "sent[1]"))
    before = [event for event in played.events if event.seq <= failed.seq]
    assert {event.node for event in before if isinstance(event, AttemptStarted)} == {"sent[0]", "sent[1]"}

    _, events, _ = resumed(compiled, before, {"send": sends}, latency=takes)
    assert not [event for event in events if isinstance(event, QuestionAsked)]
    assert isinstance(events[-1], RunFinished)
    assert audit(AuditCase(compiled, events)) == []


def test_at_least_hint_has_first_failure_and_possible_effects() -> None:
    text = """
input: {words: "list[str]"}
output: ${outer.values}
nodes:
  outer:
    each: ${input.words}
    as: word
    at_least: all
    call:
      nodes:
        sent: {tool: %s, each: "${[word]}", as: one, at_least: all, with: {text: "${one}"}}
      output: ${sent.values}
"""

    def fails(call: CallRequest) -> Any:
        return CallError(code="E024", reason="no", hint="--again") if call.inputs["text"] == "b" else "<>"

    advice = "; or leave `at_least` out: the list then omits them, and `left_out` lists them"
    for tool, more in (("send", ""), ("shout", advice)):
        played = play(text % tool, {"words": ["a", "b"]}, {tool: fails})
        assert isinstance(played.outcome, FailedOutcome)
        assert played.outcome.hint == f"correct the cause of the failures{more}; outer[1]/sent[0]: --again"

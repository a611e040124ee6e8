"""Checks of one's own: which tools can be asked, what they are given, and what their answers mean."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.agents.contract import Contract
from orchestra.agents.tools import ToolFunction
from orchestra.core.events import Verdict
from orchestra.core.protocols import EvidenceSource
from orchestra.schema.builtin_models import Judgement
from orchestra.schema.types import schema_of
from orchestra.verification.custom_checks import (
    build_questions,
    judge_replies,
    signature_error,
    tool_name,
    tool_reference,
)
from orchestra.verification.entailment import JudgeReply

LEAVES = st.none() | st.booleans() | st.floats() | st.integers() | st.text()
ANYTHING = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))
SOURCES = (EvidenceSource("One.", "a"), EvidenceSource("Two.", "b"))


def contract(function: Any, effect: Any = "pure") -> Contract:
    return ToolFunction.from_function(function, effect=effect).contract


def short(answer: str, limit: int = 10) -> bool:
    return len(answer) <= limit


def named(value: str, evidence: list[str]) -> float:
    return 0.5


def joined(value: str | None, evidence: str, amount: float) -> Judgement | None:
    return None


def nothing() -> bool:
    return True


def backwards(evidence: list[str], answer: str) -> bool:
    return True


def strange(value: str, evidence: int) -> bool:
    return True


def wordy(value: str) -> str:
    return value


def sure(value: str) -> Literal[True]:
    return True


def counted(value: int) -> int:
    return value


@pytest.mark.parametrize(
    ("function", "output", "inputs", "says"),
    [
        (short, str, {}, ""),
        (short, str | None, {}, ""),
        (short, str, {"limit": int}, ""),
        (short, str, {"limit": str}, "limit: expected int, got str"),
        (short, int, {}, "answer: expected str, got int"),
        (short, str | int, {}, "answer: expected str, got int"),
        (short, None, None, ""),
        (named, str, {}, ""),
        (named, str, {"evidence": str}, "evidence: expected list[str], got str"),
        (joined, str, {"amount": float}, ""),
        (joined, str, {}, "it wants 'amount', and there is no such input here"),
        (joined, str, None, ""),
        (nothing, str, {}, "no parameter of it must be given"),
        (backwards, str, {}, "is called 'evidence'"),
        (strange, str, {}, "it takes the texts as `str` or `list[str]`"),
        (wordy, str, {}, "it returns str, and a check is told a bool"),
        (sure, str, {}, ""),
        (counted, int, {}, ""),
    ],
)
def test_which_tools_can_judge_which_values(function: Any, output: Any, inputs: Any, says: str) -> None:
    given_ = {name: schema_of(type_, "validation") for name, type_ in inputs.items()} if inputs is not None else None
    why = signature_error(contract(function), schema_of(output, "serialization") if output is not None else None, given_)
    assert says in why
    assert bool(says) == bool(why)


@pytest.mark.parametrize(("effect", "good"), [("pure", True), ("idempotent", True), ("transactional", False), ("once", False)])
def test_a_tool_that_acts_is_asked_by_no_check(effect: str, good: bool) -> None:
    assert ("may be asked more than once" in signature_error(contract(short, effect))) is not good


def test_a_tool_is_given_the_value_first_and_the_rest_by_name() -> None:
    def inputs(function: Any, value: Any, given_: dict[str, Any]) -> Any:
        found = build_questions(contract(function), value, given_, SOURCES)
        return found[0].inputs if isinstance(found, tuple) else (found.outcome, found.reason)

    assert inputs(short, "iron", {}) == {"answer": "iron"}
    assert inputs(short, "iron", {"answer": "another", "limit": 3, "more": 1}) == {"answer": "iron", "limit": 3}
    assert inputs(named, "iron", {}) == {"value": "iron", "evidence": ["One.", "Two."]}
    assert inputs(named, "iron", {"evidence": ["own"]}) == {"value": "iron", "evidence": ["own"]}
    assert inputs(joined, "iron", {"amount": 1.5}) == {"value": "iron", "evidence": "One.\n\nTwo.", "amount": 1.5}
    assert inputs(joined, "iron", {}) == ("unknown", "joined wants the input 'amount', and there is none")
    assert inputs(short, None, {}) == ("pass", "there is no answer"), "nothing was said that could be wrong"
    assert inputs(joined, None, {"amount": 1.5})["value"] is None, "it takes null, and so it is asked"
    assert inputs(nothing, "iron", {}) == ("unknown", "nothing has no parameter for the value")


@pytest.mark.parametrize(
    ("value", "outcome", "score", "reason"),
    [
        (True, "pass", 1.0, ""),
        (False, "fail", 0.0, "it says no"),
        (0.5, "pass", 0.5, ""),
        (1, "pass", 1.0, ""),
        (0.49, "fail", 0.0, "a score of 0.49 is under 0.5"),
        (1.2, "unknown", 0.5, "a score of 1.2 is not in [0, 1]"),
        (float("nan"), "unknown", 0.5, "a score of nan is not in [0, 1]"),
        (None, "unknown", 0.5, "it cannot tell"),
        ("yes", "unknown", 0.5, "it said neither yes nor no, but a str"),
        ([True], "unknown", 0.5, "it said neither yes nor no, but a list"),
        ({"passed": True}, "pass", 1.0, ""),
        ({"passed": True, "score": 0.7, "reason": "so"}, "pass", 0.7, "so"),
        ({"passed": False, "score": 0.9, "reason": "too long"}, "fail", 0.0, "too long"),
        ({"passed": False, "reason": ""}, "fail", 0.0, "it says no"),
        ({"passed": None, "reason": "no list of names"}, "unknown", 0.5, "no list of names"),
        ({"passed": True, "score": 7}, "unknown", 0.5, "a score of 7 is not in [0, 1]"),
        ({"passed": True, "score": True}, "pass", 1.0, ""),
        ({"passed": "yes"}, "unknown", 0.5, "it said neither yes nor no, but a dict"),
        ({"good": True}, "unknown", 0.5, "it said neither yes nor no, but a dict"),
    ],
)
def test_what_a_tool_says_as_a_verdict(value: Any, outcome: str, score: float, reason: str) -> None:
    assert judge_replies([JudgeReply(value)]) == Verdict("tool", outcome, score, reason)


def test_a_tool_that_did_not_answer_leaves_it_open() -> None:
    assert judge_replies([JudgeReply(error="T003 it raised")]) == Verdict("tool", "unknown", 0.5, "T003 it raised")
    assert judge_replies([]) == Verdict("tool", "unknown", 0.5, "nobody answered")
    assert len(judge_replies([JudgeReply({"passed": False, "reason": "x" * 10_000})]).reason) == 300


@given(ANYTHING)
def test_whatever_a_tool_says_only_a_plain_yes_passes(value: Any) -> None:
    found = judge_replies([JudgeReply(value)])
    plain = value is True or (isinstance(value, int | float) and not isinstance(value, bool) and 0.5 <= value <= 1)
    assert (found.outcome == "pass") == (plain or (isinstance(value, dict) and value.get("passed") is True))
    assert 0 <= found.score <= 1


def test_a_judge_is_a_tool_or_an_agent_by_how_it_is_called() -> None:
    assert (tool_reference("short"), tool_name(tool_reference("short")), tool_name("reader")) == ("tool(short)", "short", "")

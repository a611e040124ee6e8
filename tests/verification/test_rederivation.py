"""V2 and V3: equivalent answers, rederivation by another agent, and agreement of samples."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.agents.contract import Contract
from orchestra.core.protocols import EvidenceSource
from orchestra.schema.fields import SCORE_FIELDS
from orchestra.verification.deterministic import check_numbers
from orchestra.verification.entailment import JudgeReply
from orchestra.verification.equivalence import answer_content, cluster_equivalent, is_equivalent
from orchestra.verification.rederivation import build_inputs, judge_agreement, judge_rederivation

TEXT: dict[str, Any] = {"type": "string"}
QUOTED = {"type": "string", "format": "quote"}
READING = {
    "type": "object",
    "properties": {"answer": TEXT, "quote": QUOTED, "expression": TEXT, "score": {"type": "number"}},
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("left", "right", "alike"),
    [
        ("1,200 dollars", "$1200", True), ("The Eiffel Tower", "eiffel  tower.", True),
        ("8 February 2007", "2007-02-08", True),
        ("February 2007", "2007-02-08", False), ("four", "4", True), ("-5", "5", False), ("1.5", "15", False),
        ("2 million", "2,000,000", True),
        (1889, "in 1889", True), (1889, "1889 or 1890", False), (1889.0, 1889, True), (True, 1, False),
        (None, "", False),
        (["a", "B"], ["b", "A", "a"], True), (["a"], ["a", "b"], False), ({"x": "1"}, {"x": 1}, True),
        ({"x": 1}, {"y": 1}, False),
        ("10 - 20", "10-20", True), ("3 m", "3 million", False), ("324m", "324 m", True), (324, "324m", True),
        ("5m", "5 million", True),
        ("Apartment 12 B", "Apartment 12", False), ("one thousand two hundred", "1200", True),
        ("3.11.7", "3.11.9", False),
        (float("nan"), "5", False), (float("inf"), "5", False), (float("nan"), float("nan"), True),
        (12345678901234567890123456789012, "12345678901234567890123456789012", True),
        ("not in Paris", "in Paris", False), ("!", "?", False), ("Straße", "STRASSE", True),
        ("12%", "12 per cent", True),
    ],
)  # fmt: skip
def test_is_equivalent_by_number_date_set_or_text(left: Any, right: Any, alike: bool) -> None:
    assert is_equivalent(left, right) is alike
    assert is_equivalent(right, left) is alike


@given(JSON, JSON)
def test_is_equivalent_is_symmetric_and_reflexive(left: Any, right: Any) -> None:
    assert is_equivalent(left, left)
    assert is_equivalent(left, right) == is_equivalent(right, left)


@given(st.text(max_size=30))
def test_is_equivalent_ignores_case_and_spacing(text: str) -> None:
    plain = " ".join(word for word in text.split() if word.isascii() and word.isalpha())
    assert is_equivalent(plain, f"  {plain.upper().replace(' ', '   ')} ")


@given(st.lists(st.sampled_from(["a", "A.", "b", "1", "one", "c d"]), max_size=8))
def test_cluster_equivalent_is_a_partition(values: list[str]) -> None:
    found = cluster_equivalent(values)
    assert sorted(index for cluster in found for index in cluster) == list(range(len(values)))


def test_answer_content_leaves_out_metadata() -> None:
    assert answer_content({"answer": "x", "quote": "y", "expression": "1", "score": 0.9}, READING) == "x"
    assert answer_content({"answer": "y"}, {"type": "object", "properties": {"answer": QUOTED}}) == "y"
    assert answer_content({"a": 1, "b": 2}, {"type": "object"}) == {"a": 1, "b": 2}
    assert answer_content({"answer": "x", "score": None}, READING) == "x"
    assert answer_content({"team": "x", "score": 97}, READING) == {"team": "x", "score": 97}
    assert answer_content({"team": "x", "score": "3:1"}, READING) == {"team": "x", "score": "3:1"}


@pytest.mark.parametrize("name", sorted(SCORE_FIELDS))
def test_answer_content_leaves_out_probabilities(name: str) -> None:
    assert answer_content({"label": "yes", name: 0.1}, {"type": "object"}) == "yes"
    assert check_numbers({"label": "yes", name: 0.93}, {"type": "object"}, (EvidenceSource("it is"),)).outcome == "pass"


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        (JudgeReply("1889"), "pass"), (JudgeReply({"answer": "1889", "quote": "q"}), "pass"),
        (JudgeReply("1890"), "fail"),
        (JudgeReply(None), "unknown"), (JudgeReply(error="E006 late"), "unknown"),
        (JudgeReply({"a": 1, "b": 2}), "unknown"),
    ],
)  # fmt: skip
def test_rederive_other_answer_fails_and_abstention_is_unknown(reply: JudgeReply, outcome: str) -> None:
    assert (
        judge_rederivation({"answer": "in 1889".removeprefix("in "), "quote": "q"}, READING, READING, [reply]).outcome
        == outcome
    )


def test_rederive_records_compare_common_fields() -> None:
    schema = {"type": "object"}
    assert judge_rederivation({"a": "x", "b": 1}, schema, schema, [JudgeReply({"a": "X", "c": 2})]).outcome == "unknown"
    assert (
        judge_rederivation({"a": "x", "b": 1}, schema, schema, [JudgeReply({"a": "X", "b": 1, "c": 2})]).outcome
        == "pass"
    )
    assert judge_rederivation({"a": "x", "b": 1}, schema, schema, [JudgeReply({"d": 1, "c": 2})]).outcome == "unknown"


SLOTS = {"type": "object", "properties": {"parties": {"type": "array", "items": TEXT}, "due": TEXT}}


@given(
    st.lists(st.sampled_from(["Ada Ltd", "Bo AG", "Cy", "1,200"]), max_size=5),
    st.lists(st.sampled_from(["ada ltd", "bo ag.", "1200"]), max_size=5),
)
def test_rederive_extracted_sets_compare_without_order(first: list[str], second: list[str]) -> None:
    """VERIFICATION, V0.5: set equality between two extractors."""
    meant = {"ada ltd": "Ada Ltd", "bo ag.": "Bo AG", "1200": "1,200"}
    equal = set(first) == {meant[one] for one in second}
    mine, theirs = {"parties": first, "due": "2026-03-01"}, {"due": "1 March 2026", "parties": second}
    assert judge_rederivation(mine, SLOTS, SLOTS, [JudgeReply(theirs)]).outcome == ("pass" if equal else "fail")
    assert judge_rederivation(first, {"type": "array"}, {"type": "array"}, [JudgeReply(second)]).outcome == (
        "pass" if equal else "fail"
    )
    assert judge_rederivation(mine, SLOTS, SLOTS, [JudgeReply({**theirs, "due": "2 March 2026"})]).outcome == "fail"


def test_rederive_inputs_are_same_names_and_evidence() -> None:
    wants = {"type": "object", "properties": {"question": TEXT, "evidence": TEXT}, "required": ["question", "evidence"]}
    other = Contract("other", "agent", wants, TEXT)
    assert build_inputs(other, {"question": "q", "draft": "d"}, [EvidenceSource("one"), EvidenceSource("two")]) == {
        "question": "q",
        "evidence": "one\n\ntwo",
    }
    assert build_inputs(other, {"question": "q"}, []) == "evidence"


@pytest.mark.parametrize(
    ("values", "outcome", "score"),
    [
        (["x", "X.", "x"], "pass", 1.0), (["x", "x", "y"], "pass", 0.42), (["x", "y", "z"], "unknown", 0.0),
        (["y", "y", "y"], "unknown", 1.0),
        (["x", None, None], "unknown", 0.42), (["x", "x", JudgeReply(error="late")], "pass", 1.0),
        (["x", JudgeReply(error="late"), JudgeReply(error="late")], "unknown", 0.5),
    ],
)  # fmt: skip
def test_agree_score_is_cluster_entropy_and_never_fails(values: list[Any], outcome: str, score: float) -> None:
    verdict = judge_agreement(
        "x", TEXT, [value if isinstance(value, JudgeReply) else JudgeReply(value) for value in values]
    )
    assert (verdict.outcome, round(verdict.score, 2)) == (outcome, score)

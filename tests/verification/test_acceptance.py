"""Combined results of the V0 checks, and acceptance."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.agents.contract import Catalog
from orchestra.core.events import Verdict
from orchestra.core.outcomes import Evidence
from orchestra.core.protocols import EvidenceSource
from orchestra.verification import acceptance
from orchestra.verification.acceptance import ALL_CHECKS, VerificationRequest, VerificationResult, verify_without_models

TEXT = "In 1891 Scottish chemist James Dewar made 5 million litres of liquid oxygen; the cost fell by 12.5% to $1,200."
QUOTE = {"anyOf": [{"type": "string", "format": "quote"}, {"type": "null"}]}
READING: dict[str, Any] = {
    "type": "object",
    "properties": {"answer": {"anyOf": [{"type": "string"}, {"type": "null"}]}, "quote": QUOTE},
    "required": ["answer", "quote"],
    "additionalProperties": False,
}
SUM: dict[str, Any] = {
    "type": "object",
    "properties": {"expression": {"type": "string", "format": "expression"}, "result": {"type": "number"}},
    "required": ["expression", "result"],
}


def rule(value: Any, *checks: str, schema: dict[str, Any] = READING, accept: float = 0.5) -> VerificationResult:
    evidence = (EvidenceSource("other"), EvidenceSource(TEXT, "a.txt"))
    return verify_without_models(
        VerificationRequest(value=value, schema=schema, evidence=evidence, checks=checks, accept=accept)
    )


def test_quote_in_evidence_is_accepted_with_its_location() -> None:
    ruling = rule({"answer": "James Dewar", "quote": "scottish  Chemist james Dewar"}, "schema", "quote")
    start_at = TEXT.index("Scottish")
    assert ruling.accepted
    assert ruling.score == 1.0
    assert ruling.evidence == (
        Evidence("quote", TEXT[start_at : start_at + 28], "a.txt", start_at, start_at + 28, "quote"),
    )


def test_accept_null_answer_is_accepted() -> None:
    assert rule({"answer": None, "quote": None}, "schema", "quote", "numbers").accepted


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"answer": "x", "quote": None}, "answer is 'x', without a quote"),
        ({"answer": "x", "quote": ""}, "a quote is empty"),
        ({"answer": "x", "quote": "Scottish chemists"}, "'Scottish chemists' does not occur in the evidence"),
    ],
)
def test_support_missing_is_not_accepted(value: Any, reason: str) -> None:
    ruling = rule(value, "quote")
    assert not ruling.accepted
    assert ruling.score == 0.0
    assert ruling.reason == f"quote: {reason}"


def test_quote_near_match_is_unknown_and_not_accepted() -> None:
    words = [f"word{index}" for index in range(30)]
    near = " ".join([*words[:9], "other", *words[10:]])
    situation = VerificationRequest(
        value={"answer": "x", "quote": near},
        schema=READING,
        evidence=(EvidenceSource(" ".join(words)),),
        checks=("quote",),
    )
    ruling = verify_without_models(situation)
    assert ruling.verdicts[0].outcome == "unknown"
    assert ruling.score is None
    assert not ruling.accepted


def test_schema_mismatch_stops_before_costlier_checks() -> None:
    ruling = rule({"answer": 5, "quote": None}, "numbers", "quote", "schema")
    assert [verdict.check for verdict in ruling.verdicts] == ["schema"]
    assert not ruling.accepted


def test_unregistered_check_is_unknown() -> None:
    ruling = rule({"answer": None, "quote": None}, "quote", "entailment")
    assert ruling.verdicts[-1].outcome == "unknown"
    assert not ruling.accepted


def test_quote_check_type_without_quotes_is_unknown() -> None:
    ruling = rule("words", "quote", schema={"type": "string"})
    assert ruling.verdicts[0].outcome == "unknown"


def test_accept_without_checks_is_accepted() -> None:
    assert rule({"answer": "anything", "quote": "made up"}).accepted


def test_quote_each_list_item_needs_its_own() -> None:
    schema = {
        "type": "object",
        "properties": {"items": {"type": "array", "items": {"$ref": "#/$defs/R"}}},
        "$defs": {"R": READING},
    }
    good = {"answer": "Dewar", "quote": "James Dewar"}
    assert rule({"items": [good, {"answer": None, "quote": None}]}, "quote", schema=schema).accepted
    ruling = rule({"items": [good, {"answer": "x", "quote": None}]}, "quote", schema=schema)
    assert ruling.reason == "quote: items[1].answer is 'x', without a quote"
    assert [evidence.field for evidence in rule({"items": [good, good]}, "quote", schema=schema).evidence] == [
        "items[0].quote",
        "items[1].quote",
    ]


def test_quote_enum_beside_expression_needs_none() -> None:
    """The scale of a sum does not occur in a table; `numbers` and `recompute` judge the sum."""
    schema = {
        "type": "object",
        "properties": {
            "expression": {"anyOf": [{"type": "string", "format": "expression"}, {"type": "null"}]},
            "quotes": {"type": "array", "items": {"type": "string", "format": "quote"}},
            "scale": {"$ref": "#/$defs/Scale"},
            "answer": {"anyOf": [{"type": "number"}, {"type": "null"}]},
        },
        "$defs": {"Scale": {"type": "string", "enum": ["", "percent", "thousand"]}},
    }
    summed = {"expression": "(54 - 48) / 48 * 100", "quotes": [], "scale": "percent", "answer": 12.5}
    assert rule(summed, "quote", schema=schema).accepted
    made_up = rule({**summed, "quotes": ["scottish engineers"]}, "quote", schema=schema)
    assert made_up.reason == "quote: 'scottish engineers' does not occur in the evidence"
    free = {**schema, "$defs": {"Scale": {"type": "string"}}}
    assert rule(summed, "quote", schema=free).reason == "quote: scale is 'percent', without a quote"


def test_support_list_of_quotes_counts() -> None:
    schema = {
        "type": "object",
        "properties": {
            "text": {"type": "string"},
            "quotes": {"type": "array", "items": {"type": "string", "format": "quote"}},
        },
    }
    assert rule({"text": "x", "quotes": ["James Dewar"]}, "quote", schema=schema).accepted
    assert not rule({"text": "x", "quotes": []}, "quote", schema=schema).accepted


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        ("in 1891", "pass"), ("5,000,000 litres", "pass"), ("12.5 percent", "pass"), ("1200 dollars", "pass"),
        ("it is unknown", "pass"),
        ("in 1892", "fail"), ("13%", "fail"), ("5 litres", "unknown"), ("1,200 euros", "fail"),
    ],
)  # fmt: skip
def test_numbers_must_occur_in_evidence(answer: str, outcome: str) -> None:
    ruling = rule({"answer": answer, "quote": None}, "numbers")
    assert ruling.verdicts[0].outcome == outcome
    assert ruling.accepted is (outcome == "pass")


def test_numbers_table_position_is_not_looked_up() -> None:
    def schema(**more: str) -> dict[str, Any]:
        index = {"type": "integer", **more}
        properties = {
            "rows": {"type": "array", "items": {"$ref": "#/$defs/Index"}},
            "column": {"anyOf": [index, {"type": "null"}]},
        }
        return {"type": "object", "properties": properties | {"count": {"type": "integer"}}, "$defs": {"Index": index}}

    where = schema(format="index")
    assert rule({"rows": [3, 44], "column": 77, "count": 5_000_000}, "numbers", schema=where).accepted
    assert rule({"rows": [3], "column": None, "count": 44}, "numbers", schema=where).verdicts[0].outcome == "fail"
    assert rule({"rows": [44], "column": None, "count": 1891}, "numbers", schema=schema()).verdicts[0].outcome == "fail"
    assert rule({"rows": [], "column": 44, "count": 1891}, "numbers", schema=schema()).verdicts[0].outcome == "fail"


def test_numbers_date_in_another_form_matches() -> None:
    situation = VerificationRequest(
        value="on 2007-02-08",
        schema={"type": "string"},
        evidence=(EvidenceSource("On 8 February 2007, BSkyB announced"),),
        checks=("numbers",),
    )
    assert verify_without_models(situation).accepted


@pytest.mark.parametrize(
    ("expression", "result", "outcome"),
    [
        ("1,200 / 12.5%", 9600, "pass"), ("(1891 - 5) / 3", 628.67, "pass"), ("(1891 - 5) / 3", 628.66, "fail"),
        ("1891 * 2", 3783, "fail"),
        ("exit()", 1, "fail"), ("1 / 0", 1, "fail"), ("9**256 * 9**256", 1, "fail"),
        ("round(2.5)", 3, "pass"), ("round(2.5)", 2, "pass"), ("round(2.5)", 2.5, "fail"),
    ],
)  # fmt: skip
def test_recompute_result_equals_its_expression(expression: str, result: float, outcome: str) -> None:
    ruling = rule({"expression": expression, "result": result}, "recompute", schema=SUM)
    assert ruling.verdicts[0].outcome == outcome


def test_numbers_computed_needs_operands_in_evidence() -> None:
    assert rule({"expression": "1,200 * 2", "result": 2400}, "numbers", "recompute", schema=SUM).accepted
    assert not rule({"expression": "1,300 * 2", "result": 2600}, "numbers", "recompute", schema=SUM).accepted


def test_accept_score_below_threshold_is_not_accepted() -> None:
    verdicts = (Verdict("a", "pass", 0.7), Verdict("b", "pass", 0.9))
    assert acceptance.combined_score(verdicts) == 0.7
    assert acceptance.is_accepted(verdicts, 0.7)
    assert not acceptance.is_accepted(verdicts, 0.8)


OUTCOMES = st.builds(Verdict, st.just("c"), st.sampled_from(["pass", "fail", "unknown"]), st.floats(0, 1))


@given(st.lists(OUTCOMES, min_size=1), st.floats(0, 1))
def test_accept_any_order_needs_only_passes(verdicts: list[Verdict], threshold: float) -> None:
    accepted = acceptance.is_accepted(verdicts, threshold)
    assert accepted == acceptance.is_accepted(verdicts[::-1], threshold)
    if accepted:
        assert {verdict.outcome for verdict in verdicts} == {"pass"}


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**12), 10**12)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=30),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["answer", "quote", "expression", "result"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(JSON, st.sampled_from([READING, SUM, {"type": "string"}, {}]))
def test_checks_any_value_raises_nothing(value: Any, schema: dict[str, Any]) -> None:
    for check in ("schema", "quote", "numbers", "recompute"):
        assert rule(value, check, schema=schema).verdicts[0].outcome in {"pass", "fail", "unknown"}


@pytest.mark.parametrize(
    ("sure", "accept", "good"), [(0.7, 0.7, True), (0.69, 0.7, False), (0.5, 0.5, True), (None, 0.0, False)]
)
def test_confidence_check_uses_the_producers_score(sure: float | None, accept: float, good: bool) -> None:
    ruling = verify_without_models(
        VerificationRequest(
            value="x", schema={"type": "string"}, checks=("confidence",), accept=accept, confidence=sure
        )
    )
    assert (ruling.accepted, ruling.score) == (good, sure if good else 0.0 if sure is not None else None)


@pytest.mark.parametrize(
    ("expression", "answer", "good"), [("7 * 2", 14, True), (None, 14, False), ("7 * 2", "fourteen", False)]
)
def test_quote_expression_needs_none_beside_it(expression: str | None, answer: Any, good: bool) -> None:
    fields = {
        "expression": {"type": ["string", "null"], "format": "expression"},
        "quotes": {"type": "array", "items": {"type": "string", "format": "quote"}},
        "answer": {"anyOf": [{"type": "number"}, {"type": "string"}, {"type": "null"}]},
    }
    value = {"expression": expression, "quotes": [], "answer": answer}
    assert rule(value, "quote", schema={"type": "object", "properties": fields}).accepted is good


@pytest.mark.parametrize("check", ["entailment", "rederive(other)", "agree"])
def test_model_check_not_asked_is_not_deterministic(check: str) -> None:
    assert [one.deterministic for one in rule({"answer": "x", "quote": None}, check).verdicts] == [False]


def test_workflow_check_names_are_the_registered_checks() -> None:
    assert Catalog().checks == set(ALL_CHECKS)

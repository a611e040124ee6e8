"""Check expressions: parsing, printing and evaluation."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import DataObject

from orchestra.core.events import Verdict
from orchestra.verification.check_expression import (
    AllOf,
    AnyOf,
    CheckCall,
    CheckExpression,
    CheckSyntaxError,
    check_calls,
    evaluate,
    flatten,
    is_agreement_only,
    open_checks,
    parse_check,
)

CHECKS = st.builds(
    CheckCall,
    st.sampled_from(["quote", "numbers", "entailment", "rederive", "agree"]),
    st.sampled_from(["", "other", "5"]),
)
RULES = st.recursive(
    CHECKS,
    lambda inner: st.builds(flatten, st.sampled_from([AllOf, AnyOf]), st.lists(inner, min_size=1, max_size=3)),
    max_leaves=8,
)
OUTCOMES = ("pass", "fail", "unknown")
VERDICTS = st.builds(Verdict, st.just(""), st.sampled_from(OUTCOMES), st.floats(0, 1))
RANK = {"fail": 0, "unknown": 1, "pass": 2}


@given(RULES)
def test_parse_check_printed_expression_round_trips(rule: CheckExpression) -> None:
    assert parse_check(str(rule)) == rule


@given(st.text(alphabet="abz019_ |&()\n\tÄ\x00", max_size=40))
def test_parse_check_any_text_parses_or_raises_syntax_error(text: str) -> None:
    try:
        found = parse_check(text)
    except CheckSyntaxError as error:
        at = error.position
    else:
        assert parse_check(str(found)) == found
        return
    assert 0 <= at <= len(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "expected a check at the end"),
        ("quote numbers", "'numbers' is unexpected after a complete check"),
        ("quote || numbers", "expected a check, not '|'"),
        ("(quote", "a bracket is not closed"),
        ("entailment()", "takes the name of an agent"),
        ("Quote", "'Quote' is not a check name"),
        ("files.read", "'files.read' is not a check name"),
        ("__import__('os')", """"'" is unexpected in a check"""),
        ("tool(a..b)", "'.' is unexpected in a check"),
        ("(" * 20 + "quote" + ")" * 20, "more than 12 nested brackets"),
        ("a" * 2000, "more than 1024 characters"),
    ],
)
def test_parse_check_invalid_text_states_reason(text: str, why: str) -> None:
    with pytest.raises(CheckSyntaxError) as caught:
        parse_check(text)
    assert why in caught.value.reason


def test_parse_check_and_binds_more_closely_than_or() -> None:
    assert parse_check("a & b | c") == AnyOf((AllOf((CheckCall("a"), CheckCall("b"))), CheckCall("c")))
    assert str(parse_check("(a | b) & (c)")) == "(a | b) & c"


@pytest.mark.parametrize(("left", "right"), list(product(OUTCOMES, OUTCOMES)))
def test_evaluate_follows_kleene_logic(left: str, right: str) -> None:
    known = {CheckCall("a"): Verdict("a", left, 0.4), CheckCall("b"): Verdict("b", right, 0.7)}
    both, either = evaluate(parse_check("a & b"), known), evaluate(parse_check("a | b"), known)
    assert both is not None
    assert either is not None
    assert both.outcome == min(left, right, key=RANK.__getitem__)
    assert either.outcome == max(left, right, key=RANK.__getitem__)


def known_for(rule: CheckExpression, draw: DataObject) -> dict[CheckCall, Verdict]:
    return {check: draw.draw(VERDICTS) for check in check_calls(rule)}


@given(RULES, st.data())
def test_evaluate_decided_verdict_never_changes(rule: CheckExpression, data: DataObject) -> None:
    known = known_for(rule, data)
    order = data.draw(st.permutations(list(known)))
    seen: dict[CheckCall, Verdict] = {}
    decided = ""
    for check in order:
        if decided:
            break
        seen[check] = known[check]
        if (said := evaluate(rule, seen)) is not None:
            decided = said.outcome
    whole = evaluate(rule, known)
    assert whole is not None
    if not any(check.check == "agree" for check in known):
        assert decided == whole.outcome


@given(RULES, st.data())
def test_open_checks_answered_reach_verdict_without_unfounded_pass(rule: CheckExpression, data: DataObject) -> None:
    dear = data.draw(st.booleans())
    known: dict[CheckCall, Verdict] = {}
    answers = known_for(rule, data)
    while (check := next(open_checks(rule, known, expensive=dear), None)) is not None:
        assert check not in known
        known[check] = answers[check]
    said = evaluate(rule, known, expensive=dear)
    assert said is not None
    assert 0 <= said.score <= 1
    if said.outcome == "pass":
        assert any(one.outcome == "pass" for one in known.values())
        full = evaluate(rule, answers)
        assert full is not None
        assert full.outcome == "pass"


@given(RULES, st.data())
def test_evaluate_only_unknown_never_passes(rule: CheckExpression, data: DataObject) -> None:
    known = {check: Verdict("", data.draw(st.sampled_from(["fail", "unknown"])), 0.5) for check in check_calls(rule)}
    said = evaluate(rule, known)
    assert said is not None
    assert said.outcome != "pass"


def test_agree_is_not_asked_when_evidence_denies() -> None:
    rule = parse_check("entailment | rederive(x) | agree(3)")
    denied = {CheckCall("entailment"): Verdict("", "fail", 0.0), CheckCall("rederive", "x"): Verdict("", "fail", 0.0)}
    assert not list(open_checks(rule, denied))
    said = evaluate(rule, denied)
    assert said is not None
    assert said.outcome == "fail"
    opened = {**denied, CheckCall("entailment"): Verdict("", "unknown", 0.5)}
    assert list(open_checks(rule, opened)) == [CheckCall("agree", "3")]
    assert is_agreement_only(parse_check("agree(2) | agree(3)"))


def test_composed_verdict_keeps_its_parts() -> None:
    known = {
        CheckCall("quote"): Verdict("quote", "fail", 0.0, "is made up"),
        CheckCall("entailment"): Verdict("entailment", "unknown", 0.5, "is late"),
    }
    said = evaluate(parse_check("quote | entailment"), known)
    assert said is not None
    assert (said.check, said.outcome, said.reason) == ("quote | entailment", "unknown", "entailment: is late")
    assert [part.check for part in said.parts] == ["quote", "entailment"]

"""Rules: checks put together, as text and as values, and what they say together."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import DataObject

from orchestra.core.events import Verdict
from orchestra.verification.check_expression import Every, Named, NotARule, Rule, Some, joined, named, only_agrees, read, verdict, wanted

CHECKS = st.builds(Named, st.sampled_from(["quote", "numbers", "entailment", "rederive", "agree"]), st.sampled_from(["", "other", "5"]))
RULES = st.recursive(
    CHECKS,
    lambda inner: st.builds(joined, st.sampled_from([Every, Some]), st.lists(inner, min_size=1, max_size=3)),
    max_leaves=8,
)
OUTCOMES = ("pass", "fail", "unknown")
VERDICTS = st.builds(Verdict, st.just(""), st.sampled_from(OUTCOMES), st.floats(0, 1))
RANK = {"fail": 0, "unknown": 1, "pass": 2}


@given(RULES)
def test_a_rule_is_read_from_what_is_written_of_it(rule: Rule) -> None:
    assert read(str(rule)) == rule


@given(st.text(alphabet="abz019_ |&()\n\tÄ\x00", max_size=40))
def test_no_text_makes_the_reader_stumble(text: str) -> None:
    try:
        found = read(text)
    except NotARule as error:
        at = error.at
    else:
        assert read(str(found)) == found
        return
    assert 0 <= at <= len(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "a check is wanted at its end"),
        ("quote numbers", "'numbers' follows a check that is whole"),
        ("quote || numbers", "a check is wanted, not '|'"),
        ("(quote", "a bracket is not closed"),
        ("entailment()", "wants the name of an agent"),
        ("Quote", "'Quote' is no name of a check"),
        ("files.read", "'files.read' is no name of a check"),
        ("__import__('os')", """"'" stands in no check"""),
        ("tool(a..b)", "'.' stands in no check"),
        ("(" * 20 + "quote" + ")" * 20, "more than 12 brackets"),
        ("a" * 2000, "more than 1024 characters"),
    ],
)
def test_what_is_no_rule_is_refused_with_its_reason(text: str, why: str) -> None:
    with pytest.raises(NotARule) as caught:
        read(text)
    assert why in caught.value.why


def test_and_binds_more_closely_than_or() -> None:
    assert read("a & b | c") == Some((Every((Named("a"), Named("b"))), Named("c")))
    assert str(read("(a | b) & (c)")) == "(a | b) & c"


@pytest.mark.parametrize(("left", "right"), list(product(OUTCOMES, OUTCOMES)))
def test_the_words_join_as_the_strong_logic_of_three_values_does(left: str, right: str) -> None:
    known = {Named("a"): Verdict("a", left, 0.4), Named("b"): Verdict("b", right, 0.7)}
    both, either = verdict(read("a & b"), known), verdict(read("a | b"), known)
    assert both is not None
    assert either is not None
    assert both.outcome == min(left, right, key=RANK.__getitem__)
    assert either.outcome == max(left, right, key=RANK.__getitem__)


def known_for(rule: Rule, draw: DataObject) -> dict[Named, Verdict]:
    return {check: draw.draw(VERDICTS) for check in named(rule)}


@given(RULES, st.data())
def test_what_is_decided_stays_decided_whatever_else_is_asked(rule: Rule, data: DataObject) -> None:
    known = known_for(rule, data)
    order = data.draw(st.permutations(list(known)))
    seen: dict[Named, Verdict] = {}
    decided = ""
    for check in order:
        if decided:
            break
        seen[check] = known[check]
        if (said := verdict(rule, seen)) is not None:
            decided = said.outcome
    whole = verdict(rule, known)
    assert whole is not None
    if not any(check.check == "agree" for check in known):
        assert decided == whole.outcome


@given(RULES, st.data())
def test_asking_what_is_wanted_comes_to_a_verdict_and_never_to_a_pass_that_nothing_passed(rule: Rule, data: DataObject) -> None:
    dear = data.draw(st.booleans())
    known: dict[Named, Verdict] = {}
    answers = known_for(rule, data)
    while (check := next(wanted(rule, known, dear=dear), None)) is not None:
        assert check not in known
        known[check] = answers[check]
    said = verdict(rule, known, dear=dear)
    assert said is not None
    assert 0 <= said.score <= 1
    if said.outcome == "pass":
        assert any(one.outcome == "pass" for one in known.values())
        full = verdict(rule, answers)
        assert full is not None
        assert full.outcome == "pass"


@given(RULES, st.data())
def test_unknown_alone_never_passes(rule: Rule, data: DataObject) -> None:
    known = {check: Verdict("", data.draw(st.sampled_from(["fail", "unknown"])), 0.5) for check in named(rule)}
    said = verdict(rule, known)
    assert said is not None
    assert said.outcome != "pass"


def test_agreement_is_not_asked_where_all_the_evidence_denies() -> None:
    rule = read("entailment | rederive(x) | agree(3)")
    denied = {Named("entailment"): Verdict("", "fail", 0.0), Named("rederive", "x"): Verdict("", "fail", 0.0)}
    assert not list(wanted(rule, denied))
    said = verdict(rule, denied)
    assert said is not None
    assert said.outcome == "fail"
    opened = {**denied, Named("entailment"): Verdict("", "unknown", 0.5)}
    assert list(wanted(rule, opened)) == [Named("agree", "3")]
    assert only_agrees(read("agree(2) | agree(3)"))


def test_a_composed_verdict_keeps_what_its_parts_said() -> None:
    known = {
        Named("quote"): Verdict("quote", "fail", 0.0, "is made up"),
        Named("entailment"): Verdict("entailment", "unknown", 0.5, "is late"),
    }
    said = verdict(read("quote | entailment"), known)
    assert said is not None
    assert (said.check, said.outcome, said.reason) == ("quote | entailment", "unknown", "entailment: is late")
    assert [part.check for part in said.parts] == ["quote", "entailment"]

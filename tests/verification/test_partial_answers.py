"""Back-off: parts of an answer, the answer without some of them, and the verdict on the rest."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.core.events import Verdict
from orchestra.core.protocols import EvidenceSource
from orchestra.schema.types import Validator
from orchestra.verification.acceptance import VerificationRequest, VerificationResult
from orchestra.verification.answer_parts import remove_parts, sentence_spans, split_answer
from orchestra.verification.entailment import JudgeReply
from orchestra.verification.session import ChecksPending, advance, start
from tests.engine.test_checks import JUDGE
from tests.unsafe_reference import assert_cost
from tests.verification.test_entailment import said

TEXT: dict[str, Any] = {"type": "string"}
TEXTS = {"type": "array", "items": TEXT}
FACT = {"type": "object", "properties": {"who": TEXT, "what": TEXT, "year": {"type": "integer"}}}
FACTS = {
    "type": "object",
    "properties": {"facts": {"type": "array", "items": FACT}, "note": {"type": ["string", "null"]}},
}
TOWER = (EvidenceSource("The tower was completed in 1889. It is in Paris.", "guide"),)


def texts(value: Any, schema: dict[str, Any]) -> list[str]:
    return [part.text for part in split_answer(value, schema)]


def backed(
    value: Any,
    schema: dict[str, Any],
    *scores: float | JudgeReply | None,
    accept: float = 0.5,
    checks: tuple[str, ...] = ("entailment",),
) -> VerificationResult:
    """The result if the judge returns these probabilities for the claims, in order."""
    situation = VerificationRequest(
        value=value,
        schema=schema,
        evidence=TOWER,
        checks=checks,
        accept=accept,
        judges={"entailment": JUDGE},
        back_off=True,
    )
    asked = start(situation)
    if isinstance(asked, VerificationResult):
        return asked
    assert len(asked.questions) == len(scores)
    ruling = advance(situation, asked, [one if isinstance(one, JudgeReply) else said(one) for one in scores])
    assert isinstance(ruling, VerificationResult)
    return ruling


def of(ruling: VerificationResult) -> Verdict:
    return next(one for one in ruling.verdicts if one.check == "entailment")


def left(value: Any, ruling: VerificationResult) -> Any:
    return remove_parts(value, of(ruling).dropped).value


# Parts


def test_split_answer_text_by_sentence_and_list_by_element() -> None:
    assert texts("It is tall. It is old!", TEXT) == ["It is tall.", "It is old!"]
    assert texts(["It is tall. It is old!", "It is iron."], TEXTS) == ["It is tall. It is old!", "It is iron."]
    value = {
        "facts": [{"who": "Eiffel", "what": "built it", "year": 1889}, {"who": "Ada", "what": "saw it", "year": 1}],
        "note": "See. There.",
    }
    assert texts(value, FACTS) == ["Eiffel; built it", "Ada; saw it", "See.", "There."]


def test_split_answer_nested_element_is_own_part() -> None:
    schema = {"type": "array", "items": {"type": "object", "properties": {"title": TEXT, "facts": TEXTS}}}
    value = [{"title": "Tower", "facts": ["tall", "old"]}]
    assert [(part.steps, part.text) for part in split_answer(value, schema)] == [
        ((0,), "Tower"),
        ((0, "facts", 0), "tall"),
        ((0, "facts", 1), "old"),
    ]


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("Dr. Smith met J. Doe in the U.S. Army. They left.", 2),
        ("It cost 3.5 m. in all? Yes.", 2),
        ("It weighs approx. 10,100 tonnes.", 1),
        ("One.\nTwo\n\n- three", 3),
        ('He said "Stop." Then he left.', 2),
        ("   ", 0),
        ("no full stop", 1),
        ("A.B.C.", 1),
        ("1. Paris is the capital. 2. Rome is old.", 2),
        ("1.\nParis is old.\n\n2. Rome", 2),
        ("- 1.2. Paris is old. **ii.** Rome is old.", 2),
        ("It began in 1990. It ended.", 2),
    ],
)
def test_sentence_spans_handle_abbreviations_and_lists(text: str, count: int) -> None:
    assert len(list(sentence_spans(text))) == count


@pytest.mark.parametrize("part", [" ", "a. ", "\n", ". ", "1. ", ".)"])
def test_sentence_spans_long_text_takes_bounded_time(part: str) -> None:
    assert_cost(lambda: list(sentence_spans(part * 200_000 + "x")), at_most=2_000)


@given(st.text(st.sampled_from("Ab1. !?\n\"'…"), max_size=40))
def test_sentence_spans_cover_the_text(text: str) -> None:
    spans = list(sentence_spans(text))
    assert all(text[start:end].strip() for start, end in spans)
    if spans:
        assert spans[0][0] == 0
        assert all(before[1] == after[0] for before, after in itertools.pairwise(spans))
        assert spans[-1][1] == len(text)


VALUES = st.recursive(
    st.text(st.sampled_from("Ab. "), max_size=12) | st.integers() | st.none(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["a", "b.c", "d[0]", "[0]"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(VALUES, st.data())
def test_remove_parts_keeps_exactly_the_other_parts(value: Any, data: st.DataObject) -> None:
    found = split_answer(value, {})
    gone = [part for part in found if data.draw(st.booleans())]
    dropped = [part.to_dropped("", 0.1) for part in gone]
    whole = [one.steps for one in dropped if one.start is None]
    rest = remove_parts(value, dropped)
    kept = [
        part for part in found if part not in gone and not any(part.steps[: len(steps)] == steps for steps in whole)
    ]
    assert [part.text for part in split_answer(rest.value, {})] == [part.text for part in kept]
    assert [part.steps for part in split_answer(rest.value, {})] == [rest.new_path(part.steps) for part in kept]
    assert remove_parts(value, []).value == value


# Verdict


def test_back_off_drops_unsupported_and_accepts_rest() -> None:
    text = "It was completed in 1889. It is made of wood. It is in Paris."
    ruling = backed(text, TEXT, 0.9, 0.2, 0.8)
    assert (ruling.accepted, ruling.score) == (True, 0.8)
    assert left(text, ruling) == "It was completed in 1889. It is in Paris."
    [dropped] = of(ruling).dropped
    assert (dropped.text, dropped.score, dropped.path) == ("It is made of wood.", 0.2, "")
    assert dropped.reason == "the evidence does not state 'It is made of wood.'"
    assert of(ruling).reason == "1 of 3 parts were dropped"


def test_back_off_moves_elements_and_their_evidence() -> None:
    ruling = backed(["wood", "1889", "iron", "Paris"], TEXTS, 0.1, 0.9, 0.4, 0.7)
    assert left(["wood", "1889", "iron", "Paris"], ruling) == ["1889", "Paris"]
    assert [one.field for one in of(ruling).evidence] == ["[0]", "[1]"]
    assert [one.path for one in of(ruling).dropped] == ["[0]", "[2]"]


def test_back_off_element_has_score_of_weakest_claim() -> None:
    facts = [{"who": "Eiffel", "what": "built it", "year": 1889}, {"who": "Ada", "what": "saw it", "year": 1}]
    value = {"facts": facts, "note": None}
    ruling = backed(value, FACTS, 0.9, 0.6, 0.9, 0.2)
    assert left(value, ruling) == {"facts": facts[:1], "note": None}
    assert ruling.score == 0.6
    assert [one.score for one in of(ruling).dropped] == [0.2]


def test_back_off_part_below_threshold_is_dropped() -> None:
    ruling = backed(["a", "b"], TEXTS, 0.9, 0.7, accept=0.8)
    assert [(one.text, one.reason) for one in of(ruling).dropped] == [("b", "its support is 0.700, below 0.800")]
    assert backed(["a", "b"], TEXTS, 0.9, 0.8, accept=0.8).score == 0.8


def test_back_off_contradicted_or_unknown_is_never_kept() -> None:
    ruling = backed(["a", "b", "c"], TEXTS, 0.9, JudgeReply(error="it is late"), said(0.3, 0.6), accept=0.0)
    assert [(one.text, one.score) for one in of(ruling).dropped] == [("b", None), ("c", 0.0)]


def test_back_off_nothing_left_is_withheld() -> None:
    ruling = backed(["a", "b"], TEXTS, 0.1, 0.3)
    assert not ruling.accepted
    assert "none of 2 parts is supported; the best one: the evidence does not state 'b'" in ruling.reason
    silent = backed(["a", "b"], TEXTS, JudgeReply(error="gone"), JudgeReply(error="gone"))
    assert (silent.accepted, of(silent).outcome) == (False, "unknown")


def test_back_off_rest_must_match_its_type() -> None:
    both = {"type": "object", "properties": {"a": TEXT, "b": {"type": ["string", "null"]}}, "required": ["a", "b"]}
    assert left({"a": "x", "b": "y"}, backed({"a": "x", "b": "y"}, both, 0.9, 0.1)) == {"a": "x", "b": None}
    ruling = backed({"a": "x", "b": "y"}, both, 0.1, 0.9)
    assert not ruling.accepted
    assert "the rest is not of its type: a: expected str" in ruling.reason
    assert not backed(["a", "b"], {**TEXTS, "minItems": 2}, 0.1, 0.9).accepted


def test_back_off_other_checks_judge_the_rest() -> None:
    text = "It was completed in 1889. It has 77 floors."
    ruling = backed(text, TEXT, 0.9, 0.1, checks=("numbers", "entailment"))
    assert ruling.accepted
    assert [one.outcome for one in ruling.verdicts] == ["pass", "pass"]
    refused = backed(text, TEXT, 0.9, 0.9, checks=("numbers", "entailment"))
    assert not refused.accepted
    assert "77" in refused.reason


def test_back_off_without_claims_is_accepted_unchanged() -> None:
    assert backed([], TEXTS).accepted
    assert not backed([], TEXTS, checks=("quote", "entailment")).accepted


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(0, 1))
def test_back_off_keeps_exactly_parts_at_threshold(scores: list[float], accept: float) -> None:
    value = [f"c{at}" for at in range(len(scores))]
    ruling = backed(value, TEXTS, *scores, accept=accept)
    kept = [name for name, score in zip(value, scores, strict=True) if score >= max(accept, 0.5)]
    assert ruling.accepted == bool(kept)
    if kept:
        assert left(value, ruling) == kept
        assert Validator(TEXTS).check(left(value, ruling)) is None
        assert ruling.score == min(score for score in scores if score >= max(accept, 0.5))


def test_back_off_disabled_drops_nothing() -> None:
    situation = VerificationRequest(
        value=["a", "b"], schema=TEXTS, evidence=TOWER, checks=("entailment",), judges={"entailment": JUDGE}
    )
    asked = start(situation)
    assert isinstance(asked, ChecksPending)
    ruling = advance(situation, asked, [said(0.9), said(0.1)])
    assert isinstance(ruling, VerificationResult)
    assert (ruling.accepted, of(ruling).dropped) == (False, ())

"""V1: claims of values, evidence chunks, and verdicts from probabilities."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.core.events import Verdict
from orchestra.core.protocols import EvidenceSource
from orchestra.schema.builtin_models import Answer
from orchestra.schema.types import schema_of
from orchestra.verification import entailment
from orchestra.verification.entailment import (
    MAX_CHUNK_TOKENS,
    JudgeReply,
    build_questions,
    estimate_tokens,
    extract_claims,
    judge_replies,
    may_have_claims,
    split_evidence,
)

TEXT: dict[str, Any] = {"type": "string"}
QUOTE = {"anyOf": [{"type": "string", "format": "quote"}, {"type": "null"}]}
QUOTED = {"type": "object", "properties": {"answer": QUOTE}}
READING = {
    "type": "object",
    "properties": {
        "answer": {"anyOf": [TEXT, {"type": "null"}]},
        "quote": QUOTE,
        "label": {"enum": ["yes", "no"]},
        "expression": TEXT,
        "score": {"type": "number"},
        "notes": {"type": "array", "items": TEXT},
    },
}


LINKED = {
    "$ref": "#/$defs/R",
    "$defs": {"R": {"type": "object", "properties": {"next": {"$ref": "#/$defs/R"}, "n": {"type": "integer"}}}},
}


def said(supported: Any, refuted: Any = 0.0) -> JudgeReply:
    return JudgeReply({"label": "supported", "p_supported": supported, "p_refute": refuted})


def test_claims_exclude_quotes_enums_and_expressions() -> None:
    value = {
        "answer": "It was built.",
        "quote": "built",
        "label": "yes",
        "expression": "1 + 1",
        "score": 1.0,
        "notes": ["It is tall.", " "],
    }
    assert [(claim.path, claim.text) for claim in extract_claims(value, READING)] == [
        ("answer", "It was built."),
        ("notes[0]", "It is tall."),
    ]
    assert [claim.text for claim in extract_claims("All of it.", TEXT)] == ["All of it."]


def test_claims_of_answer_with_citations_are_its_text() -> None:
    answer = {"text": "It was 1889.", "citations": [{"quote": "in 1889", "source": "tower.txt", "start": 0, "end": 7}]}
    assert [claim.path for claim in extract_claims(answer, schema_of(Answer, "serialization"))] == ["text"]


@pytest.mark.parametrize(
    ("schema", "may"),
    [
        (READING, True), (TEXT, True), ({}, True), (QUOTE, True), ({"enum": ["a", "b"]}, False),
        ({"type": "integer"}, False),
        ({"type": "object", "properties": {"answer": QUOTE}}, False), ({"type": "array", "items": TEXT}, True),
        ({"type": "object", "properties": {"inner": {"$ref": "#/$defs/R"}}, "$defs": {"R": READING}}, True),
        (LINKED, False),
    ],
)  # fmt: skip
def test_may_have_claims_follows_type(schema: dict[str, Any], may: bool) -> None:
    assert may_have_claims(schema) is may


SOURCES = st.lists(st.builds(EvidenceSource, st.text(alphabet="ab .!?\n\tßあ1", max_size=400)), max_size=3)


@given(SOURCES, st.integers(1, 40))
def test_split_evidence_chunks_are_small_and_keep_words_in_order(sources: list[EvidenceSource], most: int) -> None:
    cut = split_evidence(sources, most)
    for piece in cut:
        text = sources[piece.source].text[piece.start : piece.end]
        assert text == text.strip()
        assert estimate_tokens(text) <= most or len(text.split()) == 1
    for index, source in enumerate(sources):
        kept = "".join(source.text[piece.start : piece.end] for piece in cut if piece.source == index)
        assert "".join(kept.split()) == "".join("".join(entailment._WORD.findall(source.text)).split())


def test_split_evidence_short_text_is_one_chunk() -> None:
    assert len(split_evidence([EvidenceSource("One sentence. And another.")])) == 1
    assert MAX_CHUNK_TOKENS == 350


def rule(supported: list[Any], refuted: list[Any] | None = None, *, fault: str = "") -> Verdict:
    """The verdict on one claim with one chunk per probability."""
    sources = [EvidenceSource(f"Source number {index}.", f"s{index}") for index in range(len(supported))]
    replies = [said(one, two) for one, two in zip(supported, refuted or [0.0] * len(supported), strict=True)]
    if fault:
        replies[-1] = JudgeReply(error=fault)
    return judge_replies("It is so.", TEXT, sources, replies)


def test_entailment_best_supporting_chunk_counts() -> None:
    verdict = rule([0.2, 0.9, 0.4])
    assert (verdict.outcome, verdict.score, verdict.evidence[0].source) == ("pass", 0.9, "s1")
    assert not verdict.deterministic


@pytest.mark.parametrize(
    ("supported", "refuted", "outcome"),
    [
        ([0.5], [0.5], "pass"), ([0.49], [0.0], "fail"), ([0.9, 0.1], [0.0, 0.51], "fail"), ([None], [None], "unknown"),
        ([0.9, None], [0.0, None], "unknown"), ([True], [0.0], "unknown"), ([-0.1], [0.0], "unknown"),
        (["0.9"], [0.0], "unknown"),
        ([float("nan")], [0.0], "unknown"), ([0.9], [0.2], "unknown"), ([0.1, None], [0.9, None], "fail"),
    ],
)  # fmt: skip
def test_entailment_contradiction_vetoes_and_unknown_never_passes(
    supported: list[Any], refuted: list[Any], outcome: str
) -> None:
    assert rule(supported, refuted).outcome == outcome


def test_entailment_missing_reply_is_unknown_with_reason() -> None:
    verdict = rule([0.9, 0.9], fault="E006 no answer within 5 s")
    assert (verdict.outcome, verdict.reason) == ("unknown", "'It is so.': E006 no answer within 5 s")


CHANCES = st.none() | st.floats(0, 1) | st.just("nonsense") | st.floats()


@given(st.lists(st.tuples(CHANCES, CHANCES), min_size=1, max_size=5), st.randoms())
def test_entailment_is_independent_of_evidence_order(chances: list[tuple[Any, Any]], order: Any) -> None:
    one = rule([chance[0] for chance in chances], [chance[1] for chance in chances])
    order.shuffle(chances)
    two = rule([chance[0] for chance in chances], [chance[1] for chance in chances])
    assert (one.outcome, one.score) == (two.outcome, two.score)
    if one.outcome == "pass":
        assert all(
            isinstance(chance[0], float) and isinstance(chance[1], float) and chance[1] <= 0.5 for chance in chances
        )


def test_entailment_value_has_score_of_weakest_claim() -> None:
    schema = {"type": "array", "items": TEXT}
    sources = [EvidenceSource("It is.")]
    assert judge_replies(["a", "b"], schema, sources, [said(0.9), said(0.6)]).score == 0.6
    assert judge_replies(["a", "b"], schema, sources, [said(0.9), said(0.1)]).outcome == "fail"
    assert judge_replies(["a", "b"], schema, sources, [said(0.1), said(None)]).outcome == "fail"
    assert len(judge_replies(["a", "b"], schema, sources, [said(0.9), said(0.6)]).evidence) == 2


def test_entailment_without_claims_asks_and_passes_nothing() -> None:
    empty: dict[str, Any] = {"answer": None, "quote": None, "notes": []}
    verdict = build_questions(empty, READING, [EvidenceSource("x")], "e")
    assert isinstance(verdict, Verdict)
    assert verdict.outcome == "pass"
    for found in (
        build_questions({"answer": "words"}, QUOTED, [EvidenceSource("x")], "e"),
        build_questions("words", TEXT, [], "e"),
        build_questions("words", TEXT, [EvidenceSource(" ")], "e"),
    ):
        assert isinstance(found, Verdict)
        assert found.outcome == "unknown"
    many = build_questions(["claim"] * 65, {"type": "array", "items": TEXT}, [EvidenceSource("x")], "e")
    assert isinstance(many, Verdict)
    assert many.outcome == "unknown"


def test_entailment_replies_to_other_questions_are_unknown() -> None:
    assert judge_replies("It is so.", TEXT, [EvidenceSource("x")], [said(0.9), said(0.9)]).outcome == "unknown"

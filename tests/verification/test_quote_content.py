"""What a quote needs to pass: content words, and no negation cut off before it."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from orchestra.core.protocols import EvidenceSource
from orchestra.text.keywords import STOP_WORDS
from orchestra.verification.standalone import verify_answer

EVIDENCE = "A tower rises in the city. It was not made of wood. The Who played there, as gold is a metal, with Otis."
CONTENT = [
    "tower",
    "city",
    "wood",
    "iron",
    "gold",
    "river",
    "bridge",
    "stone",
    "copper",
    "Otis",
    "Paris",
    "1889",
    "42",
    "東京",
    "été",
]
FILLERS = [
    *sorted(STOP_WORDS),
    "he",
    "she",
    "they",
    "we",
    "but",
    "so",
    "if",
    "then",
    "about",
    "into",
    "could",
    "should",
    "very",
    "some",
    "la",
    "le",
    "der",
]
NEGATIONS = [
    "not ", "NOT ", "never ", "no ", "without ", "isn't ", "can't ", "wasn’t ", "cannot ", "neither ", "nor ",
    "not really ",
    "not a ", "not\n",
    "not\u200b ", "not “", "not (", "not *", "non-", "nicht ", "kein ", "keine ", "pas ", "sans ", "no ", "nunca ",
    "sin ",
    "non ", "não ", "niet ",
    "не ", "без ", "不", "没", "未",
]  # fmt: skip


def outcome(value: Any, *evidence: str) -> str:
    return (
        verify_answer(value, tuple(EvidenceSource(text) for text in evidence or (EVIDENCE,)), ["quote"])
        .verdicts[0]
        .outcome
    )


@pytest.mark.parametrize("quote", ["a", ".", "The", "made of wood"])
def test_quote_without_content_or_negation_does_not_pass(quote: str) -> None:
    assert outcome({"answer": "It is made of gold", "quote": quote}) == "unknown"


@pytest.mark.parametrize("quote", [".", "The", "a", "it was", "It was not", "with", "IN THE", "Ｔｈｅ", "t", "A"])
def test_quote_without_content_does_not_support_answer(quote: str) -> None:
    text = "It was not in the way. A tower with it. I can't. IN THE END. The end."
    assert outcome({"answer": "It is made of gold", "quote": quote}, text) != "pass"
    assert outcome({"answer": "It is made of gold", "quotes": [quote]}, text) != "pass"


def test_quote_content_words_determine_verdict() -> None:
    random = Random(1)
    for _ in range(800):
        words = random.choices(FILLERS, k=random.randint(1, 5))
        with_content = random.random() < 0.5
        if with_content:
            words.insert(random.randint(0, len(words)), random.choice(CONTENT))
        quote = " ".join(words)
        said = outcome({"answer": "It is made of gold", "quote": quote}, f"So they say: {quote}; that is all.")
        assert said == ("pass" if with_content else "unknown"), quote


def test_quote_after_negation_needs_another_occurrence() -> None:
    random = Random(2)
    for negation in NEGATIONS:
        for _ in range(8):
            quote = " ".join(random.choices([word for word in CONTENT if word.isascii()], k=random.randint(1, 4)))
            negated = f"The thing is {negation}{quote}, they say."
            for value in (quote, {"answer": "It is so", "quote": quote}):
                assert outcome(value, negated) == "unknown", negated
                assert outcome(value, negated, f"The thing is {quote}.") == "pass"
                assert outcome(value, f"{negated} And yet the thing is {quote}.") == "pass"
            whole = negated[len("The thing is ") : -len(", they say.")]
            assert outcome(whole, negated) == "pass", "with its negation it is what the evidence says"


@pytest.mark.parametrize("apostrophe", ["'", "’"])
def test_quote_ending_inside_negation_does_not_pass(apostrophe: str) -> None:
    assert outcome({"answer": "He swims", "quote": "Otis can"}, f"Otis can{apostrophe}t swim.") == "unknown"


@pytest.mark.parametrize("answer", ["gold", "Otis", "1889", "No", "5", "C", "東", "The Who", "WHO", "IT", "US"])
def test_quote_answer_that_is_its_own_quote_passes(answer: str) -> None:
    text = f"They say {answer} there."
    assert outcome(answer, text) == "pass"
    assert outcome({"quote": answer}, text) == "pass"
    assert outcome({"answer": answer, "quote": answer}, text) == "pass"


@pytest.mark.parametrize("answer", ["the", ".", "of", "-", "a"])
def test_quote_of_stop_words_is_unknown(answer: str) -> None:
    assert outcome(answer, f"They say {answer} there.") == "unknown"


def test_quote_not_in_evidence_fails() -> None:
    assert outcome({"answer": "gold", "quote": "made of gold"}) == "fail"
    assert outcome({"answer": "gold", "quote": ""}) == "fail"


def test_quote_words_after_negation_separate_it() -> None:
    assert outcome("iron", "It is not wood, but iron.") == "pass"
    assert outcome("iron", "No. Iron it is.") == "pass"
    assert outcome("1889", "No, 1889.") == "pass"
    assert outcome("wood", "It is not known whether wood was used.") == "pass"

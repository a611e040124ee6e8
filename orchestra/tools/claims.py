"""Claims: whether the sentences of documents support a claim, contradict it, or say nothing about it.

An entailment model judges each of the nearest sentences. Code decides: a sentence that is near to the claim and has
another number of the same kind contradicts it, for any judgement of the model, because small models overlook figures. A
number within a stated limit, such as 45 within `40 or more`, is no other number.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from orchestra.agents.inference.tables.bounds import CONTEXT_CHARACTERS, find_bound
from orchestra.schema.builtin_models import Citation, Passage, StrictModel
from orchestra.text.keywords import STOP_WORDS, singular
from orchestra.text.numbers.sort_keys import ABOVE, FROM
from orchestra.text.numbers.words import ORDINALS, SMALL_NUMBERS
from orchestra.tools.answer_checks import is_record, shared_words, word_stems
from orchestra.tools.replies import Finding, Reply, language_of, nearest_sentence
from orchestra.workflows.python.steps import tool

NEAR = 0.45
"""The closeness from which a sentence is about a claim."""
DECIDED = 0.6
"""The probability from which a judgement counts."""
SAME = 0.7
"""The closeness from which a sentence says the same as a claim, apart from figures and negations."""
SHOWN = 0.42
"""The closeness from which a sentence is shown though it does not decide."""
TOP_EVIDENCE = 4
YES_WORDS = {"en": ("Yes", "No"), "de": ("Ja", "Nein"), "fr": ("Oui", "Non"), "es": ("Sí", "No")}
_AUXILIARY = re.compile(
    r"^\W*(?P<verb>is|are|was|were|do|does|did|can|may|must|should|has|have|had|will|am)\s+(?P<rest>.+?)\s*\?*\s*$",
    re.IGNORECASE | re.DOTALL,
)
_WORD = re.compile(r"\w+")
_NEGATION = re.compile(
    r"\b(?:not|no|never|neither|nor|none|nobody|nothing|without|except|forbidden|prohibited|excluded|cannot|kein\w*|nicht|"
    r"nie|verboten|pas|jamais|aucun\w*|interdit\w*|ninguna?|nunca|prohibid\w*)\b|n't\b",
    re.IGNORECASE,
)
_VALUES: Final = {**SMALL_NUMBERS, **ORDINALS, "once": 1, "twice": 2, "einmal": 1, "zweimal": 2, "dreimal": 3}
"""The values of number words."""
_NUMBER = re.compile(rf"\d[\d.,]*\d|\d|\b(?:{'|'.join(sorted(_VALUES, key=len, reverse=True))})\b", re.IGNORECASE)


class Judged(StrictModel):
    """The judgement of an entailment model about one sentence."""

    label: str
    p_supported: float | None
    p_support: float | None
    p_refute: float | None


class ClaimEvidence(StrictModel):
    """A claim as a statement, and the sentences that may decide it."""

    claim: str
    sentences: list[Passage]


@tool(effect="pure", label="restricted")
def claim_evidence(
    claim: str, sentences: Sequence[Passage], scores: Sequence[float], top: int = TOP_EVIDENCE
) -> ClaimEvidence:
    """A claim as a statement, and the sentences nearest to it by score, the best one first."""
    texts = [sentence.text for sentence in sentences]
    prose = [at for at, text in enumerate(texts) if not text.startswith("|") and not is_record(text)]
    ranked = sorted(prose, key=lambda at: (-scores[at], at))[:top]
    best = [sentences[at].model_copy(update={"score": round(scores[at], 6)}) for at in ranked]
    return ClaimEvidence(claim=as_statement(claim), sentences=best)


def as_statement(claim: str) -> str:
    """A yes-or-no question as the statement that it asks about: `May dogs enter?` as `dogs may enter`."""
    match = _AUXILIARY.match(claim)
    if match is None:
        return claim.strip().rstrip("?")
    verb, rest = match["verb"].casefold(), match["rest"]
    words = rest.split()
    if len(words) < 2:
        return rest
    if verb in ("do", "does", "did"):
        return rest
    size = _subject_size(words)
    return " ".join([*words[:size], verb, *words[size:]])


def _subject_size(words: Sequence[str]) -> int:
    """The number of words of the subject that follows an auxiliary verb: a pronoun, or an article with its noun."""
    first = words[0].casefold()
    if first in (
        "i",
        "we",
        "you",
        "he",
        "she",
        "it",
        "they",
        "this",
        "that",
        "there",
        "somebody",
        "anybody",
        "one",
        "people",
    ):
        return 1
    if first in (
        "the",
        "a",
        "an",
        "our",
        "my",
        "your",
        "their",
        "his",
        "her",
        "its",
        "all",
        "any",
        "each",
        "every",
        "both",
    ):
        return min(2, len(words) - 1)
    return 1


@tool(effect="pure", label="restricted")
def decide_claim(question: str, claim: str, sentences: Sequence[Passage], judgements: Sequence[Judged]) -> Reply:
    """Whether the sentences support a claim, with the sentence that decides; no text if none does."""
    best: tuple[float, bool, Passage] | None = None
    for sentence, judged in zip(sentences, judgements, strict=True):
        decided = _decide(claim, sentence, judged)
        if decided is None:
            continue
        weight, supported = decided
        if best is None or weight > best[0]:
            best = (weight, supported, sentence)
    if best is None and sentences and sentences[0].score >= SHOWN:
        near = sentences[0]
        return Reply(
            text=nearest_sentence(question, near.text),
            findings=[Finding(question=claim, answer=None)],
            citations=[Citation(quote=near.text, source=near.source, start=near.start, end=near.end)],
            missing=[question],
        )
    if best is None:
        return Reply(text=None, findings=[Finding(question=claim, answer=None)], missing=[question])
    _, supported, sentence = best
    yes, no = YES_WORDS[language_of(question)]
    quote = sentence.text.lstrip("-*• ").strip()
    citation = Citation(quote=sentence.text, source=sentence.source, start=sentence.start, end=sentence.end)
    return Reply(
        text=f"{yes if supported else no}: {quote}",
        findings=[Finding(question=claim, answer="supported" if supported else "contradicted")],
        citations=[citation],
    )


def _decide(claim: str, sentence: Passage, judged: Judged) -> tuple[float, bool] | None:
    """The weight of a sentence and whether it supports the claim; None if it does not decide."""
    by_words = _decide_by_words(claim, sentence)
    if by_words is not None:
        return by_words
    support, refute = judged.p_support or 0.0, judged.p_refute or 0.0
    if sentence.score < NEAR - 0.1:
        return None
    conflict = _numbers_conflict(claim, sentence.text)
    if conflict is False and _has_other_number(claim, sentence.text) and refute >= support:
        # The model takes 45 and `40 or more` for a contradiction. Very near sentences differ in little else.
        negated = [_NEGATION.search(text) is not None for text in (claim, sentence.text)]
        return (sentence.score + 0.5, True) if sentence.score >= SAME and negated[0] == negated[1] else None
    if conflict is not None and sentence.score >= NEAR + 0.05:
        return (
            (sentence.score + 0.5, not conflict) if conflict or support > refute else (sentence.score + refute, False)
        )
    if max(support, refute) < DECIDED or sentence.score < NEAR:
        return None
    return sentence.score + max(support, refute) - 0.5, support > refute


_EXCEPTION = re.compile(
    r"\b(?:except(?:ing)?(?: for)?|with the exception of|but not(?: in| on| for| to)?|apart from|excluding|ausgenommen|"
    r"außer|sauf|excepté|salvo|excepto|other than)\s+(?P<what>[^.;,()]+)",
    re.IGNORECASE,
)
_WITHOUT = re.compile(r"\bwithout\s+(?P<what>(?:an?\s+|the\s+)?\w+)", re.IGNORECASE)
_WITH = re.compile(r"\bwith\s+(?P<what>(?:an?\s+|the\s+)?\w+)", re.IGNORECASE)
_SAME_WORDS = 0.5
"""The share of a claim's words that a sentence has which decides by them."""


def _decide_by_words(claim: str, sentence: Passage) -> tuple[float, bool] | None:
    """The weight of a sentence that decides by its words, and whether it supports the claim: what a claim is about is
    excepted, or is `with` what the sentence is `without`. In languages that the encoders do not know, a sentence with
    the words of the claim decides by its negation.
    """
    text, asked = sentence.text, word_stems(claim)
    shared = shared_words(claim, text)
    if shared >= _SAME_WORDS and _NEGATION.search(claim) is None:
        excepted = [word_stems(match["what"]) for match in _EXCEPTION.finditer(text)]
        if any(stems and stems & asked for stems in excepted):
            return sentence.score + 1.0, False
        without = [word_stems(match["what"]) for match in _WITHOUT.finditer(text)]
        with_ = [word_stems(match["what"]) for match in _WITH.finditer(claim)]
        if any(one & other for one in without for other in with_):
            return sentence.score + 1.0, False
    if language_of(claim) == "en" or shared < _SAME_WORDS or _numbers_conflict(claim, text) is not None:
        return None
    negated = [_NEGATION.search(one) is not None for one in (claim, text)]
    return shared + 0.5, negated[0] == negated[1]


def _numbers_conflict(claim: str, sentence: str) -> bool | None:
    """Whether the numbers of a claim differ from those of a sentence with the same words beside them. None if the claim
    has no number, or the sentence none that is comparable.
    """
    stated = _numbers(sentence)
    comparable = [(one, [other for other in stated if other.beside & one.beside]) for one in _numbers(claim)]
    comparable = [(one, others) for one, others in comparable if others]
    if not comparable:
        return None
    return not all(any(_agree(one, other) for other in others) for one, others in comparable)


def _has_other_number(claim: str, sentence: str) -> bool:
    """Whether a number of a claim is not in a sentence, which has a limit instead."""
    return bool({one.value for one in _numbers(claim)} - {one.value for one in _numbers(sentence)})


@dataclass(frozen=True, slots=True)
class _StatedNumber:
    value: float
    beside: frozenset[str]
    """The content words right beside it."""
    bound: str | None
    """Whether it is a bound of the numbers that are meant: `40 or more`, `up to 40`."""


def _agree(claimed: _StatedNumber, stated: _StatedNumber) -> bool:
    """Whether two numbers are equal, or the claimed one is within the stated limit: 45 is within `40 or more`."""
    if claimed.value == stated.value:
        return True
    if claimed.bound or not stated.bound:
        return False
    return claimed.value > stated.value if stated.bound in (FROM, ABOVE) else claimed.value < stated.value


def _bound(text: str, start: int, end: int) -> str | None:
    """Returns the bound that the words around a number set."""
    before, after = text[max(0, start - CONTEXT_CHARACTERS) : start], text[end : end + CONTEXT_CHARACTERS]
    return find_bound(before, text[start:end], after, dated=False, spelt=not text[start].isdigit())


def _numbers(text: str) -> list[_StatedNumber]:
    """The numbers of a text."""
    found = []
    for match in _NUMBER.finditer(text):
        value = _value(match[0])
        if value is None:
            continue
        after = [word.casefold() for word in _WORD.findall(text[match.end() : match.end() + 30])][:2]
        beside = {singular(word) for word in after if word not in STOP_WORDS}
        sign = text[max(0, match.start() - 1) : match.start()]
        if sign in "$€£¥" and sign:
            beside.add(sign)
        if text[match.end() : match.end() + 2].strip()[:1] == "%":
            beside.add("%")
        found.append(_StatedNumber(value, frozenset(beside), _bound(text, match.start(), match.end())))
    return found


def _value(text: str) -> float | None:
    known = _VALUES.get(text.casefold())
    if known is not None:
        return float(known)
    try:
        return float(text.replace(",", "").rstrip("."))
    except ValueError:
        return None

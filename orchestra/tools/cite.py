"""Cite: selects one answer from the readings of several passages, with supporting sentences and their positions."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from orchestra.core.protocols import EvidenceSource
from orchestra.schema.builtin_models import Answer, Citation, Passage, Reading
from orchestra.workflows.python.steps import tool

MAX_CITATIONS = 3
"""Maximum number of citations of an answer."""
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


@dataclass(frozen=True, slots=True)
class _Candidate:
    answer: str
    rank: int
    shared_words: int
    """Number of words that its sentence shares with the question."""
    citation: Citation


@tool(effect="pure", label="restricted")
def cite(question: str, readings: Sequence[Reading], passages: Sequence[Passage]) -> Answer:
    """The answer on which the best passages agree; null if no reading has an answer that is in a passage.

    An answer counts if it occurs in one of the passages, up to case and spacing. Its citation is the sentence around
    it, which is located by code, not by a model. Of several sentences, the one that shares most words with the question
    is used. The citation is the passage's own text, so that `document.text[start:end] == quote`. Readings of the same
    answer add up: a passage of rank r counts 1/r.
    """
    from orchestra.text.keywords import content_words

    asked = content_words(question)
    groups: dict[str, list[_Candidate]] = {}
    for reading in readings:
        if candidate := _best_candidate(reading.answer or "", asked, passages):
            groups.setdefault(_normalize(candidate.answer), []).append(candidate)
    if not groups:
        return Answer(text=None)
    best = max(groups.values(), key=lambda group: (_weight(group), -min(candidate.rank for candidate in group)))
    ranked = sorted(best, key=lambda candidate: candidate.rank)
    cited = list(dict.fromkeys(candidate.citation for candidate in ranked))
    return Answer(text=ranked[0].answer, citations=cited[:MAX_CITATIONS])


def _best_candidate(answer: str, asked: frozenset[str], passages: Sequence[Passage]) -> _Candidate | None:
    from orchestra.text.keywords import content_words

    if not _normalize(answer):
        return None
    found = (
        _Candidate(
            answer.strip(), rank, len(asked & content_words(passage.text[start:end])), _citation(passage, start, end)
        )
        for rank, passage in enumerate(passages)
        for start, end in _answer_sentences(answer, passage.text)
    )
    return max(found, key=lambda candidate: (candidate.shared_words, -candidate.rank), default=None)


def _answer_sentences(answer: str, text: str) -> Iterator[tuple[int, int]]:
    """Returns the sentences that contain an answer."""
    from orchestra.documents.passages import sentence_ends, sentence_span
    from orchestra.text import quotes

    after, ends = 0, list[int]()
    while span := quotes.find_quote(answer, (EvidenceSource(text[after:]),)):
        ends = ends or sentence_ends(text)
        start, end = sentence_span(text, after + span.start, after + span.end, ends)
        yield start, end
        after = max(end, after + span.end)


def _citation(passage: Passage, start: int, end: int) -> Citation:
    from orchestra.documents.passages import location_at

    return Citation(
        quote=passage.text[start:end],
        source=passage.source,
        start=passage.start + start,
        end=passage.start + end,
        location=location_at(passage.locations, passage.start + start),
    )


def _weight(group: list[_Candidate]) -> float:
    return sum(1.0 / (rank + 1) for rank in {candidate.rank for candidate in group})


def _normalize(text: str) -> str:
    """Normalizes an answer for comparison: NFKC, casefold, words only, no articles."""
    words = " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold()))
    return " ".join(_ARTICLES.sub(" ", words).split())

"""Cite: one answer from the readings of several passages, with the places of its quotes."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from orchestra.doors import Source
from orchestra.values.models import Answer, Citation, Passage, Reading
from orchestra.values.words import content
from orchestra.verify import quotes
from orchestra.workflow.steps import tool

MOST = 3
"""Citations of an answer at most."""
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


@dataclass(frozen=True, slots=True)
class _Candidate:
    answer: str
    rank: int
    citation: Citation
    grounded: bool


@tool(effect="pure")
def cite(question: str, readings: Sequence[Reading], passages: Sequence[Passage]) -> Answer:
    """The answer on which the best passages agree; null where no reading has an answer with a quote from a passage.

    A reading counts if its quote stands in one of the passages (the first by rank), up to case and spacing, and has at least one word
    of the answer: words that say nothing of it do not support it. The citation is the passage's own text, so that
    `document.text[start:end] == quote`. Readings of the same answer add up: a passage of rank r counts 1/r, half of it where the quote
    has not the whole answer.
    """
    sources = tuple(Source(passage.text, passage.source) for passage in passages)
    groups: dict[str, list[_Candidate]] = {}
    for reading in readings:
        if candidate := _candidate(reading, passages, sources):
            groups.setdefault(_normal(candidate.answer), []).append(candidate)
    if not groups:
        return Answer(text=None)
    best = max(groups.values(), key=lambda group: (_weight(group), -min(candidate.rank for candidate in group)))
    ranked = sorted(best, key=lambda candidate: (not candidate.grounded, candidate.rank))
    cited = list(dict.fromkeys(candidate.citation for candidate in ranked))
    return Answer(text=ranked[0].answer, citations=cited[:MOST])


def _candidate(reading: Reading, passages: Sequence[Passage], sources: tuple[Source, ...]) -> _Candidate | None:
    answer = (reading.answer or "").strip()
    if not _normal(answer) or not reading.quote or not (span := quotes.find(reading.quote, sources)):
        return None
    passage = passages[span.source]
    quote = passage.text[span.start : span.end]
    if not content(answer) & content(quote):
        return None
    citation = Citation(quote=quote, source=passage.source, start=passage.start + span.start, end=passage.start + span.end)
    return _Candidate(answer, span.source, citation, _normal(answer) in _normal(quote))


def _weight(group: list[_Candidate]) -> float:
    best: dict[int, float] = {}
    for candidate in group:
        best[candidate.rank] = max(best.get(candidate.rank, 0.0), (1.0 if candidate.grounded else 0.5) / (candidate.rank + 1))
    return sum(best.values())


def _normal(text: str) -> str:
    """An answer as it is compared: NFKC, casefold, words only, no articles."""
    words = " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold()))
    return " ".join(_ARTICLES.sub(" ", words).split())

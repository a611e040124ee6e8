"""Ranking: the terms of a text, BM25 scores of a few texts, and the fusion of rankings."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from orchestra.core.errors import InputError
from orchestra.text.keywords import STOP_WORDS, WORD, singular

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

K1: Final = 1.2
B: Final = 0.75
"""Parameters of BM25 (Robertson and Zaragoza 2009): the saturation by a term's count, and the effect of the length."""
FUSION_CONSTANT: Final = 60
"""k of reciprocal rank fusion (Cormack et al. 2009, https://doi.org/10.1145/1571941.1572114)."""


def index_terms(text: str) -> list[str]:
    """Returns the words of a text for comparison: NFKC, casefold, no plural `s`, no stop words."""
    words = WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    return [singular(word) for word in words if word not in STOP_WORDS]


def bm25_scores(texts: Sequence[str], query: str) -> list[float]:
    """Returns the BM25 score of each text for a query; 0 if they share no word.

    Raises:
        InputError: T006 if bm25s is not installed.
    """
    query_terms = index_terms(query)
    if not texts or not query_terms:
        return [0.0] * len(texts)
    return [float(score) for score in _bm25([index_terms(text) for text in texts], query_terms)]


def fuse_rankings(rankings: Sequence[Sequence[int]]) -> list[tuple[int, float]]:
    """Returns the items of several rankings with the sum of their reciprocal ranks, the best first."""
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, item in enumerate(ranking, 1):
            scores[item] = scores.get(item, 0.0) + 1.0 / (FUSION_CONSTANT + rank)
    return sorted(scores.items(), key=lambda item: (-item[1], item[0]))


def _bm25(corpus: list[list[str]], query: list[str]) -> NDArray[numpy.float32]:
    try:
        import bm25s
    except ImportError as error:
        raise InputError("T006", "search needs the package bm25s", hint="pip install bm25s") from error
    numbers: dict[str, int] = {}
    rows = [[numbers.setdefault(term, len(numbers)) for term in terms] for terms in corpus]
    term_numbers = [numbers[term] for term in dict.fromkeys(query) if term in numbers]
    if not term_numbers:
        return _zeros(len(corpus))
    index: Any = bm25s.BM25(method="lucene", k1=K1, b=B)
    index.index((rows, numbers), show_progress=False)
    scores: NDArray[numpy.float32] = index.get_scores_from_ids(term_numbers)
    return scores


def _zeros(length: int) -> NDArray[numpy.float32]:
    import numpy

    return numpy.zeros(length, dtype=numpy.float32)

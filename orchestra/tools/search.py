"""Search: ranks the passages of documents for a query by BM25."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from orchestra.core.errors import InputError
from orchestra.schema.builtin_models import Document, Passage
from orchestra.tools.passages import split_passages
from orchestra.workflows.python.steps import tool

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray


@tool(effect="pure", label="restricted")
def search(query: str, documents: Sequence[Document], top: int = 5) -> list[Passage]:
    """The passages that answer a query best, the best first.

    Documents are split into paragraphs. Each passage has its position in its document. Passages that share no word with
    the query are left out, so the list may be empty. Equal scores keep the order of the documents.

    Raises:
        InputError: T006 if bm25s is not installed.
    """
    passages = split_passages(documents)
    wanted = _terms(query)
    if not passages or not wanted or top < 1:
        return []
    found = _bm25([_terms(passage.text) for passage in passages], wanted)
    ranked = sorted(
        (index for index in range(len(passages)) if found[index] > 0), key=lambda index: (-found[index], index)
    )
    return [passages[index].model_copy(update={"score": round(float(found[index]), 6)}) for index in ranked[:top]]


def bm25_scores(texts: Sequence[str], query: str) -> list[float]:
    """Returns the BM25 score of each text for a query; 0 if they share no word.

    Raises:
        InputError: T006 if bm25s is not installed.
    """
    wanted = _terms(query)
    return (
        [float(score) for score in _bm25([_terms(text) for text in texts], wanted)]
        if texts and wanted
        else [0.0] * len(texts)
    )


def _bm25(corpus: list[list[str]], query: list[str]) -> NDArray[numpy.float32]:
    try:
        import bm25s
    except ImportError as error:
        raise InputError("T006", "search needs the package bm25s", hint="pip install bm25s") from error
    numbers: dict[str, int] = {}
    rows = [[numbers.setdefault(term, len(numbers)) for term in terms] for terms in corpus]
    known = [numbers[term] for term in dict.fromkeys(query) if term in numbers]
    if not known:
        return _zeros(len(corpus))
    index: Any = bm25s.BM25(method="lucene", k1=1.2, b=0.75)
    index.index((rows, numbers), show_progress=False)
    scores: NDArray[numpy.float32] = index.get_scores_from_ids(known)
    return scores


def _zeros(length: int) -> NDArray[numpy.float32]:
    import numpy

    return numpy.zeros(length, dtype=numpy.float32)


def _terms(text: str) -> list[str]:
    """Returns the words of a text for comparison: NFKC, casefold, no plural `s`, no stop words."""
    from orchestra.text.keywords import STOP_WORDS, WORD

    words = WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    return [_singular(word) for word in words if word not in STOP_WORDS]


def _singular(word: str) -> str:
    """Returns a word without its plural ending (Harman 1991, How effective is suffixing?, the S stemmer)."""
    if len(word) < 4 or not word.endswith("s") or word.endswith(("us", "ss")):
        return word
    if word.endswith("ies") and not word.endswith(("eies", "aies")):
        return word[:-3] + "y"
    return word[:-1]

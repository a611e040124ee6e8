"""The postings of an index: for each term the passages that contain it, with their BM25 weights, in mapped files.

The weights are computed when the index is written, as bm25s does (Lù 2024, https://arxiv.org/abs/2407.03618), so that
a search adds up a few arrays. The variant is that of Lucene, as in `orchestra.documents.ranking`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestra.documents.ranking import K1, B, index_terms

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

STARTS_FILE, PASSAGES_FILE, WEIGHTS_FILE = "starts.npy", "passages.npy", "weights.npy"


@dataclass(frozen=True, slots=True)
class TermCounts:
    """The terms of the passages of one file: parallel arrays of term, passage and count, and the passages' lengths."""

    terms: NDArray[numpy.uint32]
    passages: NDArray[numpy.uint32]
    counts: NDArray[numpy.uint16]
    lengths: NDArray[numpy.uint32]

    def to_bytes(self) -> bytes:
        """Returns the arrays one after the other, behind their sizes."""
        import numpy as np

        sizes = np.array([len(self.terms), len(self.lengths)], dtype=np.uint32)
        parts = (sizes, self.terms, self.passages, self.counts, self.lengths)
        return b"".join(part.tobytes() for part in parts)

    @classmethod
    def from_bytes(cls, data: bytes) -> TermCounts:
        """Reverts `to_bytes`."""
        import numpy as np

        entries, passages = (int(size) for size in np.frombuffer(data, np.uint32, 2))
        at = 8
        terms = np.frombuffer(data, np.uint32, entries, at)
        places = np.frombuffer(data, np.uint32, entries, at := at + 4 * entries)
        counts = np.frombuffer(data, np.uint16, entries, at := at + 4 * entries)
        return cls(terms, places, counts, np.frombuffer(data, np.uint32, passages, at + 2 * entries))


def count_terms(texts: Sequence[str], numbers: dict[str, int]) -> TermCounts:
    """Counts the terms of passages. A new term is added to `numbers`, with the next number."""
    import numpy as np

    terms: list[int] = []
    passages: list[int] = []
    counts: list[int] = []
    lengths: list[int] = []
    for at, text in enumerate(texts):
        text_terms = index_terms(text)
        lengths.append(len(text_terms))
        for term, count in Counter(text_terms).items():
            terms.append(numbers.setdefault(term, len(numbers)))
            passages.append(at)
            counts.append(min(count, 65_535))
    return TermCounts(
        np.array(terms, np.uint32),
        np.array(passages, np.uint32),
        np.array(counts, np.uint16),
        np.array(lengths, np.uint32),
    )


def write_postings(folder: Path, files: Iterable[TermCounts], vocabulary: int) -> None:
    """Writes the postings of all files; their passages are numbered in order.

    Args:
        folder: An empty folder.
        files: The terms of each file.
        vocabulary: The number of different terms.
    """
    import numpy as np

    parts = list(files)
    firsts = np.cumsum([0, *(len(part.lengths) for part in parts)])
    empty = np.zeros(0, np.uint32)
    terms = np.concatenate([empty, *(part.terms for part in parts)])
    passages = np.concatenate(
        [empty, *(part.passages + np.uint32(first) for part, first in zip(parts, firsts, strict=False))]
    )
    counts = np.concatenate([np.zeros(0, np.uint16), *(part.counts for part in parts)])
    lengths = np.concatenate([empty, *(part.lengths for part in parts)])
    del parts
    order = np.argsort(terms, kind="stable")
    array = np.bincount(terms, minlength=vocabulary)
    starts = np.zeros(vocabulary + 1, np.int64)
    np.cumsum(array, out=starts[1:])
    rarity = np.log1p((len(lengths) - array + 0.5) / (array + 0.5)).astype(np.float32)
    mean = np.float32(lengths.mean() if len(lengths) else 1.0)
    norms = (K1 * (1 - B + B * lengths / max(mean, np.float32(1e-9)))).astype(np.float32)
    passages = passages[order]
    values = counts[order].astype(np.float32)
    weights = values / (values + norms[passages]) * np.repeat(rarity, array)
    np.save(folder / STARTS_FILE, starts)
    np.save(folder / PASSAGES_FILE, passages)
    np.save(folder / WEIGHTS_FILE, weights.astype(np.float32))


class Postings:
    """The postings in a folder, mapped into memory."""

    def __init__(self, folder: Path) -> None:
        import numpy as np

        self._starts, self._passages, self._weights = (
            np.load(folder / name, mmap_mode="r") for name in (STARTS_FILE, PASSAGES_FILE, WEIGHTS_FILE)
        )

    def scores(self, terms: Iterable[int], count: int) -> NDArray[numpy.float32]:
        """Returns the score of each of `count` passages for the terms of a query."""
        import numpy as np

        scores = np.zeros(count, np.float32)
        for term in terms:
            if term + 1 < len(self._starts):
                span = slice(int(self._starts[term]), int(self._starts[term + 1]))
                scores[self._passages[span]] += self._weights[span]
        return scores


def best(scores: NDArray[numpy.float32], top: int) -> list[int]:
    """Returns the positions of the highest scores above 0, the best first; of equal ones the first first."""
    import numpy as np

    positive = np.flatnonzero(scores > 0)
    if len(positive) > top:
        limit = np.partition(scores[positive], len(positive) - top)[len(positive) - top]
        positive = positive[scores[positive] >= limit]
    order = np.lexsort((positive, -scores[positive]))
    return [int(at) for at in positive[order[:top]]]

"""Retrieval: how often the right passage is among the first ones, by BM25, by vectors, and by both.

    python -m bench.retrieval --data FOLDER

The corpora are the paragraphs of public reading sets. A passage is right if it is one that the question was asked
about. Times are those of one search in a loaded index, the median.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
from numpy.typing import NDArray

from orchestra.agents.inference.encoder import Encoder
from orchestra.documents.index import CANDIDATES
from orchestra.documents.postings import Postings, best, count_terms, write_postings
from orchestra.documents.ranking import fuse_rankings, index_terms
from orchestra.documents.vectors import SentenceEmbedder, VectorStore, quantize, write_vectors
from orchestra.fleet.weights.encoders import KNOWN_ENCODERS
from orchestra.fleet.weights.weights import ModelStore, find_weights

RANKS = (1, 5, 10)


@dataclass(frozen=True)
class Corpus:
    """Passages, and questions with the numbers of their right passages."""

    name: str
    passages: Sequence[str]
    questions: Sequence[tuple[str, frozenset[int]]]


def read_corpora(data: Path) -> Iterator[Corpus]:
    """Yields the corpora: XQuAD, and it together with the development part of PubMedQA."""
    numbers: dict[str, int] = {}

    def number(text: str) -> int:
        return numbers.setdefault(text, len(numbers))

    rows = list(_rows(data / "xquad_en"))
    for row in rows:
        number(row["input"]["context"])
    squad_passages = list(numbers)
    squad = [  # the others ask about another paragraph than theirs
        (row["input"]["question"], frozenset({number(row["input"]["context"])}))
        for row in rows
        if row["expected"]["answers"]
    ]
    medical = [
        (row["input"]["question"], frozenset(map(number, row["input"]["contexts"])))
        for row in _rows(data / "pubmedqa", ("dev.jsonl",))
    ]
    yield Corpus("XQuAD", squad_passages, squad)
    both = list(numbers)
    yield Corpus("both, questions of XQuAD", both, squad)
    yield Corpus("both, questions of PubMedQA", both, medical)


def _rows(folder: Path, names: Sequence[str] = ("dev.jsonl", "train.jsonl")) -> Iterator[dict[str, Any]]:
    for name in names:
        for line in (folder / name).read_text("utf-8").splitlines():
            yield json.loads(line)


def measure(corpus: Corpus, embedder: SentenceEmbedder, vectors: dict[str, NDArray[numpy.float32]]) -> None:
    """Prints the recall of each ranking."""
    numbers: dict[str, int] = {}
    counts = count_terms(corpus.passages, numbers)
    started = time.perf_counter()
    for text in corpus.passages:
        if text not in vectors:
            vectors[text] = embedder.embed(text)
    spent = time.perf_counter() - started
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_postings(folder, [counts], len(numbers))
        postings = Postings(folder)
        width = len(vectors[corpus.passages[0]])
        write_vectors(folder, [quantize([vectors[text] for text in corpus.passages])], width)
        store = VectorStore(folder, width)

        def by_words(query: str) -> list[int]:
            known = [numbers[term] for term in dict.fromkeys(index_terms(query)) if term in numbers]
            return best(postings.scores(known, len(corpus.passages)), CANDIDATES)

        def by_vectors(query: str) -> list[int]:
            return store.nearest(embedder.embed(query), CANDIDATES)

        def by_both(query: str) -> list[int]:
            return [at for at, _ in fuse_rankings([by_words(query), by_vectors(query)])]

        sizes = f"{len(corpus.passages)} passages, {len(corpus.questions)} questions"
        print(f"{corpus.name}: {sizes}, {spent:.1f} s to encode")
        rankings: dict[str, Callable[[str], list[int]]] = {"BM25": by_words, "vectors": by_vectors, "both": by_both}
        for label, ranking in rankings.items():
            hits, times = dict.fromkeys(RANKS, 0), []
            for question, right in corpus.questions:
                started = time.perf_counter()
                found = ranking(question)
                times.append(time.perf_counter() - started)
                for rank in RANKS:
                    hits[rank] += bool(right & set(found[:rank]))
            shares = "  ".join(f"{rank}: {hits[rank] / len(corpus.questions):.3f}" for rank in RANKS)
            print(f"  {label:8} {shares}  {1000 * statistics.median(times):.1f} ms")


def main() -> None:
    """Measures all corpora."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--encoder", default="minilm", choices=sorted(KNOWN_ENCODERS))
    arguments = parser.parse_args()
    folder = find_weights(KNOWN_ENCODERS[arguments.encoder], ModelStore.from_environment())
    if folder is None:
        raise SystemExit(f"the encoder {arguments.encoder} is not installed")
    embedder = SentenceEmbedder(arguments.encoder, Encoder.load(folder))
    vectors: dict[str, NDArray[numpy.float32]] = {}
    for corpus in read_corpora(arguments.data):
        measure(corpus, embedder, vectors)


if __name__ == "__main__":
    main()

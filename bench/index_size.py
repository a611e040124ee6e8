"""The index of a folder at a given size: time to build and to update it, bytes on disk, time of a search.

    python -m bench.index_size --passages 1000000

The passages have random words of a vocabulary with the frequencies of Zipf's law, and the vectors random directions:
their content does not matter for time and size. A search is measured in a process of its own, which opens the index.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy
from numpy.typing import NDArray

from orchestra.documents.index import FolderIndex, IndexOptions

PER_FILE, WORDS, VOCABULARY, WIDTH = 1_000, 60, 200_000, 384
SEARCHES = 50


class RandomEmbedder:
    """A random direction for each text."""

    name = "random"

    def __init__(self) -> None:
        self._random = numpy.random.default_rng(0)

    def embed(self, text: str) -> NDArray[numpy.float32]:
        """Returns the next direction."""
        vector = self._random.standard_normal(WIDTH, numpy.float32)
        return numpy.asarray(vector / numpy.linalg.norm(vector), numpy.float32)


def write_files(folder: Path, passages: int) -> list[str]:
    """Writes the files, and returns the words, the most frequent first."""
    random = numpy.random.default_rng(1)
    words = [f"w{number:x}" for number in range(VOCABULARY)]
    shares = 1 / numpy.arange(1, VOCABULARY + 1)
    shares /= shares.sum()
    for at in range(0, passages, PER_FILE):
        drawn = random.choice(VOCABULARY, (min(PER_FILE, passages - at), WORDS), p=shares)
        text = "\n\n".join(" ".join(words[number] for number in row) + "." for row in drawn)
        (folder / f"{at // PER_FILE:06}.txt").write_text(text)
    return words


def measure_searches(folder: Path, store: Path) -> None:
    """Prints the times of searches in this process as JSON: the first one, and the others."""
    index, random, embedder = FolderIndex(folder, store), numpy.random.default_rng(2), RandomEmbedder()
    found: dict[str, list[float]] = {"bm25": [], "both": []}
    for label, model in (("bm25", None), ("both", embedder)):
        for _ in range(SEARCHES):
            query = " ".join(f"w{int(number):x}" for number in 10 ** random.uniform(1, 5, 6))
            started = time.perf_counter()
            index.search(query, 10, model)
            found[label].append(1000 * (time.perf_counter() - started))
    print(json.dumps(found))


def run(passages: int, folder: Path) -> None:
    """Prints all measures."""
    files, store = folder / "files", folder / "index"
    files.mkdir()
    write_files(files, passages)
    index = FolderIndex(files, store)
    started = time.perf_counter()
    index.update()
    print(f"{passages} passages, {WORDS} words each; built without vectors in {time.perf_counter() - started:.0f} s")
    started = time.perf_counter()
    index.update(IndexOptions(embedder=RandomEmbedder()))
    print(f"vectors stored in {time.perf_counter() - started:.0f} s, without the time of an encoder")
    (files / "000000.txt").write_text("One changed file.")
    started = time.perf_counter()
    index.update()
    print(f"one changed file in {time.perf_counter() - started:.1f} s")
    size = sum(path.stat().st_size for path in store.rglob("*") if path.is_file())
    print(f"{size / 1e6:.0f} MB on disk")
    command = [sys.executable, "-m", "bench.index_size", "--search", str(files), str(store)]
    times: dict[str, Sequence[float]] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    for label, values in times.items():
        middle, worst = statistics.median(values[1:]), max(values[1:])
        print(f"search {label}: first {values[0]:.0f} ms, then median {middle:.1f} ms, at most {worst:.0f} ms")


def main() -> None:
    """Measures one size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--passages", type=int, default=1_000_000)
    parser.add_argument("--search", type=Path, nargs=2)
    arguments = parser.parse_args()
    if arguments.search:
        measure_searches(*arguments.search)
        return
    with tempfile.TemporaryDirectory() as folder:
        run(arguments.passages, Path(folder))


if __name__ == "__main__":
    main()

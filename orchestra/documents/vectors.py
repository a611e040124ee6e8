"""Vectors of passages in a compact form, and the search for the nearest.

A vector is stored as bytes (one for each dimension) and as the signs of its numbers (one bit for each). The signs give
candidates by their Hamming distance, which are then compared by the bytes: a search reads 48 bytes for a passage
instead of 1536 (Yamada et al. 2021, https://arxiv.org/abs/2106.00882, section 3).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    from orchestra.agents.inference.encoder import Encoder

BYTES_FILE, SIGNS_FILE = "vectors.int8", "signs.uint64"
MAX_TOKENS = 256
"""Tokens of a text that are encoded, as in the training of all-MiniLM-L6-v2."""
CANDIDATES = 20
"""Candidates by signs for each result by bytes."""
MIN_CANDIDATES = 1_000
EXACT = 20_000
"""Up to so many passages all bytes are compared."""
_BLOCK = 1 << 14


class Embedder(Protocol):
    """A model that turns texts into vectors of length 1."""

    @property
    def name(self) -> str:
        """Its name; vectors of another name are not compared."""
        ...

    def embed(self, text: str) -> NDArray[numpy.float32]:
        """Returns the vector of a text."""
        ...


class SentenceEmbedder:
    """The mean of a sentence encoder's token vectors."""

    def __init__(self, name: str, encoder: Encoder) -> None:
        self.name, self._encoder = name, encoder

    def embed(self, text: str) -> NDArray[numpy.float32]:
        """Returns the vector of a text, of which at most `MAX_TOKENS` tokens are read."""
        import numpy as np

        vector = self._encoder.embed(self._encoder.tokenize(text, MAX_TOKENS), {})[0]
        length = np.linalg.norm(vector)
        unit_vectors: NDArray[numpy.float32] = vector / max(length, np.float32(1e-9))
        return unit_vectors


def quantize(vectors: Sequence[NDArray[numpy.float32]]) -> NDArray[numpy.int8]:
    """Returns vectors as bytes. The largest number of each vector becomes 127, so only directions are kept."""
    import numpy as np

    if not vectors:
        return np.zeros((0, 0), np.int8)
    matrix = np.stack(vectors)
    largest = np.maximum(np.abs(matrix).max(axis=1, keepdims=True), np.float32(1e-9))
    array: NDArray[numpy.int8] = np.rint(matrix / largest * 127).astype(np.int8)
    return array


def write_vectors(folder: Path, files: Iterable[NDArray[numpy.int8]], width: int) -> None:
    """Writes the vectors of all files in order. A passage without a vector has zeros."""
    import numpy as np

    with (folder / BYTES_FILE).open("wb") as stream:
        for part in files:
            stream.write(part.tobytes())
    rows = _map_bytes(folder, width)
    shape = (-(-width // 64), len(rows))  # a word of all rows is contiguous, so that distances are added up by words
    signs = np.memmap(folder / SIGNS_FILE, np.uint64, "w+", shape=shape)
    for start in range(0, len(rows), _BLOCK):
        signs[:, start : start + _BLOCK] = _signs(rows[start : start + _BLOCK]).T
    signs.flush()


class VectorStore:
    """The vectors of some width in a folder, mapped into memory."""

    def __init__(self, folder: Path, width: int) -> None:
        import numpy as np

        self._bytes = _map_bytes(folder, width)
        self._signs = np.memmap(folder / SIGNS_FILE, np.uint64, "r").reshape(-1, len(self._bytes))

    def nearest(self, vector: NDArray[numpy.float32], top: int) -> list[int]:
        """Returns the positions of the vectors with the most similar directions, the best first."""
        import numpy as np

        count = len(self._bytes)
        if count <= EXACT:
            candidates = np.arange(count)
        else:
            candidate_count = min(count, max(MIN_CANDIDATES, CANDIDATES * top))
            distances = _hamming(self._signs, _signs(quantize([vector]))[0])
            candidates = np.argpartition(distances, candidate_count - 1)[:candidate_count]
            candidates.sort()
        rows = self._bytes[candidates].astype(np.float32)
        lengths = np.linalg.norm(rows, axis=1)
        similar = rows @ vector / np.maximum(lengths, np.float32(1e-9))
        order = np.argsort(-similar, kind="stable")[:top]
        return [int(candidates[at]) for at in order if lengths[at] > 0]


def _signs(rows: NDArray[numpy.int8]) -> NDArray[numpy.uint64]:
    import numpy as np

    packed_bits = np.packbits(rows > 0, axis=1)
    padded_bits = np.pad(packed_bits, ((0, 0), (0, -packed_bits.shape[1] % 8)))
    words: NDArray[numpy.uint64] = padded_bits.view(np.uint64)
    return words


def _map_bytes(folder: Path, width: int) -> NDArray[numpy.int8]:
    import numpy as np

    return np.memmap(folder / BYTES_FILE, np.int8, "r").reshape(-1, width)


def _hamming(words: NDArray[numpy.uint64], query_words: NDArray[numpy.uint64]) -> NDArray[numpy.uint16]:
    """Returns the number of bits in which each row differs from one."""
    import numpy as np

    distances = np.zeros(words.shape[1], np.uint16)
    for start in range(0, len(distances), _BLOCK):  # a block and what is computed of it stay in the processor's cache
        part = distances[start : start + _BLOCK]
        for word, query_word in zip(words, query_words, strict=True):
            part += _count_bits(word[start : start + _BLOCK] ^ query_word)
    return distances


def _count_bits(words: NDArray[numpy.uint64]) -> NDArray[numpy.uint8]:
    import numpy as np

    if hasattr(np, "bitwise_count"):
        bit_counts: NDArray[numpy.uint8] = np.bitwise_count(words)
        return bit_counts
    sums: NDArray[numpy.uint8] = np.unpackbits(words.view(np.uint8)).reshape(-1, 64).sum(axis=1, dtype=np.uint8)
    return sums  # numpy 1

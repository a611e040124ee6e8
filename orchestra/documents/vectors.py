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
        found: NDArray[numpy.float32] = vector / max(length, np.float32(1e-9))
        return found


def quantize(vectors: Sequence[NDArray[numpy.float32]]) -> NDArray[numpy.int8]:
    """Returns vectors as bytes. The largest number of each vector becomes 127, so only directions are kept."""
    import numpy as np

    if not vectors:
        return np.zeros((0, 0), np.int8)
    stacked = np.stack(vectors)
    largest = np.maximum(np.abs(stacked).max(axis=1, keepdims=True), np.float32(1e-9))
    found: NDArray[numpy.int8] = np.rint(stacked / largest * 127).astype(np.int8)
    return found


def write_vectors(folder: Path, files: Iterable[NDArray[numpy.int8]]) -> None:
    """Writes the vectors of all files in order. A passage without a vector has zeros."""
    with (folder / BYTES_FILE).open("wb") as stored, (folder / SIGNS_FILE).open("wb") as signs:
        for part in files:
            stored.write(part.tobytes())
            signs.write(_signs(part).tobytes())


class VectorStore:
    """The vectors of some width in a folder, mapped into memory."""

    def __init__(self, folder: Path, width: int) -> None:
        import numpy as np

        self._bytes = np.memmap(folder / BYTES_FILE, np.int8, "r").reshape(-1, width)
        self._signs = np.memmap(folder / SIGNS_FILE, np.uint64, "r").reshape(len(self._bytes), -1)

    def nearest(self, vector: NDArray[numpy.float32], top: int) -> list[int]:
        """Returns the positions of the vectors with the most similar directions, the best first."""
        import numpy as np

        count = len(self._bytes)
        if count <= EXACT:
            candidates = np.arange(count)
        else:
            wanted = min(count, max(MIN_CANDIDATES, CANDIDATES * top))
            distances = _hamming(self._signs, _signs(quantize([vector]))[0])
            candidates = np.argpartition(distances, wanted - 1)[:wanted]
            candidates.sort()
        rows = self._bytes[candidates].astype(np.float32)
        lengths = np.linalg.norm(rows, axis=1)
        similar = rows @ vector / np.maximum(lengths, np.float32(1e-9))
        order = np.argsort(-similar, kind="stable")[:top]
        return [int(candidates[at]) for at in order if lengths[at] > 0]


def _signs(rows: NDArray[numpy.int8]) -> NDArray[numpy.uint64]:
    import numpy as np

    packed = np.packbits(rows > 0, axis=1)
    padded = np.pad(packed, ((0, 0), (0, -packed.shape[1] % 8)))
    found: NDArray[numpy.uint64] = padded.view(np.uint64)
    return found


def _hamming(rows: NDArray[numpy.uint64], one: NDArray[numpy.uint64]) -> NDArray[numpy.uint16]:
    """Returns the number of bits in which each row differs from one."""
    import numpy as np

    distances = np.zeros(len(rows), np.uint16)
    for start in range(0, len(rows), _BLOCK):  # a block and what is computed of it stay in the processor's cache
        block = rows[start : start + _BLOCK] ^ one
        if hasattr(np, "bitwise_count"):
            distances[start : start + _BLOCK] = np.bitwise_count(block).sum(axis=1, dtype=np.uint16)
        else:  # numpy 1
            distances[start : start + _BLOCK] = np.unpackbits(block.view(np.uint8), axis=1).sum(axis=1, dtype=np.uint16)
    return distances

"""Similarity: how near several texts are in meaning to a query, by the vectors of a sentence encoder.

The score of a text is the cosine of its vector and that of the query, from -1 to 1. `model.json` has the input and
output fields, the base encoder, and the SHA-256 of the array beside it (`.npz`): `centre`, a vector that is subtracted
from every vector before they are compared; zeros leave them as the encoder returns them. The vectors of recent texts
are kept, because the passages of a folder are compared with one question after the other.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from threading import Lock
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field

from orchestra.agents.card import Card
from orchestra.agents.inference.array_files import array_errors
from orchestra.agents.inference.encoder import Encoder
from orchestra.agents.inference.model_file import EncoderModelConfig

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMAT: Literal["orchestra/similarity/v1"] = "orchestra/similarity/v1"
MAX_KEPT_VECTORS = 20_000
"""Vectors of recent texts that are kept: about 30 MB with 384 numbers each."""


class SimilarityConfig(EncoderModelConfig):
    """The configuration in `model.json`."""

    format: Literal["orchestra/similarity/v1"]
    query: str
    """The input with the query."""
    texts: str
    """The input with the texts."""
    output: str
    """The field of the output with the scores, in the order of the texts."""
    tokens: Annotated[int, Field(ge=32, le=512)] = 256
    """Maximum tokens of a text that are read."""


def compares_texts(card: Card) -> bool:
    """Whether an agent of kind `encoder` scores a list of texts."""
    return set(card.output_schema.get("properties", {})) == {"scores"}


class TextSimilarity:
    """A loaded comparison of texts."""

    def __init__(self, config: SimilarityConfig, arrays: Mapping[str, NDArray[Any]], encoder: Encoder) -> None:
        """Raises `ValueError` or `KeyError` if the array does not fit the encoder."""
        import numpy as np

        self.config, self.encoder = config, encoder
        self._centre = arrays["centre"].astype(np.float32)
        if self._centre.shape != (encoder.shape.hidden_size,):
            raise ValueError("the centre has another shape than the encoder")
        self._kept: OrderedDict[str, NDArray[Any]] = OrderedDict()
        self._lock = Lock()
        """Calls run on threads."""

    @classmethod
    def load(cls, card: Card, encoder: Encoder) -> Self:
        """Loads the comparison of a card's folder, with its base encoder.

        Raises:
            InputError: A011 if its files are missing, damaged or inconsistent.
        """
        with array_errors(card):
            return cls(*SimilarityConfig.read(card), encoder)

    def predict(self, inputs: Mapping[str, Any]) -> tuple[dict[str, Any], None]:
        """Returns the scores of the texts. There is no probability."""
        query, *vectors = self.vectors([str(inputs[self.config.query]), *map(str, inputs[self.config.texts])])
        return {self.config.output: [round(float(vector @ query), 6) for vector in vectors]}, None

    def vectors(self, texts: Sequence[str]) -> list[NDArray[Any]]:
        """Returns the vectors of texts, of length 1. Those that are not kept are computed as a batch."""
        import numpy as np

        vectors: dict[str, NDArray[Any]] = {}
        with self._lock:
            for text in texts:
                if (cached_vector := self._kept.get(text)) is not None:
                    self._kept.move_to_end(text)
                    vectors[text] = cached_vector
        missing = [text for text in dict.fromkeys(texts) if text not in vectors]
        tokens = [self.encoder.tokenize(text, self.config.tokens) for text in missing]
        for text, vector in zip(missing, self.encoder.embed_batch(tokens, {}), strict=True):
            centred_rows = vector - self._centre
            vectors[text] = centred_rows / max(float(np.linalg.norm(centred_rows)), 1e-9)
        with self._lock:
            self._kept.update((text, vectors[text]) for text in missing)
            while len(self._kept) > MAX_KEPT_VECTORS:
                self._kept.popitem(last=False)
        return [vectors[text] for text in texts]

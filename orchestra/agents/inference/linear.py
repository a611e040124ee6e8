"""Classical agents: a linear model over n-grams of a text, read from plain arrays. Needs only numpy, no pickle and no
scikit-learn.

`model.json` has the features, the labels, and the SHA-256 of the arrays beside it (`.npz`): `vocabulary` (UTF-8 lines
as bytes), `idf`, `weights` (int8, features by labels) with one `scale` a label, and `intercept`. A regressor has one
column of weights, and `lengths`: the addend of each step of the text's length.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from orchestra.agents.card import Card
from orchestra.agents.inference.array_files import array_errors
from orchestra.agents.inference.model_file import FrozenModel, ModelConfig

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

_WORD = re.compile(r"\w+")


class NgramFeatures(FrozenModel):
    """The features of a text: runs of words, runs of characters within a word, and pairs of words with a gap."""

    words: tuple[Annotated[int, Field(ge=1, le=5)], ...] = (1, 2)
    characters: tuple[Annotated[int, Field(ge=1, le=8)], ...] = (3, 4, 5)
    gap: Annotated[int, Field(ge=0, le=5)] = 0
    """Maximum number of words between the two of a pair; 0 for no pairs."""

    def extract(self, text: str) -> list[str]:
        """Returns the features of a text, repeated as often as they occur."""
        words: list[str] = _WORD.findall(text.lower())
        features = ["w" + " ".join(words[i : i + n]) for n in self.words for i in range(len(words) - n + 1)]
        for word in words:
            padded_word = f" {word} "
            features += ["c" + padded_word[i : i + n] for n in self.characters for i in range(len(padded_word) - n + 1)]
        for i, first_word in enumerate(words):
            features += [f"s{first_word} {right}" for right in words[i + 2 : i + 2 + self.gap]]
        return features


class LinearClassifierConfig(ModelConfig):
    """The configuration of a classifier in `model.json`."""

    format: Literal["orchestra/linear-text/v1"]
    input: str
    """The input that is read."""
    output: str
    """The field of the output with the label."""
    features: NgramFeatures
    labels: tuple[str | bool | int | None, ...] = Field(min_length=2)
    """As in the output."""


class LinearRegressorConfig(ModelConfig):
    """The configuration of a regressor in `model.json`."""

    format: Literal["orchestra/linear-number/v1"]
    input: str
    output: str
    """The field of the output with the number."""
    features: NgramFeatures
    lowest: float
    highest: float
    """The range of the training targets. Predictions are limited to it."""


class _TfidfModel:
    """The TF-IDF features of a text by row, normalized to Euclidean length 1."""

    def __init__(self, features: NgramFeatures, arrays: Mapping[str, NDArray[Any]], columns: int) -> None:
        """Raises `ValueError` or `KeyError` if the arrays are inconsistent."""
        words = arrays["vocabulary"].tobytes().decode("utf-8").split("\n")
        self._features, self._index = features, {word: row for row, word in enumerate(words)}
        self._idf, self._weights = arrays["idf"].astype("float32"), arrays["weights"]
        self._scale, self.intercept = arrays["scale"].astype("float32"), arrays["intercept"].astype("float32")
        shapes = [array.shape for array in (self._weights, self._idf, self._scale, self.intercept)]
        if shapes != [(len(words), columns), (len(words),), (columns,), (columns,)]:
            raise ValueError("the arrays have other shapes than the vocabulary and the labels")

    def scores(self, text: str) -> NDArray[numpy.float32]:
        """Returns the score of each column; the intercept if the text has no known features."""
        import numpy

        counts = Counter(
            row for feature in self._features.extract(text) if (row := self._index.get(feature)) is not None
        )
        rows = numpy.fromiter(counts, dtype=numpy.int64)
        weights = numpy.array([1 + math.log(count) for count in counts.values()], dtype=numpy.float32) * self._idf[rows]
        if not weights.any():  # all weights are 0, so the length cannot be normalized
            return self.intercept
        weights /= numpy.linalg.norm(weights)
        scores: NDArray[numpy.float32] = (
            weights @ self._weights[rows].astype(numpy.float32) * self._scale + self.intercept
        )
        return scores


class LinearClassifier:
    """A loaded linear classifier: multinomial logistic regression over TF-IDF features."""

    def __init__(self, config: LinearClassifierConfig, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Raises `ValueError` or `KeyError` if the arrays do not fit the configuration."""
        self.config = config
        self._tfidf = _TfidfModel(config.features, arrays, len(config.labels))

    @classmethod
    def load(cls, card: Card, file: str = "", sha256: str = "") -> LinearClassifier:
        """Loads the classifier of a card's folder, by the card's data file or by another one with its digest.

        Raises:
            InputError: A011 if the files are missing, damaged or inconsistent.
        """
        with array_errors(card, file):
            return cls(*LinearClassifierConfig.read(card, file, sha256))

    def probabilities(self, text: str) -> NDArray[numpy.float32]:
        """Returns the probability of each label."""
        import numpy

        logits = self._tfidf.scores(text)
        powers = numpy.exp(logits - logits.max())
        probabilities: NDArray[numpy.float32] = (powers / powers.sum()).astype(numpy.float32)
        return probabilities

    def predict(self, inputs: Mapping[str, Any]) -> tuple[dict[str, Any], float]:
        """Returns the output and its probability."""
        probabilities = self.probabilities(str(inputs[self.config.input]))
        best = int(probabilities.argmax())
        return {self.config.output: self.config.labels[best]}, float(probabilities[best])


class LinearRegressor:
    """A loaded linear regressor: ridge regression over TF-IDF features and the text's length."""

    def __init__(self, config: LinearRegressorConfig, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Raises `ValueError` or `KeyError` if the arrays do not fit the configuration."""
        self.config = config
        self._tfidf = _TfidfModel(config.features, arrays, 1)
        self._lengths = arrays["lengths"].astype("float32")
        if self._lengths.ndim != 1 or config.lowest > config.highest:
            raise ValueError("the lengths are not a list, or the lowest number is above the highest")

    @classmethod
    def load(cls, card: Card) -> LinearRegressor:
        """Loads the regressor of a card's folder.

        Raises:
            InputError: A011 if the files are missing, damaged or inconsistent.
        """
        with array_errors(card):
            return cls(*LinearRegressorConfig.read(card))

    def predict_number(self, text: str) -> float:
        """Returns the number for a text."""
        score = float(self._tfidf.scores(text)[0] + self._lengths[: length_steps(text)].sum())
        return min(self.config.highest, max(self.config.lowest, score))

    def predict(self, inputs: Mapping[str, Any]) -> tuple[dict[str, Any], None]:
        """Returns the output. The confidence of a regressor is unknown."""
        return {self.config.output: self.predict_number(str(inputs[self.config.input]))}, None


def length_steps(text: str) -> int:
    """Returns the number of half doublings from one character to the text's length; at most 40, for a mebibyte."""
    return min(40, int(2 * math.log2(max(1, len(text)))))


def predicts_number(card: Card) -> bool:
    """Whether a linear agent predicts a number instead of a label."""
    fields: Mapping[str, Any] = card.output_schema.get("properties", {})
    return [field.get("type") for field in fields.values()] == ["number"]

"""Span extraction: a fine-tuned encoder that reads a question and a passage, and selects the words that answer the
question.

`model.json` has the input and output fields, the base encoder, and the SHA-256 of the arrays beside it (`.npz`): for
each tuned linear layer of the base `down.NAME` and `up.NAME`, each of one member, and the head: `weight` (2, width) and
`bias` (2). The head gives each token of the passage two logits, for an answer that begins there and for one that ends
there. The logits of the first mark are those of "no answer here" (Devlin et al. 2019, https://arxiv.org/abs/1810.04805,
section 4.3). An answer's logit is the sum of two. A passage that is longer than the encoder's input is read in
overlapping windows, and the spans of all windows are compared.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from orchestra.agents.card import Card
from orchestra.agents.inference.array_files import array_errors
from orchestra.agents.inference.encoder import EncodedPair, Encoder, lora_weights
from orchestra.agents.inference.model_file import EncoderModelConfig
from orchestra.core.errors import InputError
from orchestra.schema.fields import QUOTE_FORMAT, schema_has_format
from orchestra.text.keywords import expand_to_words

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMAT: Literal["orchestra/spans/v1"] = "orchestra/spans/v1"
MAX_QUESTION = 128
"""Maximum tokens of a question that are read."""
MAX_WINDOWS = 32
"""Maximum windows of a passage: about ten thousand tokens."""


class SpanExtractionConfig(EncoderModelConfig):
    """The configuration in `model.json`."""

    format: Literal["orchestra/spans/v1"]
    question: str
    """The input with the question."""
    passage: str
    """The input with the passage."""
    output: str
    """The field of the output with the words, or null."""
    tokens: Annotated[int, Field(ge=32, le=512)] = 384
    """Maximum tokens of question and window together."""
    overlap: Annotated[int, Field(ge=0, le=256)] = 96
    """Tokens that two adjacent windows share."""
    longest: Annotated[int, Field(ge=1, le=256)] = 30
    """Maximum tokens of an answer."""
    silence: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    """Added to the logit of "no answer here"."""
    heat: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    """Temperature: logits are divided by it for the probability of an answer."""

    @model_validator(mode="after")
    def _check_overlap(self) -> Self:
        check_overlap(self.tokens, self.overlap)
        return self


@dataclass(frozen=True, slots=True)
class Window:
    """A part of a passage beside the question, as input of the encoder."""

    tokens: list[int]
    start: int
    """Index of the first token of the passage."""
    offsets: Sequence[tuple[int, int]]
    """The span of each of them in the passage, in characters."""


def extracts_spans(card: Card) -> bool:
    """Whether an agent of kind `encoder` answers with a span of its input."""
    return schema_has_format(card.output_schema, QUOTE_FORMAT)


def check_overlap(tokens: int, overlap: int) -> None:
    """Raises `ValueError` if the overlap leaves no progress from window to window with a long question."""
    room = tokens - min(MAX_QUESTION, tokens // 2)
    if overlap >= room:
        raise ValueError(
            f"windows of {tokens} tokens with an overlap of {overlap} make no progress: a question leaves {room} tokens"
        )


def split_windows(pair: EncodedPair, tokens: int, overlap: int) -> Iterator[Window]:
    """Returns the windows of a question and a passage. A long question is cut to half of a window.

    Raises:
        ValueError: As `check_overlap`.
    """
    check_overlap(tokens, overlap)
    max_question = min(MAX_QUESTION, tokens // 2, tokens - overlap - len(pair.tail) - 1)
    head = pair.head if len(pair.head) <= max_question else [*pair.head[: max_question - 2], *pair.head[-2:]]
    room = tokens - len(head) - len(pair.tail)
    for start in range(0, max(1, len(pair.body) - overlap), room - overlap):
        piece = slice(start, start + room)
        yield Window([*head, *pair.body[piece], *pair.tail], len(head), pair.offsets[piece])


class SpanExtractor:
    """A loaded span extractor."""

    def __init__(self, config: SpanExtractionConfig, arrays: Mapping[str, NDArray[Any]], encoder: Encoder) -> None:
        """Raises `ValueError` or `KeyError` if the arrays do not fit the encoder."""
        import numpy as np

        self.config, self.encoder = config, encoder
        wide = {name: array.astype(np.float32) for name, array in arrays.items()}
        self._adapters = lora_weights(wide, encoder.shape)
        self._weight, self._bias = wide["weight"], wide["bias"]
        if self._weight.shape != (2, encoder.shape.hidden_size) or self._bias.shape != (2,):
            raise ValueError("the head has another shape than the encoder")

    @classmethod
    def load(cls, card: Card, encoder: Encoder) -> SpanExtractor:
        """Loads the span extractor of a card's folder, with its base encoder.

        Raises:
            InputError: A011 if its files are missing, damaged or inconsistent.
        """
        with array_errors(card):
            return cls(*SpanExtractionConfig.read(card), encoder)

    def predict(self, inputs: Mapping[str, Any]) -> tuple[dict[str, Any], float]:
        """Returns the output with the words or null, and its probability.

        Raises:
            InputError: A023 if the passage is too long.
        """
        question, passage = str(inputs[self.config.question]), str(inputs[self.config.passage])
        windows = list(
            split_windows(self.encoder.tokenize_pair(question, passage), self.config.tokens, self.config.overlap)
        )
        if len(windows) > MAX_WINDOWS:
            raise InputError(
                "A023",
                f"{self.config.passage} has about {len(passage) // 4:,} tokens, which is too long to read",
                hint="search it first",
            )
        best, probability = self.decode(list(zip(windows, self.logits(windows), strict=True)))
        answer = None if best is None else passage[slice(*expand_to_words(passage, *best))]
        return {self.config.output: answer}, probability

    def logits(self, windows: Sequence[Window]) -> list[NDArray[Any]]:
        """Returns the logits of answers that begin and end at each token of some windows, each (tokens, 2)."""
        states = self.encoder.encode_batch([window.tokens for window in windows], self._adapters)
        return [vectors[0] @ self._weight.T + self._bias for vectors in states]

    def decode(self, scored_windows: Sequence[tuple[Window, NDArray[Any]]]) -> tuple[tuple[int, int] | None, float]:
        """Returns the most probable span in characters of the passage, or None for no answer, and its probability.

        The logit of "no answer here" is the lowest over the windows.
        """
        import numpy as np

        config = self.config
        silence = math.inf
        weighted_spans: list[tuple[NDArray[Any], Window]] = []
        for window, logits in scored_windows:
            inside = logits[window.start : window.start + len(window.offsets)]
            sums = inside[:, None, 0] + inside[None, :, 1]
            ends = np.arange(len(inside))
            valid_mask = (ends[None, :] >= ends[:, None]) & (ends[None, :] < ends[:, None] + config.longest)
            weighted_spans.append((np.where(valid_mask, sums, -np.inf), window))
            silence = min(silence, float(logits[0].sum()) + config.silence)
        tops = [float(sums.max(initial=-np.inf)) for sums, _ in weighted_spans]
        at = int(np.argmax(tops))
        top = max(tops[at], silence)
        total = sum(float(np.exp((sums - top) / config.heat).sum()) for sums, _ in weighted_spans) + math.exp(
            (silence - top) / config.heat
        )
        if silence >= tops[at]:
            return None, math.exp((silence - top) / config.heat) / total
        sums, window = weighted_spans[at]
        first, last = divmod(int(sums.argmax()), sums.shape[1])
        return (window.offsets[first][0], window.offsets[last][1]), 1 / total

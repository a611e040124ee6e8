"""Span ranking: the most probable answers to a question in several texts, with comparable scores.

The weights and their format are those of a span extractor (`orchestra.agents.inference.span_extraction`), which gives
one answer or none for one passage. Here each text gives its best spans. The score of a span is its logit minus that of
"no answer here" in the same text: above 0 the text answers the question by itself. Scores of different texts can be
compared, and code can weigh a span below 0 that is of the right kind in a passage that fits the question well.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Self

from pydantic import Field

from orchestra.agents.card import Card
from orchestra.agents.inference.array_files import array_errors
from orchestra.agents.inference.encoder import Encoder
from orchestra.agents.inference.model_file import EncoderModelConfig
from orchestra.agents.inference.span_extraction import (
    MAX_WINDOWS,
    SpanExtractionConfig,
    SpanExtractor,
    Window,
    split_windows,
)
from orchestra.core.errors import InputError
from orchestra.text.keywords import expand_to_words

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMAT: Literal["orchestra/span-ranking/v1"] = "orchestra/span-ranking/v1"
SPAN_FIELDS = frozenset({"text", "start", "end", "answer", "score"})
"""The fields of a span in the output."""


class SpanRankingConfig(EncoderModelConfig):
    """The configuration in `model.json`."""

    format: Literal["orchestra/span-ranking/v1"]
    question: str
    """The input with the question."""
    texts: str
    """The input with the texts."""
    output: str
    """The field of the output with the spans, the best ones first."""
    tokens: Annotated[int, Field(ge=32, le=512)] = 384
    overlap: Annotated[int, Field(ge=0, le=256)] = 96
    longest: Annotated[int, Field(ge=1, le=256)] = 30
    """As for a span extractor."""
    silence: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    """Added to the logit of "no answer here"."""
    spans: Annotated[int, Field(ge=1, le=20)] = 3
    """Maximum spans of one text; they do not overlap."""


class RankedSpan(NamedTuple):
    """A span of a text, with its score."""

    score: float
    start: int
    end: int


def ranks_spans(card: Card) -> bool:
    """Whether an agent of kind `encoder` returns several spans with scores."""
    spans = card.output_schema.get("properties", {}).get("spans", {})
    return spans.get("type") == "array" and set(card.output_schema["properties"]) == {"spans"}


class SpanRanker:
    """A loaded ranking of spans."""

    def __init__(self, config: SpanRankingConfig, arrays: Mapping[str, NDArray[Any]], encoder: Encoder) -> None:
        """Raises `ValueError` or `KeyError` if the arrays do not fit the encoder."""
        self.config, self.encoder = config, encoder
        reading = SpanExtractionConfig.model_construct(
            question=config.question, passage=config.texts, output=config.output
        )
        self._extractor = SpanExtractor(reading, arrays, encoder)

    @classmethod
    def load(cls, card: Card, encoder: Encoder) -> Self:
        """Loads the ranking of a card's folder, with its base encoder.

        Raises:
            InputError: A011 if its files are missing, damaged or inconsistent.
        """
        with array_errors(card):
            return cls(*SpanRankingConfig.read(card), encoder)

    def predict(self, inputs: Mapping[str, Any]) -> tuple[dict[str, Any], None]:
        """Returns the spans of all texts, the best ones first. There is no probability.

        Raises:
            InputError: A023 if a text is too long.
        """
        question, texts = str(inputs[self.config.question]), list(map(str, inputs[self.config.texts]))
        windows = [self._windows(question, text) for text in texts]
        logits = iter(self._extractor.logits(list(itertools.chain.from_iterable(windows))))
        answers = [
            {
                "text": number,
                "start": span.start,
                "end": span.end,
                "answer": text[span.start : span.end],
                "score": round(span.score, 4),
            }
            for number, (text, text_windows) in enumerate(zip(texts, windows, strict=True))
            for span in self._best_spans(text, [(window, next(logits)) for window in text_windows])
        ]
        return {self.config.output: sorted(answers, key=lambda span: -span["score"])}, None

    def _windows(self, question: str, text: str) -> list[Window]:
        """Returns the windows of a text. Raises `InputError` A023 if it is too long."""
        config = self.config
        windows = list(split_windows(self.encoder.tokenize_pair(question, text), config.tokens, config.overlap))
        if len(windows) > MAX_WINDOWS:
            reason = f"a text of {config.texts} has about {len(text) // 4:,} tokens, which is too long to read"
            raise InputError("A023", reason, hint="search it first")
        return windows

    def _best_spans(self, text: str, windows: Sequence[tuple[Window, NDArray[Any]]]) -> list[RankedSpan]:
        """Returns the best spans of a text that do not overlap, from its windows with their logits."""
        config = self.config
        silence = math.inf
        ranked_spans: list[RankedSpan] = []
        for window, logits in windows:
            silence = min(silence, float(logits[0].sum()) + config.silence)
            ranked_spans += [
                RankedSpan(score, *expand_to_words(text, window.offsets[first][0], window.offsets[last][1]))
                for score, first, last in self._candidates(logits[window.start : window.start + len(window.offsets)])
            ]
        best_spans: list[RankedSpan] = []
        for span in sorted(ranked_spans, reverse=True):
            if text[span.start : span.end].strip() and all(
                span.end <= other_span.start or span.start >= other_span.end for other_span in best_spans
            ):
                best_spans.append(span)
        return [span._replace(score=span.score - silence) for span in best_spans[: config.spans]]

    def _candidates(self, logits: NDArray[Any]) -> Iterator[tuple[float, int, int]]:
        """Yields the best spans of a window, as logit, first and last token. Most of them overlap."""
        import numpy as np

        count = len(logits)
        if not count:
            return
        sums = logits[:, None, 0] + logits[None, :, 1]
        ends = np.arange(count)
        valid_mask = (ends[None, :] >= ends[:, None]) & (ends[None, :] < ends[:, None] + self.config.longest)
        sums = np.where(valid_mask, sums, -np.inf)
        for place in sums.ravel().argsort()[::-1][: self.config.spans * 8]:
            first, last = divmod(int(place), count)
            if np.isfinite(sums[first, last]):
                yield float(sums[first, last]), first, last

"""Slot filling: a fine-tuned encoder that labels each word of a text as the beginning, the inside or the outside of a
slot.

`model.json` has the input and output fields, the base encoder, and the SHA-256 of the arrays beside it (`.npz`): for
each tuned linear layer of the base `down.NAME` and `up.NAME`, each of one member, and the head: `weight` (labels,
width) and `bias` (labels). A word has the logits of its first token (Devlin et al. 2019,
https://arxiv.org/abs/1810.04805, section 5.3). Words, labels and values are those of taggers
(`orchestra.agents.inference.crf_tagger`). The result is the most probable sequence in which every inside label
continues a slot, and its probability among these sequences. A text that is longer than the encoder's input is read in
overlapping windows.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from orchestra.agents.card import Card
from orchestra.agents.inference.array_files import array_errors
from orchestra.agents.inference.crf_tagger import OUTSIDE, Word, decode_slots, split_words, viterbi
from orchestra.agents.inference.encoder import Encoder, lora_weights
from orchestra.agents.inference.model_file import EncoderModelConfig
from orchestra.agents.inference.span_extraction import MAX_WINDOWS, Window, check_overlap, split_windows
from orchestra.core.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMAT: Literal["orchestra/slots/v1"] = "orchestra/slots/v1"
SPAN_FIELDS = {"value", "start", "end"}
"""The fields of a slot's value."""
IMPOSSIBLE_LOGIT = -1e9
"""The logit of an impossible label."""


class SlotFillingConfig(EncoderModelConfig):
    """The configuration in `model.json`."""

    format: Literal["orchestra/slots/v1"]
    input: str
    """The input that is read."""
    hint: str = ""
    """An input that lists the requested slots; empty for none."""
    output: str
    """The field of the output with the slots."""
    labels: tuple[str, ...] = Field(min_length=2)
    tokens: Annotated[int, Field(ge=32, le=512)] = 256
    """Maximum tokens of hint and window together."""
    overlap: Annotated[int, Field(ge=0, le=256)] = 64
    """Tokens that two adjacent windows share."""
    heat: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    """Temperature: logits are divided by it for the probability of an answer."""

    @model_validator(mode="after")
    def _check_overlap(self) -> Self:
        check_overlap(self.tokens, self.overlap)
        return self


def fills_slots(card: Card) -> bool:
    """Whether an agent of kind `encoder` fills slots with spans of a text."""
    fields: Mapping[str, Any] = card.output_schema.get("properties", {})
    values = [field.get("additionalProperties") for field in fields.values()]
    return len(values) == 1 and isinstance(values[0], Mapping) and set(values[0].get("properties", {})) == SPAN_FIELDS


@dataclass(frozen=True, slots=True)
class SlotInput:
    """A tokenized text: its words, and windows of its tokens beside the requested slots."""

    words: list[Word]
    first_tokens: list[int | None]
    """The index of each word's first token; None for a word without tokens."""
    token_count: int
    """Number of tokens of the text."""
    windows: list[tuple[int, Window]]
    """Each with the index of its first token in the text."""

    @classmethod
    def from_inputs(cls, encoder: Encoder, config: SlotFillingConfig, inputs: Mapping[str, Any]) -> SlotInput:
        """Creates the text of the inputs."""
        text, hints = str(inputs[config.input]), inputs.get(config.hint) or () if config.hint else ()
        pair = encoder.tokenize_pair(", ".join(name.replace("_", " ") for name in hints), text)
        windows, at = [], 0
        for window in split_windows(pair, config.tokens, config.overlap):
            windows.append((at, window))
            at += max(1, len(window.offsets) - config.overlap)
        words = split_words(text)
        return cls(words, _first_tokens(words, pair.offsets), len(pair.body), windows)


def _first_tokens(words: Sequence[Word], spans: Sequence[tuple[int, int]]) -> list[int | None]:
    ends = [end for _, end in spans]
    token_starts = [bisect_right(ends, word.start) for word in words]
    return [
        at if at < len(spans) and spans[at][0] < word.end else None
        for at, word in zip(token_starts, words, strict=True)
    ]


class SlotFiller:
    """A loaded slot filler."""

    def __init__(self, config: SlotFillingConfig, arrays: Mapping[str, NDArray[Any]], encoder: Encoder) -> None:
        """Raises `ValueError` or `KeyError` if the arrays do not fit the configuration or the encoder."""
        import numpy as np

        self.config, self.encoder = config, encoder
        wide = {name: array.astype(np.float32) for name, array in arrays.items()}
        self._adapters = lora_weights(wide, encoder.shape)
        self._weight, self._bias = wide["weight"], wide["bias"]
        count = len(config.labels)
        if self._weight.shape != (count, encoder.shape.hidden_size) or self._bias.shape != (count,):
            raise ValueError("the head has another shape than the encoder and the labels")
        self._start_mask, self._transition_mask = transition_masks(config.labels)

    @classmethod
    def load(cls, card: Card, encoder: Encoder) -> SlotFiller:
        """Loads the slot filler of a card's folder, with its base encoder.

        Raises:
            InputError: A011 if its files are missing, damaged or inconsistent.
        """
        with array_errors(card):
            return cls(*SlotFillingConfig.read(card), encoder)

    def predict(self, inputs: Mapping[str, Any]) -> tuple[dict[str, Any], float]:
        """Returns the output, `{slot: {value, start, end}}` under the output's field, and its probability.

        Raises:
            InputError: A023 if the text is too long.
        """
        text = SlotInput.from_inputs(self.encoder, self.config, inputs)
        if len(text.windows) > MAX_WINDOWS:
            raise InputError(
                "A023",
                f"{self.config.input} has {text.token_count:,} tokens, which is too long to read",
                hint="cut it first",
            )
        if not text.words:
            return {self.config.output: {}}, 1.0
        labels, probability = self.decode(self.word_logits(text))
        return {self.config.output: decode_slots(str(inputs[self.config.input]), text.words, labels)}, probability

    def word_logits(self, text: SlotInput) -> NDArray[Any]:
        """Returns the logits of each word's labels, (words, labels).

        Of several windows, the one with the most context around the word is used. A word without tokens is outside of
        all slots.
        """
        import numpy as np

        outside = np.where(np.array(self.config.labels) == OUTSIDE, 0.0, IMPOSSIBLE_LOGIT)
        word_scores, around = [outside] * text.token_count, [-1] * text.token_count
        for begins, window in text.windows:
            logits = self._window_logits(window)
            for at, row in enumerate(logits, begins):
                if (room := min(at - begins, begins + len(logits) - 1 - at)) > around[at]:
                    word_scores[at], around[at] = row, room
        return np.stack([outside if at is None else word_scores[at] for at in text.first_tokens])

    def _window_logits(self, window: Window) -> NDArray[Any]:
        states = self.encoder.encode(window.tokens, self._adapters)[0][
            window.start : window.start + len(window.offsets)
        ]
        logits: NDArray[Any] = states @ self._weight.T + self._bias
        return logits

    def decode(self, scores: NDArray[Any]) -> tuple[list[str], float]:
        """Returns the most probable labels of words and their joint probability."""
        import numpy as np

        scaled_scores = scores.astype(np.float64) / self.config.heat
        scaled_scores[0] += self._start_mask
        path, probability = viterbi(scaled_scores, self._transition_mask)
        return [self.config.labels[label] for label in path], probability


def transition_masks(labels: Sequence[str]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Returns masks that are added to the logits: of the first word's label, (labels,), and of adjacent labels,
    (labels, labels). They exclude an inside label that does not continue its slot.
    """
    import numpy as np

    goes_on = np.array([label.startswith("I-") for label in labels])
    same_labels = np.array([[label[2:] == other_label[2:] for other_label in labels] for label in labels])
    return np.where(goes_on, IMPOSSIBLE_LOGIT, 0.0), np.where(goes_on[None, :] & ~same_labels, IMPOSSIBLE_LOGIT, 0.0)

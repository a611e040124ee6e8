"""Taggers: agents that extract slots from a text with a linear-chain conditional random field. Needs only numpy.

In the CRF (Lafferty, McCallum, Pereira 2001, *Conditional Random Fields*) each word gets one of the labels `O`,
`B-slot` and `I-slot`. Features of the word and its neighbours score the labels, and transitions score pairs of adjacent
labels. The most probable sequence is found by the Viterbi algorithm. Its probability, by the forward algorithm, is the
confidence of the call. Offsets are characters of the text, so every value is a quote.

`model.json` has the configuration. The arrays beside it are `vocabulary` (features, as UTF-8 lines), `weights`
(float32, features by labels) and `transitions` (float32, labels by labels).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from orchestra.agents.card import Card
from orchestra.agents.inference.array_files import array_errors
from orchestra.agents.inference.model_file import ModelConfig

if TYPE_CHECKING:
    from numpy.typing import NDArray

OUTSIDE = "O"
_WORD = re.compile(r"\d+|[^\W\d_]+|[^\w\s]|_")
_OFFSETS = (-3, -2, -1, 0, 1, 2, 3)


class TaggerConfig(ModelConfig):
    """The configuration in `model.json`."""

    format: Literal["orchestra/tagger/v1"]
    input: str
    """The input that is tagged."""
    hint: str = ""
    """An input that lists the requested slots; empty for none."""
    output: str
    """The field of the output with the slots."""
    words: Mapping[str, tuple[str, ...]] = {}
    """Word classes of the task, such as the days of the week: names of classes by word."""
    labels: tuple[str, ...] = Field(min_length=2)


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a text and its position."""

    text: str
    start: int
    end: int


def split_words(text: str) -> list[Word]:
    """Splits a text into words: runs of digits, runs of letters, and single other characters."""
    return [Word(match[0], match.start(), match.end()) for match in _WORD.finditer(text)]


def word_shape(word: str) -> str:
    """Returns the shape of a word: `Xx` for `Marcelo`, `dd` for `2026`. Runs are cut to two characters."""
    looks = "".join(
        "d" if char.isdigit() else "X" if char.isupper() else "x" if char.isalpha() else char for char in word
    )
    return re.sub(r"(.)\1+", r"\1\1", looks)


class TaggerFeatures:
    """Features of a word: the word, its neighbours, their shapes, and the requested slots."""

    def __init__(self, classes: Mapping[str, Sequence[str]]) -> None:
        self._classes = classes

    def extract(self, words: Sequence[Word], asked: Iterable[str] = ()) -> list[list[str]]:
        """Returns the features of each word."""
        lower = [word.text.lower() for word in words]
        shapes = [word_shape(word.text) for word in words]
        feature_names = sorted(set(asked))
        return [self._features_at(at, words, lower, shapes, feature_names) for at in range(len(words))]

    def _features_at(
        self, at: int, words: Sequence[Word], lower: Sequence[str], shapes: Sequence[str], names: Sequence[str]
    ) -> list[str]:
        count = len(words)
        before, after = at, count - 1 - at
        short, place = min(count, 6), min(before, 2)

        def word(step: int) -> str:
            return lower[at + step] if 0 <= at + step < count else "<s>" if step < 0 else "</s>"

        def shape(step: int) -> str:
            return shapes[at + step] if 0 <= at + step < count else "_"

        near = {step: word(step) for step in _OFFSETS}
        looks = {step: shape(step) for step in _OFFSETS[1:-1]}
        glue_features = (
            int(before > 0 and words[at - 1].end == words[at].start),
            int(after > 0 and words[at + 1].start == words[at].end),
        )
        features = [
            "bias",
            f"length {short}",
            f"from start {min(before, 3)}",
            f"from end {min(after, 3)}",
            f"glued {glue_features}",
        ]
        features += [f"word {step} {text}" for step, text in near.items()] + [
            f"shape {step} {look}" for step, look in looks.items()
        ]
        features += [f"words {step} {near[step]} {near[step + 1]}" for step in (-2, -1, 0, 1)]
        features += [f"shapes {looks[-1]} {looks[0]} {looks[1]}", f"short {short} {looks[0]} {place}"]
        features += [f"begins {near[0][:size]}" for size in (1, 2, 3, 4)] + [
            f"ends {near[0][-size:]}" for size in (1, 2, 3, 4)
        ]
        for slot in names or ("nothing",):
            features += [f"asked {slot}", f"asked {slot} {looks[0]}", f"asked {slot} {min(count, 4)} {place}"]
        features.append(f"all asked {' '.join(names)}")
        return features + [f"class {step} {name}" for step in (-1, 0, 1) for name in self._classes.get(near[step], ())]


class CrfTagger:
    """A loaded tagger."""

    def __init__(self, config: TaggerConfig, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Raises `ValueError` or `KeyError` if the arrays do not fit the configuration."""
        self.config = config
        self._features = TaggerFeatures(config.words)
        names = arrays["vocabulary"].tobytes().decode("utf-8").split("\n")
        self._index = {name: row for row, name in enumerate(names)}
        self._weights, self._transitions = arrays["weights"].astype("float32"), arrays["transitions"].astype("float32")
        count = len(config.labels)
        if self._weights.shape != (len(names), count) or self._transitions.shape != (count, count):
            raise ValueError("the arrays have other shapes than the vocabulary and the labels")

    @classmethod
    def load(cls, card: Card) -> CrfTagger:
        """Loads the tagger of a card's folder.

        Raises:
            InputError: A011 if its files are missing, damaged or inconsistent.
        """
        with array_errors(card):
            return cls(*TaggerConfig.read(card))

    def predict(self, inputs: Mapping[str, Any]) -> tuple[dict[str, Any], float]:
        """Returns the output, `{slot: {value, start, end}}` under the output's field, and the probability of the
        sequence.
        """
        text = str(inputs[self.config.input])
        words = split_words(text)
        if not words:
            return {self.config.output: {}}, 1.0
        scores = self._scores(
            self._features.extract(words, inputs.get(self.config.hint) or () if self.config.hint else ())
        )
        path, chance = viterbi(scores, self._transitions)
        return {self.config.output: decode_slots(text, words, [self.config.labels[label] for label in path])}, chance

    def _scores(self, features: Sequence[Sequence[str]]) -> NDArray[Any]:
        import numpy

        feature_rows = [[row for name in names if (row := self._index.get(name)) is not None] for names in features]
        return numpy.stack([self._weights[rows].sum(axis=0) for rows in feature_rows])


def viterbi(scores: NDArray[Any], transitions: NDArray[Any]) -> tuple[list[int], float]:
    """Returns the most probable sequence of labels and its probability.

    Args:
        scores: (words, labels), in nats.
        transitions: (labels, labels), in nats.
    """
    import numpy

    best, total, back = scores[0], scores[0], []
    for row in scores[1:]:
        ways = best[:, None] + transitions
        back.append(ways.argmax(axis=0))
        best = ways.max(axis=0) + row
        total = _log_sum_exp(total[:, None] + transitions) + row
    path = [int(best.argmax())]
    for pointers in reversed(back):
        path.append(int(pointers[path[-1]]))
    return path[::-1], min(1.0, math.exp(float(best.max()) - float(_log_sum_exp(numpy.asarray(total)))))


def _log_sum_exp(values: NDArray[Any]) -> NDArray[Any]:
    """Returns the logarithm of the sum of exponentials along the first axis."""
    import numpy

    peak = values.max(axis=0)
    log_sums: NDArray[Any] = peak + numpy.log(numpy.exp(values - peak).sum(axis=0))
    return log_sums


def decode_slots(text: str, words: Sequence[Word], labels: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Returns the slots of a label sequence: the first run of words of each slot, as a span of the text."""
    slots: dict[str, dict[str, Any]] = {}
    at = 0
    while at < len(words):
        start_index, name = at, labels[at][2:]
        at += 1
        if not name:
            continue
        while at < len(words) and labels[at] == f"I-{name}":
            at += 1
        start, end = words[start_index].start, words[at - 1].end
        slots.setdefault(name, {"value": text[start:end], "start": start, "end": end})
    return slots


def slot_labels(words: Sequence[Word], wanted: Mapping[str, Mapping[str, Any]]) -> list[str] | None:
    """Returns the labels of a text with known slots; None if a slot does not begin and end at word boundaries."""
    labels = [OUTSIDE] * len(words)
    for name, span in wanted.items():
        inside = [at for at, word in enumerate(words) if word.start >= span["start"] and word.end <= span["end"]]
        if not inside or words[inside[0]].start != span["start"] or words[inside[-1]].end != span["end"]:
            return None
        labels[inside[0]] = f"B-{name}"
        for at in inside[1:]:
            labels[at] = f"I-{name}"
    return labels

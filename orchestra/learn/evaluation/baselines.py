"""Baselines without a language model. An agent that does not beat them is not worth its cost."""

from __future__ import annotations

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class BaselineRow(Protocol):
    """An example of the task."""

    @property
    def input(self) -> Mapping[str, Any]:
        """The inputs of the agent by name."""

    @property
    def output(self) -> Any:
        """The expected output."""


class MostFrequentBaseline:
    """The most frequent output, for any input."""

    name = "floor: the most frequent output"

    def __init__(self, rows: Sequence[BaselineRow]) -> None:
        counts = Counter(json.dumps(row.output, sort_keys=True) for row in rows)
        self._output = json.loads(counts.most_common(1)[0][0])

    def __call__(self, inputs: Mapping[str, Any]) -> Any:
        return self._output


class NearestRowBaseline:
    """The output of the most similar training row: cosine of TF-IDF vectors over words (Salton and Buckley 1988)."""

    name = "floor: the output of the nearest training row"

    def __init__(self, rows: Sequence[BaselineRow]) -> None:
        self._outputs = [row.output for row in rows]
        bags = [Counter(_words(row.input)) for row in rows]
        counts = Counter(word for bag in bags for word in bag)
        self._word_weights = {word: math.log(len(rows) / count) + 1 for word, count in counts.items()}
        self._postings: dict[str, list[tuple[int, float]]] = defaultdict(list)
        for number, bag in enumerate(bags):
            weights = {word: count * self._word_weights[word] for word, count in bag.items()}
            length = math.sqrt(sum(weight**2 for weight in weights.values())) or 1.0
            for word, weight in weights.items():
                self._postings[word].append((number, weight / length))

    def __call__(self, inputs: Mapping[str, Any]) -> Any:
        scores: dict[int, float] = defaultdict(float)
        for word, count in Counter(_words(inputs)).items():
            for number, weight in self._postings.get(word, ()):
                scores[number] += count * self._word_weights[word] * weight
        return self._outputs[max(scores, key=lambda number: (scores[number], -number))] if scores else self._outputs[0]


class DictionaryBaseline:
    """For outputs that are spans of a text: every occurrence of a value from training, longest first."""

    name = "floor: values that were seen in training"

    def __init__(self, rows: Sequence[BaselineRow]) -> None:
        self._field, self._text = next(place for row in rows if (place := _span_fields(row)) is not None)
        self._slots: dict[str, set[str]] = defaultdict(set)
        for row in rows:
            for slot, span in row.output[self._field].items():
                self._slots[span["value"].lower()].add(slot)
        self._values = sorted(self._slots, key=lambda value: (-len(value), value))

    def __call__(self, inputs: Mapping[str, Any]) -> Any:
        text, output, taken_positions = str(inputs[self._text]), dict[str, Any](), set[int]()
        low = text.lower()
        for value in self._values:
            if value not in low:
                continue
            match = re.search(rf"(?<!\w){re.escape(value)}(?!\w)", text, re.IGNORECASE)
            free = next((slot for slot in sorted(self._slots[value]) if slot not in output), None)
            if match and free and not taken_positions & set(range(*match.span())):
                output[free] = {"value": match[0], "start": match.start(), "end": match.end()}
                taken_positions |= set(range(*match.span()))
        return {self._field: output}


def _span_fields(row: BaselineRow) -> tuple[str, str] | None:
    """Returns the output field with spans, and the input field with their text."""
    for name, value in row.output.items() if isinstance(row.output, Mapping) else ():
        for span in value.values() if isinstance(value, Mapping) else ():
            if not (isinstance(span, Mapping) and {"value", "start", "end"} <= span.keys()):
                return None
            for text_name, text in row.input.items():
                if isinstance(text, str) and text[span["start"] : span["end"]] == span["value"]:
                    return name, text_name
    return None


def fit_baselines(
    rows: Sequence[BaselineRow],
) -> tuple[MostFrequentBaseline | NearestRowBaseline | DictionaryBaseline, ...]:
    """Returns the baselines that fit the rows; none without rows."""
    if not rows:
        return ()
    spans = any(_span_fields(row) is not None for row in rows)
    return (MostFrequentBaseline(rows), NearestRowBaseline(rows), *((DictionaryBaseline(rows),) if spans else ()))


def _words(value: Any) -> list[str]:
    """Returns the words of all texts in a value, in lower case."""
    match value:
        case str():
            return re.findall(r"\w+", value.lower())
        case Mapping():
            return [word for inner in value.values() for word in _words(inner)]
        case list() | tuple():
            return [word for inner in value for word in _words(inner)]
        case _:
            return [str(value)]

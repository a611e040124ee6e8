"""Floors: what anybody gets without a language model. An agent that does not beat them is not worth its electricity."""

from __future__ import annotations

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class Row(Protocol):
    """A row that shows how the work is done."""

    @property
    def input(self) -> Mapping[str, Any]: ...

    @property
    def output(self) -> Any: ...


class Constant:
    """The most frequent output, whatever is asked."""

    name = "floor: the most frequent output"

    def __init__(self, rows: Sequence[Row]) -> None:
        counts = Counter(json.dumps(row.output, sort_keys=True) for row in rows)
        self._output = json.loads(counts.most_common(1)[0][0])

    def __call__(self, inputs: Mapping[str, Any]) -> Any:
        return self._output


class Nearest:
    """The output of the training row whose words are most like those asked for: cosine of TF-IDF vectors (Salton and Buckley 1988)."""

    name = "floor: the output of the nearest training row"

    def __init__(self, rows: Sequence[Row]) -> None:
        self._outputs = [row.output for row in rows]
        bags = [Counter(_words(row.input)) for row in rows]
        seen = Counter(word for bag in bags for word in bag)
        self._weight = {word: math.log(len(rows) / count) + 1 for word, count in seen.items()}
        self._rows_of: dict[str, list[tuple[int, float]]] = defaultdict(list)
        for number, bag in enumerate(bags):
            weights = {word: count * self._weight[word] for word, count in bag.items()}
            length = math.sqrt(sum(weight**2 for weight in weights.values())) or 1.0
            for word, weight in weights.items():
                self._rows_of[word].append((number, weight / length))

    def __call__(self, inputs: Mapping[str, Any]) -> Any:
        scores: dict[int, float] = defaultdict(float)
        for word, count in Counter(_words(inputs)).items():
            for number, weight in self._rows_of.get(word, ()):
                scores[number] += count * self._weight[word] * weight
        return self._outputs[max(scores, key=lambda number: (scores[number], -number))] if scores else self._outputs[0]


def floors(rows: Sequence[Row]) -> tuple[Constant | Nearest, ...]:
    """The floors of some training rows; none without rows."""
    return (Constant(rows), Nearest(rows)) if rows else ()


def _words(value: Any) -> list[str]:
    """The words of all texts in a value, in lower case."""
    match value:
        case str():
            return re.findall(r"\w+", value.lower())
        case Mapping():
            return [word for inner in value.values() for word in _words(inner)]
        case list() | tuple():
            return [word for inner in value for word in _words(inner)]
        case _:
            return [str(value)]

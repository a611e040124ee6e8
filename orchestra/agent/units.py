"""Units: whether the figures of a table are in thousands, millions or billions, by the words that say so around them.

An encoder that averages over hundreds of tokens is sure that there is a unit, and guesses which: `million` and `thousand` stand in the same
places. The words themselves tell; what each place of them counts is learnt (`orchestra.learn.units`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

Weight = Annotated[float, Field(allow_inf_nan=False)]
UNITS: Final = ("thousand", "million", "billion")
_WORDS: Final = {
    "thousand": r"\bthousands?\b|(?<![\d,.])(?<!\d )000s?\b",
    "million": r"\bmillions?\b|[$€£¥] ?mm?\b|\bm\b|\bmn\b|\bmm\b|\bmio\b",
    "billion": r"\bbillions?\b|[$€£¥] ?bn\b|\bbn\b",
}
"""The words of each unit."""
_STATED: Final = {
    "thousand": r"in (?:[\w.$€£¥]+ ){0,3}thousands?\b|thousands of|[($€£¥]['’]?000|(?<![\d,.])(?<!\d )000s",
    "million": r"in (?:[\w.$€£¥]+ ){0,3}millions?\b|millions of|[($€£¥]m(?:m|n|illions?)?\b|\b[A-Z]{3} ?m\b",
    "billion": r"in (?:[\w.$€£¥]+ ){0,3}billions?\b|billions of|[($€£¥]b(?:n|illions?)?\b|\b[A-Z]{3} ?bn\b",
}
"""How a unit is stated for all figures, as “in millions” and “£m” do, and not for one of them, as “$5 million” does."""
_PATTERNS: Final = {unit: (re.compile(_WORDS[unit], re.IGNORECASE), re.compile(_STATED[unit], re.IGNORECASE)) for unit in UNITS}
PLACES: Final = ("question", "head", "rows", "text")
SIGNS: Final = tuple(f"{kind}.{place}" for place in PLACES for kind in ("word", "stated"))
"""What may be seen of a unit: its word, and that it is stated, in each place."""


class Units(BaseModel):
    """What each sign of a unit counts, and how usual each unit is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    signs: tuple[Weight, ...] = Field(min_length=len(SIGNS), max_length=len(SIGNS))
    """Of `SIGNS`, alike for all units."""
    usual: tuple[Weight, ...] = Field(min_length=len(UNITS), max_length=len(UNITS))
    """Of `UNITS`."""

    def logits(self, seen: Sequence[Sequence[bool]]) -> list[float]:
        """The logarithm of each unit's probability, by the signs that are seen of each."""
        scores = [
            usual + sum(weight for weight, one in zip(self.signs, found, strict=True) if one)
            for usual, found in zip(self.usual, seen, strict=True)
        ]
        most = max(scores)
        total = most + math.log(sum(math.exp(score - most) for score in scores))
        return [score - total for score in scores]


def signs(question: str, head: Sequence[Sequence[str]], rows: Sequence[Sequence[str]], text: Sequence[str]) -> list[list[bool]]:
    """Which of `SIGNS` are seen of each of `UNITS`: in a question, in the head and the other rows of a table, in the text beside it."""
    places = (question, *(" ".join(cell for row in part for cell in row) for part in (head, rows)), " ".join(text))
    return [[pattern.search(place) is not None for place in places for pattern in _PATTERNS[unit]] for unit in UNITS]

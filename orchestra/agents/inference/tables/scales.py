"""Units: whether the figures of a table are in thousands, millions or billions, by the words around them.

An encoder that averages over hundreds of tokens recognizes that there is a unit, but not which one, because `million`
and `thousand` occur in the same places. So words determine the unit. The weight of each place is trained
(`orchestra.learn.encoders.tables`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Annotated, Final, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

_Weight: TypeAlias = Annotated[float, Field(ge=-1e6, le=1e6)]
UNITS: Final = ("thousand", "million", "billion")
_CURRENCY_SUFFIXES: Final = {"thousand": "k", "million": "mm?|mn|mln|mio", "billion": "bn|bln"}
"""Abbreviations of units after a currency."""
_STANDALONE_WORDS: Final = {
    "thousand": r"(?<!\d)['’]000s?\b|(?<![\w,.'’])(?<!\d )000s?\b",
    "million": r"\b(?:mn|mln|mio)\b",
    "billion": r"\b(?:bn|bln)\b",
}
"""Words of units in any place. The zeros of `12,000` and `12 000` and the `m` of a length are not units."""
_CURRENCY: Final = (
    r"(?:[$€£¥]|\b(?-i:USD|EUR|GBP|CHF|JPY|CNY|RMB|HKD|SGD|AUD|CAD|NZD|SEK|NOK|DKK|PLN|CZK|INR|KRW|ZAR|BRL))"
)


def _unit_patterns(unit: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Returns the patterns of a unit's words, and of statements about all figures, such as “in millions” and “£m” but
    not “$5 million”.
    """
    short, alone = _CURRENCY_SUFFIXES[unit], _STANDALONE_WORDS[unit]
    unit_pattern = rf"\b{unit}s?\b|{_CURRENCY} ?(?:[\d.,]+ ?)?(?:{short})\b|{alone}"
    statement_pattern = (
        rf"\bin (?:(?!\d|[$€£¥]\d)\S+ ){{0,3}}{unit}s?\b|\b{unit}s of\b|\({unit}s?\b|{_CURRENCY}"
        rf" ?(?:{unit}s?|{short})\b" + (rf"|{_CURRENCY} ?000s?\b|{alone}" if unit == "thousand" else "")
    )
    return re.compile(unit_pattern, re.IGNORECASE), re.compile(statement_pattern, re.IGNORECASE)


_PATTERNS: Final = {unit: _unit_patterns(unit) for unit in UNITS}
"""After a change, the weights of agents with `units` must be fitted again."""
SIGN_PLACES: Final = ("question", "head", "rows", "text")
UNIT_SIGNS: Final = tuple(f"{kind}.{place}" for place in SIGN_PLACES for kind in ("word", "stated"))
"""Features of a unit: its word, and a statement of it, in each place."""


class UnitWeights(BaseModel):
    """The weight of each feature, and the prior of each unit."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    signs: tuple[_Weight, ...] = Field(min_length=len(UNIT_SIGNS), max_length=len(UNIT_SIGNS))
    """For `UNIT_SIGNS`, the same for all units."""
    usual: tuple[_Weight, ...] = Field(min_length=len(UNITS), max_length=len(UNITS))
    """For `UNITS`."""

    def logits(self, seen: Sequence[Sequence[bool]]) -> list[float]:
        """Returns the log-probability of each unit from its features."""
        scores = [
            usual + sum(weight for weight, sign in zip(self.signs, sign_row, strict=True) if sign)
            for usual, sign_row in zip(self.usual, seen, strict=True)
        ]
        best_score = max(scores)
        total = best_score + math.log(sum(math.exp(score - best_score) for score in scores))
        return [score - total for score in scores]


def unit_signs(
    question: str, head: Sequence[Sequence[str]], rows: Sequence[Sequence[str]], text: Sequence[str]
) -> list[list[bool]]:
    """Returns for each of `UNITS` the `UNIT_SIGNS` that occur: in the question, the header rows, the other rows, and
    the text.
    """
    cells = ([cell for row in part for cell in row] for part in (head, rows))
    places = ["\n".join(" ".join(sign_pattern.split()) for sign_pattern in part) for part in ([question], *cells, text)]
    return [[pattern.search(place) is not None for place in places for pattern in _PATTERNS[unit]] for unit in UNITS]

"""Names of months in English, short and long."""

from __future__ import annotations

from typing import Final

from orchestra.text.keywords import CASE_FOLDS

_SHORT: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
MONTH_PATTERN: Final = (
    "jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sep(?:t(?:ember)?)?|oct(?:ober)?|nov(?:ember)?"
    "|dec(?:ember)?"
)
"""As a pattern."""


def month_number(name: str) -> int:
    """The month, from 1, that a text which fits the pattern names."""
    return _SHORT.index(name[:3].translate(CASE_FOLDS).lower()) + 1

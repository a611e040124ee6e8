"""Digits: numbers as they are written in one place or another, `1,234.50`, `1.234,50`, `1 234,50` and `1'234.50`, read alike.

A number says of itself what its points and commas are, or another one of the same column does: `999.000` stands for a million less a
thousand beside `1.234.567`, and for less than a thousand beside `12.5`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

_BLANK = "[ \u00a0\u2009\u202f]"
RUN: Final = rf"(?:\d{{1,3}}(?:{_BLANK}\d{{3}})+(?!\d)(?:[.,]\d+)?|\d{{1,3}}(?:['’]\d{{3}})+(?!\d)(?:[.,]\d+)?|\d+(?:[.,]\d+)*|\.\d+)"
"""A number's digits and what stands between them, as a pattern. Blanks and apostrophes stand only between thousands."""
_ENGLISH = re.compile(r"\d[\d,]*(?:\.\d+)?")
"""What is read of a run in which points and commas are in no order."""
_NUMBER = re.compile(rf"(?:[^\W\d]{{1,3}}(?![^\W\d]))?[^\w.,]*(?P<run>{RUN})")
"""A number that has no more before it than a sign and a currency."""
_POINTS = re.compile(r"\d{1,3}(?:\.\d{3})+,\d+|\d{1,3}(?:\.\d{3}){2,}")
"""Points stand between thousands here, whatever stands beside it;"""
_COMMAS = re.compile(r"\d{1,3}(?:,\d{3})+\.\d+|\d{1,3}(?:,\d{3}){2,}|\d+\.(?!\d{3}$)\d+|0\.\d+|\d{4,}\.\d+")
"""here commas do, or a point is the decimal one;"""
_DECIMAL_COMMA = re.compile(r"0,\d+|\d+,\d{1,2}|\d{1,3},\d{4,}")
"""here the comma is the decimal one;"""
_THOUSAND = re.compile(r"(?!0)\d{1,3},\d{3}")
"""and here it seems not to be."""


def pointed(texts: Iterable[str], *, sure: bool = False) -> bool:
    """Whether the numbers of some texts have points between thousands, and a decimal comma: one shows it, and none shows the contrary.

    What has words before its number is no number, as a name with a note `(1,2)`. To be `sure` one must have points between thousands:
    a decimal comma may be that of two numbers, `10,12`.
    """
    runs = [found["run"] for text in texts if (found := _NUMBER.match(text)) is not None]
    if any(_COMMAS.fullmatch(run) for run in runs):
        return False
    if any(_POINTS.fullmatch(run) for run in runs):
        return True
    return not sure and any(_DECIMAL_COMMA.fullmatch(run) for run in runs) and not any(_THOUSAND.fullmatch(run) for run in runs)


def plain(run: str, *, points: bool = False) -> str:
    """The digits of a run with at most one point, the decimal one. `points` says whether points stand between thousands where the run
    itself leaves it open."""
    joined = re.sub(rf"{_BLANK}|['’]", "", run)
    if joined != run:
        return joined.replace(",", ".")  # its thousands are joined, and what is left is the decimal point
    if _POINTS.fullmatch(run) or (points and re.fullmatch(r"[1-9]\d{0,2}\.\d{3}|\d+,\d+", run)):
        return run.replace(".", "").replace(",", ".")
    if _DECIMAL_COMMA.fullmatch(run):
        return run.replace(",", ".")
    found = _ENGLISH.match(run)
    return run if found is None else found[0].replace(",", "")

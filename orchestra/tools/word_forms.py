"""Forms of words: their stems, and whether two stems are forms or spellings of one word."""

from __future__ import annotations

import re
from typing import Final

TOKEN: Final = re.compile(r"[^\W_]+(?:[-.'’/][^\W_]+)*%?")
_UMLAUTS: Final = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue"})
"""File names and headers often spell umlauts with two letters."""
_MIN_SPELLING_LENGTH: Final = 6
"""Letters of a word that may be misspelt by one letter."""


def split_words(text: str) -> list[str]:
    """Returns the words of a text."""
    return TOKEN.findall(text)


def stem_word(word: str) -> str:
    """Returns a word without case, possessive and plural endings."""
    word = word.casefold().replace("’", "'").translate(_UMLAUTS)
    for ending in ("'s", "'"):
        word = word.removesuffix(ending)
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


def are_alike(one: str, other: str) -> bool:
    """Whether two stems are forms of one word: equal, with a long common beginning, or with one other letter."""
    if one == other:
        return True
    if one[:1].isdigit() or other[:1].isdigit():
        return False
    short, long = sorted((one, other), key=len)
    if len(short) < 4 or len(long) - len(short) > 4:
        return False
    common = next((at for at, (a, b) in enumerate(zip(short, long, strict=False)) if a != b), len(short))
    if common >= max(4, len(short) - 2):
        return True
    return len(short) >= _MIN_SPELLING_LENGTH and _differ_in_one_letter(short, long, common)


def _differ_in_one_letter(short: str, long: str, common: int) -> bool:
    """Whether one letter was replaced or left out after a common beginning."""
    if len(short) == len(long):
        return short[common + 1 :] == long[common + 1 :]
    return len(long) == len(short) + 1 and short[common:] == long[common + 1 :]

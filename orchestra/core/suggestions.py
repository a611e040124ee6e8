"""Suggestions for misspelled names."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from itertools import islice

MAX_WORD = 200
"""Characters of a word that is compared; longer words get no suggestion."""
MAX_WORDS = 2_000
"""Candidates that are compared; further candidates are ignored."""


def closest_match(word: str, words: Iterable[str]) -> str:
    """The one of `words` that `word` is most likely meant to be; empty where none is near. Of thousands, the first are looked at."""
    if len(word) > MAX_WORD:
        return ""
    # A word that is much longer or shorter is never near, whatever its letters are.
    alike = (one for one in words if 3 * len(word) <= 7 * len(one) and 3 * len(one) <= 7 * len(word))
    near = get_close_matches(word, list(islice(alike, MAX_WORDS)), 1, 0.6)
    return near[0] if near else ""

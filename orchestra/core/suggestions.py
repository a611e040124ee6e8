"""Suggestions for misspelled names."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from itertools import islice

MAX_WORD = 200
"""Maximum length of a word in characters; longer words get no suggestion."""
MAX_WORDS = 2_000
"""Maximum number of candidates; further candidates are ignored."""


def closest_match(word: str, words: Iterable[str]) -> str:
    """Returns the word of `words` that is most similar to `word`; empty if none is similar."""
    if len(word) > MAX_WORD:
        return ""
    # A word of very different length is never similar.
    alike = (
        candidate for candidate in words if 3 * len(word) <= 7 * len(candidate) and 3 * len(candidate) <= 7 * len(word)
    )
    near = get_close_matches(word, list(islice(alike, MAX_WORDS)), 1, 0.6)
    return near[0] if near else ""

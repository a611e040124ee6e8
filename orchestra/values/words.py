"""Words of English text: which carry meaning, for search and for the comparison of an answer with its quote."""

from __future__ import annotations

import re
import unicodedata

WORD = re.compile(r"\w+")
STOP_WORDS = frozenset(
    WORD.findall(
        "a an and are as at be been by did do does for from had has have how in is it its of on or that the their this to was were "
        "what when where which who whom whose why will with"
    )
)
"""Words that say nothing by themselves."""


def content(text: str) -> frozenset[str]:
    """The words that carry meaning: NFKC, case folded, without stop words."""
    return frozenset(WORD.findall(unicodedata.normalize("NFKC", text).casefold())) - STOP_WORDS


def places(words: str, text: str) -> list[int]:
    """Where words begin in a text, letter by letter, between words' ends and numbers' (`9` stands neither in `1998` nor in `9.5`)."""
    before = r"(?<!\w)(?<!\d[.,:])" if words[:1].isdigit() else r"(?<!\w)"
    after = r"(?!\w)(?![.,:]\d)" if words[-1:].isdigit() else r"(?!\w)"
    return [found.start() for found in re.finditer(before + re.escape(words) + after, text)] if words else []

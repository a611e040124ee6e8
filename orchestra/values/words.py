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
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
    "\u3005-\u3007\u3021-\u302f\u3031-\u303c\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # kana, Han
)
"""Ranges of letters of scripts that are written without spaces, for a class of a regular expression."""
_UNSPACED = re.compile(f"[{UNSPACED}]")


def content(text: str) -> frozenset[str]:
    """The words that carry meaning: NFKC, case folded, without stop words."""
    return frozenset(WORD.findall(unicodedata.normalize("NFKC", text).casefold())) - STOP_WORDS


def within(text: str, at: int) -> bool:
    """Whether a place in a text is inside a word or a number: before the `8` of `138`, `1.8` and `2,800`, but between any two letters of a
    script that is written without spaces."""
    if not 0 < at < len(text):
        return False
    before, after = text[at - 1], text[at]
    if _of_word(before) and _of_word(after):
        return not (_UNSPACED.match(before) or _UNSPACED.match(after))
    return bool(_IN_NUMBER.fullmatch(text[max(0, at - 2) : at + 1]) or _IN_NUMBER.fullmatch(text[at - 1 : at + 2]))


_IN_NUMBER = re.compile(r"\d[.,'\u2019]\d")


def _of_word(char: str) -> bool:
    """Whether a character is of a word; marks on letters are, which `\\w` leaves out."""
    return char.isalnum() or char == "_" or unicodedata.category(char).startswith("M")


def places(words: str, text: str) -> list[int]:
    """Where words begin in a text, letter by letter, between words' ends and numbers' (`9` stands neither in `1998` nor in `9.5`)."""
    before = r"(?<!\w)(?<!\d[.,:])" if words[:1].isdigit() else r"(?<!\w)"
    after = r"(?!\w)(?![.,:]\d)" if words[-1:].isdigit() else r"(?!\w)"
    return [found.start() for found in re.finditer(before + re.escape(words) + after, text)] if words else []

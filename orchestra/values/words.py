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
_GLUED = re.compile(f"[{UNSPACED}\uac00-\ud7a3]")
"""Letters between any two of which a quote may end; those of Korean are among them, whose words end in particles."""
_LONGEST_UNIT = 2
_UNIT = re.compile(rf"(?:^|\b)[^\W\d_]{{1,{_LONGEST_UNIT}}}[²³]$")
"""Such as `m²`; a longer word has a note there."""


def content(text: str) -> frozenset[str]:
    """The words that carry meaning: NFKC, case folded, without stop words."""
    return frozenset(WORD.findall(unicodedata.normalize("NFKC", text).casefold())) - STOP_WORDS


def within(text: str, at: int) -> bool:
    """Whether a place in a text is inside a word or a number: before the `8` of `138`, `1.8` and `2,800`, but between any two letters of a
    script that is written without spaces."""
    if not 0 < at < len(text):
        return False
    if _of_word(text, at - 1) and _of_word(text, at):
        return not (_GLUED.match(text, at - 1) or _GLUED.match(text, at))
    return bool(_IN_NUMBER.fullmatch(text[max(0, at - 2) : at + 1]) or _IN_NUMBER.fullmatch(text[at - 1 : at + 2]))


_IN_NUMBER = re.compile(r"\d[.,'\u2019]\d")


def whole(text: str, start: int, end: int) -> tuple[int, int]:
    """A span of a text with all of the words and numbers that it has a part of: `$5.3M` for `$5.3`."""
    while within(text, start):
        start -= 1
    while within(text, end):
        end += 1
    return start, end


def _of_word(text: str, at: int) -> bool:
    """Whether a character is of a word. Marks on letters are, which `\\w` leaves out; a stroke between letters is, and one around words,
    as Markdown has it, is not; small figures above the line are of their unit, and else refer to a note."""
    char = text[at]
    if char == "_":
        return text[at - 1 : at].isalnum() and text[at + 1 : at + 2].isalnum()
    if unicodedata.decomposition(char).startswith("<super>"):
        return _UNIT.search(text, max(0, at - _LONGEST_UNIT - 1), at + 1) is not None
    return char.isalnum() or unicodedata.category(char).startswith("M")


def places(words: str, text: str) -> list[int]:
    """Where words begin in a text, letter by letter, between words' ends and numbers' (`9` stands neither in `1998` nor in `9.5`)."""
    before = r"(?<!\w)(?<!\d[.,:])" if words[:1].isdigit() else r"(?<!\w)"
    after = r"(?!\w)(?![.,:]\d)" if words[-1:].isdigit() else r"(?!\w)"
    return [found.start() for found in re.finditer(before + re.escape(words) + after, text)] if words else []

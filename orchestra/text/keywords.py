"""Words of English text: which carry meaning, for search and for the comparison of an answer with its quote."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

WORD = re.compile(r"\w+")
STOP_WORDS = frozenset(
    WORD.findall(
        "a an and are as at be been by did do does for from had has have how in is it its of on or that the their this to was were "
        "what when where which who whom whose why will with"
    )
)
"""Words that say nothing by themselves."""
UNSPACED_SCRIPTS = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
    "\u3005-\u3007\u3021-\u302f\u3031-\u303c\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # kana, Han
)
"""Ranges of letters of scripts that are written without spaces, for a class of a regular expression."""
CASE_FOLDS: Final = str.maketrans({"ſ": "s", "ı": "i", "İ": "i"})
"""Letters that a pattern without case takes for others, and no dictionary does."""
_UNSPACED_LETTER = re.compile(f"[{UNSPACED_SCRIPTS}\uac00-\ud7a3]")
"""Letters between any two of which a quote may end; those of Korean are among them, whose words end in particles."""
_LONGEST_UNIT = 2
_UNIT = re.compile(rf"(?:^|\b)[^\W\d_]{{1,{_LONGEST_UNIT}}}[²³]$")
"""Such as `m²`; a longer word has a note there."""


def content_words(text: str) -> frozenset[str]:
    """The words that carry meaning: NFKC, case folded, without stop words."""
    return frozenset(WORD.findall(unicodedata.normalize("NFKC", text).casefold())) - STOP_WORDS


def is_inside_word(text: str, at: int) -> bool:
    """Whether a place in a text is inside a word or a number: before the `8` of `138`, `1.8` and `2,800`, but between any two letters of a
    script that is written without spaces."""
    if not 0 < at < len(text):
        return False
    if _is_word_character(text, at - 1) and _is_word_character(text, at):
        return not (_UNSPACED_LETTER.match(text, at - 1) or _UNSPACED_LETTER.match(text, at))
    return bool(_IN_NUMBER.fullmatch(text[max(0, at - 2) : at + 1]) or _IN_NUMBER.fullmatch(text[at - 1 : at + 2]))


_IN_NUMBER = re.compile(r"\d[.,'\u2019]\d")


def expand_to_words(text: str, start: int, end: int) -> tuple[int, int]:
    """A span of a text with all of the words and numbers that it has a part of: `$5.3M` for `$5.3`, `can't` for `can`, `-5` for `5`.

    Of a word with hyphens each part is one. A word ends in front of `'s`, with which none begins, and begins behind the `l'` of French.
    """
    while (
        is_inside_word(text, start)
        or _is_inside_token(text, start)
        or (start < len(text) and _is_apostrophe(text, start))
    ):
        start -= 1
    while is_inside_word(text, end) or _is_inside_token(text, end):
        end += 1
    return start, end


_PART = re.compile(r"\d[:\u00a0\u2007\u2009\u202f]\d")
"""Digits of a time, and of thousands with a blank that does not break."""
_MINUS = re.compile(r"(?:^|[\s([$€£¥])[-\u2212]\d")
"""Of a number that is less than nothing; behind a digit or a letter it is a hyphen, and an en dash may be the dash of a range."""
_HIDDEN = re.compile(r"\S[\u00ad\u200c\u200d\u2060]\S")
"""Of a word with a hyphen that is not seen, or a mark that joins or parts letters."""
_CLITIC = re.compile(r"(?:s|t|d|m|ll|re|ve)(?![^\W_])", re.IGNORECASE)
"""What stands behind an apostrophe, and is no word of its own."""
_NEGATED = re.compile(r"n['\u2019]t(?![^\W_])", re.IGNORECASE)
_NAME = re.compile(r"(?<![^\W_])[DO]['\u2019][A-Z]")


def _is_inside_token(text: str, at: int) -> bool:
    """Whether a place is inside a number or a word, of those that a quote may yet be cut out of: `10:30`, `-5`, `can't`."""
    if not 0 < at < len(text):
        return False
    around = text[max(0, at - 2) : at + 1], text[at - 1 : at + 2]
    if any(_PART.fullmatch(one) or _HIDDEN.fullmatch(one) for one in around) or _MINUS.fullmatch(around[0]):
        return True
    behind = not _is_apostrophe(text, at)
    if behind and not _is_apostrophe(text, at - 1):
        return False
    letter = at - 1 - behind  # the one before the apostrophe
    return any(one.match(text, letter) for one in (_NEGATED, _NAME)) or (behind and _CLITIC.match(text, at) is not None)


def _is_apostrophe(text: str, at: int) -> bool:
    """Whether an apostrophe stands at a place, between two letters."""
    return text[at] in "'\u2019" and text[max(0, at - 1) : at].isalpha() and text[at + 1 : at + 2].isalpha()


def _is_word_character(text: str, at: int) -> bool:
    """Whether a character is of a word. Marks on letters are, which `\\w` leaves out; a stroke between letters is, and one around words,
    as Markdown has it, is not; small figures above the line are of their unit, and else refer to a note."""
    char = text[at]
    if char == "_":
        return text[at - 1 : at].isalnum() and text[at + 1 : at + 2].isalnum()
    if unicodedata.decomposition(char).startswith("<super>"):
        return _UNIT.search(text, max(0, at - _LONGEST_UNIT - 1), at + 1) is not None
    return char.isalnum() or unicodedata.category(char).startswith("M")


def find_words(words: str, text: str) -> list[int]:
    """Where words begin in a text, letter by letter, between words' ends and numbers' (`9` stands neither in `1998` nor in `9.5`)."""
    before = r"(?<!\w)(?<!\d[.,:])" if words[:1].isdigit() else r"(?<!\w)"
    after = r"(?!\w)(?![.,:]\d)" if words[-1:].isdigit() else r"(?!\w)"
    return [found.start() for found in re.finditer(before + re.escape(words) + after, text)] if words else []

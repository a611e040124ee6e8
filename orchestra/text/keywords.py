"""Words of text: which of them carry content, for search and for comparing answers with quotes, and where words begin
and end.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

WORD = re.compile(r"\w+")
STOP_WORDS = frozenset(
    WORD.findall(
        "a an and are as at be been by did do does for from had has have how in is it its of on or that the their "
        "this to was were what when where which who whom whose why will with"
    )
)
"""Words without content of their own."""
UNSPACED_SCRIPTS = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
    "\u3005-\u3007\u3021-\u302f\u3031-\u303c\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"  # kana, Han
    "\U00020000-\U0003ffff"
)
"""Ranges of scripts that are written without spaces, for a character class of a regular expression."""
CASE_FOLDS: Final = str.maketrans({"ſ": "s", "ı": "i", "İ": "i"})
"""Letters that case-insensitive patterns match, but dictionaries do not."""
_UNSPACED_LETTER = re.compile(f"[{UNSPACED_SCRIPTS}\uac00-\ud7a3]")
"""Letters between which a quote may end. Korean is included, because its words end in particles."""
_LONGEST_UNIT = 2
_UNIT = re.compile(rf"(?:^|\b)[^\W\d_]{{1,{_LONGEST_UNIT}}}[²³]$")
"""Such as `m²`; after a longer word the figure is a footnote mark."""


def content_words(text: str) -> frozenset[str]:
    """Returns the content words: NFKC, case folded, without stop words."""
    return frozenset(WORD.findall(unicodedata.normalize("NFKC", text).casefold())) - STOP_WORDS


def singular(word: str) -> str:
    """Returns a word without its plural ending (Harman 1991, How effective is suffixing?, the S stemmer)."""
    if len(word) < 4 or not word.endswith("s") or word.endswith(("us", "ss")):
        return word
    if word.endswith("ies") and not word.endswith(("eies", "aies")):
        return word[:-3] + "y"
    return word[:-1]


def is_inside_word(text: str, at: int) -> bool:
    """Returns whether a position is inside a word or a number, such as before the `8` of `138`, `1.8` and `2,800`.
    Between letters of a script without spaces it is not.
    """
    if not 0 < at < len(text):
        return False
    if _is_word_character(text, at - 1) and _is_word_character(text, at):
        return not (_UNSPACED_LETTER.match(text, at - 1) or _UNSPACED_LETTER.match(text, at))
    return bool(_IN_NUMBER.fullmatch(text[max(0, at - 2) : at + 1]) or _IN_NUMBER.fullmatch(text[at - 1 : at + 2]))


_IN_NUMBER = re.compile(r"\d[.,'\u2019]\d")


def expand_to_words(text: str, start: int, end: int) -> tuple[int, int]:
    """Extends a span to complete words and numbers: `$5.3M` for `$5.3`, `can't` for `can`, `-5` for `5`.

    Each part of a hyphenated word counts as a word. A word ends before `'s`, and starts after the `l'` of French.
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
"""Digits of a time, or of thousands separated by a non-breaking space."""
_MINUS = re.compile(r"(?:^|[\s([$€£¥])[-\u2212]\d")
"""A negative number. After a digit or a letter the sign is a hyphen, and an en dash may mark a range."""
_HIDDEN = re.compile(r"\S[\u00ad\u200c\u200d\u2060]\S")
"""A word with an invisible hyphen or joiner."""
_CLITIC = re.compile(r"(?:s|t|d|m|ll|re|ve)(?![^\W_])", re.IGNORECASE)
"""Endings after an apostrophe that are not separate words."""
_NEGATED = re.compile(r"n['\u2019]t(?![^\W_])", re.IGNORECASE)
_NAME = re.compile(r"(?<![^\W_])[DO]['\u2019][A-Z]")


def _is_inside_token(text: str, at: int) -> bool:
    """Returns whether a position is inside a number or a word that a quote could cut: `10:30`, `-5`, `can't`."""
    if not 0 < at < len(text):
        return False
    around = text[max(0, at - 2) : at + 1], text[at - 1 : at + 2]
    if any(_PART.fullmatch(one) or _HIDDEN.fullmatch(one) for one in around) or _MINUS.fullmatch(around[0]):
        return True
    behind = not _is_apostrophe(text, at)
    if behind and not _is_apostrophe(text, at - 1):
        return False
    letter = at - 1 - behind  # the letter before the apostrophe
    return any(one.match(text, letter) for one in (_NEGATED, _NAME)) or (behind and _CLITIC.match(text, at) is not None)


def _is_apostrophe(text: str, at: int) -> bool:
    """Returns whether there is an apostrophe between two letters at a position."""
    return text[at] in "'\u2019" and text[max(0, at - 1) : at].isalpha() and text[at + 1 : at + 2].isalpha()


def _is_word_character(text: str, at: int) -> bool:
    r"""Returns whether a character belongs to a word. Combining marks do, although `\w` excludes them; an underscore
    does between letters, but not around words as in Markdown; superscript figures do after a unit, and are footnote
    marks otherwise.
    """
    char = text[at]
    if char == "_":
        return text[at - 1 : at].isalnum() and text[at + 1 : at + 2].isalnum()
    if unicodedata.decomposition(char).startswith("<super>"):
        return _UNIT.search(text, max(0, at - _LONGEST_UNIT - 1), at + 1) is not None
    return char.isalnum() or unicodedata.category(char).startswith("M")


def find_words(words: str, text: str) -> list[int]:
    """Returns the starts of an exact text at word and number boundaries (`9` is neither in `1998` nor in `9.5`)."""
    before = r"(?<!\w)(?<!\d[.,:])" if words[:1].isdigit() else r"(?<!\w)"
    after = r"(?!\w)(?![.,:]\d)" if words[-1:].isdigit() else r"(?!\w)"
    return [found.start() for found in re.finditer(before + re.escape(words) + after, text)] if words else []

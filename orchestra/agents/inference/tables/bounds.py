"""Bounds: whether a figure of a question is an upper or a lower bound, by the words before and after it."""

from __future__ import annotations

import re
from typing import Final

from orchestra.text.numbers.sort_keys import ABOVE, BELOW, FROM, UP_TO
from orchestra.text.numbers.words import NUMBER_WORDS_PATTERN

CONTEXT_CHARACTERS: Final = 60
"""Characters before and after a figure that are read."""
_MORE_WORDS = (
    "more|greater|larger|bigger|higher|longer|heavier|older|later|newer|taller|wider|deeper|dearer|warmer|hotter|faster|quicker|stronger"
    "|further|farther|better"
)
_LESS_WORDS = (
    "less|fewer|lower|smaller|shorter|lighter|younger|earlier|sooner|narrower|shallower|cheaper|colder|cooler|slower|weaker|worse|nearer"
    "|closer"
)
_NEGATION = (
    r"(?:\b(?:no|not|never|nothing|nobody|none|cannot|dont|cant|wont|isnt|doesnt|didnt|mustnt)\b|n['’]t\b)(?:"
    r" \w+){0,2}?"
)
_WORDS_BEFORE: Final = (
    (UP_TO, rf"{_NEGATION} (?:(?:{_MORE_WORDS}|expensive) than|over|above|after|exceed(?:ing)?|past|beyond)"),
    (FROM, rf"{_NEGATION} (?:(?:{_LESS_WORDS}) than|under|below|before)"),
    (ABOVE, r"\b(?:over|above|exceed(?:s|ed|ing)?|beyond|more than|higher than)(?: \w+){1,3} limit of"),
    (
        FROM,
        rf"\b(?:(?:{_MORE_WORDS}) than or equal to|(?:on|in|at|from) or (?:after|above|over)|equals? or exceeds?)|>=|≥",
    ),
    (UP_TO, rf"\b(?:(?:{_LESS_WORDS}) than or equal to|(?:on|in|at|by) or (?:before|below|under))|<=|≤"),
    (BELOW, rf"\b(?:(?:{_LESS_WORDS})(?: \w+)? than|under|below|before|short of|beneath)|<"),
    (
        ABOVE,
        rf"\b(?:(?:{_MORE_WORDS}|expensive|in excess|upwards?)(?: \w+)? (?:than|of)"
        r"|over|above|after|exceed(?:s|ed|ing)?|past|beyond|beats?)|>",
    ),
    (FROM, r"\b(?:at (?:the )?least|minimum(?: of)?|since|starting(?: at| in| from)?|min\.?)"),
    (UP_TO, r"\b(?:at (?:the )?most|maximum(?: of)?|max\.?|up to|within|until|till|limit of|at the latest)"),
)
"""Bounds by the words right before a figure. The first match is used."""
_NOT_NEXT_FIGURE = r"(?! than|\s+[$€£¥\d])"
"""Excludes words that belong to the next figure, as in “more than 5 and less than 10”."""
_ENDS = r"(?=\s*(?:[,.;:?!)]|$))"
_WORDS_AFTER: Final = (
    (FROM, rf"(?:or|and) (?:{_MORE_WORDS}|over|above|after|up|upwards?|onwards?|beyond)\b{_NOT_NEXT_FIGURE}"),
    (FROM, rf"(?:upwards?|onwards?)\b|(?:on|up|plus|at least|minimum){_ENDS}|at the earliest\b"),
    (UP_TO, rf"(?:or|and) (?:{_LESS_WORDS}|under|below|before)\b{_NOT_NEXT_FIGURE}"),
    (UP_TO, rf"(?:at (?:the )?most|maximum|max|tops){_ENDS}|at the latest\b"),
)
"""Bounds by the words soon after a figure."""
_FILLER = r"(?:\s+(?:a|an|the|about|some|year|ages?|of|its|just|exactly|that)){0,3}\s*[$€£¥(]*\s*$"
_PATTERNS_BEFORE: Final = tuple(
    (bound, re.compile(f"(?:{words}){_FILLER}", re.IGNORECASE)) for bound, words in _WORDS_BEFORE
)
_PATTERNS_AFTER: Final = tuple(
    (bound, re.compile(rf"^(?:[%°²³]\w?)?(?:\s+[\w%°²³/€$£'’-]+){{0,2}}?[\s,(]+(?:{words})", re.IGNORECASE))
    for bound, words in _WORDS_AFTER
)
_FIGURE = rf"[$€£¥]?(?:\d[\d,.:]*|{NUMBER_WORDS_PATTERN}(?:-\w+)?)"
_FROM = re.compile(rf"\bbetween{_FILLER}", re.IGNORECASE)
_TO = re.compile(rf"^(?:\s+[\w%°²³$€£]+)?\s+and(?:\s+(?:the|about))?\s+{_FIGURE}", re.IGNORECASE)
_BETWEEN = re.compile(
    rf"\bbetween(?:\s+(?:the|ages?|of|about)){{0,3}}\s+{_FIGURE}(?:\s+[\w%°²³$€£]+)?\s+and(?:\s+(?:the|about))?\s*[$€£¥(]*\s*$",
    re.IGNORECASE,
)
"""The words before the second figure of “between 10 and 20 euros”, and around the first."""
_YEAR = re.compile(r"(?:1[89]|20)\d\d")
"""Between two years there is mostly a change, not a range of rows."""
_PLUS = re.compile(r"^\s?\+(?!\s*[\d$€£¥])")
_BY = re.compile(
    r"(?P<moved>\b(?:grew|rose|fell|gained|dropped|increased?|decreased?|changed?|reduced?|raised?|cut|up|down)"
    rf" )?\bby{_FILLER}",
    re.IGNORECASE,
)
_OVER = re.compile(rf"\b(?:over|past|within)(?P<the> the)?{_FILLER}", re.IGNORECASE)
_SPAN = re.compile(r"^\s*(?:days?|nights?|weeks?|months?|quarters?|years?|seasons?)\b", re.IGNORECASE)
_INVERTED: Final = {ABOVE: BELOW, FROM: UP_TO, BELOW: ABOVE, UP_TO: FROM}
_AGE_WORDS = re.compile(r"\b(?:older|younger)\b", re.IGNORECASE)
_SPEED_WORDS = re.compile(r"\b(?:faster|quicker|slower|better|worse)\b", re.IGNORECASE)


def find_bound(before: str, text: str, after: str, *, dated: bool, spelt: bool = False) -> str | None:
    """Returns the bound that the words before and after a figure set.

    Args:
        dated: Whether the figure is a time or a date, as after `by`.
        spelt: Whether the figure is a number in words.
    """
    if _PLUS.search(after):
        return FROM
    if not _YEAR.fullmatch(text):
        if _FROM.search(before) and _TO.search(after):
            return FROM
        if _BETWEEN.search(before):
            return UP_TO
    if (first_match := _first_match(_PATTERNS_AFTER, after)) is not None:
        return first_match[0]
    if (by := _BY.search(before)) is not None:
        return UP_TO if dated and not by["moved"] else None
    if (over := _OVER.search(before)) is not None and (_SPAN.search(after) or (over["the"] and spelt and not dated)):
        return None  # “over 3 years” and “over the two years” are periods, not bounds
    if (first_match := _first_match(_PATTERNS_BEFORE, before)) is None:
        return None
    age_match = (dated and text.isdigit() and _AGE_WORDS.search(first_match[1])) or (
        re.search(r":|hour|min|sec", text) and _SPEED_WORDS.search(first_match[1])
    )
    return _INVERTED[first_match[0]] if age_match else first_match[0]


def _first_match(patterns: tuple[tuple[str, re.Pattern[str]], ...], text: str) -> tuple[str, str] | None:
    """Returns the bound of the first matching pattern, and the matched words."""
    fits = ((bound, pattern.search(text)) for bound, pattern in patterns)
    return next(((bound, match[0]) for bound, match in fits if match is not None), None)

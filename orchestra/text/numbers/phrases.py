"""Phrases that say a number and are no plain one: `two thirds`, `the seventh`, `half a dozen`, `1/2`; and words that only seem to.

What a text says so is one thing, and what bears a number out is more: `both` and `twice` are a two, and `Louis XIV` is a fourteenth.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Final, NamedTuple

from orchestra.text.keywords import CASE_FOLDS
from orchestra.text.numbers.units import UNIT_PATTERN
from orchestra.text.numbers.words import SMALL_NUMBERS, TENS_WORDS, UNIT_WORDS

_IRREGULAR_ORDINALS: Final = {
    "first": 1, "second": 2, "third": 3, "fifth": 5, "eighth": 8, "ninth": 9, "twelfth": 12, "hundredth": 100, "thousandth": 1000,
    "millionth": 10**6,
}  # fmt: skip
_UNIT_ORDINALS = {
    f"{name}th": SMALL_NUMBERS[name] for name in UNIT_WORDS[4:] if name not in ("five", "eight", "nine", "twelve")
} | _IRREGULAR_ORDINALS
_TENS_ORDINALS = {f"{name[:-1]}ieth": SMALL_NUMBERS[name] for name in TENS_WORDS}
ORDINALS: Final = {
    **_UNIT_ORDINALS,
    **_TENS_ORDINALS,
    **{f"{ten}-{one}": SMALL_NUMBERS[ten] + at for ten in TENS_WORDS for one, at in _UNIT_ORDINALS.items() if at < 10},
}
"""By word, up to the ninety-ninth, with those of powers of ten."""
_DENOMINATORS = {**{name: at for name, at in ORDINALS.items() if at > 2 and "-" not in name}, "quarter": 4, "half": 2, "halve": 2}
_DENOMINATOR_PATTERN = "|".join(sorted(_DENOMINATORS, key=len, reverse=True))
_SMALL_NUMBERS = "|".join(sorted(UNIT_WORDS[1:], key=len, reverse=True))
_PHRASE = re.compile(
    rf"""\b(?=[aefhmnostz])(?:(?:(?P<dozens>an?|{_SMALL_NUMBERS})\s|(?P<six>(?:an?\s)?half(?:\s|-)an?\s))dozen
    |(?:(?P<many>{_SMALL_NUMBERS})[\s-](?P<parts>{_DENOMINATOR_PATTERN})s?|(?P<article>an?)\s(?P<part>{_DENOMINATOR_PATTERN})|(?P<half>half))
    \b(?P<of>\s(?:of|the|its|their|an?)\b)?
    |(?:(?P<tens>{"|".join(TENS_WORDS)})[\s-])?
    (?P<word>{"|".join(sorted({**_UNIT_ORDINALS, **_TENS_ORDINALS}, key=len, reverse=True))}))\b""",
    re.VERBOSE | re.IGNORECASE,
)
_SLASH_FRACTION = re.compile(
    r"(?<![\w/.,-])(?:(?P<whole>\d{1,4})[ -])?(?P<over>\d{1,4})(?P<slash>[/⁄])(?P<under>[1-9]\d{0,3})(?![\w/]|[.,-]\d)"
)
_CLOCK = re.compile(r"\s(?:past|to|after|before)\b|-", re.IGNORECASE)
"""Behind `half` and `a quarter`: a time of the day, or a word that begins so."""
_WHICH = re.compile(r"\b(?:first|second|other|latter|former|better|the|this|that|each|either|top|bottom)\s$", re.IGNORECASE)
"""Before `half`: one of two, and no number."""
_BEFORE = 12
NON_NUMBER_PATTERN: Final = re.compile(
    r"\b(?:no[\s-]one(?!-)|one\sanother|one\sby\sone|one['’]s|(?:every|any|each|the|this|that|which|only)\sone(?!\s[a-z])|some\sone"
    r"|one\sof\s(?:the|its|his|her|their|our|my|these|those|a|many|several)|at\sfirst|first\sof\sall|in\sthe\sfirst\splace"
    r"|first\snames?|on\sthe\sone\shand|one\sday|at\sone\s(?:time|point)|one\s(?:can|could|may|might|must|should|would)"
    r"|on\ssecond\sthoughts?|second\sto\snone|second[\s-]hand|first[\s-]hand"
    r"|per\ssecond|(?<=[a-z\d]-)second|(?<=\d\s)second)\b",
    re.IGNORECASE,
)
"""Phrases whose words count nothing."""
_HINTS = {
    "both": 2, "pair": 2, "pairs": 2, "couple": 2, "twice": 2, "double": 2, "doubled": 2, "dual": 2, "twin": 2, "twins": 2, "duo": 2,
    "once": 1, "single": 1, "sole": 1, "thrice": 3, "triple": 3, "tripled": 3, "treble": 3, "trio": 3, "triplets": 3, "trilogy": 3,
    "quadruple": 4, "quadrupled": 4, "quartet": 4, "quintet": 5, "sextet": 6,
}  # fmt: skip
_QUARTER = re.compile(r"\bQ(?P<number>[1-4])\b")
_HINT = re.compile(rf"\b(?=[bcdopqst])(?:{'|'.join(_HINTS)})\b", re.IGNORECASE)
_ONE = re.compile(rf"\b(?P<article>an?)\s(?:{UNIT_PATTERN})\b", re.IGNORECASE)
_ROMAN = re.compile(r"\b[A-Z]\w+\s(?=[IVX])(?P<tens>X{0,3})(?P<units>IX|IV|V?I{0,3})(?!\w)")
_ROMAN_UNITS = ("", "I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX")
_HYPHENS = str.maketrans("\u2010\u2011", "--") | CASE_FOLDS


class NumberPhrase(NamedTuple):
    """A number that a phrase says, and its place; `other` is what else it may be, as the `a third` of `a third man`."""

    value: Fraction
    start: int
    end: int
    alternative: Fraction | None = None
    is_uncertain: bool = False
    """Whether it may be no number at all."""
    ordinal: bool = False


def find_phrases(text: str) -> Iterator[NumberPhrase]:
    """The shares, ordinals and dozens of a text, as far as they are words, and then those with a stroke."""
    text = text.translate(_HYPHENS)
    for match in _PHRASE.finditer(text):
        if (found := _phrase(match)) is not None:
            yield found
    for match in _SLASH_FRACTION.finditer(text):
        over, under, whole = int(match["over"]), int(match["under"]), int(match["whole"] or 0)
        if whole and over >= under:
            whole = 0
        start = match.start() if whole else match.start("over")
        yield NumberPhrase(whole + Fraction(over, under), start, match.end())


def _phrase(match: re.Match[str]) -> NumberPhrase | None:
    start, end = match.span()
    if match["dozens"] or match["six"]:
        many = Fraction(1, 2) if match["six"] else Fraction(SMALL_NUMBERS.get(match["dozens"].lower(), 1))
        return NumberPhrase(12 * many, start, end)
    if match["word"]:
        place = ORDINALS[match["word"].lower()] + (SMALL_NUMBERS[match["tens"].lower()] if match["tens"] else 0)
        return NumberPhrase(Fraction(place), start, end, is_uncertain=place <= 2, ordinal=True)
    before, behind = match.string[max(0, start - _BEFORE) : start], match.end("of") if match["of"] else end
    if match["of"]:
        end = match.start("of")
    if match["half"]:
        if _WHICH.search(before) or (not match["of"] and _CLOCK.match(match.string, end)):
            return None
        return NumberPhrase(Fraction(1, 2), start, end, is_uncertain=not match["of"])
    if match["article"]:
        under = _DENOMINATORS[match["part"].lower()]
        if under == 4 and _CLOCK.match(match.string, end):
            return None
        plain = match.string[end:behind].strip().lower() == "of"
        return NumberPhrase(Fraction(1, under), start, end, None if plain or under == 2 else Fraction(under), is_uncertain=not plain)
    over, under = SMALL_NUMBERS[match["many"].lower()], _DENOMINATORS[match["parts"].lower()]
    if under < 100 or match.string[end - 1] in "sS":
        return NumberPhrase(Fraction(over, under), start, end)
    if over > 1 or before.lower().endswith("the "):  # the two hundredth
        return NumberPhrase(Fraction(over * under), start, end, ordinal=True)
    return NumberPhrase(Fraction(over, under), start, end, None if match["of"] else Fraction(under))


def find_unit_articles(text: str) -> Iterator[tuple[NumberPhrase, int]]:
    """Articles before a unit, and where that ends: `an hour` is one."""
    return ((NumberPhrase(Fraction(1), match.start(), match.end("article")), match.end()) for match in _ONE.finditer(text))


def find_hints(text: str) -> Iterator[NumberPhrase]:
    """What bears out a number in words though it says none: `both`, `twice`, and Roman numerals behind a name; `Q4` a fourth quarter."""
    for match in _HINT.finditer(text):
        yield NumberPhrase(Fraction(_HINTS[match[0].lower()]), *match.span())
    for match in _ROMAN.finditer(text):
        yield NumberPhrase(Fraction(10 * len(match["tens"]) + _ROMAN_UNITS.index(match["units"])), match.start("tens"), match.end())
    for match in _QUARTER.finditer(text):
        yield NumberPhrase(Fraction(int(match["number"])), *match.span())

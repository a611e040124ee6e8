"""Numbers in words, such as `twenty-one`, `a hundred and five`, `two million three hundred thousand` and `half a
million`, and phrases with numbers, such as `two thirds`, `the seventh`, `half a dozen` and `1/2`.

A phrase states a number, or supports one: `both` and `twice` support a two, and `Louis XIV` a fourteenth.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Final, NamedTuple

from orchestra.text.keywords import CASE_FOLDS
from orchestra.text.numbers.units import UNIT_PATTERN

UNIT_WORDS: Final = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
TENS_WORDS: Final = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
SMALL_NUMBERS: Final = {name: value for value, name in enumerate(UNIT_WORDS)} | {
    name: 10 * value for value, name in enumerate(TENS_WORDS, 2)
}
"""Words for numbers below a hundred."""
POWER_WORDS: Final = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
"""Words that multiply, with their powers of ten."""
_POWER = "|".join(POWER_WORDS)
_WORD = rf"(?:{'|'.join(sorted((*SMALL_NUMBERS, *POWER_WORDS), key=len, reverse=True))})\b"
NUMBER_WORDS_PATTERN: Final = rf"{_WORD}(?:[\s-](?:and[\s-])?{_WORD})*"
"""A sequence of number words, as a pattern; `find_written_numbers` splits it into numbers."""
_SMALL = (
    rf"(?:(?P<tens>{'|'.join(TENS_WORDS)})(?:[\s-](?P<unit>{'|'.join(UNIT_WORDS[1:10])}))?"
    rf"|(?P<word>{'|'.join(reversed(UNIT_WORDS))}))\b"
)
_START = re.compile(
    rf"\b(?:(?P<one>an?)(?=[\s-](?:{_POWER})\b)|(?P<part>half|quarter|an?[\s-](?:half|quarter))\b|{_SMALL})",
    re.IGNORECASE,
)
_NEXT = re.compile(rf"[\s-](?P<and>and[\s-])?{_SMALL}", re.IGNORECASE)
"""Continuations of `two hundred` or `two million`: `and five`, `three hundred`."""
_HUNDREDS = re.compile(r"[\s-]hundred\b", re.IGNORECASE)
_SCALE = re.compile(r"[\s-](thousand|million|billion|trillion)s?\b", re.IGNORECASE)
_HALF = re.compile(r"[\s-]and[\s-]a[\s-]half\b", re.IGNORECASE)
_PART = re.compile(
    rf"(?:(?P<half>(?:an?[\s-]|one[\s-])?half)|(?P<quarter>(?:an?[\s-]|one[\s-])?quarter)|three[\s-]quarters)"
    rf"(?:[\s-]of)?(?:[\s-]an?)?[\s-](?P<scale>{_POWER})\b",
    re.IGNORECASE,
)
_FRACTION_OF = re.compile(r"(?:ths?|thirds?|quarters?|hal(?:f|ves))\s+of\s+$", re.IGNORECASE)
"""Before `a million`: a fraction of it, which is another number."""
_BETWEEN = re.compile(r"\bbetween\s(?:about\s|around\s|roughly\s|some\s)?$", re.IGNORECASE)
_OTHER_END = re.compile(r"\s(?:and|to)\s", re.IGNORECASE)
_HYPHENS = str.maketrans("\u2010\u2011", "--") | CASE_FOLDS
_BEFORE = 24
"""Characters before a number that are examined."""


class WrittenNumber(NamedTuple):
    """A number in words and its position; `plain` and `step` are as in `orchestra.text.numbers.numbers.Number`."""

    value: Fraction
    plain: Fraction
    step: Fraction
    start: int
    end: int


def find_written_numbers(text: str) -> Iterator[WrittenNumber]:
    """Yields the written-out numbers of a text in order."""
    text = text.translate(_HYPHENS)
    after = 0
    for match in _START.finditer(text):
        if match.start() < after:
            continue
        before = text[max(0, match.start() - _BEFORE) : match.start()]
        found = _fraction_of_power(text, match.start())
        if found is None and not match["part"] and not (match["one"] and _FRACTION_OF.search(before)):
            found = _compose(text, match, joined=True)
            if _BETWEEN.search(before) and not _OTHER_END.match(text, found.end):
                found = _compose(text, match, joined=False)
        if found is not None:
            after = found.end
            yield found


def _fraction_of_power(text: str, start: int) -> WrittenNumber | None:
    """Parses half a million, three quarters of a million."""
    if (match := _PART.match(text, start)) is None:
        return None
    share = Fraction(1, 2) if match["half"] else Fraction(1, 4) if match["quarter"] else Fraction(3, 4)
    scale = Fraction(10 ** POWER_WORDS[match["scale"].lower()])
    return WrittenNumber(share * scale, share, scale / 100, start, match.end())


def _compose(text: str, match: re.Match[str], *, joined: bool) -> WrittenNumber:
    """Parses a number from its first word. Without `joined`, an `and` separates two numbers, as after `between`."""
    group, end = _parse_group(text, match, joined=joined)
    power, end = _parse_scale(text, end)
    total, plain, step = group * 10**power, group, Fraction(10**power)
    if half := _HALF.match(text, end):  # a million and a half
        return WrittenNumber(total + step / 2, total + step / 2, step / 10, match.start(), half.end())
    while power and (following := _NEXT.match(text, end)):
        group, group_end = _parse_group(text, following, joined=joined)
        lower, group_end = _parse_scale(text, group_end)
        if lower >= power or (following["and"] and (lower or group >= 100 or not joined)):
            break
        total, end, power, step = total + group * 10**lower, group_end, lower, Fraction(10**lower)
        plain = total
    return WrittenNumber(total, plain, step, match.start(), end)


def _parse_group(text: str, match: re.Match[str], *, joined: bool) -> tuple[Fraction, int]:
    """Parses a number below a thousand, or a number of hundreds, and returns its end."""
    value, end = _small_value(match), match.end()
    if hundreds := _HUNDREDS.match(text, end):
        value, end = value * 100, hundreds.end()
        rest = _NEXT.match(text, end)
        # `one hundred and two hundred` are two numbers
        if rest and not _HUNDREDS.match(text, rest.end()) and (joined or not rest["and"]):
            value, end = value + _small_value(rest), rest.end()
    elif half := _HALF.match(text, end):
        return value + Fraction(1, 2), half.end()
    return Fraction(value), end


def _small_value(match: re.Match[str]) -> int:
    """Returns a number below a hundred."""
    words = [word.lower() for word in (match["tens"], match["unit"], match["word"]) if word]
    return sum(SMALL_NUMBERS[word] for word in words) if words else 1


def _parse_scale(text: str, end: int) -> tuple[int, int]:
    """Returns the power of ten that follows, and its end."""
    power = 0
    while match := _SCALE.match(text, end):  # a thousand million
        power, end = power + POWER_WORDS[match[1].lower()], match.end()
    return power, end


_IRREGULAR_ORDINALS: Final = {
    "first": 1, "second": 2, "third": 3, "fifth": 5, "eighth": 8, "ninth": 9, "twelfth": 12, "hundredth": 100,
    "thousandth": 1000, "millionth": 10**6,
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
"""By word, up to the ninety-ninth, and those of powers of ten."""
_DENOMINATORS = {
    **{name: at for name, at in ORDINALS.items() if at > 2 and "-" not in name},
    "quarter": 4,
    "half": 2,
    "halve": 2,
}
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
"""After `half` and `a quarter`: a time of day, or a compound word."""
_WHICH = re.compile(
    r"\b(?:first|second|other|latter|former|better|the|this|that|each|either|top|bottom)\s$", re.IGNORECASE
)
"""Before `half`: one of two, which is not a number."""
_PHRASE_CONTEXT = 12
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
    "both": 2, "pair": 2, "pairs": 2, "couple": 2, "twice": 2, "double": 2, "doubled": 2, "dual": 2, "twin": 2,
    "twins": 2, "duo": 2, "once": 1, "single": 1, "sole": 1, "thrice": 3, "triple": 3, "tripled": 3, "treble": 3,
    "trio": 3, "triplets": 3, "trilogy": 3, "quadruple": 4, "quadrupled": 4, "quartet": 4, "quintet": 5, "sextet": 6,
}  # fmt: skip
_QUARTER = re.compile(r"\bQ(?P<number>[1-4])\b")
_HINT = re.compile(rf"\b(?=[bcdopqst])(?:{'|'.join(_HINTS)})\b", re.IGNORECASE)
_ONE = re.compile(rf"\b(?P<article>an?)\s(?:{UNIT_PATTERN})\b", re.IGNORECASE)
_ROMAN = re.compile(r"\b[A-Z]\w+\s(?=[IVX])(?P<tens>X{0,3})(?P<units>IX|IV|V?I{0,3})(?!\w)")
_ROMAN_UNITS = ("", "I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX")


class NumberPhrase(NamedTuple):
    """A number stated by a phrase, and its position; `other` is the other reading, such as the `a third` of `a third
    man`.
    """

    value: Fraction
    start: int
    end: int
    alternative: Fraction | None = None
    is_uncertain: bool = False
    """Whether it may not be a number."""
    ordinal: bool = False


def find_phrases(text: str) -> Iterator[NumberPhrase]:
    """Yields the fractions, ordinals and dozens of a text in words, then fractions with a slash."""
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
    before, behind = match.string[max(0, start - _PHRASE_CONTEXT) : start], match.end("of") if match["of"] else end
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
        return NumberPhrase(
            Fraction(1, under), start, end, None if plain or under == 2 else Fraction(under), is_uncertain=not plain
        )
    over, under = SMALL_NUMBERS[match["many"].lower()], _DENOMINATORS[match["parts"].lower()]
    if under < 100 or match.string[end - 1] in "sS":
        return NumberPhrase(Fraction(over, under), start, end)
    if over > 1 or before.lower().endswith("the "):  # the two hundredth
        return NumberPhrase(Fraction(over * under), start, end, ordinal=True)
    return NumberPhrase(Fraction(over, under), start, end, None if match["of"] else Fraction(under))


def find_unit_articles(text: str) -> Iterator[tuple[NumberPhrase, int]]:
    """Yields articles before a unit, and their ends: `an hour` is one hour."""
    return (
        (NumberPhrase(Fraction(1), match.start(), match.end("article")), match.end()) for match in _ONE.finditer(text)
    )


def find_hints(text: str) -> Iterator[NumberPhrase]:
    """Yields words that support a number without stating it: `both`, `twice`, Roman numerals after a name; `Q4`
    supports a fourth quarter.
    """
    for match in _HINT.finditer(text):
        yield NumberPhrase(Fraction(_HINTS[match[0].lower()]), *match.span())
    for match in _ROMAN.finditer(text):
        yield NumberPhrase(
            Fraction(10 * len(match["tens"]) + _ROMAN_UNITS.index(match["units"])), match.start("tens"), match.end()
        )
    for match in _QUARTER.finditer(text):
        yield NumberPhrase(Fraction(int(match["number"])), *match.span())
